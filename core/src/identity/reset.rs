//! Factory reset: removes all keys, certificates and other objects that devid made from the TPM and
//! from the disk. A reset never changes the factory identity or objects of other programs.

use super::device::Device;
use super::free_name::free_name;
use super::observe::{Observed, reset_request};
use super::orphan::Orphan;
use super::provision::only_one;
use super::software::{Software, make_folder};
use super::{IdentityError, Provisioned, Provisioning, provision};
use crate::config::Config;
use crate::file;
use crate::store::devid::StoreError;
use crate::tpm::{StorageKey, TpmError};
use crate::trouble::is_there;
use log::warn;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use std::path::PathBuf;

/// Erases the identity `devid` and all other keys that devid made, and makes a new identity.
///
/// # Errors
///
/// Fails for the reasons of [`provision()`]. The next provisioning continues an interrupted reset.
pub fn reset(config: &Config, how: &Provisioning) -> Result<Provisioned, IdentityError> {
    make_folder(&config.state)?;
    let path = reset_request(&config.state);
    file::write(&path, b"devid reset --factory\n", 0o600).map_err(IdentityError::file(&path))?;
    provision(config, how)
}

/// Deletes files that devid renamed when the device moved to its TPM, or after the loss of a master
/// key. Returns the paths of the deleted files.
pub fn prune(config: &Config) -> Result<Vec<PathBuf>, IdentityError> {
    if !is_there(&config.state).map_err(IdentityError::file(&config.state))? {
        return Ok(Vec::new());
    }
    let _only_one = only_one(&config.state)?;
    let mut deleted = Software::in_state(&config.state).prune()?;
    for store in Device::new(config.clone()).stores() {
        for path in store.lost_files()? {
            file::remove(&path).map_err(IdentityError::file(&path))?;
            deleted.push(path);
        }
    }
    Ok(deleted)
}

impl Device {
    /// Removes all objects that devid made. An interrupted run starts again, because the request
    /// file is removed last.
    ///
    /// The token `devid` is erased completely. Another program may use the folders of other tokens.
    /// So in these folders only objects that the token created, or that the master key wraps, are
    /// erased.
    pub(super) fn erase(&self, seen: &Observed) -> Result<(), IdentityError> {
        let _turn = self.enrolment_turn()?;
        let tpm = seen.facts.tpm;
        // All errors that can be foreseen are checked before the first object is deleted.
        let master = match tpm {
            true => self.master_to_erase()?,
            false => None,
        };
        for store in self.stores() {
            store.check_writable()?;
            store.check_readable().map_err(unread)?;
        }
        let marker = self.config.provision.marker.parent();
        for folder in [
            Some(self.config.state.as_path()),
            marker,
            Some(seen.software.folder()),
        ] {
            let Some(folder) = folder else { continue };
            if is_there(folder).map_err(IdentityError::file(folder))? {
                let fault = |error: Errno| IdentityError::file(folder)(error.into());
                access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(fault)?;
            }
        }
        if tpm {
            self.check_owner()?;
        }
        self.forget_all_enrolments()?;
        for (number, store) in self.stores().enumerate() {
            store.erase(number == 0, tpm)?;
        }
        // A file without a valid object may still be the old identity. The file is renamed, so that
        // devid ignores it.
        for refused in self.own.damaged_files().map_err(unread)? {
            let path = self.folder().join(refused.file);
            file::rename(&path, &free_name(&path, "refused")?)
                .map_err(IdentityError::file(&path))?;
        }
        if tpm {
            if let Some(mark) = &seen.mark
                && let (Some(handle), Some(name)) = (mark.handle, &mark.name)
            {
                self.own.evict_key(handle, name)?;
            }
            self.evict_orphans()?;
            self.forget_copy()?;
            if let Some(master) = master {
                self.own.destroy_master(master.name())?;
                // The master key no longer encrypts the owner's authorisation value, so the storage
                // root key must do so. The reset trusts the present storage root key.
                self.forget_root()?;
                // Without a master key, devid counts other keys in handles as device keys that no
                // file names. They would stop the next provisioning, so they are evicted too.
                self.evict_orphans()?;
            }
            for store in self.stores() {
                store.forget_master()?;
            }
            self.forget_root()?;
        }
        seen.software.delete()?;
        self.forget_owner()?;
        self.stop_awaiting()?;
        let request = self.reset_request();
        for path in [&self.config.provision.marker, &request] {
            file::remove(path).map_err(IdentityError::file(path))?;
        }
        Ok(())
    }

