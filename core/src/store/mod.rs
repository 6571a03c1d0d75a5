//! Stores: each one is the source of the keys and certificates of a token.

mod advice;
pub mod devid;
mod encrypt;
mod error;
pub mod folder;
pub mod idevid;
mod key;
mod listing;
mod machine;
pub mod sessions;
mod templates;

use devid::DevidStore;
pub use encrypt::{encrypt, longest_message};
pub use error::{LoginError, ScanError, SignError};
use idevid::IdevidStore;
#[cfg(feature = "evidence")]
pub(crate) use key::sign_in_clear;
pub use key::{Access, DecryptRequest, Key, Login, Protection, SecretBytes, SecretKey};
pub use listing::{ObjectKind, ObjectPart, ScanResult, StoredObject};
use sessions::SessionStore;
use templates::Templates;

pub use advice::Advised;
pub(crate) use advice::{WAIT, unloadable};

use crate::tpm::{KnownAlgorithms, Lockout, Tpm};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// The source of a token's objects.
#[derive(Debug)]
pub enum Store {
    /// The factory identity, which is read-only.
    Factory(IdevidStore),
    /// A key folder.
    Folder(DevidStore),
    /// A store without files, whose token holds only session objects.
    Sessions(SessionStore),
}

/// The properties of a token that do not depend on its objects (PKCS#11 3.0, section 2.4).
#[derive(Debug, Clone)]
pub struct TokenTraits {
    /// True if the private keys of the token need a login.
    pub asks_login: bool,
    /// True if objects can be created on the token.
    pub writable: bool,
    /// True if new private keys of the token are created in the TPM by default.
    pub makes_keys_in_tpm: bool,
    /// True if the token holds no objects, and serves sessions that verify with public keys.
    pub for_sessions: bool,
    /// The algorithms that the TPM can use for new objects, as far as they are known.
    pub algorithms: KnownAlgorithms,
    /// False if a PSS signature of the TPM had a salt of the wrong length.
    pub pss: bool,
}

impl Store {
    /// Returns the properties of the token. Costs no TPM command.
    pub fn traits(&self) -> TokenTraits {
        let tpm = self.folder().map(DevidStore::tpm);
        TokenTraits {
            algorithms: tpm
                .map(|tpm| tpm.known_algorithms().clone())
                .unwrap_or_default(),
            pss: tpm.is_none_or(|tpm| tpm.signs_pss()),
            asks_login: self.pins() != Pins::None,
            writable: self.folder().is_some(),
            makes_keys_in_tpm: self
                .folder()
                .is_some_and(|folder| folder.protection(None) == Protection::Tpm),
            for_sessions: self.is_for_sessions(),
        }
    }

    /// Returns the state on which a scan depends. A new scan gives another result only if the state
    /// changed. Costs no TPM command.
    pub fn stamp(&self) -> StoreStamp {
        match self {
            Self::Factory(store) => store.stamp(),
            Self::Folder(store) => store.stamp(),
            Self::Sessions(_) => StoreStamp::Sessions,
        }
    }

    /// Searches for all objects.
    ///
    /// # Errors
    ///
    /// Fails with [`ScanError`] if the token cannot be shown.
    pub fn scan(&self) -> Result<ScanResult, ScanError> {
        match self {
            Self::Factory(store) => store.scan(),
            Self::Folder(store) => store.scan(),
            Self::Sessions(store) => store.scan(),
        }
    }

    /// Returns a copy for a forked child. The copy shares no mutex that a thread of the parent may
    /// hold.
    #[must_use]
    pub fn for_child(&self, tpm: &Arc<Tpm>) -> Self {
        match self {
            Self::Factory(store) => Self::Factory(store.for_child(tpm)),
            Self::Folder(store) => Self::Folder(store.for_child(tpm)),
            Self::Sessions(store) => Self::Sessions(store.clone()),
        }
    }

    /// Returns the key folder, if the objects of the store can be changed.
    pub fn folder(&self) -> Option<&DevidStore> {
        match self {
            Self::Folder(store) => Some(store),
            Self::Factory(_) | Self::Sessions(_) => None,
        }
    }

    /// Returns true if the token holds only session objects.
    pub fn is_for_sessions(&self) -> bool {
        matches!(self, Self::Sessions(_))
    }

    /// Returns which PINs are set. Costs no TPM command.
    pub fn pins(&self) -> Pins {
        match self {
            Self::Factory(store) => store.pins(),
            Self::Folder(store) => store.pins(),
            Self::Sessions(_) => Pins::None,
        }
    }

    /// Returns the permitted lengths of a PIN in bytes. The range begins at 0 if the token has no
    /// PIN.
    pub fn pin_lengths(&self) -> RangeInclusive<usize> {
        match (self, self.pins()) {
            (Self::Folder(_), _) => devid::PIN_LENGTHS,
            (_, Pins::None) => 0..=*idevid::PIN_LENGTHS.end(),
            _ => idevid::PIN_LENGTHS,
        }
    }

    /// Logs in with this PIN. Callers must not call this function if the token has no PIN.
    ///
    /// # Errors
    ///
    /// After an error no user is logged in.
    pub fn login(&self, who: UserType, pin: &[u8]) -> Result<(), LoginError> {
        match self {
            Self::Factory(store) => store.login(who, pin),
            Self::Folder(store) => store.login(who, pin),
            Self::Sessions(_) => Err(LoginError::NotInitialized),
        }
    }

    /// Logs out.
    pub fn logout(&self) {
        match self {
            Self::Factory(store) => store.logout(),
            Self::Folder(store) => store.logout(),
            Self::Sessions(_) => {}
        }
    }

    /// Returns how many wrong PINs the TPM has counted, and how many remain before lockout. Costs
    /// one command. Returns `None` if the token has no PIN that the TPM counts, or if the TPM does
    /// not answer.
    pub fn lockout(&self) -> Option<Lockout> {
        match self {
            Self::Factory(store) => store.lockout(),
            Self::Folder(store) => store.lockout(),
            Self::Sessions(_) => None,
        }
    }
}

/// The state on which a scan of a store depends. See [`Store::stamp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreStamp {
    /// The state of the TPM and files on which a scan of the factory identity depends.
    Factory(idevid::FactoryStamp),
    /// The state of the TPM and files on which a scan of a key folder depends.
    Folder(devid::DevidStamp),
    /// The token holds only session objects, so a scan depends on nothing.
    Sessions,
}

/// Tells which PINs of a token are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pins {
    /// No PIN is set: every process with access to the token may use it.
    None,
    /// The PIN of the security officer is set, but the PIN of the user is not.
    SecurityOfficer,
    /// The PIN of the user is set. Every use of a private key needs this PIN.
    User,
}

/// The type of user who logs in (CK_USER_TYPE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserType {
    /// The normal user, who uses the keys.
    User,
    /// The security officer, who sets the PIN of the user.
    SecurityOfficer,
}
