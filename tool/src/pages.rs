//! `devid man` and `devid completions`: made from the verbs themselves.

use crate::answer::{Answer, Failure};
use crate::cli::Arguments;
use clap::CommandFactory;
use clap_complete::Shell;
use std::path::Path;

/// devid(1) and a page for each verb, as files of this folder.
pub(crate) fn man(folder: &Path) -> Result<Answer, Failure> {
    clap_mangen::generate_to(Arguments::command(), folder)
        .map_err(|error| Failure::new(1, format!("{}: {error}", folder.display())))?;
    Ok(Answer::default())
}

/// Completions for a shell.
pub(crate) fn completions(shell: Shell) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "devid", &mut script);
    Answer::text(String::from_utf8_lossy(&script).into_owned())
}
