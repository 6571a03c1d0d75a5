//! Certification path validation (RFC 5280, section 6): names, signatures, validity, CA rights,
//! name constraints and policies. [`revocation`] checks revocation afterwards.

mod ml_dsa;
mod policies;
pub(crate) mod revocation;
mod signature;
mod subtrees;

pub(crate) use signature::is_signed_by;
#[cfg(feature = "evidence")]
pub(crate) use signature::is_signed_by_its_key;

use crate::oid::{
    AUTONOMOUS_SYS_IDS, BASIC_CONSTRAINTS, CERTIFICATE_POLICIES, EXTENDED_KEY_USAGE,
    INHIBIT_ANY_POLICY, IP_ADDR_BLOCKS, KEY_USAGE, NAME_CONSTRAINTS, POLICY_CONSTRAINTS,
    POLICY_MAPPINGS, PROXY_CERT_INFO, SUBJECT_ALT_NAME,
};
use crate::x509::Certificate;
use crate::x509::clock::valid_at;
use crate::x509::comparison::{ComparableName, is_same_name};
use crate::x509::general_names::GeneralName;
use std::cell::Cell;
use x509_cert::der::DateTime;
use x509_cert::der::asn1::ObjectIdentifier;

/// The critical extensions that are accepted: this file evaluates them, or they do not restrict a
/// device certificate.
const UNDERSTOOD: &[ObjectIdentifier] = &[
    BASIC_CONSTRAINTS,
    KEY_USAGE,
    SUBJECT_ALT_NAME,
    EXTENDED_KEY_USAGE,
    CERTIFICATE_POLICIES,
    POLICY_MAPPINGS,
    POLICY_CONSTRAINTS,
    INHIBIT_ANY_POLICY,
];
/// The critical extensions that are accepted only in CA certificates.
const UNDERSTOOD_OF_CA: &[ObjectIdentifier] = &[NAME_CONSTRAINTS];
/// Extensions that change the subject of a certificate and are not supported. A certificate with
/// such an extension is refused even if the extension is not critical.
const REFUSED: &[(ObjectIdentifier, &str)] = &[
    (PROXY_CERT_INFO, "it is a proxy certificate (RFC 3820)"),
    (
        IP_ADDR_BLOCKS,
        "it contains IP addresses (RFC 3779), which are not supported",
    ),
    (
        AUTONOMOUS_SYS_IDS,
        "it contains AS numbers (RFC 3779), which are not supported",
    ),
];
/// The maximum number of certificates in a path. No factory has a longer chain.
const LONGEST: usize = 8;
/// The maximum number of signatures that a path search verifies. Usual searches verify fewer.
const MOST_CHECKS: u32 = 100;

/// The result of a path search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathResult {
    /// The search reached a trusted certificate. The value is the certificates of the path, with
    /// the trusted certificate last.
    Trusted(Vec<Certificate>),
    /// The CA certificate with this subject is missing.
    NoIssuer(String),
    /// The leaf is self-signed, so no CA confirms the leaf.
    SelfSigned,
    /// A certificate of the path is invalid. The text gives the reason.
    Invalid(String),
}

/// Searches a path from `leaf` to a certificate of `trusted`, over certificates of `others`.
/// Without `now`, the validity is not checked.
pub(crate) fn build_path(
    leaf: &Certificate,
    trusted: &[Certificate],
    others: &[Certificate],
    now: Option<DateTime>,
) -> PathResult {
    let search = Search {
        trusted,
        others,
        now,
        left: Cell::new(MOST_CHECKS),
    };
    if let Err(why) = is_sound(leaf, &[]).and_then(|()| has_plain_key(leaf)) {
        return PathResult::Invalid(why);
    }
    match search.up(&[leaf], 0) {
        PathResult::NoIssuer(_) if is_self_issued(leaf) && is_signed_by(leaf, leaf) == Ok(true) => {
            PathResult::SelfSigned
        }
        found => found,
    }
}

