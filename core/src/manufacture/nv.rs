//! Certificates in NV: check, define, write, read back, lock.

use super::certificates::GivenCertificate;
use super::steps::{Action, Step, StepState};
use super::{KeyPlace, Maker, Product, by_platform};
use crate::identity::IdentityError;
use crate::tpm::{NvHierarchy, NvProgress, NvPublic, TpmError};

/// The certificates to write.
#[derive(Debug, Clone)]
pub struct Contents {
    /// Certificates of keys, each with the handle and NV index of its key.
    pub keys: Vec<(KeyPlace, GivenCertificate)>,
    /// The certificate of the CA that issued them, and its NV index.
    pub ca: Option<(u32, GivenCertificate)>,
    /// The hierarchy that owns the indices.
    pub by: NvHierarchy,
}

/// Bytes for an NV index.
struct Filling {
    what: String,
    index: u32,
    bytes: Vec<u8>,
}

impl Maker {
    /// Writes certificates to NV, that of the IDevID last, so that the identity appears only when
    /// complete. With `dry_run` only returns the steps. The notes tell deviations from IEEE
    /// 802.1AR.
    ///
    /// # Errors
    ///
    /// All checks come before the first write. Refused are a certificate for another key or device,
    /// and a certificate that IEEE 802.1AR forbids. An index with other contents and a TPM with
    /// another identity are refused too.
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
        // The certificate of the IDevID comes last.
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
                    "the {} has {} bytes, and an NV index of this TPM holds {most}. Nothing was written",
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

    /// The progress of filling an index; refused if it holds other bytes.
    fn progress(&self, filling: &Filling, by: NvHierarchy) -> Result<NvProgress, IdentityError> {
        let index = filling.index;
        let refused = |why: String| {
            Err(IdentityError::refused(format!(
                "NV index 0x{index:08X} is not free for the {}: {why}. It stays as it is",
                filling.what
            )))
        };
        match self.tpm.nv_progress(index, &filling.bytes, by)? {
            NvProgress::Other(why) => refused(why),
            NvProgress::Filled(about) if NvHierarchy::of(about) != by => {
                let there = NvHierarchy::of(about);
                refused(format!(
                    "it holds that certificate already, by the {} hierarchy, and TPM2_Clear {} it; --by {} takes it \
                     as it is",
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
            // An index of another tool may not support locking.
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
            // Read back before the lock makes the content final.
            if action == Action::Write && !dry_run {
                match self.tpm.nv_progress(index, bytes, by)? {
                    NvProgress::Filled(_) => {}
                    _ => {
                        return Err(IdentityError::failed(format!(
                            "NV index 0x{index:08X} does not give back the {what} that was written to it; it was not \
                             locked"
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
                "the TPM has no room for the {what} ({} bytes, NV index 0x{index:08X}; it answered {code}). Nothing \
                 was freed: run again when there is room",
                bytes.len()
            )),
            error if error.is_transport_fault() => IdentityError::new(
                crate::identity::IdentityErrorKind::Tpm,
                format!(
                    "{what}, {action:?} of NV index 0x{index:08X}: {error}. The command may have \
                     run: run again to continue"
                ),
            ),
            _ if by == NvHierarchy::Platform => by_platform(error),
            _ => error.into(),
        }
    }
}
