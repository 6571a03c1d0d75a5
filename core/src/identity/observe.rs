//! Observes the device: collects the facts from which the table of states chooses the next step.

use super::IdentityError;
use super::device::Device;
use super::entry::OWN;
use super::existing::ExistingIdentity;
use super::marker::MarkerFile;
use super::orphan::Orphan;
use super::prove::{NOT_TRIED, PossessionProof, prove};
use super::software::Software;
use super::state::{Certified, Facts, Marker, TpmKey};
use super::untrusted::UntrustedState;
use crate::store::folder::{KeyFolder, RefusedFile};
use crate::store::{Key, ObjectKind, Protection, ScanResult, SignError};
use crate::tpm::TpmError;
use crate::trouble::is_there;
use crate::x509::Certificate;
use log::warn;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const NOT_WRAPPED: &str = "the TPM does not hold the master key that wraps it";
const PIN_LOST: &str =
    "its use needs a PIN, but the TPM does not hold the master key that sealed the PIN";

/// The observed state of the device: facts for the table in `state.rs`, and the objects behind
/// them.
pub(super) struct Observed {
    pub(super) facts: Facts,
    pub(super) existing: ExistingIdentity,
    pub(super) own: Option<OwnKey>,
    pub(super) software: Software,
    pub(super) software_key: Option<Key>,
    pub(super) mark: Option<MarkerFile>,
    /// The handle of a device key that no file names. The key may belong to the identity.
    pub(super) orphan: Option<u32>,
    /// A certificate for a key that the device does not have.
    pub(super) unmatched: Option<Certificate>,
    /// The reason why devid cannot use the TPM, if any.
    pub(super) tpm_fault: Option<IdentityError>,
    /// Files in the key folder that hold no valid object and may belong to the identity.
    pub(super) unread: Vec<RefusedFile>,
    /// The reason why a key or certificate may be missing, if any: a file could not be read.
    pub(super) unread_now: Option<String>,
    /// The reason why another user may have written the state folder, if any.
    pub(super) untrusted: Option<UntrustedState>,
}

/// The TPM key of the identity `devid`.
pub(super) struct OwnKey {
    pub(super) file: String,
    pub(super) key: Arc<Key>,
    /// The certificates of the key. Valid certificates come first, and newer ones before older
    /// ones.
    pub(super) certificates: Vec<Certificate>,
    /// The number of certificates in the key folder. Other certificates come from the NV index.
    pub(super) certificates_in_folder: usize,
    /// The reason why the TPM does not load the key, if any.
    pub(super) lost: Option<String>,
}

impl Observed {
    /// Returns the handle of the key whose file is lost, if known.
    pub(super) fn lost_handle(&self) -> Option<u32> {
        let named = || self.mark.as_ref().and_then(|mark| mark.handle);
        self.orphan.or_else(named)
    }
}

