//! The software identity: a key in a file, for a device without TPM, if the configuration permits
//! that. Its two files are in `<state>/software`. A `[[token]]` with `allow_file_keys` can show
//! them. When the device moves to its TPM, the files are renamed to `*.pre-tpm` and stay until a
//! user prunes them.

use super::IdentityError;
use super::entry::{
    CertificateEntry, OWN, SOFTWARE, TokenEntry, add_certificate, ca_label, is_ca_label_of,
};
use super::free_name::free_name;
use super::key_file::read_key;
use super::trusted_files::read_certificates;
use crate::file;
use crate::key::{Curve, PrivateKeyInfo, PublicKey};
use crate::pem;
use crate::store::Key;
use crate::store::folder::KeyOrigin;
use crate::tpm::random_scalar;
use crate::trouble::{is_there, paths_in};
use crate::x509::Certificate;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const KEY: &str = "devid.key.pem";
const CERTIFICATE: &str = "devid.cert.pem";
/// The suffix of the names of certificate files.
const OF_CERTIFICATE: &str = ".cert.pem";
/// The label in the PEM files, as files of a key folder have it. A token for this folder then shows
/// key and certificate under one label.
const LABEL: &[u8] = b"Label: devid\n";
const RETIRED: &str = "pre-tpm";

/// The folder of the software identity, `<state>/software`.
#[derive(Debug)]
pub(super) struct Software {
    folder: PathBuf,
}

