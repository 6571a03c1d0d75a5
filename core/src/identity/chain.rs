//! From a certificate up to one that is trusted (RFC 5280, section 6), as far as device
//! certificates need it.
//!
//! Not evaluated: name constraints, policies, revocation. A CA that makes such an extension critical
//! is refused, as RFC 5280, section 4.2, wants it; which policies a leaf names is for people to read.

use super::profile::{
    BASIC_CONSTRAINTS, CERTIFICATE_POLICIES, EXTENDED_KEY_USAGE, KEY_USAGE, SUBJECT_ALT_NAME,
    authority_key_id, basic_constraints, critical, key_usage, subject_key_id,
};
use super::time::valid_at;
use crate::certificate::Certificate;
use crate::key::{Curve, PublicKey};
use crate::store::{SignRequest, verify, verify_pss};
use crate::tpm::Hash;
use pkcs1::RsaPssParams;
use std::cell::Cell;
use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::der::{DateTime, Decode, Encode};
use x509_cert::spki::AlgorithmIdentifierOwned;

const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const ECDSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4");
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const RSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const RSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");

/// Extensions that are evaluated, or that restrict nothing that is asked here.
const UNDERSTOOD: &[ObjectIdentifier] = &[
    BASIC_CONSTRAINTS,
    KEY_USAGE,
    SUBJECT_ALT_NAME,
    EXTENDED_KEY_USAGE,
];
/// Of a leaf, beside those.
const UNDERSTOOD_OF_LEAF: &[ObjectIdentifier] = &[CERTIFICATE_POLICIES];
/// Longer than any chain of a factory.
const LONGEST: usize = 8;
/// More signatures than any search needs that is not led astray.
const MOST_CHECKS: u32 = 100;

/// Where the way up ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// At a trusted certificate: the subjects on the way, the trusted one last.
    Trusted(Vec<String>),
    /// Nobody has the certificate of this issuer.
    Open(String),
    /// At the leaf, which its own key signed: nobody else stands behind it.
    SelfSigned,
    /// At something that is wrong.
    Broken(String),
}

/// Looks for a way from `leaf` to one of `trusted`, over `others`. Without a time, nobody's
/// validity is looked at.
pub(super) fn way(
    leaf: &Certificate,
    trusted: &[Certificate],
    others: &[Certificate],
    now: Option<DateTime>,
) -> Way {
    let search = Search {
        trusted,
        others,
        now,
        left: Cell::new(MOST_CHECKS),
    };
    if let Some(unknown) = unknown_critical(leaf, UNDERSTOOD_OF_LEAF) {
        return Way::Broken(unknown);
    }
    match search.up(&[leaf], 0) {
        Way::Open(_) if is_self_signed(leaf) => Way::SelfSigned,
        found => found,
    }
}

fn is_self_signed(leaf: &Certificate) -> bool {
    leaf.issuer_der() == leaf.subject_der() && is_signed_by(leaf, leaf) == Ok(true)
}

struct Search<'a> {
    trusted: &'a [Certificate],
    others: &'a [Certificate],
    now: Option<DateTime>,
    /// So many signatures may still be looked at.
    left: Cell<u32>,
}

