//! `devid list`

use crate::Failure;
use devid_core::certificate::{Certificate, Day};
use devid_core::config;
use devid_core::store::LookError;
use devid_core::store::idevid::{Authority, Identity, IdevidStore};
use devid_core::tpm::{Refusals, Tpm};
use std::fmt::Write;
use std::sync::Arc;

/// All identities and the certificates of their issuers, a paragraph each.
pub(crate) fn run() -> Result<String, Failure> {
    let config = config::load(&config::environment)
        .config
        .map_err(|fault| Failure {
            code: 1,
            text: fault.to_string(),
        })?;
    let tpm = Tpm::of(&config, Refusals::default());
    let found = IdevidStore::new(&config, Arc::new(tpm))
        .find()
        .map_err(|fault| Failure {
            code: match fault {
                LookError::Tpm(_) => 4,
                LookError::NoIdentity(_) => 5,
                LookError::Folder(_) => 1,
            },
            text: format!("{}: {fault}", config.tcti),
        })?;
    let mut text = format!("token idev-id, serial {}\n", found.serial);
    for Identity {
        label,
        certificate,
        key,
        ..
    } in &found.identities
    {
        let key = match key {
            Some(key) => match key.handle() {
                Some(handle) => format!("0x{handle:08X}"),
                None => "without handle, derived when needed".into(),
            },
            None => "not in this TPM".into(),
        };
        let _ = writeln!(text, "\n{label}\n  key      {key}");
        describe(&mut text, certificate);
    }
    for Authority { label, certificate } in &found.authorities {
        let _ = writeln!(text, "\n{label}");
        describe(&mut text, certificate);
    }
    Ok(text)
}

fn describe(text: &mut String, certificate: &Certificate) {
    let (_, last) = certificate.validity();
    let until = match last {
        Day { year: 9999, .. } => "without end".into(),
        Day { year, month, day } => format!("until {year:04}-{month:02}-{day:02}"),
    };
    let _ = writeln!(
        text,
        "  subject  {}\n  valid    {until}",
        certificate.subject()
    );
}
