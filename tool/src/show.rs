//! `devid list` and `devid show`: describes tokens and their objects.

use crate::certificates::LARGEST;
use crate::cli::OutputFormat;
use crate::input::{self, is_standard_input};
use crate::output::{CommandError, Output};
use crate::text::{line, row};
use devid_core::identity::{
    CertificateDescription, Device, EntryDescription, IdentityErrorKind, Inventory, KeyDescription,
    SOFTWARE, TokenEntry, by_label, describe_certificates,
};
use devid_core::x509::Meaning;
use serde::Serialize;
use serde_json::json;
use std::path::Path;

/// The objects of all tokens.
#[derive(Serialize)]
struct ListOutput {
    tokens: Vec<ListedToken>,
    objects: Vec<EntryDescription>,
}

#[derive(Serialize)]
struct ListedToken {
    token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Lists all identities, own keys and certificates, each in a paragraph. If a token cannot be read,
/// its error is listed. Fails only if no token can be read.
pub(crate) fn list(device: &Device, form: OutputFormat) -> Result<Output, CommandError> {
    let mut inventory = device.inventory();
    // The order is: the device's own identity, then the keys by label, then the certificates
    // without key.
    inventory.entries.sort_by(|one, other| {
        let rank = |one: &TokenEntry| {
            let is_key = one.has_key() || one.software.is_some() || one.attests;
            (!one.protected && one.label != one.token, !is_key)
        };
        let by_name = by_label(&one.label, &other.label);
        rank(one).cmp(&rank(other)).then(by_name)
    });
    let tcti = &device.config().tcti;
    if inventory.entries.is_empty()
        && let Some(fault) = worst(&inventory)
    {
        let mut error = CommandError::from(fault);
        error.text = format!("{tcti}: {}", error.text);
        return Err(error);
    }
    let described = inventory.entries.iter().map(|one| device.describe(one));
    let read = inventory.serials.iter().map(|(token, serial)| ListedToken {
        token: token.clone(),
        serial: Some(serial.clone()),
        problem: inventory
            .unread
            .iter()
            .find(|(one, _)| one == token)
            .map(|(_, fault)| fault.text.clone()),
    });
    let unread = inventory.faults.iter().map(|(token, fault)| ListedToken {
        token: token.clone(),
        serial: None,
        problem: Some(fault.text.clone()),
    });
    let listed = ListOutput {
        tokens: read.chain(unread).collect(),
        objects: described.collect(),
    };
    Output::new(form, &listed, || paragraphs(&inventory, &listed.objects))
}

fn paragraphs(inventory: &Inventory, objects: &[EntryDescription]) -> String {
    let mut text = String::new();
    for (token, serial) in &inventory.serials {
        row(&mut text, format_args!("token {token}, serial {serial}"));
        for object in objects.iter().filter(|object| object.token == *token) {
            text.push('\n');
            text.push_str(&brief(object));
        }
        text.push('\n');
    }
    // The software identity is not listed again if a token with this name has already listed it.
    if inventory.serials.iter().all(|(token, _)| token != SOFTWARE) {
        for object in objects.iter().filter(|object| object.token == SOFTWARE) {
            text.push_str("in software\n\n");
            text.push_str(&brief(object));
            text.push('\n');
        }
    }
    for (token, fault) in inventory.faults.iter().chain(&inventory.unread) {
        row(&mut text, format_args!("token {token}: {fault}"));
    }
    text
}

/// Returns the most important error. A TPM that cannot be reached is more important than an empty
/// token.
fn worst(inventory: &Inventory) -> Option<devid_core::identity::IdentityError> {
    let mut faults = inventory.faults.iter().map(|(_, fault)| fault);
    let worst = faults
        .clone()
        .find(|fault| fault.kind != IdentityErrorKind::NotFound);
    worst.or_else(|| faults.next()).cloned()
}

/// Shows all details of an identity, key or certificate.
pub(crate) fn show(
    device: &Device,
    label: &str,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let entry = device.find(label)?;
    let description = device.describe(&entry);
    Output::new(form, &description, || whole(&description))
}

/// Shows all certificates of a file in detail. Sends no TPM command.
pub(crate) fn file(path: &Path, form: OutputFormat) -> Result<Output, CommandError> {
    let bytes = input::file(path, LARGEST)?;
    let name = match is_standard_input(path) {
        true => "standard input".into(),
        false => path.display().to_string(),
    };
    let certificates = describe_certificates(&bytes, &name)?;
    Output::new(form, &json!({ "certificates": certificates }), || {
        let mut text = String::new();
        for certificate in &certificates {
            full_certificate(&mut text, certificate);
        }
        text.trim_start_matches('\n').to_owned()
    })
}

fn whole(description: &EntryDescription) -> String {
    let mut text = String::new();
    row(&mut text, &description.label);
    line(&mut text, "token", &description.token);
    line(&mut text, "id", &description.id);
    match &description.key {
        Some(key) => full_key(&mut text, key),
        None if description.attests => line(
            &mut text,
            "key",
            "in this TPM; it signs only data that the TPM itself made",
        ),
        None => line(&mut text, "key", "none in this device"),
    }
    if description.certificates.is_empty() {
        line(&mut text, "certificate", "none");
    }
    for certificate in &description.certificates {
        full_certificate(&mut text, certificate);
    }
    text
}

fn brief(object: &EntryDescription) -> String {
    let mut text = String::new();
    row(&mut text, &object.label);
    if let Some(key) = &object.key {
        line(
            &mut text,
            "key",
            &format!("{}, {}", key.algorithm, key.place),
        );
    } else if object.attests {
        line(&mut text, "key", "in this TPM; it attests");
    } else if object.certificates.iter().all(|one| !one.profile.authority) {
        line(&mut text, "key", "none in this device");
    }
    for CertificateDescription { profile, .. } in &object.certificates {
        line(&mut text, "subject", &profile.subject);
        line(&mut text, "valid", &until(profile.not_after.as_deref()));
    }
    text
}

fn full_key(text: &mut String, key: &KeyDescription) {
    line(text, "key", &format!("{}, {}", key.algorithm, key.origin));
    line(text, "key in", &key.place);
    if let Some(template) = &key.template {
        line(text, "template", template);
    }
    if let Some(name) = &key.tpm_name {
        line(text, "TPM name", name);
    }
}

fn full_certificate(text: &mut String, certificate: &CertificateDescription) {
    let CertificateDescription { place, profile } = certificate;
    text.push('\n');
    row(text, format_args!("  certificate in {place}"));
    let unnamed = || "not named".to_owned();
    let serial = match (&profile.device_serial, profile.device_serial_from) {
        (Some(serial), None | Some("subject")) => serial.clone(),
        (Some(serial), Some(place)) => format!("{serial} (of the {place})"),
        (None, _) => unnamed(),
    };
    line(text, "device serial", &serial);
    line(
        text,
        "model",
        &profile.model.clone().unwrap_or_else(unnamed),
    );
    line(text, "subject", &profile.subject);
    line(text, "issuer", &profile.issuer);
    line(text, "number", &profile.certificate_serial);
    line(text, "certified key", &profile.public_key);
    if let Some(algorithm) = &profile.signature_algorithm {
        line(text, "signed by", algorithm);
    }
    line(text, "valid from", &profile.not_before);
    line(text, "valid", &until(profile.not_after.as_deref()));
    if let Some(module) = &profile.hardware_module {
        let said = format!(
            "{}, type {}, in {}",
            module.serial, module.kind, module.place
        );
        line(text, "module", &said);
    }
    if let Some(usage) = &profile.key_usage {
        line(text, "usage", &usage.join(", "));
    }
    for name in &profile.unreadable {
        line(
            text,
            "unreadable",
            &format!("{name}: unreadable, or present twice"),
        );
    }
    each(text, "policy", &profile.policies);
    each(text, "purpose", &profile.extended_key_usage);
    line(text, "SHA-256", &profile.sha256);
    line(text, "SHA-1", &profile.sha1);
}

fn each(text: &mut String, name: &str, all: &[Meaning]) {
    for one in all {
        line(text, name, &one.to_string());
    }
}

fn until(end: Option<&str>) -> String {
    match end {
        None => "without end".into(),
        Some(end) if end.starts_with(char::is_numeric) => format!("until {end}"),
        Some(unreadable) => format!("the end {unreadable}"),
    }
}
