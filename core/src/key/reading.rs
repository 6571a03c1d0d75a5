//! Parses the file formats of private keys, and describes other contents.

use super::{Curve, PrivateKeyInfo, PublicKey, pad_left};
use crate::oid::{EC_PUBLIC_KEY, RSA_ENCRYPTION};
use crate::pem::{self, Block};
use pkcs1::RsaPrivateKeyRef;
use pkcs1::der::Decode;
use pkcs1::der::asn1::ObjectIdentifier;
use pkcs8::PrivateKeyInfoRef;
use sec1::EcPrivateKey;
use std::io::BufRead;
use zeroize::Zeroizing;

/// The message about a file with an encrypted key.
const ENCRYPTED: &str = "its private key is encrypted, but devid does not ask for a passphrase; \
     make a copy in clear with openssl pkey -in … -out …, mode 0600";
const EXPLICIT: &str = "an EC key that describes its curve instead of naming it";
const NO_NUMBER: &str = "its number is not a valid private key of its curve";
/// The minimum size of an RSA key that is used in memory, in bits.
const SMALLEST_RSA: u32 = 2048;

const EC_PARAMETERS: &str = "EC PARAMETERS";
const EC_KEY: &str = "EC PRIVATE KEY";
const KEY: &str = "PRIVATE KEY";

/// The key algorithms that this project does not support, with their names for messages.
const ALGORITHMS: [(&str, &str); 13] = [
    ("1.2.840.113549.1.1.7", "RSAES-OAEP only"),
    ("1.2.840.113549.1.1.10", "RSASSA-PSS only"),
    ("1.2.840.113549.1.3.1", "Diffie-Hellman"),
    ("1.2.840.10040.4.1", "DSA"),
    ("1.3.101.110", "X25519"),
    ("1.3.101.111", "X448"),
    ("1.3.101.112", "Ed25519"),
    ("1.3.101.113", "Ed448"),
    ("1.2.156.10197.1.301", "SM2"),
    ("2.16.840.1.101.3.4.3.17", "ML-DSA-44"),
    ("2.16.840.1.101.3.4.3.18", "ML-DSA-65"),
    ("2.16.840.1.101.3.4.3.19", "ML-DSA-87"),
    ("1.3.132.1.12", "ECDH only"),
];

/// The curves that this project does not support, with their names for messages.
const CURVES: [(&str, &str); 8] = [
    ("1.3.132.0.10", "secp256k1"),
    ("1.3.132.0.33", "P-224"),
    ("1.2.840.10045.3.1.1", "P-192"),
    ("1.3.36.3.3.2.8.1.1.7", "brainpoolP256r1"),
    ("1.3.36.3.3.2.8.1.1.11", "brainpoolP384r1"),
    ("1.3.36.3.3.2.8.1.1.13", "brainpoolP512r1"),
    ("1.2.156.10197.1.301", "SM2"),
    ("1.2.643.7.1.2.1.1.1", "GOST R 34.10-2012"),
];

