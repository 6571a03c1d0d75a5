//! `devid attest` and `devid activate`

use crate::cli::OutputFormat;
use crate::destination::Destination;
use crate::output::{CommandError, Output};
use crate::verify::read_pin;
use devid_core::evidence::bundle::BUNDLE_FORMAT;
use devid_core::evidence::challenge::RESPONSE_FORMAT;
use devid_core::evidence::{self, Bytes, Challenge, Collection, DocumentError};
use devid_core::identity::{Device, FileKind};
use devid_core::key::{from_hex, hex};
use serde_json::json;
use std::path::{Path, PathBuf};

/// The longest challenge or nonce that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// What evidence is to be made with.
pub(crate) struct Asked {
    pub(crate) nonce: Option<String>,
    pub(crate) ek_files: Vec<PathBuf>,
    pub(crate) pin_file: Option<PathBuf>,
}

/// Evidence of a key.
pub(crate) fn attest(
    device: &Device,
    label: &str,
    asked: Asked,
    out: &Destination,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    out.check(FileKind::Document(BUNDLE_FORMAT))?;
    let nonce = asked.nonce.as_deref().map(nonce).transpose()?;
    let pin = read_pin(asked.pin_file)?;
    let collection = Collection {
        nonce: nonce.as_deref(),
        pin: pin.as_ref(),
        ek_files: &asked.ek_files,
    };
    let bundle = evidence::collect(device, label, collection)?;
    let complaint = bundle.nonce.is_none().then(|| {
        "no nonce was given, so the evidence is not fresh: it may be an old one for all that a CA knows; \
         --nonce takes what the CA chose"
            .into()
    });
    let output = document(bundle.to_json(), BUNDLE_FORMAT, out, form)?;
    Ok(Output {
        complaint,
        ..output
    })
}

/// The answer to a challenge.
pub(crate) fn activate(
    device: &Device,
    path: &Path,
    out: &Destination,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let challenge = read(path)?;
    if evidence::is_of_tools(&challenge) {
        out.check(FileKind::Bytes)?;
        let secret = evidence::activate_of_tools(device, &challenge)?;
        out.write(&secret, FileKind::Bytes, 0o600)?;
        let told = json!({ "secret": Bytes::from(secret.as_slice()), "file": out.path() });
        return Output::new(form, &told, || match out.path() {
            Some(_) => String::new(),
            None => format!("{}\n", hex(&secret)),
        });
    }
    out.check(FileKind::Document(RESPONSE_FORMAT))?;
    let challenge = Challenge::from_json(&challenge)
        .map_err(|why| CommandError::new(2, format!("{}: {why}", path.display())))?;
    let response = evidence::activate(device, &challenge)?;
    document(response.to_json(), RESPONSE_FORMAT, out, form)
}

/// A nonce as it is given: hexadecimal digits, else a file.
fn nonce(text: &str) -> Result<Vec<u8>, CommandError> {
    let nonce = match from_hex(text) {
        Some(nonce) => nonce,
        None => read(Path::new(text))?,
    };
    match nonce.is_empty() {
        true => Err(CommandError::new(2, "--nonce: it is empty")),
        false => Ok(nonce),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CommandError> {
    devid_core::read_file(path, LARGEST)
        .map_err(|error| CommandError::new(1, format!("{}: {error}", path.display())))
}

/// A document of this format, unless it goes to a file.
fn document(
    text: Result<String, DocumentError>,
    format: &str,
    out: &Destination,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let text = text.map_err(|why| CommandError::new(1, why.to_string()))?;
    out.write(text.as_bytes(), FileKind::Document(format), 0o644)?;
    if let Some(path) = out.path() {
        return Output::new(form, &json!({ "file": path }), String::new);
    }
    let value: serde_json::Value = serde_json::from_str(&text)
        .map_err(|why| CommandError::new(1, format!("the document: {why}")))?;
    Output::new(form, &value, || text)
}
