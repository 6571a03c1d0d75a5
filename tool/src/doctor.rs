//! `devid doctor`: finds problems, and prints the remedies.

use crate::cli::OutputFormat;
use crate::colour::{Colour, Painter};
use crate::output::{CommandError, Output};
use crate::settings::Settings;
use crate::text::{marked, row};
use devid_core::config;
use devid_core::identity::{Finding, Health, by_label, doctor};
use std::collections::BTreeSet;

/// The smallest number of findings of one kind that `devid doctor` groups.
const MANY: usize = 4;

/// Prints each finding and its remedy. Fails if there is a problem.
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
        output.complaint = Some(format!("{counted}; the remedies are above"));
    }
    Ok(output)
}

/// Writes the findings as text. With `quiet`, only problems are written. If there are many findings
/// of one kind, they are written together.
fn paragraph(findings: &[Finding], painter: Painter, quiet: bool) -> String {
    let mut text = String::new();
    let is_told = |finding: &&Finding| !quiet || finding.state == Health::Problem;
    let told: Vec<&Finding> = findings.iter().filter(is_told).collect();
    let mut done = BTreeSet::new();
    for finding in &told {
        let kind = (finding.id, finding.state as u8);
        if done.contains(&kind) {
            continue;
        }
        let mut alike: Vec<&Finding> = told
            .iter()
            .copied()
            .filter(|one| (one.id, one.state as u8) == kind)
            .collect();
        if finding.state == Health::Ok || alike.len() < MANY {
            paint(&mut text, painter, finding, &finding.text);
            remedy(&mut text, finding);
            continue;
        }
        done.insert(kind);
        let object = |one: &Finding| one.object.clone().unwrap_or_default();
        alike.sort_by(|one, other| by_label(&object(one), &object(other)));
        let head = format!("{} findings of this kind ({})", alike.len(), finding.id);
        paint(&mut text, painter, finding, &head);
        for one in &alike {
            row(&mut text, format_args!("           {}", one.text));
        }
        remedies(&mut text, &alike);
    }
    text
}

fn paint(text: &mut String, painter: Painter, finding: &Finding, said: &str) {
    let (mark, colour) = match finding.state {
        Health::Ok => ("ok", Colour::Good),
        Health::Note => ("note", Colour::Note),
        Health::Problem => ("PROBLEM", Colour::Problem),
    };
    marked(
        text,
        painter.paint(colour, &format!("{mark:<8}")),
        format_args!("{}: {said}", finding.about),
    );
}

fn remedy(text: &mut String, finding: &Finding) {
    if let Some(remedy) = &finding.remedy {
        row(text, format_args!("         -> {remedy}"));
    }
    if let Some(command) = &finding.command {
        row(text, format_args!("         $  {command}"));
    }
}

/// Prints each remedy once, with the command from the first finding of its kind.
fn remedies(text: &mut String, alike: &[&Finding]) {
    let mut told: Vec<&Finding> = Vec::new();
    for one in alike {
        if told.iter().all(|other| other.remedy != one.remedy) {
            told.push(one);
        }
    }
    for one in told {
        remedy(text, one);
        let has_same = |other: &&&Finding| other.remedy == one.remedy;
        let others = alike.iter().filter(has_same);
        let others = others.filter(|other| other.command != one.command).count();
        if others > 0 {
            let where_ = "devid doctor --json lists all commands";
            row(
                text,
                format_args!("         {others} more findings need a similar command: {where_}"),
            );
        }
    }
}
