//! Values of extensions (RFC 5280, section 4.2.1). An extension can be absent, readable or
//! unreadable. These are three different results.

use super::certificate::Certificate;
use super::decode::Unreadable;
use super::general_names::{GeneralName, NameConstraints, full_names};
use crate::ber::{
    BOOLEAN, Element, INTEGER, OCTET_STRING, SEQUENCE, bits, count, identifier, integer, some,
};
use crate::oid::*;
use std::collections::BTreeSet;
use x509_cert::der::asn1::ObjectIdentifier;

/// The value of an extension. `Ok(None)`: the certificate does not have the extension.
pub(crate) type ExtensionResult<T> = Result<Option<T>, Unreadable>;

/// The extension BasicConstraints (RFC 5280, section 4.2.1.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BasicConstraints {
    pub(crate) ca: bool,
    /// The number of CAs that may be between this CA and a leaf. A number out of range is replaced
    /// by the maximum.
    pub(crate) path_len: Option<usize>,
}

/// The extension KeyUsage (section 4.2.1.3). Bit 0 of the standard is the highest bit of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyUsage(u16);

/// The extension AuthorityKeyIdentifier (RFC 5280, section 4.2.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuthorityKeyId<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) issuer: Vec<GeneralName<'a>>,
    /// The serial number of the issuer's certificate: the content of the INTEGER.
    pub(crate) serial: Option<&'a [u8]>,
}

/// The extension PolicyConstraints (RFC 5280, section 4.2.1.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PolicyConstraints {
    pub(crate) require_explicit_policy: Option<usize>,
    pub(crate) inhibit_policy_mapping: Option<usize>,
}

type IsUnread = fn(&Certificate) -> bool;

/// The extensions that path validation uses, or that OpenSSL parses in each certificate. Each entry
/// has the object identifier, the name, and a function that returns true if the value cannot be
/// read.
const READ: &[(ObjectIdentifier, &str, IsUnread)] = &[
    (BASIC_CONSTRAINTS, "basicConstraints", |it| {
        it.basic_constraints().is_err()
    }),
    (KEY_USAGE, "keyUsage", |it| it.key_usage().is_err()),
    (EXTENDED_KEY_USAGE, "extKeyUsage", |it| {
        it.purposes().is_err()
    }),
    (AUTHORITY_KEY_ID, "authorityKeyIdentifier", |it| {
        it.authority_key_id().is_err()
    }),
    (SUBJECT_KEY_ID, "subjectKeyIdentifier", |it| {
        it.subject_key_id().is_err()
    }),
    (SUBJECT_ALT_NAME, "subjectAltName", |it| {
        it.alternative_names().is_err()
    }),
    (CERTIFICATE_POLICIES, "certificatePolicies", |it| {
        it.policies().is_err()
    }),
    (POLICY_MAPPINGS, "policyMappings", |it| {
        it.policy_mappings().is_err()
    }),
    (POLICY_CONSTRAINTS, "policyConstraints", |it| {
        it.policy_constraints().is_err()
    }),
    (INHIBIT_ANY_POLICY, "inhibitAnyPolicy", |it| {
        it.inhibit_any_policy().is_err()
    }),
    (NAME_CONSTRAINTS, "nameConstraints", |it| {
        it.name_constraints().is_err()
    }),
    (CRL_DISTRIBUTION_POINTS, "cRLDistributionPoints", |it| {
        it.distribution_points().is_err()
    }),
    (NETSCAPE_CERT_TYPE, "netscape-cert-type", |it| {
        it.value_of(NETSCAPE_CERT_TYPE, bits).is_err()
    }),
];

impl Certificate {
    pub(crate) fn basic_constraints(&self) -> ExtensionResult<BasicConstraints> {
        self.value_of(BASIC_CONSTRAINTS, BasicConstraints::read)
    }

    pub(crate) fn key_usage(&self) -> ExtensionResult<KeyUsage> {
        self.value_of(KEY_USAGE, KeyUsage::read)
    }

    /// Returns the key purposes in extKeyUsage.
    pub(crate) fn purposes(&self) -> ExtensionResult<Vec<ObjectIdentifier>> {
        self.value_of(EXTENDED_KEY_USAGE, |value| {
            some(value.children_of(SEQUENCE)?, |one| identifier(&one))
        })
    }

