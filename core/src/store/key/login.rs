//! Logins: the secret of a login, the values derived from it, and the keys that it opened.

use super::locked_memory::Locked;
use crate::key::PublicKey;
use crate::store::SignError;
use crate::tpm::{AuthValue, Hash, Secret};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Longer than any lock is held without waiting for a TPM.
const A_MOMENT: Duration = Duration::from_secs(1);
/// Length of a token's secret, and of each derived value, in bytes.
pub(in crate::store) const SECRET: usize = 32;

/// The secret of a login and the keys that it opened. Kept until logout.
#[derive(Default)]
pub struct Login(Mutex<Logins>);

#[derive(Default)]
struct Logins {
    /// The number of logins so far.
    count: u64,
    current: Option<CurrentLogin>,
}

struct CurrentLogin {
    secret: Secret,
    /// Keys that are used in memory.
    opened: Vec<OpenedKey>,
}

struct OpenedKey {
    id: OwnedKeyId,
    key: Arc<Locked>,
}

/// The identity of an opened key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenedKeyId<'a> {
    /// A private key by its public half.
    Private(&'a PublicKey),
    /// A secret key by the TPM name of its seal.
    Secret(&'a [u8]),
}

enum OwnedKeyId {
    Private(PublicKey),
    Secret(Vec<u8>),
}

impl OwnedKeyId {
    fn of(id: OpenedKeyId<'_>) -> Self {
        match id {
            OpenedKeyId::Private(public) => Self::Private(public.clone()),
            OpenedKeyId::Secret(seal) => Self::Secret(seal.to_vec()),
        }
    }

    fn as_id(&self) -> OpenedKeyId<'_> {
        match self {
            Self::Private(public) => OpenedKeyId::Private(public),
            Self::Secret(seal) => OpenedKeyId::Secret(seal),
        }
    }
}

/// One permitted use of a key.
pub(super) struct Visit<'a> {
    /// The login and its number, if one is needed.
    login: Option<(&'a Login, u64)>,
    /// The authorisation value for the TPM.
    pub(super) value: AuthValue,
}

impl<'a> Visit<'a> {
    pub(super) fn without_login(value: AuthValue) -> Self {
        Self { login: None, value }
    }

    /// A use by the login of this number.
    pub(super) fn by(login: &'a Login, count: u64, value: AuthValue) -> Self {
        Self {
            login: Some((login, count)),
            value,
        }
    }

    /// The opened key, if it was used before. A key without login is kept in `place`.
    pub(super) fn opened(&self, id: OpenedKeyId<'_>, place: &UnlockedKey) -> Option<Arc<Locked>> {
        let Some((login, count)) = self.login else {
            return place.try_lock()?.clone();
        };
        let mut logins = login.0.try_lock_for(A_MOMENT)?;
        let opened = &logins.of(count)?.opened;
        let known = opened.iter().find(|known| known.id.as_id() == id);
        known.map(|known| Arc::clone(&known.key))
    }

    /// Keeps an opened key until logout, unless the login has ended meanwhile.
    pub(super) fn keep(&self, id: OpenedKeyId<'_>, place: &UnlockedKey, opened: &Arc<Locked>) {
        let Some((login, count)) = self.login else {
            if let Some(mut place) = place.try_lock() {
                *place = Some(Arc::clone(opened));
            }
            return;
        };
        if let Some(mut logins) = login.0.try_lock_for(A_MOMENT)
            && let Some(current) = logins.of(count)
        {
            current.opened.retain(|known| known.id.as_id() != id);
            current.opened.push(OpenedKey {
                id: OwnedKeyId::of(id),
                key: Arc::clone(opened),
            });
        }
    }
}

/// A key in memory that was opened without a login.
pub(super) type UnlockedKey = Mutex<Option<Arc<Locked>>>;

impl Login {
    /// Logs in with this secret; the keys can now be used.
    pub fn begin(&self, secret: Secret) {
        let mut logins = self.0.lock();
        logins.count += 1;
        logins.current = Some(CurrentLogin {
            secret,
            opened: Vec::new(),
        });
    }

    pub(in crate::store) fn secret(&self) -> Result<Secret, SignError> {
        self.now().map(|(_, secret)| secret)
    }

    /// The number of the login, and its secret.
    pub(super) fn now(&self) -> Result<(u64, Secret), SignError> {
        // The lock is held only briefly. In a child it stays held for ever if a thread of the
        // parent held it.
        let logins = self.0.try_lock_for(A_MOMENT);
        let logins = logins.ok_or(SignError::NotLoggedIn)?;
        match &logins.current {
            Some(current) => Ok((logins.count, current.secret.clone())),
            None => Err(SignError::NotLoggedIn),
        }
    }

    /// Logs out. Wipes the secret, and opened keys once they are no longer in use.
    pub fn end(&self) {
        if let Some(mut logins) = self.0.try_lock_for(A_MOMENT) {
            logins.current = None;
        }
    }
}

impl Logins {
    /// The login of this number, if it has not ended.
    fn of(&mut self, count: u64) -> Option<&mut CurrentLogin> {
        self.current.as_mut().filter(|_| self.count == count)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// The authorisation value of a key, derived from the token's secret and the key's salt.
pub(in crate::store) fn derived_auth(secret: &Secret, salt: &[u8]) -> Secret {
    hkdf(secret, &[b"devid-pkcs11 key ", salt])
}

/// A mark that identifies a token's secret without revealing it.
pub(in crate::store) fn secret_mark(secret: &Secret) -> Vec<u8> {
    const MARK: usize = 16;
    hkdf(secret, &[b"devid-pkcs11 token"])[..MARK].to_vec()
}

/// HKDF with SHA-256, no salt and one block of output (RFC 5869, sections 2.2 and 2.3).
fn hkdf(secret: &[u8], info: &[&[u8]]) -> Secret {
    let key = Hash::Sha256.hmac(&[0; SECRET], &[secret]);
    Hash::Sha256.hmac(&key, &[info, &[&[1]]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::hex;

    #[test]
    fn keys_derive_as_the_standard_has_it() {
        // RFC 5869, A.3: the first block.
        let value = hkdf(&[0x0b; 22], &[]);
        let expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d";
        assert_eq!(hex(&value), expected);
        let secret = Secret::new(vec![7; SECRET]);
        assert_ne!(
            derived_auth(&secret, &[1; 16]),
            derived_auth(&secret, &[2; 16])
        );
    }
}
