//! Files that the configuration names: an identity's certificate, and secrets.

use super::Finding;
use crate::config::{Config, IdentityAuth, SecretSource, environment};
use crate::identity::mend::Mend;
use crate::store::idevid::certificates_in;
use std::io::ErrorKind;
use std::path::Path;

const ABOUT: &str = "configuration";

pub(super) fn look_at(config: &Config, findings: &mut Vec<Finding>) {
    for hint in &config.identities {
        findings.extend(hint.certificate.as_deref().and_then(certificate));
        if let Some(IdentityAuth::Secret(source)) = &hint.auth {
            findings.extend(secret("[[identity]] auth", source));
        }
    }
    for token in &config.tokens {
        let pin = token.pin.as_ref();
        findings.extend(pin.and_then(|source| secret("[[token]] pin", source)));
    }
}

fn certificate(path: &Path) -> Option<Finding> {
    let why = certificates_in(path).err()?;
    let shown = path.display().to_string();
    let text = format!("[[identity]] certificate {shown}: {why}");
    let mend =
        Mend::by("Put the certificate there, in PEM or DER, or correct the path in config.toml");
    Some(Finding::problem("configuration.certificate", ABOUT, text, mend).of(shown))
}

/// A secret that cannot be had. What systemd hands to a service is not there for the doctor.
fn secret(setting: &str, source: &SecretSource) -> Option<Finding> {
    if matches!(source, SecretSource::Credential(_)) {
        return None;
    }
    let error = source.read(&environment).err()?;
    let text = format!("{setting} {source:?}: {error}");
    if error.kind() == ErrorKind::PermissionDenied {
        return Some(Finding::note("configuration.secret-closed", ABOUT, text));
    }
    let mend =
        Mend::by("Write the secret into that file anew, with at most one newline (LF) behind it");
    Some(Finding::problem("configuration.secret", ABOUT, text, mend))
}
