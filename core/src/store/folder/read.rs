//! Reads the key folder and its files.

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

/// The key folder with an open descriptor.
pub(super) struct OpenFolder<'a> {
    pub(super) path: &'a Path,
    pub(super) fd: OwnedFd,
    pub(super) owned: Owned,
    pub(super) stamp: FileStamp,
}

/// The names of the files in the folder.
#[derive(Default)]
pub(super) struct Names {
    /// The names of objects: the file names without `.pem`.
    pub(super) objects: Vec<CString>,
    /// All other file names, including the hidden files of this project.
    pub(super) others: Vec<String>,
}

/// The reason why a file holds no valid object.
pub(super) enum ReadError {
    /// The file does not exist any more.
    Gone,
    /// The content is invalid. The result is final until the stamp of the file changes.
    Damaged(String),
    Untrusted(String),
    /// A system call failed. The cause may be temporary.
    Failed(io::Error),
}

impl<'a> OpenFolder<'a> {
    /// Opens the folder. Returns `None` if the folder does not exist.
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

    /// Returns the names of all files in the folder.
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

    /// Returns the stamp of a file, or `None` if the file does not exist any more.
    pub(super) fn file_stamp(&self, name: &CString) -> rustix::io::Result<Option<FileStamp>> {
        match retry_on_intr(|| statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)) {
            Ok(about) => Ok(Some(FileStamp::from(&about))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Reads a file. `earlier` is the result of the last reading. Returns `None` if the file does
    /// not exist any more.
    ///
    /// # Errors
    ///
    /// Fails if the process lacks a resource (descriptors or memory). Otherwise an existing object
    /// would seem to be missing.
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
                (refused("the file name is not UTF-8".into(), false), true)
            }
            Err(ReadError::Gone) => return Ok(None),
            Err(ReadError::Damaged(why)) => (refused(why, true), true),
            Err(ReadError::Untrusted(why)) => (refused(why, false), false),
            Err(ReadError::Failed(error)) => match trouble(&error) {
                Some(errno) => {
                    // If a change of the file removed the read permission, the earlier object is
                    // not listed.
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
            warn!("{folder}: {file:?} holds no valid object: {}", why.why);
        }
        Ok(Some(seen))
    }

    /// Returns the reason why a file cannot be read at present, if any.
    pub(super) fn trouble_with(&self, file: &str) -> Option<Errno> {
        let read = file::read_in(&self.fd, file, format::LARGEST);
        read.err().as_ref().and_then(trouble)
    }

    /// Reads an object, and the lines of its file that do not describe the object.
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
