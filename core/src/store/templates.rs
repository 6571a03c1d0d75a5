//! Remembers templates of primary keys. A file in /run/devid-pkcs11 is a hint for other processes,
//! and the certificate always confirms the hint. Keys that this process could not derive are
//! remembered too.

use crate::file;
use crate::key::{KeyId, PublicKey, from_hex, hex};
use crate::trouble::trouble;
use log::{debug, warn};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

/// The largest size of a hint file in bytes, at least twice the size of any template.
const LARGEST: u64 = 4096;

/// The folder of the template files, and the keys that no template derives. Clones share both.
#[derive(Debug, Clone)]
pub(super) struct Templates {
    folder: PathBuf,
    /// The mutex is locked only briefly. A thread that finds the mutex locked continues without
    /// this memory.
    given_up: Arc<Mutex<HashSet<KeyId>>>,
}

impl Templates {
    /// Creates the [`Templates`] for this folder. The folder may be missing or read-only.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            given_up: Arc::default(),
        }
    }

    /// Returns a copy for a forked child, which does not share the memory of its parent.
    pub(super) fn for_child(&self) -> Self {
        let known = self.given_up.try_lock().map(|known| known.clone());
        Self {
            folder: self.folder.clone(),
            given_up: Arc::new(Mutex::new(known.unwrap_or_default())),
        }
    }

    /// Returns the template that gave this key before, in this or another process.
    pub(super) fn remembered(&self, public: &PublicKey) -> Option<Vec<u8>> {
        let path = self.path(public);
        let read = file::read(&path, LARGEST).inspect_err(|error| {
            if trouble(error).is_some() {
                warn!(
                    "{}: {error}; the search tries all templates",
                    path.display()
                );
            }
        });
        let text = String::from_utf8(read.ok()?).ok()?;
        let digits = Some(text.trim()).filter(|digits| !digits.is_empty())?;
        from_hex(digits)
    }

    /// Stores the template as a hint. Ignores errors, because the search without the hint only
    /// takes longer.
    pub(super) fn remember(&self, public: &PublicKey, template: &[u8]) {
        let path = self.path(public);
        if self.remembered(public).as_deref() == Some(template) {
            return;
        }
        let written = std::fs::create_dir_all(&self.folder)
            .and_then(|()| file::write(&path, hex(template).as_bytes(), 0o644));
        if let Err(error) = written {
            debug!("{}: {error}", path.display());
        }
    }

    /// Records that no template derives the key of this public key on this TPM.
    pub(super) fn give_up(&self, public: &PublicKey) {
        warn!("no factory template and no persistent handle of this TPM gives the certified key");
        if let Some(mut given_up) = self.given_up.try_lock() {
            given_up.insert(public.id());
        }
    }

    /// Returns true if [`Self::give_up`] recorded that no template derives this key.
    pub(super) fn is_given_up(&self, public: &PublicKey) -> bool {
        self.given_up
            .try_lock()
            .is_some_and(|given_up| given_up.contains(&public.id()))
    }

    /// Returns the number of keys that could not be derived. A change of this number requires a new
    /// scan.
    pub(super) fn given_up(&self) -> usize {
        self.given_up
            .try_lock()
            .map_or(0, |given_up| given_up.len())
    }

    fn path(&self, public: &PublicKey) -> PathBuf {
        self.folder
            .join(format!("template-{}", hex(public.id().as_bytes())))
    }
}
