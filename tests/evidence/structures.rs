//! Parses TPM structures in the way of a verifier, only from their bytes.

use crate::device::Bundle;
use testkit::openssl::{Verifier, der, digest, element};

/// The part of a structure that was not read yet.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (piece, rest) = self.0.split_at(count);
        self.0 = rest;
        piece
    }

    pub fn uint16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    pub fn uint32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    pub fn sized(&mut self) -> &'a [u8] {
        let size = self.uint16();
        self.take(size.into())
    }
}

/// OpenSSL's name of a TPM_ALG_ID.
pub fn hash(algorithm: u16) -> &'static str {
    match algorithm {
        0x000B => "-sha256",
        0x000C => "-sha384",
        0x000D => "-sha512",
        other => panic!("no hash: {other:#x}"),
    }
}

/// nameAlg and the digest of a TPMT_PUBLIC.
pub fn name(public: &[u8]) -> Vec<u8> {
    let algorithm = [public[2], public[3]];
    let digest = digest(hash(u16::from_be_bytes(algorithm)), public);
    [&algorithm[..], &digest].concat()
}

/// TPMA_OBJECT.
pub fn attributes(public: &[u8]) -> u32 {
    u32::from_be_bytes(public[4..8].try_into().unwrap())
}

/// SubjectPublicKeyInfo of a TPMT_PUBLIC of a signing key.
pub fn key_info(public: &[u8]) -> Vec<u8> {
    let mut reader = Reader(public);
    let kind = reader.uint16();
    reader.take(6);
    reader.sized();
    assert_eq!(reader.uint16(), 0x10, "no symmetric algorithm");
    if reader.uint16() != 0x10 {
        reader.uint16(); // the scheme's hash
    }
    let oid = |digits: &[u8]| element(6, digits);
    let bits = |body: &[u8]| element(3, &[&[0], body].concat());
    if kind == 0x01 {
        reader.uint16();
        assert_eq!(reader.uint32(), 0, "the exponent 65537");
        let integer = |digits: &[u8]| element(2, &[&[0], digits].concat());
        let numbers = [integer(reader.sized()), element(2, &[1, 0, 1])].concat();
        let rsa = [
            oid(&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 1]),
            element(5, &[]),
        ];
        let key = bits(&element(0x30, &numbers));
        return element(0x30, &[element(0x30, &rsa.concat()), key].concat());
    }
    let curve: &[u8] = match reader.uint16() {
        3 => &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 3, 1, 7],
        4 => &[0x2B, 0x81, 4, 0, 0x22],
        5 => &[0x2B, 0x81, 4, 0, 0x23],
        other => panic!("no curve: {other}"),
    };
    assert_eq!(reader.uint16(), 0x10, "no kdf");
    let width = match curve.last() {
        Some(7) => 32,
        Some(0x22) => 48,
        _ => 66,
    };
    let point = [
        &[4],
        &padded(reader.sized(), width)[..],
        &padded(reader.sized(), width),
    ]
    .concat();
    let algorithm = [oid(&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 2, 1]), oid(curve)].concat();
    element(0x30, &[element(0x30, &algorithm), bits(&point)].concat())
}

fn padded(number: &[u8], width: usize) -> Vec<u8> {
    [&vec![0; width - number.len()][..], number].concat()
}

/// The content of TPM2_Certify, after its signature was verified with the attestation key.
#[track_caller]
pub fn certified<'a>(bundle: &'a Bundle, path: &str) -> Certified<'a> {
    let signer = bundle.bytes("attestationKey/public");
    let (attest, signature) = (
        bundle.bytes(&format!("{path}/certify")),
        bundle.bytes(&format!("{path}/signature")),
    );
    let file = bundle.file("signer.der", &key_info(&signer));
    let verifier = Verifier::new(&file);
    let mut reader = Reader(&signature);
    let (scheme, algorithm) = (reader.uint16(), reader.uint16());
    match scheme {
        0x18 => {
            let (r, s) = (reader.sized(), reader.sized());
            let width = r.len().max(s.len());
            let both = [padded(r, width), padded(s, width)].concat();
            verifier
                .accepts_der(hash(algorithm), &attest, &der(&both))
                .ok();
        }
        0x14 => {
            verifier
                .accepts_der(hash(algorithm), &attest, reader.sized())
                .ok();
        }
        0x16 => {
            let digest = digest(hash(algorithm), &attest);
            verifier
                .accepts_pss(&hash(algorithm)[1..], &digest, reader.sized())
                .ok();
        }
        other => panic!("no signature scheme: {other:#x}"),
    };
    assert!(reader.0.is_empty(), "nothing behind the signature");
    let mut reader = Reader(&attest);
    assert_eq!(reader.uint32(), 0xFF54_4347, "TPM_GENERATED_VALUE");
    assert_eq!(reader.uint16(), 0x8017, "TPM_ST_ATTEST_CERTIFY");
    reader.sized(); // the signer's qualified name
    let nonce = reader.sized().to_vec();
    reader.take(17 + 8); // clock and firmware
    let named = reader.sized().to_vec();
    reader.sized();
    assert!(reader.0.is_empty(), "nothing behind the attestation");
    let public = bundle.bytes(&format!("{path}/public"));
    assert_eq!(
        named,
        name(&public),
        "the certified key is the one that is shown"
    );
    assert_ne!(attributes(&signer) & 1 << 16, 0, "the signer is restricted");
    Certified {
        bundle,
        nonce,
        public,
    }
}

/// A key that an attestation key certified.
pub struct Certified<'a> {
    bundle: &'a Bundle,
    /// extraData
    pub nonce: Vec<u8>,
    /// TPMT_PUBLIC
    pub public: Vec<u8>,
}

impl Certified<'_> {
    /// The request is signed, and by this key: OpenSSL says so.
    #[track_caller]
    pub fn signed_the_request(&self) {
        let request = self.bundle.file("request.der", &self.bundle.bytes("csr"));
        let mut verify = testkit::programs::program("openssl");
        verify.args([
            "req", "-verify", "-noout", "-pubkey", "-inform", "DER", "-in",
        ]);
        let shown = testkit::programs::run(verify.arg(request)).ok();
        let pem = self.bundle.file("request.pub", &shown.out);
        assert_eq!(
            testkit::openssl::public_key_der(&pem),
            key_info(&self.public),
            "the request is for the certified key"
        );
    }
}
