//! Renewal: a new master key replaces a lost one. The identity `devid` stays. Files that the lost
//! master key wrapped are set aside.

use super::{LARGEST, MasterState, Occupant, RENEW};
use crate::config::{Config, ConfigError};
use crate::file;
use crate::identity::IdentityError;
use crate::identity::device::Device;
use crate::identity::provision::{only_one, tidy};
use crate::key::hex;
use crate::store::devid::{DevidStore, LossKind, Losses, StoreError};
use crate::tpm::{StorageKey, TpmError, handle, name_of};
use crate::trouble::is_there;
use log::{info, warn};
use serde::Serialize;
use std::io::ErrorKind;
use std::path::PathBuf;

const DROP_IN: &str = "devid-master.toml";
const DROP_IN_HEAD: &str = "# Where the master key is. Written by devid master renew, because another program took the \
                            handle before.\n[master]\nhandle = ";

/// The result of a renewal of the master key, or its preview.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Renewal {
    /// True if the master key was renewed, false for a preview.
    pub done: bool,
    /// The handle of the new master key.
    pub handle: String,
    /// A description of another program's object in the old handle, if there is one.
    pub occupant: Option<String>,
    /// The drop-in file that configures a new handle, if the handle changes.
    pub drop_in: Option<PathBuf>,
    /// The objects that are lost with the old master key.
    pub lost: Vec<LostObject>,
    /// The keys that survive the loss of the old master key, because they are in persistent
    /// handles.
    pub kept: Vec<KeptObject>,
}

/// A key, PIN or certificate that is lost with a master key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LostObject {
    /// The name of the token that had the lost object.
    pub token: String,
    /// The label of the key or certificate.
    pub label: String,
    /// The kind: `wrapped`, `sealed` or `behind-pin` for a key, `pin` for a PIN, `certificate` for
    /// the certificate of a lost key.
    pub kind: &'static str,
    /// The file of the lost key, PIN or certificate.
    pub file: PathBuf,
    /// The new path of the file after it was renamed.
    pub moved_to: Option<PathBuf>,
}

/// A key in a persistent handle, which the renewal does not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptObject {
    /// The name of the token that shows the key.
    pub token: String,
    /// The label of the key.
    pub label: String,
    /// The persistent handle of the key.
    pub handle: String,
}

