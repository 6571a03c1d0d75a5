//! The results of the last listing of the key folder, kept in memory.

use super::Entry;
use crate::file::FileStamp;
use crate::trust::Owned;
use rustix::io::Errno;
use std::collections::HashMap;
use std::sync::Arc;

/// A file that holds no valid object, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct RefusedFile {
    /// The name of the file.
    pub file: String,
    /// The reason why the file holds no valid object.
    pub why: String,
    /// True if the content of the file is wrong. False if its owner, its permissions or an error of
    /// the system is the reason.
    pub by_content: bool,
}

/// The files that the last listing of the key folder found.
#[derive(Debug, Default)]
pub(super) struct FolderCache {
    /// The owner and mode of the folder at the time when its files were checked.
    pub(super) folder: Option<Owned>,
    pub(super) files: HashMap<String, CachedFile>,
    pub(super) left_out: Vec<String>,
}

/// A file of the key folder at the time of the last listing.
#[derive(Debug, Clone)]
pub(super) struct CachedFile {
    /// The result of stat(2); `None` if stat(2) failed.
    pub(super) stamp: Option<FileStamp>,
    /// True if every later change of the file changes its stamp (size, inode or times).
    pub(super) settled: bool,
    pub(super) found: Result<Arc<Entry>, RefusedFile>,
    /// The reason why the file cannot be read at present, if any. In this case `found` holds the
    /// result of an earlier reading.
    pub(super) trouble: Option<Errno>,
}

impl CachedFile {
    /// Returns the entry for a file that cannot be read at present. Uses the object of an earlier
    /// reading, if there was one.
    pub(super) fn hidden(
        file: &str,
        earlier: Option<&Self>,
        stamp: Option<FileStamp>,
        errno: Errno,
    ) -> Self {
        let found = earlier.and_then(|earlier| earlier.found.as_ref().ok());
        Self {
            stamp,
            settled: false,
            found: found.cloned().ok_or_else(|| RefusedFile {
                file: file.to_owned(),
                why: errno.to_string(),
                by_content: false,
            }),
            trouble: Some(errno),
        }
    }
}
