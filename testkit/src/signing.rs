//! Tries every signing mechanism with all its inputs. OpenSSL verifies each signature.

use super::module::Opened;
use super::openssl::{Verifier, digest};
use super::programs::Said;
use super::raw::Code;
use cryptoki_sys::*;

/// A hash with its identifiers.
pub struct Hash {
    /// The name of the hash in OpenSSL.
    pub name: &'static str,
    pub kind: CK_MECHANISM_TYPE,
    pub mask: CK_RSA_PKCS_MGF_TYPE,
    pub width: usize,
    /// The prefix of the digest in a DigestInfo (RFC 8017, section 9.2, note 1).
    pub prefix: &'static [u8],
    /// The mechanisms that hash and sign, if they exist.
    pub ecdsa: Option<CK_MECHANISM_TYPE>,
    pub pkcs1: CK_MECHANISM_TYPE,
    pub pss: Option<CK_MECHANISM_TYPE>,
}

pub const HASHES: [Hash; 4] = [
    Hash {
        name: "sha1",
        kind: CKM_SHA_1,
        mask: CKG_MGF1_SHA1,
        width: 20,
        prefix: b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14",
        ecdsa: Some(CKM_ECDSA_SHA1),
        pkcs1: CKM_SHA1_RSA_PKCS,
        pss: None,
    },
    Hash {
        name: "sha256",
        kind: CKM_SHA256,
        mask: CKG_MGF1_SHA256,
        width: 32,
        prefix: b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
        ecdsa: Some(CKM_ECDSA_SHA256),
        pkcs1: CKM_SHA256_RSA_PKCS,
        pss: Some(CKM_SHA256_RSA_PKCS_PSS),
    },
    Hash {
        name: "sha384",
        kind: CKM_SHA384,
        mask: CKG_MGF1_SHA384,
        width: 48,
        prefix: b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
        ecdsa: Some(CKM_ECDSA_SHA384),
        pkcs1: CKM_SHA384_RSA_PKCS,
        pss: Some(CKM_SHA384_RSA_PKCS_PSS),
    },
    Hash {
        name: "sha512",
        kind: CKM_SHA512,
        mask: CKG_MGF1_SHA512,
        width: 64,
        prefix: b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
        ecdsa: Some(CKM_ECDSA_SHA512),
        pkcs1: CKM_SHA512_RSA_PKCS,
        pss: Some(CKM_SHA512_RSA_PKCS_PSS),
    },
];

impl Hash {
    pub fn named(name: &str) -> &'static Hash {
        let found = HASHES.iter().find(|hash| hash.name == name);
        found.expect("a hash of the list")
    }

    /// Returns CK_RSA_PKCS_PSS_PARAMS with a salt as long as the digest.
    pub fn pss_parameter(&self) -> [CK_ULONG; 3] {
        [self.kind, self.mask, self.width as CK_ULONG]
    }

    pub fn digest_info(&self, digest: &[u8]) -> Vec<u8> {
        [self.prefix, digest].concat()
    }
}

/// A message with its digests.
pub struct Message {
    pub data: Vec<u8>,
    digests: Vec<Vec<u8>>,
}

impl Message {
    pub fn new() -> Message {
        let data: Vec<u8> = (0..1000_u32).map(|at| ((at * at) >> 3) as u8).collect();
        let digests = HASHES.iter().map(|hash| format!("-{}", hash.name));
        Message {
            digests: digests.map(|name| digest(&name, &data)).collect(),
            data,
        }
    }

    pub fn digest(&self, hash: &Hash) -> &[u8] {
        let at = HASHES.iter().position(|one| one.name == hash.name);
        &self.digests[at.expect("a hash of the list")]
    }
}

/// The numbers of requested and verified signatures, and the failures.
#[derive(Default)]
pub struct Tried {
    pub asked: usize,
    pub signed: usize,
    pub verified: usize,
    pub faults: Vec<String>,
}

/// A key of a module with a session, and the verifier of its signatures.
pub struct Signer<'a> {
    pub module: &'a Opened,
    pub key: CK_OBJECT_HANDLE,
    pub judge: Verifier,
    pub message: &'a Message,
    /// The hashes for mechanisms that do not hash.
    pub hashes: Vec<&'static Hash>,
}

