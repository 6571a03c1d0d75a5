//! Files of the factory identity outside the TPM: certificates that `[[identity]]` names,
//! certificates in the `chain/` folder, and files with authorisation values. The stamps of the
//! files tell whether a file changed.

use crate::config::{IdentityAuth, IdentityHint, SecretSource};
use crate::trouble::{Sight, Troubles, trouble};
use crate::trust::{Distrust, distrusted};
use crate::x509::Certificate;
use crate::x509::files::{CertificateFile, CertificateFileError, LARGEST, candidates};
use log::warn;
use parking_lot::Mutex;
use rustix::io::Errno;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The files from `chain/`, `[[identity]]` and the owner, with the certificates of the last
/// reading.
#[derive(Debug)]
pub(super) struct Files {
    chain: PathBuf,
    hinted: Vec<PathBuf>,
    /// The file with the certificates of the owner, which may be missing. `None` if this store does
    /// not show them.
    owner: Option<Box<Path>>,
    /// Files whose content does not matter for a scan. A change of such a file starts a new scan.
    others: Vec<PathBuf>,
    /// The certificates of each file at the last reading. The mutex is locked only briefly.
    known: Mutex<HashMap<PathBuf, Vec<Certificate>>>,
    troubles: Troubles,
}

/// The stamps of all files on which a scan depends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilesStamp {
    files: Vec<(PathBuf, Sight)>,
    /// The error of the system if the folder `chain/` could not be listed.
    unlisted: Option<Errno>,
}

/// The certificates that were read from the files, with the stamp of the files.
#[derive(Debug)]
pub(super) struct FilesRead {
    pub(super) hinted: Vec<(PathBuf, Vec<Certificate>)>,
    pub(super) chain: Vec<(PathBuf, Vec<Certificate>)>,
    /// The certificates that the device's owner issued for factory keys.
    pub(super) owner: Vec<Certificate>,
    pub(super) stamp: FilesStamp,
    /// The error of the first file that could not be read, neither now nor earlier. Covers the
    /// files of `[[identity]]` and the file of the owner.
    pub(super) unread: Option<String>,
}

impl Files {
    pub(super) fn new(
        chain: PathBuf,
        generation: PathBuf,
        owner: Option<Box<Path>>,
        hints: &[IdentityHint],
    ) -> Self {
        let secret = |hint: &IdentityHint| match &hint.auth {
            Some(IdentityAuth::Secret(source)) => source.path().ok()?,
            Some(IdentityAuth::Pin) | None => None,
        };
        let others = [generation, chain.clone()];
        Self {
            hinted: hints
                .iter()
                .filter_map(|hint| hint.certificate.clone())
                .collect(),
            others: others
                .into_iter()
                .chain(hints.iter().filter_map(secret))
                .collect(),
            chain,
            owner,
            known: Mutex::default(),
            troubles: Troubles::default(),
        }
    }

    /// Returns a copy for a forked child. The child needs a new mutex, because a thread of the
    /// parent may have held the old mutex.
    pub(super) fn for_child(&self) -> Self {
        let known = self.known.try_lock().map(|known| known.clone());
        Self {
            chain: self.chain.clone(),
            hinted: self.hinted.clone(),
            owner: self.owner.clone(),
            others: self.others.clone(),
            known: Mutex::new(known.unwrap_or_default()),
            troubles: self.troubles.for_child(),
        }
    }

    /// Returns the file with the certificates of the owner, if this store shows them.
    pub(super) fn owner(&self) -> Option<&Path> {
        self.owner.as_deref()
    }

    /// Returns the current stamps. Reads only files that could not be read before.
    pub(super) fn stamp(&self) -> FilesStamp {
        let (chain, unlisted) = self.chain_paths();
        let all = self.others.iter().map(PathBuf::as_path).chain(self.owner());
        let all = all.chain(self.hinted.iter().chain(&chain).map(PathBuf::as_path));
        let sight = |path: &Path| (path.to_owned(), self.troubles.sight(path, LARGEST));
        FilesStamp {
            files: all.map(sight).collect(),
            unlisted,
        }
    }

