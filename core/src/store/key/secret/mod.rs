//! Secret keys, used in memory. On the disk they are encrypted under what the TPM has sealed.
//!
//! The TPM keeps such a key from being used on another device. It does not protect the key from whoever
//! takes over this one while the key is open.

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
    /// The key, opened at its first use if that takes no login.
    opened: UnlockedKey,
}

/// Where the bytes of a secret key are.
enum SecretKeyLocation {
    /// In memory alone.
    Memory(SecretBytes),
    /// In a file, encrypted under what the TPM has sealed.
    Sealed {
        seal: Box<WrappedKey>,
        encrypted: Vec<u8>,
    },
    /// In a file that cannot be used; the text says why.
    Refused(&'static str),
}

/// The bytes of an opened secret key. They are wiped once nobody holds them.
#[derive(Clone)]
pub struct SecretBytes(Bytes);

#[derive(Clone)]
enum Bytes {
    /// Not swapped out.
    Locked(Arc<Locked>),
    /// Of a key that its owner may read: no better kept than what he reads.
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
    /// A key that lives in memory until it is dropped. `readable`: its owner may read it.
    pub fn in_memory(key_type: SecretKeyType, value: Secret, readable: bool) -> Self {
        let length = value.len();
        let bytes = match readable {
            true => Bytes::Readable(Arc::new(value)),
            false => Bytes::Locked(Arc::new(Locked::new(&value))),
        };
        let place = SecretKeyLocation::Memory(SecretBytes(bytes));
        Self::new(key_type, length, place, Access::Open)
    }

    /// The key of a file.
    pub(in crate::store) fn of_file(file: &folder::SecretKeyFile) -> Self {
        let length =
            envelope::length(&file.encrypted).filter(|length| file.key_type.takes(*length));
        let place = match (file.seal.wrapped(), length) {
            (_, None) => SecretKeyLocation::Refused("no key of its type has this length"),
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

    /// The key, of this file.
    #[must_use]
    pub(in crate::store) fn kept_in(self, source: KeyFile) -> Self {
        Self {
            source: Some(source),
            ..self
        }
    }

    /// The key, opened by this.
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

    /// Its type.
    pub fn key_type(&self) -> SecretKeyType {
        self.key_type
    }

    /// Its bytes, in number. Costs no TPM command.
    pub fn length(&self) -> usize {
        self.length
    }

    /// True if the key of a file says that it is sensitive.
    pub fn is_sensitive(&self) -> bool {
        self.sensitive
    }

    /// True if it needs no login, also on a token with a PIN, as whoever made it wanted.
    pub fn is_for_everybody(&self) -> bool {
        matches!(self.access, Access::Everybody)
    }

    /// Why nobody can use the key, if so.
    pub fn obstacle(&self) -> Option<&'static str> {
        match self.place {
            SecretKeyLocation::Refused(why) => Some(why),
            SecretKeyLocation::Memory(_) | SecretKeyLocation::Sealed { .. } => None,
        }
    }

    /// True if it is the same key, as far as that can be told without opening either.
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

    /// The bytes of a key that lives in memory alone.
    pub fn bytes_in_memory(&self) -> Option<&[u8]> {
        match &self.place {
            SecretKeyLocation::Memory(bytes) => Some(bytes),
            SecretKeyLocation::Sealed { .. } | SecretKeyLocation::Refused(_) => None,
        }
    }

    /// Opens the key. The TPM unseals what is in a file at the first use, or at the first after a login:
    /// four commands.
    ///
    /// # Errors
    ///
    /// [`SignError::NotLoggedIn`], [`SignError::Refused`] for a file that was changed, and the TPM's.
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
            SignError::Refused("its file was changed: it does not hold the key that it says".into())
        })?;
        let opened = Arc::new(Locked::new(&value));
        visit.keep(id, &self.opened, &opened);
        Ok(SecretBytes(Bytes::Locked(opened)))
    }

    /// True if the key can be used, as far as that can be told without a login: the TPM loads its seal,
    /// and the key opens if it asks for no login.
    ///
    /// # Errors
    ///
    /// As of [`SecretKey::open`].
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

    /// Seals a secret key: `seal` has the TPM seal what encrypts it, and gives what it made of that.
    /// Gives the seal and the encrypted key.
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

/// `aes256`, `generic-secret512`: the type, and the length in bits.
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
