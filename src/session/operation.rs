//! The operations of a session (PKCS#11 3.0, section 5.6.1): one search, and one operation of each
//! other kind.

use crate::error::Error;
use crate::handle::{ObjectHandle, SlotId};
use crate::mechanism::cipher::{CipherState, Direction};
use crate::mechanism::digest::{Digest, Hasher};
use crate::mechanism::encrypt::EncryptMechanism;
use crate::mechanism::mac::Mac;
use crate::mechanism::sign::{SignMechanism, WIDEST_DIGEST};
use crate::mechanism::table::Mechanism;
use crate::object::Object;
use cryptoki_sys::{CK_MECHANISM_TYPE, CKF_DIGEST};
use devid_core::key::PublicKey;
use devid_core::store::folder::Use;
use devid_core::store::{Key, SecretKey};
use devid_core::tpm::Secret;
use std::collections::VecDeque;
use std::sync::Arc;

/// The operations of a session that are in progress.
#[derive(Default, Clone)]
pub(super) struct Operations {
    pub(super) find: Option<Find>,
    pub(super) sign: Option<Signing>,
    pub(super) verify: Option<Verifying>,
    pub(super) decrypt: Option<DecryptOperation>,
    pub(super) encrypt: Option<EncryptOperation>,
    pub(super) digest: Option<DigestOperation>,
    pub(super) secret: SecretKeyOperations,
}

/// The operations with secret keys that are in progress.
#[derive(Default, Clone)]
pub(super) struct SecretKeyOperations {
    encrypt: Option<CipherOperation>,
    decrypt: Option<CipherOperation>,
    sign: Option<MacOperation>,
    verify: Option<MacOperation>,
}

impl SecretKeyOperations {
    fn is_any(&self) -> bool {
        self.encrypt.is_some()
            || self.decrypt.is_some()
            || self.sign.is_some()
            || self.verify.is_some()
    }

    /// Ends the operations whose key only a logged-in user may see (CKA_PRIVATE).
    pub(super) fn forget_private(&mut self) {
        self.encrypt.take_if(|one| one.of_private);
        self.decrypt.take_if(|one| one.of_private);
        self.sign.take_if(|one| one.of_private);
        self.verify.take_if(|one| one.of_private);
    }
}

/// A search, and the handles that were found when it started.
#[derive(Clone)]
pub(super) struct Find(pub(super) VecDeque<ObjectHandle>);

/// The form of a message: single-part or in parts. The first call decides the form, even if the
/// call only asks for a length.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    #[default]
    Open,
    Whole,
    InParts,
}

impl Form {
    /// # Errors
    ///
    /// [`Error::OperationActive`] if an earlier call chose the other form.
    pub(super) fn settle(&mut self, form: Self) -> Result<(), Error> {
        match *self {
            Self::Open => {
                *self = form;
                Ok(())
            }
            now if now == form => Ok(()),
            _ => Err(Error::OperationActive),
        }
    }
}

/// A signature or verification in progress.
#[derive(Clone)]
pub(super) struct SignOperation<K> {
    pub(super) key: K,
    /// The private or public key object.
    pub(super) object: Arc<Object>,
    pub(super) mechanism: SignMechanism,
    pub(super) form: Form,
    /// The parts that have arrived. `None` if the message did not arrive in parts.
    pub(super) parts: Option<Parts>,
    /// True until the user has entered the PIN for this operation (CKA_ALWAYS_AUTHENTICATE).
    pub(super) awaits_user: bool,
}

/// The parts of a message that the caller has given.
#[derive(Clone)]
pub(super) enum Parts {
    /// The hash of the parts of the message.
    Hashed(Hasher),
    /// The parts themselves, if the mechanism does not hash. By PKCS#11 such mechanisms are
    /// single-part, but clients send parts.
    Gathered(Vec<u8>),
}

impl Parts {
    /// Returns the data to be signed: the digest of the parts, or the parts themselves.
    pub(super) fn finish(self) -> Vec<u8> {
        match self {
            Self::Hashed(hasher) => hasher.finish(),
            Self::Gathered(data) => data,
        }
    }
}

pub(super) type Signing = SignOperation<Arc<Key>>;
pub(super) type Verifying = SignOperation<PublicKey>;