    /// Reads all certificates. If a file cannot be read at present, uses the content of an earlier
    /// reading.
    pub(super) fn read(&self) -> FilesRead {
        let (chain_paths, unlisted) = self.chain_paths();
        let before = std::mem::take(&mut *self.known.lock());
        let sight = |path: &PathBuf| (path.clone(), self.troubles.sight(path, LARGEST));
        let mut stamp = FilesStamp {
            files: self.others.iter().map(sight).collect(),
            unlisted,
        };
        let owner = self.owner().map(Path::to_owned).filter(|path| {
            let is_there = Sight::of(path) != Sight::Missing;
            if !is_there {
                stamp.files.push((path.clone(), Sight::Missing));
            }
            is_there
        });
        let mut known = HashMap::new();
        let mut read = |file: CertificateFile| {
            let path = file.path.clone();
            let (sight, here) = self.certificates_of(file);
            stamp.files.push((path.clone(), sight));
            let here = here.or_else(|| before.get(&path).cloned());
            if let Some(here) = &here {
                known.insert(path.clone(), here.clone());
            }
            (path, here)
        };
        let owner = owner.map(CertificateFile::read).map(&mut read);
        let hinted = self.hinted.iter().cloned().map(CertificateFile::read);
        let hinted: Vec<_> = hinted.map(&mut read).collect();
        let chain: Vec<_> = match distrusted(&self.chain) {
            None => {
                let files = chain_paths.into_iter().map(CertificateFile::listed);
                files.map(&mut read).collect()
            }
            Some(Distrust {
                unread: Some(errno),
                ..
            }) => {
                self.troubles.note(&self.chain, errno);
                stamp.unlisted = Some(errno);
                let as_before = |path: &PathBuf| {
                    let here = before.get(path)?;
                    known.insert(path.clone(), here.clone());
                    Some((path.clone(), Some(here.clone())))
                };
                chain_paths.iter().filter_map(as_before).collect()
            }
            Some(why) => {
                warn!(
                    "{why}, so the certificates in {} are not used",
                    self.chain.display()
                );
                stamp.files.extend(chain_paths.iter().map(sight));
                Vec::new()
            }
        };
        *self.known.lock() = known;
        self.troubles.keep(|path| {
            let unlisted = stamp.unlisted.is_some() && path == self.chain;
            let mut files = stamp.files.iter();
            unlisted || files.any(|(one, sight)| one == path && sight.trouble().is_some())
        });
        let unread = hinted.iter().chain(&owner).find(|(_, here)| here.is_none());
        let or_none = |(path, here): (PathBuf, Option<Vec<_>>)| (path, here.unwrap_or_default());
        FilesRead {
            unread: unread
                .map(|(path, _)| format!("{}: the file could not be read", path.display())),
            hinted: hinted.into_iter().map(or_none).collect(),
            chain: chain.into_iter().map(or_none).collect(),
            owner: owner.and_then(|(_, here)| here).unwrap_or_default(),
            stamp,
        }
    }

    /// Records that the file of an authorisation value could not be read. A new scan follows when
    /// the file is readable or has changed.
    pub(super) fn note_secret(&self, source: &SecretSource, error: &std::io::Error) {
        let path = source.path().ok().flatten();
        match path.zip(trouble(error)) {
            Some((path, errno)) => self.troubles.note(&path, errno),
            None => warn!("[[identity]] auth {source:?}: {error}"),
        }
    }

    /// Records in the stamp which files of authorisation values the scan could not read.
    pub(super) fn amend(&self, stamp: &mut FilesStamp) {
        for (path, sight) in &mut stamp.files {
            if let Some(errno) = self.troubles.with(path) {
                *sight = Sight::Unread(errno);
            }
        }
    }

    /// Returns the certificates in a file, or `None` if the file cannot be read at present. Logs
    /// the parts of the file that are ignored.
    fn certificates_of(&self, file: CertificateFile) -> (Sight, Option<Vec<Certificate>>) {
        let path = &file.path;
        if let Err(CertificateFileError::Failed(error)) = &file.certificates
            && let Some(errno) = trouble(error)
        {
            self.troubles.note(path, errno);
            return (Sight::Unread(errno), None);
        }
        for what in file.left_out() {
            warn!("{what}");
        }
        let sight = file.stamp.map_or_else(|| Sight::of(path), Sight::There);
        (sight, Some(file.certificates.unwrap_or_default()))
    }

    /// Returns the paths of the files in the `chain/` folder. The folder may be missing. If the
    /// folder cannot be listed, returns the known paths and the error.
    fn chain_paths(&self) -> (Vec<PathBuf>, Option<Errno>) {
        match candidates(&self.chain) {
            Ok(paths) => (paths, None),
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                self.troubles.note(&self.chain, errno);
                let known = self.known.lock();
                let mut paths: Vec<_> = known.keys().cloned().collect();
                paths.retain(|path| path.parent() == Some(&self.chain));
                paths.sort();
                (paths, Some(errno))
            }
        }
    }
}

/// Returns the certificates in a file, or the reason why it gives none.
pub(crate) fn certificates_in(path: &Path) -> Result<Vec<Certificate>, String> {
    let read = CertificateFile::read(path.to_owned());
    read.certificates.map_err(|why| why.to_string())
}
