//! `devid csr`, `import-cert` and `export --cert`: requests and certificates

use crate::cli::{OutformArg, OutputFormat, RequestArgs};
use crate::output::{CommandError, Output};
use crate::text::{line, row};
use crate::verify::read_pin;
use devid_core::identity::{Device, Imported};
use devid_core::x509::{IssueError, RequestContent, request_pem};
use serde_json::json;
use std::io::Read;
use std::path::{Path, PathBuf};

/// More bytes than any sane answer of a CA has.
const LARGEST: u64 = 1 << 20;
/// Standard input or output in the place of a file.
const DASH: &str = "-";

impl RequestArgs {
    /// What the request is to ask for.
    pub(crate) fn content(&self) -> Result<RequestContent, IssueError> {
        let subject = self.subject.as_deref();
        RequestContent::parse(subject, &self.san, &self.eku, &self.key_usage)
    }
}

/// A request for a certificate.
pub(crate) fn request(
    device: &Device,
    label: &str,
    content: &RequestArgs,
    pin_file: Option<PathBuf>,
    outform: OutformArg,
    out: Option<&Path>,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let content = content.content()?;
    let pin = read_pin(pin_file)?;
    let der = device.request(&device.find(label)?, &content, pin.as_ref())?;
    let pem = request_pem(&der);
    match outform {
        OutformArg::Pem => write_pem(&pem, out, 0o644, form),
        OutformArg::Der => write_as(&der, &pem, out, 0o644, form),
    }
}

/// Takes a certificate.
pub(crate) fn import(
    device: &Device,
    file: &Path,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let imported = match file == Path::new(DASH) {
        true => device.import_answer(&standard_input()?, "standard input")?,
        false => device.import_certificate(file)?,
    };
    Output::new(form, &imported, || taken(&imported))
}

fn standard_input() -> Result<Vec<u8>, CommandError> {
    let fault = |what: String| CommandError::new(1, format!("standard input: {what}"));
    let mut bytes = Vec::new();
    let read = std::io::stdin().take(LARGEST + 1).read_to_end(&mut bytes);
    match read.map_err(|error| fault(error.to_string()))? as u64 > LARGEST {
        true => Err(fault(format!("over {LARGEST} bytes"))),
        false => Ok(bytes),
    }
}

/// What was taken, for a person.
pub(crate) fn taken(imported: &Imported) -> String {
    let mut text = String::new();
    row(
        &mut text,
        format_args!("certificate for {}", imported.label),
    );
    if imported.known {
        line(&mut text, "known", "it was there already");
    }
    for subject in &imported.replaced {
        line(&mut text, "in place of", subject);
    }
    for subject in &imported.authorities {
        line(&mut text, "with its CA", subject);
    }
    for subject in &imported.unrelated {
        line(
            &mut text,
            "not kept",
            &format!("{subject}: it is not above the certificate"),
        );
    }
    if let Some(note) = &imported.note {
        line(&mut text, "note", note);
    }
    text
}

/// The certificate of a key, those of the CAs above it, or both.
pub(crate) fn export(
    device: &Device,
    label: &str,
    leaf: bool,
    above: bool,
    out: Option<&Path>,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let chain = device.chain(&device.find(label)?)?;
    if !leaf && chain.len() == 1 {
        return Err(CommandError::new(
            5,
            format!(
                "{label}: no certificate of a CA above it is here; devid import-cert takes those that \
                 come with a certificate"
            ),
        ));
    }
    let shown = chain.iter().skip(usize::from(!leaf));
    let shown = shown.take(if above { usize::MAX } else { 1 });
    let pem: String = shown.map(|one| one.pem()).collect();
    write_pem(&pem, out, 0o644, form)
}

/// The text, unless it goes to a file.
pub(crate) fn write_pem(
    text: &str,
    out: Option<&Path>,
    mode: u32,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    write_as(text.as_bytes(), text, out, mode, form)
}

/// These bytes to a file or to standard output; in JSON the PEM form of them.
fn write_as(
    bytes: &[u8],
    pem: &str,
    out: Option<&Path>,
    mode: u32,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let file = out.filter(|path| *path != Path::new(DASH));
    if let Some(path) = file {
        devid_core::write_file(path, bytes, mode)
            .map_err(|error| CommandError::new(1, format!("{}: {error}", path.display())))?;
    }
    let output = Output::new(form, &json!({ "pem": pem, "file": file }), String::new)?;
    Ok(match file {
        Some(_) => output,
        None => Output {
            bytes: Some(bytes.to_vec()),
            ..output
        },
    })
}