impl PrivateKeyInfo {
    /// Parses a PrivateKeyInfo in DER, and keeps its encoding. Only a missing NULL after
    /// rsaEncryption is added (RFC 8017, appendix A.1).
    ///
    /// # Errors
    ///
    /// Fails with a description of the content.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        let info = PrivateKeyInfoRef::try_from(der);
        let info = info.map_err(|why| format!("not a private key: {why}"))?;
        let private = info.private_key.as_bytes();
        let public = match info.algorithm.oid {
            EC_PUBLIC_KEY => {
                let (curve, scalar) = ec_scalar(private, outer_curve(&info)?)?;
                curve.public_of(&scalar).ok_or(NO_NUMBER)?
            }
            RSA_ENCRYPTION if info.algorithm.parameters.is_none() => {
                return Self::from_pkcs1(private);
            }
            RSA_ENCRYPTION => rsa_public(private)?,
            other => {
                let known = "only EC and RSA keys are supported";
                return Err(format!("a private key for {}; {known}", named(other)));
            }
        };
        let der = Zeroizing::new(der.to_vec());
        Ok(Self { der, public })
    }

    /// Parses the first private key of a PEM file by `openssl` or another program, in one of the
    /// formats of `from_blocks`.
    ///
    /// # Errors
    ///
    /// Fails with a description of the content.
    pub fn from_pem(file: &[u8]) -> Result<Self, String> {
        refuse_encrypted(file)?;
        let blocks = pem::parse(file)?.blocks;
        let first = blocks.iter().position(|block| block.label.ends_with(KEY));
        let first = first.ok_or("it contains no private key")?;
        let from = match first.checked_sub(1) {
            Some(before)
                if blocks[before].label == EC_PARAMETERS && blocks[first].label == EC_KEY =>
            {
                before
            }
            _ => first,
        };
        Self::from_blocks(&blocks[from..=first]).unwrap_or_else(|| Err("no private key".into()))
    }

    /// Parses the PEM blocks of one private key: PrivateKeyInfo, RSAPrivateKey, or ECPrivateKey.
    /// Some programs put a block of EC parameters before an ECPrivateKey (RFC 5915, section 4).
    ///
    /// Returns `None` if the blocks are not a private key.
    ///
    /// # Errors
    ///
    /// Fails with a description of a private key of another type.
    pub(crate) fn from_blocks(blocks: &[Block<'_>]) -> Option<Result<Self, String>> {
        let (parameters, key) = match blocks {
            [key] => (None, key),
            [before, key] if before.label == EC_PARAMETERS => (Some(&before.der), key),
            _ => return None,
        };
        let kind = key.label.strip_suffix(KEY)?.trim_end();
        Some(match (kind, parameters) {
            ("EC", _) => {
                let curve = parameters.map(|der| ObjectIdentifier::from_der(der));
                match curve.transpose() {
                    Ok(curve) => Self::from_sec1(&key.der, curve),
                    Err(_) => Err(EXPLICIT.into()),
                }
            }
            (_, Some(_)) => Err(format!("a {EC_PARAMETERS} block before a {kind} key")),
            ("", None) => Self::from_der(&key.der),
            ("RSA", None) => Self::from_pkcs1(&key.der),
            ("ENCRYPTED", None) => Err(ENCRYPTED.into()),
            ("OPENSSH", None) => Err(
                "a private key in OpenSSH's own format; convert a copy of the file with \
                 ssh-keygen -p -m PKCS8 -N '' -f COPY"
                    .into(),
            ),
            (kind, None) => Err(format!(
                "a private key for {kind}; only EC and RSA keys are supported"
            )),
        })
    }

    /// Parses an ECPrivateKey. `beside` is the curve from the parameters before the key. This curve
    /// is used if the key does not name its curve.
    fn from_sec1(der: &[u8], beside: Option<ObjectIdentifier>) -> Result<Self, String> {
        let key = EcPrivateKey::from_der(der).ok();
        let names_its_own = key.is_some_and(|key| key.parameters.is_some());
        let (curve, scalar) = ec_scalar(der, beside.filter(|_| !names_its_own))?;
        Self::from_scalar(curve, &scalar).ok_or_else(|| NO_NUMBER.into())
    }

    /// Returns the private scalar of an EC key, as wide as the order of the curve.
    pub(crate) fn scalar(&self) -> Option<Zeroizing<Vec<u8>>> {
        let info = PrivateKeyInfoRef::try_from(&self.der[..]).ok()?;
        let read = ec_scalar(info.private_key.as_bytes(), outer_curve(&info).ok()?);
        read.ok().map(|(_, scalar)| scalar)
    }
}

/// Refuses a key in the old encrypted format (RFC 1421, section 4.6.1.1), which has header lines
/// inside its PEM block.
pub(crate) fn refuse_encrypted(file: &[u8]) -> Result<(), String> {
    let is_header = |line: &[u8]| line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED");
    let mut rest = file;
    let mut lines = std::iter::from_fn(|| {
        let line = rest;
        // Searches many bytes at once. Reading from a slice does not fail.
        let length = rest.skip_until(b'\n').unwrap_or_default();
        (length > 0).then(|| line[..length].trim_ascii())
    });
    match lines.any(is_header) {
        true => Err(ENCRYPTED.into()),
        false => Ok(()),
    }
}

