//! Certificates as separate fields, for tests. A test can make each field wrong and still sign the
//! certificate correctly.

use crate::ber::{Element, encoded};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, RsaKeyPair};
use p256::ecdsa::signature::hazmat::PrehashSigner;
use std::collections::HashMap;
use std::sync::Mutex;
use x509_cert::der::Encode;
use x509_cert::name::Name;

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const ECDSA_SHA256: &str = "300a06082a8648ce3d040302";
pub(super) const ECDSA_SHA384: &str = "300a06082a8648ce3d040303";
pub(super) const ECDSA_SHA1: &str = "300906072a8648ce3d0401";
pub(super) const RSA_SHA256: &str = "300d06092a864886f70d01010b0500";
/// The AlgorithmIdentifier of RSASSA-PSS with SHA-256, MGF1 with SHA-256, and 32 bytes of salt, in
/// hexadecimal digits.
pub(super) const RSA_PSS: &str = "304106092a864886f70d01010a3034a00f300d06096086480165030402010500\
                                  a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120";

/// A signing key of a CA or a device.
pub(super) enum Key {
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
    Rsa(RsaKeyPair, Vec<u8>),
}

/// The keys of all CAs and devices. [`Draft::signer`] and [`Draft::holder`] are indices of this
/// list.
pub(super) struct Keys {
    all: Vec<Key>,
    /// Cached signatures, by signer, algorithm and message.
    made: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
}

impl Keys {
    pub(super) const COUNT: usize = 6;
    pub(super) const P384: usize = 4;
    pub(super) const RSA: usize = 5;

    pub(super) fn new() -> Self {
        let small = |number: u8| p256::ecdsa::SigningKey::from_slice(&[number; 32]).unwrap();
        let mut keys: Vec<Key> = (1..=4).map(|number| Key::P256(small(number))).collect();
        let large = p384::ecdsa::SigningKey::from_slice(&[5; 48]).unwrap();
        keys.push(Key::P384(large));
        let pem = include_bytes!("../../../../testdata/chains/rsa-2048.key.pem");
        let der = x509_cert::der::pem::decode_vec(pem).unwrap().1;
        let pair = RsaKeyPair::from_pkcs8(&der).unwrap();
        let public = signature::KeyPair::public_key(&pair).as_ref().to_vec();
        keys.push(Key::Rsa(pair, public));
        Self {
            all: keys,
            made: Mutex::default(),
        }
    }

    /// Returns the SubjectPublicKeyInfo of the key with the index `number`.
    pub(super) fn info(&self, number: usize) -> Vec<u8> {
        let (algorithm, bits) = match &self.all[number] {
            Key::P256(key) => (
                "301306072a8648ce3d020106082a8648ce3d030107",
                key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            ),
            Key::P384(key) => (
                "301006072a8648ce3d020106052b81040022",
                key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            ),
            Key::Rsa(_, public) => ("300d06092a864886f70d0101010500", public.clone()),
        };
        let bits = encoded(3, &[&[0], &bits[..]].concat());
        encoded(SEQUENCE, &[unhex(algorithm), bits].concat())
    }

    fn signed(&self, number: usize, algorithm: &[u8], message: &[u8]) -> Vec<u8> {
        let what = [&[number as u8], algorithm, message].concat();
        if let Some(made) = self.made.lock().unwrap().get(&what) {
            return made.clone();
        }
        let signature = self.sign(number, algorithm, message);
        let mut made = self.made.lock().unwrap();
        made.insert(what, signature.clone());
        signature
    }

    /// Returns the signature of a key. The signature is by this algorithm if the algorithm fits the
    /// key.
    fn sign(&self, number: usize, algorithm: &[u8], message: &[u8]) -> Vec<u8> {
        use crate::tpm::Hash;
        let hash = match algorithm {
            it if it == unhex(ECDSA_SHA384) => Hash::Sha384,
            it if it == unhex(ECDSA_SHA1) => Hash::Sha1,
            _ => Hash::Sha256,
        };
        let digest = hash.digest(&[message]);
        match &self.all[number] {
            Key::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign_prehash(&digest).unwrap();
                signature.to_der().as_bytes().to_vec()
            }
            Key::P384(key) => {
                let signature: p384::ecdsa::Signature = key.sign_prehash(&digest).unwrap();
                signature.to_der().as_bytes().to_vec()
            }
            Key::Rsa(pair, _) => {
                let mut bytes = vec![0; pair.public_modulus_len()];
                let padding: &dyn signature::RsaEncoding = match algorithm == unhex(RSA_PSS) {
                    true => &signature::RSA_PSS_SHA256,
                    false => &signature::RSA_PKCS1_SHA256,
                };
                let random = SystemRandom::new();
                pair.sign(padding, &random, message, &mut bytes).unwrap();
                bytes
            }
        }
    }
}

