//! Checks the files that the configuration names, and the folders beside it. Finds files that other
//! users can write, and files that cannot be read.

use super::Finding;
use crate::config::{Config, ExistingSource, IdentityAuth, SecretSource, not_read};
use crate::identity::permissions::missing_permission;
use crate::identity::remedy::Remedy;
use crate::trouble::trouble;
use crate::trust::{Distrust, distrusted};
use crate::x509::files::{self, CertificateFile, CertificateFileError};
use rustix::fs::Access;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const ABOUT: &str = "configuration";
const CERTIFICATES: &str = "certificates";

pub(super) fn check(config: &Config, findings: &mut Vec<Finding>) {
    beside_the_configuration(config, findings);
    written_by_others(config, findings);
    for hint in &config.identities {
        findings.extend(hint.certificate.as_deref().and_then(certificate));
    }
    findings.extend(config.left_out.iter().map(|path| {
        let remedy = Remedy::by_hand(
            "To use the settings in this file, give it a name that ends in .toml. Otherwise remove \
             the file from the folder",
        );
        let finding = Finding::note("configuration.left-out", ABOUT, not_read(path, ".toml"));
        finding
            .about_object(path.display().to_string())
            .with_remedy(remedy)
    }));
    let unread = secrets(config).filter_map(|(setting, source)| secret(setting, source));
    findings.extend(unread);
}

/// Finds ignored files in the folders `trust/` and `chain/`, and in the folder of TPM
/// manufacturers' root certificates (`ek_roots`).
fn beside_the_configuration(config: &Config, findings: &mut Vec<Finding>) {
    let roots = config.master.ek_roots.iter();
    for folder in [&config.trust, &config.chain].into_iter().chain(roots) {
        match distrusted(folder) {
            Some(Distrust {
                unread: Some(errno),
                ..
            }) => findings.push(unlisted(folder, &errno.into())),
            Some(why) => findings.push(finding(folder, &why)),
            None => match files::in_folder(folder) {
                Ok(here) => findings.extend(here.iter().filter_map(left_out)),
                Err(error) => findings.push(unlisted(folder, &error)),
            },
        }
    }
}

fn written_by_others(config: &Config, findings: &mut Vec<Finding>) {
    let hints = config.identities.iter();
    let mut files: Vec<PathBuf> = hints.filter_map(|hint| hint.certificate.clone()).collect();
    if let Some(ExistingSource::Files { certificate, key }) = &config.provision.existing {
        files.extend([certificate.clone(), key.clone()]);
    }
    let distrusted_of = |file: PathBuf| {
        let known = distrusted(&file).filter(|why| why.unread.is_none());
        known.map(|why| finding(&file, &why))
    };
    findings.extend(files.into_iter().filter_map(distrusted_of));
    let secrets = secrets(config).filter_map(|(_, source)| source.distrusted());
    findings.extend(secrets.map(|(file, why)| finding(&file, &why)));
}

/// Returns the source of each configured secret, with the name of its setting.
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
    let remedy = Remedy::by_hand(
        "Check that you know the content. Then remove the write permission of all other users \
         (chown, chmod), also for the folders of the path",
    );
    let text = format!("{why}, so {} is not used", path.display());
    Finding::problem("distrusted", "trust", text, remedy).about_object(path.display().to_string())
}

