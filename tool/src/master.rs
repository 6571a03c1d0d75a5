//! `devid master`: the master key, which wraps the device's own keys.

use crate::cli::OutputFormat;
use crate::output::{CommandError, Output};
use crate::settings::Settings;
use crate::text::{line, row};
use devid_core::config;
use devid_core::identity::{LostObject, Renewal, renew_master};
use serde_json::Value;

/// Makes a new master key if the TPM no longer has the old master key. Without `yes`, only lists
/// the lost objects.
pub(crate) fn renew(
    settings: &Settings,
    yes: bool,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let again = || config::load(&settings.environment()).config;
    let renewal = renew_master(&settings.read()?, yes, &again)?;
    let output = Output::new(form, &renewal, || paragraph(&renewal))?;
    if yes {
        return Ok(output);
    }
    let text = "the listed objects are already lost, and their files would be moved aside; nothing was done. \
                To continue: devid master renew --yes";
    let refused = CommandError::new(6, text);
    let document = output.document.map(|mut document| {
        if let (Value::Object(fields), Value::Object(error)) = (&mut document, refused.json()) {
            fields.extend(error);
        }
        document
    });
    Ok(Output {
        code: refused.code,
        complaint: Some(refused.text),
        document,
        ..output
    })
}

fn paragraph(renewal: &Renewal) -> String {
    let mut text = String::new();
    let (tense, handle) = match renewal.done {
        true => ("a new master key was made", &renewal.handle),
        false => ("a new master key would be made", &renewal.handle),
    };
    row(&mut text, format_args!("{tense} in handle {handle}"));
    if let Some(occupant) = &renewal.occupant {
        line(
            &mut text,
            "occupied",
            &format!("the earlier handle: {occupant}"),
        );
    }
    if let Some(file) = &renewal.drop_in {
        let named = format!("[master] handle = {handle}, in {}", file.display());
        line(&mut text, "setting", &named);
    }
    for lost in &renewal.lost {
        line(&mut text, "lost", &described(lost));
    }
    let mut open: Vec<&str> = Vec::new();
    for pin in renewal.lost.iter().filter(|lost| lost.kind == "pin") {
        if !open.contains(&pin.token.as_str()) {
            open.push(&pin.token);
        }
    }
    for token in open {
        let told = format!(
            "the token {token} loses its PIN: set a PIN before you make its next key (C_InitToken and C_InitPIN)"
        );
        line(&mut text, "pin", &told);
    }
    for kept in &renewal.kept {
        let (label, handle) = (&kept.label, &kept.handle);
        let told = format!("{}/{label}: the key is only in handle {handle}", kept.token);
        line(&mut text, "kept", &told);
    }
    text
}

fn described(lost: &LostObject) -> String {
    let LostObject {
        token, label, kind, ..
    } = lost;
    let what = match *kind {
        "certificate" => "its certificate",
        "sealed" => "a sealed key",
        "behind-pin" => "a key that needs a lost PIN",
        "pin" => "a PIN",
        _ => "a key",
    };
    let place = match &lost.moved_to {
        Some(moved) => format!("moved to {}", moved.display()),
        None => lost.file.display().to_string(),
    };
    format!("{token}/{label}: {what}, {place}")
}
