//! Checks name constraints along a path (RFC 5280, sections 4.2.1.10 and 6.1.3). Distinguished
//! names, DNS names and addresses are compared. A constraint on another type of name makes the path
//! invalid if a name of this type occurs.

use super::is_self_issued;
use crate::oid::{COMMON_NAME, EMAIL_ADDRESS, SMTP_UTF8_MAILBOX};
use crate::x509::Certificate;
use crate::x509::comparison::{ComparableName, text};
use crate::x509::general_names::{GeneralName, NameConstraints};
use std::borrow::Cow;

const IA5: u8 = 0x16;
/// The maximum number of comparisons. Usual certificates need fewer.
const MOST_COMPARISONS: usize = 1 << 20;

/// Checks that all names of the path satisfy the constraints of the CAs above them. The path begins
/// with the leaf.
///
/// # Errors
///
/// Fails if a name violates a constraint or cannot be compared.
pub(super) fn check(path: &[&Certificate]) -> Result<(), String> {
    for (at, issuer) in path.iter().enumerate().skip(1) {
        let whose = issuer.subject();
        let constraints = issuer.name_constraints();
        let constraints =
            constraints.map_err(|why| format!("the nameConstraints of {whose} {why}"))?;
        let Some(constraints) = constraints else {
            continue;
        };
        for (below, certificate) in path[..at].iter().enumerate() {
            if below > 0 && is_self_issued(certificate) {
                continue;
            }
            let names = names(certificate, below == 0)?;
            let breach = breach(&names, &constraints);
            if let Some(why) = breach {
                return Err(format!(
                    "the name constraints of {whose} do not allow the certificate of {}: {why}",
                    certificate.subject()
                ));
            }
        }
    }
    Ok(())
}

/// Returns all names of a certificate. If a leaf has no DNS name, its common name counts as a DNS
/// name, provided that it looks like a DNS name.
fn names(certificate: &Certificate, is_leaf: bool) -> Result<Vec<GeneralName<'_>>, String> {
    let unread = |what: &str| format!("the {what} of {} cannot be read", certificate.subject());
    let alternative = certificate.alternative_names();
    let mut names = alternative
        .map_err(|_| unread("subjectAltName"))?
        .unwrap_or_default();
    let has_dns = names.iter().any(|name| matches!(name, GeneralName::Dns(_)));
    let subject = certificate.subject_name().map_err(|_| unread("subject"))?;
    for attribute in subject.attributes() {
        let value = &attribute.value;
        if attribute.kind == Some(EMAIL_ADDRESS) {
            if value.tag != IA5 {
                return Err(unread("emailAddress"));
            }
            names.push(GeneralName::Email(value.content));
        }
        if attribute.kind == Some(COMMON_NAME) && is_leaf && !has_dns {
            let name = text(value.tag, value.content).ok_or_else(|| unread("common name"))?;
            let name = name.trim_end_matches('\0').as_bytes();
            if name.contains(&0) {
                return Err(unread("common name"));
            }
            if looks_like_dns(name) {
                names.push(GeneralName::Dns(Cow::Owned(name.to_vec())));
            }
        }
    }
    if !subject.is_empty() {
        names.push(GeneralName::Directory(certificate.subject_der()));
    }
    Ok(names)
}

/// Returns the reason why the name constraints forbid one of the names; `None` if they allow all
/// names.
fn breach(names: &[GeneralName], constraints: &NameConstraints) -> Option<String> {
    let NameConstraints {
        permitted,
        excluded,
    } = constraints;
    let comparisons = names.len().saturating_mul(permitted.len() + excluded.len());
    if comparisons > MOST_COMPARISONS {
        return Some("too many names and constraints".into());
    }
    names.iter().find_map(|name| {
        let same = |base: &&GeneralName| is_same_kind(name, base);
        let mut allowed = permitted.iter().filter(same).peekable();
        let mut forbidden = excluded.iter().filter(same).peekable();
        if allowed.peek().is_none() && forbidden.peek().is_none() {
            return None;
        }
        let shown = shown(name);
        let unsure = || format!("a constraint on {shown} is not supported");
        let mut inside = allowed.peek().is_none();
        for base in allowed {
            match is_below(name, base) {
                Some(below) => inside |= below,
                None => return Some(unsure()),
            }
        }
        if !inside {
            return Some(format!("{shown} is not among the permitted names"));
        }
        for base in forbidden {
            match is_below(name, base) {
                Some(false) => {}
                Some(true) => return Some(format!("{shown} is excluded")),
                None => return Some(unsure()),
            }
        }
        None
    })
}

