//! Stores: where keys and certificates come from.

mod advice;
pub mod devid;
mod encrypt;
pub mod folder;
pub mod idevid;
mod key;
mod listing;
mod machine;
pub mod sessions;
mod templates;

use devid::DevidStore;
pub use encrypt::{encrypt, longest_message};
use idevid::IdevidStore;
pub use key::{Access, DecryptRequest, Key, Login, Protection};
pub use listing::{Half, Kind, Listing, Shown};
use sessions::SessionStore;
use templates::Templates;

pub use advice::Advised;
pub(crate) use advice::{WAIT, unloadable};

use crate::tpm::{KnownAlgorithms, Tcti, Tpm, TpmError};
use std::fmt;
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
            for_sessions: self.is_for_sessions(),
        }
    }

    /// The state of what a look depends on: only a look after it changed can differ. Costs no TPM
    /// command.
    pub fn stamp(&self) -> Stamp {
        match self {
            Self::Factory(store) => store.stamp(),
            Self::Folder(store) => store.stamp(),
            Self::Sessions(_) => Stamp::Sessions,
        }
    }

    /// Searches for all objects.
    ///
    /// # Errors
    ///
    /// [`LookError`] if there is nothing to show.
    pub fn look(&self) -> Result<Listing, LookError> {
        match self {
            Self::Factory(store) => store.look(),
            Self::Folder(store) => store.look(),
            Self::Sessions(store) => store.look(),
        }
    }

    /// The store in a forked child, sharing nothing that a thread of the parent may hold locked.
    #[must_use]
    pub fn for_child(&self, tpm: &Arc<Tpm>) -> Self {
        match self {
            Self::Factory(store) => Self::Factory(store.for_child(tpm)),
            Self::Folder(store) => Self::Folder(store.for_child(tpm)),
            Self::Sessions(store) => Self::Sessions(*store),
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

    /// Logs in with this PIN; not to be called where there is none.
    ///
    /// # Errors
    ///
    /// [`LoginError`]: nobody is logged in then.
    pub fn login(&self, who: Who, pin: &[u8]) -> Result<(), LoginError> {
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

    /// How many wrong PINs the TPM still takes before it locks: one command. `None` where that plays
    /// no part, or cannot be asked now.
    pub fn tries_left(&self) -> Option<u32> {
        match self {
            Self::Factory(store) => store.tries_left(),
            Self::Folder(store) => store.tries_left(),
            Self::Sessions(_) => None,
        }
    }
}

/// What a look depended on; see [`Store::stamp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stamp {
    /// Of the factory identity.
    Factory(idevid::Stamp),
    /// Of a key folder.
    Folder(devid::Stamp),
    /// Of a token for objects of sessions alone.
    Sessions,
}

/// Why there is nothing to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookError {
    /// The TPM, or the way to it: nothing is known that was not known before.
    Tpm(TpmError),
    /// The TPM answered all that was asked, and holds no identity's certificate; the text says
    /// what was looked at.
    NoIdentity(String),
    /// The key folder as a whole is damaged, or not to be trusted.
    Folder(String),
    /// A file without which nothing can be shown could not be read now. It is logged already.
    Unread(String),
}

/// Which PINs a token has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pins {
    /// None: whoever reaches the token may use it.
    None,
    /// The security officer's, who has yet to set the user's.
    Officer,
    /// The user's, without which no private key can be used.
    User,
}

/// Who logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The user, who uses the keys.
    User,
    /// The security officer, who sets the user's PIN.
    Officer,
}

/// Why a login failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginError {
    /// The PIN is wrong, and the TPM has counted it.
    Wrong,
    /// The token holds objects and never had an officer, so there is no PIN that could be right;
    /// none was tried.
    NotEmpty,
    /// No PIN can be so short or so long.
    Length,
    /// The PIN was not tried: if it were wrong, the whole TPM would be locked, or is so already. The
    /// TPM behind this.
    Locked(Tcti),
    /// The PIN of that name was never set.
    NotInitialized,
    /// Somebody else must log in first.
    NotLoggedIn,
    /// Not now; the text says why, and what to do first.
    Refused(String),
    /// The key folder or the master key.
    Store(devid::StoreError),
    /// The TPM, or the way to it.
    Tpm(TpmError),
}

/// Why a store gave no signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignError {
    /// The digest has a length that this key cannot sign rightly.
    DigestLength(usize),
    /// The key does not sign by such a scheme.
    Scheme,
    /// The ciphertext, or what came out of it, is not as it must be; or the other side's point.
    Ciphertext,
    /// The key asks for a login.
    NotLoggedIn,
    /// The key cannot be used here, whoever asks; the text says why.
    Refused(String),
    /// The TPM does not load the key from its file; the text says why.
    Unloadable(String),
    /// The TPM does not derive the certified key.
    NotInThisTpm,
    /// The TPM, or the way to it.
    Tpm(TpmError),
}

impl From<TpmError> for SignError {
    fn from(error: TpmError) -> Self {
        Self::Tpm(error)
    }
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DigestLength(bytes) => {
                write!(
                    f,
                    "a digest of {bytes} bytes cannot be signed rightly by this key"
                )
            }
            Self::Scheme => f.write_str("the key does not sign by this scheme"),
            Self::NotLoggedIn => f.write_str("the key asks for a login first"),
            Self::Ciphertext => f.write_str("not to be decrypted with this key"),
            Self::Refused(why) | Self::Unloadable(why) => {
                write!(f, "the key cannot be used: {why}")
            }
            Self::NotInThisTpm => f.write_str("this TPM does not hold the certified key"),
            Self::Tpm(error) => Advised(error).fmt(f),
        }
    }
}

impl std::error::Error for SignError {}

impl From<TpmError> for LookError {
    fn from(error: TpmError) -> Self {
        Self::Tpm(error)
    }
}

impl fmt::Display for LookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tpm(error) => Advised(error).fmt(f),
            Self::NoIdentity(why) | Self::Folder(why) | Self::Unread(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for LookError {}

impl From<devid::StoreError> for LoginError {
    fn from(error: devid::StoreError) -> Self {
        match error {
            devid::StoreError::Tpm(error) => Self::Tpm(error),
            other => Self::Store(other),
        }
    }
}

impl From<TpmError> for LoginError {
    fn from(error: TpmError) -> Self {
        match error {
            TpmError::NoTryLeft(tcti) => Self::Locked(tcti),
            error => Self::Tpm(error),
        }
    }
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong => f.write_str("wrong PIN; the TPM has counted it"),
            Self::NotEmpty => f.write_str(
                "the token holds objects and has no officer's PIN, so it is not initialised anew; \
                 destroy its objects first (devid list, devid key delete)",
            ),
            Self::NotInitialized => f.write_str("this PIN was never set"),
            Self::NotLoggedIn => f.write_str("somebody else must log in first"),
            Self::Refused(why) => f.write_str(why),
            Self::Store(error) => error.fmt(f),
            Self::Length => f.write_str("no PIN has so many bytes"),
            Self::Locked(tcti) => write!(
                f,
                "not tried: a wrong PIN would lock the whole TPM now, or it is locked already. \
                 {WAIT}: {}",
                tcti.clearing_lockout()
            ),
            Self::Tpm(error) => Advised(error).fmt(f),
        }
    }
}

impl std::error::Error for LoginError {}
