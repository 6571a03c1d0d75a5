//! `devid uri` and `devid uri2pem`: PKCS#11 URIs (RFC 7512), and their form as a key file, which
//! pkcs11-provider reads: PEM of `SEQUENCE { VisibleString, UTF8String }`.

use crate::cli::{Class, Form};
use crate::output::{Answer, Failure};
use der::asn1::AnyRef;
use der::pem::{LineEnding, encode_string};
use der::{Encode, Tag};
use devid_core::identity::{Device, TokenEntry};
use devid_core::uri::{self, Uri};
use serde_json::json;
use std::path::Path;

const LABEL: &str = "PKCS#11 PROVIDER URI";
const DESCRIPTION: &str = "PKCS#11 Provider URI v1.0";
/// The URI of what bears this label.
pub(crate) fn run(
    device: &Device,
    label: &str,
    class: Option<Class>,
    pem: Option<&Path>,
    form: Form,
) -> Result<Answer, Failure> {
    let entry = device.find(label)?;
    if let Some(path) = &entry.software {
        let path = path.display();
        let why = format!(
            "{label}: programs take the file itself, {path}, or the token that [[token]] makes of its folder"
        );
        return Err(Failure::new(6, why));
    }
    let class = class.unwrap_or(match (&entry.key, &entry.secret) {
        (Some(_), _) => Class::Private,
        (None, Some(_)) => Class::SecretKey,
        (None, None) => Class::Cert,
    });
    let uri = named(&entry, class)?;
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
    Uri::parse(uri).map_err(|text| Failure::new(2, text))?;
    let pem = pem_of(uri)?;
    Answer::new(form, &json!({ "pem": pem }), || pem.clone())
}

fn pem_of(uri: &str) -> Result<String, Failure> {
    encode(uri).map_err(|error| Failure::new(1, error.to_string()))
}

/// A certificate may bear another label than its key.
fn named(entry: &TokenEntry, class: Class) -> Result<String, Failure> {
    let missing = |what| {
        let label = &entry.label;
        Failure::new(5, format!("{label}: the device has no {what} of it"))
    };
    let certificate = entry.certificates.first();
    let (label, id, class) = match class {
        Class::Private if entry.key.is_none() => return Err(missing("private key")),
        Class::Public if entry.public.is_none() => return Err(missing("public key")),
        Class::SecretKey if entry.secret.is_none() => return Err(missing("secret key")),
        Class::Private => (&entry.label, &entry.id, uri::Class::Private),
        Class::Public => (&entry.label, &entry.id, uri::Class::Public),
        Class::SecretKey => (&entry.label, &entry.id, uri::Class::SecretKey),
        Class::Cert => {
            let placed = certificate.ok_or_else(|| missing("certificate"))?;
            (&placed.label, &placed.id, uri::Class::Cert)
        }
    };
    let uri = Uri::of_object(&entry.token_label, label, id, class);
    Ok(uri.to_string())
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
    fn the_pem_holds_the_uri() {
        let pem = encode("pkcs11:token=idev-id").unwrap();
        let (label, der) = der::pem::decode_vec(pem.as_bytes()).unwrap();
        assert_eq!(label, LABEL);
        assert_eq!(der[..2], [0x30, der.len() as u8 - 2]);
        assert!(der.ends_with(b"\x0C\x14pkcs11:token=idev-id"));
    }
}
