//! Files from the administrator: checks of their permissions, and the certificates in them.

use super::{Device, IdentityError};
use crate::file;
use crate::trust::{Distrust, distrusted};
use crate::x509::Certificate;
use crate::x509::files::LARGEST;
use std::path::Path;

/// Checks that only users whom the administrator trusts could have written a file.
///
/// # Errors
///
/// Other users could have written it
/// ([`IdentityErrorKind::Refused`](super::IdentityErrorKind::Refused)), or the check fails now.
pub(super) fn check_trusted(path: &Path) -> Result<(), IdentityError> {
    match distrusted(path) {
        None => Ok(()),
        Some(Distrust {
            unread: Some(errno),
            place,
            ..
        }) => Err(IdentityError::file(&place)(errno.into())),
        Some(why) => Err(IdentityError::refused(format!(
            "{why}, so {} is not believed",
            path.display()
        ))),
    }
}

impl Device {
    /// The certificates in `trust/`.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub fn trusted_certificates(&self) -> Result<Vec<Certificate>, String> {
        let trusted = self.trusted(None).map_err(|fault| fault.to_string())?;
        Ok(trusted.certificates)
    }

    /// The certificates in a file that a user named as trusted.
    ///
    /// # Errors
    ///
    /// There are none, or other users could have written them.
    pub fn certificates_in(&self, path: &Path) -> Result<Vec<Certificate>, IdentityError> {
        let found = read_certificates(path)?;
        check_trusted(path)?;
        Ok(found)
    }
}

/// The certificates in a file, or the reason why there are none.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<Certificate>, IdentityError> {
    let bytes = file::read(path, LARGEST).map_err(IdentityError::file(path))?;
    let found = Certificate::parse_all(&bytes);
    found.map_err(|why| IdentityError::failed(format!("{}: {why}", path.display())))
}
