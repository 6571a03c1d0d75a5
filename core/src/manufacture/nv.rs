//! Writes certificates to NV memory: checks each certificate, defines its NV index, writes it,
//! reads it back, and locks the index.

use super::certificates::GivenCertificate;
use super::steps::{Action, Step, StepState};
use super::{KeyPlace, Maker, Product, by_platform};
use crate::identity::IdentityError;
use crate::tpm::{NvHierarchy, NvProgress, NvPublic, TpmError};

/// The certificates that a maker writes to the NV memory of a device.
#[derive(Debug, Clone)]
pub struct Contents {
    /// The certificates of the factory keys. Each has the handle and the NV index of its key.
    pub keys: Vec<(KeyPlace, GivenCertificate)>,
    /// The certificate of the CA that issued the factory certificates, and the NV index for it.
    pub ca: Option<(u32, GivenCertificate)>,
    /// The hierarchy that authorises TPM2_NV_DefineSpace: owner or platform.
    pub by: NvHierarchy,
}

/// A certificate in DER, with the NV index that it is for.
struct Filling {
    what: String,
    index: u32,
    bytes: Vec<u8>,
}

impl Maker {
    /// Writes certificates to NV memory. The certificate of the IDevID is last, so that the
    /// identity appears only when it is complete. With `dry_run`, only returns the steps. The notes
    /// list deviations from IEEE 802.1AR.
    ///
    /// # Errors
    ///
    /// All checks come before the first write. The function refuses:
    ///
    /// - a certificate for another key or device;
    /// - a certificate that IEEE 802.1AR forbids;
    /// - an index with other content;
    /// - a TPM with another identity.
    pub fn install(
        &self,
        contents: &Contents,
        product: &Product,
        dry_run: bool,
    ) -> Result<(Vec<Step>, Vec<String>), IdentityError> {
        let mut keys = Vec::new();
        let mut notes = Vec::new();
        let mut fillings = Vec::new();
        let ca = contents.ca.as_ref().map(|(_, given)| given);
        if let Some((index, given)) = &contents.ca {
            given.check_ca()?;
            fillings.push(Filling {
                what: "CA certificate".into(),
                index: *index,
                bytes: given.certificate().der().to_vec(),
            });
        }
        // The certificate of the IDevID is written last, so that the identity appears only when it
        // is complete.
        for (place, given) in contents.keys.iter().rev() {
            let key = self.resident(place)?.area.key;
            let noted = given.check(place, &key, product, ca)?;
            let called = place.called();
            notes.extend(noted.iter().map(|check| format!("{called}: {check}")));
            fillings.push(Filling {
                what: format!("{called} certificate"),
                index: place.index,
                bytes: given.certificate().der().to_vec(),
            });
            keys.push(key);
        }
        self.refuse_others(&keys)?;
        let most = self.tpm.nv_index_max()?;
        let mut begun = Vec::new();
        for filling in &fillings {
            if filling.bytes.len() > most {
                return Err(IdentityError::refused(format!(
                    "the {} has {} bytes, but an NV index of this TPM holds at most {most}. \
                     Nothing was written",
                    filling.what,
                    filling.bytes.len()
                )));
            }
            begun.push(self.progress(filling, contents.by)?);
        }
        let mut steps = Vec::new();
        for (filling, progress) in fillings.iter().zip(begun) {
            self.fill(filling, progress, contents.by, dry_run, &mut steps)?;
        }
        Ok((steps, notes))
    }

    /// Returns how much of the certificate its NV index already holds. Fails if the index holds
    /// other bytes, or belongs to the other hierarchy.
    fn progress(&self, filling: &Filling, by: NvHierarchy) -> Result<NvProgress, IdentityError> {
        let index = filling.index;
        let refused = |why: String| {
            Err(IdentityError::refused(format!(
                "NV index 0x{index:08X} cannot hold the {}: {why}. The index was not changed",
                filling.what
            )))
        };
        match self.tpm.nv_progress(index, &filling.bytes, by)? {
            NvProgress::Other(why) => refused(why),
            NvProgress::Filled(about) if NvHierarchy::of(about) != by => {
                let there = NvHierarchy::of(about);
                refused(format!(
                    "the {} hierarchy already defined it with this certificate, and TPM2_Clear {} \
                     it; use --by {} to accept it",
                    there.name(),
                    if there.survives_clear() {
                        "keeps"
                    } else {
                        "deletes"
                    },
                    there.name()
                ))
            }
            other => Ok(other),
        }
    }

    fn fill(
        &self,
        filling: &Filling,
        progress: NvProgress,
        by: NvHierarchy,
        dry_run: bool,
        steps: &mut Vec<Step>,
    ) -> Result<(), IdentityError> {
        let Filling { what, index, bytes } = filling;
        let (index, value) = (*index, self.value(by));
        let is_made = |about: NvPublic| about.attributes & by.attributes() == by.attributes();
        let (mut defined, mut written, mut locked) = (true, true, true);
        match progress {
            NvProgress::Absent => (defined, written, locked) = (false, false, false),
            NvProgress::Begun(_) => (written, locked) = (false, false),
            // If another tool defined the NV index, its attributes may not permit
            // TPM2_NV_WriteLock.
            NvProgress::Filled(about) => locked = about.is_locked() || !is_made(about),
            NvProgress::Other(_) => {}
        }
        for (action, is_done) in [
            (Action::Define, defined),
            (Action::Write, written),
            (Action::Lock, locked),
        ] {
            let state = match (is_done, dry_run) {
                (true, _) => StepState::Already,
                (false, true) => StepState::Planned,
                (false, false) => {
                    let size = bytes.len() as u16;
                    let tpm = &self.tpm;
                    let done = match action {
                        Action::Define => tpm.nv_define_once(index, size, by, value),
                        Action::Write => tpm.nv_write_missing(index, bytes, by, value),
                        Action::Lock => tpm.nv_lock(index, by, value),
                        Action::Persist => Ok(()),
                    };
                    done.map_err(|error| self.not_written(error, action, filling, by))?;
                    StepState::Done
                }
            };
            steps.push(Step::nv(what, action, index, by, state));
            // The certificate is read back before the lock, because a locked NV index cannot be
            // corrected.
            if action == Action::Write && !dry_run {
                match self.tpm.nv_progress(index, bytes, by)? {
                    NvProgress::Filled(_) => {}
                    _ => {
                        return Err(IdentityError::failed(format!(
                            "NV index 0x{index:08X} returns other bytes than the {what} that was \
                             written, so it was not locked"
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    fn not_written(
        &self,
        error: TpmError,
        action: Action,
        filling: &Filling,
        by: NvHierarchy,
    ) -> IdentityError {
        let Filling { what, index, bytes } = filling;
        match &error {
            TpmError::Response(code) if code.is_no_room() => IdentityError::failed(format!(
                "the TPM has no space for the {what} ({} bytes, NV index 0x{index:08X}; it \
                 returned {code}). Nothing was deleted. Free NV memory, then run the command again",
                bytes.len()
            )),
            error if error.is_transport_fault() => IdentityError::new(
                crate::identity::IdentityErrorKind::Tpm,
                format!(
                    "{what}, {action:?} of NV index 0x{index:08X}: {error}. The TPM may have \
                     executed the command; run the command again to continue"
                ),
            ),
            _ if by == NvHierarchy::Platform => by_platform(error),
            _ => error.into(),
        }
    }
}
