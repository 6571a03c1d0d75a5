//! Secret keys that the module uses in memory. Their files are encrypted under keys that the TPM
//! has sealed.
//!
//! So the file is useless on another device. The TPM does not protect the key from an attacker who
//! controls this device while the key is decrypted.

mod envelope;

use super::access::Access;
use super::locked_memory::Locked;
use super::login::{OpenedKeyId, UnlockedKey};
use super::obstacle::{KeyFile, explained, judged};
use crate::key::SecretKeyType;
use crate::store::SignError;
use crate::store::folder::{self, Tss2Key, Tss2Kind};
use crate::tpm::{Secret, Tpm, TpmError, WrappedKey, random_secret};
use envelope::{decrypted, encrypted};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A secret key.
pub struct SecretKey {
    key_type: SecretKeyType,
    length: usize,
    place: SecretKeyLocation,
    access: Access,
    sensitive: bool,
    source: Option<KeyFile>,
    /// The decrypted key after its first use, if the key needs no login.
    opened: UnlockedKey,
}

/// The place where the bytes of a secret key are stored.
enum SecretKeyLocation {
    /// In the memory of this process only.
    Memory(SecretBytes),
    /// In a file, encrypted under a key that the TPM has sealed.
    Sealed {
        seal: Box<WrappedKey>,
        encrypted: Vec<u8>,
    },
    /// In a file that cannot be used. The text gives the reason.
    Refused(&'static str),
}

/// The bytes of a decrypted secret key. They are wiped when the last copy is dropped.
#[derive(Clone)]
pub struct SecretBytes(Bytes);

#[derive(Clone)]
enum Bytes {
    /// In locked memory, which the system does not swap.
    Locked(Arc<Locked>),
    /// In ordinary memory, because the user may read the value of this key in any case.
    Readable(Arc<Secret>),
}

impl SecretBytes {
    fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Bytes::Locked(one), Bytes::Locked(other)) => Arc::ptr_eq(one, other),
            (Bytes::Readable(one), Bytes::Readable(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Deref for SecretBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Locked(locked) => locked.bytes(),
            Bytes::Readable(bytes) => bytes,
        }
    }
}

impl SecretKey {
    /// Returns a key that exists only in the memory of this process. With `readable`, programs may
    /// read the value of the key (CKA_SENSITIVE false, CKA_EXTRACTABLE true).
    pub fn in_memory(key_type: SecretKeyType, value: Secret, readable: bool) -> Self {
        let length = value.len();
        let bytes = match readable {
            true => Bytes::Readable(Arc::new(value)),
            false => Bytes::Locked(Arc::new(Locked::new(&value))),
        };
        let place = SecretKeyLocation::Memory(SecretBytes(bytes));
        Self::new(key_type, length, place, Access::Open)
    }

    /// Returns the key that a file stores.
    pub(in crate::store) fn of_file(file: &folder::SecretKeyFile) -> Self {
        let length =
            envelope::length(&file.encrypted).filter(|length| file.key_type.takes(*length));
        let place = match (file.seal.wrapped(), length) {
            (_, None) => {
                SecretKeyLocation::Refused("the length is not a valid length of a key of this type")
            }
            (Err(why), _) => SecretKeyLocation::Refused(why),
            (Ok(seal), Some(_)) => SecretKeyLocation::Sealed {
                seal: Box::new(seal),
                encrypted: file.encrypted.clone(),
            },
        };
        let length = length.unwrap_or_default();
        Self {
            sensitive: file.sensitive,
            ..Self::new(file.key_type, length, place, Access::Open)
        }
    }

    /// Returns this key with the file that it comes from.
    #[must_use]
    pub(in crate::store) fn kept_in(self, source: KeyFile) -> Self {
        Self {
            source: Some(source),
            ..self
        }
    }

    /// Returns this key with the given access.
    #[must_use]
    pub(in crate::store) fn opened_by(self, access: Access) -> Self {
        Self { access, ..self }
    }

    fn new(
        key_type: SecretKeyType,
        length: usize,
        place: SecretKeyLocation,
        access: Access,
    ) -> Self {
        Self {
            key_type,
            length,
            place,
            access,
            sensitive: true,
            source: None,
            opened: UnlockedKey::default(),
        }
    }

    /// Returns the type of the key.
    pub fn key_type(&self) -> SecretKeyType {
        self.key_type
    }

    /// Returns the length of the key in bytes. Costs no TPM command.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Returns true if the key is sensitive (CKA_SENSITIVE).
    pub fn is_sensitive(&self) -> bool {
        self.sensitive
    }

    /// Returns true if the key needs no login even on a token with a PIN, because its creator
    /// requested that.
    pub fn is_for_everybody(&self) -> bool {
        matches!(self.access, Access::Everybody)
    }