/// Makes a new master key if the old one is lost. Keeps the identity `devid`. Without `yes`, only
/// returns a preview. `again` reads the configuration again after a drop-in file was written.
///
/// A second run completes an interrupted renewal.
///
/// # Errors
///
/// Fails with [`IdentityErrorKind::Refused`](crate::identity::IdentityErrorKind::Refused) while the
/// old master key is in the TPM, or if the identity is lost too. After this error nothing was
/// changed.
pub fn renew_master(
    config: &Config,
    yes: bool,
    again: &dyn Fn() -> Result<Config, ConfigError>,
) -> Result<Renewal, IdentityError> {
    let state = &config.state;
    if !is_there(state).map_err(IdentityError::file(state))? {
        return Err(none_yet());
    }
    let _only_one = yes.then(|| only_one(state)).transpose()?;
    let device = Device::new(config.clone());
    let _turn = yes.then(|| device.enrolment_turn()).transpose()?;
    if yes {
        tidy(&device);
    }
    let seen = device.observe()?;
    if let Some(fault) = &seen.tpm_fault {
        return Err(fault.clone());
    }
    if let Some(fault) = &seen.unread_now {
        return Err(IdentityError::failed(format!(
            "{fault}. Nothing was changed"
        )));
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

fn none_yet() -> IdentityError {
    IdentityError::refused(
        "no master key exists yet, and none is missing; the first key of the token devid makes one",
    )
}

impl Device {
    fn still_there(&self) -> IdentityError {
        IdentityError::refused(format!(
            "handle 0x{:08X} holds the master key, and no key is lost, so nothing was done. A new \
             master key would make all keys below the present one useless",
            self.config.master.handle
        ))
    }

    /// Returns the preview of a renewal of the master key.
    fn renewal(&self, occupant: Option<&Occupant>) -> Result<Renewal, IdentityError> {
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
                    LossKind::Certificate => "certificate",
                    LossKind::Wrapped => "wrapped",
                    LossKind::Sealed => "sealed",
                    LossKind::BehindPin => "behind-pin",
                    LossKind::Pin(_) => "pin",
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

    fn free_handle(&self) -> Result<u32, IdentityError> {
        let taken = self.tpm.handles(handle::PERSISTENT)?;
        let free = handle::MASTER_KEYS
            .into_iter()
            .find(|handle| !taken.contains(handle));
        free.ok_or_else(|| {
            IdentityError::refused(format!(
                "the handles 0x{:08X} to 0x{:08X} are all in use; set handle to another handle \
                 under [master] in config.toml",
                handle::MASTER_KEYS.start(),
                handle::MASTER_KEYS.end()
            ))
        })
    }

    /// Returns the stores whose recorded master key differs from the key in the handle.
    fn broken_stores(&self) -> Result<Vec<&DevidStore>, IdentityError> {
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

    /// Configures the new handle of the master key, and returns the device with this configuration.
    fn moved(
        &self,
        renewal: &Renewal,
        again: &dyn Fn() -> Result<Config, ConfigError>,
    ) -> Result<Self, IdentityError> {
        let path = self.drop_in();
        let by_hand = |why: &dyn std::fmt::Display| {
            IdentityError::refused(format!(
                "{}: {why}. Nothing was changed. Set handle = {} under [master] in config.toml, \
                 and check that no later file sets another handle. Then run {RENEW}",
                path.display(),
                renewal.handle
            ))
        };
        let before = match file::read(&path, LARGEST) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(by_hand(&error)),
            Ok(content) if content.starts_with(DROP_IN_HEAD.as_bytes()) => Some(content),
            Ok(_) => {
                return Err(by_hand(
                    &"devid did not write the content of this file, so the file is not changed",
                ));
            }
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
                undone.map_err(IdentityError::file(&path))?;
                Err(match now {
                    Err(error) => by_hand(&error),
                    Ok(_) => by_hand(
                        &"another file of the configuration, which is read later, sets another \
                          handle",
                    ),
                })
            }
        }
    }

    /// Makes the new master key and renames the files of lost keys. Records the new master key
    /// last.
    fn renew(&self, renewal: &mut Renewal) -> Result<(), IdentityError> {
        let handle = self.config.master.handle;
        let broken = self.broken_stores()?;
        // With `yes` the user confirms that the TPM was cleared or exchanged.
        if self.tpm.has_other_root()? {
            warn!("the TPM has another storage root key than before; it is trusted from now on");
            self.forget_root()?;
        }
        let master = self.new_master()?;
        info!("renewed the master key in handle 0x{handle:08X}");
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
        file::remove(&begun).map_err(IdentityError::file(&begun))
    }

    /// Returns the key in the configured handle, if a renewal made it or a key folder records it.
    /// Otherwise makes a new master key.
    fn new_master(&self) -> Result<StorageKey, IdentityError> {
        let handle = self.config.master.handle;
        let missing = || {
            IdentityError::failed(format!(
                "handle 0x{handle:08X} does not hold the new master key; check the handle with \
                 devid doctor, then run {RENEW} again"
            ))
        };
        if let Some(there) = self.tpm.name_at(handle)? {
            // The handle was checked before. A key of another program is in it only if that program
            // put it there since the check.
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
        file::write(&path, digits.as_bytes(), 0o600).map_err(IdentityError::file(&path))?;
        match self.own.put_master(&made) {
            Err(StoreError::Tpm(TpmError::KeyReplaced(_))) => {
                return Err(missing());
            }
            other => other?,
        }
        let there = self.tpm.storage_key(handle)?;
        there
            .filter(|key| key.name() == made.name())
            .ok_or_else(missing)
    }
}
