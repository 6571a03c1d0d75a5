//! Checks the identity `devid`, the factory identity, the validity of certificates, and the trusted
//! CAs.

use super::{Finding, Health};
use crate::config::OwnIdentity;
use crate::identity::awaited::waiting;
use crate::identity::device::Device;
use crate::identity::entry::{FACTORY, SOFTWARE, TokenEntry};
use crate::identity::factory::FactoryIdentity;
use crate::identity::free_name::{free_name, free_numbered};
use crate::identity::master::MasterState;
use crate::identity::observe::Observed;
use crate::identity::permissions::missing_permission;
use crate::identity::provision::UNWANTED;
use crate::identity::remedy::Remedy;
use crate::identity::software::Software;
use crate::identity::state::{Marker, Plan, Policy};
use crate::identity::status::{NONE_AT_ALL, NONE_YET};
use crate::identity::{IdentityErrorKind, Inventory};
use crate::shell::{quoted, word};
use crate::store::SignError;
use crate::x509::clock::{now, valid_at};
use crate::x509::{Certificate, Time, Unreadable};
use rustix::fs::Access;
use std::path::Path;

const ABOUT: &str = "identity";
/// A certificate should be renewed this long before its notAfter, in seconds.
const SOON: i64 = 30 * 24 * 60 * 60;

pub(super) fn check(device: &Device, findings: &mut Vec<Finding>) {
    let inventory = device.inventory();
    match device.observe() {
        Ok(seen) => {
            own(device, &seen, findings);
            findings.extend(device.marker_lie(&seen).map(|(text, remedy)| {
                Finding::problem("marker", "marker", text, remedy)
                    .about_object(device.config.provision.marker.display().to_string())
            }));
        }
        Err(fault) => {
            let problem =
                |remedy| Finding::problem("identity.unknown", ABOUT, fault.text.clone(), remedy);
            findings.push(match fault.kind {
                IdentityErrorKind::Tpm => problem(Remedy::by_hand(
                    "The remedy for the TPM above also solves this problem",
                )),
                // The identity may be correct, but the user of this process has no permission to
                // check it.
                IdentityErrorKind::Denied => Finding {
                    state: Health::Note,
                    ..problem(to_see(device))
                },
                _ => problem(Remedy::by_command(
                    "Correct this problem, then run",
                    "devid provision",
                )),
            });
        }
    }
    factory(device, findings);
    ends(device, &inventory, findings);
    trust(device, findings);
}

/// Returns the remedy that lets the user of this process check the identity `devid`.
fn to_see(device: &Device) -> Remedy {
    let (state, marker) = (&device.config.state, &device.config.provision.marker);
    let software = Software::in_state(state);
    let listed = Access::READ_OK | Access::EXEC_OK;
    let remedy = missing_permission(state, listed)
        .or_else(|| missing_permission(software.folder(), listed))
        .or_else(|| missing_permission(marker, Access::READ_OK));
    remedy.unwrap_or_else(|| {
        Remedy::by_hand(
            "Run devid doctor as root, or as a user with permission to read these files",
        )
    })
}

/// Returns the finding for the identity `devid`, by the table in `state.rs`.
fn own(device: &Device, seen: &Observed, findings: &mut Vec<Finding>) {
    let provision = || {
        Remedy::by_command(
            "The next start does this step; to do it now, run",
            Device::going_on(seen),
        )
    };
    let open = |id, text: &str| Finding::problem(id, ABOUT, text.into(), provision());
    let unusable = |text| {
        let below = "See the findings about the TPM above, and about the factory identity below";
        Finding::problem("identity.factory", ABOUT, text, Remedy::by_hand(below))
    };
    let policy = Policy::from_config(&device.config);
    findings.push(match seen.facts.plan(policy) {
        Plan::Keep => Finding::ok("identity", ABOUT, "the own identity is in the TPM".into()),
        Plan::KeepSoftware => Finding::note(
            "identity",
            ABOUT,
            "the own identity is in files, not in a TPM".into(),
        ),
        Plan::UseExisting => Finding::ok("identity", ABOUT, seen.existing.text.clone()),
        Plan::UseFactory => match (device.factory_identity(), policy.own) {
            (FactoryIdentity::Usable, OwnIdentity::Unwanted) => Finding::ok(
                "identity",
                ABOUT,
                "the device uses the factory identity, as the configuration requests".into(),
            ),
            (FactoryIdentity::Usable, OwnIdentity::Unset | OwnIdentity::Wanted) => Finding::ok(
                "identity",
                ABOUT,
                "the device uses the factory identity; no own identity was requested".into(),
            ),
            (FactoryIdentity::Absent(_), OwnIdentity::Unset | OwnIdentity::Wanted) => {
                open("identity.none", NONE_AT_ALL)
            }
            (FactoryIdentity::Unusable(why), OwnIdentity::Unset | OwnIdentity::Wanted) => {
                unusable(format!("the factory identity cannot be used: {why}"))
            }
            (
                FactoryIdentity::Absent(why) | FactoryIdentity::Unusable(why),
                OwnIdentity::Unwanted,
            ) => unusable(format!(
                "the configuration permits only the factory identity ({UNWANTED}): {why}"
            )),
        },
        Plan::Refuse(why) => {
            let why = device.refusal_details(why, seen);
            Finding::problem(why.id, ABOUT, why.text, why.remedy)
        }
        Plan::Persist => open(
            "identity.handle",
            "the persistent handle does not hold the device's key devid",
        ),
        Plan::Certify | Plan::CertifySoftware => match device.awaited() {
            Ok(Some(subject)) => Finding::note("identity.awaited", ABOUT, waiting(&subject)),
            _ => open(
                "identity.certificate",
                "the device's key devid has no certificate",
            ),
        },
        Plan::Generate | Plan::MakeSoftware => open("identity.none", NONE_YET),
        Plan::Reset => Finding::problem(
            "identity.reset-asked",
            ABOUT,
            "a factory reset was requested; the next start, or devid provision, does it".into(),
            device.no_reset(),
        ),
    });
}

