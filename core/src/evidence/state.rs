//! The file in which a CA stores its open challenges and nonces between two calls. Only the owner
//! of the file may read it. Each secret and each nonce can be used once, and expires.

use super::challenge::{self, Activation, Challenge, Response};
use super::json::{self, Bytes};
use super::{Bundle, bundle};
use crate::file::{self, Lock};
use crate::identity::{IdentityError, IdentityErrorKind};
use crate::tpm::Hash;
use rustix::fs::{Mode, OFlags, open};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use subtle::ConstantTimeEq;

const FORMAT: &str = "devid-ca-state/1";
/// The longest time to wait for another process that writes the file.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time for which the CA remembers a used nonce that another program made, in seconds: a year.
const FOREIGN_NONCE: u64 = 365 * 24 * 60 * 60;

/// The file of challenges and nonces. It stays locked until this value is dropped.
#[derive(Debug)]
pub(super) struct CaState {
    path: PathBuf,
    content: Content,
    exists: bool,
    /// The time at which the file was opened, in seconds since 1970.
    now: u64,
    _lock: Lock,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    challenges: Vec<OpenChallenge>,
    nonces: Vec<OpenNonce>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OpenChallenge {
    id: Bytes,
    /// The SHA-256 of the secret. The hash does not allow a reader of the file to answer the
    /// challenge.
    secret_sha256: Bytes,
    activation: Activation,
    /// When the challenge expires, in seconds since 1970.
    expires: u64,
    used: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct OpenNonce {
    nonce: Bytes,
    expires: u64,
    used: bool,
}

impl CaState {
    /// Reads and locks the file of challenges and nonces. A file that does not exist counts as
    /// empty.
    ///
    /// # Errors
    ///
    /// Fails if the file has other content, if other users may read or write it, or if another
    /// process holds the lock.
    pub(super) fn open(path: &Path, now: u64) -> Result<Self, IdentityError> {
        let at = IdentityError::file(path);
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // The lock is on the folder of the file, because each change replaces the file.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = open(folder, flags, Mode::empty());
        let opened = opened.map_err(|error| IdentityError::file(folder)(error.into()))?;
        let lock = Lock::take(opened, PATIENCE).map_err(|why| at(why.into()))?;
        let lock = lock.ok_or_else(|| {
            IdentityError::failed(format!(
                "{}: another process holds the lock of its folder; run the command again",
                path.display()
            ))
        })?;
        let mut state = Self {
            path: path.to_owned(),
            content: Content::default(),
            exists: false,
            now,
            _lock: lock,
        };
        match std::fs::metadata(path) {
            Ok(about) if about.permissions().mode() & 0o077 != 0 => {
                return Err(IdentityError::refused(format!(
                    "other users may read or write {0}, which holds secrets; run chmod 600 {0}",
                    path.display()
                )));
            }
            Ok(_) => state.exists = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(state),
            Err(error) => return Err(at(error)),
        }
        let bytes = file::read(path, json::LARGEST_DOCUMENT as u64).map_err(&at)?;
        let content: Content = json::read(&bytes, FORMAT)
            .map_err(|why| IdentityError::failed(format!("{}: {why}", path.display())))?;
        state.content = content;
        Ok(state)
    }

    /// Returns true if the file of challenges and nonces existed.
    pub(super) fn exists(&self) -> bool {
        self.exists
    }

    /// Creates a challenge for a bundle, and stores it for `lifetime` seconds.
    pub(super) fn challenge(
        &mut self,
        bundle: &Bundle,
        lifetime: u64,
    ) -> Result<Challenge, IdentityError> {
        let made = challenge::make(bundle).map_err(IdentityError::failed)?;
        self.content.challenges.push(OpenChallenge {
            id: made.challenge.id.clone(),
            secret_sha256: Hash::Sha256.digest(&[&made.secret]).into(),
            activation: made.activation,
            expires: self.now.saturating_add(lifetime),
            used: false,
        });
        self.save()?;
        Ok(made.challenge)
    }

    /// Creates a random nonce, and stores it for `lifetime` seconds.
    pub(super) fn nonce(&mut self, lifetime: u64) -> Result<Vec<u8>, IdentityError> {
        let nonce = crate::tpm::random_secret(bundle::LONGEST_NONCE)?.to_vec();
        self.content.nonces.push(OpenNonce {
            nonce: nonce.clone().into(),
            expires: self.now.saturating_add(lifetime),
            used: false,
        });
        self.save()?;
        Ok(nonce)
    }

    /// Checks the answer to a challenge, and returns what the answer proves.
    ///
    /// # Errors
    ///
    /// Fails with the reason if the answer proves nothing.
    pub(super) fn activation(&self, response: &Response) -> Result<Activation, String> {
        let mut all = self.content.challenges.iter();
        let found = all.find(|one| one.id == response.id);
        let found = found.ok_or_else(|| {
            format!(
                "{} has no challenge with this number: the challenge was never made, or expired \
                 long ago",
                self.path.display()
            )
        })?;
        if found.used {
            return Err(
                "the challenge was already answered, but can be used only once; devid ca challenge \
                 makes a new one"
                    .into(),
            );
        }
        if found.expires <= self.now {
            return Err("the challenge has expired; devid ca challenge makes a new one".into());
        }
        let answered = Hash::Sha256.digest(&[&response.secret]);
        match bool::from(answered.ct_eq(&found.secret_sha256)) {
            true => Ok(found.activation.clone()),
            false => Err("the answer is wrong".into()),
        }
    }

    /// Returns `nonce` if this CA made it, else `None`.
    pub(super) fn issued(&self, nonce: &[u8]) -> Option<Vec<u8>> {
        let mut all = self.content.nonces.iter();
        let found = all.find(|one| one.nonce[..] == *nonce);
        found.map(|one| one.nonce.to_vec())
    }

    /// Checks that a nonce is neither used nor expired. With `must_be_ours`, also checks that this
    /// CA made the nonce.
    pub(super) fn may_be_used(&self, nonce: &[u8], must_be_ours: bool) -> Result<(), String> {
        let mut all = self.content.nonces.iter();
        match all.find(|one| one.nonce[..] == *nonce) {
            Some(one) if one.used => Err(
                "the nonce was already used, but can be used only once; devid ca nonce makes a new \
                 one"
                    .into(),
            ),
            Some(one) if one.expires <= self.now => {
                Err("the nonce has expired; devid ca nonce makes a new one".into())
            }
            None if must_be_ours => Err(format!(
                "{} does not contain this nonce; devid ca nonce makes one",
                self.path.display()
            )),
            _ => Ok(()),
        }
    }

    /// Marks a nonce and an answered challenge as used, and saves the file.
    pub(super) fn use_up(
        &mut self,
        nonce: Option<&[u8]>,
        response: Option<&Response>,
    ) -> Result<(), IdentityError> {
        if let Some(nonce) = nonce {
            let mut all = self.content.nonces.iter_mut();
            match all.find(|one| one.nonce[..] == *nonce) {
                Some(one) => one.used = true,
                None => self.content.nonces.push(OpenNonce {
                    nonce: nonce.into(),
                    expires: self.now.saturating_add(FOREIGN_NONCE),
                    used: true,
                }),
            }
        }
        if let Some(response) = response {
            let all = self.content.challenges.iter_mut();
            for one in all.filter(|one| one.id == response.id) {
                one.used = true;
            }
        }
        self.save()
    }

    fn save(&mut self) -> Result<(), IdentityError> {
        let now = self.now;
        self.content.challenges.retain(|one| one.expires > now);
        self.content.nonces.retain(|one| one.expires > now);
        let text = json::write(&self.content, FORMAT).map_err(|_| {
            IdentityError::new(
                IdentityErrorKind::Refused,
                format!(
                    "{}: too many challenges and nonces are open; run the command again after some \
                     have expired",
                    self.path.display()
                ),
            )
        })?;
        let written = file::write(&self.path, text.as_bytes(), 0o600);
        written.map_err(IdentityError::file(&self.path))?;
        self.exists = true;
        Ok(())
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