    /// Returns the reason why the key cannot be used, if any.
    pub fn obstacle(&self) -> Option<&'static str> {
        match self.place {
            SecretKeyLocation::Refused(why) => Some(why),
            SecretKeyLocation::Memory(_) | SecretKeyLocation::Sealed { .. } => None,
        }
    }

    /// Returns true if both values are the same key. Compares sealed keys without decrypting them.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.place, &other.place) {
            (SecretKeyLocation::Memory(one), SecretKeyLocation::Memory(other)) => {
                one.is_same(other)
            }
            (
                SecretKeyLocation::Sealed { seal, encrypted },
                SecretKeyLocation::Sealed {
                    seal: other,
                    encrypted: others,
                },
            ) => seal.name() == other.name() && encrypted == others,
            (SecretKeyLocation::Refused(_), SecretKeyLocation::Refused(_)) => true,
            _ => false,
        }
    }

    /// Returns the bytes of a key that exists only in memory.
    pub fn bytes_in_memory(&self) -> Option<&[u8]> {
        match &self.place {
            SecretKeyLocation::Memory(bytes) => Some(bytes),
            SecretKeyLocation::Sealed { .. } | SecretKeyLocation::Refused(_) => None,
        }
    }

    /// Returns the decrypted key. The first use of a key from a file after a login costs four
    /// commands, because the TPM unseals it.
    ///
    /// # Errors
    ///
    /// - [`SignError::NotLoggedIn`] if the key needs a login.
    /// - [`SignError::Refused`] if the file was changed.
    /// - The errors of the TPM.
    pub fn open(&self, tpm: &Tpm) -> Result<SecretBytes, SignError> {
        let opened = self.unsealed(tpm);
        opened.map_err(|error| judged(self.source.as_ref(), tpm, error))
    }

    fn unsealed(&self, tpm: &Tpm) -> Result<SecretBytes, SignError> {
        let (seal, encrypted) = match &self.place {
            SecretKeyLocation::Memory(bytes) => return Ok(bytes.clone()),
            SecretKeyLocation::Refused(why) => return Err(SignError::Refused((*why).into())),
            SecretKeyLocation::Sealed { seal, encrypted } => (seal, encrypted),
        };
        let visit = self.access.visit()?;
        let id = OpenedKeyId::Secret(seal.name());
        if let Some(opened) = visit.opened(id, &self.opened) {
            return Ok(SecretBytes(Bytes::Locked(opened)));
        }
        let key = tpm.unseal(seal, &visit.value)?;
        let value = decrypted(self.key_type, encrypted, &key);
        let value = value.ok_or_else(|| {
            SignError::Refused(
                "its file was changed: it does not decrypt to a key of the stated type".into(),
            )
        })?;
        let opened = Arc::new(Locked::new(&value));
        visit.keep(id, &self.opened, &opened);
        Ok(SecretBytes(Bytes::Locked(opened)))
    }

    /// Checks that the key can be used, as far as possible without a login. The TPM loads the seal
    /// of the key. A key that needs no login is also decrypted.
    ///
    /// # Errors
    ///
    /// Fails with the errors of [`SecretKey::open`].
    pub(in crate::store) fn check_file(&self, tpm: &Tpm) -> Result<(), SignError> {
        let checked = match (&self.place, &self.access) {
            (SecretKeyLocation::Sealed { .. }, Access::Open | Access::Everybody) => {
                self.unsealed(tpm).map(drop)
            }
            (SecretKeyLocation::Sealed { seal, .. }, _) => {
                tpm.check_loads(seal).map_err(SignError::from)
            }
            (SecretKeyLocation::Memory(_), _) => Ok(()),
            (SecretKeyLocation::Refused(why), _) => Err(SignError::Refused((*why).into())),
        };
        checked.map_err(|error| explained(self.source.as_ref(), tpm, error))
    }

    /// Seals a secret key. The callback `seal` lets the TPM seal the encrypting key. Returns the
    /// seal and the encrypted key.
    pub(in crate::store) fn sealed<E: From<TpmError>>(
        key_type: SecretKeyType,
        value: &Secret,
        seal: impl FnOnce(&Secret) -> Result<WrappedKey, E>,
        has_value: bool,
    ) -> Result<(Tss2Key, Vec<u8>), E> {
        let key = random_secret(envelope::KEY)?;
        let nonce = random_secret(envelope::NONCE)?;
        let encrypted = encrypted(key_type, value, &key, &nonce);
        let encrypted = encrypted.ok_or_else(|| TpmError::Unsupported("AES-256-GCM".into()))?;
        let seal = Tss2Key::of(Tss2Kind::Sealed, &seal(&key)?, has_value);
        Ok((seal, encrypted))
    }
}

/// Writes the type and the length in bits, for example `aes256` or `generic-secret512`.
impl fmt::Display for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.key_type.word(), 8 * self.length)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({self})")
    }
}
