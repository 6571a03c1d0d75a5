//! `devid`: the command-line tool for the identity of a device.
//!
//! Exit codes: 0 ok, 1 failed, 2 usage, 3 cannot be verified since the CA certificate is not
//! available, 4 TPM not reachable, 5 not found, 6 refused.

#![forbid(unsafe_code)]

mod answer;
mod cli;
mod doctor;
mod keys;
mod life;
mod pages;
mod show;
mod uri;
mod verify;

use answer::{Answer, Failure};
use clap::Parser;
use cli::{Arguments, KeyVerb, Verb};
use devid_core::config::{self, Config};
use devid_core::identity::Device;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(answer) => tell(&answer),
        Err(Failure { code, text }) => {
            eprintln!("devid: {text}");
            ExitCode::from(code)
        }
    }
}

fn run(verb: Verb) -> Result<Answer, Failure> {
    match verb {
        Verb::Status(form) => life::status(&device()?, form),
        Verb::Doctor(form) => doctor::run(form),
        Verb::Provision { csr, how } => life::make(&settings()?, &how, csr),
        Verb::Reset { yes, how, .. } => life::reset(&settings()?, yes, &how),
        Verb::Key(KeyVerb::Generate {
            label,
            algorithm,
            decrypts,
            persistent,
        }) => keys::generate(&device()?, &label, algorithm, decrypts, persistent),
        Verb::Key(KeyVerb::List(form)) => keys::list(&device()?, form),
        Verb::Key(KeyVerb::Delete { label, yes }) => keys::delete(&device()?, &label, yes),
        Verb::Csr {
            label,
            subject,
            out,
        } => keys::request(&device()?, &label, subject.as_deref(), out.as_deref()),
        Verb::ImportCert { file } => keys::import(&device()?, &file),
        Verb::Export { label, out, .. } => keys::export(&device()?, &label, out.as_deref()),
        Verb::Persist { label, handle } => keys::persist(&device()?, &label, handle),
        Verb::Prune => life::prune(&settings()?),
        Verb::List(form) => show::list(&device()?, form),
        Verb::Show { label, form } => show::show(&device()?, &label, form),
        Verb::Verify { label, ca, form } => verify::run(&device()?, &label, ca.as_deref(), form),
        Verb::Uri { label, pem } => uri::run(&device()?, &label, pem.as_deref()),
        Verb::Man { folder } => pages::man(&folder),
        Verb::Completions { shell } => Ok(pages::completions(shell)),
        Verb::Uri2pem { uri } => uri::to_pem(&uri),
    }
}

fn settings() -> Result<Config, Failure> {
    Ok(config::load(&config::environment).config?)
}

fn device() -> Result<Device, Failure> {
    Ok(Device::new(settings()?))
}

fn tell(answer: &Answer) -> ExitCode {
    let Answer {
        code,
        text,
        complaint,
    } = answer;
    // Whoever reads may stop reading.
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("devid: {error}");
            return ExitCode::FAILURE;
        }
        _ => {}
    }
    if let Some(complaint) = complaint {
        eprintln!("devid: {complaint}");
    }
    ExitCode::from(*code)
}
