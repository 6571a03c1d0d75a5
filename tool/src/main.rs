//! `devid`: the command-line tool for the identity of a device.
//!
//! Exit codes: 0 ok, 1 failed, 2 usage, 4 TPM not reachable, 5 not found.

mod list;
mod uri2pem;

use clap::{Parser, Subcommand};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Shows the identity that a device has in its TPM.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Lists identities, their keys and certificates.
    List,
    /// Writes a PKCS#11 URI as a PEM file, for programs that take a key as a file.
    Uri2pem {
        /// The URI, for example pkcs11:token=idev-id;object=idev-id;type=private
        uri: String,
    },
}

/// A failure with what to tell and what to exit with.
struct Failure {
    code: u8,
    text: String,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::List => list::run(),
        Verb::Uri2pem { uri } => uri2pem::run(&uri),
    };
    match result {
        // Whoever reads may stop reading.
        Ok(text) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("devid: {error}");
                ExitCode::FAILURE
            }
        },
        Err(Failure { code, text }) => {
            eprintln!("devid: {text}");
            ExitCode::from(code)
        }
    }
}
