//! Serial numbers for tokens without one of their own.

use crate::file;
use crate::key::hex;
use crate::tpm::Hash;
use crate::trouble::trouble;
use rustix::io::Errno;
use std::path::Path;

/// machine-id(5).
pub(super) const MACHINE: &str = "/etc/machine-id";

/// The serial number of a token named `what`. machine-id(5) must not be shown itself, only hashed
/// together with other data. A machine without machine-id uses an empty one.
///
/// # Errors
///
/// machine-id(5) could not be read now. Otherwise the serial number would change later.
pub(super) fn serial(what: &str) -> Result<String, Errno> {
    let machine = match file::read(Path::new(MACHINE), 64) {
        Ok(machine) => machine,
        Err(error) => match trouble(&error) {
            Some(errno) => return Err(errno),
            None => Vec::new(),
        },
    };
    let what = format!("devid-pkcs11 {what}");
    let digest = Hash::Sha256.hmac(machine.trim_ascii(), &[what.as_bytes()]);
    Ok(hex(&digest[..8]))
}
