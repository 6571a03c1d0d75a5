//! Logins: the secret of a login, the authorisation values derived from it, and the keys that were
//! decrypted during the login.

use super::locked_memory::Locked;
use crate::key::PublicKey;
use crate::store::SignError;
use crate::tpm::{AuthValue, Hash, Secret};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Longer than the mutex is held when no thread waits for the TPM.
const A_MOMENT: Duration = Duration::from_secs(1);
/// The length of a token's secret, and of each derived value, in bytes.
pub(in crate::store) const SECRET: usize = 32;

/// The secret of a login, and the keys that were decrypted during the login. Both are kept until
/// logout.
#[derive(Default)]
pub struct Login(Mutex<Logins>);

#[derive(Default)]
struct Logins {
    /// The number of logins until now.
    count: u64,
    current: Option<CurrentLogin>,
}

struct CurrentLogin {
    secret: Secret,
    /// The pseudorandom key of the secret (RFC 5869, section 2.2). To compute it is half of a derivation.
    extracted: Secret,
    /// The decrypted keys that the module uses in memory.
    opened: Vec<OpenedKey>,
}

struct OpenedKey {
    id: OwnedKeyId,
    key: Arc<Locked>,
}

/// The identity of a decrypted key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenedKeyId<'a> {
    /// A private key, identified by its public key.
    Private(&'a PublicKey),
    /// A secret key, identified by the TPM name of its seal.
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

/// The permission to use a key once.
pub(super) struct Visit<'a> {
    /// The login and its number. `None` if the key needs no login.
    login: Option<(&'a Login, u64)>,
    /// The authorisation value for the TPM.
    pub(super) value: AuthValue,
}

impl<'a> Visit<'a> {
    pub(super) fn without_login(value: AuthValue) -> Self {
        Self { login: None, value }
    }

    /// Returns the permission to use a key during the login with this number.
    pub(super) fn by(login: &'a Login, count: u64, value: AuthValue) -> Self {
        Self {
            login: Some((login, count)),
            value,
        }
    }

    /// Returns the decrypted key, if it was used before. A key without login is stored in `place`.
    pub(super) fn opened(&self, id: OpenedKeyId<'_>, place: &UnlockedKey) -> Option<Arc<Locked>> {
        let Some((login, count)) = self.login else {
            return place.try_lock()?.clone();
        };
        let mut logins = login.0.try_lock_for(A_MOMENT)?;
        let opened = &logins.of(count)?.opened;
        let known = opened.iter().find(|known| known.id.as_id() == id);
        known.map(|known| Arc::clone(&known.key))
    }

    /// Stores a decrypted key until logout. Does nothing if the login has ended.
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

/// A key in memory that was decrypted without a login.
pub(super) type UnlockedKey = Mutex<Option<Arc<Locked>>>;

impl Login {
    /// Begins a login with this secret. After that, the keys can be used.
    pub fn begin(&self, secret: Secret) {
        let mut logins = self.0.lock();
        logins.count += 1;
        logins.current = Some(CurrentLogin {
            extracted: extracted(&secret),
            secret,
            opened: Vec::new(),
        });
    }

    pub(in crate::store) fn secret(&self) -> Result<Secret, SignError> {
        let now = self.now(|current| current.secret.clone());
        now.map(|(_, secret)| secret)
    }

    /// Returns the number of the login, and the authorisation value of the key with this salt.
    pub(super) fn derived_auth(&self, salt: &[u8]) -> Result<(u64, Secret), SignError> {
        let (count, key) = self.now(|current| current.extracted.clone())?;
        Ok((count, expanded(&key, &[KEY_AUTH, salt])))
    }

    /// Returns the number of the login, and a part of the login.
    fn now(&self, part: impl FnOnce(&CurrentLogin) -> Secret) -> Result<(u64, Secret), SignError> {
        // A thread holds the mutex only briefly. In a forked child the mutex stays locked for ever
        // if a thread of the parent held it at the fork.
        let logins = self.0.try_lock_for(A_MOMENT);
        let logins = logins.ok_or(SignError::NotLoggedIn)?;
        match &logins.current {
            Some(current) => Ok((logins.count, part(current))),
            None => Err(SignError::NotLoggedIn),
        }
    }

    /// Ends the login. Wipes the secret. Wipes each decrypted key when no operation uses it any
    /// more.
    pub fn end(&self) {
        if let Some(mut logins) = self.0.try_lock_for(A_MOMENT) {
            logins.current = None;
        }
    }
}

impl Logins {
    /// Returns the login with this number, if it has not ended.
    fn of(&mut self, count: u64) -> Option<&mut CurrentLogin> {
        self.current.as_mut().filter(|_| self.count == count)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// Begins the info of the derivation of a key's authorisation value. The salt of the key follows.
const KEY_AUTH: &[u8] = b"devid-pkcs11 key ";

/// Returns a value that identifies the secret of a token without revealing it.
pub(in crate::store) fn secret_mark(secret: &Secret) -> Vec<u8> {
    const MARK: usize = 16;
    hkdf(secret, &[b"devid-pkcs11 token"])[..MARK].to_vec()
}

/// Computes HKDF with SHA-256, without salt, and with a single block of output.
fn hkdf(secret: &[u8], info: &[&[u8]]) -> Secret {
    expanded(&extracted(secret), info)
}

/// The pseudorandom key (RFC 5869, section 2.2).
fn extracted(secret: &[u8]) -> Secret {
    Hash::Sha256.hmac(&[0; SECRET], &[secret])
}

/// The first block of output (RFC 5869, section 2.3).
fn expanded(key: &[u8], info: &[&[u8]]) -> Secret {
    Hash::Sha256.hmac(key, &[info, &[&[1]]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::hex;

    #[test]
    fn keys_derive_as_the_standard_has_it() {
        // The first block of the test vector in RFC 5869, A.3.
        let value = hkdf(&[0x0b; 22], &[]);
        let expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d";
        assert_eq!(hex(&value), expected);
        let login = Login::default();
        login.begin(Secret::new(vec![7; SECRET]));
        let value = |salt: &[u8]| login.derived_auth(salt).unwrap().1;
        assert_eq!(value(&[1; 16]), hkdf(&[7; SECRET], &[KEY_AUTH, &[1; 16]]));
        assert_ne!(value(&[1; 16]), value(&[2; 16]));
        login.end();
        assert!(login.derived_auth(&[1; 16]).is_err());
    }
}
