//! `devid csr`, `import-cert` and `export --cert`: makes requests, imports certificates and exports
//! certificates.

use crate::cli::{CsrArgs, OutformArg, OutputFormat, RequestArgs};
use crate::destination::Destination;
use crate::input::{self, is_standard_input, standard_input};
use crate::output::{CommandError, Output};
use crate::text::{line, row};
use crate::verify::read_pin;
use devid_core::audit::AuditSubject;
use devid_core::evidence::{self, Audience, Collection, nonce_of};
use devid_core::identity::{Device, FileKind, Imported, OwnerFile, OwnerImported};
use devid_core::x509::{IssueError, RequestContent, request_pem};
use std::path::PathBuf;

/// The largest permitted size of a file from a CA, in bytes.
pub(crate) const LARGEST: u64 = 1 << 20;

impl RequestArgs {
    /// Parses the options into the content of a certificate request (PKCS#10).
    pub(crate) fn content(&self) -> Result<RequestContent, IssueError> {
        let subject = self.subject.as_deref();
        RequestContent::parse(subject, &self.san, &self.eku, &self.key_usage)
    }
}

/// Makes a request for a certificate.
pub(crate) fn request(
    device: &Device,
    args: CsrArgs,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let out = Destination::from(args.out);
    out.check(kind_of(args.outform))?;
    let content = args.content.content()?;
    let nonce = args.nonce.as_deref().map(nonce_of).transpose()?;
    let pin = read_pin(args.pin_file)?;
    let inventory = device.inventory();
    let entry = device.find_in(&inventory, &args.label)?;
    let content = match args.attest {
        false => content,
        true => {
            let collection = Collection {
                nonce: nonce.as_deref(),
                pin: pin.as_ref(),
                ek_files: &[],
                audience: Audience::Anybody,
            };
            let collect = || evidence::collect(device, &inventory, &entry, collection);
            evidence::leaving_nothing(device, collect)?.within(content)
        }
    };
    let der = device.request(&entry, &content, pin.as_ref())?;
    let output = deliver_request(&der, args.outform, &out, form)?;
    Ok(output.about(entry.audit_subject()))
}

pub(crate) fn kind_of(outform: OutformArg) -> FileKind<'static> {
    match outform {
        OutformArg::Pem => FileKind::Pem("CERTIFICATE REQUEST"),
        OutformArg::Der => FileKind::DerRequest,
    }
}

/// Writes a certificate request to a file or to standard output.
pub(crate) fn deliver_request(
    der: &[u8],
    outform: OutformArg,
    out: &Destination,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let pem = request_pem(der);
    let bytes = match outform {
        OutformArg::Pem => pem.as_bytes(),
        OutformArg::Der => der,
    };
    out.deliver_as(bytes, &pem, kind_of(outform), 0o644, form)
}

/// Imports a certificate into the token that has its key.
pub(crate) fn import(
    device: &Device,
    files: &[PathBuf],
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let [file] = files else {
        return Err(CommandError::new(
            2,
            "only --owner takes several files; give one file",
        ));
    };
    let read = match is_standard_input(file) {
        true => Some(standard_input(LARGEST)?),
        false => None,
    };
    let _turn = device.exchange_turn()?;
    let imported = match read {
        Some(bytes) => device.import_answer(&bytes, "standard input")?,
        None => device.import_certificate(file)?,
    };
    let output = Output::new(form, &imported, || taken(&imported))?;
    Ok(Output {
        is_unchanged: imported.known && imported.authorities.is_empty(),
        subject: Some(subject(device, imported.label)),
        ..output
    })
}

/// Imports certificates that the device's owner issued for the factory keys.
pub(crate) fn import_owner(
    device: &Device,
    files: &[PathBuf],
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let read = |path: &PathBuf| {
        let source = match is_standard_input(path) {
            true => "standard input".to_owned(),
            false => path.display().to_string(),
        };
        let bytes = input::file(path, LARGEST)?;
        Ok::<_, CommandError>(OwnerFile { source, bytes })
    };
    let files = files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let _turn = device.exchange_turn()?;
    let imported = device.import_owner_certificates(&files)?;
    let output = Output::new(form, &imported, || owner_taken(&imported))?;
    let label = imported.certificates.first().map(|one| one.label.clone());
    Ok(output.about(subject(device, label.unwrap_or_default())))
}

fn owner_taken(imported: &OwnerImported) -> String {
    let mut text = String::new();
    for one in &imported.certificates {
        row(
            &mut text,
            format_args!("owner's certificate for {}: {}", one.label, one.subject),
        );
    }
    for subject in &imported.replaced {
        line(&mut text, "in place of", subject);
    }
    for subject in &imported.unrelated {
        let why = format!("{subject}: issued none of these certificates");
        line(&mut text, "not kept", &why);
    }
    line(&mut text, "file", &imported.file.display().to_string());
    let shown = match imported.show {
        "instead" => "on the token idev-id, instead of the factory's certificates",
        "token" => "on the token oidevid",
        _ => "on no token yet: set show under [owner] in config.toml",
    };
    line(&mut text, "shown", shown);
    text
}

/// Returns the object of an audit line: the label and its key.
pub(crate) fn subject(device: &Device, label: String) -> AuditSubject {
    let entry = device.find(&label).ok();
    entry
        .map(|entry| entry.audit_subject())
        .unwrap_or(AuditSubject {
            label: Some(label),
            ..AuditSubject::default()
        })
}

/// Describes the imported certificates in text.
pub(crate) fn taken(imported: &Imported) -> String {
    let mut text = String::new();
    row(
        &mut text,
        format_args!("certificate for {}", imported.label),
    );
    if imported.rekeyed {
        line(&mut text, "key", "the new key is in use");
    }
    if imported.known {
        line(&mut text, "known", "the certificate was already stored");
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
            &format!("{subject}: not in the chain of the certificate"),
        );
    }
    if let Some(note) = &imported.note {
        line(&mut text, "note", note);
    }
    text
}

/// Exports the certificate of a key, the certificates of its CAs, or both.
pub(crate) fn export(
    device: &Device,
    label: &str,
    leaf: bool,
    above: bool,
    out: &Destination,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let chain = device.chain(&device.find(label)?)?;
    if !leaf && chain.len() == 1 {
        return Err(CommandError::new(
            5,
            format!(
                "{label}: the device has no CA certificate for this certificate; devid import-cert FILE stores the CA certificates in FILE"
            ),
        ));
    }
    let shown = chain.iter().skip(usize::from(!leaf));
    let shown = shown.take(if above { usize::MAX } else { 1 });
    let pem: String = shown.map(|one| one.pem()).collect();
    out.deliver(&pem, FileKind::Pem("CERTIFICATE"), 0o644, form)
}