/// Finds content that is ignored in a file of `chain/` or `trust/`.
fn left_out(file: &CertificateFile) -> Option<Finding> {
    let text = file.left_out().join("; ");
    let note = |id, remedy| {
        Finding::note(id, CERTIFICATES, text.clone()).with_remedy(Remedy::by_hand(remedy))
    };
    let named = match &file.certificates {
        Ok(_) if file.beside.is_empty() => return None,
        Err(CertificateFileError::Distrusted(why)) => return Some(finding(&file.path, why)),
        Ok(_) => note(
            "certificates.beside",
            "Only the certificates of this file are used; remove all other content",
        ),
        Err(CertificateFileError::OtherName | CertificateFileError::Folder) => note(
            "certificates.left-out",
            "To use a certificate, put its file directly into this folder, with a name that ends \
             in .pem, .crt, .cer or .der. Otherwise remove the file from the folder",
        ),
        Err(CertificateFileError::Failed(error))
            if let Some(remedy) = unread(&file.path, error) =>
        {
            match error.kind() {
                ErrorKind::PermissionDenied => {
                    Finding::note("certificates.closed", CERTIFICATES, text).with_remedy(remedy)
                }
                _ => Finding::problem("certificates.unread", CERTIFICATES, text, remedy),
            }
        }
        Err(
            CertificateFileError::Failed(_)
            | CertificateFileError::Dangling
            | CertificateFileError::Nothing(_),
        ) => Finding::problem(
            "certificates.unread",
            CERTIFICATES,
            text,
            Remedy::by_hand(
                "Put a certificate in PEM or DER into this file, or remove the file from the folder",
            ),
        ),
    };
    Some(named.about_object(file.path.display().to_string()))
}

/// Returns the remedy if the system could not read a file. Returns `None` if the file is missing or
/// has wrong content.
fn unread(path: &Path, error: &std::io::Error) -> Option<Remedy> {
    trouble(error)?;
    Some(missing_permission(path, Access::READ_OK).unwrap_or_else(|| {
        Remedy::by_hand(
            "Run devid doctor again, because the file may be valid. If the error remains, check \
             the file system",
        )
    }))
}

fn unlisted(folder: &Path, error: &std::io::Error) -> Finding {
    let shown = folder.display().to_string();
    let text = format!("{shown}: {error}, so the certificates in this folder are not read");
    let found = match (error.kind(), unread(folder, error)) {
        (ErrorKind::PermissionDenied, Some(remedy)) => {
            Finding::note("certificates.closed", CERTIFICATES, text).with_remedy(remedy)
        }
        (_, remedy) => {
            let wrong =
                || Remedy::by_hand("Make this path a folder that this user can list, or remove it");
            let remedy = remedy.unwrap_or_else(wrong);
            Finding::problem("certificates.unread", CERTIFICATES, text, remedy)
        }
    };
    found.about_object(shown)
}

fn certificate(path: &Path) -> Option<Finding> {
    let why = match CertificateFile::read(path.to_owned()).certificates {
        Ok(_) | Err(CertificateFileError::Distrusted(_)) => return None,
        Err(why) => why,
    };
    let shown = path.display().to_string();
    let text = format!("certificate {shown} under [[identity]]: {why}");
    let wrong = || {
        Remedy::by_hand(
            "Put the certificate in PEM or DER into this file, or correct the path in config.toml",
        )
    };
    let remedy = match &why {
        CertificateFileError::Failed(error) => unread(path, error),
        _ => None,
    };
    let remedy = remedy.unwrap_or_else(wrong);
    Some(Finding::problem("configuration.certificate", ABOUT, text, remedy).about_object(shown))
}

/// Checks that a secret can be read. Skips credentials of systemd services, because systemd does
/// not pass them to the doctor.
fn secret(setting: &str, source: &SecretSource) -> Option<Finding> {
    if matches!(source, SecretSource::Credential { .. }) || source.distrusted().is_some() {
        return None;
    }
    let error = source.read().err()?;
    let text = format!("{setting} {source:?}: {error}");
    let path = source.path().ok().flatten().unwrap_or_default();
    let remedy = match (error.kind(), unread(&path, &error)) {
        (ErrorKind::PermissionDenied, remedy) => {
            let note = Finding::note("configuration.secret-closed", ABOUT, text);
            return Some(match remedy {
                // The administrator decides who may read a secret, so the remedy has no command.
                Some(remedy) => note.with_remedy(Remedy::by_hand(remedy.words)),
                None => note,
            });
        }
        (_, Some(remedy)) => remedy,
        (_, None) => Remedy::by_hand(
            "Write the secret to this file again, with at most one newline (LF) at the end",
        ),
    };
    Some(Finding::problem(
        "configuration.secret",
        ABOUT,
        text,
        remedy,
    ))
}
