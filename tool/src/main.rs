//! `devid`: the command-line tool for the identity of a device.
//!
//! Exit codes: 0 ok, 1 failed, 2 usage, 3 CA certificate not available, 4 TPM not reachable,
//! 5 not found, 6 refused, 7 not decided yet, 8 a certificate ends soon.

#![forbid(unsafe_code)]

mod aim;
mod audit;
mod bench;
mod ca;
mod certificates;
mod check;
mod cli;
mod colour;
mod completions;
mod destination;
mod doctor;
#[cfg(feature = "est")]
mod enroll;
#[cfg(feature = "est")]
mod est;
mod evidence;
mod evidence_cli;
mod export;
#[cfg(feature = "est")]
mod hooks;
mod identity;
mod input;
mod keys;
mod man;
mod master;
mod meant;
mod metrics;
mod misused;
mod output;
mod print;
mod progress;
#[cfg(feature = "est")]
mod renew;
mod settings;
mod show;
mod sign;
mod status;
mod succession;
mod text;
mod tokens;
mod tree;
mod uri;
mod verify;
mod warnings;

use aim::aimed;
use audit::Audited;
use clap::Parser;
#[cfg(feature = "est")]
use cli::RenewArgs;
use cli::{Arguments, CommonArgs, KeyVerb, MasterVerb, OutputFormat, Verb};
use colour::Painter;
use destination::{Destination, is_standard_output};
use devid_core::identity::KeyStorage;
use devid_core::message::MessageForm;
use log::debug;
use output::{CommandError, Output};
use print::print_output;
use settings::Settings;
use std::process::ExitCode;
use std::time::Instant;
use warnings::Warnings;

fn main() -> ExitCode {
    let Arguments { common, verb } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return misused::answer(error),
    };
    let CommonArgs {
        json,
        verbose,
        quiet,
        config,
    } = common;
    let form = match json {
        true => OutputFormat::Json,
        false => OutputFormat::Text,
    };
    let began = Instant::now();
    let warnings = Warnings::install(form, verbose, quiet);
    let is_report = only_reports(&verb);
    let failed = |error: CommandError| Output {
        code: error.code,
        document: (form == OutputFormat::Json).then(|| error.json()),
        complaint: Some(error.text),
        ..Output::default()
    };
    let mut output = match Settings::new(config) {
        Ok(settings) => {
            let audited = Audited::of(&verb);
            let output = run(verb, &settings, quiet, form).unwrap_or_else(failed);
            if let Some(audited) = audited {
                audited.write(&settings, &output);
            }
            match &settings.file {
                Some(file) => aimed(output, file),
                None => output,
            }
        }
        Err(error) => failed(error),
    };
    debug!("done after {} ms", began.elapsed().as_millis());
    if quiet && is_report && output.code == 0 {
        output.text.clear();
    }
    print_output(output, &warnings)
}

