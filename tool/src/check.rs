//! `devid status --check`: lists problems, for monitoring programs.

use crate::cli::{OutputFormat, StatusArgs};
use crate::destination::Destination;
use crate::metrics::metrics;
use crate::output::{CommandError, Output};
use crate::text::row;
use devid_core::identity::{Attention, CertificateState, Device, FileKind, StatusCheck};

/// Lists the problems of the device. The exit code names the most urgent problem. The file with
/// metrics is written even if there is no problem.
pub(crate) fn run(
    device: &Device,
    args: StatusArgs,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let textfile = args
        .textfile
        .map(|path| Destination::new(path, args.force.force));
    if let Some(textfile) = &textfile {
        textfile.check(FileKind::Metrics)?;
    }
    let status = device.status();
    let check = status.check(args.expiring);
    let code = match check.attention {
        Attention::None => 0,
        Attention::Soon => 8,
        Attention::Now => 1,
        Attention::Tpm => 4,
    };
    let output = Output::new(form, &check, || paragraph(&check))?;
    let output = Output { code, ..output };
    let Some(textfile) = textfile else {
        return Ok(output);
    };
    let text = metrics(&status, &check);
    textfile.write(text.as_bytes(), FileKind::Metrics, 0o644)?;
    Ok(match textfile {
        Destination::StandardOutput => Output {
            bytes: Some(text.into_bytes()),
            text: String::new(),
            document: None,
            ..output
        },
        Destination::File(_) => output,
    })
}

fn paragraph(check: &StatusCheck) -> String {
    let mut text = String::new();
    let valid = check.certificates.iter();
    let valid = valid
        .filter(|one| one.state == CertificateState::Valid)
        .count();
    let all = check.certificates.len();
    let head = match check.attention {
        Attention::None => "ok",
        Attention::Soon => "soon",
        Attention::Now => "problem",
        Attention::Tpm => "TPM not reachable",
    };
    row(
        &mut text,
        format_args!("{head}: {valid} of {all} certificates valid"),
    );
    for finding in &check.findings {
        row(&mut text, format_args!("  {finding}"));
    }
    text
}
