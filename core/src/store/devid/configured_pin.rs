//! The login by the PIN of the configuration.

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

/// Hexadecimal digits of a mark. So few that nobody who reads them has the PIN.
const DIGITS: usize = 8;

impl DevidStore {
    /// Logs the user in by the PIN that the configuration names, if it names one. One that was wrong
    /// is not shown to the TPM again, by other processes either, before it or the seal is another:
    /// whoever starts at each boot would spend all tries. A mark of it lies in the folder `run`.
    ///
    /// # Errors
    ///
    /// [`LoginError::Wrong`] also for a PIN that was not tried again.
    pub fn login_configured(&self, run: &Path) -> Result<(), LoginError> {
        let Some(pin) = self.configured_pin() else {
            return Ok(());
        };
        let mark = self.mark(&pin)?;
        let path = run.join(format!("wrong-pin-{}", self.name()));
        match file::read(&path, DIGITS as u64) {
            Ok(known) if known == mark.as_bytes() => return Err(LoginError::Wrong),
            // It may say that the PIN was wrong.
            Err(error) if trouble(&error).is_some() => {
                return Err(LoginError::Refused(format!(
                    "{}: {error}: the file says whether the PIN was wrong before, so the PIN is not \
                     tried before the file can be read",
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
                "{}: whether the PIN was wrong is not kept: {error}",
                path.display()
            );
        }
        outcome
    }

    /// Tells a PIN and the seal that it was shown to from others.
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
