//! Certification path validation (RFC 5280, section 6): names, signatures, validity, CA rights,
//! name constraints and policies. Revocation is checked afterwards, in [`revocation`].

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

/// Extensions that are evaluated, or that do not restrict this use.
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
/// Additional extensions for a CA.
const UNDERSTOOD_OF_CA: &[ObjectIdentifier] = &[NAME_CONSTRAINTS];
/// Extensions that change the subject of a certificate and are not supported, critical or not.
const REFUSED: &[(ObjectIdentifier, &str)] = &[
    (PROXY_CERT_INFO, "it is a proxy's (RFC 3820)"),
    (
        IP_ADDR_BLOCKS,
        "it holds IP addresses (RFC 3779), which are not evaluated here",
    ),
    (
        AUTONOMOUS_SYS_IDS,
        "it holds AS numbers (RFC 3779), which are not evaluated here",
    ),
];
/// More certificates than any factory's chain.
const LONGEST: usize = 8;
/// More signature checks than any normal search needs.
const MOST_CHECKS: u32 = 100;

/// The result of a path search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathResult {
    /// A trusted certificate was reached: the certificates of the path, the trusted one last.
    Trusted(Vec<Certificate>),
    /// The certificate of this issuer is missing.
    NoIssuer(String),
    /// The leaf is signed by its own key; no CA confirms it.
    SelfSigned,
    /// A certificate is invalid.
    Invalid(String),
}

/// Searches a path from `leaf` to one of `trusted`, over `others`. Without `now`, validity is not
/// checked.
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
    /// The remaining number of signature checks.
    left: Cell<u32>,
}

impl Search<'_> {
    /// Extends `way`, which leads from the leaf to the current certificate. `between` counts the
    /// CAs below the next issuer for its path length.
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
            // CAs that certify each other would cause a loop.
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
                // An invalid certificate is a better explanation than a missing issuer.
                PathResult::Invalid(why) => end = PathResult::Invalid(why),
                PathResult::NoIssuer(whose) if matches!(end, PathResult::NoIssuer(_)) => {
                    end = PathResult::NoIssuer(whose)
                }
                PathResult::NoIssuer(_) | PathResult::SelfSigned => {}
            }
        }
        end
    }

    /// Checks that `issuer` may have issued `child`, and did.
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
            _ => return Err(format!("the certificate of {whose} is not a CA's")),
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
                "the signature of {whose} under the certificate of {} is wrong",
                child.subject()
            )),
            Err(why) => Err(why),
        }
    }

    /// True for a trusted root of version 1, which has no basicConstraints. Such a root is trusted
    /// as it is (RFC 5280, section 6.1.1, d).
    fn is_old_root(&self, issuer: &Certificate) -> bool {
        issuer.version() == Ok(1)
            && self.trusted.contains(issuer)
            && names(issuer, issuer)
            && signature::is_self_signed(issuer)
    }
}

/// True if `child` names `issuer` as its issuer. A CA of the same name with another key identifier
/// does not match.
pub(crate) fn names(child: &Certificate, issuer: &Certificate) -> bool {
    if !is_same_name(child.issuer_der(), issuer.subject_der()) {
        return false;
    }
    // An unreadable extension excludes no issuer here; the later checks reject it.
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

/// True if both are certificates of one name and key.
fn is_same_entity(one: &Certificate, other: &Certificate) -> bool {
    is_same_name(one.subject_der(), other.subject_der())
        && one.public_key_info_der() == other.public_key_info_der()
}

/// Checks that all relevant parts of a certificate are readable and supported.
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
            "the certificate of {whose} has an extension that cannot be read, or has it twice: \
             {unread}"
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
                "the certificate of {whose} has the critical extension {}, which is not understood \
                 here",
                extension.id
            ));
        }
    }
    Ok(())
}

/// Checks that other verifiers can read the leaf's key. Most reject explicit curve parameters, and
/// algorithm identifiers for another use.
fn has_plain_key(leaf: &Certificate) -> Result<(), String> {
    match leaf.public_key().is_none() || signature::is_usual_key(leaf) {
        true => Ok(()),
        false => Err(format!(
            "the certificate of {} names the kind of its key in a way that verifiers refuse: neither \
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