fn is_same_kind(name: &GeneralName, base: &GeneralName) -> bool {
    use GeneralName::*;
    match (name, base) {
        (Other(kind), Email(_)) => *kind == SMTP_UTF8_MAILBOX,
        (Other(kind), Other(base)) => kind == base,
        (Email(_), Email(_)) | (Dns(_), Dns(_)) => true,
        (Directory(_), Directory(_)) | (Uri(_), Uri(_)) | (Ip(_), Ip(_)) => true,
        (Odd(tag), Odd(base)) => tag == base,
        _ => false,
    }
}

/// Returns true if the name is in the subtree of `base`; `None` if the two names cannot be
/// compared.
fn is_below(name: &GeneralName, base: &GeneralName) -> Option<bool> {
    use GeneralName::*;
    match (name, base) {
        (Directory(name), Directory(base)) => {
            Some(ComparableName::read(name)?.is_below(&ComparableName::read(base)?))
        }
        (Dns(name), Dns(base)) => Some(is_dns_below(name, base)),
        (Ip(address), Ip(base)) => is_in_network(address, base),
        _ => None,
    }
}

/// Returns true if the DNS name is `base`, or is `base` with further labels on the left. An empty
/// base matches all names.
fn is_dns_below(name: &[u8], base: &[u8]) -> bool {
    let Some(start) = name.len().checked_sub(base.len()) else {
        return false;
    };
    let (added, end) = name.split_at(start);
    let whole_labels = base.is_empty()
        || added.is_empty()
        || base.first() == Some(&b'.')
        || added.last() == Some(&b'.');
    whole_labels && end.eq_ignore_ascii_case(base)
}

/// Returns true if the IP address is in the network `base`, which is an address with its mask.
/// Addresses of the other IP version do not match.
fn is_in_network(address: &[u8], base: &[u8]) -> Option<bool> {
    if !matches!(address.len(), 4 | 16) || !matches!(base.len(), 8 | 32) {
        return None;
    }
    let (network, mask) = base.split_at(base.len() / 2);
    let bytes = address.iter().zip(network).zip(mask);
    let mut same = bytes.map(|((address, network), mask)| (address ^ network) & mask == 0);
    Some(address.len() == network.len() && same.all(|same| same))
}

/// Returns true if a common name looks like a DNS name: two or more labels of letters, digits, `_`
/// and inner `-`.
fn looks_like_dns(name: &[u8]) -> bool {
    let is_label = |label: &[u8]| {
        let inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        !label.is_empty()
            && label.iter().all(inner)
            && label.first() != Some(&b'-')
            && label.last() != Some(&b'-')
    };
    name.contains(&b'.') && name.split(|byte| *byte == b'.').all(is_label)
}

fn shown(name: &GeneralName) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_default().to_string();
    match name {
        GeneralName::Other(kind) => format!("an otherName ({kind})"),
        GeneralName::Email(bytes) => format!("the e-mail address {}", text(bytes)),
        GeneralName::Dns(bytes) => format!("the DNS name {}", text(bytes)),
        GeneralName::Directory(der) => {
            let name = crate::x509::names::Name::read(der);
            name.map_or_else(
                || "a directoryName".into(),
                |name| format!("the name {name}"),
            )
        }
        GeneralName::Uri(bytes) => format!("the URI {}", text(bytes)),
        GeneralName::Ip(_) => "an iPAddress".into(),
        GeneralName::Odd(0xA3) => "an x400Address".into(),
        GeneralName::Odd(0xA5) => "an ediPartyName".into(),
        GeneralName::Odd(_) => "a registeredID".into(),
    }
}

#[cfg(test)]
#[path = "subtrees_tests.rs"]
mod tests;
