//! Evaluates the status of the device for monitoring: which certificates need attention, and how
//! urgently.

use super::expiry::Expiry;
use super::status::{Mode, RoleStatus, Status};
use crate::config::RenewWithin;
use serde::Serialize;

/// The result of `devid status --check`, for monitoring systems.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusCheck {
    /// The urgency of the most urgent finding.
    pub attention: Attention,
    /// True if the TPM answered.
    pub tpm: bool,
    /// The certificates of all keys, in the order of [`Status::roles`].
    pub certificates: Vec<CheckedCertificate>,
    /// The findings, as text for a person.
    pub findings: Vec<String>,
}

/// How urgently the device needs attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Attention {
    /// The device needs no attention.
    None,
    /// Attention is needed soon: a certificate expires soon, or its renewal failed.
    Soon,
    /// Attention is needed now: a function of the device does not work.
    Now,
    /// Attention is needed now: the identity exists, but its TPM does not answer.
    Tpm,
}

/// The certificate of a key, and whether the certificate needs attention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckedCertificate {
    /// The token, the label and the identifier of the certificate's key, its purpose (`role`), and
    /// the validity times.
    #[serde(flatten)]
    pub role: RoleStatus,
    /// Whether the certificate is valid, expiring or expired.
    pub state: CertificateState,
}

/// Whether a certificate is valid, expiring or expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateState {
    /// The certificate is valid, and does not expire within the given time.
    Valid,
    /// The certificate is valid, but expires within the given time.
    Expiring,
    /// The certificate has expired.
    Over,
    /// The certificate is not valid yet.
    NotYet,
    /// The validity times of the certificate cannot be parsed.
    Unreadable,
    /// The state is unknown, because the clock of the device is wrong.
    ClockWrong,
    /// The private key of the certificate is lost.
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

    /// Returns the name of the state in JSON and in metrics.
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
    /// Evaluates this status for monitoring. A certificate counts as expiring if its validity ends
    /// `within` the given time. Sends no TPM command.
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
            let text = "the TPM is in lockout, so factory keys cannot sign; devid doctor names the \
                        remedy";
            find(Attention::Now, text.into());
        }
        if self.master.held == Some(false) && self.master.needed {
            let handle = &self.master.handle;
            let text = format!(
                "handle {handle} does not hold the master key; devid doctor names the remedy"
            );
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
            let text = format!("{label}: this key has no certificate yet; devid renew requests it");
            find(Attention::Now, text);
        }
        for one in &self.enrolments {
            if let Some(fault) = &one.fault {
                let text = format!(
                    "{}: the renewal failed {} times in succession",
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
