//! Why nothing is done, and what helps.

use super::device::Device;
use super::existing;
use super::free_name::free_name;
use super::observe::{Observed, OwnKey};
use super::permissions::of_unread;
use super::remedy::Mend;
use super::state::{Existing, Refusal};
use super::{IdentityError, IdentityErrorKind};
use crate::config::{self, Own};
use crate::shell::word;
use crate::store::devid::KeyInHandle;
use crate::tpm::PublicArea;
use crate::trouble::is_there;
use crate::x509::Certificate;
use std::path::PathBuf;

/// A refusal in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Explained {
    kind: IdentityErrorKind,
    /// What it is called wherever programs read it.
    pub(super) id: &'static str,
    pub(super) text: String,
    pub(super) mend: Mend,
}

/// A certificate of the device's own identity whose key is not here.
struct Stray {
    place: String,
    file: Option<PathBuf>,
    /// Whether it is the software identity's.
    software: bool,
}

/// Whether the TPM is the one that the key folder is from.
enum Whose {
    /// It holds keys as ours that no file names: it is from another device, or the folder is.
    Others,
    /// It holds none: it was cleared, or is new.
    Nobodys,
}

fn untrusted(seen: &Observed) -> Explained {
    let why = seen.untrusted.as_ref();
    Explained {
        kind: IdentityErrorKind::Refused,
        id: "identity.untrusted",
        text: why.map_or("the state folder".into(), |why| {
            format!("{}, so it is not believed; nothing was changed", why.text)
        }),
        mend: why.map_or(Mend::by("See who may write there"), |why| why.mend.clone()),
    }
}

impl From<Explained> for IdentityError {
    fn from(why: Explained) -> Self {
        Self::new(why.kind, format!("{}. {}", why.text, why.mend))
    }
}

impl Device {
    /// Why nothing is done, and what to do.
    pub(super) fn refusal(&self, why: Refusal, seen: &Observed) -> IdentityError {
        self.explained(why, seen).into()
    }

