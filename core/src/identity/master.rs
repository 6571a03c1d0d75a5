//! The master key as the device sees it: whether the TPM has it, what it means that it has not, and
//! a new one in its place, which keeps the identity.

use super::Fault;
use super::device::Device;
use super::mend::Mend;
use super::observe::Observed;
use super::provision::{only_one, tidy};
use super::state::{Plan, Policy, Refusal};
use crate::config::{Config, ConfigError};
use crate::file;
use crate::key::{from_hex, hex};
use crate::store::devid::{DevidStore, Losses, LostKind};
use crate::tpm::{SRK, StorageKey, TpmError, name_of};
use crate::trouble::is_there;
use log::info;
use serde::Serialize;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Where a new master key goes if another program took its handle.
const HANDLES: RangeInclusive<u32> = 0x8100_0080..=0x8100_00FF;
const PERSISTENT: u32 = 0x8100_0000;
/// The TPMT_PUBLIC of the master key that a renewal is about to put into the TPM, in hexadecimal
/// digits: so that the next run knows it again.
const BEGUN: &str = ".master-renewal";
/// More bytes than that file has, and a drop-in of ours.
const LARGEST: u64 = 4096;
const DROP_IN: &str = "devid-master.toml";
const DROP_IN_HEAD: &str = "# Where the master key is. Written by devid master renew, because another program took the \
                            handle before.\n[master]\nhandle = ";
const RENEW: &str = "devid master renew --yes";

/// Whether the TPM has the master key of all key folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MasterState {
    /// No folder has ever had one.
    None,
    /// It has.
    Held,
    /// It has, in another handle than the configuration names.
    Elsewhere(u32),
    /// It has not; what is in its handle, unless a renewal put that there.
    Gone(Option<Occupant>),
}

/// What another program put into the handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Occupant {
    /// What it is, and its TPM name.
    text: String,
}

/// What a renewal of the master key did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Renewal {
    /// Whether it was done.
    pub done: bool,
    /// Where the new master key is, or will be.
    pub handle: String,
    /// What another program has in the handle of before.
    pub occupant: Option<String>,
    /// The file that names the new handle, if that is another.
    pub drop_in: Option<PathBuf>,
    /// What is lost with the old master key.
    pub lost: Vec<LostObject>,
    /// Keys of the old master key that live on in their persistent handles, and there alone.
    pub kept: Vec<KeptObject>,
}

/// Something that is lost with a master key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LostObject {
    /// The token.
    pub token: String,
    /// Its label.
    pub label: String,
    /// `wrapped`, `sealed` or `behind-pin`, a key; `pin`; `certificate`, of such a key.
    pub kind: &'static str,
    /// Its file.
    pub file: PathBuf,
    /// Where that was moved.
    pub moved_to: Option<PathBuf>,
}

/// A key that a renewal leaves as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptObject {
    /// The token.
    pub token: String,
    /// Its label.
    pub label: String,
    /// The handle that has it.
    pub handle: String,
}

/// Begins a new master key where the old one is gone, and keeps the device's identity. `yes`: it is
/// done; else only told. `again` reads the configuration anew, once a drop-in was written.
///
/// Whoever is killed in between runs it again.
///
/// # Errors
///
/// [`FaultKind::Refused`](super::FaultKind::Refused) while the old master key is in the TPM, or where the identity is lost too.
/// Then nothing was changed.
pub fn renew_master(
    config: &Config,
    yes: bool,
    again: &dyn Fn() -> Result<Config, ConfigError>,
) -> Result<Renewal, Fault> {
    let state = &config.state;
    if !is_there(state).map_err(Fault::file(state))? {
        return Err(none_yet());
    }
    let _only_one = yes.then(|| only_one(state)).transpose()?;
    let device = Device::new(config.clone());
    if yes {
        tidy(&device);
    }
    let seen = device.observe()?;
    if let Some(fault) = &seen.tpm_fault {
        return Err(fault.clone());
    }
    if let Some(fault) = &seen.unread_now {
        return Err(Fault::failed(format!("{fault}. Nothing was changed")));
    }
    let occupant = match device.master_state()? {
        MasterState::None => return Err(none_yet()),
        MasterState::Held if device.begun()?.is_none() => return Err(device.still_there()),
        MasterState::Held => None,
        MasterState::Elsewhere(handle) => return Err(device.elsewhere(handle).refused()),
        MasterState::Gone(occupant) => occupant,
    };
    if let Some(why) = device.kept_from_renewal(&seen) {
        return Err(why);
    }
    let mut renewal = device.renewal(occupant.as_ref())?;
    if !yes {
        return Ok(renewal);
    }
    for store in device.stores() {
        store.check_writable()?;
    }
    let device = match occupant {
        Some(_) => device.moved(&renewal, again)?,
        None => device,
    };
    device.renew(&mut renewal)?;
    device.tell_others();
    renewal.done = true;
    Ok(renewal)
}

