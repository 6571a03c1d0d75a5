//! `devid doctor`

use crate::answer::{Answer, Failure};
use crate::cli::Form;
use devid_core::config::{Config, ConfigError};
use devid_core::identity::{Finding, Health, doctor};
use std::fmt::Write;

/// Each finding, and what mends it; fails if something does not work.
pub(crate) fn run(config: Result<Config, ConfigError>, form: Form) -> Result<Answer, Failure> {
    let findings = doctor(config);
    let problems = findings
        .iter()
        .filter(|one| one.state == Health::Problem)
        .count();
    let mut answer = Answer::new(form, &findings, || paragraph(&findings))?;
    if problems > 0 {
        answer.code = 1;
        answer.complaint = Some(format!(
            "{problems} problems; what mends each stands below it"
        ));
    }
    Ok(answer)
}

fn paragraph(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.state {
            Health::Ok => "ok",
            Health::Note => "note",
            Health::Problem => "PROBLEM",
        };
        let _ = writeln!(text, "{mark:<8} {}: {}", finding.about, finding.text);
        if let Some(mend) = &finding.mend {
            let _ = writeln!(text, "         -> {mend}");
        }
    }
    text
}