    /// The same in its parts.
    pub(super) fn explained(&self, why: Refusal, seen: &Observed) -> Explained {
        let tpm = self.silence(seen);
        let of_tpm = |id, text, mend| Explained {
            kind: IdentityErrorKind::Tpm,
            id,
            text,
            mend,
        };
        match why {
            Refusal::NoTpm => of_tpm(
                "identity.no-tpm",
                format!("{tpm}, and the device has no identity of its own"),
                Mend::by(
                    "Bring the TPM to answer (devid doctor says how); or allow an identity in \
                     files, by fallback = \"software\" under [provision] in config.toml, and run \
                     devid provision",
                ),
            ),
            Refusal::TpmSilent => of_tpm(
                "identity.tpm-silent",
                format!("{tpm}; there is a TPM, so no software identity is made in its place"),
                Mend::by(match self.config.provision.own {
                    // The factory's identity may be all that is missed.
                    Own::Unset | Own::Unwanted => "devid doctor says why it does not answer",
                    Own::Wanted => "devid doctor says why it does not answer; then devid provision",
                }),
            ),
            Refusal::TpmGone => of_tpm(
                "identity.tpm-gone",
                format!(
                    "{tpm}; the device's identity is in its TPM, and nothing is put in its place"
                ),
                Mend::by("Once the TPM answers, nothing is to be done (devid doctor says more)"),
            ),
            Refusal::ResetNeedsTpm => of_tpm(
                "identity.reset-waits",
                format!(
                    "{tpm}; a reset without the TPM would leave keys in it, or the device without \
                     identity. Nothing was deleted; it is done at the next start at which the TPM \
                     answers"
                ),
                self.no_reset(),
            ),
            // What seems to be lost may be in a file that cannot be read now.
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

    /// What takes back that a reset was asked for.
    pub(super) fn no_reset(&self) -> Mend {
        let request = self.reset_request();
        let command = format!("rm {}", word(&request));
        Mend::on("To have no reset", &[&request], command)
    }

    /// Where the TPM is, and why it does not answer.
    fn silence(&self, seen: &Observed) -> String {
        match &seen.tpm_fault {
            Some(fault) => format!("{}: {fault}", self.config.tcti),
            None => self.config.tcti.to_string(),
        }
    }

    fn key_lost(&self, seen: &Observed) -> Explained {
        let lost = seen.own.as_ref().and_then(|own| own.lost.as_deref());
        let lost = lost.unwrap_or("the marker names one that is gone");
        let held = self.own.master_is_held();
        let (text, mend) = match held {
            Ok(Some(true)) => (
                format!(
                    "the device's key is not here ({lost}), though the TPM holds the master key as \
                     before: the file of the key was lost, or changed"
                ),
                self.bring_back_file(),
            ),
            Ok(_) | Err(_) => {
                let behind_pin = |own: &OwnKey| own.key.auth_salt().is_some();
                let text = match seen.own.as_ref().is_some_and(behind_pin) {
                    true => format!("the device's key cannot be used any more: {lost}"),
                    false => format!(
                        "the TPM does not hold the device's key any more ({lost}): it was cleared \
                         or exchanged"
                    ),
                };
                (text, self.other_tpm())
            }
        };
        Explained {
            kind: IdentityErrorKind::Refused,
            id: "identity.key-lost",
            text,
            mend,
        }
    }

    /// What helps where this TPM has not got the keys of the folder.
    pub(super) fn other_tpm(&self) -> Mend {
        let folder = self.folder();
        let folder = folder.display();
        match self.whose() {
            // A reset would take those from whoever they belong to.
            Whose::Others => Mend::by(format!(
                "This TPM holds keys of another key folder: bring together again what belongs \
                 together, the TPM of {folder} or the folder of this TPM"
            )),
            Whose::Nobodys => {
                let state = &self.config.state;
                Mend::aside(
                    format!(
                        "Bring back the TPM that {folder} belongs to. Only if it was cleared, its \
                         keys are lost for good, and a new identity begins with"
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

    fn whose(&self) -> Whose {
        let handle = self.config.master.handle;
        // What cannot be asked may be there.
        let orphans = self.orphans();
        let orphans = orphans.map_or(true, |orphans| !orphans.is_empty());
        let held = self.own.master_is_held().ok().flatten() == Some(true);
        let wraps = self.tpm.handles(handle).map_or(true, |all| {
            // The first from there on.
            all.first() == Some(&handle)
        });
        match orphans || (wraps && !held) {
            true => Whose::Others,
            false => Whose::Nobodys,
        }
    }

    /// What is missing is not gone as long as it may be in a file.
    fn unreadable(&self, seen: &Observed) -> Explained {
        let folder = self.folder();
        let first = seen.unread.first().cloned().unwrap_or_default();
        let (path, why) = (folder.join(&first.file), first.why);
        let others = match seen.unread.len() {
            0 | 1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        Explained {
            kind: IdentityErrorKind::Refused,
            id: "identity.unreadable",
            text: format!(
                "{}: {why}{others}; the device's identity may be in it, so nothing is put in its \
                 place",
                path.display()
            ),
            mend: of_unread(&folder, &path, first.by_content),
        }
    }

    fn file_lost(&self, seen: &Observed) -> Explained {
        let handle = seen.lost_handle();
        let handle = handle.map_or(String::new(), |handle| format!(" at 0x{handle:08X}"));
        Explained {
            kind: IdentityErrorKind::Refused,
            id: "identity.file-lost",
            text: format!(
                "the TPM holds the device's key{handle}, but its file is gone from {}",
                self.folder().display()
            ),
            mend: self.bring_back_file(),
        }
    }

    fn bring_back_file(&self) -> Mend {
        Mend::by(format!(
            "Put its file back into {} from a copy, and leave the handle as it is: nothing else \
             has the key. Without a copy the identity can only be given up (devid reset --help)",
            self.folder().display()
        ))
    }

    /// What goes on with the table; without waiting where there is nothing to wait for.
    pub(super) fn going_on(seen: &Observed) -> &'static str {
        match seen.facts.tpm_is_there {
            true => "devid provision",
            false => "devid provision --wait 0",
        }
    }

    fn mismatch(&self, seen: &Observed) -> Explained {
        let stray = seen.stray.as_ref();
        let about = stray.map(|stray| self.about_stray(stray, seen));
        let subject = stray.map_or("the device".into(), Certificate::subject);
        let place = about.as_ref().map_or("?", |about| about.place.as_str());
        let text = format!(
            "{place}: the certificate of {subject} is for a key that this device does not have; \
             nothing is put over it"
        );
        let has_key = match about.as_ref().is_some_and(|about| about.software) {
            true => seen.software_key.is_some(),
            false => seen.own.is_some(),
        };
        let held = stray.and_then(|stray| self.orphan_of(stray));
        let mend = match (held, about.and_then(|about| about.file)) {
            (Some(handle), _) => Mend::by(format!(
                "Its key is whole in handle 0x{handle:08X}. {}",
                self.bring_back_file()
            )),
            // What stays is a key without certificate, and gets one.
            (None, Some(file)) if has_key => {
                let name = file.file_name().unwrap_or_default();
                let aside = self.config.state.join(name);
                let aside = match is_there(&aside) {
                    Ok(false) => Ok(aside),
                    _ => free_name(&aside, "aside"),
                };
                Mend::aside(
                    "Bring back its key; or, if the key that is here is the right one",
                    &[&file],
                    aside,
                    |aside| {
                        let moved = format!("mv -nT {} {}", word(&file), word(aside));
                        format!("{moved} && {}", Self::going_on(seen))
                    },
                )
            }
            (None, Some(_)) => Mend::by(
                "Bring back its key's file from a copy. Without one the identity is lost, and only \
                 devid reset begins another",
            ),
            (None, None) => Mend::by(
                "Bring back its key's file from a copy; or name another index by nv_index under \
                 [provision] in config.toml",
            ),
        };
        Explained {
            kind: IdentityErrorKind::Refused,
            id: "identity.mismatch",
            text,
            mend,
        }
    }

    fn about_stray(&self, stray: &Certificate, seen: &Observed) -> Stray {
        if seen.software.certificate().ok().flatten().as_ref() == Some(stray) {
            let path = seen.software.certificate_path();
            return Stray {
                place: path.display().to_string(),
                file: Some(path),
                software: true,
            };
        }
        let own = self.own_entities().unwrap_or_default();
        let mut placed = own.into_iter().flat_map(|one| one.certificates);
        let file = placed.find(|placed| placed.certificate == *stray);
        let file = file.map(|placed| self.own.file(&placed.file));
        let index = self.config.provision.nv_index.unwrap_or_default();
        Stray {
            place: match &file {
                Some(file) => file.display().to_string(),
                None => format!("NV index 0x{index:08X}"),
            },
            file,
            software: false,
        }
    }

    /// The handle that holds the certificate's key, though no file names it.
    fn orphan_of(&self, certificate: &Certificate) -> Option<u32> {
        let public = certificate.public_key()?;
        let orphans = self.orphans().unwrap_or_default().into_iter();
        let mut keys = orphans.map(|orphan| orphan.0);
        let is_its =
            |key: &KeyInHandle| PublicArea::parse(&key.area).is_some_and(|area| area.key == public);
        keys.find(is_its).map(|key| key.handle)
    }

    fn existing_unusable(&self, seen: &Observed) -> Explained {
        // A file that is missing is missing, whether the TPM answers or not.
        let by_uri = matches!(
            self.config.provision.existing,
            Some(config::Existing::Uri(_))
        );
        let existing::Found { state, text, .. } = &seen.existing;
        debug_assert_eq!(*state, Existing::Unusable);
        let tpm = seen.tpm_fault.as_ref().filter(|_| by_uri);
        let silence = tpm.filter(|fault| !text.contains(&fault.text));
        let silence = silence.map_or(String::new(), |_| format!(" ({})", self.silence(seen)));
        Explained {
            kind: tpm.map_or(IdentityErrorKind::Refused, |_| IdentityErrorKind::Tpm),
            id: "identity.existing",
            text: format!(
                "[provision] existing: {text}{silence}; nothing is made beside what is there"
            ),
            mend: Mend::by(
                "Make it whole; or take existing out of [provision] in config.toml, and devid \
                 provision makes an identity of our own",
            ),
        }
    }
}