struct Search<'a> {
    trusted: &'a [Certificate],
    others: &'a [Certificate],
    now: Option<DateTime>,
    /// The number of signatures that the search may still verify.
    left: Cell<u32>,
}

impl Search<'_> {
    /// Extends the path `way`, which leads from the leaf to the current certificate. `between` is
    /// the number of CAs below the next issuer, for the check of its path length.
    fn up(&self, way: &[&Certificate], between: usize) -> PathResult {
        let Some(&child) = way.last() else {
            return PathResult::Invalid("no certificate".into());
        };
        if self.trusted.contains(child) {
            return match subtrees::check(way).and_then(|()| policies::check(way)) {
                Ok(()) => PathResult::Trusted(way.iter().map(|one| (*one).clone()).collect()),
                Err(why) => PathResult::Invalid(why),
            };
        }
        let mut end = PathResult::NoIssuer(child.issuer());
        if way.len() > LONGEST {
            return end;
        }
        for issuer in self.trusted.iter().chain(self.others) {
            // CAs that certify each other would cause an endless search.
            if !names(child, issuer) || way.iter().any(|below| is_same_entity(below, issuer)) {
                continue;
            }
            let Some(left) = self.left.get().checked_sub(1) else {
                return PathResult::Invalid(format!(
                    "more than {MOST_CHECKS} signatures would have to be checked: too many CAs \
                     certify each other"
                ));
            };
            self.left.set(left);
            let found = match self.step(child, issuer, between) {
                Ok(()) => {
                    let way = [way, &[issuer]].concat();
                    self.up(&way, between + usize::from(!is_self_issued(issuer)))
                }
                Err(why) => PathResult::Invalid(why),
            };
            match found {
                PathResult::Trusted(_) => return found,
                // A path with an invalid certificate explains the failure better than a path
                // without an issuer.
                PathResult::Invalid(why) => end = PathResult::Invalid(why),
                PathResult::NoIssuer(whose) if matches!(end, PathResult::NoIssuer(_)) => {
                    end = PathResult::NoIssuer(whose)
                }
                PathResult::NoIssuer(_) | PathResult::SelfSigned => {}
            }
        }
        end
    }

    /// Checks that `issuer` was allowed to issue `child`, and that it signed `child`.
    fn step(
        &self,
        child: &Certificate,
        issuer: &Certificate,
        between: usize,
    ) -> Result<(), String> {
        let whose = issuer.subject();
        is_sound(issuer, UNDERSTOOD_OF_CA)?;
        let unread = |why| format!("an extension of the certificate of {whose} {why}");
        let constraints = issuer.basic_constraints().map_err(unread)?;
        match constraints {
            Some(constraints) if constraints.ca => {}
            None if self.is_old_root(issuer) => {}
            _ => {
                return Err(format!(
                    "the certificate of {whose} is not a CA certificate"
                ));
            }
        }
        let usage = issuer.key_usage().map_err(unread)?;
        if usage.is_some_and(|usage| !usage.key_cert_sign()) {
            return Err(format!("the key of {whose} may not sign certificates"));
        }
        if let Some(most) = constraints.and_then(|constraints| constraints.path_len)
            && between > most
        {
            return Err(format!("{whose} allows only {most} CAs below it"));
        }
        if let Some(now) = self.now {
            valid_at(issuer, now).map_err(|why| format!("the certificate of {whose} {why}"))?;
        }
        match is_signed_by(child, issuer) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!(
                "the signature of {whose} in the certificate of {} is wrong",
                child.subject()
            )),
            Err(why) => Err(why),
        }
    }

    /// Returns true for a trusted root of version 1, which has no basicConstraints. A root of
    /// version 1 is trusted without further checks (RFC 5280, section 6.1.1, d).
    fn is_old_root(&self, issuer: &Certificate) -> bool {
        issuer.version() == Ok(1)
            && self.trusted.contains(issuer)
            && names(issuer, issuer)
            && signature::is_self_signed(issuer)
    }
}