impl Device {
    /// Collects all facts about the device for the table in `state.rs`. Changes nothing.
    ///
    /// # Errors
    ///
    /// Fails if an important source cannot be read, because the next step would be unknown.
    pub(super) fn observe(&self) -> Result<Observed, IdentityError> {
        let request = self.reset_request();
        let reset = is_there(&request).map_err(IdentityError::file(&request))?;
        // Before a factory reset, damaged files do not matter, because the reset removes them.
        let silent = self.tpm.random(&mut [0]).err();
        let tpm = silent.is_none();
        let half_there = matches!(
            silent,
            Some(
                TpmError::Broken(_)
                    | TpmError::WrongAnswer(_)
                    | TpmError::Timeout(_)
                    | TpmError::Busy(_)
                    | TpmError::Response(_)
            )
        );
        if tpm && !reset {
            self.unlock_or_lost()?;
        }
        let existing = self.existing();
        let mark = unless(reset, MarkerFile::read(&self.config.provision.marker))?;
        let listing = self.own.listing()?;
        let (mut own, certificates) = own_identity(&listing, mark.as_ref());
        let mut unread = listing.refused;
        unread.retain(may_be_ours);
        let orphan = match (&own, tpm) {
            (None, true) => self.orphans()?.into_iter().find(Orphan::could_be_identity),
            _ => None,
        };
        let key = match &mut own {
            None if orphan.is_some() => TpmKey::Orphaned,
            None => TpmKey::None,
            Some(_) if !tpm || reset => TpmKey::Filed,
            Some(own) => self.state_of(own)?,
        };
        let software = Software::in_state(&self.config.state);
        // This function only observes the device, so the user of this process needs no permission
        // to use the software key.
        let (software_key, software_public) = unless(reset, software.halves())?;
        let software_certificate = unless(reset, software.certificate())?;
        let public = own.as_ref().map(|own| own.key.public().clone());
        let of_key = |one: &Certificate| one.public_key().is_some() && one.public_key() == public;
        let in_folder = certificates.iter().filter(|one| of_key(one)).count();
        let mut certificates = certificates;
        let nv = match tpm {
            true => self.nv_copy()?,
            false => None,
        };
        let copy = nv.as_ref().and_then(|copy| {
            // An NV index of another program matters only if its certificate is for a key of the
            // identity `devid`.
            let certificate = copy.certificate.as_ref();
            certificate.filter(|one| copy.is_ours || of_key(one))
        });
        if !certificates.iter().any(of_key) {
            certificates.extend(copy.cloned());
        }
        if let Some(own) = &mut own {
            own.certificates_in_folder = in_folder;
            own.certificates = certificates
                .iter()
                .filter(|one| of_key(one))
                .cloned()
                .collect();
        }
        let of_software =
            |one: &Certificate| software_public.is_some() && one.public_key() == software_public;
        let mut all = certificates.iter().chain(&software_certificate);
        let unmatched = all.clone().find(|one| !of_key(one) && !of_software(one));
        let certificate = if all.clone().any(of_key) {
            Certified::TpmKey
        } else if all.any(of_software) {
            Certified::SoftwareKey
        } else if unmatched.is_some() {
            Certified::Neither
        } else {
            Certified::None
        };
        let untrusted = self.untrusted(&software, reset)?;
        let facts = Facts {
            reset,
            tpm,
            tpm_is_there: tpm || half_there || self.config.tcti.is_there(),
            existing: existing.state,
            certificate,
            key,
            software: software_public.is_some(),
            marker: self.marker_of(mark.as_ref(), own.as_ref(), tpm)?,
            unread: !unread.is_empty(),
            untrusted: untrusted.is_some(),
        };
        Ok(Observed {
            unmatched: unmatched.cloned(),
            orphan: orphan.map(|orphan| orphan.0.handle),
            facts,
            existing,
            own,
            software,
            software_key,
            mark,
            tpm_fault: silent.map(IdentityError::from),
            unread,
            unread_now: listing.unread,
            untrusted,
        })
    }

    /// Returns the path of the file that requests a factory reset.
    pub(super) fn reset_request(&self) -> PathBuf {
        reset_request(&self.config.state)
    }

    /// Finds the state of the TPM key: the key makes a signature.
    fn state_of(&self, own: &mut OwnKey) -> Result<TpmKey, IdentityError> {
        match prove(&self.tpm, &own.key, own.key.public()) {
            PossessionProof::Proven => {}
            PossessionProof::NotTried => return Err(IdentityError::failed(NOT_TRIED)),
            PossessionProof::NoSignature(SignError::Tpm(TpmError::ForeignKey(_))) => {
                own.lost = Some(NOT_WRAPPED.into());
                return Ok(TpmKey::Lost);
            }
            PossessionProof::OtherKey => {
                own.lost = Some("another key made the signature".into());
                return Ok(TpmKey::Lost);
            }
            PossessionProof::NoSignature(SignError::NotLoggedIn) => {
                return self.state_without_pin(own);
            }
            PossessionProof::NoSignature(SignError::Unloadable(why) | SignError::Refused(why)) => {
                let alone = match self.own.had_other_master() {
                    true => {
                        ". If devid master renew was run after the key was made, only the handle \
                         held the key; in this case only devid reset makes a new identity"
                    }
                    false => "",
                };
                return Err(IdentityError::refused(format!(
                    "{why}; this file holds the identity of the device, so it is not replaced. \
                     Restore the file from a backup{alone}"
                )));
            }
            PossessionProof::NoSignature(error) => return Err(error.into()),
        }
        let (Some(handle), Some(name)) = (own.key.handle(), own.key.name()) else {
            return Ok(TpmKey::Displaced);
        };
        Ok(match self.tpm.holds(handle, name)? {
            true => TpmKey::Held,
            false => TpmKey::Displaced,
        })
    }

