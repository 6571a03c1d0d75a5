//! `devid`: the command-line tool for the identity of a device.
//!
//! Exit codes: 0 ok, 1 failed, 2 usage, 3 cannot be verified since the CA certificate is not
//! available, 4 TPM not reachable, 5 not found, 6 refused.

#![forbid(unsafe_code)]

mod cli;
mod completions;
mod doctor;
mod identity;
mod keys;
mod man;
mod master;
mod output;
mod show;
mod text;
mod uri;
mod verify;
mod waiting;
mod warnings;

use clap::Parser;
use cli::{Arguments, Form, KeyVerb, MasterVerb, Verb};
use devid_core::config::{self, Config};
use devid_core::identity::{Device, Keeping};
use log::warn;
use output::{Answer, Failure};
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
        true => Form::Json,
        false => Form::Text,
    };
    let warnings = Warnings::heard(form);
    let answer = run(verb, form).unwrap_or_else(|failure| Answer {
        code: failure.code,
        document: (form == Form::Json).then(|| failure.json()),
        text: String::new(),
        complaint: Some(failure.text),
    });
    tell(answer, &warnings)
}

fn run(verb: Verb, form: Form) -> Result<Answer, Failure> {
    match verb {
        Verb::Status => identity::status(&device()?, form),
        Verb::Doctor => doctor::run(form),
        Verb::Provision { csr, how } => identity::make(&settings()?, &how, csr, form),
        Verb::Reset { yes, how, .. } => identity::reset(&settings()?, yes, &how, form),
        Verb::Key(KeyVerb::Generate {
            label,
            algorithm,
            decrypts,
            persistent,
            sealed,
        }) => {
            let keeping = match (persistent, sealed) {
                (true, _) => Keeping::Persistent,
                (_, true) => Keeping::Sealed,
                (false, false) => Keeping::Wrapped,
            };
            keys::generate(&device()?, &label, algorithm, decrypts, keeping, form)
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
        Verb::ImportCert { file } => keys::import(&device()?, &file, form),
        Verb::Export { label, out, .. } => keys::export(&device()?, &label, out.as_deref(), form),
        Verb::Persist { label, handle } => keys::persist(&device()?, &label, handle, form),
        Verb::Prune => identity::prune(&settings()?, form),
        Verb::List => show::list(&device()?, form),
        Verb::Show { label } => show::show(&device()?, &label, form),
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

fn settings() -> Result<Config, Failure> {
    let config = config::load(&config::environment(config::is_privileged())).config?;
    config.warnings().for_each(|warning| warn!("{warning}"));
    Ok(config)
}

fn device() -> Result<Device, Failure> {
    Ok(Device::new(settings()?))
}

fn tell(answer: Answer, warnings: &Warnings) -> ExitCode {
    let Answer {
        code,
        text,
        document,
        complaint,
    } = answer;
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
        eprintln!("devid: {}", text::plain(complaint));
    }
    ExitCode::from(code)
}

/// What was asked for wrongly, or a help text. Of words that are not understood only one is looked
/// for.
fn misused(error: &clap::Error) -> ExitCode {
    let asks_for_json = std::env::args_os().any(|word| word == "--json");
    if error.use_stderr() && asks_for_json {
        let text = error.to_string();
        let document = Some(Failure::new(2, text.trim_end()).json());
        // The lines are for a person, and many.
        eprint!("{error}");
        let answer = Answer {
            code: 2,
            document,
            ..Answer::default()
        };
        return tell(answer, &Warnings::default());
    }
    // As of `Error::exit`; a reader that went away is no failure of ours.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
