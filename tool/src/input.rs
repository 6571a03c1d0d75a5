//! Reads the files that a verb needs, and standard input.

use crate::output::CommandError;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Returns true if the path stands for standard input.
pub(crate) fn is_standard_input(path: &Path) -> bool {
    path == Path::new("-")
}

/// Reads all of standard input.
///
/// # Errors
///
/// Fails if the input is longer than `largest` bytes, or cannot be read.
pub(crate) fn standard_input(largest: u64) -> Result<Vec<u8>, CommandError> {
    read(std::io::stdin(), largest, "standard input")
}

/// Reads a whole file. `-` is standard input.
///
/// # Errors
///
/// Fails if the file is longer than `largest` bytes, or cannot be read.
pub(crate) fn file(path: &Path, largest: u64) -> Result<Vec<u8>, CommandError> {
    if is_standard_input(path) {
        return standard_input(largest);
    }
    let name = path.display().to_string();
    let file = File::open(path);
    let file = file.map_err(|error| CommandError::new(1, format!("{name}: {error}")))?;
    read(file, largest, &name)
}

fn read(source: impl Read, largest: u64, name: &str) -> Result<Vec<u8>, CommandError> {
    let fault = |what: String| CommandError::new(1, format!("{name}: {what}"));
    let mut bytes = Vec::new();
    let read = source.take(largest + 1).read_to_end(&mut bytes);
    match read.map_err(|error| fault(error.to_string()))? as u64 > largest {
        true => Err(fault(format!("over {largest} bytes"))),
        false => Ok(bytes),
    }
}