/// A decryption in progress.
#[derive(Clone)]
pub(super) struct DecryptOperation {
    pub(super) key: Arc<Key>,
    /// The private key object.
    pub(super) object: Arc<Object>,
    pub(super) mechanism: EncryptMechanism,
    pub(super) awaits_user: bool,
    pub(super) form: Form,
    /// The parts of the ciphertext that the caller has given.
    pub(super) parts: Vec<u8>,
    /// A ciphertext, and its plaintext that did not fit into the buffer. If the next call has a
    /// larger buffer, it needs no TPM command.
    pub(super) opened: Option<(Vec<u8>, Secret)>,
}

/// An encryption in progress.
#[derive(Clone)]
pub(super) struct EncryptOperation {
    pub(super) key: PublicKey,
    pub(super) mechanism: EncryptMechanism,
    pub(super) form: Form,
    /// The parts of the message that the caller has given.
    pub(super) parts: Secret,
}

/// A digest in progress.
#[derive(Clone)]
pub(super) struct DigestOperation {
    pub(super) kind: CK_MECHANISM_TYPE,
    pub(super) digest: Digest,
    pub(super) hasher: Hasher,
    /// The form of the message. A key from C_DigestKey counts as a part.
    pub(super) form: Form,
    /// True if C_DigestKey added the value of a key to the digest.
    pub(super) of_key: bool,
    /// True if the digest contains the value of a key that only a logged-in user sees.
    pub(super) of_private: bool,
}

/// An encryption or decryption with a secret key in progress.
#[derive(Clone)]
pub(super) struct CipherOperation {
    pub(super) key: Arc<SecretKey>,
    pub(super) direction: Direction,
    pub(super) state: CipherState,
    pub(super) form: Form,
    /// True if only a logged-in user may see the key (CKA_PRIVATE).
    pub(super) of_private: bool,
}

/// A message authentication code in progress, to be made or checked.
#[derive(Clone)]
pub(super) struct MacOperation {
    pub(super) mac: Mac,
    /// The length of the message authentication code in bytes.
    pub(super) width: usize,
    pub(super) form: Form,
    /// True if only a logged-in user may see the key (CKA_PRIVATE).
    pub(super) of_private: bool,
}

impl Operations {
    /// Returns true if the session has an operation with a key.
    pub(super) fn has_key_operation(&self) -> bool {
        self.sign.is_some()
            || self.verify.is_some()
            || self.decrypt.is_some()
            || self.encrypt.is_some()
            || self.secret.is_any()
    }

    /// Returns the cipher operation of a secret key.
    pub(super) fn cipher(&mut self, direction: Direction) -> &mut Option<CipherOperation> {
        match direction {
            Direction::Encrypt => &mut self.secret.encrypt,
            Direction::Decrypt => &mut self.secret.decrypt,
        }
    }

    /// Returns the MAC operation that checks a code if `wanted` is `Use::Verify`. Otherwise returns
    /// the MAC operation that makes a code.
    pub(super) fn mac(&mut self, wanted: Use) -> &mut Option<MacOperation> {
        match wanted {
            Use::Verify => &mut self.secret.verify,
            _ => &mut self.secret.sign,
        }
    }

    /// Returns true if the session has an encryption or decryption, with any type of key.
    pub(super) fn has_cipher(&self, direction: Direction) -> bool {
        match direction {
            Direction::Encrypt => self.encrypt.is_some() || self.secret.encrypt.is_some(),
            Direction::Decrypt => self.decrypt.is_some() || self.secret.decrypt.is_some(),
        }
    }

    /// Returns true if the session checks a signature or code, if `wanted` is `Use::Verify`.
    /// Otherwise returns true if the session makes a signature or code.
    pub(super) fn has_signature(&self, wanted: Use) -> bool {
        match wanted {
            Use::Verify => self.verify.is_some() || self.secret.verify.is_some(),
            _ => self.sign.is_some() || self.secret.sign.is_some(),
        }
    }

    /// Returns the flag of the first operation that waits for the user's PIN. A signature comes
    /// before a decryption.
    pub(super) fn awaiting(&mut self) -> Option<&mut bool> {
        let sign = self.sign.as_mut().map(|one| &mut one.awaits_user);
        let decrypt = self.decrypt.as_mut().map(|one| &mut one.awaits_user);
        let mut flags = sign.into_iter().chain(decrypt);
        flags.find(|awaits_user| **awaits_user)
    }
}

pub(super) fn begin<O>(place: &mut Option<O>, operation: O) -> Result<(), Error> {
    match place {
        Some(_) => Err(Error::OperationActive),
        None => {
            *place = Some(operation);
            Ok(())
        }
    }
}

