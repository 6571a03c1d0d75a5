//! Provisions the device: observes its state, takes the next step of the table in `state.rs`, and
//! repeats both. So a run after an interruption continues the interrupted run.

use super::IdentityError;
use super::device::Device;
use super::entry::OWN;
use super::existing::ExistingIdentity;
use super::marker::MarkerFile;
use super::observe::Observed;
use super::output_file::{FileKind, OutputFile};
use super::signer::Signer;
use super::software::{Software, make_folder};
use super::state::{Certified, ExistingState, Facts, Plan, Policy, TpmKey};
use crate::config::{Config, OwnIdentity};
use crate::file::{self, Lock};
use crate::key::{Curve, PublicKey};
use crate::store::devid::{DevidStore, KeyAlgorithm, KeyPurpose, OpenedBy};
use crate::store::folder::{EntryContent, KeyOrigin, ObjectAttributes, Usage, Use};
use crate::store::{Key, Protection};
use crate::system::{pause, random_digits};
use crate::waiting::WaitLines;
use crate::writers::{NoLock, lives, no_lock, open_lock, remove_leftovers};
use crate::x509::{Certificate, RequestContent, Subject, SubjectTemplate, request_pem};
use log::{info, warn};
use rustix::fs::{Mode, OFlags, lstat, open};
use rustix::io::Errno;
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// The setting in config.toml of devices that use only the factory identity.
pub(super) const UNWANTED: &str = "[provision] own = false";
/// The maximum number of steps of a run. No device needs more.
const MOST_STEPS: usize = 8;
const PAUSE: Duration = Duration::from_millis(200);
const REQUEST: FileKind = FileKind::Pem("CERTIFICATE REQUEST");
/// The longest time to wait while another run of `devid provision` holds the lock.
const PATIENCE: Duration = Duration::from_secs(60);

/// The options of `devid provision`.
#[derive(Debug, Clone, Default)]
pub struct Provisioning {
    /// The longest time to wait for a TPM that does not answer, if the next step depends on its
    /// answer.
    pub wait: Duration,
    /// The destination of a certificate request. With a request, the device makes no certificate.
    pub request: Option<RequestTarget>,
    /// The subject of the certificate or request. The default is the subject of the factory
    /// identity.
    pub subject: Option<SubjectTemplate>,
    /// True if the user wants a new certificate. A device with a software identity then moves to
    /// its TPM, if the configuration permits that.
    pub new_certificate: bool,
}

/// The options of `devid provision`, with the subject resolved for this device.
pub(super) struct Work<'a> {
    pub(super) request: Option<&'a RequestTarget>,
    /// The subject in the format of RFC 4514, and as a name.
    pub(super) subject: Option<(String, Subject)>,
    pub(super) new_certificate: bool,
    /// True if the device moves from its software key to a TPM key.
    pub(super) moves: bool,
}

/// Where the certificate request is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestTarget {
    /// The request is returned in [`Provisioned::request`].
    Answer,
    /// A file.
    File(OutputFile),
}

/// The result of `devid provision`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Provisioned {
    /// Where the key of the identity is: `tpm` or `software` (in a file).
    pub mode: &'static str,
    /// The steps of the run, as text. Empty if no step was needed.
    pub steps: Vec<String>,
    /// The steps that were omitted, with the reasons. The identity is usable without them.
    pub notes: Vec<String>,
    /// The certificate request (PKCS#10, PEM), if the caller asked for it in the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// True if the identity has no certificate yet, because a CA has not answered.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
}

impl Policy {
    pub(super) fn from_config(config: &Config) -> Self {
        Self {
            own: config.provision.own,
            fallback: config.provision.fallback,
            leave_software: config.provision.leave_software,
        }
    }

    /// Returns the policy of `devid provision`. The command itself requests an identity, unless the
    /// configuration forbids that.
    fn asked(self) -> Self {
        let own = match self.own {
            OwnIdentity::Unset | OwnIdentity::Wanted => OwnIdentity::Wanted,
            OwnIdentity::Unwanted => OwnIdentity::Unwanted,
        };
        Self { own, ..self }
    }
}

