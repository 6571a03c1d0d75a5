//! Converts evidence to formats of other programs: TCG-CSR-LDEVID and WebAuthn. Some formats need a
//! signature of the attested key over the whole document.

use super::bundle::Bundle;
use super::tcg_csr::{IdevidContents, LdevidContents, TcgCsrForm, enveloped};
use super::webauthn;
use crate::file;
use crate::identity::{Device, IdentityError, TokenEntry};
use crate::tpm::{Hash, PublicArea, Secret, Signature, SignatureScheme};
use crate::x509::Certificate;
use crate::x509::algorithms::ecdsa_to_der;
use crate::x509::files::LARGEST;
use std::path::Path;

/// A format of evidence for other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvidenceForm {
    /// A TCG-CSR-IDEVID.
    TcgCsr(TcgCsrForm),
    /// The structure TCG-CSR-LDEVID in its envelope.
    TcgCsrLdevid,
    /// A WebAuthn attestation object with the statement `tpm`.
    WebAuthn,
}

/// Evidence in a format of another program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignEvidence {
    /// The whole document. If `signature` is set, the document contains only the signed contents.
    pub document: Vec<u8>,
    /// The TPMT_SIGNATURE of the attested key over the document, if the signature is separate.
    pub signature: Option<Vec<u8>>,
}

/// Returns the nonce for an ACME challenge: the SHA-256 of the key authorization (RFC 8555, section
/// 8.1).
pub fn acme_nonce(key_authorization: &str) -> Vec<u8> {
    Hash::Sha256.digest(&[key_authorization.as_bytes()])
}

/// Converts the evidence of a bundle to the format `form`. `entry` is the token entry of the
/// attested key, which signs the document.
///
/// # Errors
///
/// Fails if the bundle lacks a value that the form needs, or if the key does not sign.
pub fn in_form(
    device: &Device,
    entry: &TokenEntry,
    bundle: &Bundle,
    form: EvidenceForm,
    pin: Option<&Secret>,
) -> Result<ForeignEvidence, IdentityError> {
    // Evidence about a service's key has no endorsement key, so that it does not name the device.
    if form != EvidenceForm::WebAuthn
        && bundle.ek_public.is_none()
        && device.service_of(entry).is_some()
    {
        return Err(IdentityError::refused(format!(
            "{}: this form of evidence contains the endorsement key, which names the device; use \
             --to-ca to make evidence that is only for the CA",
            entry.label
        )));
    }
    in_form_signed(bundle, form, &|contents, hash| {
        device.plain_signature(entry, contents, hash, pin)
    })
}

/// A function that signs bytes with the attested key. The function uses the given hash if the key
/// supports it, and returns the signature in the form of [`Signature::fixed`].
pub(crate) type SignContents<'a> =
    dyn Fn(&[u8], Option<Hash>) -> Result<(SignatureScheme, Vec<u8>), IdentityError> + 'a;

/// Converts as [`in_form`], but the caller supplies the signing function.
pub(crate) fn in_form_signed(
    bundle: &Bundle,
    form: EvidenceForm,
    sign: &SignContents,
) -> Result<ForeignEvidence, IdentityError> {
    // The envelope needs an ASN.1 signature with SHA-256 (RFC 3279, section 2.2).
    let in_envelope = |contents: Vec<u8>| -> Result<ForeignEvidence, IdentityError> {
        let (scheme, signature) = sign(&contents, Some(Hash::Sha256))?;
        let key = PublicArea::parse(&bundle.key.public).map(|area| area.key);
        let signature = match (scheme, key) {
            (SignatureScheme::Ecdsa(_), Some(crate::key::PublicKey::Ec { curve, .. })) => {
                let der = ecdsa_to_der(curve, &signature);
                der.ok_or_else(|| {
                    IdentityError::failed("the signature does not belong to the curve")
                })?
            }
            _ => signature,
        };
        Ok(ForeignEvidence {
            document: enveloped(&contents, &signature),
            signature: None,
        })
    };
    match form {
        EvidenceForm::TcgCsr(TcgCsrForm::Detached) => {
            let contents = IdevidContents::of(bundle).encode(TcgCsrForm::Detached);
            let (scheme, signature) = sign(&contents, None)?;
            Ok(ForeignEvidence {
                document: contents,
                signature: Some(Signature::marshalled(scheme, &signature)),
            })
        }
        EvidenceForm::TcgCsr(TcgCsrForm::Enveloped) => {
            in_envelope(IdevidContents::of(bundle).encode(TcgCsrForm::Enveloped))
        }
        EvidenceForm::TcgCsrLdevid => in_envelope(LdevidContents::of(bundle).encode()),
        EvidenceForm::WebAuthn => Ok(ForeignEvidence {
            document: webauthn::attestation_object(bundle).map_err(IdentityError::failed)?,
            signature: None,
        }),
    }
}

impl Bundle {
    /// Sets the certificates of the attestation key to the certificates in a file. The first
    /// certificate must be for the attestation key.
    pub fn add_attestation_certificates(&mut self, path: &Path) -> Result<(), IdentityError> {
        let bytes = file::read(path, LARGEST).map_err(IdentityError::file(path))?;
        let wrong = |why: String| IdentityError::failed(format!("{}: {why}", path.display()));
        let found = Certificate::parse_all(&bytes).map_err(|why| wrong(why.to_string()))?;
        let key = PublicArea::parse(&self.attestation_key.public).map(|area| area.key);
        if key.is_none() || found.first().and_then(Certificate::public_key) != key {
            return Err(wrong(
                "the first certificate of the file is not for the attestation key of this device"
                    .into(),
            ));
        }
        self.attestation_key.certificates = found.iter().map(|one| one.der().into()).collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::verify::samples::{AK_PURPOSE, Kind, leaf, parts};
    use crate::key::Curve;

    #[test]
    fn certificates_of_this_attestation_key_only() {
        let mut parts = parts(Kind::Ec(Curve::P256));
        let mut bundle = parts.bundle();
        parts.ak_certificate = Some(leaf("CN=ak", Some(AK_PURPOSE)));
        let certificate = parts.bundle().attestation_key.certificates.remove(0);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ak.pem");
        std::fs::write(&path, &certificate[..]).unwrap();
        bundle.add_attestation_certificates(&path).unwrap();
        assert_eq!(bundle.attestation_key.certificates, [certificate]);
        std::fs::write(&path, &bundle.ek_certificates[0][..]).unwrap();
        let why = bundle.add_attestation_certificates(&path).unwrap_err();
        assert!(
            why.text
                .contains("not for the attestation key of this device"),
            "{}",
            why.text
        );
    }

    #[test]
    fn a_key_authorization_is_hashed() {
        assert_eq!(
            crate::key::hex(&acme_nonce("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
