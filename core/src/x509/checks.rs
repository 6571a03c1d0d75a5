//! The checks of a device's certificate in a verification (IEEE 802.1AR, section 8; TCG, TPM 2.0
//! Keys for Device Identity and Attestation, section 8).

use super::clock::valid_at;
use super::profile::{Profile, critical, ends_in_right_form};
use crate::key::hex;
use crate::oid::{CERTIFICATE_POLICIES, KEY_USAGE, SUBJECT_ALT_NAME};
use crate::x509::Certificate;
use crate::x509::device::SUBJECT;
use serde::Serialize;
use x509_cert::der::DateTime;

/// A check of a device certificate, and its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The name of the check: the field that it checks.
    pub name: &'static str,
    /// The result.
    pub outcome: Outcome,
    /// The result of the check as text.
    pub text: String,
}

/// The result of a check of a device certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The certificate meets the requirement.
    Passed,
    /// The certificate differs from a recommendation of the standard. The difference is common and
    /// harmless.
    Noted,
    /// The check was not possible, for example because the clock is wrong.
    Skipped,
    /// The certificate does not meet the requirement.
    Failed,
}

/// Returns the first violation of a requirement for device certificates, or `None` if there is
/// none. If `now` is `None`, the validity is not checked.
pub(crate) fn first_failure(certificate: &Certificate, now: Option<DateTime>) -> Option<String> {
    let mut points = profile_checks(certificate);
    points.extend(now.map(|now| validity_check(certificate, Ok(now))));
    let mut wrong = points.iter().filter(|one| one.outcome == Outcome::Failed);
    wrong.next().map(Check::to_string)
}

/// Runs all checks that need only the certificate. The validity is checked by [`validity_check`].
pub(crate) fn profile_checks(certificate: &Certificate) -> Vec<Check> {
    let profile = Profile::of(certificate);
    vec![
        version(certificate),
        serial_number(certificate),
        issuer(certificate, &profile),
        subject(&profile),
        constraints(certificate),
        usage(certificate),
        authority(certificate),
        hardware_module(certificate, &profile),
        other_extensions(&profile),
        form_of_end(certificate),
        critical_extensions(certificate),
    ]
}

/// Checks the validity of a certificate. `now` is the current time. If the clock is before the
/// build time of this program, `now` is an `Err` with the build time.
pub(crate) fn validity_check(certificate: &Certificate, now: Result<DateTime, DateTime>) -> Check {
    let name = "validity";
    match now.map(|now| valid_at(certificate, now)) {
        Err(built) => Check::skipped(name, clock_is_wrong(built)),
        Ok(Err(why)) => Check::failed(name, format!("the certificate {why}")),
        Ok(Ok(())) => Check::passed(
            name,
            match Profile::of(certificate).not_after {
                Some(end) => format!("until {end}"),
                None => "without end".into(),
            },
        ),
    }
}

fn clock_is_wrong(built: DateTime) -> String {
    format!(
        "not checked: the clock is before {built}, the build time of this program; set the \
         clock and verify again"
    )
}

fn version(certificate: &Certificate) -> Check {
    match certificate.version() {
        Ok(version) => Check::noted_unless(version == 3, "version", format!("V{version}"), "V3"),
        Err(why) => Check::failed("version", why.to_string()),
    }
}

fn serial_number(certificate: &Certificate) -> Check {
    let serial = certificate.serial();
    let bytes = serial.iter().skip_while(|byte| **byte == 0).count();
    let negative = serial.first().is_some_and(|first| first & 0x80 != 0);
    let said = match negative {
        true => "negative".into(),
        false => format!("{bytes} bytes"),
    };
    let good = (8..=20).contains(&bytes) && !negative;
    Check::noted_unless(good, "serial number", said, "8 to 20 bytes, and positive")
}

fn issuer(certificate: &Certificate, profile: &Profile) -> Check {
    match certificate.issuer_name() {
        Ok(name) if name.is_empty() => Check::failed("issuer", "none".into()),
        Ok(_) => Check::passed("issuer", profile.issuer.clone()),
        Err(why) => Check::failed("issuer", why.to_string()),
    }
}

fn subject(profile: &Profile) -> Check {
    let name = "subject";
    match (&profile.device_serial, profile.device_serial_from) {
        (Some(serial), None | Some(SUBJECT)) => {
            Check::passed(name, format!("the device with serial number {serial}"))
        }
        (Some(serial), Some(place)) => Check::noted(
            name,
            format!("no serialNumber; the {place} names the device {serial}"),
        ),
        (None, _) => Check::noted(
            name,
            "no serialNumber, so the certificate names no device".into(),
        ),
    }
}

