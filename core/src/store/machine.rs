//! Serial numbers of tokens that have none of their own.

use crate::file;
use crate::key::hex;
use crate::tpm::Hash;
use crate::trouble::trouble;
use rustix::io::Errno;
use std::path::Path;

/// machine-id(5).
pub(super) const MACHINE: &str = "/etc/machine-id";

/// Of this installation and of `what`: machine-id(5) must not be shown as it is, only hashed with
/// something that is ours. A machine without one has the serial number of none.
///
/// # Errors
///
/// It could not be read now: the serial number would change when it can.
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
