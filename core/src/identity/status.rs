//! The status of the device: where its identity is, and the state of its TPM.

use super::awaited::waiting;
use super::device::{Device, Inventory};
use super::entry::{FACTORY, OWN, TokenEntry};
use super::expiry::Expiry;
use super::factory::FactoryIdentity;
use super::master::MasterState;
use super::observe::Observed;
use super::provision::UNWANTED;
use super::state::{Plan, Policy};
use super::{EnrolmentRecord, IdentityError, IdentityErrorKind, RenewalNeed};
use crate::config::OwnIdentity;
use crate::key::hex;
use crate::store::{Protection, WAIT};
use crate::tpm::{Property, Tpm, TpmError};
use crate::x509::clock::now;
use crate::x509::{Certificate, Time};
use serde::Serialize;
use std::cmp::Ordering;

/// The message for a device without the identity `devid`.
pub(super) const NONE_YET: &str = "the device has no own identity yet";
/// The message for a device without the identity `devid` and without factory identity.
pub(super) const NONE_AT_ALL: &str =
    "the device has no own identity yet, and the TPM has no factory identity";

/// The status of the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Where the identity in use is: in the TPM or in files.
    pub mode: Mode,
    /// Who made the identity in use. `None` in mode `error`.
    pub identity: Option<IdentitySource>,
    /// The reason why the device has no usable identity, or the next step.
    pub reason: Option<String>,
    /// True if the device has no usable identity because the TPM does not answer.
    #[serde(skip)]
    pub tpm_is_out_of_reach: bool,
    /// What the marker file `tpm_in_use` wrongly states, if it is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
    /// The keys and certificates of the device, with their purposes. The identity `devid` comes
    /// first, then the factory identity, attestation keys and keys of services. Keys of a purpose
    /// are sorted by label.
    pub roles: Vec<RoleStatus>,
    /// The labels of `[[certificate]]` sections whose key has no certificate from a CA yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// The tokens that are unreadable or incomplete, with the reasons. A missing TPM and a missing
    /// factory identity are reported in other fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    /// The enrolments that are pending or that failed.
    pub enrolments: Vec<EnrolmentStatus>,
    /// The master key, which wraps the keys of the device.
    pub master: MasterKey,
    /// The properties of the TPM, if it answers.
    pub tpm: Option<TpmStatus>,
    /// The configured TCTI.
    pub tcti: String,
}

/// An enrolment that is pending or that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnrolmentStatus {
    /// The label of the key.
    pub label: String,
    /// The URL of the EST server.
    pub server: String,
    /// The reason why the last try failed, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The number of failed enrolments in succession.
    pub failures: u32,
    /// The number of seconds until the next request to the server.
    pub next_try: u64,
}

impl EnrolmentStatus {
    fn of(record: &EnrolmentRecord) -> Self {
        Self {
            label: record.label.clone(),
            server: record.url.clone(),
            fault: Some(record.fault.clone()).filter(|fault| !fault.is_empty()),
            failures: record.failures,
            next_try: record.rest().map_or(0, |rest| rest.as_secs()),
        }
    }
}

/// Where the identity in use is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The key of the identity is in the TPM.
    Tpm,
    /// The key of the identity is in a file.
    Software,
    /// The identity is missing or cannot be used.
    Error,
}

/// Tells who made the identity in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IdentitySource {
    /// The device made the identity itself, by `devid provision`.
    Own,
    /// The factory made the identity. The device has no identity `devid`.
    Factory,
    /// Another program made the identity (`[provision] existing`).
    Existing,
}

/// A key and its certificate, with the purpose of the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoleStatus {
    /// The token of the key. `software` for a key in a file.
    pub token: String,
    /// The purpose: `factory`, `own`, `attestation`, `service`, or `existing` for an identity of
    /// another party.
    pub role: &'static str,
    /// The label of the key.
    pub label: String,
    /// The algorithm of the private key, and where it is stored. `None` without private key.
    pub key: Option<String>,
    /// The type of the public key, for example `p256`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// True if the key is lost together with the master key that wrapped it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// The CKA_ID in hexadecimal digits.
    pub id: String,
    /// The subject of the key's certificate.
    pub certificate: Option<String>,
    /// The end of the certificate's validity. `None` without certificate.
    pub expiry: Option<Expiry>,
    /// The first and the last second of validity since 1970. `None` if a time cannot be parsed.
    #[serde(skip)]
    pub validity: Option<(i64, i64)>,
}