fn constraints(certificate: &Certificate) -> Check {
    let name = "basic constraints";
    match certificate.basic_constraints() {
        Err(why) => Check::failed(name, why.to_string()),
        Ok(Some(constraints)) if constraints.ca => {
            Check::failed(name, "CA:TRUE: a device must not issue certificates".into())
        }
        Ok(Some(_)) => Check::passed(name, "CA:FALSE".into()),
        Ok(None) => Check::passed(
            name,
            "none, so the certificate is not a CA certificate".into(),
        ),
    }
}

fn usage(certificate: &Certificate) -> Check {
    let name = "key usage";
    match certificate.key_usage() {
        Err(why) => Check::failed(name, why.to_string()),
        Ok(None) => Check::noted(name, "none, so the key may be used for any purpose".into()),
        Ok(Some(usage)) if !usage.digital_signature() => {
            Check::failed(name, "digitalSignature is missing".into())
        }
        Ok(Some(usage)) => Check::noted_unless(
            critical(certificate).is_ok_and(|critical| critical.contains(&KEY_USAGE)),
            name,
            usage.names().join(", "),
            "it critical",
        ),
    }
}

fn authority(certificate: &Certificate) -> Check {
    let name = "authority key identifier";
    match certificate.authority_key_id() {
        Err(why) => Check::failed(name, why.to_string()),
        Ok(id) => {
            let key = id.and_then(|id| id.key);
            let said = key.map_or_else(|| "none".into(), hex);
            Check::noted_unless(key.is_some(), name, said, "one")
        }
    }
}

fn hardware_module(certificate: &Certificate, profile: &Profile) -> Check {
    let name = "hardware module name";
    if let Err(why) = certificate.alternative_names() {
        return Check::failed(name, format!("the subjectAltName {why}"));
    }
    match &profile.hardware_module {
        Some(module) if module.place == "otherName" => {
            Check::passed(name, format!("{} {}", module.kind, module.serial))
        }
        Some(module) => Check::noted(
            name,
            format!("in a {}; RFC 4108 requires an otherName", module.place),
        ),
        None => Check::noted(name, "none".into()),
    }
}

/// Checks that each extension occurs once and can be read, except the extensions with separate
/// checks above.
fn other_extensions(profile: &Profile) -> Check {
    let name = "other extensions";
    let own = [
        "basicConstraints",
        "keyUsage",
        "authorityKeyIdentifier",
        "subjectAltName",
    ];
    let mut unread = profile.unreadable.clone();
    unread.retain(|name| !own.contains(&name.as_str()));
    match unread.is_empty() {
        true => Check::passed(name, "each occurs once and can be read".into()),
        false => Check::failed(
            name,
            format!(
                "extensions that cannot be read, or occur twice: {}",
                unread.join(", ")
            ),
        ),
    }
}

fn form_of_end(certificate: &Certificate) -> Check {
    let name = "form of the end";
    match ends_in_right_form(certificate) {
        true => Check::passed(name, "as RFC 5280 requires".into()),
        false => Check::noted(
            name,
            "RFC 5280 requires GeneralizedTime from 2050 on, and UTCTime before".into(),
        ),
    }
}

/// Checks the critical extensions that path validation does not check.
fn critical_extensions(certificate: &Certificate) -> Check {
    let name = "critical extensions";
    let nameless = certificate.subject_name().is_ok_and(|name| name.is_empty());
    let critical = match critical(certificate) {
        Ok(critical) => critical,
        Err(why) => return Check::failed(name, why.to_string()),
    };
    let odd: Vec<String> = critical
        .iter()
        .filter(|id| **id == CERTIFICATE_POLICIES || **id == SUBJECT_ALT_NAME && !nameless)
        .map(ToString::to_string)
        .collect();
    match odd.is_empty() {
        true => Check::passed(name, "only extensions that may be critical".into()),
        false => Check::noted(
            name,
            format!(
                "{}: by 802.1AR these extensions are not critical",
                odd.join(", ")
            ),
        ),
    }
}

impl Check {
    fn new(name: &'static str, outcome: Outcome, text: String) -> Self {
        Self {
            name,
            outcome,
            text,
        }
    }

    pub(crate) fn passed(name: &'static str, text: String) -> Self {
        Self::new(name, Outcome::Passed, text)
    }

    pub(crate) fn noted(name: &'static str, text: String) -> Self {
        Self::new(name, Outcome::Noted, text)
    }

    pub(crate) fn skipped(name: &'static str, text: String) -> Self {
        Self::new(name, Outcome::Skipped, text)
    }

    pub(crate) fn failed(name: &'static str, text: String) -> Self {
        Self::new(name, Outcome::Failed, text)
    }

    /// Returns a passed check if `good` is true. Otherwise returns a noted check with the
    /// recommendation of the standard.
    fn noted_unless(good: bool, name: &'static str, is: String, wanted: &str) -> Self {
        match good {
            true => Self::passed(name, is),
            false => Self::noted(name, format!("{is}; 802.1AR requires {wanted}")),
        }
    }
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.text)
    }
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
