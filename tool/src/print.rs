//! The way of what a verb answers to the outputs of the process. A reader that went away is no fault of
//! ours: the exit code stays as documented. Output that a full disk swallows is one: exit code 1.

use crate::output::Output;
use crate::text::printable;
use crate::warnings::Warnings;
use serde_json::Value;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write, stderr, stdout};
use std::process::ExitCode;

/// A line on standard error. Nobody need be there to read it.
pub(crate) fn say(said: impl Display) {
    let line = format!("devid: {}\n", printable(said));
    let _ = stderr().write_all(line.as_bytes());
}

/// Writes to standard output.
///
/// # Errors
///
/// What was not written is lost.
pub(crate) fn write(text: &[u8]) -> io::Result<()> {
    let mut out = stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes what a verb answers, and gives the code to exit with.
pub(crate) fn print_output(output: Output, warnings: &Warnings) -> ExitCode {
    let Output {
        code,
        text,
        bytes,
        document,
        complaint,
        ..
    } = output;
    warnings.end_wait();
    let bytes = match document {
        Some(mut document) => {
            match &mut document {
                Value::Object(fields) => {
                    fields.insert("warnings".into(), warnings.take().into());
                }
                // An array has no field for them.
                _ => warnings.take().iter().for_each(|one| warnings.print(one)),
            }
            format!("{document:#}\n").into_bytes()
        }
        None => bytes.unwrap_or_else(|| text.into_bytes()),
    };
    let written = write(&bytes);
    if let Some(complaint) = complaint {
        say(complaint);
    }
    match written {
        Ok(()) => ExitCode::from(code),
        Err(error) => {
            say(format_args!("standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}