    pub(crate) fn authority_key_id(&self) -> ExtensionResult<AuthorityKeyId<'_>> {
        self.value_of(AUTHORITY_KEY_ID, AuthorityKeyId::read)
    }

    pub(crate) fn subject_key_id(&self) -> ExtensionResult<&[u8]> {
        self.value_of(SUBJECT_KEY_ID, |value| {
            (value.tag == OCTET_STRING).then_some(value.content)
        })
    }

    /// Returns all names of the subjectAltName.
    pub(crate) fn alternative_names(&self) -> ExtensionResult<Vec<GeneralName<'_>>> {
        self.value_of(SUBJECT_ALT_NAME, |value| {
            some(value.children_of(SEQUENCE)?, |one| GeneralName::read(&one))
        })
    }

    /// Returns the policies in certificatePolicies, without their qualifiers.
    pub(crate) fn policies(&self) -> ExtensionResult<Vec<ObjectIdentifier>> {
        self.value_of(CERTIFICATE_POLICIES, |value| {
            let policies = some(value.children_of(SEQUENCE)?, |one| policy(&one))?;
            let different: BTreeSet<_> = policies.iter().collect();
            (different.len() == policies.len()).then_some(policies)
        })
    }

    /// Returns the policy mappings, as pairs of issuerDomainPolicy and subjectDomainPolicy.
    pub(crate) fn policy_mappings(
        &self,
    ) -> ExtensionResult<Vec<(ObjectIdentifier, ObjectIdentifier)>> {
        self.value_of(POLICY_MAPPINGS, |value| {
            some(value.children_of(SEQUENCE)?, |pair| {
                match pair.children_of(SEQUENCE)?[..] {
                    [from, to] => Some((identifier(&from)?, identifier(&to)?)),
                    _ => None,
                }
            })
        })
    }

    pub(crate) fn policy_constraints(&self) -> ExtensionResult<PolicyConstraints> {
        self.value_of(POLICY_CONSTRAINTS, PolicyConstraints::read)
    }

    /// Returns SkipCerts of inhibitAnyPolicy: the number of following certificates that may still
    /// name anyPolicy.
    pub(crate) fn inhibit_any_policy(&self) -> ExtensionResult<usize> {
        self.value_of(INHIBIT_ANY_POLICY, |value| {
            (value.tag == INTEGER).then(|| count(value))?
        })
    }

    pub(crate) fn name_constraints(&self) -> ExtensionResult<NameConstraints<'_>> {
        self.value_of(NAME_CONSTRAINTS, NameConstraints::read)
    }

    /// Returns the fullName entries of all CRL distribution points, as the certificate encodes
    /// them.
    pub(crate) fn distribution_points(&self) -> ExtensionResult<Vec<&[u8]>> {
        self.value_of(CRL_DISTRIBUTION_POINTS, |value| {
            let points = some(value.children_of(SEQUENCE)?, |one| full_names(&one))?;
            Some(points.into_iter().flatten().collect())
        })
    }

    /// Returns the names of extensions that cannot be read, or that occur twice and are therefore
    /// ambiguous.
    pub(crate) fn unreadable(&self) -> Vec<String> {
        let Ok(all) = self.extensions() else {
            return vec!["one of its extensions".into()];
        };
        let (mut seen, mut twice) = (BTreeSet::new(), BTreeSet::new());
        for one in all {
            if !seen.insert(one.id) {
                twice.insert(one.id);
            }
        }
        let read = READ.iter().filter(|(id, _, is_unread)| {
            let unread = twice.remove(id);
            unread || (seen.contains(id) && is_unread(self))
        });
        let mut names: Vec<String> = read.map(|(_, name, _)| (*name).into()).collect();
        names.extend(twice.iter().map(ToString::to_string));
        names
    }

    fn value_of<'a, T>(
        &'a self,
        id: ObjectIdentifier,
        read: impl FnOnce(&Element<'a>) -> Option<T>,
    ) -> ExtensionResult<T> {
        let Some(found) = self.extension(id)? else {
            return Ok(None);
        };
        let value = Element::only(found.value).and_then(|value| read(&value));
        value.map(Some).ok_or_else(Unreadable::nothing)
    }
}

