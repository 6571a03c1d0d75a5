//! What is to be done for a device to have an identity of its own: a table, and nothing else. It
//! reads nothing and writes nothing.
//!
//! An identity is never made in the place of another one: not because a certificate is missing, not
//! because a TPM is late, and not because something does not fit together. Only a reset, asked for
//! in so many words, ends one.

use crate::config::{Fallback, LeaveSoftware, OwnIdentity};

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Somebody asked for a factory reset.
    pub reset: bool,
    /// The TPM answers.
    pub tpm: bool,
    /// There is a TPM, whether it answers or not: then nothing is put into software in its place.
    pub tpm_is_there: bool,
    /// An identity that the configuration names as existing without us.
    pub existing: ExistingState,
    /// What the certificate of the device's own identity is for.
    pub certificate: Certified,
    /// The TPM key of the device's own identity.
    pub key: TpmKey,
    /// True if there is a software key.
    pub software: bool,
    /// Which key the marker names.
    pub marker: Marker,
    /// The key folder has files that give no object; any of them may be the identity's.
    pub unread: bool,
    /// Somebody else may have put there what is in the state folder, or asked for the reset.
    pub untrusted: bool,
}

/// An identity that somebody else made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExistingState {
    /// None is named, or neither its key nor its certificate is there.
    None,
    /// Its key signs, and its certificate leads to a trusted one.
    Usable,
    /// It is there and not that.
    Unusable,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Certified {
    /// There is none.
    None,
    /// The key in the TPM.
    TpmKey,
    /// The software key.
    SoftwareKey,
    /// A key that is not here.
    Neither,
}

/// The TPM key and its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TpmKey {
    /// There is no file of one.
    None,
    /// There is no file of one, but a key that could be it in a persistent handle of ours.
    Orphaned,
    /// There is a file, and the TPM is not asked: there is none, or a reset takes the key away.
    Filed,
    /// In its persistent handle.
    Held,
    /// The TPM loads it from its file; in its handle it is not.
    Displaced,
    /// The TPM does not load it: it was cleared, or is another one.
    Lost,
}

/// Which key the marker names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Marker {
    /// There is no marker.
    None,
    /// No key: it says only that some identity is in the TPM. Other programs write such ones.
    Nameless,
    /// The key of the file.
    ThisKey,
    /// Another one, which is not where the marker says, or cannot be looked for.
    OtherKey,
    /// Another one, and the TPM holds it where the marker says.
    OtherKeyHeld,
}

/// What the administrator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Policy {
    /// True if the device is to have an identity of its own, beside the factory's.
    pub own: OwnIdentity,
    /// What is done without TPM.
    pub fallback: Fallback,
    /// True if a software identity moves to a TPM.
    pub leave_software: LeaveSoftware,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plan {
    /// Nothing but to write the marker again.
    Keep,
    /// Put the key back into a persistent handle.
    Persist,
    /// Make a certificate for the TPM key that is there.
    Certify,
    /// Make a TPM key and its certificate.
    Generate,
    /// Nothing: the software identity stays.
    KeepSoftware,
    /// Make a certificate for the software key that is there.
    CertifySoftware,
    /// Make a software key and its certificate.
    MakeSoftware,
    /// Nothing: somebody else's identity is used.
    UseExisting,
    /// Nothing: the factory's identity is all that is wanted, or nobody asked for another.
    UseFactory,
    /// Take away all that is ours, and look again.
    Reset,
    /// Change nothing.
    Refuse(Refusal),
}

/// Why nothing may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No TPM, and no leave to do without.
    NoTpm,
    /// A TPM that does not answer, or not to this user.
    TpmSilent,
    /// The identity is in a TPM that does not answer; perhaps it is only late.
    TpmGone,
    /// The TPM does not hold the key any more.
    KeyLost,
    /// The TPM holds the key, or one that could be it, but its file is gone.
    FileLost,
    /// The certificate is for a key that is not here.
    Mismatch,
    /// The identity that the configuration names does not do.
    ExistingUnusable,
    /// A reset without the TPM would leave keys behind, or no identity at all.
    ResetNeedsTpm,
    /// What is missing may be in a file that gives no object.
    Unreadable,
    /// Somebody else may have put it there.
    Untrusted,
}

impl Facts {
    /// What is to be done.
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
            // A software identity was asked for, and a marker says that there was another.
            Plan::Generate
                if policy.own == OwnIdentity::Unset && !self.software && !self.is_marked() =>
            {
                Plan::UseFactory
            }
            plan => plan,
        }
    }

    /// True if the plan takes for gone what may be in a file that was not read.
    fn would_replace(&self, plan: Plan) -> bool {
        let no_key = matches!(self.key, TpmKey::None | TpmKey::Orphaned);
        match plan {
            Plan::Generate | Plan::MakeSoftware | Plan::Certify => true,
            Plan::Refuse(Refusal::KeyLost | Refusal::FileLost | Refusal::Mismatch) => no_key,
            _ => false,
        }
    }

    /// As if all that is there were known.
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

    /// A certificate is to be made, and with that it is decided where the key is.
    fn without_certificate(&self, policy: Policy) -> Plan {
        let may_leave = policy.leave_software == LeaveSoftware::OnNewCertificate;
        match self.key {
            // Moving had begun, and what it would leave is still whole.
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
            // Its key may be in a TPM that was here once.
            (false, Fallback::Software) if nothing_in_tpm && !self.tpm_is_there && self.unread => {
                Plan::Refuse(Refusal::Unreadable)
            }
            (false, Fallback::Software) if nothing_in_tpm && !self.tpm_is_there => Plan::Reset,
            (false, _) => Plan::Refuse(Refusal::ResetNeedsTpm),
        }
    }

    /// The same if the TPM did not answer, or did.
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