impl Search<'_> {
    /// `way` leads from the leaf to where the search is; `between` counts the CAs below the next
    /// issuer that a path length counts.
    fn up(&self, way: &[&Certificate], between: usize) -> Way {
        let Some(&child) = way.last() else {
            return Way::Broken("no certificate".into());
        };
        if self.trusted.contains(child) {
            return Way::Trusted(vec![child.subject()]);
        }
        let mut end = Way::Open(child.issuer());
        if way.len() > LONGEST || child.issuer_der() == child.subject_der() {
            return end;
        }
        for issuer in self.trusted.iter().chain(self.others) {
            // CAs that certify each other lead round and round.
            if !names(child, issuer) || way.iter().any(|below| is_same_entity(below, issuer)) {
                continue;
            }
            let Some(left) = self.left.get().checked_sub(1) else {
                return Way::Broken(format!(
                    "more than {MOST_CHECKS} signatures would have to be looked at: too many CAs \
                     certify each other"
                ));
            };
            self.left.set(left);
            let found = match self.step(child, issuer, between) {
                Ok(()) => {
                    let self_issued = issuer.issuer_der() == issuer.subject_der();
                    let way = [way, &[issuer]].concat();
                    self.up(&way, between + usize::from(!self_issued))
                }
                Err(why) => Way::Broken(why),
            };
            match found {
                Way::Trusted(mut subjects) => {
                    subjects.insert(0, child.subject());
                    return Way::Trusted(subjects);
                }
                // What is wrong says more than what is missing further up.
                Way::Broken(why) => end = Way::Broken(why),
                Way::Open(whose) if matches!(end, Way::Open(_)) => end = Way::Open(whose),
                Way::Open(_) | Way::SelfSigned => {}
            }
        }
        end
    }

    /// Whether `issuer` may have issued `child`, and did.
    fn step(
        &self,
        child: &Certificate,
        issuer: &Certificate,
        between: usize,
    ) -> Result<(), String> {
        let whose = issuer.subject();
        let constraints = basic_constraints(issuer).filter(|constraints| constraints.ca);
        let Some(constraints) = constraints else {
            return Err(format!("the certificate of {whose} is not a CA's"));
        };
        if key_usage(issuer).is_some_and(|usage| !usage.key_cert_sign()) {
            return Err(format!("the key of {whose} may not sign certificates"));
        }
        if let Some(most) = constraints.path_len_constraint
            && between > most.into()
        {
            return Err(format!("{whose} allows only {most} CAs below it"));
        }
        if let Some(unknown) = unknown_critical(issuer, &[]) {
            return Err(unknown);
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
}

/// Whether `child` says that `issuer` issued it. A CA of the same name with another key did not.
pub(super) fn names(child: &Certificate, issuer: &Certificate) -> bool {
    let same_key = match (authority_key_id(child), subject_key_id(issuer)) {
        (Some(wanted), Some(there)) => wanted == there,
        _ => true,
    };
    same_key && child.issuer_der() == issuer.subject_der()
}

/// Whether both are certificates of one name and key.
fn is_same_entity(one: &Certificate, other: &Certificate) -> bool {
    one.subject_der() == other.subject_der() && one.public_key() == other.public_key()
}

fn unknown_critical(certificate: &Certificate, also: &[ObjectIdentifier]) -> Option<String> {
    let whose = certificate.subject();
    // Whoever believes a certificate has read all of it.
    let read = certificate.parsed().and_then(|_| critical(certificate));
    let critical = match read {
        Ok(critical) => critical,
        Err(why) => return Some(format!("the certificate of {whose} {why}")),
    };
    let mut critical = critical.into_iter();
    let unknown = critical.find(|id| !UNDERSTOOD.contains(id) && !also.contains(id))?;
    Some(format!(
        "the certificate of {whose} has the critical extension {unknown}, which is not understood \
         here"
    ))
}

/// Whether the signature under `child` is by the key of `issuer`.
///
/// # Errors
///
/// The algorithm is not known here.
pub(super) fn is_signed_by(child: &Certificate, issuer: &Certificate) -> Result<bool, String> {
    let subject = child.subject();
    let unreadable = |why| format!("the signature of the certificate of {subject} {why}");
    let algorithm = child.signature_algorithm().map_err(unreadable)?;
    if !child.names_one_algorithm() {
        return Err(format!(
            "the certificate of {subject} names two algorithms for its signature"
        ));
    }
    let unknown = || {
        format!(
            "the certificate of {subject} is signed by an algorithm that is not known here ({})",
            algorithm.oid
        )
    };
    let scheme = Scheme::of(&algorithm).ok_or_else(unknown)?;
    let key = issuer.plain_public_key().ok_or_else(unknown)?;
    let digest = scheme.hash().digest(&[child.signed_part()]);
    let bits = child.signature().map_err(unreadable)?;
    let verified = match (&key, scheme) {
        (PublicKey::Ec { curve, .. }, Scheme::Ecdsa(_)) => fixed_width(*curve, bits)
            .is_some_and(|signature| verify(&key, SignRequest::Ecdsa(&digest), &signature)),
        (PublicKey::Rsa { .. }, Scheme::Pkcs1(hash)) => {
            verify(&key, SignRequest::Pkcs1(hash, &digest), bits)
        }
        (PublicKey::Rsa { .. }, Scheme::Pss { hash, salt }) => {
            verify_pss(&key, hash, salt, &digest, bits)
        }
        _ => false,
    };
    Ok(verified)
}

#[derive(Clone, Copy)]
enum Scheme {
    Ecdsa(Hash),
    Pkcs1(Hash),
    /// With a salt of so many bytes.
    Pss {
        hash: Hash,
        salt: usize,
    },
}

impl Scheme {
    fn of(algorithm: &AlgorithmIdentifierOwned) -> Option<Self> {
        Some(match algorithm.oid {
            ECDSA_SHA256 => Self::Ecdsa(Hash::Sha256),
            ECDSA_SHA384 => Self::Ecdsa(Hash::Sha384),
            ECDSA_SHA512 => Self::Ecdsa(Hash::Sha512),
            RSA_SHA256 => Self::Pkcs1(Hash::Sha256),
            RSA_SHA384 => Self::Pkcs1(Hash::Sha384),
            RSA_SHA512 => Self::Pkcs1(Hash::Sha512),
            RSA_PSS => {
                let parameters = algorithm.parameters.as_ref()?.to_der().ok()?;
                Self::pss(&parameters)?
            }
            _ => return None,
        })
    }

    fn hash(self) -> Hash {
        match self {
            Self::Ecdsa(hash) | Self::Pkcs1(hash) | Self::Pss { hash, .. } => hash,
        }
    }

    /// What RSASSA-PSS-params say (RFC 8017, appendix A.2.3), if MGF1 has the same hash.
    fn pss(parameters: &[u8]) -> Option<Self> {
        let parameters = RsaPssParams::<Any>::from_der(parameters).ok()?;
        let hash = match parameters.hash.oid {
            SHA256 => Hash::Sha256,
            SHA384 => Hash::Sha384,
            SHA512 => Hash::Sha512,
            _ => return None,
        };
        let of_mask = parameters.mask_gen.parameters?.oid;
        (of_mask == parameters.hash.oid).then_some(Self::Pss {
            hash,
            salt: parameters.salt_len.into(),
        })
    }
}

/// ECDSA-Sig-Value (RFC 3279, section 2.2.3) as r ‖ s.
fn fixed_width(curve: Curve, der: &[u8]) -> Option<Vec<u8>> {
    macro_rules! through {
        ($curve:ident) => {
            $curve::ecdsa::Signature::from_der(der)
                .ok()
                .map(|signature| signature.to_bytes().to_vec())
        };
    }
    match curve {
        Curve::P256 => through!(p256),
        Curve::P384 => through!(p384),
        Curve::P521 => through!(p521),
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
