//! Finds out whether the TPM holds the master key, and which keys are lost if it does not.

mod renewal;

pub use renewal::{KeptObject, LostObject, Renewal, renew_master};

use super::IdentityError;
use super::device::Device;
use super::entry::TokenEntry;
use super::observe::Observed;
use super::remedy::Remedy;
use super::state::{Plan, Policy, Refusal};
use crate::file;
use crate::key::{from_hex, hex};
use crate::tpm::{CLEARED_OR_EXCHANGED, SRK, handle, name_of};
use std::io::ErrorKind;
use std::path::PathBuf;

/// The file that a renewal writes before the new master key becomes persistent. The file holds the
/// TPMT_PUBLIC of the new master key in hexadecimal digits, so that the next run recognises the
/// key.
const BEGUN: &str = ".master-renewal";
/// The largest size of the file `.master-renewal` and of the drop-in file, in bytes.
const LARGEST: u64 = 4096;
const RENEW: &str = "devid master renew --yes";

/// Whether the TPM holds the master key of all key folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MasterState {
    /// No key folder records a master key.
    None,
    /// The TPM holds the master key in the configured handle.
    Held,
    /// The TPM holds the master key in another handle than the configured handle.
    Elsewhere(u32),
    /// The TPM does not hold the master key. The value describes the object in the configured
    /// handle, unless a renewal put that object into the handle.
    Gone(Option<Occupant>),
}

/// An object of another program in the configured handle of the master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Occupant {
    /// A description of the object, with its TPM name.
    text: String,
}

/// A problem of the master key, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MasterKeyProblem {
    /// The identifier of the problem, which programs read.
    pub(super) id: &'static str,
    pub(super) text: String,
    pub(super) remedy: Remedy,
}

impl MasterKeyProblem {
    fn refused(self) -> IdentityError {
        IdentityError::refused(format!("{}. {}", self.text, self.remedy))
    }
}

impl Device {
    /// Returns the reason why no new master key may be made, if any. An incomplete identity `devid`
    /// is such a reason, because a new master key would hide the error.
    fn kept_from_renewal(&self, seen: &Observed) -> Option<IdentityError> {
        match seen.facts.plan(Policy::from_config(&self.config)) {
            Plan::Refuse(Refusal::ExistingUnusable) => None,
            Plan::Refuse(why) => Some(self.refusal(why, seen)),
            Plan::Reset => Some(IdentityError::refused(format!(
                "a factory reset was requested, which makes a new master key. {}",
                self.no_reset()
            ))),
            _ => None,
        }
    }

    /// Returns true if the key survives only in its persistent handle. The file of the key is
    /// useless, because the master key that wrapped it is lost.
    pub(super) fn lives_in_handle_alone(&self, entry: &TokenEntry) -> bool {
        let store = self.store_of(entry);
        let key = entry.key.as_ref();
        store
            .zip(key)
            .is_some_and(|(store, key)| store.lives_in_handle_alone(key))
    }

    /// Finds out whether the TPM holds the master key. Costs one TPM command, and more if the
    /// master key is missing.
    pub(super) fn master_state(&self) -> Result<MasterState, IdentityError> {
        let handle = self.config.master.handle;
        let (mut is_needed, mut former) = (false, Vec::new());
        let there = self.tpm.name_at(handle)?;
        let mut is_held = true;
        for store in self.stores() {
            let remembered = store.master_name()?;
            let needed = remembered.is_some() || store.needs_master()?;
            is_needed |= needed;
            is_held &= !needed || (there.is_some() && remembered == there);
            former.extend(remembered);
        }
        match (is_needed, is_held) {
            (false, _) => return Ok(MasterState::None),
            (true, true) => return Ok(MasterState::Held),
            (true, false) => {}
        }
        for other in self.tpm.handles(handle::PERSISTENT)? {
            let name = self.tpm.name_at(other)?;
            if other != handle && name.is_some_and(|name| former.contains(&name)) {
                return Ok(MasterState::Elsewhere(other));
            }
        }
        let ours = self.begun()?.and_then(|area| name_of(&area));
        Ok(MasterState::Gone(match there {
            // A renewal of the master key put this key into the handle, for this key folder or for
            // another.
            Some(name) if Some(&name) == ours.as_ref() || former.contains(&name) => None,
            Some(name) => Some(self.occupant(handle, &name)),
            None => None,
        }))
    }