/// Whether the TPM holds the master key, and the remedy if not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MasterKey {
    /// The configured handle of the master key.
    pub handle: String,
    /// True if the TPM holds the master key. `None` if that is unknown.
    pub held: Option<bool>,
    /// True if the master key wraps keys in a key folder.
    pub needed: bool,
    /// The remedy for a lost master key, as text. `devid doctor` gives the same text.
    #[serde(rename = "mend", skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The command of the remedy, which root runs with sh(1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// Properties that the TPM reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TpmStatus {
    /// The maker of the TPM: TPM_PT_MANUFACTURER as text.
    pub maker: String,
    /// The model of the TPM: TPM_PT_VENDOR_STRING_1 to 4 as text.
    pub model: String,
    /// The firmware version: TPM_PT_FIRMWARE_VERSION_1 and 2, in hexadecimal digits.
    pub firmware: String,
    /// The number of failed tries that the TPM counts at present.
    pub lockout_counter: u32,
    /// The number of failed tries that causes lockout.
    pub lockout_at: u32,
    /// The number of seconds until the TPM forgets one failed try.
    pub lockout_interval: u32,
    /// The number of seconds until the lockout authorisation may be used again after a failure.
    pub lockout_recovery: u32,
    /// True if the TPM is in lockout. Keys for which the TPM counts wrong values then cannot sign.
    pub locked: bool,
    /// The remedy for a lockout, as text. `devid doctor` gives the same text.
    #[serde(rename = "mend", skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
    /// The command of the remedy, which root runs with sh(1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl Device {
    /// Collects the status of the device. Changes nothing.
    pub fn status(&self) -> Status {
        let inventory = self.inventory();
        let seen = self.observe();
        let marker = seen.as_ref().ok().and_then(|seen| self.marker_lie(seen));
        let master = self.master_key(&inventory, seen.as_ref().ok());
        let found = seen.and_then(|seen| self.in_use(&seen));
        let (mode, identity, fault) = match found {
            Ok((mode, whose)) => (mode, Some(whose), None),
            Err(fault) => (Mode::Error, None, Some(fault)),
        };
        let out_of_reach = fault
            .as_ref()
            .is_some_and(|fault| fault.kind == IdentityErrorKind::Tpm);
        Status {
            mode,
            identity,
            reason: fault.map(|fault| fault.text),
            tpm_is_out_of_reach: out_of_reach,
            marker: marker.map(|(what, remedy)| format!("{what}. {remedy}")),
            roles: self.roles(&inventory, master.held == Some(false)),
            missing: self.missing_certificates(&inventory),
            unread: unread(&inventory),
            enrolments: self
                .enrolments()
                .iter()
                .filter(|record| self.is_tried_again(record, &inventory))
                .map(EnrolmentStatus::of)
                .collect(),
            master,
            tpm: TpmStatus::read(&self.tpm).ok(),
            tcti: self.config.tcti.to_string(),
        }
    }

    /// Returns true if the device has the key of this enrolment, or if the configuration asks for
    /// such a key. A user may have deleted the key in another way than with `devid key delete`.
    fn is_tried_again(&self, record: &EnrolmentRecord, inventory: &Inventory) -> bool {
        let (token, label) = (&record.token, &record.label);
        let named = format!("{token}/{label}");
        let mut wanted = self.config.certificates.iter();
        let mut unread = inventory.faults.iter().chain(&inventory.unread);
        let is_key = |one: &TokenEntry| one.token == *token && one.label == *label && one.has_key();
        wanted.any(|one| one.label == *label || one.label == named)
            || unread.any(|(one, _)| one == token)
            || inventory.entries.iter().any(is_key)
    }

    /// Returns where the identity in use is and who made it, or the reason why there is none.
    fn in_use(&self, seen: &Observed) -> Result<(Mode, IdentitySource), IdentityError> {
        let open = |what: &str| {
            let text = format!("{what}: devid provision continues");
            Err(IdentityError::failed(text))
        };
        let policy = Policy::from_config(&self.config);
        match seen.facts.plan(policy) {
            Plan::Keep => Ok((Mode::Tpm, IdentitySource::Own)),
            Plan::KeepSoftware => Ok((Mode::Software, IdentitySource::Own)),
            Plan::UseExisting if seen.existing.in_tpm => Ok((Mode::Tpm, IdentitySource::Existing)),
            Plan::UseExisting => Ok((Mode::Software, IdentitySource::Existing)),
            Plan::Refuse(why) => Err(self.refusal(why, seen)),
            Plan::Persist => open("the persistent handle does not hold the device's key devid"),
            Plan::Certify | Plan::CertifySoftware => match self.awaited()? {
                Some(subject) => Err(IdentityError::failed(waiting(&subject))),
                None => open("the device's key devid has no certificate"),
            },
            Plan::UseFactory => match (self.factory_identity(), policy.own) {
                (FactoryIdentity::Usable, _) => Ok((Mode::Tpm, IdentitySource::Factory)),
                (FactoryIdentity::Absent(_), OwnIdentity::Unset | OwnIdentity::Wanted) => {
                    open(NONE_AT_ALL)
                }
                (FactoryIdentity::Unusable(why), OwnIdentity::Unset | OwnIdentity::Wanted) => {
                    Err(why)
                }
                (
                    FactoryIdentity::Absent(why) | FactoryIdentity::Unusable(why),
                    OwnIdentity::Unwanted,
                ) => Err(why.while_doing(UNWANTED)),
            },
            Plan::Generate if seen.facts.software => open(
                "the software key has no certificate, and the device now has a TPM: the TPM gets a \
                 new identity, and the software key is set aside",
            ),
            Plan::Generate | Plan::MakeSoftware => open(NONE_YET),
            Plan::Reset => open("a factory reset was requested"),
        }
    }

    fn roles(&self, inventory: &Inventory, master_is_gone: bool) -> Vec<RoleStatus> {
        let is_role =
            |one: &&TokenEntry| one.has_key() || !one.certificate().is_some_and(Certificate::is_ca);
        let mut roles: Vec<_> = inventory
            .entries
            .iter()
            .filter(is_role)
            .map(|one| RoleStatus {
                lost: master_is_gone && self.is_wrapped_away(one),
                ..RoleStatus::of(one, self.is_existing(one))
            })
            .collect();
        roles.sort_by(|one, other| {
            let by_name = by_label(&one.label, &other.label);
            one.rank().cmp(&other.rank()).then(by_name)
        });
        roles
    }

    fn missing_certificates(&self, inventory: &Inventory) -> Vec<String> {
        let wanted = self.config.certificates.iter();
        let is_missing = |label: &&str| {
            let named = |one: &&TokenEntry| {
                one.token != FACTORY
                    && (one.label == **label || format!("{}/{}", one.token, one.label) == **label)
            };
            let entry = inventory.entries.iter().find(named);
            let certificate = entry.and_then(TokenEntry::certificate);
            RenewalNeed::of(certificate, Default::default()) == RenewalNeed::Missing
        };
        let labels = wanted.map(|one| one.label.as_str());
        labels.filter(is_missing).map(str::to_owned).collect()
    }

    /// Returns true if a key is lost together with its master key.
    pub(super) fn is_wrapped_away(&self, entry: &TokenEntry) -> bool {
        let is_wrapped = entry
            .key
            .as_ref()
            .is_some_and(|key| matches!(key.protection(), Protection::Tpm | Protection::Sealed));
        !entry.file.is_empty()
            && (is_wrapped || entry.secret.is_some())
            && !self.lives_in_handle_alone(entry)
    }

    pub(super) fn master_key(&self, inventory: &Inventory, seen: Option<&Observed>) -> MasterKey {
        let fault = self
            .master_fault(seen)
            .ok()
            .flatten()
            .map(|said| said.remedy);
        MasterKey {
            handle: format!("0x{:08X}", self.config.master.handle),
            held: match self.master_state() {
                Ok(MasterState::Held) => Some(true),
                Ok(MasterState::Elsewhere(_) | MasterState::Gone(_)) => Some(false),
                Ok(MasterState::None) | Err(_) => None,
            },
            needed: inventory.entries.iter().any(|one| !one.file.is_empty()),
            command: fault.as_ref().and_then(|remedy| remedy.command.clone()),
            remedy: fault.map(|remedy| remedy.words),
        }
    }
}

