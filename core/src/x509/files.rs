//! Certificate files, and folders of such files (`chain/`, `trust/`).

use super::certificate::Certificate;
use super::reading::ParsedCertificates;
use crate::file::{self, FileStamp};
use crate::trouble::{is_leftover, paths_in};
use crate::trust::{Distrust, distrusted};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The maximum size of a certificate file. Usual certificate files are much smaller.
pub(crate) const LARGEST: u64 = 1 << 20;

/// The file name extensions that are read in a folder, in upper or lower case. An administrator can
/// disable a file by another extension (`ca.pem.disabled`).
const ENDINGS: [&str; 4] = ["pem", "crt", "cer", "der"];

/// A file of `chain/` or `trust/`, with its certificates or the reason why it has none.
#[derive(Debug)]
pub(crate) struct CertificateFile {
    pub(crate) path: PathBuf,
    /// The stamp of the file (for detecting changes) before its content was read; `None` if the
    /// file was not read.
    pub(crate) stamp: Option<FileStamp>,
    pub(crate) certificates: Result<Vec<Certificate>, CertificateFileError>,
    /// Descriptions of the contents of the file that are not certificates.
    pub(crate) beside: Vec<String>,
}

/// The reason why a file in `chain/` or `trust/` gives no certificate.
#[derive(Debug)]
pub(crate) enum CertificateFileError {
    /// Other users may write to the file.
    Distrusted(Distrust),
    /// The name of the file does not end in .pem, .crt, .cer or .der.
    OtherName,
    /// The path is a folder whose name does not end in .pem, .crt, .cer or .der.
    Folder,
    /// The path is a symbolic link to a missing file.
    Dangling,
    /// The system returned an error when the file was read.
    Failed(io::Error),
    /// The file contains no certificate. The text describes the content.
    Nothing(String),
}

/// Returns the paths in a folder, without backup files of editors. A missing folder counts as
/// empty.
///
/// # Errors
///
/// Fails if the folder cannot be listed.
pub(crate) fn candidates(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = paths_in(folder)?;
    paths.retain(|path| !is_leftover(path));
    Ok(paths)
}

/// Reads the certificate files of a folder. Also returns other files, with the reason why they give
/// no certificate.
///
/// # Errors
///
/// Fails if the folder cannot be listed.
pub(crate) fn in_folder(folder: &Path) -> io::Result<Vec<CertificateFile>> {
    let paths = candidates(folder)?.into_iter();
    Ok(paths.map(CertificateFile::listed).collect())
}

impl CertificateFile {
    /// Reads a certificate file of a folder, if the file name ends in .pem, .crt, .cer or .der.
    pub(crate) fn listed(path: PathBuf) -> Self {
        let end = path.extension().unwrap_or_default();
        match ENDINGS.iter().any(|one| end.eq_ignore_ascii_case(one)) {
            true => Self::read(path),
            false if path.is_dir() => Self::unread(path, CertificateFileError::Folder),
            false => Self::unread(path, CertificateFileError::OtherName),
        }
    }

    /// Reads a file that the administrator named. The name of the file may have any extension.
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
        // The owner and mode of the file are checked after reading, because reading rejects special
        // files. For example, all users may write to /dev/null.
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

    /// Returns a warning for each content of the file that is not a certificate, and is therefore
    /// ignored.
    pub(crate) fn left_out(&self) -> Vec<String> {
        let path = self.path.display();
        match &self.certificates {
            Ok(_) => {
                let beside = self.beside.iter();
                beside
                    .map(|what| format!("{path}: in addition to a certificate: {what}"))
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
            Self::OtherName => f.write_str(
                "the file is not read, because its name does not end in .pem, .crt, .cer or .der",
            ),
            Self::Folder => f.write_str("a folder, whose files are not read"),
            Self::Dangling => f.write_str("a symbolic link to a missing file"),
            Self::Failed(error) => error.fmt(f),
            Self::Nothing(what) => f.write_str(what),
        }
    }
}