    /// Finds the state of a TPM key whose PIN is not available. The TPM shows whether the handle
    /// holds the key.
    fn state_without_pin(&self, own: &mut OwnKey) -> Result<TpmKey, IdentityError> {
        if self.own.master_is_held()? == Some(false) {
            own.lost = Some(PIN_LOST.into());
            return Ok(TpmKey::Lost);
        }
        if let (Some(handle), Some(name)) = (own.key.handle(), own.key.name())
            && self.tpm.holds(handle, name)?
        {
            return Ok(TpmKey::Held);
        }
        Err(SignError::NotLoggedIn.into())
    }

    /// Logs in to the token `devid`. Ignores an error if the keys that need the PIN are lost in any
    /// case.
    fn unlock_or_lost(&self) -> Result<(), IdentityError> {
        match self.unlock() {
            Err(_) if self.own.master_is_held() == Ok(Some(false)) => Ok(()),
            other => other,
        }
    }

    fn marker_of(
        &self,
        mark: Option<&MarkerFile>,
        own: Option<&OwnKey>,
        tpm: bool,
    ) -> Result<Marker, IdentityError> {
        let Some(mark) = mark else {
            return Ok(Marker::None);
        };
        let Some(name) = mark.name.as_deref() else {
            return Ok(Marker::Nameless);
        };
        if own.is_some_and(|own| own.key.name() == Some(name)) {
            return Ok(Marker::ThisKey);
        }
        match mark.handle {
            Some(handle) if tpm && self.tpm.holds(handle, name)? => Ok(Marker::OtherKeyHeld),
            _ => Ok(Marker::OtherKey),
        }
    }
}

/// Returns the key of the identity `devid`, and all certificates with its label.
///
/// Applications may give this label to their keys. The key of the identity `devid` is the only one
/// that cannot be destroyed.
fn own_identity(
    listing: &ScanResult,
    mark: Option<&MarkerFile>,
) -> (Option<OwnKey>, Vec<Certificate>) {
    let (mut keys, mut certificates) = (Vec::new(), Vec::new());
    for shown in &listing.objects {
        match &shown.kind {
            ObjectKind::Pair { key, private, .. }
                if private.label == OWN
                    && !private.destroyable
                    && key.protection() == Protection::Tpm =>
            {
                keys.push(OwnKey {
                    file: shown.name.clone(),
                    key: Arc::clone(key),
                    certificates: Vec::new(),
                    certificates_in_folder: 0,
                    lost: None,
                });
            }
            ObjectKind::Certificate(certificate, about) if about.label == OWN => {
                // The scan lists key pairs before certificates. A certificate for a listed key
                // belongs to that key, even if it is a CA certificate.
                let public = certificate.public_key();
                let is_own = |own: &OwnKey| public.as_ref() == Some(own.key.public());
                if !certificate.is_ca() || keys.iter().any(is_own) {
                    certificates.push(certificate.clone());
                }
            }
            _ => {}
        }
    }
    let named = |own: &OwnKey| {
        let name = mark.and_then(|mark| mark.name.as_deref());
        name.is_some() && own.key.name() == name
    };
    let certified = |own: &OwnKey| {
        let public = Some(own.key.public().clone());
        certificates.iter().any(|one| one.public_key() == public)
    };
    // Normally there is one key. Two programs may have made a key at the same time.
    let chosen = keys.iter().position(named);
    let chosen = chosen.or_else(|| keys.iter().position(certified));
    let own = match (chosen, keys.is_empty()) {
        (Some(at), _) => Some(keys.swap_remove(at)),
        (None, false) => Some(keys.swap_remove(0)),
        (None, true) => None,
    };
    (own, certificates)
}

/// Returns true if a file without a valid object may belong to the identity `devid`. The file may
/// belong to it if the file is unreadable, or has a name that devid generates. A damaged file with
/// another name belongs to another program.
fn may_be_ours(file: &RefusedFile) -> bool {
    !file.by_content
        || file
            .file
            .strip_suffix(".pem")
            .is_some_and(KeyFolder::is_generated_name)
}

/// Returns `found`. If `found` is an error and a factory reset will remove the object, returns an
/// empty value.
fn unless<T: Default>(reset: bool, found: Result<T, IdentityError>) -> Result<T, IdentityError> {
    match found {
        Err(fault) if reset => {
            warn!("{fault}; the requested reset will remove it");
            Ok(T::default())
        }
        other => other,
    }
}

/// Returns the path of the file that requests a factory reset at the next provisioning.
pub(super) fn reset_request(state: &Path) -> PathBuf {
    state.join("factory-reset")
}
