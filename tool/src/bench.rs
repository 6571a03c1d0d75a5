//! `devid bench`: measures how fast the TPM is, and names the type of key that suits the TPM.

use crate::cli::OutputFormat;
use crate::output::{CommandError, Output};
use crate::text::row;
use devid_core::identity::{Device, MeasuredOperation, SpeedReport};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Measures the TPM, and returns a table and a sentence. A first signal ends the measurement after
/// the current TPM command. A second signal ends the program at once.
pub(crate) fn run(device: &Device, form: OutputFormat) -> Result<Output, CommandError> {
    let is_ended = Arc::new(AtomicBool::new(false));
    let unheard = |error| CommandError::new(1, format!("signals cannot be caught: {error}"));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The order of these two calls matters: at the first signal the flag must be unset.
        flag::register_conditional_default(signal, Arc::clone(&is_ended)).map_err(unheard)?;
        flag::register(signal, Arc::clone(&is_ended)).map_err(unheard)?;
    }
    let report = device.speed(&|| is_ended.load(Ordering::Relaxed))?;
    let report = report.ok_or_else(|| {
        CommandError::new(
            1,
            "a signal ended the measurement; nothing was written to the TPM, and every loaded key was flushed",
        )
    })?;
    Output::new(form, &report, || table(&report))
}

fn table(report: &SpeedReport) -> String {
    let mut text = String::new();
    let manager = match report.managed {
        true => "with a resource manager",
        false => "without a resource manager",
    };
    let about = format!("{}, firmware {}", report.maker, report.firmware);
    row(
        &mut text,
        format_args!("TPM {about}, at {}, {manager}", report.tcti),
    );
    let (what, commands, rounds) = ("operation", "commands", "rounds");
    let (median, least, most) = ("median ms", "min", "max");
    row(
        &mut text,
        format_args!("  {what:<34} {commands:>8} {rounds:>6} {median:>10} {least:>9} {most:>9}"),
    );
    for one in &report.operations {
        let (what, times) = (described(one), [one.median_ms, one.min_ms, one.max_ms]);
        let [median, least, most] = times.map(|time| format!("{time:.2}"));
        let (commands, rounds) = (one.commands, one.rounds);
        row(
            &mut text,
            format_args!(
                "  {what:<34} {commands:>8} {rounds:>6} {median:>10} {least:>9} {most:>9}"
            ),
        );
    }
    for kind in &report.lacks {
        row(
            &mut text,
            format_args!("  {kind}: this TPM makes no such keys"),
        );
    }
    row(&mut text, &report.advice);
    text
}

fn described(operation: &MeasuredOperation) -> String {
    let key = operation.key.unwrap_or_default();
    match operation.name {
        "generate" => format!("{key}: make a key"),
        "sign" => format!("{key}: sign, key loaded"),
        "load-and-sign" => format!("{key}: load, sign, flush"),
        "unseal" => "open a sealed key".into(),
        _ => "log in with a PIN".into(),
    }
}
