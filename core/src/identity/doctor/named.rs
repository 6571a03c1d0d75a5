//! Files that the configuration names, or that lie beside it: whether others may write them.

use super::Finding;
use crate::config::{Config, Existing, IdentityAuth, SecretSource};
use crate::identity::mend::Mend;
use crate::trouble::paths_in;
use crate::trust::{Distrust, distrusted};
use std::path::{Path, PathBuf};

pub(super) fn look_at(config: &Config, findings: &mut Vec<Finding>) {
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
    let secrets = secrets(config).filter_map(SecretSource::distrusted);
    findings.extend(secrets.map(|(file, why)| finding(&file, &why)));
}

/// All that the configuration names.
fn secrets(config: &Config) -> impl Iterator<Item = &SecretSource> {
    let hints = config.identities.iter();
    let auths = hints.filter_map(|hint| match &hint.auth {
        Some(IdentityAuth::Secret(secret)) => Some(secret),
        Some(IdentityAuth::Pin) | None => None,
    });
    let pins = config.tokens.iter().filter_map(|token| token.pin.as_ref());
    config.master.owner_auth.iter().chain(auths).chain(pins)
}

fn finding(path: &Path, why: &Distrust) -> Finding {
    let mend = Mend::by(
        "Look at it by hand: see that all that stands there is yours, then take the right to write \
         from all others (chown, chmod), in the folders on the way too",
    );
    let text = format!("{why}, so {} is not used", path.display());
    Finding::problem("distrusted", "trust", text, mend).of(path.display().to_string())
}
