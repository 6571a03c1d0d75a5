//! The software identity: a key in a file, for a device without TPM, where the configuration allows
//! it. Two files in `<state>/software`, which a `[[token]]` with `allow_file_keys` shows; when the device moved to its TPM they stay as `*.pre-tpm`
//! until somebody prunes them.

use super::Fault;
use super::verify::certificates_of;
use crate::certificate::Certificate;
use crate::file;
use crate::key::{Curve, PublicKey};
use getrandom::SysRng;
use getrandom::rand_core::TryRng;
use p256::SecretKey;
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const KEY: &str = "devid.key.pem";
const CERTIFICATE: &str = "devid.cert.pem";
/// As in a key folder, so that a token of the configuration can show both under one label.
const LABEL: &[u8] = b"Label: devid\n";
const RETIRED: &str = "pre-tpm";
/// More bytes than a key file has.
const LARGEST: u64 = 16 << 10;

/// The folder of the software identity.
#[derive(Debug)]
pub(super) struct Software {
    folder: PathBuf,
}

/// A key in a file.
pub(super) struct SoftwareKey {
    pub(super) secret: SecretKey,
    pub(super) public: PublicKey,
}

impl Software {
    pub(super) fn of(state: &Path) -> Self {
        Self {
            folder: state.join("software"),
        }
    }

    /// The key's file.
    pub(super) fn key_path(&self) -> PathBuf {
        self.folder.join(KEY)
    }

    /// The certificate's file.
    pub(super) fn certificate_path(&self) -> PathBuf {
        self.folder.join(CERTIFICATE)
    }

    /// `None` if there is none.
    ///
    /// # Errors
    ///
    /// There is a file that holds no key of a kind that is known here.
    pub(super) fn key(&self) -> Result<Option<SoftwareKey>, Fault> {
        let path = self.key_path();
        if !is_there(&path)? {
            return Ok(None);
        }
        SoftwareKey::read(&path).map(Some)
    }

    /// The public half of a key that this user may not read, as the certificate beside it has it.
    pub(super) fn hidden(&self) -> Result<Option<PublicKey>, Fault> {
        match file::read(&self.key_path(), LARGEST) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                Ok(self.certificate()?.and_then(|one| one.public_key()))
            }
            _ => Ok(None),
        }
    }

    /// The public half of the key; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As of [`Self::key`], unless the certificate tells it.
    pub(super) fn public(&self) -> Result<Option<PublicKey>, Fault> {
        match self.hidden()? {
            Some(public) => Ok(Some(public)),
            None => Ok(self.key()?.map(|key| key.public)),
        }
    }

    /// `None` if there is none.
    pub(super) fn certificate(&self) -> Result<Option<Certificate>, Fault> {
        let path = self.certificate_path();
        if !is_there(&path)? {
            return Ok(None);
        }
        Ok(certificates_of(&path)?.into_iter().next())
    }

    /// Makes a key, and keeps it.
    pub(super) fn make_key(&self) -> Result<SoftwareKey, Fault> {
        let key = SoftwareKey::random()?;
        let pem = key.secret.to_pkcs8_pem(LineEnding::LF);
        let pem = pem.map_err(|error| Fault::failed(format!("software key: {error}")))?;
        make_folder(&self.folder)?;
        let path = self.key_path();
        let pem = Zeroizing::new([LABEL, pem.as_bytes()].concat());
        file::write(&path, &pem, 0o600).map_err(Fault::file(&path))?;
        Ok(key)
    }

    /// Keeps the certificate.
    pub(super) fn keep(&self, certificate: &Certificate) -> Result<(), Fault> {
        let path = self.certificate_path();
        let pem = [LABEL, certificate.pem().as_bytes()].concat();
        file::write(&path, &pem, 0o644).map_err(Fault::file(&path))
    }

    /// Puts both files aside. Nothing that was put aside before is lost.
    pub(super) fn retire(&self) -> Result<(), Fault> {
        // The key last: without it a certificate would be one for a key that is not here.
        for path in [self.certificate_path(), self.key_path()] {
            if is_there(&path)? {
                let aside = free_name(&path);
                file::rename(&path, &aside).map_err(Fault::file(&path))?;
            }
        }
        Ok(())
    }

    /// Deletes both files, and those that were put aside.
    pub(super) fn delete(&self) -> Result<(), Fault> {
        for path in [self.certificate_path(), self.key_path()] {
            file::remove(&path).map_err(Fault::file(&path))?;
        }
        self.prune().map(drop)
    }

    /// Deletes what was put aside; gives the names.
    pub(super) fn prune(&self) -> Result<Vec<PathBuf>, Fault> {
        let retired = self.retired();
        for path in &retired {
            file::remove(path).map_err(Fault::file(path))?;
        }
        Ok(retired)
    }

    /// What was put aside.
    pub(super) fn retired(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten();
        let paths = entries.flatten().map(|entry| entry.path());
        let is_retired = |path: &PathBuf| path.to_string_lossy().contains(&format!(".{RETIRED}"));
        let mut retired: Vec<PathBuf> = paths.filter(is_retired).collect();
        retired.sort();
        retired
    }
}

