//! `devid sign`: signs a file for another program.

use crate::cli::OutputFormat;
use crate::destination::Destination;
use crate::input;
use crate::output::{CommandError, Output};
use crate::verify::read_pin;
use clap::ValueEnum;
use devid_core::identity::{Device, FileKind};
use devid_core::message::MessageForm;
use devid_core::tpm::Hash;
use serde_json::json;
use std::path::{Path, PathBuf};

/// A hash algorithm of SHA-2.
#[derive(Clone, Copy, ValueEnum)]
#[allow(missing_docs)]
pub(crate) enum HashArg {
    Sha256,
    Sha384,
    Sha512,
}

impl From<HashArg> for Hash {
    fn from(hash: HashArg) -> Self {
        match hash {
            HashArg::Sha256 => Self::Sha256,
            HashArg::Sha384 => Self::Sha384,
            HashArg::Sha512 => Self::Sha512,
        }
    }
}

/// The longest file to be signed, in bytes. The file and the message are in memory at the same
/// time.
const LARGEST: u64 = 64 << 20;

/// Returns the form of a CMS message whose content has this type, an OID in dotted form.
pub(crate) fn cms(content_type: Option<&str>, detached: bool) -> Result<MessageForm, CommandError> {
    MessageForm::cms(content_type, detached).map_err(|why| CommandError::new(2, why))
}

/// Signs a file.
pub(crate) fn run(
    device: &Device,
    label: &str,
    file: &Path,
    message: &MessageForm,
    pin_file: Option<PathBuf>,
    out: &Destination,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    out.check(FileKind::SignedMessage)?;
    let content = input::file(file, LARGEST)?;
    let pin = read_pin(pin_file)?;
    let entry = device.find(label)?;
    let signed = device.sign_message(&entry, &content, message, pin.as_ref())?;
    out.write(&signed.bytes, FileKind::SignedMessage, 0o644)?;
    let told = json!({
        "algorithm": signed.scheme.to_string(),
        "message": signed.base64(),
        "file": out.path(),
    });
    let output = Output::new(form, &told, String::new)?;
    let output = output.about(entry.audit_subject());
    Ok(match out {
        Destination::File(_) => output,
        Destination::StandardOutput => Output {
            bytes: Some(signed.bytes),
            ..output
        },
    })
}
