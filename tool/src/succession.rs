//! `devid key rekey` and `devid renew --rollback`: replaces a key, and restores the replaced key.

use crate::certificates::{deliver_request, kind_of, subject, taken};
use crate::cli::{OutputFormat, RekeyArgs};
use crate::destination::Destination;
use crate::keys::algorithm;
use crate::output::{CommandError, Output};
use crate::text::row;
use crate::verify::read_pin;
use devid_core::identity::Device;
use devid_core::x509::RequestContent;
use serde_json::json;

/// Makes a new key that will replace a key, and writes a certificate request for the new key.
pub(crate) fn rekey(
    device: &Device,
    args: RekeyArgs,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let _turn = device.exchange_turn()?;
    let entry = device.find(&args.label)?;
    if args.discard {
        device.discard_successor(&entry)?;
        return Output::new(form, &json!({ "discarded": entry.label }), || {
            let mut text = String::new();
            let label = &entry.label;
            row(
                &mut text,
                format_args!("the new key for {label} was deleted; the old key stays in use"),
            );
            text
        });
    }
    let out = Destination::from(args.out);
    out.check(kind_of(args.outform))?;
    let content = args.content.content()?;
    let pin = read_pin(args.pin_file)?;
    let (waits, _) = device.rekey(&entry, args.algorithm.map(algorithm))?;
    let content = match entry.certificate().filter(|old| !old.is_self_signed()) {
        Some(old) if !content.names_somebody() => {
            RequestContent::renewing(old)?.overridden_by(content)
        }
        _ => content,
    };
    let der = device.request(&waits, &content, pin.as_ref())?;
    let output = deliver_request(&der, args.outform, &out, form)?;
    Ok(output.about(waits.audit_subject()))
}

/// Restores the key or certificate that a renewal replaced.
pub(crate) fn roll_back(
    device: &Device,
    label: &str,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let _turn = device.exchange_turn()?;
    let taken_back = device.roll_back(&device.find(label)?)?;
    let output = Output::new(form, &taken_back, || taken(&taken_back))?;
    Ok(output.about(subject(device, taken_back.label)))
}