/// Makes the identity `devid`, if the device does not have it. The device runs this function at
/// each start.
///
/// # Errors
///
/// Fails if the table refuses a step, or if a step fails. No existing identity is lost.
pub fn provision(config: &Config, how: &Provisioning) -> Result<Provisioned, IdentityError> {
    if let Some(RequestTarget::File(file)) = &how.request {
        file.check(REQUEST)?;
    }
    make_folder(&config.state)?;
    let _only_one = only_one(&config.state)?;
    tidy(&Device::new(config.clone()));
    let policy = Policy::from_config(config).asked();
    let (mut device, mut seen) = wait_for_tpm(config, policy, how.wait)?;
    let mut done = Provisioned::default();
    let mut work = device.work(&seen, policy, how)?;
    if work.new_certificate && !work.moves && work.request.is_none() {
        device.certify_anew(&seen, policy, &work, &mut done)?;
        work.new_certificate = false;
        device = device.reopened();
        seen = device.observe()?;
    }
    for _ in 0..MOST_STEPS {
        if work.moves && seen.facts.certificate == Certified::SoftwareKey {
            seen.facts.certificate = Certified::None;
        }
        if let Some(fault) = seen.unread_now.take_if(|_| !seen.facts.reset) {
            return Err(IdentityError::failed(format!(
                "{fault}. Nothing was changed, because the unreadable file may hold the identity \
                 of the device. Run devid provision again when the file can be read"
            )));
        }
        let plan = seen.facts.plan(policy);
        info!("{:?}: {plan:?}", seen.facts);
        let quiet = device.step(plan, &seen, &work, &mut done);
        if !done.steps.is_empty() {
            device.tell_others();
        }
        if let Some(mode) = quiet? {
            return Ok(Provisioned { mode, ..done });
        }
        // The device is opened again after each step, because a key remembers its first
        // observation.
        device = device.reopened();
        // If the TPM answered earlier in this run, the device has a TPM, even if the TPM does not
        // answer now.
        let was_there = seen.facts.tpm_is_there;
        seen = device.observe()?;
        seen.facts.tpm_is_there |= was_there;
    }
    Err(IdentityError::failed(format!(
        "provisioning did not end after these steps: {}",
        done.steps.join("; ")
    )))
}

/// Waits for a TPM that does not answer, while its answer could change the next step. Repeats a TPM
/// command until the time limit. Returns the device and the last observation. The returned device
/// does not ask a TPM that did not answer.
fn wait_for_tpm(
    config: &Config,
    policy: Policy,
    limit: Duration,
) -> Result<(Device, Observed), IdentityError> {
    let (began, lines) = (Instant::now(), WaitLines::new());
    let end = began + limit;
    let mut was_there = false;
    loop {
        let device = Device::new(config.clone());
        let mut seen = device.observe()?;
        seen.facts.tpm_is_there |= was_there;
        was_there = seen.facts.tpm_is_there;
        let Facts { tpm, existing, .. } = seen.facts;
        let with = |tpm| seen.facts.with_tpm(tpm).plan(policy);
        let matters = with(true) != with(false)
            || with(true) == Plan::UseFactory
            || existing == ExistingState::Unusable;
        if tpm || !matters || Instant::now() >= end {
            return Ok((device, seen));
        }
        lines.tell((began, Instant::now()), limit, |_| {
            format!("the TPM at {} does not answer", config.tcti)
        });
        pause(PAUSE);
    }
}

