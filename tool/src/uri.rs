//! `devid uri` and `devid uri2pem`: PKCS#11 URIs (RFC 7512), and their form as a key file, which
//! pkcs11-provider reads: PEM of `SEQUENCE { VisibleString, UTF8String }`.

use crate::cli::{Class, Form};
use crate::output::{Answer, Failure};
use der::asn1::AnyRef;
use der::pem::{LineEnding, encode_string};
use der::{Encode, Tag};
use devid_core::identity::{Device, Entity};
use serde_json::json;
use std::fmt::Write;
use std::path::Path;

const LABEL: &str = "PKCS#11 PROVIDER URI";
const DESCRIPTION: &str = "PKCS#11 Provider URI v1.0";
const PATH: [&str; 13] = [
    "id",
    "library-description",
    "library-manufacturer",
    "library-version",
    "manufacturer",
    "model",
    "object",
    "serial",
    "slot-description",
    "slot-id",
    "slot-manufacturer",
    "token",
    "type",
];
const QUERY: [&str; 4] = ["module-name", "module-path", "pin-source", "pin-value"];

/// The URI of what bears this label.
pub(crate) fn run(
    device: &Device,
    label: &str,
    class: Option<Class>,
    pem: Option<&Path>,
    form: Form,
) -> Result<Answer, Failure> {
    let entity = device.find(label)?;
    if let Some(path) = &entity.software {
        let path = path.display();
        let why = format!(
            "{label}: programs take the file itself, {path}, or the token that [[token]] makes of its folder"
        );
        return Err(Failure::new(6, why));
    }
    let class = class.unwrap_or(match entity.key {
        Some(_) => Class::Private,
        None => Class::Cert,
    });
    let uri = named(&entity, class)?;
    if let Some(path) = pem {
        devid_core::write_file(path, pem_of(&uri)?.as_bytes(), 0o644)
            .map_err(|error| Failure::new(1, format!("{}: {error}", path.display())))?;
    }
    Answer::new(form, &json!({ "uri": uri, "file": pem }), || {
        format!("{uri}\n")
    })
}

/// The PEM text.
pub(crate) fn to_pem(uri: &str, form: Form) -> Result<Answer, Failure> {
    check(uri).map_err(|text| Failure::new(2, text))?;
    let pem = pem_of(uri)?;
    Answer::new(form, &json!({ "pem": pem }), || pem.clone())
}

fn pem_of(uri: &str) -> Result<String, Failure> {
    encode(uri).map_err(|error| Failure::new(1, error.to_string()))
}

/// A certificate may bear another label than its key.
fn named(entity: &Entity, class: Class) -> Result<String, Failure> {
    let missing = |what| {
        let label = &entity.label;
        Failure::new(5, format!("{label}: the device has no {what} of it"))
    };
    let certificate = entity.certificates.first();
    let (label, id, class) = match class {
        Class::Private if entity.key.is_none() => return Err(missing("private key")),
        Class::Public if entity.public.is_none() => return Err(missing("public key")),
        Class::Private => (&entity.label, &entity.id, "private"),
        Class::Public => (&entity.label, &entity.id, "public"),
        Class::Cert => {
            let placed = certificate.ok_or_else(|| missing("certificate"))?;
            (&placed.label, &placed.id, "cert")
        }
    };
    let token = escaped(entity.token_label.as_bytes());
    let mut uri = format!("pkcs11:token={token}");
    if !label.is_empty() {
        let _ = write!(uri, ";object={}", escaped(label.as_bytes()));
    }
    let id: String = id.iter().map(|byte| format!("%{byte:02X}")).collect();
    let _ = write!(uri, ";id={id};type={class}");
    Ok(uri)
}

/// What RFC 7512, section 2.3, lets stand for itself; all else as %XX.
fn escaped(bytes: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let of = |byte: &u8| match plain(*byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    bytes.iter().map(of).collect()
}

/// Refuses what a client would take for "any key": a misspelt attribute matches everything.
fn check(uri: &str) -> Result<(), String> {
    let rest = uri
        .strip_prefix("pkcs11:")
        .ok_or(format!("{uri}: must begin with pkcs11:"))?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if path.is_empty() {
        return Err(format!("{uri}: names nothing; give token=, object= or id="));
    }
    let parts = path.split(';').map(|part| (part, &PATH[..]));
    let queries = query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| (part, &QUERY[..]));
    for (part, known) in parts.chain(queries) {
        match part.split_once('=') {
            Some((name, _)) if known.contains(&name) => {}
            _ => {
                return Err(format!(
                    "{part}: expected one of {}, with =",
                    known.join(", ")
                ));
            }
        }
    }
    Ok(())
}

fn encode(uri: &str) -> der::Result<String> {
    let mut body = AnyRef::new(Tag::VisibleString, DESCRIPTION.as_bytes())?.to_der()?;
    body.extend(AnyRef::new(Tag::Utf8String, uri.as_bytes())?.to_der()?);
    let der = AnyRef::new(Tag::Sequence, &body)?.to_der()?;
    Ok(encode_string(LABEL, LineEnding::LF, &der)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_uri_is_refused() {
        for wrong in [
            "idev-id",
            "pkcs11:",
            "pkcs11:idev-id",
            "pkcs11:objekt=idev-id",
            "pkcs11:token=idev-id?pin=1",
            "pkcs11:token=idev-id;",
        ] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
        for right in [
            "pkcs11:token=idev-id;type=private",
            "pkcs11:id=%01?pin-source=/p",
        ] {
            assert_eq!(check(right), Ok(()));
        }
    }

    #[test]
    fn the_pem_holds_the_uri() {
        let pem = encode("pkcs11:token=idev-id").unwrap();
        let (label, der) = der::pem::decode_vec(pem.as_bytes()).unwrap();
        assert_eq!(label, LABEL);
        assert_eq!(der[..2], [0x30, der.len() as u8 - 2]);
        assert!(der.ends_with(b"\x0C\x14pkcs11:token=idev-id"));
    }
}
