//! The table that decides the next step towards the identity `devid`. The table is a pure function:
//! it reads nothing and writes nothing.
//!
//! The table never replaces an identity by another identity. A missing certificate, a late TPM or
//! contradictory facts are no reason for a replacement. Only an explicit factory reset removes an
//! identity.

use crate::config::{Fallback, LeaveSoftware, OwnIdentity};

/// The facts that were observed on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Facts {
    /// True if a factory reset was requested.
    pub reset: bool,
    /// True if the TPM answers.
    pub tpm: bool,
    /// True if the device has a TPM, even if the TPM does not answer. The device then makes no
    /// software identity.
    pub tpm_is_there: bool,
    /// The state of the identity that `[provision] existing` names.
    pub existing: ExistingState,
    /// The key that the certificate of the identity `devid` certifies.
    pub certificate: Certified,
    /// The state of the TPM key of the identity `devid`.
    pub key: TpmKey,
    /// True if the device has a software key.
    pub software: bool,
    /// Which key the marker file `tpm_in_use` names.
    pub marker: Marker,
    /// True if the key folder has files without a valid object. Such a file may belong to the
    /// identity `devid`.
    pub unread: bool,
    /// True if another user may have written files in the state folder, or the request for a
    /// factory reset.
    pub untrusted: bool,
}

/// The state of the identity that another program made (`[provision] existing`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExistingState {
    /// `[provision] existing` is not set, or both the key and the certificate are missing.
    None,
    /// The key signs, and the certificate leads to a trusted certificate.
    Usable,
    /// The key or the certificate exists, but the identity cannot be used.
    Unusable,
}

/// Which key the certificate `devid` is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Certified {
    /// The device has no certificate `devid`.
    None,
    /// The certificate is for the key in the TPM.
    TpmKey,
    /// The certificate is for the software key.
    SoftwareKey,
    /// The certificate is for a key that the device does not have.
    Neither,
}

/// The state of the TPM key `devid` and of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TpmKey {
    /// The key folder has no file of the key `devid`.
    None,
    /// The key has no file, but a persistent handle for device keys holds a key that may be the
    /// missing key.
    Orphaned,
    /// The key has a file, but the TPM was not asked. The TPM does not answer, or a reset will
    /// remove the key.
    Filed,
    /// The persistent handle holds the key `devid`.
    Held,
    /// The TPM loads the key from its file, but the handle does not hold the key.
    Displaced,
    /// The TPM does not load the key from its file. The TPM was cleared or replaced.
    Lost,
}

/// Which key the marker file `tpm_in_use` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Marker {
    /// The marker file does not exist.
    None,
    /// The marker file names no key, so it only tells that some identity is in the TPM. Other
    /// programs write such marker files.
    Nameless,
    /// The marker file names the key whose file is in the key folder.
    ThisKey,
    /// The marker file names another key. The named handle does not hold that key, or cannot be
    /// checked.
    OtherKey,
    /// The marker file names another key, and the TPM holds that key in the named handle.
    OtherKeyHeld,
}

/// The settings of `[provision]` that decide the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Policy {
    /// The setting for the identity `devid` in addition to the factory identity.
    pub own: OwnIdentity,
    /// The setting `fallback`: what a device without TPM does.
    pub fallback: Fallback,
    /// The setting that permits the device to leave its software identity.
    pub leave_software: LeaveSoftware,
}

/// The next step of provisioning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plan {
    /// Changes neither key nor certificate, but writes the marker file again.
    Keep,
    /// Makes the TPM key persistent in its handle again.
    Persist,
    /// Makes a certificate for the existing TPM key.
    Certify,
    /// Makes a TPM key and its certificate.
    Generate,
    /// Changes nothing: the software identity stays.
    KeepSoftware,
    /// Makes a certificate for the existing software key.
    CertifySoftware,
    /// Makes a software key and its certificate.
    MakeSoftware,
    /// Changes nothing: the device uses the identity that `[provision] existing` names.
    UseExisting,
    /// Changes nothing: the factory identity suffices, or no other identity was requested.
    UseFactory,
    /// Removes all keys and certificates that devid made, and observes the device again.
    Reset,
    /// Changes nothing, and reports the reason of the refusal.
    Refuse(Refusal),
}

/// The reason why provisioning refuses the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The device has no TPM, and the configuration permits no software identity.
    NoTpm,
    /// The TPM does not answer, or the user of this process lacks the permission to use it.
    TpmSilent,
    /// The identity `devid` is in a TPM that does not answer. The TPM may answer later.
    TpmGone,
    /// The TPM no longer holds the key `devid`.
    KeyLost,
    /// The TPM holds the key `devid`, or a key that may be this key, but the file of the key is
    /// missing.
    FileLost,
    /// The private key of the certificate `devid` is missing.
    Mismatch,
    /// The identity that `[provision] existing` names cannot be used.
    ExistingUnusable,
    /// The TPM does not answer. A factory reset without TPM would leave keys in the TPM, or the
    /// device without identity.
    ResetNeedsTpm,
    /// A file in the key folder holds no valid object. It may be the missing key or certificate.
    Unreadable,
    /// Another user may have written the identity or the request for a factory reset.
    Untrusted,
}

