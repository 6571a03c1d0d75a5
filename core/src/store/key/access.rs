//! What opens a key to its users.

use super::locked_memory::Locked;
use crate::key::PublicKey;
use crate::store::SignError;
use crate::store::devid::pins::derived;
use crate::tpm::{AuthValue, Secret, Tpm, TpmError};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// Whether it may be tried where a wrong one would put the TPM into lockout.
    last: bool,
    taken: AtomicBool,
}

/// What a login brought, and what was opened by it: for as long as somebody is logged in.
#[derive(Default)]
pub struct Login(Mutex<Logins>);

#[derive(Default)]
struct Logins {
    /// So many there were.
    count: u64,
    current: Option<LoggedIn>,
}

struct LoggedIn {
    secret: Secret,
    /// Keys that are used in memory.
    opened: Vec<(PublicKey, Arc<Locked>)>,
}

/// The use of a key by somebody who may.
pub(super) struct Visit<'a> {
    /// By which login, if it takes one.
    login: Option<(&'a Login, u64)>,
    /// What proves to the TPM that the key may be used.
    pub(super) value: AuthValue,
}

impl Visit<'_> {
    /// The opened key, if it was used before; in `place` if that takes no login.
    pub(super) fn opened(&self, key: &PublicKey, place: &Opened) -> Option<Arc<Locked>> {
        let Some((login, count)) = self.login else {
            return place.try_lock()?.clone();
        };
        let mut logins = login.0.try_lock_for(A_MOMENT)?;
        let opened = &logins.of(count)?.opened;
        let known = opened.iter().find(|(known, _)| known == key);
        known.map(|(_, opened)| Arc::clone(opened))
    }

    /// Keeps an opened key until the login ends; not if it has ended meanwhile.
    pub(super) fn keep(&self, key: &PublicKey, place: &Opened, opened: &Arc<Locked>) {
        let Some((login, count)) = self.login else {
            if let Some(mut place) = place.try_lock() {
                *place = Some(Arc::clone(opened));
            }
            return;
        };
        if let Some(mut logins) = login.0.try_lock_for(A_MOMENT)
            && let Some(current) = logins.of(count)
        {
            current.opened.retain(|(known, _)| known != key);
            current.opened.push((key.clone(), Arc::clone(opened)));
        }
    }
}

/// Where a key is kept open that needs no login.
pub(super) type Opened = Mutex<Option<Arc<Locked>>>;

impl Access {
    /// The value that proves to the TPM that the key may be used.
    pub(in crate::store) fn value(&self) -> Result<AuthValue, SignError> {
        match self {
            Self::Open => Ok(AuthValue::default()),
            Self::Given(given) => Ok(given.value.clone()),
            Self::Hidden => Err(TpmError::Unsupported(
                "[[identity]] auth: the key's authorisation value could not be read".into(),
            )
            .into()),
            Self::Login(login) => login.secret().map(AuthValue::new),
            Self::Derived { .. } => self.visit().map(|visit| visit.value),
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
            return Ok(Visit {
                login: None,
                value: self.value()?,
            });
        };
        let (count, secret) = login.now()?;
        Ok(Visit {
            login: Some((login, count)),
            value: AuthValue::random(derived(&secret, salt)),
        })
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

impl Login {
    /// From now on the keys can be used.
    pub fn begin(&self, secret: Secret) {
        let mut logins = self.0.lock();
        logins.count += 1;
        logins.current = Some(LoggedIn {
            secret,
            opened: Vec::new(),
        });
    }

    pub(in crate::store) fn secret(&self) -> Result<Secret, SignError> {
        self.now().map(|(_, secret)| secret)
    }

    fn now(&self) -> Result<(u64, Secret), SignError> {
        // Held for moments; in a child for ever, if a thread of the parent held it.
        let logins = self.0.try_lock_for(A_MOMENT);
        let logins = logins.ok_or(SignError::NotLoggedIn)?;
        match &logins.current {
            Some(current) => Ok((logins.count, current.secret.clone())),
            None => Err(SignError::NotLoggedIn),
        }
    }

    /// It is wiped, and so is what was opened by it once nobody uses it.
    pub fn end(&self) {
        if let Some(mut logins) = self.0.try_lock_for(A_MOMENT) {
            logins.current = None;
        }
    }
}

impl Logins {
    /// That login, if it has not ended.
    fn of(&mut self, count: u64) -> Option<&mut LoggedIn> {
        self.current.as_mut().filter(|_| self.count == count)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}
