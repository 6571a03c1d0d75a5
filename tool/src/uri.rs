//! `devid uri` and `devid uri2pem`: PKCS#11 URIs (RFC 7512), and their form as a key file, which
//! pkcs11-provider reads: PEM of `SEQUENCE { VisibleString, UTF8String }`.

use crate::cli::{OutputFormat, TypeArg};
use crate::output::{CommandError, Output};
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
    class: Option<TypeArg>,
    pem: Option<&Path>,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    let entry = device.find(label)?;
    if let Some(path) = &entry.software {
        let path = path.display();
        let why = format!(
            "{label}: programs take the file itself, {path}, or the token that [[token]] makes of its folder"
        );
        return Err(CommandError::new(6, why));
    }
    let class = class.unwrap_or(match (&entry.key, &entry.secret) {
        (Some(_), _) => TypeArg::Private,
        (None, Some(_)) => TypeArg::SecretKey,
        (None, None) => TypeArg::Cert,
    });
    let uri = named(&entry, class)?;
    if let Some(path) = pem {
        devid_core::write_file(path, pem_of(&uri)?.as_bytes(), 0o644)
            .map_err(|error| CommandError::new(1, format!("{}: {error}", path.display())))?;
    }
    Output::new(form, &json!({ "uri": uri, "file": pem }), || {
        format!("{uri}\n")
    })
}

/// The PEM text.
pub(crate) fn to_pem(uri: &str, form: OutputFormat) -> Result<Output, CommandError> {
    Uri::parse(uri).map_err(|text| CommandError::new(2, text))?;
    let pem = pem_of(uri)?;
    Output::new(form, &json!({ "pem": pem }), || pem.clone())
}

fn pem_of(uri: &str) -> Result<String, CommandError> {
    encode(uri).map_err(|error| CommandError::new(1, error.to_string()))
}

/// A certificate may bear another label than its key.
fn named(entry: &TokenEntry, class: TypeArg) -> Result<String, CommandError> {
    let missing = |what| {
        let label = &entry.label;
        CommandError::new(5, format!("{label}: the device has no {what} of it"))
    };
    let certificate = entry.certificates.first();
    let (label, id, class) = match class {
        TypeArg::Private if entry.key.is_none() => return Err(missing("private key")),
        TypeArg::Public if entry.public.is_none() => return Err(missing("public key")),
        TypeArg::SecretKey if entry.secret.is_none() => return Err(missing("secret key")),
        TypeArg::Private => (&entry.label, &entry.id, uri::ObjectType::Private),
        TypeArg::Public => (&entry.label, &entry.id, uri::ObjectType::Public),
        TypeArg::SecretKey => (&entry.label, &entry.id, uri::ObjectType::SecretKey),
        TypeArg::Cert => {
            let placed = certificate.ok_or_else(|| missing("certificate"))?;
            (&placed.label, &placed.id, uri::ObjectType::Cert)
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
