//! Writes the answer of a verb to standard output and standard error. If the reader has closed the
//! pipe, the exit code does not change. If the output cannot be written for another reason, for
//! example a full disk, the exit code is 1.

use crate::output::Output;
use crate::text::printable;
use crate::warnings::Warnings;
use serde_json::Value;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write, stderr, stdout};
use std::process::ExitCode;

/// Writes a line to standard error. A failed write is ignored.
pub(crate) fn say(said: impl Display) {
    let line = format!("devid: {}\n", printable(said));
    let _ = stderr().write_all(line.as_bytes());
}

/// Writes to standard output.
///
/// # Errors
///
/// Fails if a part of the text was not written.
pub(crate) fn write(text: &[u8]) -> io::Result<()> {
    let mut out = stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Prints the answer of a verb, and returns the exit code.
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
                // An array has no field for the warnings.
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
