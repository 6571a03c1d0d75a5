//! Error messages for the steps of `devid provision` that the table in `state.rs` refuses, with the
//! remedies.

use super::device::Device;
use super::existing::ExistingIdentity;
use super::free_name::free_name;
use super::observe::{Observed, OwnKey};
use super::permissions::for_unread_file;
use super::remedy::Remedy;
use super::state::{ExistingState, Refusal};
use super::{IdentityError, IdentityErrorKind};
use crate::config::{self, OwnIdentity};
use crate::shell::word;
use crate::store::devid::KeyInHandle;
use crate::tpm::{CLEARED_OR_EXCHANGED, PublicArea};
use crate::trouble::is_there;
use crate::x509::Certificate;
use std::path::PathBuf;

/// The error message of a refused provisioning step, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RefusalDetails {
    kind: IdentityErrorKind,
    /// The identifier of the refusal, which programs read.
    pub(super) id: &'static str,
    pub(super) text: String,
    pub(super) remedy: Remedy,
}

/// A certificate of the identity `devid` whose private key is missing.
struct UnmatchedCertificate {
    place: String,
    file: Option<PathBuf>,
    /// True if the certificate belongs to the identity in files.
    software: bool,
}

/// Whether the keys in the TPM belong to the key folder.
enum TpmOrigin {
    /// The TPM holds keys with the template of device keys that no file names. The TPM or the
    /// folder comes from another device.
    OtherDevice,
    /// The TPM holds no key with the template of device keys. The TPM was cleared, or is new.
    Unused,
}

fn untrusted(seen: &Observed) -> RefusalDetails {
    let why = seen.untrusted.as_ref();
    RefusalDetails {
        kind: IdentityErrorKind::Refused,
        id: "identity.untrusted",
        text: why.map_or("the state folder".into(), |why| {
            format!("{}, so it is not trusted; nothing was changed", why.text)
        }),
        remedy: why.map_or(
            Remedy::by_hand("Check which users can write to the folder"),
            |why| why.remedy.clone(),
        ),
    }
}

impl From<RefusalDetails> for IdentityError {
    fn from(why: RefusalDetails) -> Self {
        Self::new(why.kind, format!("{}. {}", why.text, why.remedy))
    }
}

impl Device {
    /// Returns the refusal as an error, with its remedy.
    pub(super) fn refusal(&self, why: Refusal, seen: &Observed) -> IdentityError {
        self.refusal_details(why, seen).into()
    }

    /// Returns the parts of the refusal: kind, identifier, text and remedy.
    pub(super) fn refusal_details(&self, why: Refusal, seen: &Observed) -> RefusalDetails {
        let tpm = self.silence(seen);
        let of_tpm = |id, text, remedy| RefusalDetails {
            kind: IdentityErrorKind::Tpm,
            id,
            text,
            remedy,
        };
        match why {
            Refusal::NoTpm => of_tpm(
                "identity.no-tpm",
                format!("{tpm}, and the device has no own identity"),
                Remedy::by_hand(
                    "Make the TPM answer (devid doctor tells how). Or set fallback = \"software\" \
                     under [provision] in config.toml to permit a software identity, and run devid \
                     provision",
                ),
            ),
            Refusal::TpmSilent => of_tpm(
                "identity.tpm-silent",
                format!("{tpm}; a TPM exists, so no software identity is made instead"),
                Remedy::by_hand(match self.config.provision.own {
                    // The user may need only the factory identity.
                    OwnIdentity::Unset | OwnIdentity::Unwanted => {
                        "devid doctor tells why the TPM does not answer"
                    }
                    OwnIdentity::Wanted => {
                        "devid doctor tells why the TPM does not answer; run devid provision when \
                         the TPM answers"
                    }
                }),
            ),
            Refusal::TpmGone => of_tpm(
                "identity.tpm-gone",
                format!(
                    "{tpm}; the identity of the device is in its TPM, so no other identity is made"
                ),
                Remedy::by_hand(
                    "No step is needed when the TPM answers again; devid doctor tells why it does \
                     not answer",
                ),
            ),
            Refusal::ResetNeedsTpm => of_tpm(
                "identity.reset-waits",
                format!(
                    "{tpm}; a reset without the TPM would leave keys in the TPM, or the device \
                     without identity. Nothing was deleted. The reset is done at the next start \
                     with a TPM that answers"
                ),
                self.no_reset(),
            ),
            // The object may be in a file that could not be read.
            Refusal::KeyLost | Refusal::FileLost | Refusal::Mismatch
                if seen.unread_now.is_some() =>
            {
                self.unreadable(seen)
            }
            Refusal::KeyLost => self.key_lost(seen),
            Refusal::FileLost => self.file_lost(seen),
            Refusal::Mismatch => self.mismatch(seen),
            Refusal::ExistingUnusable => self.existing_unusable(seen),
            Refusal::Unreadable => self.unreadable(seen),
            Refusal::Untrusted => untrusted(seen),
        }
    }