impl Signer<'_> {
    /// Signs with each of the mechanisms, with all its inputs, in one part and in several parts.
    pub fn try_all(&self, mechanisms: &[CK_MECHANISM_TYPE]) -> Tried {
        let mut tried = Tried::default();
        for mechanism in mechanisms {
            match *mechanism {
                CKM_ECDSA => self.try_digests(&mut tried),
                CKM_RSA_PKCS | CKM_RSA_PKCS_PSS => self.try_rsa(*mechanism, &mut tried),
                _ => self.try_messages(*mechanism, &mut tried),
            }
        }
        tried
    }

    fn try_digests(&self, tried: &mut Tried) {
        for hash in &HASHES {
            let digest = self.message.digest(hash);
            let signature = self.whole(CKM_ECDSA, &[], digest);
            tried.note(&format!("CKM_ECDSA {}", hash.name), signature, |raw| {
                self.judge.accepts_digest(digest, raw)
            });
        }
    }

    fn try_rsa(&self, mechanism: CK_MECHANISM_TYPE, tried: &mut Tried) {
        for hash in &self.hashes {
            let digest = self.message.digest(hash);
            match mechanism {
                CKM_RSA_PKCS => tried.note(
                    &format!("CKM_RSA_PKCS {}", hash.name),
                    self.whole(mechanism, &[], &hash.digest_info(digest)),
                    |raw| self.judge.accepts_pkcs1(hash.name, digest, raw),
                ),
                _ => tried.note(
                    &format!("CKM_RSA_PKCS_PSS {}", hash.name),
                    self.whole(mechanism, &hash.pss_parameter(), digest),
                    |raw| self.judge.accepts_pss(hash.name, digest, raw),
                ),
            }
        }
    }

    fn try_messages(&self, mechanism: CK_MECHANISM_TYPE, tried: &mut Tried) {
        let of = |kind: Option<CK_MECHANISM_TYPE>| kind == Some(mechanism);
        let suits = |hash: &&Hash| of(hash.ecdsa) || of(Some(hash.pkcs1)) || of(hash.pss);
        let Some(hash) = HASHES.iter().find(suits) else {
            tried.asked += 1;
            return tried.faults.push(format!(
                "{mechanism:#x} is not in the list of this function"
            ));
        };
        let parameter = hash.pss_parameter();
        let parameter = if of(hash.pss) { &parameter[..] } else { &[] };
        let digest = self.message.digest(hash);
        let accepts = |raw: &[u8]| match mechanism {
            _ if of(hash.ecdsa) => {
                let option = format!("-{}", hash.name);
                self.judge.accepts_message(&option, &self.message.data, raw)
            }
            _ if of(hash.pss) => self.judge.accepts_pss(hash.name, digest, raw),
            _ => self.judge.accepts_pkcs1(hash.name, digest, raw),
        };
        let whole = self.whole(mechanism, parameter, &self.message.data);
        tried.note(&format!("{mechanism:#x}"), whole, accepts);
        let parts = self.in_parts(mechanism, parameter);
        tried.note(&format!("{mechanism:#x} in parts"), parts, accepts);
    }

    pub fn whole(
        &self,
        mechanism: CK_MECHANISM_TYPE,
        parameter: &[CK_ULONG],
        data: &[u8],
    ) -> Result<Vec<u8>, Code> {
        let (raw, session) = (&self.module.raw, self.module.session);
        raw.sign_init_with(session, mechanism, parameter, self.key)?;
        raw.sign(session, data)
    }

    fn in_parts(
        &self,
        mechanism: CK_MECHANISM_TYPE,
        parameter: &[CK_ULONG],
    ) -> Result<Vec<u8>, Code> {
        let (raw, session) = (&self.module.raw, self.module.session);
        raw.sign_init_with(session, mechanism, parameter, self.key)?;
        for part in self.message.data.chunks(333) {
            raw.sign_update(session, part)?;
        }
        raw.sign_final(session)
    }
}

impl Tried {
    fn note(
        &mut self,
        what: &str,
        signature: Result<Vec<u8>, Code>,
        accepts: impl Fn(&[u8]) -> Said,
    ) {
        self.asked += 1;
        match signature {
            Err(code) => self.faults.push(format!("{what}: {code:?}")),
            Ok(signature) => {
                self.signed += 1;
                let said = accepts(&signature);
                match said.status.success() {
                    true => self.verified += 1,
                    false => self.faults.push(format!("{what}: {said}")),
                }
            }
        }
    }
}