impl Device {
    /// Returns the finding and the remedy if the marker file `tpm_in_use` is wrong.
    pub(in crate::identity) fn marker_lie(&self, seen: &Observed) -> Option<(String, Remedy)> {
        let rewritten = Remedy::by_command(
            "The next start writes the marker again; to write it now, run",
            "devid provision",
        );
        match (
            seen.facts.plan(Policy::from_config(&self.config)),
            seen.facts.marker,
        ) {
            (Plan::Keep, Marker::None) => Some((
                "the marker is missing, although the identity is in the TPM: other programs assume \
                 that the identity is in files"
                    .into(),
                rewritten,
            )),
            (Plan::Keep, Marker::Nameless | Marker::OtherKey | Marker::OtherKeyHeld) => Some((
                "the marker does not name the device's key devid".into(),
                rewritten,
            )),
            (Plan::KeepSoftware | Plan::UseExisting, Marker::OtherKeyHeld) => Some((
                "the marker names a key that is in the TPM, but the device uses another identity".into(),
                Remedy::by_hand(
                    "If the named key is the right identity, restore the file of the key and \
                     remove the other identity",
                ),
            )),
            (
                Plan::KeepSoftware | Plan::UseExisting,
                Marker::ThisKey | Marker::Nameless | Marker::OtherKey,
            ) if seen.facts.tpm && !seen.existing.in_tpm => {
                let marker = &self.config.provision.marker;
                let old = free_name(marker, "old");
                let command = |old: &Path| format!("mv -nT {} {}", word(marker), word(old));
                Some((
                    "the marker names a key in the TPM, but the identity is in files".into(),
                    Remedy::to_free_name("If the identity in files is the right one, run", &[marker], old, command),
                ))
            }
            _ => None,
        }
    }
}

fn factory(device: &Device, findings: &mut Vec<Finding>) {
    let about = "factory identity";
    let fault = match device.factory_contents() {
        Ok(factory) => {
            let lost = factory
                .entries
                .iter()
                .filter(|one| has_lost_key(device, one));
            findings.extend(lost.map(|one| {
                let text = format!(
                    "the TPM does not have the key of the certificate {}, and cannot derive it: the \
                     TPM's endorsement seed was changed, or the certificate is another device's",
                    one.label
                );
                let remedy = "Only the maker of the device can give it a factory identity again. An \
                              identity of its own (devid provision) does not depend on the factory's";
                let note = Finding::note("factory.key-gone", about, text);
                note.about_object(one.label.clone())
                    .with_remedy(Remedy::by_hand(remedy))
            }));
            return;
        }
        Err((_, fault)) => fault,
    };
    findings.push(match fault.kind {
        // Another finding already reports an error of the TPM.
        IdentityErrorKind::Tpm => return,
        IdentityErrorKind::NotFound => {
            let note = Finding::note("factory.none", about, fault.text);
            note.with_remedy(Remedy::by_command(
                "Ask the maker of the device for the certificate, set certificate = \"/PATH.pem\" \
                 under [[identity]] in config.toml, then run",
                "devid persist idev-id",
            ))
        }
        _ => Finding::note("factory.unknown", about, fault.text),
    });
}

/// Tells whether the TPM neither has nor derives the key of this factory certificate. The check tries
/// no authorisation value.
fn has_lost_key(device: &Device, entry: &TokenEntry) -> bool {
    match &entry.key {
        Some(key) => matches!(key.prepare(&device.tpm), Err(SignError::NotInThisTpm)),
        None => {
            let is_ca = entry.certificate().is_some_and(Certificate::is_ca);
            entry.token == FACTORY && !entry.attests && !is_ca
        }
    }
}