fn none_yet() -> Fault {
    Fault::refused(
        "there is no master key yet, and none is missed: the first key of the token devid makes it",
    )
}

/// What is said of the master key, in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// What it is called wherever programs read it.
    pub(super) id: &'static str,
    pub(super) text: String,
    pub(super) mend: Mend,
}

impl Said {
    fn refused(self) -> Fault {
        Fault::refused(format!("{}. {}", self.text, self.mend))
    }
}

impl Device {
    /// How the master key is. One command; more where it is gone.
    pub(super) fn master_state(&self) -> Result<MasterState, Fault> {
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
        for other in self.tpm.handles(PERSISTENT)? {
            let name = self.tpm.name_at(other)?;
            if other != handle && name.is_some_and(|name| former.contains(&name)) {
                return Ok(MasterState::Elsewhere(other));
            }
        }
        let ours = self.begun()?.and_then(|area| name_of(&area));
        Ok(MasterState::Gone(match there {
            // A renewal put it there, for this folder or for another one.
            Some(name) if Some(&name) == ours.as_ref() || former.contains(&name) => None,
            Some(name) => Some(self.occupant(handle, &name)),
            None => None,
        }))
    }

    fn occupant(&self, handle: u32, name: &[u8]) -> Occupant {
        let kind = self.taken_for(handle);
        let text = format!("{kind} (TPM name {})", hex(name));
        Occupant { text }
    }

