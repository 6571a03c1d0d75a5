//! Files with certificates, and the folders of such files (`chain/`, `trust/`).

use super::certificate::Certificate;
use super::reading::ParsedCertificates;
use crate::file::{self, FileStamp};
use crate::trouble::{is_leftover, paths_in};
use crate::trust::{Distrust, distrusted};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// More bytes than any sane file of certificates has.
pub(crate) const LARGEST: u64 = 1 << 20;

/// How the name of a file ends that is read in a folder, in upper or lower case. A file of another
/// name was perhaps put out of use by it (`ca.pem.disabled`).
const ENDINGS: [&str; 4] = ["pem", "crt", "cer", "der"];

/// A file, and what it gave.
#[derive(Debug)]
pub(crate) struct CertificateFile {
    pub(crate) path: PathBuf,
    /// Of before the content was read, if it was.
    pub(crate) stamp: Option<FileStamp>,
    pub(crate) certificates: Result<Vec<Certificate>, CertificateFileError>,
    /// What the file holds beside its certificates, each in words that name it.
    pub(crate) beside: Vec<String>,
}

/// Why a file gives no certificate.
#[derive(Debug)]
pub(crate) enum CertificateFileError {
    /// Others may write it.
    Distrusted(Distrust),
    /// Its name does not end as that of a certificate's file.
    OtherName,
    /// It is a folder, and its name is not that of a certificate's file either.
    Folder,
    /// A symbolic link that leads to nothing.
    Dangling,
    /// What the system said.
    Failed(io::Error),
    /// What it holds instead.
    Nothing(String),
}

/// The paths in a folder, without what editors leave there; none if the folder is missing.
///
/// # Errors
///
/// The folder cannot be listed.
pub(crate) fn candidates(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = paths_in(folder)?;
    paths.retain(|path| !is_leftover(path));
    Ok(paths)
}

/// The certificate files of a folder, and what else is there, each with the reason why it gives
/// no certificate.
///
/// # Errors
///
/// The folder cannot be listed.
pub(crate) fn in_folder(folder: &Path) -> io::Result<Vec<CertificateFile>> {
    let paths = candidates(folder)?.into_iter();
    Ok(paths.map(CertificateFile::listed).collect())
}

impl CertificateFile {
    /// A file that was found in a folder: its name says whether it is read.
    pub(crate) fn listed(path: PathBuf) -> Self {
        let end = path.extension().unwrap_or_default();
        match ENDINGS.iter().any(|one| end.eq_ignore_ascii_case(one)) {
            true => Self::read(path),
            false if path.is_dir() => Self::unread(path, CertificateFileError::Folder),
            false => Self::unread(path, CertificateFileError::OtherName),
        }
    }

    /// A file that the administrator named, whatever its name.
    pub(crate) fn read(path: PathBuf) -> Self {
        let (bytes, stamp) = match file::read_stamped(&path, LARGEST) {
            Ok(read) => read,
            Err(error) => {
                let missing = error.kind() == io::ErrorKind::NotFound;
                return match missing && path.is_symlink() {
                    true => Self::unread(path, CertificateFileError::Dangling),
                    false => Self::unread(path, CertificateFileError::Failed(error)),
                };
            }
        };
        // After the reading, which tells what is no file: others may write /dev/null, too.
        if let Some(why) = distrusted(&path) {
            let unread = why
                .unread
                .map(|errno| CertificateFileError::Failed(errno.into()));
            return Self::unread(
                path,
                unread.unwrap_or(CertificateFileError::Distrusted(why)),
            );
        }
        let ParsedCertificates {
            certificates,
            unread,
            ..
        } = Certificate::read_all(&bytes);
        let (certificates, beside) = match certificates.is_empty() {
            true => (
                Err(CertificateFileError::Nothing(unread.join("; "))),
                Vec::new(),
            ),
            false => (Ok(certificates), unread),
        };
        Self {
            path,
            stamp: Some(stamp),
            certificates,
            beside,
        }
    }

    fn unread(path: PathBuf, why: CertificateFileError) -> Self {
        Self {
            path,
            stamp: None,
            certificates: Err(why),
            beside: Vec::new(),
        }
    }

    /// What of this file is left out, each as a sentence that names it.
    pub(crate) fn left_out(&self) -> Vec<String> {
        let path = self.path.display();
        match &self.certificates {
            Ok(_) => {
                let beside = self.beside.iter();
                beside
                    .map(|what| format!("{path}: beside a certificate: {what}"))
                    .collect()
            }
            Err(CertificateFileError::Distrusted(why)) => {
                vec![format!("{why}, so {path} is not read")]
            }
            Err(why) => vec![format!("{path}: {why}")],
        }
    }
}

impl fmt::Display for CertificateFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Distrusted(why) => why.fmt(f),
            Self::OtherName => {
                f.write_str("not read, since its name does not end in .pem, .crt, .cer or .der")
            }
            Self::Folder => f.write_str("a folder, in which nothing is read"),
            Self::Dangling => f.write_str("a symbolic link that leads nowhere"),
            Self::Failed(error) => error.fmt(f),
            Self::Nothing(what) => f.write_str(what),
        }
    }
}