impl Software {
    pub(super) fn in_state(state: &Path) -> Self {
        Self {
            folder: state.join("software"),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the path of the private key file.
    pub(super) fn key_path(&self) -> PathBuf {
        self.folder.join(KEY)
    }

    /// Returns the path of the certificate file.
    pub(super) fn certificate_path(&self) -> PathBuf {
        self.folder.join(CERTIFICATE)
    }

    /// Returns true if a file belongs to the software identity.
    pub(super) fn has(&self, file: &Path) -> bool {
        file.parent() == Some(&self.folder)
            && (file == self.key_path() || file == self.certificate_path() || is_ca_file(file))
    }

    /// Returns the private and the public key of the software identity. Both are `None` if it has
    /// no key. If the user of this process has no permission to read the private key, the public
    /// key comes from the certificate.
    ///
    /// # Errors
    ///
    /// Fails if the file holds no key of a supported type.
    pub(super) fn halves(&self) -> Result<(Option<Key>, Option<PublicKey>), IdentityError> {
        let path = self.key_path();
        if !there(&path)? {
            return Ok((None, None));
        }
        let key = match read_key(&path) {
            Ok(key) => key,
            Err(unread) => {
                let told = match unread.is_hidden() {
                    true => self.certificate()?.and_then(|one| one.public_key()),
                    false => None,
                };
                let public = told.ok_or_else(|| unread.fault(&path))?;
                return Ok((None, Some(public)));
            }
        };
        match key.public().clone() {
            public @ PublicKey::Ec {
                curve: Curve::P256, ..
            } => Ok((Some(key), Some(public))),
            other => Err(IdentityError::failed(format!(
                "{}: this key is {other}, but a software identity must be on P-256",
                path.display()
            ))),
        }
    }

    /// Returns the certificate of the software identity, or `None` if there is none.
    pub(super) fn certificate(&self) -> Result<Option<Certificate>, IdentityError> {
        let path = self.certificate_path();
        if !there(&path)? {
            return Ok(None);
        }
        Ok(read_certificates(&path)?.into_iter().next())
    }

    /// Creates the key of the software identity and stores it in a file.
    pub(super) fn make_key(&self) -> Result<Key, IdentityError> {
        let failed = |why: &str| IdentityError::failed(format!("software key: {why}"));
        let private = PrivateKeyInfo::from_scalar(Curve::P256, &random_scalar(Curve::P256)?);
        let private =
            private.ok_or_else(|| failed("the random number is not a scalar of the curve"))?;
        let pem = pem::render("PRIVATE KEY", private.der()).map(Zeroizing::new);
        let pem = pem.map_err(|why| failed(&why))?;
        make_folder(&self.folder)?;
        let path = self.key_path();
        let pem = Zeroizing::new([LABEL, pem.as_bytes()].concat());
        file::write(&path, &pem, 0o600).map_err(IdentityError::file(&path))?;
        Key::in_clear(private).map_err(failed)
    }

    /// Replaces the certificate of the software identity, and the CA certificates above it.
    pub(super) fn keep(
        &self,
        certificate: &Certificate,
        ca_certificates: &[&Certificate],
    ) -> Result<(), IdentityError> {
        let write = |path: &Path, label: &str, one: &Certificate| {
            let text = format!("Label: {label}\n{}", one.pem());
            file::write(path, text.as_bytes(), 0o644).map_err(IdentityError::file(path))
        };
        let mut kept = Vec::new();
        for (number, ca) in (1..).zip(ca_certificates) {
            let label = ca_label(OWN, number);
            let path = self.folder.join(format!("{label}{OF_CERTIFICATE}"));
            write(&path, &label, ca)?;
            kept.push(path);
        }
        write(&self.certificate_path(), OWN, certificate)?;
        for path in self.ca_paths()? {
            if !kept.contains(&path) {
                file::remove(&path).map_err(IdentityError::file(&path))?;
            }
        }
        Ok(())
    }

    /// Returns the paths of the CA certificates of the software identity.
    fn ca_paths(&self) -> Result<Vec<PathBuf>, IdentityError> {
        let mut paths = self.all_paths()?;
        paths.retain(|path| is_ca_file(path));
        Ok(paths)
    }

    /// Returns the paths of all files in the folder of the software identity.
    fn all_paths(&self) -> Result<Vec<PathBuf>, IdentityError> {
        paths_in(&self.folder).map_err(IdentityError::file(&self.folder))
    }

    /// Returns the CA certificates of the software identity, with their paths.
    pub(super) fn ca_certificates(&self) -> Result<Vec<(PathBuf, Certificate)>, IdentityError> {
        let mut found = Vec::new();
        for path in self.ca_paths()? {
            found.extend(
                read_certificates(&path)?
                    .into_iter()
                    .map(|one| (path.clone(), one)),
            );
        }
        Ok(found)
    }

    /// Returns the paths of all files of the software identity. The key is last, so that an
    /// interrupted removal never leaves a certificate without key.
    fn paths(&self) -> Result<impl Iterator<Item = PathBuf>, IdentityError> {
        let first = [self.certificate_path()].into_iter();
        Ok(first.chain(self.ca_paths()?).chain([self.key_path()]))
    }

    /// Renames all files of the software identity to `*.pre-tpm`. Does not overwrite files that
    /// were renamed before.
    pub(super) fn retire(&self) -> Result<(), IdentityError> {
        for path in self.paths()? {
            if there(&path)? {
                let aside = free_name(&path, RETIRED)?;
                file::rename(&path, &aside).map_err(IdentityError::file(&path))?;
            }
        }
        Ok(())
    }

    /// Deletes all files of the software identity, and all its files `*.pre-tpm`.
    pub(super) fn delete(&self) -> Result<(), IdentityError> {
        for path in self.paths()? {
            file::remove(&path).map_err(IdentityError::file(&path))?;
        }
        self.prune().map(drop)
    }

    /// Deletes the files `*.pre-tpm` of a former software identity. Returns their paths.
    pub(super) fn prune(&self) -> Result<Vec<PathBuf>, IdentityError> {
        let retired = self.retired()?;
        for path in &retired {
            file::remove(path).map_err(IdentityError::file(path))?;
        }
        Ok(retired)
    }

    /// Returns the files `*.pre-tpm` of a former software identity.
    pub(super) fn retired(&self) -> Result<Vec<PathBuf>, IdentityError> {
        let mut retired = Vec::new();
        for path in self.all_paths()? {
            if self.was_ours(&path) {
                let about = path
                    .symlink_metadata()
                    .map_err(IdentityError::file(&path))?;
                retired.extend(about.is_file().then_some(path));
            }
        }
        Ok(retired)
    }
}

impl Software {
    /// Returns true if the path has the name of a file `*.pre-tpm` of a former software identity.
    fn was_ours(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some((name, number)) = name.rsplit_once(&format!(".{RETIRED}")) else {
            return false;
        };
        let number = number.strip_prefix('-').unwrap_or(match number {
            "" => "2",
            _ => "?",
        });
        number.parse::<usize>().is_ok_and(|number| number > 1) && self.has(&self.folder.join(name))
    }
}

impl Software {
    /// Returns the software identity, if there is one, and the CA certificates above it.
    pub(super) fn entries(&self) -> Result<Vec<TokenEntry>, IdentityError> {
        let (_, Some(public)) = self.halves()? else {
            return Ok(Vec::new());
        };
        let placed = |path: PathBuf, certificate: Certificate, label: String| CertificateEntry {
            id: certificate.key_id().as_bytes().to_vec(),
            certificate,
            label,
            place: path.display().to_string(),
            file: String::new(),
        };
        let certificate = self.certificate()?;
        let mine = certificate.filter(|one| one.public_key().as_ref() == Some(&public));
        let mine = mine.map(|one| placed(self.certificate_path(), one, OWN.into()));
        let mut found = vec![TokenEntry {
            token: SOFTWARE.into(),
            token_label: SOFTWARE.into(),
            label: OWN.into(),
            file: String::new(),
            id: public.id().as_bytes().to_vec(),
            key: None,
            secret: None,
            software: Some(self.key_path()),
            public: Some(public),
            origin: KeyOrigin::Generated,
            certificates: mine.into_iter().collect(),
            attests: false,
            protected: true,
        }];
        for (number, (path, ca)) in (1..).zip(self.ca_certificates()?) {
            let label = ca_label(OWN, number);
            add_certificate(placed(path, ca, label), (SOFTWARE, SOFTWARE), &mut found);
        }
        Ok(found)
    }
}

fn is_ca_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let label = name.strip_suffix(OF_CERTIFICATE);
    label.is_some_and(|label| is_ca_label_of(label, OWN))
}

fn there(path: &Path) -> Result<bool, IdentityError> {
    is_there(path).map_err(IdentityError::file(path))
}

pub(super) fn make_folder(folder: &Path) -> Result<(), IdentityError> {
    let made = DirBuilder::new().recursive(true).mode(0o750).create(folder);
    made.map_err(IdentityError::file(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_put_aside_and_pruned() {
        let state = tempfile::tempdir().unwrap();
        let software = Software::in_state(state.path());
        let key = || software.halves().unwrap().0;
        assert!(key().is_none());
        let made = software.make_key().unwrap();
        assert_eq!(key().unwrap().public(), made.public());
        let mode = std::fs::metadata(software.key_path())
            .unwrap()
            .permissions();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
            0o600
        );
        software.retire().unwrap();
        assert!(key().is_none());
        software.make_key().unwrap();
        software.retire().unwrap();
        assert_eq!(
            software.retired().unwrap().len(),
            2,
            "nothing is put over another"
        );
        software.prune().unwrap();
        assert!(software.retired().unwrap().is_empty());
    }

    #[test]
    fn a_file_that_is_no_key_is_said_and_left() {
        let state = tempfile::tempdir().unwrap();
        let software = Software::in_state(state.path());
        make_folder(&software.folder).unwrap();
        std::fs::write(software.key_path(), "not a key").unwrap();
        let fault = software.halves().err().unwrap();
        assert!(fault.text.contains("devid.key.pem"), "{fault}");
        assert!(software.key_path().exists());
    }
}
