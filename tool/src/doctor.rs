//! `devid doctor`

use crate::answer::{Answer, Failure};
use crate::cli::Form;
use devid_core::config;
use devid_core::identity::{Health, doctor};
use std::fmt::Write;

/// Each finding, and what mends it; fails if something does not work.
pub(crate) fn run(form: Form) -> Result<Answer, Failure> {
    let config = config::load(&config::environment).config;
    let findings = doctor(config, || config::defaults(&config::environment));
    let problems = findings
        .iter()
        .filter(|one| one.state == Health::Problem)
        .count();
    let mut answer = match form.json {
        true => Answer::json(&findings)?,
        false => Answer::text(String::new()),
    };
    if !form.json {
        for finding in &findings {
            let mark = match finding.state {
                Health::Ok => "ok",
                Health::Note => "note",
                Health::Problem => "PROBLEM",
            };
            let _ = writeln!(answer.text, "{mark:<8} {}: {}", finding.about, finding.text);
            if let Some(mend) = &finding.mend {
                let _ = writeln!(answer.text, "         -> {mend}");
            }
            if let Some(command) = &finding.command {
                let _ = writeln!(answer.text, "         $  {command}");
            }
        }
    }
    if problems > 0 {
        answer.code = 1;
        let counted = match problems {
            1 => "1 problem".into(),
            more => format!("{more} problems"),
        };
        answer.complaint = Some(format!("{counted}; what mends it stands below"));
    }
    Ok(answer)
}