/// A certificate before signing. Each field is a whole ASN.1 element.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) version: Vec<u8>,
    pub(super) serial: Vec<u8>,
    pub(super) signed_algorithm: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    pub(super) validity: Vec<u8>,
    pub(super) subject: Vec<u8>,
    pub(super) key_info: Vec<u8>,
    pub(super) extensions: Option<Vec<Vec<u8>>>,
    pub(super) algorithm: Vec<u8>,
    pub(super) signer: usize,
    /// Bytes of the signed part that are changed before signing, each with its position.
    pub(super) before: Vec<(usize, u8)>,
    /// Bytes of the certificate that are changed after signing, each with its position.
    pub(super) after: Vec<(usize, u8)>,
    /// The signature bits that replace the correct signature, if set.
    pub(super) bits: Option<Vec<u8>>,
}

impl Draft {
    pub(super) fn new(
        keys: &Keys,
        signer: usize,
        issuer: &str,
        holder: usize,
        subject: &str,
    ) -> Self {
        let algorithm = unhex(match signer {
            Keys::P384 => ECDSA_SHA384,
            Keys::RSA => RSA_SHA256,
            _ => ECDSA_SHA256,
        });
        let times = [
            encoded(0x17, b"240101000000Z"),
            encoded(0x18, b"99991231235959Z"),
        ];
        Self {
            version: unhex("a003020102"),
            serial: encoded(2, &[0x40 + holder as u8; 12]),
            signed_algorithm: algorithm.clone(),
            issuer: name(issuer),
            validity: encoded(SEQUENCE, &times.concat()),
            subject: name(subject),
            key_info: keys.info(holder),
            extensions: Some(Vec::new()),
            algorithm,
            signer,
            before: Vec::new(),
            after: Vec::new(),
            bits: None,
        }
    }

    pub(super) fn with(mut self, oid: &str, critical: bool, value: &str) -> Self {
        self.set(oid, critical, &unhex(value));
        self
    }

    /// Replaces the extension with this identifier, or appends the extension.
    pub(super) fn set(&mut self, oid: &str, critical: bool, value: &[u8]) {
        let new = extension(oid, critical, value);
        let all = self.extensions.get_or_insert_default();
        match all
            .iter()
            .position(|one| identifier_of(one) == Some(unhex(oid)))
        {
            Some(at) => all[at] = new,
            None => all.push(new),
        }
    }

    pub(super) fn build(&self, keys: &Keys) -> Vec<u8> {
        let extensions = self
            .extensions
            .as_ref()
            .map(|all| encoded(0xA3, &encoded(SEQUENCE, &all.concat())));
        let mut signed = encoded(
            SEQUENCE,
            &[
                &self.version[..],
                &self.serial,
                &self.signed_algorithm,
                &self.issuer,
                &self.validity,
                &self.subject,
                &self.key_info,
                &extensions.unwrap_or_default(),
            ]
            .concat(),
        );
        change(&mut signed, &self.before);
        let bits = self.bits.clone().unwrap_or_else(|| {
            [
                &[0],
                &keys.signed(self.signer, &self.algorithm, &signed)[..],
            ]
            .concat()
        });
        let whole = [signed, self.algorithm.clone(), encoded(3, &bits)].concat();
        let mut whole = encoded(SEQUENCE, &whole);
        change(&mut whole, &self.after);
        whole
    }
}

fn change(bytes: &mut [u8], by: &[(usize, u8)]) {
    let length = bytes.len();
    for (at, flip) in by {
        bytes[at % length] ^= flip;
    }
}

/// Encodes an Extension. If `critical` is false, the field `critical` is omitted.
pub(super) fn extension(oid: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    let flag = if critical { &[1, 1, 0xFF][..] } else { &[] };
    encoded(
        SEQUENCE,
        &[&unhex(oid)[..], flag, &encoded(4, value)].concat(),
    )
}

/// Returns the OBJECT IDENTIFIER of an Extension.
pub(super) fn identifier_of(extension: &[u8]) -> Option<Vec<u8>> {
    let parts = Element::only(extension)?.children()?;
    Some(parts.first()?.whole.to_vec())
}

pub(super) fn name(text: &str) -> Vec<u8> {
    match text {
        "" => encoded(SEQUENCE, &[]),
        text => text.parse::<Name>().unwrap().to_der().unwrap(),
    }
}

/// Decodes hexadecimal digits. The text may contain blanks.
pub(super) fn unhex(digits: &str) -> Vec<u8> {
    let digits: String = digits.split_whitespace().collect();
    crate::key::from_hex(&digits).unwrap()
}
