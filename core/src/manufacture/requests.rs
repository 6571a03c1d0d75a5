//! Makes requests for the certificates of factory keys: PKCS#10 and TCG-CSR-IDEVID.

use super::{KeyPlace, Maker};
use crate::evidence::tcg_csr::TcgCsrForm;
use crate::evidence::{EvidenceForm, in_form_signed, of_new_device};
use crate::identity::{FileKind, IdentityError, IdentityErrorKind, OutputFile, Signer};
use crate::key::{PublicKey, hex};
use crate::signature::SignRequest;
use crate::tpm::SignatureScheme;
use crate::x509::{RequestContent, Subject, request_pem};
use std::path::{Path, PathBuf};

/// The longest name in a certificate, in characters (RFC 5280, appendix A: ub-common-name,
/// ub-serial-number).
const LONGEST_NAME: usize = 64;

/// The serial number and the model that the maker gives to the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    pub(super) serial: String,
    pub(super) model: Option<String>,
}

/// The contents of the files that the maker sends to the CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    /// The certificate request for the IDevID key (PKCS#10) in PEM.
    pub csr: String,
    /// The public keys in PEM, each with the name of the file to write.
    pub public_keys: Vec<(&'static str, String)>,
    /// The proof that the IDevID key is in the TPM, if the device has an IAK: an evidence bundle
    /// and both forms of TCG-CSR-IDEVID.
    pub evidence: Option<Evidence>,
}

/// The proof, signed by the IAK, that the IDevID key is in the TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The evidence bundle in the format `devid-evidence/1`.
    pub bundle: String,
    /// The TCG-CSR-IDEVID in the form of OpenConfig's attestz, and the TPMT_SIGNATURE over it.
    pub detached: (Vec<u8>, Vec<u8>),
    /// The TCG-CSR-IDEVID in its envelope, in the form of Flight Control.
    pub enveloped: Vec<u8>,
}

impl Product {
    /// Creates the names of a device. Without a model, the certificates must not contain a model.
    ///
    /// # Errors
    ///
    /// Fails if a name is empty, is longer than 64 characters, or has control characters.
    pub fn new(serial: &str, model: Option<&str>) -> Result<Self, IdentityError> {
        let names = [("--serial", Some(serial)), ("--model", model)];
        for (what, text) in names
            .into_iter()
            .filter_map(|(what, text)| Some((what, text?)))
        {
            let is_odd = text.is_empty()
                || text.trim() != text
                || text.chars().count() > LONGEST_NAME
                || text.chars().any(char::is_control);
            if is_odd {
                return Err(IdentityError::new(
                    IdentityErrorKind::Usage,
                    format!(
                        "{what} {text:?} is not a valid name: it must have 1 to {LONGEST_NAME} \
                         characters, no control characters, and no space at either end"
                    ),
                ));
            }
        }
        Ok(Self {
            serial: serial.to_owned(),
            model: model.map(str::to_owned),
        })
    }

    fn subject(&self) -> Result<Subject, IdentityError> {
        let serial = format!("serialNumber={}", escaped(&self.serial));
        let name = match &self.model {
            Some(model) => format!("{serial},CN={}", escaped(model)),
            None => serial,
        };
        Ok(Subject::parse(&name)?)
    }
}

/// Escapes all special characters of an attribute value in a subject name (RFC 4514, section 2.4).
fn escaped(text: &str) -> String {
    let mut value = String::new();
    for c in text.chars() {
        match c {
            c if c.is_ascii_alphanumeric() || !c.is_ascii() => value.push(c),
            // ASCII characters except letters and digits become hexadecimal pairs, because some are
            // special at the start of a value.
            c => value.push_str(&format!("\\{}", hex(c.to_string().as_bytes()))),
        }
    }
    value
}

fn public_pem(key: &PublicKey) -> Result<String, IdentityError> {
    crate::pem::render("PUBLIC KEY", &key.info_der()).map_err(IdentityError::failed)
}

