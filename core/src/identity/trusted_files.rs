//! Files that the administrator gives: whether they can be trusted, and the certificates in them.

use super::Fault;
use crate::file;
use crate::trust::{Distrust, distrusted};
use crate::x509::Certificate;
use crate::x509::files::LARGEST;
use std::path::Path;

/// That nobody but whom the administrator trusts could have written a file.
///
/// # Errors
///
/// Others could ([`FaultKind::Refused`]), or the system cannot say now.
pub(super) fn believed(path: &Path) -> Result<(), Fault> {
    match distrusted(path) {
        None => Ok(()),
        Some(Distrust {
            unread: Some(errno),
            place,
            ..
        }) => Err(Fault::file(&place)(errno.into())),
        Some(why) => Err(Fault::refused(format!(
            "{why}, so {} is not believed",
            path.display()
        ))),
    }
}

/// The certificates in a file; why there are none.
pub(super) fn certificates_of(path: &Path) -> Result<Vec<Certificate>, Fault> {
    let bytes = file::read(path, LARGEST).map_err(Fault::file(path))?;
    let found = Certificate::parse_all(&bytes);
    found.map_err(|why| Fault::failed(format!("{}: {why}", path.display())))
}
