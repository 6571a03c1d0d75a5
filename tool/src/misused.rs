//! Answers wrong command lines with an error and a suggestion. Also prints the help texts and the
//! version.

use crate::cli::Arguments;
use crate::meant::meant;
use crate::output::{CommandError, Output};
use crate::print::{print_output, say};
use crate::warnings::Warnings;
use clap::CommandFactory;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use devid_core::shell::quoted;
use std::io::{self, Write};
use std::process::ExitCode;

/// Answers a command line without a valid verb. The answer is a help text or an error.
pub(crate) fn answer(error: clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let printed = error.print().and_then(|()| io::stdout().flush());
        return match printed {
            Err(why) if why.kind() != io::ErrorKind::BrokenPipe => {
                say(format_args!("standard output: {why}"));
                ExitCode::FAILURE
            }
            _ => ExitCode::SUCCESS,
        };
    }
    let error = with_suggestion(error);
    // A failed write to standard error is ignored.
    let _ = error.print();
    // The arguments could not be parsed, so `--json` is searched as a word.
    if std::env::args_os().any(|word| word == "--json") {
        let text = error.to_string();
        let output = Output {
            code: 2,
            document: Some(CommandError::new(2, text.trim_end()).json()),
            ..Output::default()
        };
        return print_output(output, &Warnings::default());
    }
    ExitCode::from(2)
}

/// Adds a suggested command line to the error, if a similar command exists.
fn with_suggestion(mut error: clap::Error) -> clap::Error {
    let is_about_words = matches!(
        error.kind(),
        ErrorKind::InvalidSubcommand
            | ErrorKind::UnknownArgument
            | ErrorKind::MissingRequiredArgument
    );
    if !is_about_words {
        return error;
    }
    let words: Option<Vec<String>> = std::env::args_os()
        .skip(1)
        .map(|word| word.into_string().ok())
        .collect();
    let suggestion = words.and_then(|words| meant(&Arguments::command(), &words));
    let is_shown_as_it_is = |words: &Vec<String>| {
        let mut letters = words.iter().flat_map(|word| word.chars());
        !letters.any(char::is_control)
    };
    if let Some(words) = suggestion.filter(is_shown_as_it_is) {
        let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        let tip = StyledStr::from(format!("did you mean: devid {}", words.join(" ")));
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}
