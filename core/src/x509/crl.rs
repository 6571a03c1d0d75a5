//! Certificate revocation lists (RFC 5280, section 5). Only complete CRLs about certificates of the
//! CRL's issuer are supported.

use super::decode::{Unreadable, decoded};
use super::extension::Extension;
use super::extensions::AuthorityKeyId;
use super::general_names::GeneralName;
use super::names::{Name, name_text};
use super::time::Time;
use crate::ber::{BIT_STRING, Element, INTEGER, SEQUENCE, count, integer};
use crate::oid::{AUTHORITY_KEY_ID, DELTA_CRL_INDICATOR, ISSUING_DISTRIBUTION_POINT, REASON_CODE};
use x509_cert::spki::AlgorithmIdentifierOwned;

const ENUMERATED: u8 = 0x0A;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const CRL_EXTENSIONS: u8 = 0xA0;

/// A parsed certificate revocation list (CRL).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Crl {
    signed: Vec<u8>,
    /// Two AlgorithmIdentifiers: the field signatureAlgorithm, and the signed field `signature`.
    algorithms: [Vec<u8>; 2],
    /// The signature of the CRL: the content of the BIT STRING.
    signature: Vec<u8>,
    issuer: Vec<u8>,
    pub(crate) this_update: Time,
    pub(crate) next_update: Option<Time>,
    /// The key identifier of the CA that signed the CRL (extension authorityKeyIdentifier).
    pub(crate) authority_key: Option<Vec<u8>>,
    pub(crate) scope: Scope,
    entries: Vec<RevokedCertificate>,
}

/// Which certificates a CRL covers (its scope).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) no_authorities: bool,
    pub(crate) only_authorities: bool,
    /// The distribution points of the certificates in scope, as names in DER. Empty if the CRL is
    /// for all distribution points.
    pub(crate) names: Vec<Vec<u8>>,
}

/// An entry of a CRL: a revoked certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RevokedCertificate {
    /// The serial number of the revoked certificate: the content of the INTEGER.
    serial: Vec<u8>,
    pub(crate) date: Time,
    /// The name of the CRLReason (RFC 5280, section 5.3.1).
    pub(crate) reason: &'static str,
}

impl Crl {
    /// Parses a CRL without trailing bytes.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not a CRL, or are a CRL of an unsupported type.
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, String> {
        let whole = Element::only(der).and_then(|whole| whole.children_of(SEQUENCE));
        let (signed, algorithm, signature) = match whole.as_deref() {
            Some([signed, algorithm, signature]) if signature.tag == BIT_STRING => {
                (signed, algorithm, signature)
            }
            _ => return Err("it is not a CRL".into()),
        };
        let mut parts = CrlParts::of(signed).ok_or("it is not a CRL")?;
        let mut list = Self {
            signed: signed.whole.to_vec(),
            algorithms: [algorithm.whole, parts.algorithm.whole].map(<[u8]>::to_vec),
            signature: signature.content.to_vec(),
            issuer: parts.issuer.whole.to_vec(),
            this_update: Time::read(&parts.this_update)
                .map_err(|why| format!("thisUpdate {why}"))?,
            next_update: match parts.next_update {
                Some(next) => Some(Time::read(&next).map_err(|why| format!("nextUpdate {why}"))?),
                None => None,
            },
            authority_key: None,
            scope: Scope::default(),
            entries: Vec::new(),
        };
        for extension in extensions(parts.extensions.take())? {
            list.take(&extension)?;
        }
        let entries = parts
            .revoked
            .map_or(Some(Vec::new()), |revoked| revoked.children());
        let entries = entries.ok_or("the list of revoked certificates cannot be read")?;
        list.entries = entries
            .iter()
            .map(RevokedCertificate::read)
            .collect::<Result<_, _>>()?;
        Ok(list)
    }

