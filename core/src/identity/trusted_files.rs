//! Checks the permissions of files that the administrator provides, and reads the certificates in
//! them.

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
/// Fails with [`IdentityErrorKind::Refused`](super::IdentityErrorKind::Refused) if other users
/// could have written the file. Also fails if the system does not permit the check.
pub(super) fn check_trusted(path: &Path) -> Result<(), IdentityError> {
    match distrusted(path) {
        None => Ok(()),
        Some(Distrust {
            unread: Some(errno),
            place,
            ..
        }) => Err(IdentityError::file(&place)(errno.into())),
        Some(why) => Err(IdentityError::refused(format!(
            "{why}, so {} is not trusted",
            path.display()
        ))),
    }
}

impl Device {
    /// Returns the certificates in `trust/`.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be read.
    pub fn trusted_certificates(&self) -> Result<Vec<Certificate>, String> {
        let trusted = self.trusted(None).map_err(|fault| fault.to_string())?;
        Ok(trusted.certificates)
    }

    /// Returns the certificates in a file that a user named as trusted.
    ///
    /// # Errors
    ///
    /// Fails if the file holds no certificate, or if other users could have written it.
    pub fn certificates_in(&self, path: &Path) -> Result<Vec<Certificate>, IdentityError> {
        let found = read_certificates(path)?;
        check_trusted(path)?;
        Ok(found)
    }
}

/// Returns the certificates in a file. Fails with the reason if the file holds none.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<Certificate>, IdentityError> {
    let bytes = file::read(path, LARGEST).map_err(IdentityError::file(path))?;
    let found = Certificate::parse_all(&bytes);
    found.map_err(|why| IdentityError::failed(format!("{}: {why}", path.display())))
}
