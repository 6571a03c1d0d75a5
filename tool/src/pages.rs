//! `devid man` and `devid completions`: made from the verbs themselves.

use crate::answer::{Answer, Failure};
use crate::cli::Arguments;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

/// devid(1), with a section for each verb.
pub(crate) fn man() -> Result<Answer, Failure> {
    let command = Arguments::command();
    let mut page = Vec::new();
    render(&Man::new(command.clone()), &mut page)?;
    let mut verbs = Vec::new();
    verbs_of(&command, "devid", &mut verbs);
    for (name, verb) in verbs {
        let heading = format!(".SH \"{}\"\n", name.to_uppercase());
        page.extend(heading.as_bytes());
        let man = Man::new(verb.clone().bin_name(name));
        let failed = |error: std::io::Error| Failure::new(1, error.to_string());
        man.render_synopsis_section(&mut page).map_err(failed)?;
        man.render_description_section(&mut page).map_err(failed)?;
        man.render_options_section(&mut page).map_err(failed)?;
    }
    Ok(Answer::text(String::from_utf8_lossy(&page).into_owned()))
}

fn render(man: &Man, page: &mut Vec<u8>) -> Result<(), Failure> {
    man.render(page).map_err(|error| Failure::new(1, error.to_string()))
}

/// Verbs without further verbs, with their whole names.
fn verbs_of<'a>(command: &'a Command, name: &str, all: &mut Vec<(String, &'a Command)>) {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name = format!("{name} {}", verb.get_name());
        match verb.has_subcommands() {
            true => verbs_of(verb, &name, all),
            false => all.push((name, verb)),
        }
    }
}

/// Completions for a shell.
pub(crate) fn completions(shell: Shell) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "devid", &mut script);
    Answer::text(String::from_utf8_lossy(&script).into_owned())
}