/// Finds certificates of keys that have expired or will expire soon.
fn ends(device: &Device, inventory: &Inventory, findings: &mut Vec<Finding>) {
    let master_is_gone = matches!(
        device.master_state(),
        Ok(MasterState::Gone(_) | MasterState::Elsewhere(_))
    );
    let now = match now() {
        Ok(now) => now,
        Err(built) => {
            let text = format!(
                "the clock is before {built}, when this program was built, so the validity of \
                 certificates cannot be checked"
            );
            let remedy = Remedy::by_command(
                "Set the clock, for example with",
                "timedatectl set-ntp true",
            );
            findings.push(Finding::problem("clock", "clock", text, remedy));
            return;
        }
    };
    for one in &inventory.entries {
        let has_key = one.key.is_some() || one.software.is_some();
        let Some(certificate) = one.certificate().filter(|_| has_key) else {
            continue;
        };
        // A renewal does not help a lost key. The finding about the master key reports the loss.
        if master_is_gone && device.is_wrapped_away(one) {
            continue;
        }
        let about = "certificate";
        let unreadable = |why: Unreadable| {
            Finding::note(
                "certificate.time",
                about,
                format!("of {}: the validity {why}", one.label),
            )
        };
        let (from, until) = match (certificate.not_before(), certificate.not_after()) {
            (Ok(from), Ok(until)) => (from, until),
            (Err(why), _) | (_, Err(why)) => {
                findings.push(unreadable(why).about_object(one.label.clone()));
                continue;
            }
        };
        let found = match valid_at(certificate, now) {
            Err(_) if Time::from(now) < from => Finding::problem(
                "certificate.not-yet",
                about,
                format!(
                    "of {}: not valid before {from}, but now it is {now}",
                    one.label
                ),
                Remedy::by_command(
                    "If the clock is wrong, set it, for example with",
                    "timedatectl set-ntp true",
                ),
            ),
            Err(why) => Finding::problem(
                "certificate.over",
                about,
                format!("of {}: {why}", one.label),
                renewal(device, one),
            ),
            Ok(()) if is_soon(now.into(), until) => Finding::note(
                "certificate.ends-soon",
                about,
                format!("of {}: valid until {until}", one.label),
            )
            .with_remedy(renewal(device, one)),
            Ok(()) => continue,
        };
        findings.push(found.about_object(one.label.clone()));
    }
}

fn is_soon(now: Time, until: Time) -> bool {
    until.unix_seconds() - now.unix_seconds() < SOON
}

fn renewal(device: &Device, entry: &TokenEntry) -> Remedy {
    let in_token = format!("{}/{}", entry.token, entry.label);
    let is_named = |label: &String| *label == entry.label || *label == in_token;
    let mut tables = device.config.certificates.iter();
    if entry.token != FACTORY && tables.any(|table| is_named(&table.label)) {
        return Remedy::by_command(
            "The configuration has an enrolment server for this certificate. devid-renew.timer \
             asks the server; to ask it now, run",
            "devid renew",
        );
    }
    match entry.token.as_str() {
        FACTORY => Remedy::by_hand(
            "Only the maker of the device can renew this certificate. Store the new certificate \
             for the same key in a file, and set certificate = \"/PATH.pem\" under [[identity]] in \
             config.toml",
        ),
        token => {
            let name = match token {
                SOFTWARE => format!("{token}/{}", entry.label),
                _ => entry.label.clone(),
            };
            let file = format!("{}.csr", entry.label.replace('/', "-"));
            Remedy::by_command(
                "Send the request that this command writes to a CA, and import the answer with \
                 devid import-cert",
                format!(
                    "devid csr --out {} -- {}",
                    word(file.as_ref()),
                    quoted(&name)
                ),
            )
        }
    }
}

fn trust(device: &Device, findings: &mut Vec<Finding>) {
    let (about, trust) = ("trust", &device.config.trust);
    findings.push(match device.trusted(None) {
        Ok(trusted) if trusted.certificates.is_empty() => Finding::note(
            "trust.none",
            about,
            format!(
                "{} holds no certificate, so identities cannot be verified (devid verify ends with \
                 exit code 3)",
                trust.display()
            ),
        )
        .with_remedy(Remedy::to_free_name(
            "Put the CA certificate into CA.pem, then run",
            &[trust],
            free_numbered(trust, "ca", "pem"),
            |free| format!("install -D -m 644 CA.pem {}", word(free)),
        )),
        Ok(trusted) => Finding::ok(
            "trust",
            about,
            format!(
                "CA certificates in {}: {}",
                trust.display(),
                trusted.certificates.len()
            ),
        ),
        Err(fault) => Finding::note("trust.unreadable", about, fault.text),
    });
}
