//! Access of users to a key.

use super::login::{Login, Visit, derived_auth};
use crate::store::SignError;
use crate::store::folder::KeyAuth;
use crate::tpm::{AuthValue, Tpm, TpmError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The access of users to a key.
#[derive(Debug, Clone, Default)]
pub enum Access {
    /// No login; the authorisation value is empty.
    #[default]
    Open,
    /// No login even on a token with a PIN, as the maker of the key requested.
    Everybody,
    /// The configuration gives its authorisation value.
    Given(Arc<Given>),
    /// The configuration names a source of the authorisation value that could not be read. No value
    /// is tried, since a wrong one may count towards lockout.
    Hidden,
    /// The login gives the authorisation value.
    Login(Arc<Login>),
    /// The authorisation value derives from the secret of the login.
    Derived {
        /// The login with the secret of the token.
        login: Arc<Login>,
        /// The salt that separates the keys of the token.
        salt: Vec<u8>,
    },
}

/// An authorisation value from the configuration. The value may be wrong until the TPM has accepted
/// it.
#[derive(Debug)]
pub struct Given {
    value: AuthValue,
    /// True if it may be tried even if a wrong value would put the TPM into lockout.
    last: bool,
    taken: AtomicBool,
}

impl Access {
    /// The authorisation value of the key.
    pub(in crate::store) fn value(&self) -> Result<AuthValue, SignError> {
        match self {
            Self::Open | Self::Everybody => Ok(AuthValue::default()),
            Self::Given(given) => Ok(given.value.clone()),
            Self::Hidden => Err(TpmError::Unsupported(
                "[[identity]] auth: the key's authorisation value could not be read".into(),
            )
            .into()),
            Self::Login(login) => login.secret().map(AuthValue::new),
            Self::Derived { .. } => self.visit().map(|visit| visit.value),
        }
    }

    /// The salt from which the authorisation value derives.
    pub(in crate::store) fn salt(&self) -> Option<&[u8]> {
        match self {
            Self::Derived { salt, .. } => Some(salt),
            Self::Open | Self::Everybody | Self::Given(_) | Self::Hidden | Self::Login(_) => None,
        }
    }

    /// The access in the form of a file.
    pub(in crate::store) fn kept(&self) -> KeyAuth {
        match self {
            Self::Derived { salt, .. } => KeyAuth::Salt(salt.clone()),
            Self::Everybody => KeyAuth::Open,
            Self::Open | Self::Given(_) | Self::Hidden | Self::Login(_) => KeyAuth::Unsaid,
        }
    }

    /// The value from the configuration, until the key has accepted it. A wrong value may count
    /// towards the lockout of the TPM.
    pub(super) fn untried(&self) -> Option<&Given> {
        match self {
            Self::Given(given) if !given.taken.load(Ordering::Acquire) => Some(given),
            _ => None,
        }
    }

    /// [`Access::value`] for a key in memory.
    pub(super) fn visit(&self) -> Result<Visit<'_>, SignError> {
        let Self::Derived { login, salt } = self else {
            return Ok(Visit::without_login(self.value()?));
        };
        let (count, secret) = login.now()?;
        let value = AuthValue::random(derived_auth(&secret, salt));
        Ok(Visit::by(login, count, value))
    }
}

impl Given {
    /// Runs the first commands that use the value, under the lock for tries.
    pub(super) fn tried<R>(
        &self,
        tpm: &Tpm,
        commands: impl FnOnce() -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        let _lock = tpm.lock_pin_try(self.last)?;
        let answer = commands()?;
        self.taken.store(true, Ordering::Release);
        Ok(answer)
    }

    pub(in crate::store) fn new(value: AuthValue, last: bool) -> Self {
        Self {
            value,
            last,
            taken: AtomicBool::new(false),
        }
    }
}
