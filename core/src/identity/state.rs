//! The table that decides the next step towards an own identity. Pure: it reads nothing and writes
//! nothing.
//!
//! An identity is never replaced by another one. A missing certificate, a late TPM and
//! contradictory facts are no reasons for that. Only an explicit reset ends an identity.

use crate::config::{Fallback, LeaveSoftware, OwnIdentity};

/// The observed facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Facts {
    /// A factory reset was requested.
    pub reset: bool,
    /// The TPM answers.
    pub tpm: bool,
    /// A TPM exists, even if it does not answer. Then no software identity is made instead.
    pub tpm_is_there: bool,
    /// The state of the configured existing identity.
    pub existing: ExistingState,
    /// The key that the certificate of the own identity certifies.
    pub certificate: Certified,
    /// The state of the TPM key of the own identity.
    pub key: TpmKey,
    /// True if there is a software key.
    pub software: bool,
    /// The key that the marker names.
    pub marker: Marker,
    /// The key folder has files that give no object. Any of them may belong to the identity.
    pub unread: bool,
    /// Another user may have written the contents of the state folder, or requested the reset.
    pub untrusted: bool,
}

/// The state of an identity that another party made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExistingState {
    /// None is configured, or its key and certificate are both missing.
    None,
    /// Its key signs, and its certificate leads to a trusted one.
    Usable,
    /// It exists, but is not usable.
    Unusable,
}

/// The key that a certificate certifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Certified {
    /// There is no certificate.
    None,
    /// The key in the TPM.
    TpmKey,
    /// The software key.
    SoftwareKey,
    /// A key that is missing.
    Neither,
}

/// The state of the TPM key and its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TpmKey {
    /// There is no file.
    None,
    /// There is no file, but a persistent handle of ours holds a key that may be it.
    Orphaned,
    /// There is a file, but the TPM was not asked: it does not answer, or a reset will remove the
    /// key.
    Filed,
    /// The key is in its persistent handle.
    Held,
    /// The TPM loads the key from its file; its handle does not hold it.
    Displaced,
    /// The TPM does not load the key: it was cleared, or is another one.
    Lost,
}

/// The key that the marker names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Marker {
    /// There is no marker.
    None,
    /// No key: the marker only says that some identity is in the TPM. Other programs write such
    /// markers.
    Nameless,
    /// The key of the file.
    ThisKey,
    /// Another key, which is not in the named handle or cannot be checked.
    OtherKey,
    /// Another key, which the TPM holds in the named handle.
    OtherKeyHeld,
}

/// The settings of the administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Policy {
    /// The setting for an own identity beside the factory's.
    pub own: OwnIdentity,
    /// The setting for a device without TPM.
    pub fallback: Fallback,
    /// The setting for leaving a software identity.
    pub leave_software: LeaveSoftware,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plan {
    /// No change, except that the marker is rewritten.
    Keep,
    /// Make the key persistent again.
    Persist,
    /// Make a certificate for the existing TPM key.
    Certify,
    /// Make a TPM key and its certificate.
    Generate,
    /// No change: the software identity stays.
    KeepSoftware,
    /// Make a certificate for the existing software key.
    CertifySoftware,
    /// Make a software key and its certificate.
    MakeSoftware,
    /// No change: an existing identity of another party is used.
    UseExisting,
    /// No change: the factory identity suffices, or no other identity was requested.
    UseFactory,
    /// Remove all objects of ours, and observe again.
    Reset,
    /// Change nothing.
    Refuse(Refusal),
}

/// The reason against any change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// There is no TPM, and no permission to do without.
    NoTpm,
    /// The TPM does not answer, or not to this user.
    TpmSilent,
    /// The identity is in a TPM that does not answer. The TPM may only be late.
    TpmGone,
    /// The TPM no longer holds the key.
    KeyLost,
    /// The TPM holds the key, or a candidate, but its file is missing.
    FileLost,
    /// The key of the certificate is missing.
    Mismatch,
    /// The configured existing identity is not usable.
    ExistingUnusable,
    /// A reset without TPM would leave keys behind, or no identity.
    ResetNeedsTpm,
    /// The missing object may be in a file that gives no object.
    Unreadable,
    /// Another user may have written it.
    Untrusted,
}

impl Facts {
    /// The next step.
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
            // A software identity was requested, or a marker says that there was an identity.
            Plan::Generate
                if policy.own == OwnIdentity::Unset && !self.software && !self.is_marked() =>
            {
                Plan::UseFactory
            }
            plan => plan,
        }
    }

    /// True if the plan treats an object as missing that may be in an unread file.
    fn would_replace(&self, plan: Plan) -> bool {
        let no_key = matches!(self.key, TpmKey::None | TpmKey::Orphaned);
        match plan {
            Plan::Generate | Plan::MakeSoftware | Plan::Certify => true,
            Plan::Refuse(Refusal::KeyLost | Refusal::FileLost | Refusal::Mismatch) => no_key,
            _ => false,
        }
    }

    /// The plan under the assumption that all files were read.
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

    /// The plan without a certificate; it also decides which key is used.
    fn without_certificate(&self, policy: Policy) -> Plan {
        let may_leave = policy.leave_software == LeaveSoftware::OnNewCertificate;
        match self.key {
            // The move had begun, and the software identity is still complete.
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

    /// True if a marker says that an identity is in a TPM, ours or not.
    fn is_marked(&self) -> bool {
        self.marker != Marker::None
    }

    fn reset_plan(&self, policy: Policy) -> Plan {
        let nothing_in_tpm = self.key == TpmKey::None && self.marker == Marker::None;
        match (self.tpm, policy.fallback) {
            _ if self.untrusted => Plan::Refuse(Refusal::Untrusted),
            (true, _) => Plan::Reset,
            // Its key may be in a TPM that is missing now.
            (false, Fallback::Software) if nothing_in_tpm && !self.tpm_is_there && self.unread => {
                Plan::Refuse(Refusal::Unreadable)
            }
            (false, Fallback::Software) if nothing_in_tpm && !self.tpm_is_there => Plan::Reset,
            (false, _) => Plan::Refuse(Refusal::ResetNeedsTpm),
        }
    }

    /// These facts with an answering or silent TPM.
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