/// Returns the tokens that exist but cannot be read.
fn unread(inventory: &Inventory) -> Vec<String> {
    let is_said_elsewhere =
        |kind| matches!(kind, IdentityErrorKind::Tpm | IdentityErrorKind::NotFound);
    let faults = inventory.faults.iter().chain(&inventory.unread);
    let told = faults.filter(|(_, fault)| !is_said_elsewhere(fault.kind));
    told.map(|(token, fault)| format!("token {token}: {fault}"))
        .collect()
}

/// Compares labels for display. Numbers in labels are compared as numbers.
pub fn by_label(one: &str, other: &str) -> Ordering {
    let (mut left, mut right) = (one, other);
    loop {
        let (a, b) = (part(left), part(right));
        let order = match (number(a), number(b)) {
            (Some(a), Some(b)) => (a.len(), a).cmp(&(b.len(), b)),
            _ => a.cmp(b),
        };
        if order.is_ne() || (a.is_empty() && b.is_empty()) {
            return order.then_with(|| one.cmp(other));
        }
        (left, right) = (&left[a.len()..], &right[b.len()..]);
    }
}

/// Returns the digits at the beginning of a label, or else the text before the next digit.
fn part(text: &str) -> &str {
    let is_digit = |c: char| c.is_ascii_digit();
    let end = match text.starts_with(is_digit) {
        true => text.find(|c| !is_digit(c)),
        false => text.find(is_digit),
    };
    &text[..end.unwrap_or(text.len())]
}

