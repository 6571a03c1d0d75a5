//! `devid key`, `devid export --tss2` and `devid persist`.

use crate::cli::{AlgorithmArg, OutputFormat, ParentArg, SchemeArg};
use crate::destination::Destination;
use crate::input;
use crate::output::{CommandError, Output};
use crate::text::{line, row};
use crate::verify::read_pin;
use devid_core::config::left_over;
use devid_core::identity::{Device, FACTORY, FileKind, KeyStorage, OWN, TokenEntry};
use devid_core::key::{Curve, hex};
use devid_core::shell::argument;
use devid_core::store::devid::{KeyAlgorithm, KeyPurpose};
use devid_core::tpm::{Hash, Secret, SignatureScheme};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Returns where a key is stored that is neither persistent nor sealed.
pub(crate) fn storage(
    kind: AlgorithmArg,
    parent: ParentArg,
    scheme: Option<SchemeArg>,
) -> Result<KeyStorage, CommandError> {
    let is_rsa = matches!(
        kind,
        AlgorithmArg::Rsa2048 | AlgorithmArg::Rsa3072 | AlgorithmArg::Rsa4096
    );
    let own = match is_rsa {
        true => SchemeArg::RsassaSha256,
        false => SchemeArg::EcdsaSha256,
    };
    match (parent, scheme) {
        (ParentArg::Master, None) => Ok(KeyStorage::Wrapped),
        (ParentArg::Master, Some(_)) => Err(CommandError::new(
            2,
            "--scheme needs --parent srk; a key below the master key signs by every scheme",
        )),
        (ParentArg::Srk, Some(asked)) if asked != own => Err(CommandError::new(
            2,
            "--scheme: ecdsa-sha256 is for keys on a curve, rsassa-sha256 for RSA keys",
        )),
        (ParentArg::Srk, _) => Ok(KeyStorage::BelowRoot(match own {
            SchemeArg::EcdsaSha256 => SignatureScheme::Ecdsa(Hash::Sha256),
            SchemeArg::RsassaSha256 => SignatureScheme::Rsassa(Hash::Sha256),
        })),
    }
}

/// Converts the argument of the command line into a [`KeyAlgorithm`].
pub(crate) fn algorithm(kind: AlgorithmArg) -> KeyAlgorithm {
    match kind {
        AlgorithmArg::P256 => KeyAlgorithm::Ec(Curve::P256),
        AlgorithmArg::P384 => KeyAlgorithm::Ec(Curve::P384),
        AlgorithmArg::P521 => KeyAlgorithm::Ec(Curve::P521),
        AlgorithmArg::Rsa2048 => KeyAlgorithm::Rsa(2048),
        AlgorithmArg::Rsa3072 => KeyAlgorithm::Rsa(3072),
        AlgorithmArg::Rsa4096 => KeyAlgorithm::Rsa(4096),
    }
}

/// Makes a key in the TPM, for `devid key generate`.
pub(crate) fn generate(
    device: &Device,
    label: &str,
    kind: AlgorithmArg,
    decrypts: bool,
    storage: KeyStorage,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let usage = KeyPurpose {
        signs: true,
        decrypts,
    };
    let made = device.generate_key(label, algorithm(kind), usage, storage)?;
    let output = Output::new(form, &device.describe(&made), || paragraph(device, &made))?;
    Ok(output.about(made.audit_subject()))
}

/// A limit in bytes that is above the longest file of a key folder.
const LARGEST: u64 = 128 << 10;
/// The largest permitted size of an authorisation value, in bytes.
const LONGEST_VALUE: u64 = 64;

/// Imports a key or a certificate from another program's store into a token.
pub(crate) fn take_over(
    device: &Device,
    file: &Path,
    token: &str,
    auth_file: Option<PathBuf>,
    pin_file: Option<PathBuf>,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let content = input::file(file, LARGEST)?;
    let value = read_value(auth_file)?;
    let pin = read_pin(pin_file)?;
    let source = file.display().to_string();
    let taken = device.take_over(token, (&source, &content), value, pin.as_ref())?;
    let output = Output::new(form, &taken, || {
        let mut text = String::new();
        let what = match taken.known {
            true => "was already stored",
            false => "was imported",
        };
        let said = format_args!("{}: the {} {what}: {}", taken.label, taken.kind, taken.file);
        row(&mut text, said);
        text
    })?;
    let output = output.about(taken.audit_subject());
    Ok(Output {
        is_unchanged: taken.known,
        ..output
    })
}