impl BasicConstraints {
    fn read(value: &Element) -> Option<Self> {
        let parts = value.children_of(SEQUENCE)?;
        let (ca, rest) = match parts.split_first() {
            Some((first, rest)) if first.tag == BOOLEAN => match first.content {
                [flag] => (*flag != 0, rest),
                _ => return None,
            },
            _ => (false, &parts[..]),
        };
        let path_len = match rest {
            [] => None,
            [number] if number.tag == INTEGER => Some(count(number)?),
            _ => return None,
        };
        Some(Self { ca, path_len })
    }
}

impl KeyUsage {
    const NAMES: [&str; 9] = [
        "digitalSignature",
        "nonRepudiation",
        "keyEncipherment",
        "dataEncipherment",
        "keyAgreement",
        "keyCertSign",
        "cRLSign",
        "encipherOnly",
        "decipherOnly",
    ];

    /// Parses a KeyUsage. At least one bit must be set, and no bytes may follow the named bits.
    fn read(value: &Element) -> Option<Self> {
        let bits = match bits(value)?[..] {
            [first] => u16::from_be_bytes([first, 0]),
            [first, second] => u16::from_be_bytes([first, second]),
            _ => return None,
        };
        (bits != 0).then_some(Self(bits))
    }

    fn has(self, number: usize) -> bool {
        self.0 & (0x8000 >> number) != 0
    }

    pub(crate) fn digital_signature(self) -> bool {
        self.has(0)
    }

    pub(crate) fn key_cert_sign(self) -> bool {
        self.has(5)
    }

    pub(crate) fn crl_sign(self) -> bool {
        self.has(6)
    }

    /// Returns the names of the KeyUsage bits that are set (RFC 5280, section 4.2.1.3).
    pub(crate) fn names(self) -> Vec<&'static str> {
        let set = |(number, name): (usize, &'static str)| self.has(number).then_some(name);
        Self::NAMES
            .into_iter()
            .enumerate()
            .filter_map(set)
            .collect()
    }
}

impl<'a> AuthorityKeyId<'a> {
    pub(super) fn read(value: &Element<'a>) -> Option<Self> {
        let mut id = Self {
            key: None,
            issuer: Vec::new(),
            serial: None,
        };
        let mut last = 0;
        for part in value.children_of(SEQUENCE)? {
            if part.tag & 0x0F < last {
                return None;
            }
            last = (part.tag & 0x0F) + 1;
            match part.tag {
                0x80 => id.key = Some(part.content),
                0xA1 => id.issuer = some(part.children()?, |one| GeneralName::read(&one))?,
                0x82 => id.serial = Some(integer(&part)?),
                _ => return None,
            }
        }
        Some(id)
    }
}

impl PolicyConstraints {
    /// Parses PolicyConstraints. At least one of the two fields must be present.
    fn read(value: &Element) -> Option<Self> {
        let [mut require_explicit_policy, mut inhibit_policy_mapping] = [None; 2];
        for part in value.children_of(SEQUENCE)? {
            let place = match part.tag {
                0x80 if inhibit_policy_mapping.is_none() => &mut require_explicit_policy,
                0x81 => &mut inhibit_policy_mapping,
                _ => return None,
            };
            if place.replace(count(&part)?).is_some() {
                return None;
            }
        }
        require_explicit_policy.or(inhibit_policy_mapping)?;
        Some(Self {
            require_explicit_policy,
            inhibit_policy_mapping,
        })
    }
}

/// Returns the policyIdentifier of a PolicyInformation (RFC 5280, section 4.2.1.4).
fn policy(element: &Element) -> Option<ObjectIdentifier> {
    match &element.children_of(SEQUENCE)?[..] {
        [policy] => identifier(policy),
        [policy, qualifiers] => {
            some(qualifiers.children_of(SEQUENCE)?, |one| {
                match &one.children_of(SEQUENCE)?[..] {
                    [kind, _] => identifier(kind),
                    _ => None,
                }
            })?;
            identifier(policy)
        }
        _ => None,
    }
}