/// Returns the curve in the AlgorithmIdentifier of the PrivateKeyInfo.
fn outer_curve(info: &PrivateKeyInfoRef<'_>) -> Result<Option<ObjectIdentifier>, String> {
    let parameters = info.algorithm.parameters;
    let named = parameters.map(|named| named.decode_as::<ObjectIdentifier>());
    named.transpose().map_err(|_| EXPLICIT.into())
}

/// Returns the curve and the scalar of an ECPrivateKey. The scalar is as wide as the order. Some
/// programs add or omit leading zeros. `curve` is the curve that the enclosing structure names.
fn ec_scalar(
    der: &[u8],
    curve: Option<ObjectIdentifier>,
) -> Result<(Curve, Zeroizing<Vec<u8>>), String> {
    let key = EcPrivateKey::from_der(der);
    let key = key.map_err(|why| format!("not an EC key with a named curve: {why}"))?;
    let inner = key.parameters.and_then(|named| named.named_curve());
    let curve = match (curve, inner) {
        (Some(outer), Some(inner)) if outer != inner => {
            return Err("an EC key that names two curves".into());
        }
        (Some(oid), _) | (None, Some(oid)) => curve_of(oid)?,
        (None, None) => {
            let as_wide = |curve: &Curve| curve.width() == key.private_key.len();
            let known = Curve::ALL.into_iter().find(as_wide);
            known.ok_or("an EC key that does not name its curve")?
        }
    };
    let zeros = key.private_key.iter().take_while(|&&byte| byte == 0);
    let scalar = pad_left(&key.private_key[zeros.count()..], curve.width()).map(Zeroizing::new);
    let scalar = scalar.ok_or("its number is longer than the order of its curve")?;
    if let Some(point) = key.public_key {
        let public = PublicKey::from_point(curve, point);
        if public.is_none() || public != curve.public_of(&scalar) {
            return Err("its public key is not that of its private key".into());
        }
    }
    Ok((curve, scalar))
}

fn curve_of(oid: ObjectIdentifier) -> Result<Curve, String> {
    let is = |curve: &Curve| ObjectIdentifier::from_der(curve.oid_der()) == Ok(oid);
    Curve::ALL.into_iter().find(is).ok_or_else(|| {
        let text = oid.to_string();
        let known = CURVES.iter().find(|(known, _)| *known == text);
        let name = known.map_or(text.as_str(), |(_, name)| name);
        format!("a private key on the curve {name}; P-256, P-384 and P-521 are supported")
    })
}

fn named(oid: ObjectIdentifier) -> String {
    match algorithm_name(oid) {
        Some(name) => format!("{name} ({oid})"),
        None => format!("the algorithm {oid}"),
    }
}

/// Returns the name of an unsupported key algorithm, if it is in the list.
pub(crate) fn algorithm_name(oid: ObjectIdentifier) -> Option<&'static str> {
    let text = oid.to_string();
    let found = ALGORITHMS.iter().find(|(known, _)| *known == text);
    found.map(|(_, name)| *name)
}

/// Returns the public key of an RSAPrivateKey that can be used in memory.
pub(super) fn rsa_public(der: &[u8]) -> Result<PublicKey, String> {
    if !cfg!(feature = "soft-rsa") {
        return Err(
            "this build uses RSA keys only in the TPM (it lacks the feature soft-rsa)".into(),
        );
    }
    let key = RsaPrivateKeyRef::from_der(der).map_err(|why| format!("not an RSA key: {why}"))?;
    if key.other_prime_infos.is_some() {
        return Err("an RSA key of more than two primes; only two primes are supported".into());
    }
    let modulus = key.modulus.as_bytes();
    let public = PublicKey::from_rsa(modulus, key.public_exponent.as_bytes());
    match public {
        Some(public) if public.bits() >= SMALLEST_RSA => Ok(public),
        _ => {
            let zeros = modulus.first().map_or(0, |byte| byte.leading_zeros());
            let bits = 8 * modulus.len() - zeros as usize;
            Err(format!(
                "an RSA key of {bits} bits; 2048 to 4096 bits are supported"
            ))
        }
    }
}
