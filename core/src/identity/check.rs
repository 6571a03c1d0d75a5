//! A status for monitoring: which certificates need attention, and when.

use super::expiry::Expiry;
use super::status::{Mode, RoleStatus, Status};
use crate::config::RenewWithin;
use serde::Serialize;

/// A status for monitoring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusCheck {
    /// The most urgent finding.
    pub attention: Attention,
    /// True if the TPM answers.
    pub tpm: bool,
    /// Each certificate of a key, in the order of [`Status::roles`].
    pub certificates: Vec<CheckedCertificate>,
    /// The findings, for a person.
    pub findings: Vec<String>,
}

/// The urgency of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Attention {
    /// No attention is needed.
    None,
    /// Attention is needed soon: a certificate expires soon, or its renewal fails.
    Soon,
    /// Attention is needed now: a function does not work.
    Now,
    /// Attention is needed now: the identity exists, but its TPM cannot be reached.
    Tpm,
}

/// A certificate and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckedCertificate {
    /// Its token, label and identifier, its role, and its times.
    #[serde(flatten)]
    pub role: RoleStatus,
    /// Its state.
    pub state: CertificateState,
}

/// The state of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateState {
    /// Valid, and not expiring within the given time.
    Valid,
    /// Valid, but expiring within the given time.
    Expiring,
    /// Expired.
    Over,
    /// Not valid yet.
    NotYet,
    /// Its times cannot be read.
    Unreadable,
    /// Unknown, since the clock is wrong.
    ClockWrong,
    /// Its key is lost.
    KeyLost,
}

impl CertificateState {
    /// All states.
    pub const ALL: [Self; 7] = [
        Self::Valid,
        Self::Expiring,
        Self::Over,
        Self::NotYet,
        Self::Unreadable,
        Self::ClockWrong,
        Self::KeyLost,
    ];

    /// Its name in JSON and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expiring => "expiring",
            Self::Over => "over",
            Self::NotYet => "not-yet",
            Self::Unreadable => "unreadable",
            Self::ClockWrong => "clock-wrong",
            Self::KeyLost => "key-lost",
        }
    }

    fn of(role: &RoleStatus, within: RenewWithin) -> Option<Self> {
        let has_key = role.key.is_some() || role.role == "attestation";
        let expiry = role.expiry.as_ref().filter(|_| has_key)?;
        Some(match expiry {
            _ if role.lost => Self::KeyLost,
            Expiry::Never => Self::Valid,
            Expiry::NotYet { .. } => Self::NotYet,
            Expiry::Unreadable { .. } => Self::Unreadable,
            Expiry::ClockWrong { .. } => Self::ClockWrong,
            Expiry::At { seconds_left, .. } if *seconds_left <= 0 => Self::Over,
            Expiry::At { seconds_left, .. } => {
                let (from, until) = role.validity.unwrap_or_default();
                let life = u64::try_from(until.saturating_sub(from)).unwrap_or_default();
                let left = u64::try_from(*seconds_left).unwrap_or_default();
                match left <= within.of(life) {
                    true => Self::Expiring,
                    false => Self::Valid,
                }
            }
        })
    }

    fn attention(self) -> Attention {
        match self {
            Self::Valid => Attention::None,
            Self::Expiring => Attention::Soon,
            _ => Attention::Now,
        }
    }
}

impl Status {
    /// The check of this status. A certificate counts as expiring `within` this time before its
    /// end. Asks no TPM.
    pub fn check(&self, within: RenewWithin) -> StatusCheck {
        let mut attention = Attention::None;
        let mut findings = Vec::new();
        let mut find = |how: Attention, text: String| {
            attention = attention.max(how);
            findings.push(text);
        };
        if self.mode == Mode::Error {
            let why = self.reason.clone().unwrap_or_default();
            find(
                match self.tpm_is_out_of_reach {
                    true => Attention::Tpm,
                    false => Attention::Now,
                },
                format!("no usable identity: {why}"),
            );
        }
        for text in self.marker.iter().chain(&self.unread) {
            find(Attention::Now, text.clone());
        }
        if self.tpm.as_ref().is_some_and(|tpm| tpm.locked) {
            let text = "the TPM is in lockout, so factory keys cannot sign";
            find(Attention::Now, text.into());
        }
        if self.master.held == Some(false) && self.master.needed {
            let handle = &self.master.handle;
            let text = format!("the master key is not in {handle}; devid doctor names the remedy");
            find(Attention::Now, text);
        }
        let certificates: Vec<_> = self
            .roles
            .iter()
            .filter_map(|role| {
                let state = CertificateState::of(role, within)?;
                let role = role.clone();
                Some(CheckedCertificate { role, state })
            })
            .collect();
        for one in &certificates {
            let how = one.state.attention();
            if how > Attention::None {
                find(how, one.told());
            }
        }
        for label in &self.missing {
            let text = format!("{label}: no certificate yet; devid renew asks for it");
            find(Attention::Now, text);
        }
        for one in &self.enrolments {
            if let Some(fault) = &one.fault {
                let text = format!(
                    "{}: renewal failed {} times in succession",
                    one.label, one.failures
                );
                find(Attention::Soon, format!("{text}: {fault}"));
            }
        }
        StatusCheck {
            attention,
            tpm: self.tpm.is_some(),
            certificates,
            findings,
        }
    }
}

impl CheckedCertificate {
    fn told(&self) -> String {
        let label = match self.role.token.as_str() {
            super::OWN | super::FACTORY => self.role.label.clone(),
            token => format!("{token}/{}", self.role.label),
        };
        let said = match (self.state, &self.role.expiry) {
            (CertificateState::KeyLost, _) => "its key is lost with a former master key".into(),
            (_, Some(expiry)) => expiry.to_string(),
            (state, None) => state.name().into(),
        };
        format!("{label}: {said}")
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
