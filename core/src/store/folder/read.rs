//! Reading the folder: what is in it, and what a file gives.

use super::cache::{CachedFile, RefusedFile};
use super::format::{self, Remarks};
use super::names::{file_name, is_object, object_name};
use super::{Entry, EntryContent, FolderError, KeyMaterial};
use crate::file::{self, FileStamp};
use crate::trouble::trouble;
use crate::trust::Owned;
use log::warn;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, fstat, open, statat};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::geteuid;
use std::ffi::CString;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The folder, open.
pub(super) struct OpenFolder<'a> {
    pub(super) path: &'a Path,
    pub(super) fd: OwnedFd,
    pub(super) owned: Owned,
    pub(super) stamp: FileStamp,
}

/// What is in the folder.
#[derive(Default)]
pub(super) struct Names {
    /// Of all that should be an object.
    pub(super) objects: Vec<CString>,
    /// Of all else, also of files that the module itself keeps there.
    pub(super) others: Vec<String>,
}

/// Why a file gives no object.
pub(super) enum ReadError {
    /// It is no more there.
    Gone,
    /// Its content, which stays the same until its stamp changes.
    Damaged(String),
    Untrusted(String),
    /// What the system said; another time it may say something else.
    Failed(io::Error),
}

impl<'a> OpenFolder<'a> {
    /// `None` if there is none.
    pub(super) fn at(path: &'a Path) -> Result<Option<Self>, FolderError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match retry_on_intr(|| open(path, flags, Mode::empty())) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(FolderError::at(path))?,
        };
        let about = retry_on_intr(|| fstat(&fd)).map_err(FolderError::at(path))?;
        let owned = Owned::from(&about);
        owned.as_folder().map_err(|reason| FolderError::Unsafe {
            path: path.into(),
            reason,
        })?;
        Ok(Some(Self {
            path,
            fd,
            owned,
            stamp: FileStamp::from(&about),
        }))
    }

    /// The names of all that is in the folder.
    pub(super) fn names(&self) -> rustix::io::Result<Names> {
        let mut names = Names::default();
        for name in file::names(&self.fd)? {
            match is_object(name.to_bytes()) {
                true => names.objects.push(name),
                false => names.others.push(name.to_string_lossy().into_owned()),
            }
        }
        Ok(names)
    }

    /// `None` if it is no more there.
    pub(super) fn file_stamp(&self, name: &CString) -> rustix::io::Result<Option<FileStamp>> {
        match retry_on_intr(|| statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)) {
            Ok(about) => Ok(Some(FileStamp::from(&about))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Reads a file; `earlier` is what it was before. `None` if it is no more there.
    ///
    /// # Errors
    ///
    /// It cannot be read for want of something that this whole process lacks: no object may seem
    /// to be gone because of that.
    pub(super) fn look_at(
        &self,
        file: &str,
        stamp: FileStamp,
        settled: bool,
        earlier: Option<&CachedFile>,
    ) -> Result<Option<CachedFile>, FolderError> {
        let refused = |why: String, by_content| {
            Err(RefusedFile {
                file: file.into(),
                why,
                by_content,
            })
        };
        let (found, lasting) = match self.read(object_name(file)) {
            Ok((entry, _)) => match earlier.map(|seen| &seen.found) {
                Some(Ok(same)) if **same == entry => (Ok(Arc::clone(same)), true),
                _ => (Ok(Arc::new(entry)), true),
            },
            Err(ReadError::Gone) if file.contains(char::REPLACEMENT_CHARACTER) => {
                (refused("its name is not UTF-8".into(), false), true)
            }
            Err(ReadError::Gone) => return Ok(None),
            Err(ReadError::Damaged(why)) => (refused(why, true), true),
            Err(ReadError::Untrusted(why)) => (refused(why, false), false),
            Err(ReadError::Failed(error)) => match trouble(&error) {
                Some(errno) => {
                    // Who changed a file may have taken the right to read it away.
                    let taken_away = errno == Errno::ACCESS;
                    let same = |seen: &&CachedFile| seen.stamp == Some(stamp) || !taken_away;
                    let same = earlier.filter(same);
                    let hidden = CachedFile::hidden(file, same, Some(stamp), errno);
                    let exhausted = matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM);
                    return match exhausted && hidden.found.is_err() {
                        true => Err(FolderError::at(&self.path.join(file))(errno)),
                        false => Ok(Some(hidden)),
                    };
                }
                None => (refused(error.to_string(), false), false),
            },
        };
        let stamp = Some(stamp);
        let seen = CachedFile {
            stamp,
            settled: settled && lasting,
            found,
            trouble: None,
        };
        if let Err(why) = &seen.found
            && earlier.is_none_or(|earlier| earlier.stamp != stamp || earlier.found != seen.found)
        {
            let folder = self.path.display();
            warn!("{folder}: {file:?} gives no object: {}", why.why);
        }
        Ok(Some(seen))
    }

    /// Why a file cannot be read now, if so.
    pub(super) fn trouble_with(&self, file: &str) -> Option<Errno> {
        let read = file::read_in(&self.fd, file, format::LARGEST);
        read.err().as_ref().and_then(trouble)
    }

    /// An object and what else its file holds.
    pub(super) fn read(&self, name: &str) -> Result<(Entry, Remarks), ReadError> {
        let (content, owned) = self.judged(&file_name(name))?;
        let (content, remarks) = format::parse(name, &content).map_err(ReadError::Damaged)?;
        if let EntryContent::Pair(pair) = &content
            && matches!(pair.material, KeyMaterial::Clear(_))
        {
            owned.as_secret().map_err(ReadError::Untrusted)?;
        }
        let name = name.into();
        Ok((Entry { name, content }, remarks))
    }

    pub(super) fn trusted(&self, file: &str) -> Result<Vec<u8>, ReadError> {
        self.judged(file).map(|(content, _)| content)
    }

    fn judged(&self, file: &str) -> Result<(Vec<u8>, Owned), ReadError> {
        let (content, about) =
            file::read_in(&self.fd, file, format::LARGEST).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => ReadError::Gone,
                _ => ReadError::Failed(error),
            })?;
        let owned = Owned::from(&about);
        let judged = owned.as_file_in(self.owned, geteuid());
        judged.map_err(|why| match why.unread {
            Some(errno) => ReadError::Failed(errno.into()),
            None => ReadError::Untrusted(why.to_string()),
        })?;
        Ok((content, owned))
    }
}
