//! Stand-in: the key folder comes from its own branch.
mod entry;
pub use entry::*;
use std::path::PathBuf;
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);
impl Folder {
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }
}
/// Why the folder did not take or give something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderError {
    /// The file system is mounted read-only.
    ReadOnly,
    /// No permission.
    Permission(String),
    /// No space left.
    NoSpace,
    /// The object is gone.
    Gone,
    /// The file is damaged.
    Damaged(String),
    /// Another process keeps the folder locked.
    Locked,
    /// Anything else.
    Io(String),
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tss2Key;
