//! The login with a PIN from the configuration: the setting `pin` names the source of the PIN.

use super::DevidStore;
use crate::file;
use crate::key::hex;
use crate::store::folder::PinSeal;
use crate::store::{LoginError, UserType};
use crate::tpm::{Hash, Secret};
use crate::trouble::trouble;
use log::warn;
use std::fs::create_dir_all;
use std::path::Path;

/// The length of the hash that identifies a wrong PIN, in hexadecimal digits. The hash is too short
/// to find the PIN from it.
const DIGITS: usize = 8;

impl DevidStore {
    /// Logs the user in with the PIN from the configuration, if there is one. After a wrong PIN, no
    /// process tries this PIN again until the PIN or the seal changes. Otherwise a service that
    /// starts at each boot would use up all tries. A file in the folder `run` marks the wrong PIN.
    ///
    /// # Errors
    ///
    /// Fails with [`LoginError::Wrong`] also for a PIN that was not tried again.
    pub fn login_configured(&self, run: &Path) -> Result<(), LoginError> {
        let Some(pin) = self.configured_pin() else {
            return Ok(());
        };
        let mark = self.mark(&pin)?;
        let path = run.join(format!("wrong-pin-{}", self.name()));
        match file::read(&path, DIGITS as u64) {
            Ok(known) if known == mark.as_bytes() => return Err(LoginError::Wrong),
            // The file in the folder `run` may tell that the PIN was wrong. So the PIN is not
            // tried.
            Err(error) if trouble(&error).is_some() => {
                return Err(LoginError::Refused(format!(
                    "{}: {error}. This file records whether the PIN was wrong before, so the PIN \
                     is not tried until the file can be read",
                    path.display()
                )));
            }
            _ => {}
        }
        let outcome = self.login(UserType::User, &pin);
        let noted = match outcome {
            Err(LoginError::Wrong) => {
                create_dir_all(run).and_then(|()| file::write(&path, mark.as_bytes(), 0o600))
            }
            Ok(()) => file::remove(&path),
            Err(_) => Ok(()),
        };
        if let Err(error) = noted {
            warn!(
                "{}: the wrong PIN cannot be recorded: {error}",
                path.display()
            );
        }
        outcome
    }

    /// Returns a hash that identifies a PIN together with the seal for which the PIN was tried.
    fn mark(&self, pin: &Secret) -> Result<String, LoginError> {
        let seal = self
            .folder
            .seal(PinSeal::User)
            .map_err(super::StoreError::from)?;
        let (seal, _) = seal.ok_or(LoginError::NotInitialized)?;
        let digest = Hash::Sha256.hmac(&seal.private, &[pin]);
        Ok(hex(&digest)[..DIGITS].to_owned())
    }
}
