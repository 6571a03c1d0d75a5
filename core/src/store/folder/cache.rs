//! What the last listing of the folder found.

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
    /// Why it gives none.
    pub why: String,
    /// True if its content is at fault, not who may read or change it.
    pub by_content: bool,
}

/// The files of the last listing.
#[derive(Debug, Default)]
pub(super) struct FolderCache {
    /// The folder as it was when its files were judged.
    pub(super) folder: Option<Owned>,
    pub(super) files: HashMap<String, CachedFile>,
    pub(super) left_out: Vec<String>,
}

/// What a file was at the last listing.
#[derive(Debug, Clone)]
pub(super) struct CachedFile {
    /// `None` if it could not be had.
    pub(super) stamp: Option<FileStamp>,
    /// True if it must have another stamp if it is now another.
    pub(super) settled: bool,
    pub(super) found: Result<Arc<Entry>, RefusedFile>,
    /// Why it could not be read now, if so; then what is found is of before.
    pub(super) trouble: Option<Errno>,
}

impl CachedFile {
    /// A file that cannot be read now: as it was earlier, if it was read then.
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
