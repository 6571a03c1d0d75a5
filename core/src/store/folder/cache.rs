//! The results of the last listing of the folder.

use super::Entry;
use crate::file::FileStamp;
use crate::trust::Owned;
use rustix::io::Errno;
use std::collections::HashMap;
use std::sync::Arc;

/// A file that gives no object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct RefusedFile {
    /// Its name.
    pub file: String,
    /// The reason.
    pub why: String,
    /// True if the content is at fault, false if ownership or permissions are.
    pub by_content: bool,
}

/// The files of the last listing.
#[derive(Debug, Default)]
pub(super) struct FolderCache {
    /// The owner and mode of the folder when its files were judged.
    pub(super) folder: Option<Owned>,
    pub(super) files: HashMap<String, CachedFile>,
    pub(super) left_out: Vec<String>,
}

/// The state of a file at the last listing.
#[derive(Debug, Clone)]
pub(super) struct CachedFile {
    /// `None` if stat failed.
    pub(super) stamp: Option<FileStamp>,
    /// True if every later change would give another stamp.
    pub(super) settled: bool,
    pub(super) found: Result<Arc<Entry>, RefusedFile>,
    /// The reason if the file could not be read now; `found` is then the earlier result.
    pub(super) trouble: Option<Errno>,
}

impl CachedFile {
    /// The entry for a file that cannot be read now: the earlier result if there is one.
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