/// Unseals data that another program sealed in this TPM.
pub(crate) fn unseal(
    device: &Device,
    file: &Path,
    auth_file: Option<PathBuf>,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let content = input::file(file, LARGEST)?;
    let value = read_value(auth_file)?;
    let source = file.display().to_string();
    let data = device.unseal((&source, &content), value)?;
    let output = Output::new(form, &json!({ "data": hex(&data) }), String::new)?;
    Ok(Output {
        bytes: (form == OutputFormat::Text).then(|| data.to_vec()),
        ..output
    })
}

/// Reads the authorisation value from the file of `--auth-file`. Returns an empty value without
/// this option.
fn read_value(file: Option<PathBuf>) -> Result<Secret, CommandError> {
    if !file.as_deref().is_some_and(input::is_standard_input) {
        return Ok(read_pin(file)?.unwrap_or_default());
    }
    let mut value = Secret::new(input::standard_input(LONGEST_VALUE + 1)?);
    if value.last() == Some(&b'\n') {
        value.pop();
    }
    let why = match left_over(&value) {
        None if value.len() as u64 > LONGEST_VALUE => "the value is longer than 64 bytes",
        None => return Ok(value),
        Some(why) => why,
    };
    let text =
        format!("the authorisation value on standard input: {why}; nothing was sent to the TPM");
    Err(CommandError::new(2, text))
}

/// Lists the keys of all tokens with a key folder.
pub(crate) fn list(device: &Device, form: OutputFormat) -> Result<Output, CommandError> {
    let inventory = device.inventory();
    if let Some((_, fault)) = inventory.faults.iter().find(|(token, _)| *token == OWN) {
        return Err(fault.clone().into());
    }
    let own = inventory
        .entries
        .iter()
        .filter(|one| one.token != FACTORY && one.has_key());
    let described: Vec<_> = own.clone().map(|one| device.describe(one)).collect();
    Output::new(form, &described, || {
        own.map(|one| paragraph(device, one)).collect()
    })
}

/// Deletes a key and its certificates.
pub(crate) fn delete(
    device: &Device,
    label: &str,
    yes: bool,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let _turn = yes.then(|| device.exchange_turn()).transpose()?;
    let entry = device.find(label)?;
    if !yes {
        let meant = argument(label);
        return Err(CommandError::new(
            6,
            format!(
                "this command permanently deletes the key {label}; nothing was done; to continue: devid key delete --yes {meant}"
            ),
        ));
    }
    let deleted = device.delete_key(&entry)?;
    let output = Output::new(form, &json!({ "deleted": deleted }), || {
        let mut text = String::new();
        for file in &deleted {
            row(&mut text, format_args!("deleted {file}"));
        }
        text
    })?;
    Ok(output.about(entry.audit_subject()))
}

/// Exports the wrapped form of a key as a TSS2 file.
pub(crate) fn export(
    device: &Device,
    label: &str,
    out: &Destination,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let wrapped = device.wrapped_key(&device.find(label)?)?;
    let kind = FileKind::Pem("TSS2 PRIVATE KEY");
    out.deliver(&wrapped, kind, 0o600, form)
}

/// Puts a key into a persistent handle.
pub(crate) fn persist(
    device: &Device,
    label: &str,
    handle: Option<u32>,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let _turn = device.exchange_turn()?;
    let entry = device.find(label)?;
    let handle = device.persist(&entry, handle)?;
    let handle = format!("0x{handle:08X}");
    let told = json!({ "label": label, "handle": handle });
    let output = Output::new(form, &told, || {
        let mut text = String::new();
        row(&mut text, format_args!("{label} is in handle {handle}"));
        text
    })?;
    Ok(output.about(entry.audit_subject()))
}

fn paragraph(device: &Device, entry: &TokenEntry) -> String {
    let described = device.describe(entry);
    let mut text = String::new();
    row(&mut text, &described.label);
    if described.token != OWN {
        line(&mut text, "token", &described.token);
    }
    line(&mut text, "id", &described.id);
    if let Some(key) = &described.key {
        line(
            &mut text,
            "key",
            &format!("{}, {}", key.algorithm, key.origin),
        );
        line(&mut text, "key in", &key.place);
    }
    for certificate in &described.certificates {
        line(&mut text, "certificate", &certificate.profile.subject);
    }
    text
}
