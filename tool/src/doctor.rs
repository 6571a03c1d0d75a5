//! `devid doctor`

use crate::cli::OutputFormat;
use crate::output::{CommandError, Output};
use crate::settings::Settings;
use crate::text::row;
use devid_core::config;
use devid_core::identity::{Finding, Health, doctor};

/// Each finding, and what mends it; fails if something does not work.
pub(crate) fn run(settings: &Settings, form: OutputFormat) -> Result<Output, CommandError> {
    let environment = settings.environment();
    let config = config::load(&environment).config;
    let findings = doctor(config, || config::defaults(&environment));
    let problems = findings
        .iter()
        .filter(|one| one.state == Health::Problem)
        .count();
    let mut output = Output::new(form, &findings, || paragraph(&findings))?;
    if problems > 0 {
        output.code = 1;
        let counted = match problems {
            1 => "1 problem".into(),
            more => format!("{more} problems"),
        };
        output.complaint = Some(format!("{counted}; what mends it stands above"));
    }
    Ok(output)
}

fn paragraph(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.state {
            Health::Ok => "ok",
            Health::Note => "note",
            Health::Problem => "PROBLEM",
        };
        row(
            &mut text,
            format_args!("{mark:<8} {}: {}", finding.about, finding.text),
        );
        if let Some(remedy) = &finding.remedy {
            row(&mut text, format_args!("         -> {remedy}"));
        }
        if let Some(command) = &finding.command {
            row(&mut text, format_args!("         $  {command}"));
        }
    }
    text
}
