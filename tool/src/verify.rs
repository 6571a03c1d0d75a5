//! `devid verify`

use crate::answer::{Answer, Failure};
use crate::cli::Form;
use devid_core::identity::{Device, Outcome, Verdict};
use std::fmt::Write;
use std::path::Path;

/// Point by point, and what follows from all of them.
pub(crate) fn run(
    device: &Device,
    label: &str,
    authorities: Option<&Path>,
    form: Form,
) -> Result<Answer, Failure> {
    let report = device.verify(&device.find(label)?, authorities)?;
    let mut answer = match form.json {
        true => Answer::json(&report)?,
        false => Answer::text(String::new()),
    };
    if !form.json {
        for point in &report.points {
            let mark = match point.outcome {
                Outcome::Passed => "ok",
                Outcome::Noted => "note",
                Outcome::Skipped => "skipped",
                Outcome::Failed => "FAILED",
            };
            let _ = writeln!(answer.text, "{mark:<8} {}: {}", point.name, point.text);
        }
    }
    (answer.code, answer.complaint) = match report.verdict {
        Verdict::Verified if form.json => (0, None),
        Verdict::Verified => {
            let _ = writeln!(answer.text, "{}", report.summary);
            (0, None)
        }
        Verdict::Failed => (1, Some(report.summary)),
        Verdict::CannotBeVerified => (3, Some(report.summary)),
    };
    Ok(answer)
}