/// Returns true if `child` names `issuer` as its issuer. A CA with this name but another key
/// identifier does not match.
pub(crate) fn names(child: &Certificate, issuer: &Certificate) -> bool {
    if !is_same_name(child.issuer_der(), issuer.subject_der()) {
        return false;
    }
    // An authorityKeyIdentifier that cannot be read excludes no issuer. The later checks reject the
    // certificate.
    let Ok(Some(wanted)) = child.authority_key_id() else {
        return true;
    };
    let key = issuer.subject_key_id().ok().flatten();
    let other_key = wanted
        .key
        .zip(key)
        .is_some_and(|(wanted, there)| wanted != there);
    let other_number = wanted
        .serial
        .is_some_and(|serial| serial != issuer.serial());
    let mut issuers = wanted.issuer.iter().filter_map(|name| match name {
        GeneralName::Directory(name) => Some(*name),
        _ => None,
    });
    let other_issuer = issuers
        .next()
        .is_some_and(|name| !is_same_name(name, issuer.issuer_der()));
    !other_key && !other_number && !other_issuer
}

fn is_self_issued(certificate: &Certificate) -> bool {
    is_same_name(certificate.issuer_der(), certificate.subject_der())
}

/// Returns true if both certificates have the same name and the same key.
fn is_same_entity(one: &Certificate, other: &Certificate) -> bool {
    is_same_name(one.subject_der(), other.subject_der())
        && one.public_key_info_der() == other.public_key_info_der()
}

/// Checks that this project can evaluate the certificate: its fields can be read, and its critical
/// extensions are supported.
fn is_sound(certificate: &Certificate, also: &[ObjectIdentifier]) -> Result<(), String> {
    let whose = certificate.subject();
    certificate
        .is_well_formed()
        .map_err(|why| format!("the certificate of {whose} {why}"))?;
    for (what, name) in [
        ("issuer", certificate.issuer_der()),
        ("subject", certificate.subject_der()),
    ] {
        if ComparableName::read(name).is_none() {
            return Err(format!(
                "the {what} of the certificate of {whose} cannot be read"
            ));
        }
    }
    let unread = certificate.unreadable();
    if !unread.is_empty() {
        let unread = unread.join(", ");
        return Err(format!(
            "the certificate of {whose} has an extension that cannot be read, or that occurs \
             twice: {unread}"
        ));
    }
    for extension in certificate.extensions().unwrap_or_default() {
        let refused = REFUSED.iter().find(|(id, _)| *id == extension.id);
        if let Some((_, why)) = refused {
            return Err(format!("the certificate of {whose} is refused: {why}"));
        }
        let understood = [UNDERSTOOD, also]
            .iter()
            .any(|known| known.contains(&extension.id));
        if extension.critical && !understood {
            return Err(format!(
                "the certificate of {whose} has the critical extension {}, which is not \
                 supported",
                extension.id
            ));
        }
    }
    Ok(())
}

/// Checks that other verifiers can read the leaf's key. Most verifiers reject explicit curve
/// parameters, and algorithm identifiers that are not for signatures.
fn has_plain_key(leaf: &Certificate) -> Result<(), String> {
    match leaf.public_key().is_none() || signature::is_usual_key(leaf) {
        true => Ok(()),
        false => Err(format!(
            "the certificate of {} names the type of its key in a way that verifiers refuse: \
             neither \
             by the name of a curve (RFC 5480, section 2.1.1) nor as an RSA key (RFC 3279, section \
             2.3.1)",
            leaf.subject()
        )),
    }
}

#[cfg(test)]
mod inputs_tests;
#[cfg(test)]
#[cfg(feature = "soft-rsa")]
mod property;
#[cfg(test)]
mod tests;
