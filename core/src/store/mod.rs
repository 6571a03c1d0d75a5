//! Stores: the sources of keys and certificates.

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
    /// A store that holds only session objects.
    Sessions(SessionStore),
}

/// The properties of a token, independent of its objects (PKCS#11 3.0, section 2.4).
#[derive(Debug, Clone)]
pub struct TokenTraits {
    /// True if its private keys need a login.
    pub asks_login: bool,
    /// True if objects can be made on it.
    pub writable: bool,
    /// True if new keys are TPM keys by default.
    pub makes_keys_in_tpm: bool,
    /// True if it holds no objects, and serves sessions that verify with public keys.
    pub for_sessions: bool,
    /// The known abilities of the TPM for new objects.
    pub algorithms: KnownAlgorithms,
    /// False once a PSS signature had an unusable salt length.
    pub pss: bool,
}

impl Store {
    /// The properties of the token. Costs no TPM command.
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

    /// The state on which a scan depends. A new scan gives another result only if the state
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
    /// [`ScanError`] if there is nothing to show.
    pub fn scan(&self) -> Result<ScanResult, ScanError> {
        match self {
            Self::Factory(store) => store.scan(),
            Self::Folder(store) => store.scan(),
            Self::Sessions(store) => store.scan(),
        }
    }

    /// The store in a forked child. The copy shares nothing that a thread of the parent may hold
    /// locked.
    #[must_use]
    pub fn for_child(&self, tpm: &Arc<Tpm>) -> Self {
        match self {
            Self::Factory(store) => Self::Factory(store.for_child(tpm)),
            Self::Folder(store) => Self::Folder(store.for_child(tpm)),
            Self::Sessions(store) => Self::Sessions(store.clone()),
        }
    }

    /// The key folder, in which objects can be changed; `None` for other stores.
    pub fn folder(&self) -> Option<&DevidStore> {
        match self {
            Self::Folder(store) => Some(store),
            Self::Factory(_) | Self::Sessions(_) => None,
        }
    }

    /// True if the token holds only session objects.
    pub fn is_for_sessions(&self) -> bool {
        matches!(self, Self::Sessions(_))
    }

    /// The PINs that are set. Costs no TPM command.
    pub fn pins(&self) -> Pins {
        match self {
            Self::Factory(store) => store.pins(),
            Self::Folder(store) => store.pins(),
            Self::Sessions(_) => Pins::None,
        }
    }

    /// Permitted lengths of a PIN in bytes; from 0 if there is no PIN.
    pub fn pin_lengths(&self) -> RangeInclusive<usize> {
        match (self, self.pins()) {
            (Self::Folder(_), _) => devid::PIN_LENGTHS,
            (_, Pins::None) => 0..=*idevid::PIN_LENGTHS.end(),
            _ => idevid::PIN_LENGTHS,
        }
    }

    /// Logs in with this PIN. Must not be called if there is no PIN.
    ///
    /// # Errors
    ///
    /// [`LoginError`]: no user is logged in then.
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

    /// The number of wrong PINs that the TPM has counted, and the number that remains before
    /// lockout: one command. `None` if this does not apply, or if the TPM cannot be asked now.
    pub fn lockout(&self) -> Option<Lockout> {
        match self {
            Self::Factory(store) => store.lockout(),
            Self::Folder(store) => store.lockout(),
            Self::Sessions(_) => None,
        }
    }
}

/// The state on which a scan depended; see [`Store::stamp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreStamp {
    /// The state of the factory identity.
    Factory(idevid::FactoryStamp),
    /// The state of a key folder.
    Folder(devid::DevidStamp),
    /// A token that holds only session objects.
    Sessions,
}

/// The PINs of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pins {
    /// No PIN: every process that reaches the token may use it.
    None,
    /// The PIN of the security officer, who has not set the user's PIN yet.
    SecurityOfficer,
    /// The PIN of the user, which every use of a private key needs.
    User,
}

/// The kind of user who logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserType {
    /// The user, who uses the keys.
    User,
    /// The security officer, who sets the user's PIN.
    SecurityOfficer,
}