    /// Returns the remedy that cancels a requested factory reset.
    pub(super) fn no_reset(&self) -> Remedy {
        let request = self.reset_request();
        let command = format!("rm {}", word(&request));
        Remedy::on_paths("To cancel the reset", &[&request], command)
    }

    /// Returns the address of the TPM, and the reason why it does not answer.
    fn silence(&self, seen: &Observed) -> String {
        match &seen.tpm_fault {
            Some(fault) => format!("{}: {fault}", self.config.tcti),
            None => self.config.tcti.to_string(),
        }
    }

    fn key_lost(&self, seen: &Observed) -> RefusalDetails {
        let lost = seen.own.as_ref().and_then(|own| own.lost.as_deref());
        let lost = lost.unwrap_or("the marker names a key that is missing");
        let held = self.own.master_is_held();
        let (text, remedy) = match held {
            Ok(Some(true)) => (
                format!(
                    "the device's key devid is missing ({lost}), although the TPM still holds \
                     the master key: the file of the key was deleted or changed"
                ),
                self.bring_back_file(),
            ),
            Ok(_) | Err(_) => {
                let behind_pin = |own: &OwnKey| own.key.auth_salt().is_some();
                let text = match seen.own.as_ref().is_some_and(behind_pin) {
                    true => format!("the device's key devid cannot be used any more: {lost}"),
                    false => format!(
                        "the TPM does not hold the device's key devid any more ({lost}): it \
                         {CLEARED_OR_EXCHANGED}"
                    ),
                };
                (text, self.other_tpm())
            }
        };
        RefusalDetails {
            kind: IdentityErrorKind::Refused,
            id: "identity.key-lost",
            text,
            remedy,
        }
    }

    /// Returns the remedy for a TPM that does not hold the keys of the key folder.
    pub(super) fn other_tpm(&self) -> Remedy {
        let folder = self.folder();
        let folder = folder.display();
        match self.whose() {
            // A factory reset would delete the keys of another device.
            TpmOrigin::OtherDevice => Remedy::by_hand(format!(
                "This TPM holds keys of another key folder. Use {folder} with its own TPM, or use \
                 this TPM with its own key folder"
            )),
            TpmOrigin::Unused => {
                let state = &self.config.state;
                Remedy::to_free_name(
                    format!(
                        "Bring back the TPM of {folder}. The keys are lost for ever only if the \
                         TPM was cleared. In this case make a new identity with"
                    ),
                    &[state],
                    free_name(state, "kept"),
                    |kept| {
                        format!(
                            "cp -a {} {} && devid reset --factory --yes",
                            word(state),
                            word(kept)
                        )
                    },
                )
            }
        }
    }

    fn whose(&self) -> TpmOrigin {
        let handle = self.config.master.handle;
        // If the search for device keys fails, such keys may exist.
        let orphans = self.orphans();
        let orphans = orphans.map_or(true, |orphans| !orphans.is_empty());
        let held = self.own.master_is_held().ok().flatten() == Some(true);
        let wraps = self.tpm.handles(handle).map_or(true, |all| {
            // TPM2_GetCapability lists handles from this handle on, so the first entry tells
            // whether the handle is in use.
            all.first() == Some(&handle)
        });
        match orphans || (wraps && !held) {
            true => TpmOrigin::OtherDevice,
            false => TpmOrigin::Unused,
        }
    }

    /// Returns the refusal for an object that may be in an unreadable file.
    fn unreadable(&self, seen: &Observed) -> RefusalDetails {
        let folder = self.folder();
        let first = seen.unread.first().cloned().unwrap_or_default();
        let (path, why) = (folder.join(&first.file), first.why);
        let others = match seen.unread.len() {
            0 | 1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        RefusalDetails {
            kind: IdentityErrorKind::Refused,
            id: "identity.unreadable",
            text: format!(
                "{}: {why}{others}; this file may hold the identity of the device, so no other \
                 identity is made",
                path.display()
            ),
            remedy: for_unread_file(&folder, &path, first.by_content),
        }
    }

    fn file_lost(&self, seen: &Observed) -> RefusalDetails {
        let handle = seen.lost_handle();
        let handle = handle.map_or(String::new(), |handle| format!(" at 0x{handle:08X}"));
        RefusalDetails {
            kind: IdentityErrorKind::Refused,
            id: "identity.file-lost",
            text: format!(
                "the TPM holds the device's key devid{handle}, but the file of the key is \
                 missing in {}",
                self.folder().display()
            ),
            remedy: self.bring_back_file(),
        }
    }

    fn bring_back_file(&self) -> Remedy {
        Remedy::by_hand(format!(
            "Restore the file of the key in {} from a backup, and do not change the handle: only \
             the handle holds the key. Without a backup the identity is lost (devid reset --help)",
            self.folder().display()
        ))
    }

    /// Returns the command that continues the provisioning. The command does not wait if the device
    /// has no TPM.
    pub(super) fn going_on(seen: &Observed) -> &'static str {
        match seen.facts.tpm_is_there {
            true => "devid provision",
            false => "devid provision --wait 0",
        }
    }

