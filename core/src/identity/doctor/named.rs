//! Files that the configuration names, or that lie beside it: whether others may write them, and
//! whether they can be read.

use super::Finding;
use crate::config::{Config, Existing, IdentityAuth, SecretSource};
use crate::identity::mend::Mend;
use crate::store::idevid::certificates_in;
use crate::trouble::paths_in;
use crate::trust::{Distrust, distrusted};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const ABOUT: &str = "configuration";

pub(super) fn look_at(config: &Config, findings: &mut Vec<Finding>) {
    written_by_others(config, findings);
    for hint in &config.identities {
        findings.extend(hint.certificate.as_deref().and_then(certificate));
    }
    let unread = secrets(config).filter_map(|(setting, source)| secret(setting, source));
    findings.extend(unread);
}

fn written_by_others(config: &Config, findings: &mut Vec<Finding>) {
    let mut files = Vec::new();
    for folder in [&config.trust, &config.chain] {
        match distrusted(folder) {
            Some(why) => findings.push(finding(folder, &why)),
            None => {
                // What cannot be listed now, other findings name.
                let paths = paths_in(folder).unwrap_or_default().into_iter();
                files.extend(paths.filter(|path| path.extension().is_some_and(|end| end == "pem")));
            }
        }
    }
    let hints = config.identities.iter();
    files.extend(hints.filter_map(|hint| hint.certificate.clone()));
    if let Some(Existing::Files { certificate, key }) = &config.provision.existing {
        files.extend([certificate.clone(), key.clone()]);
    }
    let distrusted_of = |file: PathBuf| distrusted(&file).map(|why| finding(&file, &why));
    findings.extend(files.into_iter().filter_map(distrusted_of));
    let secrets = secrets(config).filter_map(|(_, source)| source.distrusted());
    findings.extend(secrets.map(|(file, why)| finding(&file, &why)));
}

/// All that the configuration names, each with its setting.
fn secrets(config: &Config) -> impl Iterator<Item = (&'static str, &SecretSource)> {
    let hints = config.identities.iter();
    let auths = hints.filter_map(|hint| match &hint.auth {
        Some(IdentityAuth::Secret(secret)) => Some(("[[identity]] auth", secret)),
        Some(IdentityAuth::Pin) | None => None,
    });
    let pins = config.tokens.iter().filter_map(|token| token.pin.as_ref());
    let owner = config.master.owner_auth.iter();
    let owner = owner.map(|secret| ("[master] owner_auth", secret));
    owner
        .chain(auths)
        .chain(pins.map(|secret| ("[[token]] pin", secret)))
}

fn finding(path: &Path, why: &Distrust) -> Finding {
    let mend = Mend::by(
        "Look at it by hand: see that all that stands there is yours, then take the right to write \
         from all others (chown, chmod), in the folders on the way too",
    );
    let text = format!("{why}, so {} is not used", path.display());
    Finding::problem("distrusted", "trust", text, mend).of(path.display().to_string())
}

fn certificate(path: &Path) -> Option<Finding> {
    if distrusted(path).is_some() {
        return None;
    }
    let why = certificates_in(path).err()?;
    let shown = path.display().to_string();
    let text = format!("[[identity]] certificate {shown}: {why}");
    let mend =
        Mend::by("Put the certificate there, in PEM or DER, or correct the path in config.toml");
    Some(Finding::problem("configuration.certificate", ABOUT, text, mend).of(shown))
}

/// A secret that cannot be had. What systemd hands to a service is not there for the doctor.
fn secret(setting: &str, source: &SecretSource) -> Option<Finding> {
    if matches!(source, SecretSource::Credential { .. }) || source.distrusted().is_some() {
        return None;
    }
    let error = source.read().err()?;
    let text = format!("{setting} {source:?}: {error}");
    if error.kind() == ErrorKind::PermissionDenied {
        return Some(Finding::note("configuration.secret-closed", ABOUT, text));
    }
    let mend =
        Mend::by("Write the secret into that file anew, with at most one newline (LF) behind it");
    Some(Finding::problem("configuration.secret", ABOUT, text, mend))
}