fn run(
    verb: Verb,
    settings: &Settings,
    quiet: bool,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let painter = Painter::of_standard_output();
    let device = || settings.device();
    match verb {
        Verb::Status(args) if args.check => check::run(&device()?, args, form),
        Verb::Status(_) => status::run(&device()?, form),
        Verb::Bench => bench::run(&device()?, form),
        Verb::Doctor => doctor::run(settings, painter, quiet, form),
        Verb::Provision {
            csr,
            new_certificate,
            how,
            force,
        } => {
            let csr = csr.map(|path| Destination::new(path, force.force));
            identity::provision(&settings.read()?, &how, csr, new_certificate, form)
        }
        Verb::Reset { yes, how, .. } => identity::reset(&settings.read()?, yes, &how, form),
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
        Verb::Key(KeyVerb::Rekey(args)) => succession::rekey(&device()?, *args, form),
        Verb::Key(KeyVerb::Import {
            file,
            token,
            auth_file,
            pin_file,
        }) => keys::take_over(&device()?, &file, &token, auth_file, pin_file, form),
        Verb::Key(KeyVerb::Unseal { file, auth_file }) => {
            keys::unseal(&device()?, &file, auth_file, form)
        }
        Verb::Key(KeyVerb::List) => keys::list(&device()?, form),
        Verb::Key(KeyVerb::Delete { label, yes }) => keys::delete(&device()?, &label, yes, form),
        Verb::Ca(verb) => ca::run(verb, form),
        Verb::Master(MasterVerb::Renew { yes }) => master::renew(settings, yes, form),
        Verb::Token(verb) => tokens::run(&settings.read()?, &verb, form),
        Verb::Csr(args) => certificates::request(&device()?, *args, form),
        Verb::Attest(args) => evidence::attest(&device()?, *args, form),
        Verb::Activate { challenge, out } => {
            evidence::activate(&device()?, &challenge, &out.into(), form)
        }
        Verb::Challenge(args) => evidence::challenge(&device()?, args, form),
        Verb::ImportCert { file, owner: true } => {
            certificates::import_owner(&device()?, &file, form)
        }
        Verb::ImportCert { file, .. } => certificates::import(&device()?, &file, form),
        Verb::Renew(args) => match args.label {
            Some(label) if args.rollback => succession::roll_back(&device()?, &label, form),
            #[cfg(feature = "est")]
            label => {
                let args = RenewArgs { label, ..args };
                renew::run(&device()?, args, form)
            }
            #[cfg(not(feature = "est"))]
            _ => Err(CommandError::new(
                1,
                "this build has no EST (feature est); only --rollback works",
            )),
        },
        #[cfg(feature = "est")]
        Verb::Enroll(args) => enroll::run(&device()?, *args, form),
        Verb::Export {
            label,
            tpm2_tools,
            spire,
            cert,
            chain,
            fullchain,
            out,
            ..
        } => {
            let device = device()?;
            let out = &out.into();
            if let Some(folder) = tpm2_tools {
                return export::to_tools(&device, &label, &folder, form);
            }
            if let Some(folder) = spire {
                return export::to_spire(&device, &label, &folder, form);
            }
            match (cert || fullchain, chain || fullchain) {
                (false, false) => keys::export(&device, &label, out, form),
                (leaf, above) => certificates::export(&device, &label, leaf, above, out, form),
            }
        }
        Verb::Sign {
            label,
            file,
            jws,
            raw,
            hash,
            content_type,
            typ,
            detached,
            pin_file,
            out,
            ..
        } => {
            let message = match (jws, raw) {
                (true, _) => MessageForm::Jws { typ, detached },
                (_, true) => MessageForm::Raw {
                    hash: hash.map(Into::into),
                },
                (false, false) => sign::cms(content_type.as_deref(), detached)?,
            };
            let out = out.into();
            sign::run(&device()?, &label, &file, &message, pin_file, &out, form)
        }
        Verb::Persist { label, handle } => keys::persist(&device()?, &label, handle, form),
        Verb::Prune => identity::prune(&settings.read()?, form),
        Verb::List => show::list(&device()?, form),
        Verb::Show {
            cert: Some(file), ..
        } => show::file(&file, form),
        Verb::Show {
            label,
            keylime,
            out,
            ..
        } => {
            let (device, label) = (device()?, label.unwrap_or_default());
            match keylime {
                true => export::keylime(&device, &label, out.as_deref(), form),
                false => show::show(&device, &label, form),
            }
        }
        Verb::Tree => tree::run(&device()?, painter, form),
        Verb::Verify {
            label,
            ca,
            crl,
            pin_file,
        } => {
            let ca = ca.as_deref();
            verify::run(&device()?, &label, ca, &crl, pin_file, painter, form)
        }
        Verb::Uri {
            label,
            class,
            pem,
            force,
        } => {
            let pem = pem.map(|path| Destination::new(path, force.force));
            uri::run(&device()?, &label, class, pem.as_ref(), form)
        }
        Verb::Man { folder, force } => man::man(&folder, force.force, form),
        Verb::Completions { shell } => completions::script(shell, form),
        Verb::Uri2pem { uri, out } => uri::to_pem(&uri, &out.into(), form),
    }
}

/// Returns true if the text output of a verb only reports success. `--quiet` suppresses such a
/// text.
fn only_reports(verb: &Verb) -> bool {
    match verb {
        Verb::Provision { csr, .. } => csr.as_deref().is_none_or(|path| !is_standard_output(path)),
        Verb::Reset { .. }
        | Verb::Prune
        | Verb::Key(KeyVerb::Generate { .. } | KeyVerb::Import { .. } | KeyVerb::Delete { .. })
        | Verb::Master(MasterVerb::Renew { .. })
        | Verb::ImportCert { .. }
        | Verb::Persist { .. } => true,
        _ => false,
    }
}
