//! Where a text goes that a verb makes: to standard output, or to a file that the user names.

use crate::cli::{OutArgs, OutputFormat};
use crate::output::{CommandError, Output};
use devid_core::identity::{FileKind, OutputFile};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Names of standard output: a dash by custom, the others since a shell may give them.
const STANDARD_OUTPUT: [&str; 4] = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];

/// Where a text goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    StandardOutput,
    File(OutputFile),
}

impl Destination {
    pub(crate) fn new(path: PathBuf, force: bool) -> Self {
        let is_standard = STANDARD_OUTPUT.iter().any(|name| path == Path::new(name));
        match is_standard {
            true => Self::StandardOutput,
            false => Self::File(OutputFile::new(path, force)),
        }
    }

    /// The file, if it is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::StandardOutput => None,
            Self::File(file) => Some(file.path()),
        }
    }

    /// Whether such a text may go there.
    pub(crate) fn check(&self, kind: FileKind) -> Result<(), CommandError> {
        match self {
            Self::StandardOutput => Ok(()),
            Self::File(file) => Ok(file.check(kind)?),
        }
    }

    /// Writes the text, if it goes to a file.
    pub(crate) fn write(&self, text: &str, kind: FileKind, mode: u32) -> Result<(), CommandError> {
        match self {
            Self::StandardOutput => Ok(()),
            Self::File(file) => Ok(file.write(text.as_bytes(), kind, mode)?),
        }
    }

    /// Writes PEM, or answers it.
    pub(crate) fn deliver(
        &self,
        pem: &str,
        kind: FileKind,
        mode: u32,
        form: OutputFormat,
    ) -> Result<Output, CommandError> {
        self.write(pem, kind, mode)?;
        let told = json!({ "pem": pem, "file": self.path() });
        Output::new(form, &told, || match self {
            Self::StandardOutput => pem.into(),
            Self::File(_) => String::new(),
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
