//! The destination of a text: standard output, or a file that the user names.

use crate::cli::{OutArgs, OutputFormat};
use crate::output::{CommandError, Output};
use devid_core::identity::{FileKind, OutputFile};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Names of standard output: a dash by convention, and the paths that a shell may give.
const STANDARD_OUTPUT: [&str; 4] = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];

/// Returns true if the path names standard output.
pub(crate) fn is_standard_output(path: &Path) -> bool {
    STANDARD_OUTPUT.iter().any(|name| path == Path::new(name))
}

/// The destination of an output: standard output or a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    StandardOutput,
    File(OutputFile),
}

impl Destination {
    pub(crate) fn new(path: PathBuf, force: bool) -> Self {
        match is_standard_output(&path) {
            true => Self::StandardOutput,
            false => Self::File(OutputFile::new(path, force)),
        }
    }

    /// Returns the path, if the destination is a file.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::StandardOutput => None,
            Self::File(file) => Some(file.path()),
        }
    }

    /// Checks that the destination may be written. An existing file with data of another kind is
    /// refused.
    pub(crate) fn check(&self, kind: FileKind) -> Result<(), CommandError> {
        match self {
            Self::StandardOutput => Ok(()),
            Self::File(file) => Ok(file.check(kind)?),
        }
    }

    /// Writes the bytes if the destination is a file.
    pub(crate) fn write(
        &self,
        bytes: &[u8],
        kind: FileKind,
        mode: u32,
    ) -> Result<(), CommandError> {
        match self {
            Self::StandardOutput => Ok(()),
            Self::File(file) => Ok(file.write(bytes, kind, mode)?),
        }
    }

    /// Writes the PEM text to the file, or returns the text if there is no file.
    pub(crate) fn deliver(
        &self,
        pem: &str,
        kind: FileKind,
        mode: u32,
        form: OutputFormat,
    ) -> Result<Output, CommandError> {
        self.deliver_as(pem.as_bytes(), pem, kind, mode, form)
    }

    /// Writes the bytes to the file, or returns the bytes if there is no file. A JSON document
    /// contains the bytes in PEM.
    pub(crate) fn deliver_as(
        &self,
        bytes: &[u8],
        pem: &str,
        kind: FileKind,
        mode: u32,
        form: OutputFormat,
    ) -> Result<Output, CommandError> {
        self.write(bytes, kind, mode)?;
        let told = json!({ "pem": pem, "file": self.path() });
        let output = Output::new(form, &told, String::new)?;
        Ok(match self {
            Self::File(_) => output,
            Self::StandardOutput => Output {
                bytes: Some(bytes.to_vec()),
                ..output
            },
        })
    }
}

impl From<OutArgs> for Destination {
    fn from(OutArgs { out, force }: OutArgs) -> Self {
        match out {
            Some(path) => Self::new(path, force.force),
            None => Self::StandardOutput,
        }
    }
}
