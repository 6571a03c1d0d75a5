//! `devid man` and `devid completions`: made from the verbs themselves.

use crate::answer::{Answer, Failure};
use crate::cli::{Arguments, Form};
use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;
use std::path::Path;

/// devid(1) and a page for each verb, as files of this folder.
pub(crate) fn man(folder: &Path, form: Form) -> Result<Answer, Failure> {
    clap_mangen::generate_to(Arguments::command(), folder)
        .map_err(|error| Failure::new(1, format!("{}: {error}", folder.display())))?;
    Answer::new(form, &json!({ "folder": folder }), String::new)
}

/// Completions for a shell.
pub(crate) fn completions(shell: Shell, form: Form) -> Result<Answer, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "devid", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    Answer::new(form, &json!({ "script": script }), || script.clone())
}
