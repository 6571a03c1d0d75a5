//! `devid uri` and `devid uri2pem`: writes PKCS#11 URIs (RFC 7512), and their PEM format for
//! pkcs11-provider: `SEQUENCE { VisibleString, UTF8String }`.

use crate::cli::{OutputFormat, TypeArg};
use crate::destination::Destination;
use crate::output::{CommandError, Output};
use der::asn1::AnyRef;
use der::pem::{LineEnding, encode_string};
use der::{Encode, Tag};
use devid_core::identity::{Device, FileKind, TokenEntry};
use devid_core::uri::{self, Uri};
use serde_json::json;

const LABEL: &str = "PKCS#11 PROVIDER URI";
const DESCRIPTION: &str = "PKCS#11 Provider URI v1.0";
/// Prints the URI of the object with this label.
pub(crate) fn run(
    device: &Device,
    label: &str,
    class: Option<TypeArg>,
    pem: Option<&Destination>,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    if let Some(pem) = pem {
        pem.check(FileKind::Pem(LABEL))?;
    }
    let entry = device.find(label)?;
    if let Some(path) = &entry.software {
        let path = path.display();
        let why = format!(
            "{label}: this key is the file {path} and has no URI; configure the file in the program, or add a [[token]] for the folder of the file"
        );
        return Err(CommandError::new(6, why));
    }
    let class = class.unwrap_or(match (&entry.key, &entry.secret) {
        (Some(_), _) => TypeArg::Private,
        (None, Some(_)) => TypeArg::SecretKey,
        (None, None) => TypeArg::Cert,
    });
    let uri = named(&entry, class)?;
    let Some(pem) = pem else {
        return Output::new(form, &json!({ "uri": uri, "file": null }), || {
            format!("{uri}\n")
        });
    };
    let text = pem_of(&uri)?;
    pem.write(text.as_bytes(), FileKind::Pem(LABEL), 0o644)?;
    let file = pem.path();
    let told = match file {
        Some(file) => json!({ "uri": uri, "file": file }),
        None => json!({ "uri": uri, "pem": text, "file": null }),
    };
    Output::new(form, &told, || match file {
        Some(_) => format!("{uri}\n"),
        None => text.clone(),
    })
}

/// Encodes a URI in the PEM format of pkcs11-provider.
pub(crate) fn to_pem(
    uri: &str,
    out: &Destination,
    form: OutputFormat,
) -> Result<Output, CommandError> {
    Uri::parse(uri).map_err(|text| CommandError::new(2, text))?;
    out.deliver(&pem_of(uri)?, FileKind::Pem(LABEL), 0o644, form)
}

fn pem_of(uri: &str) -> Result<String, CommandError> {
    encode(uri).map_err(|error| CommandError::new(1, error.to_string()))
}

/// Returns the URI of the object of this class. A certificate may have another label than its key.
fn named(entry: &TokenEntry, class: TypeArg) -> Result<String, CommandError> {
    let missing = |what| {
        let label = &entry.label;
        CommandError::new(
            5,
            format!("{label}: the device has no {what} with this label"),
        )
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
