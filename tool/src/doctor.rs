//! `devid doctor`

use crate::cli::OutputFormat;
use crate::colour::{Colour, Painter};
use crate::output::{CommandError, Output};
use crate::settings::Settings;
use crate::text::{marked, row};
use devid_core::config;
use devid_core::identity::{Finding, Health, doctor};

/// Each finding, and what mends it; fails if something does not work.
pub(crate) fn run(
    settings: &Settings,
    painter: Painter,
    quiet: bool,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let environment = settings.environment();
    let config = config::load(&environment).config;
    let findings = doctor(config, || config::defaults(&environment));
    let problems = findings
        .iter()
        .filter(|one| one.state == Health::Problem)
        .count();
    let mut output = Output::new(form, &findings, || paragraph(&findings, painter, quiet))?;
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

/// Of a quiet run only the problems.
fn paragraph(findings: &[Finding], painter: Painter, quiet: bool) -> String {
    let mut text = String::new();
    let is_told = |finding: &&Finding| !quiet || finding.state == Health::Problem;
    for finding in findings.iter().filter(is_told) {
        let (mark, colour) = match finding.state {
            Health::Ok => ("ok", Colour::Good),
            Health::Note => ("note", Colour::Note),
            Health::Problem => ("PROBLEM", Colour::Problem),
        };
        marked(
            &mut text,
            painter.paint(colour, &format!("{mark:<8}")),
            format_args!("{}: {}", finding.about, finding.text),
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
