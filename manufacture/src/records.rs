//! The file with a manufacturer's records, one line for each device.

use devid_core::identity::{IdentityError, IdentityErrorKind};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Appends a line, unless the file already has a line that differs only in its time. If a killed
/// run left an incomplete line, that line is removed first. Other processes that append to the file
/// wait.
pub(crate) fn append(path: &Path, line: &str) -> Result<(), IdentityError> {
    appended(path, line).map_err(|error| {
        IdentityError::new(
            IdentityErrorKind::Failed,
            format!("{}: {error}", path.display()),
        )
    })
}

fn appended(path: &Path, line: &str) -> io::Result<()> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.lock()?;
    let mut there = Vec::new();
    file.read_to_end(&mut there)?;
    let whole = there
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    let (lines, rest) = there.split_at(whole);
    // An incomplete last line is removed only if it is the start of a device's JSON record.
    if !rest.is_empty() && !is_beginning(rest) {
        return Err(io::Error::other(
            "the last line of the file is incomplete and is not a device record; the file was not changed",
        ));
    }
    let wanted = without_time(line.as_bytes());
    if wanted.is_some()
        && lines
            .split(|byte| *byte == b'\n')
            .any(|one| without_time(one) == wanted)
    {
        return Ok(());
    }
    file.set_len(whole as u64)?;
    file.seek(SeekFrom::End(0))?;
    file.write_all(line.as_bytes())?;
    file.sync_all()
}

/// Returns true if a device's JSON record may start with these bytes.
fn is_beginning(rest: &[u8]) -> bool {
    const HEAD: &[u8] = br#"{"format":"devid-manufacture/1""#;
    let common = rest.len().min(HEAD.len());
    rest[..common] == HEAD[..common]
}

fn without_time(line: &[u8]) -> Option<Value> {
    let mut value: Value = serde_json::from_slice(line).ok()?;
    value.as_object_mut()?.remove("time");
    Some(value)
}
