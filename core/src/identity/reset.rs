//! Factory reset: removes all objects of ours from the TPM and from the disk. A reset never touches
//! the factory identity or objects of other programs.

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

/// Erases the device's own identity with all its keys, and makes a new one.
///
/// # Errors
///
/// Those of [`provision()`]. The next provisioning continues an interrupted reset.
pub fn reset(config: &Config, how: &Provisioning) -> Result<Provisioned, IdentityError> {
    make_folder(&config.state)?;
    let path = reset_request(&config.state);
    file::write(&path, b"devid reset --factory\n", 0o600).map_err(IdentityError::file(&path))?;
    provision(config, how)
}

/// Deletes the files that were set aside when the device moved to its TPM, or with a lost master
/// key. Returns the names.
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
    /// Removes all objects of ours. An interrupted run starts again; the request file is removed
    /// last.
    ///
    /// The token `devid` is erased completely. In other tokens only objects made through them or
    /// wrapped by the master key are erased. Another program may use their folder as well.
    pub(super) fn erase(&self, seen: &Observed) -> Result<(), IdentityError> {
        let _turn = self.enrolment_turn()?;
        let tpm = seen.facts.tpm;
        // All foreseeable failures are checked before anything is deleted.
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
        // A file without object may still be the old identity. Such a file is renamed, so that it
        // does not count again.
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
                // The owner's value may be used with the master key, independent of the storage
                // root key.
                self.forget_root()?;
                // Keys below the master key, found by a rule that needs no master key, would stop
                // the provisioning.
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

    /// Checks that the owner's value can be used. After a TPM was cleared or exchanged, a reset
    /// trusts its current storage root key.
    fn check_owner(&self) -> Result<(), IdentityError> {
        let owner = self.own.owner_auth().map_err(kept_all)?;
        let shown = match self.tpm.check_shows(&owner) {
            Err(TpmError::Distrusted(why)) if self.has_other_root()? => {
                warn!("{why}. For the reset, the current storage root key of the TPM is trusted");
                self.forget_root()?;
                self.tpm.check_shows(&owner)
            }
            other => other,
        };
        shown.map_err(|error| kept_all(error.into()))
    }

    /// True if the TPM has another storage root key than the remembered one, or if the record is
    /// damaged.
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

    /// The key in the master key's handle, without which no copy of a wrapped key loads. This key
    /// is the remembered one of a folder, or one that we must have made for a lost folder.
    fn master_to_erase(&self) -> Result<Option<StorageKey>, IdentityError> {
        let handle = self.config.master.handle;
        let key = match self.tpm.storage_key(handle) {
            // An object that is no storage key wraps none of our keys.
            Ok(None) | Err(TpmError::Unsupported(_)) => return Ok(None),
            Ok(Some(key)) => key,
            Err(error) => return Err(error.into()),
        };
        let remembered = self.stores().any(|store| {
            let name = store.master_name();
            name.is_ok_and(|name| name.as_deref() == Some(key.name()))
        });
        let why = match self.tpm.is_primary(&key)? {
            true => "holds a primary key, which can be derived again from its template",
            false if remembered || key.has_our_template() => return Ok(Some(key)),
            false => "holds a storage key that is none of ours",
        };
        Err(IdentityError::refused(format!(
            "handle 0x{handle:08X} {why}: while it is there, copies of wrapped keys can be used \
             again. Evict it if no other program needs it (tpm2_evictcontrol -C o -c \
             0x{handle:08X}), or name another handle in [master]. Nothing was deleted; the next \
             start does the reset, unless you cancel it. {}",
            self.no_reset()
        )))
    }
}

/// The error for a missing precondition of the reset.
fn kept_all(error: StoreError) -> IdentityError {
    let fault = IdentityError::from(error);
    IdentityError::failed(format!(
        "{fault}. Nothing was deleted; the reset goes on at the next start, or by devid provision"
    ))
}

/// The error for an unreadable file, which may hold a key that the reset would leave behind.
fn unread(error: StoreError) -> IdentityError {
    let fault = IdentityError::from(error);
    IdentityError::failed(format!(
        "{fault}. Nothing was deleted; when the file can be read, the next start or devid \
         provision continues the reset. If the file stays unreadable, move it out of the folder"
    ))
}
