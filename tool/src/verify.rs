//! `devid verify`: verifies an identity.

use crate::cli::OutputFormat;
use crate::colour::{Colour, Painter};
use crate::output::{CommandError, Output};
use crate::text::{marked, row};
use devid_core::config::SecretSource;
use devid_core::identity::{Device, Report, Verdict, Verification};
use devid_core::tpm::Secret;
use devid_core::x509::Outcome;
use std::path::{Path, PathBuf};

/// Runs all checks of an identity. Prints the result of each check, and the verdict.
pub(crate) fn run(
    device: &Device,
    label: &str,
    ca_file: Option<&Path>,
    revoked: &[PathBuf],
    pin_file: Option<PathBuf>,
    painter: Painter,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let pin = read_pin(pin_file)?;
    let how = Verification {
        ca_file,
        revoked,
        pin: pin.as_ref(),
    };
    let report = device.verify(&device.find(label)?, how)?;
    let output = Output::new(form, &report, || paragraph(&report, painter))?;
    let (code, complaint) = match report.verdict {
        Verdict::Verified => (0, None),
        Verdict::Failed | Verdict::NotProven => (1, Some(report.summary)),
        Verdict::CannotBeVerified => (3, Some(report.summary)),
    };
    Ok(Output {
        code,
        complaint,
        ..output
    })
}

/// Reads the file of `--pin-file`.
pub(crate) fn read_pin(file: Option<PathBuf>) -> Result<Option<Secret>, CommandError> {
    let pin = file.map(|path| {
        let fault = |error| CommandError::new(1, format!("{}: {error}", path.display()));
        let source = SecretSource::File(path.clone());
        source.read().map_err(fault)
    });
    pin.transpose()
}

fn paragraph(report: &Report, painter: Painter) -> String {
    let mut text = String::new();
    for point in &report.points {
        let (mark, colour) = match point.outcome {
            Outcome::Passed => ("ok", Colour::Good),
            Outcome::Noted => ("note", Colour::Note),
            Outcome::Skipped => ("skipped", Colour::Note),
            Outcome::Failed => ("FAILED", Colour::Problem),
        };
        let mark = painter.paint(colour, &format!("{mark:<8}"));
        marked(&mut text, mark, point);
    }
    // Failures go to standard error.
    if report.verdict == Verdict::Verified {
        row(&mut text, &report.summary);
    }
    text
}
