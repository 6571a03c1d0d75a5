//! Names in extensions (RFC 5280, sections 4.2.1.6, 4.2.1.10 and 4.2.1.13).

use super::comparison::ComparableName;
use crate::ber::{BIT_STRING, Element, SEQUENCE, SET, bits, encoded, identifier, some};
use std::borrow::Cow;
use x509_cert::der::asn1::ObjectIdentifier;

/// The extension NameConstraints (RFC 5280, section 4.2.1.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NameConstraints<'a> {
    pub(crate) permitted: Vec<GeneralName<'a>>,
    pub(crate) excluded: Vec<GeneralName<'a>>,
}

/// A GeneralName (section 4.2.1.6). For types that are never compared, only the tag is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GeneralName<'a> {
    /// An otherName; only its type-id is stored.
    Other(ObjectIdentifier),
    Email(&'a [u8]),
    Dns(Cow<'a, [u8]>),
    /// A directoryName, as a Name in DER.
    Directory(&'a [u8]),
    Uri(&'a [u8]),
    Ip(&'a [u8]),
    /// An x400Address, ediPartyName or registeredID, with its tag.
    Odd(u8),
}

impl<'a> NameConstraints<'a> {
    /// Parses NameConstraints. At least one of the two fields must be present, and neither may be
    /// empty.
    pub(super) fn read(value: &Element<'a>) -> Option<Self> {
        let parts = value.children_of(SEQUENCE)?;
        let subtrees = |part: &Element<'a>| some(part.children()?, |one| subtree(&one));
        let (permitted, excluded) = match &parts[..] {
            [both, other] if (both.tag, other.tag) == (0xA0, 0xA1) => {
                (subtrees(both)?, subtrees(other)?)
            }
            [one] if one.tag == 0xA0 => (subtrees(one)?, Vec::new()),
            [one] if one.tag == 0xA1 => (Vec::new(), subtrees(one)?),
            _ => return None,
        };
        Some(Self {
            permitted,
            excluded,
        })
    }
}

impl<'a> GeneralName<'a> {
    pub(crate) fn read(element: &Element<'a>) -> Option<Self> {
        let content = element.content;
        Some(match element.tag {
            0xA0 => match &element.children()?[..] {
                [kind, value] if value.tag == 0xA0 => {
                    Element::only(value.content)?;
                    Self::Other(identifier(kind)?)
                }
                _ => return None,
            },
            0x81 => Self::Email(content),
            0x82 => Self::Dns(Cow::Borrowed(content)),
            0xA4 => {
                ComparableName::read(content)?;
                Self::Directory(content)
            }
            0x86 => Self::Uri(content),
            0x87 => Self::Ip(content),
            0xA3 => Self::Odd(element.tag),
            0xA5 => {
                let parts = element.children()?;
                let in_order = matches!(
                    parts.iter().map(|it| it.tag).collect::<Vec<_>>()[..],
                    [0xA1] | [0xA0, 0xA1]
                );
                let strings = parts.iter().all(|part| {
                    Element::only(part.content)
                        .is_some_and(|text| matches!(text.tag, 0x0C | 0x13 | 0x14 | 0x1C | 0x1E))
                });
                (in_order && strings).then_some(Self::Odd(element.tag))?
            }
            0x88 => {
                ObjectIdentifier::from_bytes(content).ok()?;
                Self::Odd(element.tag)
            }
            _ => return None,
        })
    }
}

/// Returns the base of a GeneralSubtree. Rejects a subtree with a maximum, or with a minimum other
/// than 0 (RFC 5280, section 4.2.1.10, forbids both).
fn subtree<'a>(element: &Element<'a>) -> Option<GeneralName<'a>> {
    let parts = element.children_of(SEQUENCE)?;
    let [base, rest @ ..] = &parts[..] else {
        return None;
    };
    let from_zero = match rest {
        [] => true,
        [minimum] => minimum.tag == 0x80 && minimum.content == [0],
        _ => false,
    };
    from_zero.then(|| GeneralName::read(base))?
}

/// Returns the fullName entries of a DistributionPoint (RFC 5280, section 4.2.1.13), as the
/// certificate encodes them.
pub(super) fn full_names<'a>(element: &Element<'a>) -> Option<Vec<&'a [u8]>> {
    let parts = element.children_of(SEQUENCE)?;
    let mut rest = &parts[..];
    let mut next = |tag: u8| match rest.split_first() {
        Some((first, behind)) if first.tag == tag => {
            rest = behind;
            Some(*first)
        }
        _ => None,
    };
    let (point, reasons, issuer) = (next(0xA0), next(0x81), next(0xA2));
    if !rest.is_empty() || point.or(issuer).is_none() {
        return None;
    }
    if let Some(reasons) = reasons {
        bits(&Element {
            tag: BIT_STRING,
            ..reasons
        })?;
    }
    if let Some(issuer) = issuer {
        some(issuer.children()?, |one| GeneralName::read(&one))?;
    }
    match point.map(|point| Element::only(point.content)) {
        None => Some(Vec::new()),
        Some(Some(names)) if names.tag == 0xA0 => some(names.children()?, |one| {
            GeneralName::read(&one).map(|_| one.whole)
        }),
        // A nameRelativeToCRLIssuer is accepted, but no CRL matches it.
        Some(Some(relative)) if relative.tag == 0xA1 => {
            let set = encoded(SET, relative.content);
            ComparableName::read(&encoded(SEQUENCE, &set))?;
            Some(Vec::new())
        }
        Some(_) => None,
    }
}