/// Returns the digits of a label part without leading zeros.
fn number(part: &str) -> Option<&str> {
    part.starts_with(|c: char| c.is_ascii_digit())
        .then(|| part.trim_start_matches('0'))
}

impl RoleStatus {
    /// Returns the position of a key in the status, by its purpose. The identity `devid` comes
    /// first.
    fn rank(&self) -> u8 {
        match self.role {
            "own" | "existing" => 0,
            "factory" => 1,
            "attestation" => 2,
            _ => 3,
        }
    }

    fn of(entry: &TokenEntry, existing: bool) -> Self {
        let role = match (entry.token.as_str(), entry.attests) {
            _ if existing => "existing",
            (_, true) => "attestation",
            (FACTORY, _) => "factory",
            (OWN, _) if entry.label == OWN => "own",
            _ if entry.software.is_some() => "own",
            _ => "service",
        };
        let place = |key: &crate::store::Key| match key.handle() {
            Some(handle) => format!("0x{handle:08X}"),
            None if entry.file.is_empty() => "derived when it is needed".into(),
            None => format!("{}.pem", entry.file),
        };
        let key = entry
            .key
            .as_ref()
            .map(|key| format!("{}, {}", key.public(), place(key)));
        let secret = entry
            .secret
            .as_ref()
            .map(|key| format!("{key}, {}.pem", entry.file));
        let in_file = entry
            .software
            .as_ref()
            .map(|path| format!("in {}", path.display()));
        let seconds = |time: Result<Time, _>| time.ok().map(|time| time.unix_seconds());
        let certificate = entry.certificate();
        Self {
            token: entry.token.clone(),
            algorithm: entry
                .public
                .as_ref()
                .filter(|_| key.is_some() || entry.software.is_some())
                .map(ToString::to_string)
                .or(entry.secret.as_ref().map(|key| key.to_string())),
            lost: false,
            id: hex(&entry.id),
            validity: certificate
                .and_then(|one| seconds(one.not_before()).zip(seconds(one.not_after()))),
            role,
            label: entry.label.clone(),
            key: key.or(secret).or(in_file),
            certificate: certificate.map(Certificate::subject),
            expiry: certificate.map(|one| Expiry::of(one, now())),
        }
    }
}

impl TpmStatus {
    /// Reads the properties of the TPM (TPM_PT) from the TPM.
    pub(super) fn read(tpm: &Tpm) -> Result<Self, TpmError> {
        let vendor = [
            Property::Vendor1,
            Property::Vendor2,
            Property::Vendor3,
            Property::Vendor4,
        ];
        let mut model = String::new();
        for part in vendor {
            // Some TPMs do not have all four vendor strings.
            model += &text(tpm.property(part)?.unwrap_or_default());
        }
        let (maker, firmware) = maker_and_firmware(tpm)?;
        let lockout = tpm.lockout()?;
        let locked = lockout.tries_left() == 0 && lockout.counter > 0;
        Ok(Self {
            maker,
            model: model.trim().to_owned(),
            firmware,
            lockout_counter: lockout.counter,
            lockout_at: lockout.most,
            lockout_interval: lockout.interval,
            lockout_recovery: tpm.property(Property::LockoutRecovery)?.unwrap_or_default(),
            locked,
            remedy: locked.then_some(WAIT),
            command: locked.then(|| tpm.tcti().clearing_lockout()),
        })
    }
}

/// Returns the maker of the TPM and the version of its firmware. Costs three commands.
pub(crate) fn maker_and_firmware(tpm: &Tpm) -> Result<(String, String), TpmError> {
    let number = |property| Ok::<_, TpmError>(tpm.property(property)?.unwrap_or_default());
    let maker = text(number(Property::Manufacturer)?);
    let [upper, lower] = [Property::Firmware1, Property::Firmware2].map(number);
    Ok((maker, format!("{:08x}.{:08x}", upper?, lower?)))
}

/// Returns the four ASCII characters that a TPM property encodes as a number.
fn text(number: u32) -> String {
    let printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let bytes = number.to_be_bytes();
    bytes
        .iter()
        .filter(|byte| printable(byte))
        .map(|byte| char::from(*byte))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn labels_are_ordered_as_people_count() {
        let mut labels = [
            "web10", "web2", "b", "web02", "web2a", "", "Web1", "7", "007a",
        ];
        labels.sort_by(|one, other| by_label(one, other));
        let ordered = [
            "", "7", "007a", "Web1", "b", "web02", "web2", "web2a", "web10",
        ];
        assert_eq!(labels, ordered);
    }

    #[test]
    fn a_maker_is_four_characters_in_a_number() {
        assert_eq!(text(0x4942_4D00), "IBM");
        assert_eq!(text(0x5357_2020), "SW  ");
    }
}
