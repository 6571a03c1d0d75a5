//! The in-memory transport of devid-core, and helpers for its answers.

use devid_core::tpm::memory::{Answerer, install};

pub use devid_core::tpm::memory::TCTI;

/// Installs a simulated TPM. The TPM is removed when this value is dropped.
pub struct Installed(());

impl Installed {
    pub fn new(answerer: Answerer) -> Self {
        install(Some(answerer));
        Self(())
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        install(None);
    }
}

/// Returns the command code of a command.
pub fn code_of(command: &[u8]) -> u32 {
    number(command, 6)
}

/// Returns the number at this position; 0 if the position is after the end.
pub fn number(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    found.map_or(0, u32::from_be_bytes)
}

/// Returns a response with this tag and code. The header contains the size.
pub fn response(tag: u16, code: u32, rest: &[u8]) -> Vec<u8> {
    let size = u32::try_from(10 + rest.len()).expect("short");
    [
        &tag.to_be_bytes()[..],
        &size.to_be_bytes(),
        &code.to_be_bytes(),
        rest,
    ]
    .concat()
}

/// Returns the bytes with their length before them (TPM2B).
pub fn sized(bytes: &[u8]) -> Vec<u8> {
    let size = bytes.len().min(usize::from(u16::MAX)) as u16;
    [&size.to_be_bytes()[..], bytes].concat()
}
