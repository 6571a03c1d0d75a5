//! Computes serial numbers for tokens whose store contains no serial number.

use crate::file;
use crate::key::hex;
use crate::tpm::Hash;
use crate::trouble::trouble;
use rustix::io::Errno;
use std::path::Path;

/// The path of the file that machine-id(5) describes.
pub(super) const MACHINE: &str = "/etc/machine-id";

/// Returns the serial number of a token named `what`. The machine-id is confidential
/// (machine-id(5)), so it is hashed with other data. A machine without machine-id counts as a
/// machine with an empty one.
///
/// # Errors
///
/// Fails if /etc/machine-id could not be read. With another value the serial number would change
/// later.
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
