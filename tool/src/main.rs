//! `devid`: the command-line tool for the identity of a device.
//!
//! Exit codes: 0 ok, 1 failed, 2 usage, 3 cannot be verified since the CA certificate is not
//! available, 4 TPM not reachable, 5 not found, 6 refused.

#![forbid(unsafe_code)]

mod cli;
mod completions;
mod doctor;
mod evidence;
mod export;
mod identity;
mod keys;
mod man;
mod master;
mod output;
mod progress;
mod show;
mod text;
mod uri;
mod verify;
mod warnings;

use clap::Parser;
use cli::{Arguments, KeyVerb, MasterVerb, OutputFormat, Verb};
use devid_core::config::{self, Config};
use devid_core::identity::{Device, KeyStorage};
use log::warn;
use output::{CommandError, Output};
use serde_json::Value;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use warnings::Warnings;

fn main() -> ExitCode {
    let Arguments { json, verb } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return misused(&error),
    };
    let form = match json {
        true => OutputFormat::Json,
        false => OutputFormat::Text,
    };
    let warnings = Warnings::install(form);
    let output = run(verb, form).unwrap_or_else(|error| Output {
        code: error.code,
        document: (form == OutputFormat::Json).then(|| error.json()),
        text: String::new(),
        complaint: Some(error.text),
    });
    print_output(output, &warnings)
}

fn run(verb: Verb, form: OutputFormat) -> Result<Output, CommandError> {
    match verb {
        Verb::Status => identity::status(&device()?, form),
        Verb::Doctor => doctor::run(form),
        Verb::Provision { csr, how } => identity::provision(&settings()?, &how, csr, form),
        Verb::Reset { yes, how, .. } => identity::reset(&settings()?, yes, &how, form),
        Verb::Key(KeyVerb::Generate {
            label,
            algorithm,
            decrypts,
            persistent,
            sealed,
            parent,
            scheme,
        }) => {
            let storage = match (persistent, sealed) {
                (true, _) => KeyStorage::Persistent,
                (_, true) => KeyStorage::Sealed,
                (false, false) => keys::storage(algorithm, parent, scheme)?,
            };
            keys::generate(&device()?, &label, algorithm, decrypts, storage, form)
        }
        Verb::Key(KeyVerb::List) => keys::list(&device()?, form),
        Verb::Key(KeyVerb::Delete { label, yes }) => keys::delete(&device()?, &label, yes, form),
        Verb::Master(MasterVerb::Renew { yes }) => master::renew(&settings()?, yes, form),
        Verb::Csr {
            label,
            subject,
            pin_file,
            out,
        } => keys::request(
            &device()?,
            &label,
            subject.as_deref(),
            pin_file,
            out.as_deref(),
            form,
        ),
        Verb::Attest {
            label,
            nonce,
            ek_cert,
            pin_file,
            out,
        } => {
            let asked = evidence::Asked {
                nonce,
                ek_files: ek_cert,
                pin_file,
            };
            evidence::attest(&device()?, &label, asked, out.as_deref(), form)
        }
        Verb::Activate { challenge, out } => {
            evidence::activate(&device()?, &challenge, out.as_deref(), form)
        }
        Verb::ImportCert { file } => keys::import(&device()?, &file, form),
        Verb::Export {
            label,
            tss2: _,
            tpm2_tools,
            spire,
            out,
        } => match (tpm2_tools, spire) {
            (Some(folder), _) => export::to_tools(&device()?, &label, &folder, form),
            (_, Some(folder)) => export::to_spire(&device()?, &label, &folder, form),
            (None, None) => keys::export(&device()?, &label, out.as_deref(), form),
        },
        Verb::Persist { label, handle } => keys::persist(&device()?, &label, handle, form),
        Verb::Prune => identity::prune(&settings()?, form),
        Verb::List => show::list(&device()?, form),
        Verb::Show {
            label,
            keylime: true,
            out,
        } => export::keylime(&device()?, &label, out.as_deref(), form),
        Verb::Show { label, .. } => show::show(&device()?, &label, form),
        Verb::Verify {
            label,
            ca,
            crl,
            pin_file,
        } => verify::run(&device()?, &label, ca.as_deref(), &crl, pin_file, form),
        Verb::Uri { label, class, pem } => {
            uri::run(&device()?, &label, class, pem.as_deref(), form)
        }
        Verb::Man { folder } => man::man(&folder, form),
        Verb::Completions { shell } => completions::script(shell, form),
        Verb::Uri2pem { uri } => uri::to_pem(&uri, form),
    }
}

fn settings() -> Result<Config, CommandError> {
    let config = config::load(&config::environment(config::is_privileged())).config?;
    config.warnings().for_each(|warning| warn!("{warning}"));
    Ok(config)
}

fn device() -> Result<Device, CommandError> {
    Ok(Device::new(settings()?))
}

fn print_output(output: Output, warnings: &Warnings) -> ExitCode {
    let Output {
        code,
        text,
        document,
        complaint,
    } = output;
    warnings.end_wait();
    let text = match document {
        Some(mut document) => {
            match &mut document {
                Value::Object(fields) => {
                    fields.insert("warnings".into(), warnings.take().into());
                }
                // An array has no field for them.
                _ => warnings.take().iter().for_each(|one| warnings::print(one)),
            }
            format!("{document:#}\n")
        }
        None => text,
    };
    // Whoever reads may stop reading.
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("devid: {error}");
            return ExitCode::FAILURE;
        }
        _ => {}
    }
    if let Some(complaint) = complaint {
        eprintln!("devid: {}", text::printable(complaint));
    }
    ExitCode::from(code)
}

/// What was asked for wrongly, or a help text. Of words that are not understood only one is looked
/// for.
fn misused(error: &clap::Error) -> ExitCode {
    let asks_for_json = std::env::args_os().any(|word| word == "--json");
    if error.use_stderr() && asks_for_json {
        let text = error.to_string();
        let document = Some(CommandError::new(2, text.trim_end()).json());
        // The lines are for a person, and many.
        eprint!("{error}");
        let output = Output {
            code: 2,
            document,
            ..Output::default()
        };
        return print_output(output, &Warnings::default());
    }
    // As of `Error::exit`; a reader that went away is no failure of ours.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