impl Facts {
    /// Returns the next step of provisioning for these facts and settings.
    pub fn plan(&self, policy: Policy) -> Plan {
        if self.reset {
            return self.reset_plan(policy);
        }
        match self.existing {
            ExistingState::Usable => return Plan::UseExisting,
            ExistingState::Unusable => return Plan::Refuse(Refusal::ExistingUnusable),
            ExistingState::None if policy.own == OwnIdentity::Unwanted => return Plan::UseFactory,
            ExistingState::None if self.untrusted => return Plan::Refuse(Refusal::Untrusted),
            ExistingState::None => {}
        }
        match self.own_plan(policy) {
            plan if self.unread && self.would_replace(plan) => Plan::Refuse(Refusal::Unreadable),
            // A software identity was requested, or a marker tells that the device had an identity.
            Plan::Generate
                if policy.own == OwnIdentity::Unset && !self.software && !self.is_marked() =>
            {
                Plan::UseFactory
            }
            plan => plan,
        }
    }

    /// Returns true if the plan treats a key or certificate as missing, although an unread file may
    /// hold it.
    fn would_replace(&self, plan: Plan) -> bool {
        let no_key = matches!(self.key, TpmKey::None | TpmKey::Orphaned);
        match plan {
            Plan::Generate | Plan::MakeSoftware | Plan::Certify => true,
            Plan::Refuse(Refusal::KeyLost | Refusal::FileLost | Refusal::Mismatch) => no_key,
            _ => false,
        }
    }

    /// Returns the plan under the assumption that all files were read.
    fn own_plan(&self, policy: Policy) -> Plan {
        match self.certificate {
            Certified::Neither if self.key == TpmKey::Orphaned => Plan::Refuse(Refusal::FileLost),
            Certified::Neither => Plan::Refuse(Refusal::Mismatch),
            Certified::SoftwareKey => Plan::KeepSoftware,
            Certified::TpmKey => match self.key {
                TpmKey::Held => Plan::Keep,
                TpmKey::Displaced => Plan::Persist,
                TpmKey::Filed => Plan::Refuse(Refusal::TpmGone),
                TpmKey::Lost | TpmKey::None | TpmKey::Orphaned => Plan::Refuse(Refusal::KeyLost),
            },
            Certified::None => self.without_certificate(policy),
        }
    }

    /// Returns the plan for a device without a certificate. The plan also decides which key is
    /// used.
    fn without_certificate(&self, policy: Policy) -> Plan {
        let may_leave = policy.leave_software == LeaveSoftware::OnNewCertificate;
        match self.key {
            // The move to the TPM has begun, and the software identity is still complete.
            TpmKey::Held | TpmKey::Displaced
                if self.software && !may_leave && self.marker == Marker::None =>
            {
                Plan::CertifySoftware
            }
            TpmKey::Filed if self.software && self.marker == Marker::None => Plan::CertifySoftware,
            TpmKey::Held | TpmKey::Displaced => Plan::Certify,
            TpmKey::Lost => Plan::Refuse(Refusal::KeyLost),
            TpmKey::Filed => Plan::Refuse(Refusal::TpmGone),
            TpmKey::Orphaned => Plan::Refuse(Refusal::FileLost),
            TpmKey::None => self.without_key(policy, may_leave),
        }
    }

    fn without_key(&self, policy: Policy, may_leave: bool) -> Plan {
        let was_in_tpm = self.is_marked();
        match (self.tpm, self.software) {
            (true, _) if self.marker == Marker::OtherKeyHeld => Plan::Refuse(Refusal::FileLost),
            (true, _) if self.marker == Marker::OtherKey => Plan::Refuse(Refusal::KeyLost),
            (true, false) => Plan::Generate,
            (true, true) if may_leave => Plan::Generate,
            (true, true) if was_in_tpm => Plan::Refuse(Refusal::KeyLost),
            (false, _) if was_in_tpm => Plan::Refuse(Refusal::TpmGone),
            (_, true) => Plan::CertifySoftware,
            (false, false) => match policy.fallback {
                _ if self.tpm_is_there => Plan::Refuse(Refusal::TpmSilent),
                Fallback::Software => Plan::MakeSoftware,
                Fallback::None => Plan::Refuse(Refusal::NoTpm),
            },
        }
    }

    /// Returns true if the marker file tells that an identity is in the TPM. Another program may
    /// have written the marker file.
    fn is_marked(&self) -> bool {
        self.marker != Marker::None
    }

    fn reset_plan(&self, policy: Policy) -> Plan {
        let nothing_in_tpm = self.key == TpmKey::None && self.marker == Marker::None;
        match (self.tpm, policy.fallback) {
            _ if self.untrusted => Plan::Refuse(Refusal::Untrusted),
            (true, _) => Plan::Reset,
            // The key of the identity may be in a TPM that does not answer.
            (false, Fallback::Software) if nothing_in_tpm && !self.tpm_is_there && self.unread => {
                Plan::Refuse(Refusal::Unreadable)
            }
            (false, Fallback::Software) if nothing_in_tpm && !self.tpm_is_there => Plan::Reset,
            (false, _) => Plan::Refuse(Refusal::ResetNeedsTpm),
        }
    }

    /// Returns these facts with a TPM that answers, or with one that does not answer.
    #[must_use]
    pub fn with_tpm(self, tpm: bool) -> Self {
        let key = match (tpm, self.key) {
            (_, TpmKey::None) | (false, TpmKey::Orphaned) => TpmKey::None,
            (true, TpmKey::Orphaned) => TpmKey::Orphaned,
            (true, _) => TpmKey::Held,
            (false, _) => TpmKey::Filed,
        };
        Self {
            tpm,
            tpm_is_there: tpm || self.tpm_is_there,
            key,
            ..self
        }
    }
}

#[cfg(test)]
#[path = "state_properties.rs"]
mod properties;
#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
