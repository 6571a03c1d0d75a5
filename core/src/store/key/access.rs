//! The access to a key: who may use the key, and with which authorisation value.

use super::login::{Login, Visit};
use crate::store::SignError;
use crate::store::folder::KeyAuth;
use crate::tpm::{AuthValue, Tpm, TpmError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells who may use a key, and where its authorisation value comes from.
#[derive(Debug, Clone, Default)]
pub enum Access {
    /// The key needs no login. Its authorisation value is empty.
    #[default]
    Open,
    /// The key needs no login, even on a token with a PIN, because its creator requested that.
    Everybody,
    /// The configuration gives the authorisation value of the key.
    Given(Arc<Given>),
    /// The configuration names a source of the authorisation value, but the source could not be
    /// read. No value is tried, because a wrong value may count towards lockout.
    Hidden,
    /// The PIN of the login is the authorisation value.
    Login(Arc<Login>),
    /// The authorisation value is derived from the secret of the token.
    Derived {
        /// The login, which knows the secret of the token.
        login: Arc<Login>,
        /// The salt of the key. Each key has its own salt.
        salt: Vec<u8>,
    },
}

/// An authorisation value from the configuration. The value may be wrong until the TPM accepts it.
#[derive(Debug)]
pub struct Given {
    value: AuthValue,
    /// True if the value may be tried even if a wrong value would put the TPM into lockout.
    last: bool,
    taken: AtomicBool,
}

impl Access {
    /// Returns the authorisation value of the key.
    pub(in crate::store) fn value(&self) -> Result<AuthValue, SignError> {
        match self {
            Self::Open | Self::Everybody => Ok(AuthValue::default()),
            Self::Given(given) => Ok(given.value.clone()),
            Self::Hidden => Err(TpmError::Unsupported(
                "the source of the key's authorisation value (auth under [[identity]]) could not \
                 be read"
                    .into(),
            )
            .into()),
            Self::Login(login) => login.secret().map(AuthValue::new),
            Self::Derived { .. } => self.visit().map(|visit| visit.value),
        }
    }

    /// Returns the salt from which the authorisation value is derived, if any.
    pub(in crate::store) fn salt(&self) -> Option<&[u8]> {
        match self {
            Self::Derived { salt, .. } => Some(salt),
            Self::Open | Self::Everybody | Self::Given(_) | Self::Hidden | Self::Login(_) => None,
        }
    }

    /// Returns the access in the form that a file stores.
    pub(in crate::store) fn kept(&self) -> KeyAuth {
        match self {
            Self::Derived { salt, .. } => KeyAuth::Salt(salt.clone()),
            Self::Everybody => KeyAuth::Open,
            Self::Open | Self::Given(_) | Self::Hidden | Self::Login(_) => KeyAuth::Unsaid,
        }
    }

    /// Returns the value from the configuration, if the TPM has not accepted it yet. A wrong value
    /// may count towards the lockout of the TPM.
    pub(super) fn untried(&self) -> Option<&Given> {
        match self {
            Self::Given(given) if !given.taken.load(Ordering::Acquire) => Some(given),
            _ => None,
        }
    }

    /// Does what [`Access::value`] does, for a key that the module uses in memory.
    pub(super) fn visit(&self) -> Result<Visit<'_>, SignError> {
        let Self::Derived { login, salt } = self else {
            return Ok(Visit::without_login(self.value()?));
        };
        let (count, value) = login.derived_auth(salt)?;
        Ok(Visit::by(login, count, AuthValue::random(value)))
    }
}

impl Given {
    /// Runs the first commands that use the value. Holds the lock for tries of a PIN.
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