    /// Checks that the owner's authorisation value can be used. After a TPM was cleared or
    /// exchanged, a reset trusts its current storage root key.
    fn check_owner(&self) -> Result<(), IdentityError> {
        let owner = self.own.owner_auth().map_err(kept_all)?;
        let shown = match self.tpm.check_shows(&owner) {
            Err(TpmError::Distrusted(why)) if self.has_other_root()? => {
                warn!("{why}. The reset trusts the current storage root key of the TPM");
                self.forget_root()?;
                self.tpm.check_shows(&owner)
            }
            other => other,
        };
        shown.map_err(|error| kept_all(error.into()))
    }

    /// Returns true if the TPM has another storage root key than the file `.storage-root` records,
    /// or if that file is damaged.
    fn has_other_root(&self) -> Result<bool, IdentityError> {
        match self.tpm.has_other_root() {
            Err(TpmError::Distrusted(_)) => Ok(true),
            other => Ok(other?),
        }
    }

    fn evict_orphans(&self) -> Result<(), IdentityError> {
        for Orphan(key) in self.orphans()? {
            self.own.evict_key(key.handle, &key.name)?;
        }
        Ok(())
    }

    /// Returns the key in the handle of the master key. Without this key, no copy of a wrapped key
    /// can be loaded. Either a key folder records this key, or its template shows that devid made
    /// the key for a lost folder.
    fn master_to_erase(&self) -> Result<Option<StorageKey>, IdentityError> {
        let handle = self.config.master.handle;
        let key = match self.tpm.storage_key(handle) {
            // If the handle holds an object that is not a storage key, the object wraps no keys.
            Ok(None) | Err(TpmError::Unsupported(_)) => return Ok(None),
            Ok(Some(key)) => key,
            Err(error) => return Err(error.into()),
        };
        let remembered = self.stores().any(|store| {
            let name = store.master_name();
            name.is_ok_and(|name| name.as_deref() == Some(key.name()))
        });
        let why = match self.tpm.is_primary(&key)? {
            true => "holds a primary key, which the TPM can derive again from its template",
            false if remembered || key.has_our_template() => return Ok(Some(key)),
            false => "holds a storage key that devid did not create",
        };
        Err(IdentityError::refused(format!(
            "handle 0x{handle:08X} {why}: while the handle holds this key, copies of wrapped keys \
             can be used again. If no other program needs the key, evict it (tpm2_evictcontrol -C \
             o -c 0x{handle:08X}). Otherwise set another handle under [master] in config.toml. \
             Nothing was deleted. The next start does the reset, unless you cancel it. {}",
            self.no_reset()
        )))
    }
}

/// Returns the error for a factory reset that cannot begin.
fn kept_all(error: StoreError) -> IdentityError {
    let fault = IdentityError::from(error);
    IdentityError::failed(format!(
        "{fault}. Nothing was deleted. The reset continues at the next start, or with devid \
         provision"
    ))
}

/// Returns the error for an unreadable file. The file may hold a key, and the reset would leave
/// this key behind.
fn unread(error: StoreError) -> IdentityError {
    let fault = IdentityError::from(error);
    IdentityError::failed(format!(
        "{fault}. Nothing was deleted. When the file can be read, the next start or devid \
         provision continues the reset. If the file stays unreadable, move it out of the folder"
    ))
}