pub(super) fn take<O>(place: &mut Option<O>) -> Result<O, Error> {
    place.take().ok_or(Error::OperationNotInitialized)
}

impl<K> SignOperation<K> {
    /// Returns the data of a single-part call. Fails if the operation already has parts.
    pub(super) fn whole<'a>(&mut self, data: Option<&'a [u8]>) -> Result<&'a [u8], Error> {
        self.form.settle(Form::Whole)?;
        data.ok_or(Error::ArgumentsBad("pData is NULL"))
    }

    /// Adds a part to the operation. If the parts are collected, their sum must not be longer than
    /// the data that `key` can sign.
    pub(super) fn with(mut self, part: Option<&[u8]>, key: &PublicKey) -> Result<Self, Error> {
        let part = part.ok_or(Error::ArgumentsBad("pPart is NULL"))?;
        let mut parts = self.parts()?;
        match &mut parts {
            Parts::Hashed(hasher) => hasher.update(part),
            Parts::Gathered(data) => {
                let length = data.len().saturating_add(part.len());
                if length > key.signature_width().max(WIDEST_DIGEST) {
                    return Err(Error::DataLenRange(length));
                }
                data.extend_from_slice(part);
            }
        }
        self.parts = Some(parts);
        Ok(self)
    }

    /// Takes the parts of the message out of the operation.
    pub(super) fn parts(&mut self) -> Result<Parts, Error> {
        self.form.settle(Form::InParts)?;
        Ok(self.parts.take().unwrap_or_else(|| {
            let hasher = self.mechanism.hasher();
            hasher.map_or_else(|| Parts::Gathered(Vec::new()), Parts::Hashed)
        }))
    }
}

impl Verifying {
    pub(super) fn check(&self, prepared: &[u8], signature: Option<&[u8]>) -> Result<(), Error> {
        let signature = signature.ok_or(Error::ArgumentsBad("pSignature is NULL"))?;
        let request = self.mechanism.request(&self.key, prepared)?;
        if signature.len() != self.key.signature_width() {
            return Err(Error::SignatureLenRange(signature.len()));
        }
        match devid_core::signature::verify(&self.key, request, signature) {
            true => Ok(()),
            false => Err(Error::SignatureInvalid),
        }
    }
}
/// The first bytes of a saved state: a mark of this module and the version of the format.
const SAVED: &[u8; 16] = b"devid-pkcs11 dg1";

impl DigestOperation {
    /// Encodes the digest. After [`SAVED`] come the slot and the mechanism as CK_ULONG, the form of
    /// the message, the hash, and a checksum. Without the checksum, a damaged state could overflow
    /// the byte count of the hash.
    pub(super) fn save(&self, slot: SlotId) -> Vec<u8> {
        let mut saved = [
            &SAVED[..],
            &slot.0.to_ne_bytes(),
            &self.kind.to_ne_bytes(),
            &[match self.form {
                Form::Open => 0,
                Form::InParts => 1,
                Form::Whole => 2,
            }],
            &self.hasher.save(),
        ]
        .concat();
        saved.extend(checksum(&saved));
        saved
    }

    /// Restores a digest from saved bytes. Returns `None` if the bytes are not a saved digest of
    /// this slot.
    pub(super) fn restore(saved: &[u8], slot: SlotId) -> Option<Self> {
        let (saved, sum) = saved.split_at_checked(saved.len().checked_sub(CHECKSUM.width())?)?;
        if checksum(saved) != sum {
            return None;
        }
        let rest = saved.strip_prefix(SAVED)?;
        let rest = rest.strip_prefix(&slot.0.to_ne_bytes())?;
        let (kind, rest) = rest.split_first_chunk()?;
        let kind = CK_MECHANISM_TYPE::from_ne_bytes(*kind);
        let digest = Mechanism::find(kind, CKF_DIGEST).ok()?.digest?;
        let (form, hasher) = rest.split_first()?;
        Some(Self {
            kind,
            digest,
            hasher: digest.restore(hasher)?,
            form: match form {
                0 => Form::Open,
                1 => Form::InParts,
                2 => Form::Whole,
                _ => return None,
            },
            of_key: false,
            of_private: false,
        })
    }
}

const CHECKSUM: Digest = Digest::Sha256;

fn checksum(bytes: &[u8]) -> Vec<u8> {
    let mut hasher = CHECKSUM.hasher();
    hasher.update(bytes);
    hasher.finish()
}
