//! `devid-manufacture`: writes IDevID and IAK into a TPM 2.0 on a production line.
//!
//! Exit codes: 0 ok, 1 failed or wrong, 2 usage, 4 TPM not reachable, 5 not found, 6 refused.

#![forbid(unsafe_code)]

mod cli;
mod man;
mod output;
mod records;

use clap::Parser;
use cli::{Arguments, CommonArgs, InstallArgs, Verb};
use devid_core::config::{self, Config};
use devid_core::identity::{IdentityError, IdentityErrorKind};
use devid_core::manufacture::{Contents, GivenCertificate, KeyPlace, Maker, Product, Step};
use output::{Output, say};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Arguments { common, verb } = Arguments::parse();
    output::hear_warnings();
    let answered = run(&verb, &common);
    let output = answered.unwrap_or_else(|error| Output::failed(&error, common.json));
    output.print()
}

fn run(verb: &Verb, common: &CommonArgs) -> Result<Output, IdentityError> {
    if let Verb::Man = verb {
        return man::page();
    }
    let maker = Maker::new(&settings(common)?, common.platform_auth.as_ref())?;
    let places = common.places()?;
    let json = common.json;
    match verb {
        Verb::Keys(args) => {
            let steps = maker.keys(&args.templates(&places), args.dry_run)?;
            Ok(Output::steps(&steps, json))
        }
        Verb::Csr {
            product,
            out,
            force,
        } => {
            let product = product.read()?;
            let iak = places.get(1);
            let requests = maker.requests(&places[0], iak, &product)?;
            let paths = requests.write(out, *force)?;
            Ok(Output::paths(&paths, json))
        }
        Verb::Install(args) => install(&maker, &places, args, json),
        Verb::Verify { serial, model, ca } => {
            let product = serial.as_deref();
            let product = product.map(|serial| Product::new(serial, model.as_deref()));
            let product = product.transpose()?;
            let ca = ca.as_deref().map(GivenCertificate::read).transpose()?;
            let seen = maker.inspect(&places, product.as_ref(), ca.as_ref())?;
            Ok(Output::inspection(&seen, json))
        }
        Verb::Record { append } => {
            let record = maker.record(&places)?;
            let line = output::line(&record)?;
            match append {
                Some(file) => records::append(file, &line).map(|()| Output::default()),
                None => Ok(Output::text(line)),
            }
        }
        Verb::Man => man::page(),
    }
}

fn install(
    maker: &Maker,
    places: &[KeyPlace],
    args: &InstallArgs,
    json: bool,
) -> Result<Output, IdentityError> {
    let read = |path: &Path| GivenCertificate::read(path);
    let mut keys = vec![(places[0], read(&args.idevid)?)];
    match (places.get(1), &args.iak) {
        (Some(place), Some(path)) => keys.push((*place, read(path)?)),
        (Some(_), None) => {
            return Err(usage(
                "the certificate of the IAK is missing: give --iak-cert FILE, or --no-iak for a device without IAK",
            ));
        }
        (None, Some(_)) => return Err(usage("--iak-cert and --no-iak exclude each other")),
        (None, None) => {}
    }
    let ca = args.ca.as_deref().map(read).transpose()?;
    let contents = Contents {
        keys,
        ca: ca.map(|ca| (args.ca_nv.0, ca)),
        by: args.by.into(),
    };
    let product = args.product.read()?;
    let (steps, notes): (Vec<Step>, _) = maker.install(&contents, &product, args.dry_run)?;
    for note in notes {
        say(format_args!("warning: IEEE 802.1AR: {note}"));
    }
    Ok(Output::steps(&steps, json))
}

/// Reads the settings of devid-pkcs11. `--tcti` overrides the TCTI of the settings.
fn settings(common: &CommonArgs) -> Result<Config, IdentityError> {
    let is_privileged = config::is_privileged();
    let environment = config::environment(is_privileged);
    let tcti = common.tcti.clone().filter(|_| !is_privileged);
    let variable = move |name: &str| match (&tcti, name) {
        (Some(tcti), "DEVID_PKCS11_TCTI") => Some(OsString::from(tcti)),
        _ => environment(name),
    };
    let mut config = config::load(&variable)
        .config
        .map_err(|error| IdentityError::new(IdentityErrorKind::Failed, error.to_string()))?;
    if let Some(owner) = &common.owner_auth {
        config.master.owner_auth = Some(owner.clone());
    }
    Ok(config)
}

fn usage(text: &str) -> IdentityError {
    IdentityError::new(IdentityErrorKind::Usage, text)
}