    /// What is said of the master key where something is wrong with it.
    pub(super) fn master_fault(&self, seen: Option<&Observed>) -> Result<Option<Said>, Fault> {
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
            None if self.begun()?.is_some() => "is being renewed".into(),
            None => "is empty".into(),
        };
        let gone = format!(
            "handle 0x{handle:08X} {is}, and the master key that wrapped the keys of {folder} is gone"
        );
        let has_identity = seen.is_some_and(|seen| seen.own.is_some());
        let is_kept = seen.is_some_and(|seen| self.kept_from_renewal(seen).is_none());
        let has_root = self.tpm.name_at(SRK)?.is_some();
        let (why, mend) = match (is_kept, has_identity || has_root) {
            (true, true) => (
                match has_identity {
                    true => {
                        "the device's identity is in the TPM as before, so the TPM was not cleared: the \
                         master key was evicted"
                    }
                    false => {
                        "the storage root key is there, so it seems that only the master key was evicted"
                    }
                },
                Mend::run(
                    "What it wrapped is lost, and devid master renew lists that. A new master key, beside \
                     the identity that stays, begins with",
                    RENEW,
                ),
            ),
            (true, false) => (
                "the TPM was cleared or exchanged",
                Mend::run(
                    "Bring back the TPM that the folder belongs to. Only if it was cleared, its keys are \
                     lost (devid master renew lists them), and a new master key begins with",
                    RENEW,
                ),
            ),
            (false, _) => ("the TPM was cleared or exchanged", self.other_tpm()),
        };
        Ok(Some(Said {
            id: "master-key.lost",
            text: format!("{gone}: {why}"),
            mend,
        }))
    }

    fn elsewhere(&self, handle: u32) -> Said {
        let named = self.config.master.handle;
        Said {
            id: "master-key.elsewhere",
            text: format!(
                "the master key is in handle 0x{handle:08X}, and the configuration names 0x{named:08X}: \
                 nothing is lost"
            ),
            mend: Mend::by(format!(
                "Write handle = 0x{handle:08X} under [master] in config.toml"
            )),
        }
    }

    fn still_there(&self) -> Fault {
        Fault::refused(format!(
            "the master key is there, in handle 0x{:08X}, and nothing is lost: nothing was done. A \
             new one in its place would end every key that it wraps",
            self.config.master.handle
        ))
    }

    /// Why no new master key is made, if so: the identity is not whole, and a new master key would
    /// only hide that.
    fn kept_from_renewal(&self, seen: &Observed) -> Option<Fault> {
        match seen.facts.plan(Policy::of(&self.config)) {
            Plan::Refuse(Refusal::ExistingUnusable) => None,
            Plan::Refuse(why) => Some(self.refusal(why, seen)),
            Plan::Reset => Some(Fault::refused(format!(
                "a factory reset was asked for, which makes a new master key. {}",
                self.no_reset()
            ))),
            _ => None,
        }
    }

    /// What would be done.
    fn renewal(&self, occupant: Option<&Occupant>) -> Result<Renewal, Fault> {
        let handle = match occupant {
            Some(_) => self.free_handle()?,
            None => self.config.master.handle,
        };
        let (mut lost, mut kept) = (Vec::new(), Vec::new());
        for store in self.broken_stores()? {
            let Losses {
                lost: gone,
                kept: stays,
            } = store.losses()?;
            lost.extend(gone.into_iter().map(|one| LostObject {
                token: store.name().to_owned(),
                label: one.label,
                kind: match one.what {
                    LostKind::Certificate => "certificate",
                    LostKind::Wrapped => "wrapped",
                    LostKind::Sealed => "sealed",
                    LostKind::BehindPin => "behind-pin",
                    LostKind::Pin(_) => "pin",
                },
                file: one.file,
                moved_to: None,
            }));
            kept.extend(stays.into_iter().map(|one| KeptObject {
                token: store.name().to_owned(),
                label: one.label,
                handle: format!("0x{:08X}", one.handle),
            }));
        }
        Ok(Renewal {
            done: false,
            handle: format!("0x{handle:08X}"),
            occupant: occupant.map(|occupant| occupant.text.clone()),
            drop_in: occupant.map(|_| self.drop_in()),
            lost,
            kept,
        })
    }

    fn drop_in(&self) -> PathBuf {
        self.config.drop_ins.join(DROP_IN)
    }

    fn free_handle(&self) -> Result<u32, Fault> {
        let taken = self.tpm.handles(PERSISTENT)?;
        let free = HANDLES.into_iter().find(|handle| !taken.contains(handle));
        free.ok_or_else(|| {
            Fault::refused(format!(
                "the handles 0x{:08X} to 0x{:08X} are all taken; name another one by handle under \
                 [master] in config.toml",
                HANDLES.start(),
                HANDLES.end()
            ))
        })
    }

    /// Folders whose master key is not the one in the handle.
    fn broken_stores(&self) -> Result<Vec<&DevidStore>, Fault> {
        let there = self.tpm.name_at(self.config.master.handle)?;
        let mut broken = Vec::new();
        for store in self.stores() {
            let remembered = store.master_name()?;
            let needed = remembered.is_some() || store.needs_master()?;
            if needed && (there.is_none() || remembered != there) {
                broken.push(store);
            }
        }
        Ok(broken)
    }

    /// The same device with the master key's handle in the configuration.
    fn moved(
        &self,
        renewal: &Renewal,
        again: &dyn Fn() -> Result<Config, ConfigError>,
    ) -> Result<Self, Fault> {
        let path = self.drop_in();
        let by_hand = |why: &dyn std::fmt::Display| {
            Fault::refused(format!(
                "{}: {why}. Nothing was changed. Write handle = {} under [master] in config.toml, \
                 where no later file names another, and then: {RENEW}",
                path.display(),
                renewal.handle
            ))
        };
        let before = match file::read(&path, LARGEST) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(by_hand(&error)),
            Ok(content) if content.starts_with(DROP_IN_HEAD.as_bytes()) => Some(content),
            Ok(_) => return Err(by_hand(&"it is not as devid wrote it, and is left alone")),
        };
        let text = format!("{DROP_IN_HEAD}{}\n", renewal.handle);
        std::fs::create_dir_all(&self.config.drop_ins).map_err(|error| by_hand(&error))?;
        file::write(&path, text.as_bytes(), 0o644).map_err(|error| by_hand(&error))?;
        let now = again();
        let obeyed = now
            .as_ref()
            .is_ok_and(|config| format!("0x{:08X}", config.master.handle) == renewal.handle);
        match now {
            Ok(config) if obeyed => Ok(Self::new(config)),
            now => {
                let undone = match before {
                    Some(content) => file::write(&path, &content, 0o644),
                    None => file::remove(&path),
                };
                undone.map_err(Fault::file(&path))?;
                Err(match now {
                    Err(error) => by_hand(&error),
                    Ok(_) => by_hand(&"another file of the configuration is read after it"),
                })
            }
        }
    }

    /// Makes the new master key, takes out of use what the old one wrapped, and remembers the new
    /// one, which is the end.
    fn renew(&self, renewal: &mut Renewal) -> Result<(), Fault> {
        let handle = self.config.master.handle;
        let broken = self.broken_stores()?;
        let master = self.new_master()?;
        info!("master key renewed at 0x{handle:08X}");
        for store in broken {
            for lost in store.losses()?.lost {
                let moved = store.set_aside(&lost)?;
                let told = renewal.lost.iter_mut().find(|one| one.file == lost.file);
                if let Some(told) = told {
                    told.moved_to = moved;
                }
            }
            store.begin_with(&master)?;
        }
        let begun = self.begun_path();
        file::remove(&begun).map_err(Fault::file(&begun))
    }

    /// The key in the handle: one that a renewal put there, or a folder knows; else a new one.
    fn new_master(&self) -> Result<StorageKey, Fault> {
        let handle = self.config.master.handle;
        let missing = || {
            Fault::failed(format!(
                "handle 0x{handle:08X} does not hold the new master key; look at it by devid doctor, \
                 and run {RENEW} again"
            ))
        };
        if let Some(there) = self.tpm.name_at(handle)? {
            // Looked at before: nobody else's is there, or it came only now.
            let begun = self.begun()?.and_then(|area| name_of(&area));
            let mut is_ours = begun.as_ref() == Some(&there);
            for store in self.stores() {
                is_ours |= store.master_name()?.as_ref() == Some(&there);
            }
            let key = self.tpm.storage_key(handle)?.filter(|_| is_ours);
            return key.ok_or_else(missing);
        }
        let made = self.own.make_master()?;
        let path = self.begun_path();
        let digits = format!("{}\n", hex(made.area()));
        file::write(&path, digits.as_bytes(), 0o600).map_err(Fault::file(&path))?;
        match self.own.put_master(&made) {
            Err(crate::store::devid::StoreError::Tpm(TpmError::KeyReplaced(_))) => {
                return Err(missing());
            }
            other => other?,
        }
        let there = self.tpm.storage_key(handle)?;
        there
            .filter(|key| key.name() == made.name())
            .ok_or_else(missing)
    }

    fn begun_path(&self) -> PathBuf {
        begun_path(&self.config.state)
    }

    /// The TPMT_PUBLIC of the master key that a renewal began with, if one did not end.
    fn begun(&self) -> Result<Option<Vec<u8>>, Fault> {
        let path = self.begun_path();
        match file::read(&path, LARGEST) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Fault::file(&path)(error)),
            // One that cannot be understood tells of no key, and is written anew.
            Ok(digits) => Ok(Some(
                String::from_utf8(digits)
                    .ok()
                    .and_then(|digits| from_hex(digits.trim()))
                    .unwrap_or_default(),
            )),
        }
    }
}

fn begun_path(state: &Path) -> PathBuf {
    state.join(BEGUN)
}
