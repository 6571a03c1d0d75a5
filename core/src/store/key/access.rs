//! What opens a key to its users.

use crate::store::SignError;
use crate::store::devid::pins::derived;
use crate::tpm::{AuthValue, Secret};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Longer than a lock is held that no TPM is waited under.
const A_MOMENT: Duration = Duration::from_secs(1);

/// What opens a key to its users.
#[derive(Debug, Clone, Default)]
pub enum Access {
    /// Nothing is asked: its authorisation value is empty.
    #[default]
    Open,
    /// The configuration has its authorisation value.
    Given(Arc<AuthValue>),
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

/// What a login brought, for as long as somebody is logged in.
#[derive(Default)]
pub struct Login(Mutex<Option<Secret>>);

impl Access {
    /// The value that proves to the TPM that the key may be used.
    pub(in crate::store) fn value(&self) -> Result<AuthValue, SignError> {
        match self {
            Self::Open => Ok(AuthValue::default()),
            Self::Given(value) => Ok(AuthValue::clone(value)),
            Self::Login(login) => login.secret().map(AuthValue::new),
            Self::Derived { login, salt } => Ok(AuthValue::random(derived(&login.secret()?, salt))),
        }
    }
}

impl Login {
    /// From now on the keys can be used.
    pub fn begin(&self, secret: Secret) {
        *self.0.lock() = Some(secret);
    }

    pub(in crate::store) fn secret(&self) -> Result<Secret, SignError> {
        // Held for moments; in a child for ever, if a thread of the parent held it.
        let secret = self
            .0
            .try_lock_for(A_MOMENT)
            .and_then(|secret| secret.clone());
        secret.ok_or(SignError::NotLoggedIn)
    }

    /// It is wiped.
    pub fn end(&self) {
        if let Some(mut secret) = self.0.try_lock_for(A_MOMENT) {
            *secret = None;
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}