impl SoftwareKey {
    /// From a PKCS#8 file.
    pub(super) fn read(path: &Path) -> Result<Self, Fault> {
        let bytes = file::read(path, LARGEST).map_err(Fault::file(path))?;
        let bytes = Zeroizing::new(bytes);
        let text = str::from_utf8(&bytes).unwrap_or_default();
        let secret = SecretKey::from_pkcs8_pem(text).map_err(|error| {
            Fault::failed(format!(
                "{}: no private key of a kind that is known here (PKCS#8, P-256): {error}",
                path.display()
            ))
        })?;
        Self::of(secret)
    }

    fn random() -> Result<Self, Fault> {
        let mut bytes = Zeroizing::new([0; 32]);
        loop {
            let drawn = SysRng.try_fill_bytes(&mut *bytes);
            drawn.map_err(|error| Fault::failed(format!("no random bytes: {error}")))?;
            // All but one in 2^32 are a scalar of the curve.
            if let Ok(secret) = SecretKey::from_slice(&*bytes) {
                return Self::of(secret);
            }
        }
    }

    fn of(secret: SecretKey) -> Result<Self, Fault> {
        let point = secret.public_key().to_sec1_point(false);
        let public = PublicKey::from_point(Curve::P256, point.as_bytes());
        let public = public.ok_or_else(|| Fault::failed("no point of the curve"))?;
        Ok(Self { secret, public })
    }
}

fn is_there(path: &Path) -> Result<bool, Fault> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Fault::file(path)(error)),
    }
}

fn free_name(path: &Path) -> PathBuf {
    let named = |number: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{RETIRED}"));
        if number > 1 {
            name.push(format!("-{number}"));
        }
        PathBuf::from(name)
    };
    let mut names = (1..).map(named);
    names
        .find(|name| !name.exists())
        .unwrap_or_else(|| named(1))
}

pub(super) fn make_folder(folder: &Path) -> Result<(), Fault> {
    let made = DirBuilder::new().recursive(true).mode(0o750).create(folder);
    made.map_err(Fault::file(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_put_aside_and_pruned() {
        let state = tempfile::tempdir().unwrap();
        let software = Software::of(state.path());
        assert!(software.key().unwrap().is_none());
        let made = software.make_key().unwrap();
        assert_eq!(software.key().unwrap().unwrap().public, made.public);
        let mode = std::fs::metadata(software.key_path())
            .unwrap()
            .permissions();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
            0o600
        );
        software.retire().unwrap();
        assert!(software.key().unwrap().is_none());
        software.make_key().unwrap();
        software.retire().unwrap();
        assert_eq!(software.retired().len(), 2, "nothing is put over another");
        software.prune().unwrap();
        assert!(software.retired().is_empty());
    }

    #[test]
    fn a_file_that_is_no_key_is_said_and_left() {
        let state = tempfile::tempdir().unwrap();
        let software = Software::of(state.path());
        make_folder(&software.folder).unwrap();
        std::fs::write(software.key_path(), "not a key").unwrap();
        let fault = software.key().err().unwrap();
        assert!(fault.text.contains("devid.key.pem"), "{fault}");
        assert!(software.key_path().exists());
    }
}