impl Device {
    /// Takes one step of the table in `state.rs`. If no step remains, returns where the identity is
    /// (`tpm` or `software`).
    fn step(
        &self,
        plan: Plan,
        seen: &Observed,
        how: &Work,
        done: &mut Provisioned,
    ) -> Result<Option<&'static str>, IdentityError> {
        match plan {
            Plan::Refuse(why) => return Err(self.refusal(why, seen)),
            Plan::UseExisting => return used(&seen.existing, how).map(Some),
            Plan::UseFactory => {
                if how.request.is_some() {
                    return Err(no_own_key());
                }
                let usable = self.factory_identity().usable();
                usable.map_err(|fault| fault.while_doing(UNWANTED))?;
                return Ok(Some("tpm"));
            }
            Plan::Reset => {
                self.erase(seen)?;
                done.steps
                    .push("erased all keys and certificates that devid made".into());
            }
            Plan::Generate => {
                let name = self.make_key()?;
                done.steps.push(format!("made a key in the TPM: {name}"));
            }
            Plan::Persist => done.steps.push(self.persist_own(seen)?),
            Plan::Certify => {
                if seen.facts.key == TpmKey::Displaced {
                    done.steps.push(self.persist_own(seen)?);
                    return Ok(None);
                }
                let waits = self.waits(how, done)?;
                if self.is_requested(seen, how, done)? || waits {
                    if how.moves {
                        return Ok(Some("software"));
                    }
                    self.mark(seen)?;
                    return Ok(Some("tpm"));
                }
                done.steps.push(self.certify_own(seen, how)?);
                self.stop_awaiting()?;
            }
            Plan::MakeSoftware => {
                seen.software.make_key()?;
                let path = seen.software.key_path();
                done.steps
                    .push(format!("made a software key: {}", path.display()));
            }
            Plan::CertifySoftware => {
                let waits = self.waits(how, done)?;
                if self.is_requested(seen, how, done)? || waits {
                    return Ok(Some("software"));
                }
                let signer = self.signer(seen)?;
                let certificate = signer.self_signed(self.subject(how, signer.public())?)?;
                seen.software.keep(&certificate, &[])?;
                self.stop_awaiting()?;
                done.steps
                    .push(format!("certificate made: {}", certificate.subject()));
            }
            Plan::KeepSoftware => {
                self.is_requested(seen, how, done)?;
                // After the move to the TPM, the new identity may still wait for its certificate
                // from a CA.
                match seen
                    .own
                    .as_ref()
                    .is_some_and(|own| own.certificates.is_empty())
                {
                    true => drop(self.waits(how, done)?),
                    false => self.stop_awaiting()?,
                }
                return Ok(Some("software"));
            }
            Plan::Keep => {
                self.is_requested(seen, how, done)?;
                self.stop_awaiting()?;
                self.mark(seen)?;
                self.copy_certificate(seen, done)?;
                if seen.facts.software {
                    seen.software.retire()?;
                    done.steps
                        .push("set the software key aside (devid prune deletes it)".into());
                }
                return Ok(Some("tpm"));
            }
        }
        Ok(None)
    }

    /// Returns the current or future key of the identity. This is the TPM key if it exists, unless
    /// the plan keeps the software key.
    pub(super) fn signer<'a>(&'a self, seen: &'a Observed) -> Result<Signer<'a>, IdentityError> {
        let in_software = matches!(
            seen.facts.plan(Policy::from_config(&self.config)),
            Plan::KeepSoftware | Plan::CertifySoftware
        );
        let key = match in_software {
            true => seen.software_key.as_ref(),
            false => seen.own.as_ref().map(|own| &*own.key),
        };
        Ok(Signer(&self.tpm, key.ok_or_else(gone)?))
    }

    /// Writes a certificate request, if the options require one.
    fn is_requested(
        &self,
        seen: &Observed,
        how: &Work,
        done: &mut Provisioned,
    ) -> Result<bool, IdentityError> {
        let Some(target) = how.request else {
            return Ok(false);
        };
        let signer = self.signer(seen)?;
        let subject = self.subject(how, signer.public())?;
        let pem = request_pem(&signer.request(&subject, &RequestContent::default())?);
        match target {
            RequestTarget::Answer => done.request = Some(pem),
            RequestTarget::File(file) => {
                file.write(pem.as_bytes(), REQUEST, 0o644)?;
                let path = file.path().display();
                done.steps
                    .push(format!("wrote a certificate request: {path}"));
            }
        }
        Ok(true)
    }

    /// Creates a key in the folder and in a persistent handle. Creates the master key before that,
    /// if it is missing.
    fn make_key(&self) -> Result<String, IdentityError> {
        let usage = KeyPurpose {
            signs: true,
            decrypts: false,
        };
        let key = self.own.generate(
            KeyAlgorithm::Ec(Curve::P256),
            usage,
            Protection::Tpm,
            OpenedBy::User,
        )?;
        // Applications must not change the attributes of the identity `devid`.
        let described = |uses: Use| ObjectAttributes {
            modifiable: false,
            destroyable: false,
            usage: Some(Usage::NONE.with(uses)),
            ..ObjectAttributes::labelled(OWN)
        };
        let (private, public) = (described(Use::Sign), described(Use::Verify));
        let origin = KeyOrigin::Generated;
        Ok(self.own.keep(&key, origin, private, Some(public), true)?)
    }

    fn persist_own(&self, seen: &Observed) -> Result<String, IdentityError> {
        let own = seen.own.as_ref().ok_or_else(gone)?;
        let handle = self.own.persist_again(&own.file)?;
        Ok(format!("put the key back into handle 0x{handle:08X}"))
    }

    fn certify_own(&self, seen: &Observed, how: &Work) -> Result<String, IdentityError> {
        let signer = self.signer(seen)?;
        let certificate = signer.self_signed(self.subject(how, signer.public())?)?;
        let subject = certificate.subject();
        self.keep_certificate(&self.own, certificate, OWN, false)?;
        Ok(format!("made a certificate: {subject}"))
    }

    /// Stores a certificate in a key folder. Returns the name of the file.
    pub(super) fn keep_certificate(
        &self,
        store: &DevidStore,
        certificate: Certificate,
        label: &str,
        destroyable: bool,
    ) -> Result<String, IdentityError> {
        let description = certificate_attributes(label, destroyable);
        Ok(store.add(EntryContent::Certificate(certificate, description))?)
    }

    fn subject(&self, how: &Work, public: &PublicKey) -> Result<Subject, IdentityError> {
        match &how.subject {
            Some((_, subject)) => Ok(subject.clone()),
            None => self.own_subject(public),
        }
    }

    /// Copies the certificate `devid` from the key folder to the NV index, or from the NV index to
    /// the key folder, if one of the two lacks it.
    fn copy_certificate(
        &self,
        seen: &Observed,
        done: &mut Provisioned,
    ) -> Result<(), IdentityError> {
        let own = seen.own.as_ref().ok_or_else(gone)?;
        let Some(certificate) = own.certificates.first() else {
            return Ok(());
        };
        if own.certificates_in_folder == 0 {
            self.keep_certificate(&self.own, certificate.clone(), OWN, false)?;
            let subject = certificate.subject();
            done.steps.push(format!(
                "restored the certificate from NV memory: {subject}"
            ));
        }
        done.notes.extend(self.keep_copy(certificate)?);
        Ok(())
    }

    fn mark(&self, seen: &Observed) -> Result<(), IdentityError> {
        let own = seen.own.as_ref().ok_or_else(gone)?;
        self.mark_key(&own.key)
    }

    /// Writes a marker file that names the key of the identity `devid`.
    pub(super) fn mark_key(&self, key: &Key) -> Result<(), IdentityError> {
        let path = &self.config.provision.marker;
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        let mark = MarkerFile {
            handle: key.handle(),
            name: key.name().map(<[u8]>::to_vec),
        };
        mark.write(path)
    }

    /// Touches the generation file, so that running programs scan the TPM and the key folders again
    /// before their next search.
    pub(super) fn tell_others(&self) {
        let path = &self.config.generation;
        let told = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| file::write(path, random_digits()?.as_bytes(), 0o644));
        if told.is_err() {
            warn!(
                "{}: this file cannot be written, so other programs notice the change late",
                path.display()
            );
        }
    }
}