    fn occupant(&self, handle: u32, name: &[u8]) -> Occupant {
        let key = self.tpm.storage_key(handle);
        let kind = match &key {
            Ok(Some(key)) => match (self.tpm.is_primary(key), key.has_our_template()) {
                (Ok(true), _) => "a primary storage key of another program".into(),
                (_, true) => "a storage key with the template of master keys, from another \
                              installation"
                    .into(),
                (_, false) => "a storage key of another program".into(),
            },
            _ => self.describe_handle(handle),
        };
        let text = format!("{kind} (TPM name {})", hex(name));
        Occupant { text }
    }

    /// Returns the problem of the master key, if there is one.
    pub(super) fn master_fault(
        &self,
        seen: Option<&Observed>,
    ) -> Result<Option<MasterKeyProblem>, IdentityError> {
        let state = self.master_state()?;
        let occupant = match state {
            MasterState::None | MasterState::Held => return Ok(None),
            MasterState::Elsewhere(handle) => return Ok(Some(self.elsewhere(handle))),
            MasterState::Gone(occupant) => occupant,
        };
        let handle = self.config.master.handle;
        let folder = self.folder();
        let folder = folder.display();
        let is = match &occupant {
            Some(occupant) => format!("holds {}", occupant.text),
            None if self.begun()?.is_some() => "is empty, because a renewal of the master key is \
                                                not complete"
                .into(),
            None => "is empty".into(),
        };
        let gone = format!(
            "handle 0x{handle:08X} {is}, and the master key that wrapped the keys of {folder} is \
             lost"
        );
        let has_identity = seen.is_some_and(|seen| seen.own.is_some());
        let is_kept = seen.is_some_and(|seen| self.kept_from_renewal(seen).is_none());
        let has_root = self.tpm.name_at(SRK)?.is_some();
        let other = format!("the TPM {CLEARED_OR_EXCHANGED}");
        let (why, remedy) = match (is_kept, has_identity || has_root) {
            (true, true) => (
                match has_identity {
                    true => {
                        "the own identity is still in the TPM, so the TPM was not cleared: the \
                         master key was evicted"
                    }
                    false => {
                        "the TPM still has a storage root key, so probably only the master key was \
                         evicted"
                    }
                },
                Remedy::by_command(
                    "The keys that the master key wrapped are lost (devid master renew lists \
                     them). To make a new master key and keep the identity, run",
                    RENEW,
                ),
            ),
            (true, false) => (
                other.as_str(),
                Remedy::by_command(
                    "Bring back the TPM of the folder. The keys are lost only if the TPM was \
                     cleared (devid master renew lists them). In this case make a new master key \
                     with",
                    RENEW,
                ),
            ),
            (false, _) => (other.as_str(), self.other_tpm()),
        };
        Ok(Some(MasterKeyProblem {
            id: "master-key.lost",
            text: format!("{gone}: {why}"),
            remedy,
        }))
    }

    fn elsewhere(&self, handle: u32) -> MasterKeyProblem {
        let named = self.config.master.handle;
        MasterKeyProblem {
            id: "master-key.elsewhere",
            text: format!(
                "the master key is in handle 0x{handle:08X}, but the configuration names handle \
                 0x{named:08X}; no key is lost"
            ),
            remedy: Remedy::by_hand(format!(
                "Set handle = 0x{handle:08X} under [master] in config.toml"
            )),
        }
    }

    /// Removes the file that records the storage root key. The next storage root key is then
    /// trusted.
    pub(super) fn forget_root(&self) -> Result<(), IdentityError> {
        self.tpm.root().forget().map_err(IdentityError::failed)
    }

    fn begun_path(&self) -> PathBuf {
        self.config.state.join(BEGUN)
    }

    /// Returns the TPMT_PUBLIC of the new master key from the file `.master-renewal`, if a renewal
    /// is not complete.
    fn begun(&self) -> Result<Option<Vec<u8>>, IdentityError> {
        let path = self.begun_path();
        match file::read(&path, LARGEST) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(IdentityError::file(&path)(error)),
            // If the file cannot be parsed, it names no key. The renewal writes the file again.
            Ok(digits) => Ok(Some(
                String::from_utf8(digits)
                    .ok()
                    .and_then(|digits| from_hex(digits.trim()))
                    .unwrap_or_default(),
            )),
        }
    }
}
