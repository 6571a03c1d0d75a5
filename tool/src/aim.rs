//! Adds `--config FILE` to the commands in an output text, if the run had this option. A user who
//! copies such a command then uses the same settings.

use crate::cli::Arguments;
use crate::output::Output;
use clap::CommandFactory;
use devid_core::shell::word;
use serde_json::Value;
use std::path::Path;

const TOOL: &str = "devid ";
/// The fields of JSON documents that contain sentences or commands, and never the name of an
/// object.
const SENTENCES: [&str; 8] = [
    "command", "mend", "text", "reason", "marker", "problem", "problems", "notes",
];

/// Returns the output with `--config FILE` added to its commands.
pub(crate) fn aimed(output: Output, file: &Path) -> Output {
    let aim = Aim {
        verbs: Arguments::command()
            .get_subcommands()
            .map(|verb| verb.get_name().to_owned())
            .collect(),
        option: format!("--config {} ", word(file)),
    };
    Output {
        text: aim.text(&output.text),
        complaint: output.complaint.map(|text| aim.text(&text)),
        document: output.document.map(|mut document| {
            aim.document(&mut document, false);
            document
        }),
        ..output
    }
}

struct Aim {
    verbs: Vec<String>,
    option: String,
}

impl Aim {
    fn text(&self, text: &str) -> String {
        let mut aimed = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(TOOL) {
            let (before, behind) = rest.split_at(at + TOOL.len());
            let is_part = |one: char| one.is_alphanumeric() || "-_/.".contains(one);
            let is_word = !before[..at].ends_with(is_part);
            let verb = behind.split(|one: char| !(one.is_alphanumeric() || one == '-'));
            let is_verb = verb
                .take(1)
                .any(|verb| self.verbs.iter().any(|one| one == verb));
            aimed += before;
            if is_word && is_verb {
                aimed += &self.option;
            }
            rest = behind;
        }
        aimed + rest
    }

    fn document(&self, value: &mut Value, is_sentence: bool) {
        match value {
            Value::String(text) if is_sentence => *text = self.text(text),
            Value::Array(all) => all
                .iter_mut()
                .for_each(|one| self.document(one, is_sentence)),
            Value::Object(fields) => {
                for (name, value) in fields {
                    self.document(value, SENTENCES.contains(&name.as_str()));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_the_file() {
        let aimed = |text: &str| {
            let output = aimed(Output::text(text), Path::new("/etc/my box.toml"));
            output.text
        };
        for (text, wanted) in [
            (
                "run devid doctor",
                "run devid --config '/etc/my box.toml' doctor",
            ),
            (
                "devid key delete web; devid list",
                "devid --config '/etc/my box.toml' key delete web; devid --config '/etc/my box.toml' list",
            ),
            ("the token devid has none", "the token devid has none"),
            ("/usr/bin/my-devid list", "/usr/bin/my-devid list"),
            ("devid listens", "devid listens"),
        ] {
            assert_eq!(aimed(text), wanted);
        }
    }

    #[test]
    fn a_name_is_no_command() {
        let document = serde_json::json!({
            "label": "devid list", "command": "devid list", "notes": ["devid list"],
        });
        let output = Output {
            document: Some(document),
            ..Output::default()
        };
        let document = aimed(output, Path::new("/c")).document.unwrap();
        assert_eq!(document["label"], "devid list");
        assert_eq!(document["command"], "devid --config /c list");
        assert_eq!(document["notes"][0], "devid --config /c list");
    }
}