/// Returns the attributes of a certificate in a key folder.
pub(super) fn certificate_attributes(label: &str, destroyable: bool) -> ObjectAttributes {
    ObjectAttributes {
        destroyable,
        modifiable: destroyable,
        ..ObjectAttributes::labelled(label)
    }
}

fn gone() -> IdentityError {
    IdentityError::failed("the device's key devid does not exist any more")
}

/// Checks that an identity of another program (`[provision] existing`) can be used unchanged.
/// Returns where its key is.
fn used(existing: &ExistingIdentity, how: &Work) -> Result<&'static str, IdentityError> {
    if how.request.is_some() {
        return Err(IdentityError::refused(format!(
            "no request was made, because the device uses the identity of existing under \
             [provision]: {}. devid csr makes a request for a key of a token",
            existing.text
        )));
    }
    Ok(match existing.in_tpm {
        true => "tpm",
        false => "software",
    })
}

/// Returns the error for a request on a device that uses only the factory identity.
fn no_own_key() -> IdentityError {
    IdentityError::refused(format!(
        "{UNWANTED}: the device has no own key, so no request was written. devid csr idev-id makes \
         a request for the factory key. Without this setting, devid provision --csr makes an own \
         key and a request"
    ))
}

/// The file in the state folder that a provisioning run locks.
pub(super) const LOCK: &str = ".provision.lock";

/// If something other than a regular file has the name of the lock file, returns its type.
pub(super) fn provision_lock(state: &Path) -> Option<&'static str> {
    no_lock(&lstat(state.join(LOCK)).ok()?)
}

/// Takes the lock of `devid provision`. Without the lock, two runs at the same time would make two
/// keys.
pub(super) fn only_one(state: &Path) -> Result<Lock, IdentityError> {
    let path = state.join(LOCK);
    let fault = |error: Errno| IdentityError::file(&path)(error.into());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open(state, flags, Mode::empty()).map_err(fault)?;
    let fd = open_lock(&folder, LOCK, true).map_err(|why| match why {
        NoLock::System(error) => fault(error),
        NoLock::InTheWay(what) => IdentityError::failed(format!(
            "{}: {what}, so nothing was done. Check the file and remove it",
            path.display()
        )),
    })?;
    let lock =
        Lock::take(fd, PATIENCE).map_err(|failed| IdentityError::file(&path)(failed.into()))?;
    lock.ok_or_else(|| {
        IdentityError::failed(format!(
            "{}: another devid process is provisioning; run the command again when that process \
             has ended",
            path.display()
        ))
    })
}

/// Removes temporary files that killed runs left in the key folders.
pub(super) fn tidy(device: &Device) {
    let config = &device.config;
    let software = Software::in_state(&config.state);
    let folders = [
        Some(config.state.as_path()),
        config.provision.marker.parent(),
        Some(software.folder()),
        config.owner.certificates.parent(),
    ];
    for folder in folders.into_iter().flatten() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Ok(folder) = open(folder, flags, Mode::empty()) {
            let _ = remove_leftovers(&folder, lives);
        }
    }
    device.stores().for_each(DevidStore::tidy);
}