    fn take(&mut self, extension: &Extension) -> Result<(), String> {
        let unread = || format!("the extension {} cannot be read", extension.id);
        let value = || Element::only(extension.value).ok_or_else(unread);
        match extension.id {
            AUTHORITY_KEY_ID => {
                let id = value()?;
                let id = AuthorityKeyId::read(&id).ok_or_else(unread)?;
                self.authority_key = id.key.map(<[u8]>::to_vec);
            }
            DELTA_CRL_INDICATOR => {
                return Err(
                    "it is a delta CRL, which lists only changes: give the complete CRL".into(),
                );
            }
            ISSUING_DISTRIBUTION_POINT => {
                self.scope = Scope::read(&value()?)?.ok_or_else(unread)?
            }
            id if extension.critical => {
                return Err(format!(
                    "it has the critical extension {id}, which is not supported"
                ));
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the issuer in the format of RFC 4514.
    pub(crate) fn issuer(&self) -> String {
        name_text(Name::read(&self.issuer).ok_or_else(Unreadable::nothing))
    }

    /// Returns the issuer as it is encoded in the CRL (a Name).
    pub(crate) fn issuer_der(&self) -> &[u8] {
        &self.issuer
    }

    pub(crate) fn signed_part(&self) -> &[u8] {
        &self.signed
    }

    pub(crate) fn signature_algorithm(&self) -> Result<AlgorithmIdentifierOwned, Unreadable> {
        decoded(&self.algorithms[0])
    }

    /// Returns true if the CRL's field signatureAlgorithm and its signed field `signature` are
    /// equal.
    pub(crate) fn names_one_algorithm(&self) -> bool {
        self.algorithms[0] == self.algorithms[1]
    }

    /// Returns the signature of the CRL: the content of the BIT STRING, without unused bits.
    pub(crate) fn signature(&self) -> Result<&[u8], Unreadable> {
        self.signature
            .strip_prefix(&[0])
            .ok_or_else(Unreadable::nothing)
    }

    /// Returns the CRL entry for a certificate's serial number (the content of the INTEGER), if the
    /// certificate is revoked.
    pub(crate) fn entry(&self, serial: &[u8]) -> Option<&RevokedCertificate> {
        self.entries.iter().find(|entry| entry.serial == serial)
    }
}

/// The fields of a TBSCertList (RFC 5280, section 5.1.2), not yet parsed.
struct CrlParts<'a> {
    algorithm: Element<'a>,
    issuer: Element<'a>,
    this_update: Element<'a>,
    next_update: Option<Element<'a>>,
    revoked: Option<Element<'a>>,
    extensions: Option<Element<'a>>,
}

impl<'a> CrlParts<'a> {
    fn of(signed: &Element<'a>) -> Option<Self> {
        let children = signed.children_of(SEQUENCE)?;
        let mut rest = children.into_iter().peekable();
        let mut next = |tags: &[u8]| rest.next_if(|one| tags.contains(&one.tag));
        let times = [UTC_TIME, GENERALIZED_TIME];
        next(&[INTEGER]);
        let parts = Self {
            algorithm: next(&[SEQUENCE])?,
            issuer: next(&[SEQUENCE])?,
            this_update: next(&times)?,
            next_update: next(&times),
            revoked: next(&[SEQUENCE]),
            extensions: next(&[CRL_EXTENSIONS]),
        };
        rest.next().is_none().then_some(parts)
    }
}

impl Scope {
    /// Parses an IssuingDistributionPoint (RFC 5280, section 5.2.5). Returns `None` if it cannot be
    /// read.
    ///
    /// # Errors
    ///
    /// Fails if the type of the CRL is not supported.
    fn read(value: &Element) -> Result<Option<Self>, String> {
        let mut scope = Self::default();
        let Some(parts) = value.children_of(SEQUENCE) else {
            return Ok(None);
        };
        for part in parts {
            let says = || part.content != [0];
            match part.tag {
                0xA0 => match full_names(&part) {
                    Some(names) => scope.names = names,
                    None => {
                        return Err(
                            "the type of the name of its distribution point is not supported"
                                .into(),
                        );
                    }
                },
                0x81 => scope.no_authorities = says(),
                0x82 => scope.only_authorities = says(),
                0x83 => {
                    return Err(
                        "it lists only some reasons of revocation: give the complete CRL".into(),
                    );
                }
                0x84 if says() => {
                    return Err(
                        "it is an indirect CRL, which lists certificates of other issuers".into(),
                    );
                }
                0x85 if says() => return Err("it lists only attribute certificates".into()),
                0x84 | 0x85 => {}
                _ => return Ok(None),
            }
        }
        Ok(Some(scope))
    }
}

/// Returns the names in the fullName of a DistributionPointName, each in DER. Returns `None` if a
/// name cannot be read.
fn full_names(part: &Element) -> Option<Vec<Vec<u8>>> {
    let names = Element::only(part.content)?.children_of(0xA0)?;
    let read = names
        .iter()
        .map(|name| GeneralName::read(name).map(|_| name.whole.to_vec()));
    read.collect::<Option<Vec<_>>>()
        .filter(|names| !names.is_empty())
}

impl RevokedCertificate {
    fn read(element: &Element) -> Result<Self, String> {
        let unread = || "an entry for a revoked certificate cannot be read".to_owned();
        let parts = element.children_of(SEQUENCE).ok_or_else(unread)?;
        let (serial, date, more) = match parts[..] {
            [serial, date] => (serial, date, None),
            [serial, date, more] => (serial, date, Some(more)),
            _ => return Err(unread()),
        };
        if serial.tag != INTEGER {
            return Err(unread());
        }
        let mut entry = Self {
            serial: integer(&serial).ok_or_else(unread)?.to_vec(),
            date: Time::read(&date).map_err(|_| unread())?,
            reason: "unspecified",
        };
        for extension in more.map_or(Ok(Vec::new()), |more| extension_list(&more))? {
            match extension.id {
                REASON_CODE => {
                    let code = Element::only(extension.value).filter(|it| it.tag == ENUMERATED);
                    entry.reason = code
                        .and_then(|code| reason(count(&code)?))
                        .ok_or_else(unread)?;
                }
                id if extension.critical => {
                    return Err(format!(
                        "an entry for a revoked certificate has the critical extension {id}, \
                         which is not supported"
                    ));
                }
                _ => {}
            }
        }
        Ok(entry)
    }
}

/// Returns the name of a CRLReason by its number (RFC 5280, section 5.3.1).
fn reason(code: usize) -> Option<&'static str> {
    Some(match code {
        0 => "unspecified",
        1 => "keyCompromise",
        2 => "cACompromise",
        3 => "affiliationChanged",
        4 => "superseded",
        5 => "cessationOfOperation",
        6 => "certificateHold",
        8 => "removeFromCRL",
        9 => "privilegeWithdrawn",
        10 => "aACompromise",
        _ => return None,
    })
}

/// Returns the crlExtensions of a CRL. `tagged` is the field with its outer tag.
fn extensions(tagged: Option<Element<'_>>) -> Result<Vec<Extension<'_>>, String> {
    let Some(tagged) = tagged else {
        return Ok(Vec::new());
    };
    match Element::only(tagged.content) {
        Some(list) => extension_list(&list),
        None => Err("its extensions cannot be read".into()),
    }
}

fn extension_list<'a>(list: &Element<'a>) -> Result<Vec<Extension<'a>>, String> {
    let all = list.children_of(SEQUENCE);
    let all = all.and_then(|all| all.iter().map(Extension::read).collect::<Option<Vec<_>>>());
    let all = all.ok_or("its extensions cannot be read")?;
    let mut ids: Vec<_> = all.iter().map(|one| one.id).collect();
    ids.sort();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("the extension {} occurs twice", pair[0])),
        None => Ok(all),
    }
}
