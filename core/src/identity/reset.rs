//! A factory reset: all that is ours goes, from the TPM and from the disk. The factory's own
//! identity is never touched.

use super::device::Device;
use super::observe::{Observed, reset_request};
use super::provision::only_one;
use super::software::{Software, make_folder};
use super::{Fault, Provisioned, Provisioning, provision};
use crate::config::Config;
use crate::file;
use crate::store::{KeyStore, LookError};
use std::path::PathBuf;

/// Erases the device's own identity and all its keys, and gives it a new one.
///
/// # Errors
///
/// As of [`provision`]. What was begun is gone on with at the next provisioning.
pub fn reset(config: &Config, how: &Provisioning) -> Result<Provisioned, Fault> {
    make_folder(&config.state)?;
    let path = reset_request(&config.state);
    file::write(&path, b"devid reset --factory\n", 0o600).map_err(Fault::file(&path))?;
    provision(config, how)
}

/// Deletes what was put aside when the device moved to its TPM; gives the names.
pub fn prune(config: &Config) -> Result<Vec<PathBuf>, Fault> {
    if !config.state.exists() {
        return Ok(Vec::new());
    }
    let _only_one = only_one(&config.state)?;
    Software::of(&config.state).prune()
}

impl Device {
    /// Takes everything of ours away. Whoever is killed in between begins again; the request goes
    /// last.
    pub(super) fn erase(&self, seen: &Observed) -> Result<(), Fault> {
        self.erase_folder(seen.facts.tpm)?;
        if seen.facts.tpm {
            if let Some(mark) = &seen.mark
                && let (Some(handle), Some(name)) = (mark.handle, &mark.name)
            {
                self.own.evict_key(handle, name)?;
            }
            for (handle, name) in self.own.orphans()? {
                self.own.evict_key(handle, &name)?;
            }
            if let Some(index) = self.config.provision.nv_index {
                self.tpm.nv_forget(index, &self.own.owner_auth()?)?;
            }
            self.own.destroy_master()?;
            self.own.forget_master()?;
        }
        seen.software.delete()?;
        let request = self.reset_request();
        for path in [&self.config.provision.marker, &request] {
            file::remove(path).map_err(Fault::file(path))?;
        }
        Ok(())
    }

    /// Certificates first: one whose key is gone would be for no key of the device. Without TPM
    /// nothing else: a key would stay in its handle.
    fn erase_folder(&self, tpm: bool) -> Result<(), Fault> {
        let listing = match self.own.look() {
            Ok(listing) => listing,
            // An empty folder asks the TPM.
            Err(LookError::Tpm(_)) if !tpm => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (certificates, others): (Vec<_>, Vec<_>) = listing
            .objects
            .iter()
            .partition(|shown| shown.kind.is_certificate());
        let others = others.into_iter().filter(|_| tpm);
        for shown in certificates.into_iter().chain(others) {
            self.own.destroy_whole(&shown.name)?;
        }
        Ok(())
    }
}