impl Maker {
    /// Makes certificate requests for the factory keys in their handles. Without an IAK there is no
    /// TCG-CSR, because no key can certify the IDevID key.
    ///
    /// # Errors
    ///
    /// Fails if a handle does not hold its key, or with an error of the TPM.
    pub fn requests(
        &self,
        idevid: &KeyPlace,
        iak: Option<&KeyPlace>,
        product: &Product,
    ) -> Result<Requests, IdentityError> {
        let key = self.resident(idevid)?;
        let signer = Signer(&self.tpm, &key.key);
        let der = signer.request(&product.subject()?, &RequestContent::default())?;
        let csr = request_pem(&der);
        let mut public_keys = vec![("idevid-pub.pem", public_pem(&key.area.key)?)];
        let Some(iak) = iak else {
            return Ok(Requests {
                csr,
                public_keys,
                evidence: None,
            });
        };
        public_keys.push(("iak-pub.pem", public_pem(&self.resident(iak)?.area.key)?));
        let attestation = self.attestation_key(iak)?;
        let names = (&*product.serial, product.model.as_deref());
        let bundle = of_new_device(&self.tpm, (&key.key, &attestation), names, der)?;
        let sign = |contents: &[u8], hash| {
            let scheme = match (signer.scheme()?, hash) {
                (SignatureScheme::Ecdsa(_), Some(hash)) => SignatureScheme::Ecdsa(hash),
                (SignatureScheme::Rsassa(_), Some(hash)) => SignatureScheme::Rsassa(hash),
                (scheme, _) => scheme,
            };
            let digest = scheme.hash().digest(&[contents]);
            let signature = key.key.sign(&self.tpm, SignRequest::of(scheme, &digest))?;
            Ok((scheme, signature))
        };
        let form = |form| in_form_signed(&bundle, EvidenceForm::TcgCsr(form), &sign);
        let detached = form(TcgCsrForm::Detached)?;
        let evidence = Evidence {
            bundle: bundle
                .to_json()
                .map_err(|why| IdentityError::failed(why.to_string()))?,
            detached: (detached.document, detached.signature.unwrap_or_default()),
            enveloped: form(TcgCsrForm::Enveloped)?.document,
        };
        Ok(Requests {
            csr,
            public_keys,
            evidence: Some(evidence),
        })
    }
}

impl Requests {
    /// Writes the files for the CA into a folder. Creates the folder if it is missing. Returns the
    /// paths of the files. Writes each file atomically, and replaces files of an earlier run.
    ///
    /// # Errors
    ///
    /// Fails if an existing file is of another kind, or if a file cannot be written.
    pub fn write(&self, folder: &Path, force: bool) -> Result<Vec<PathBuf>, IdentityError> {
        std::fs::create_dir_all(folder).map_err(IdentityError::file(folder))?;
        let mut files: Vec<(&str, &[u8], FileKind)> = vec![(
            "idevid.csr",
            self.csr.as_bytes(),
            FileKind::Pem("CERTIFICATE REQUEST"),
        )];
        for (name, pem) in &self.public_keys {
            files.push((name, pem.as_bytes(), FileKind::Pem("PUBLIC KEY")));
        }
        if let Some(evidence) = &self.evidence {
            let format = crate::evidence::BUNDLE_FORMAT;
            files.push((
                "evidence.json",
                evidence.bundle.as_bytes(),
                FileKind::Document(format),
            ));
            let (contents, signature) = &evidence.detached;
            files.push(("idevid.tcg-csr", contents, FileKind::TcgCsr));
            files.push(("idevid.tcg-csr.sig", signature, FileKind::TcgCsr));
            files.push((
                "idevid.tcg-csr-enveloped",
                &evidence.enveloped,
                FileKind::TcgCsr,
            ));
        }
        let files: Vec<_> = files
            .into_iter()
            .map(|(name, bytes, kind)| {
                let path = folder.join(name);
                (OutputFile::new(&path, force), path, bytes, kind)
            })
            .collect();
        for (file, _, _, kind) in &files {
            file.check(*kind)?;
        }
        let mut paths = Vec::new();
        for (file, path, bytes, kind) in files {
            file.write(bytes, kind, 0o644)?;
            paths.push(path);
        }
        Ok(paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_products_stand_in_the_request_as_they_are() {
        for (serial, model) in [
            ("SN-1", "EX 1000"),
            ("+1,\"x\"", "#5; <a>=b\\c"),
            ("SN:1", "Gerät 7"),
        ] {
            let product = Product::new(serial, Some(model)).unwrap();
            let subject = product.subject().unwrap();
            let name = crate::x509::names::Name::read(&subject.der).unwrap();
            let text = |kind| name.text(kind);
            assert_eq!(text(crate::oid::SERIAL_NUMBER).as_deref(), Some(serial));
            assert_eq!(text(crate::oid::COMMON_NAME).as_deref(), Some(model));
        }
    }

    #[test]
    fn names_that_no_certificate_can_have_are_refused() {
        for odd in ["", " a", "a\n", &"x".repeat(65)] {
            assert!(Product::new(odd, None).is_err(), "{odd:?}");
            assert!(Product::new("s", Some(odd)).is_err(), "{odd:?}");
        }
    }
}
