//! Stores: where keys and certificates come from.

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

/// Where a token's objects come from.
#[derive(Debug)]
pub enum Store {
    /// The factory identity: nothing is written there.
    Factory(IdevidStore),
    /// A key folder.
    Folder(DevidStore),
    /// Nothing but the objects of sessions.
    Sessions(SessionStore),
}

/// What a token is, whatever is on it (PKCS#11 3.0, section 2.4).
#[derive(Debug, Clone)]
pub struct TokenTraits {
    /// Its private keys are for users who have logged in.
    pub asks_login: bool,
    /// Objects can be made on it.
    pub writable: bool,
    /// The keys that are made on it are the TPM's, unless somebody asks for something else.
    pub makes_keys_in_tpm: bool,
    /// It holds nothing, and its sessions verify with public keys of their own.
    pub for_sessions: bool,
    /// What the TPM can do in which objects can be made, as far as it was asked.
    pub algorithms: KnownAlgorithms,
    /// Whether its PSS signatures are of use, as far as is known.
    pub pss: bool,
}

impl Store {
    /// What the token is. Costs no TPM command.
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

    /// The state of what a scan depends on. A scan finds something else only after it changed. Costs no
    /// TPM command.
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

    /// The store in a forked child, sharing nothing that a thread of the parent may hold locked.
    #[must_use]
    pub fn for_child(&self, tpm: &Arc<Tpm>) -> Self {
        match self {
            Self::Factory(store) => Self::Factory(store.for_child(tpm)),
            Self::Folder(store) => Self::Folder(store.for_child(tpm)),
            Self::Sessions(store) => Self::Sessions(store.clone()),
        }
    }

    /// The key folder, where objects are made, changed and destroyed; `None` for other stores.
    pub fn folder(&self) -> Option<&DevidStore> {
        match self {
            Self::Folder(store) => Some(store),
            Self::Factory(_) | Self::Sessions(_) => None,
        }
    }

    /// Whether the token is for objects of sessions alone.
    pub fn is_for_sessions(&self) -> bool {
        matches!(self, Self::Sessions(_))
    }

    /// Which PINs there are. Costs no TPM command.
    pub fn pins(&self) -> Pins {
        match self {
            Self::Factory(store) => store.pins(),
            Self::Folder(store) => store.pins(),
            Self::Sessions(_) => Pins::None,
        }
    }

    /// Bytes of a PIN; from 0 where there is none.
    pub fn pin_lengths(&self) -> RangeInclusive<usize> {
        match (self, self.pins()) {
            (Self::Folder(_), _) => devid::PIN_LENGTHS,
            (_, Pins::None) => 0..=*idevid::PIN_LENGTHS.end(),
            _ => idevid::PIN_LENGTHS,
        }
    }

    /// Logs in with this PIN; not to be called where there is none.
    ///
    /// # Errors
    ///
    /// [`LoginError`]: nobody is logged in then.
    pub fn login(&self, who: UserType, pin: &[u8]) -> Result<(), LoginError> {
        match self {
            Self::Factory(store) => store.login(who, pin),
            Self::Folder(store) => store.login(who, pin),
            Self::Sessions(_) => Err(LoginError::NotInitialized),
        }
    }

    /// Forgets what the login brought.
    pub fn logout(&self) {
        match self {
            Self::Factory(store) => store.logout(),
            Self::Folder(store) => store.logout(),
            Self::Sessions(_) => {}
        }
    }

    /// How many wrong PINs the TPM has counted, and how many it still takes before it locks: one
    /// command. `None` where that plays no part, or cannot be asked now.
    pub fn lockout(&self) -> Option<Lockout> {
        match self {
            Self::Factory(store) => store.lockout(),
            Self::Folder(store) => store.lockout(),
            Self::Sessions(_) => None,
        }
    }
}

/// What a look depended on; see [`Store::stamp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreStamp {
    /// Of the factory identity.
    Factory(idevid::FactoryStamp),
    /// Of a key folder.
    Folder(devid::DevidStamp),
    /// Of a token for objects of sessions alone.
    Sessions,
}

/// Which PINs a token has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pins {
    /// None: whoever reaches the token may use it.
    None,
    /// The security officer's, who has yet to set the user's.
    SecurityOfficer,
    /// The user's, without which no private key can be used.
    User,
}

/// Who logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserType {
    /// The user, who uses the keys.
    User,
    /// The security officer, who sets the user's PIN.
    SecurityOfficer,
}