    fn mismatch(&self, seen: &Observed) -> RefusalDetails {
        let unmatched = seen.unmatched.as_ref();
        let about = unmatched.map(|unmatched| self.about_stray(unmatched, seen));
        let subject = unmatched.map_or("the device".into(), Certificate::subject);
        let place = about.as_ref().map_or("?", |about| about.place.as_str());
        let text = format!(
            "{place}: the certificate of {subject} is for a key that this device does not have; \
             this certificate is not replaced"
        );
        let has_key = match about.as_ref().is_some_and(|about| about.software) {
            true => seen.software_key.is_some(),
            false => seen.own.is_some(),
        };
        let held = unmatched.and_then(|unmatched| self.orphan_of(unmatched));
        let remedy = match (held, about.and_then(|about| about.file)) {
            (Some(handle), _) => Remedy::by_hand(format!(
                "The key of the certificate is still in handle 0x{handle:08X}. {}",
                self.bring_back_file()
            )),
            // If the certificate moves away, the remaining key has no certificate. The next run
            // makes a certificate for it.
            (None, Some(file)) if has_key => {
                let name = file.file_name().unwrap_or_default();
                let aside = self.config.state.join(name);
                let aside = match is_there(&aside) {
                    Ok(false) => Ok(aside),
                    _ => free_name(&aside, "aside"),
                };
                Remedy::to_free_name(
                    "Restore the key of this certificate. Or, if the key that the device has is \
                     the right one, run",
                    &[&file],
                    aside,
                    |aside| {
                        let moved = format!("mv -nT {} {}", word(&file), word(aside));
                        format!("{moved} && {}", Self::going_on(seen))
                    },
                )
            }
            (None, Some(_)) => Remedy::by_hand(
                "Restore the file of the certificate's key from a backup. Without a backup the \
                 identity is lost, and only devid reset makes a new identity",
            ),
            (None, None) => Remedy::by_hand(
                "Restore the file of the certificate's key from a backup. Or set nv_index to \
                 another index under [provision] in config.toml",
            ),
        };
        RefusalDetails {
            kind: IdentityErrorKind::Refused,
            id: "identity.mismatch",
            text,
            remedy,
        }
    }

    fn about_stray(&self, unmatched: &Certificate, seen: &Observed) -> UnmatchedCertificate {
        if seen.software.certificate().ok().flatten().as_ref() == Some(unmatched) {
            let path = seen.software.certificate_path();
            return UnmatchedCertificate {
                place: path.display().to_string(),
                file: Some(path),
                software: true,
            };
        }
        let own = self.own_entities().unwrap_or_default();
        let mut placed = own.into_iter().flat_map(|one| one.certificates);
        let file = placed.find(|placed| placed.certificate == *unmatched);
        let file = file.map(|placed| self.own.file(&placed.file));
        let index = self.config.provision.nv_index.unwrap_or_default();
        UnmatchedCertificate {
            place: match &file {
                Some(file) => file.display().to_string(),
                None => format!("NV index 0x{index:08X}"),
            },
            file,
            software: false,
        }
    }

    /// Returns the handle with the key of the certificate, if no file of a key folder names this
    /// handle.
    fn orphan_of(&self, certificate: &Certificate) -> Option<u32> {
        let public = certificate.public_key()?;
        let orphans = self.orphans().unwrap_or_default().into_iter();
        let mut keys = orphans.map(|orphan| orphan.0);
        let is_its =
            |key: &KeyInHandle| PublicArea::parse(&key.area).is_some_and(|area| area.key == public);
        keys.find(is_its).map(|key| key.handle)
    }

    fn existing_unusable(&self, seen: &Observed) -> RefusalDetails {
        // If the identity is in files, it does not matter whether the TPM answers.
        let by_uri = matches!(
            self.config.provision.existing,
            Some(config::ExistingSource::Uri(_))
        );
        let ExistingIdentity { state, text, .. } = &seen.existing;
        debug_assert_eq!(*state, ExistingState::Unusable);
        let tpm = seen.tpm_fault.as_ref().filter(|_| by_uri);
        let silence = tpm.filter(|fault| !text.contains(&fault.text));
        let silence = silence.map_or(String::new(), |_| format!(" ({})", self.silence(seen)));
        RefusalDetails {
            kind: tpm.map_or(IdentityErrorKind::Refused, |_| IdentityErrorKind::Tpm),
            id: "identity.existing",
            text: format!("existing under [provision]: {text}{silence}; no other identity is made"),
            remedy: Remedy::by_hand(
                "Repair this identity. Or remove existing under [provision] from config.toml, so \
                 that devid provision makes an own identity",
            ),
        }
    }
}
