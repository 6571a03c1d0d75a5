//! Checks revocation by CRLs from files (RFC 5280, section 6.3). CRLs are not downloaded.

use super::is_signed_by;
use crate::x509::comparison::is_same_name;
use crate::x509::crl::Crl;
use crate::x509::{Certificate, Time};
use x509_cert::der::DateTime;

/// The result of a revocation check that found no revoked certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RevocationStatus {
    /// The subjects of the certificates that a CRL covers, each with a description of the CRL.
    pub(crate) by: Vec<String>,
    /// The subjects of the CA certificates that no CRL covers.
    pub(crate) unknown: Vec<String>,
}

/// Checks each certificate below the trusted certificate against the newest CRL of its issuer.
/// Without `now`, the age of CRLs is not checked.
///
/// # Errors
///
/// Fails if a certificate is revoked, if a CRL is invalid, or if no CRL covers the leaf.
pub(crate) fn check(
    path: &[Certificate],
    lists: &[Crl],
    now: Option<DateTime>,
) -> Result<RevocationStatus, String> {
    let mut said = RevocationStatus {
        by: Vec::new(),
        unknown: Vec::new(),
    };
    for (below, pair) in path.windows(2).enumerate() {
        let [certificate, issuer] = pair else {
            continue;
        };
        match newest(certificate, issuer, lists)? {
            Some(list) => {
                is_unrevoked(certificate, list, now)?;
                said.by.push(format!(
                    "{} by the CRL of {} of {}",
                    certificate.subject(),
                    list.issuer(),
                    list.this_update
                ));
            }
            None if below == 0 => {
                return Err(format!(
                    "none of the given CRLs is from the CA {} and covers the certificate of {}",
                    issuer.subject(),
                    certificate.subject()
                ));
            }
            None => said.unknown.push(certificate.subject()),
        }
    }
    Ok(said)
}

/// Returns the newest valid CRL of the issuer that covers the certificate. If only invalid CRLs
/// have the issuer's name, fails with the reason.
fn newest<'a>(
    certificate: &Certificate,
    issuer: &Certificate,
    lists: &'a [Crl],
) -> Result<Option<&'a Crl>, String> {
    let mut fault = None;
    let mut newest: Option<&Crl> = None;
    let named = lists
        .iter()
        .filter(|list| is_same_name(list.issuer_der(), issuer.subject_der()));
    for list in named.filter(|list| is_about(certificate, list)) {
        match is_by(issuer, list) {
            Ok(()) if newest.is_none_or(|one| one.this_update < list.this_update) => {
                newest = Some(list);
            }
            Ok(()) => {}
            Err(why) => fault = Some(why),
        }
    }
    match (newest, fault) {
        (None, Some(why)) => Err(why),
        (newest, _) => Ok(newest),
    }
}

fn is_about(certificate: &Certificate, list: &Crl) -> bool {
    let constraints = certificate.basic_constraints().ok().flatten();
    let authority = constraints.is_some_and(|constraints| constraints.ca);
    let points = certificate
        .distribution_points()
        .ok()
        .flatten()
        .unwrap_or_default();
    let scope = &list.scope;
    let named = scope.names.is_empty()
        || scope
            .names
            .iter()
            .any(|name| points.contains(&name.as_slice()));
    let excluded = match authority {
        true => scope.no_authorities,
        false => scope.only_authorities,
    };
    named && !excluded
}

fn is_by(issuer: &Certificate, list: &Crl) -> Result<(), String> {
    let whose = issuer.subject();
    let key = issuer.subject_key_id().ok().flatten();
    let other_key = list
        .authority_key
        .as_deref()
        .zip(key)
        .is_some_and(|(by, key)| by != key);
    if other_key {
        return Err(format!(
            "the CRL of {whose} is signed by another key of a CA with this name"
        ));
    }
    let usage = issuer.key_usage().ok().flatten();
    if usage.is_some_and(|usage| !usage.crl_sign()) {
        return Err(format!("the key of {whose} may not sign CRLs"));
    }
    match is_signed_by(list, issuer) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("the signature of the CRL of {whose} is wrong")),
        Err(why) => Err(why),
    }
}

fn is_unrevoked(
    certificate: &Certificate,
    list: &Crl,
    now: Option<DateTime>,
) -> Result<(), String> {
    let whose = list.issuer();
    if let Some(entry) = list.entry(certificate.serial()) {
        return Err(format!(
            "the certificate of {} was revoked on {} ({}) according to the CRL of {whose}",
            certificate.subject(),
            entry.date,
            entry.reason
        ));
    }
    let Some(now) = now.map(Time::from) else {
        return Ok(());
    };
    let this = list.this_update;
    match list.next_update {
        _ if now < this => Err(format!(
            "the CRL of {whose} is not valid before {this}; now it is {now}"
        )),
        None => Err(format!(
            "the CRL of {whose} of {this} has no end of validity (nextUpdate)"
        )),
        Some(next) if next <= now => Err(format!(
            "the CRL of {whose} was valid until {next}; now it is {now}: give a new CRL"
        )),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
#[path = "revocation_tests.rs"]
mod tests;
