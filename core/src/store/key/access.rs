//! What opens a key to its users.

use super::login::{Login, Visit, derived_auth};
use crate::store::SignError;
use crate::store::folder::KeyAuth;
use crate::tpm::{AuthValue, Tpm, TpmError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What opens a key to its users.
#[derive(Debug, Clone, Default)]
pub enum Access {
    /// Nothing is asked: its authorisation value is empty.
    #[default]
    Open,
    /// Nothing is asked, also on a token with a PIN: whoever made the key wanted that.
    Everybody,
    /// The configuration has its authorisation value.
    Given(Arc<Given>),
    /// The configuration says where its authorisation value is, and it could not be had. None is
    /// tried: a wrong one may count towards the TPM's lockout.
    Hidden,
    /// Whoever logs in brings it.
    Login(Arc<Login>),
    /// Whoever logs in brings the secret that it derives from.
    Derived {
        /// The token's secret.
        login: Arc<Login>,
        /// What tells the token's keys apart.
        salt: Vec<u8>,
    },
}

/// An authorisation value of the configuration: as doubtful as a PIN until the TPM has taken it.
#[derive(Debug)]
pub struct Given {
    value: AuthValue,
    /// True if it may be tried where a wrong one would put the TPM into lockout.
    last: bool,
    taken: AtomicBool,
}

impl Access {
    /// The value that proves to the TPM that the key may be used.
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

    /// What the authorisation value derives from, beside a secret.
    pub(in crate::store) fn salt(&self) -> Option<&[u8]> {
        match self {
            Self::Derived { salt, .. } => Some(salt),
            Self::Open | Self::Everybody | Self::Given(_) | Self::Hidden | Self::Login(_) => None,
        }
    }

    /// As a file says it.
    pub(in crate::store) fn kept(&self) -> KeyAuth {
        match self {
            Self::Derived { salt, .. } => KeyAuth::Salt(salt.clone()),
            Self::Everybody => KeyAuth::Open,
            Self::Open | Self::Given(_) | Self::Hidden | Self::Login(_) => KeyAuth::Unsaid,
        }
    }

    /// The value of the configuration while no key has taken it: a wrong one may count towards the
    /// lockout of the TPM.
    pub(super) fn untried(&self) -> Option<&Given> {
        match self {
            Self::Given(given) if !given.taken.load(Ordering::Acquire) => Some(given),
            _ => None,
        }
    }

    /// What [`Access::value`] is, to use a key in memory.
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
    /// Runs the first commands that show the value, in turn with other processes.
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
