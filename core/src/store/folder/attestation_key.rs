//! The attestation key of the key folder, in a hidden file of its own. No token shows this key. The
//! file also holds the certificates of the key.

use super::read::{OpenFolder, ReadError};
use super::write::{Readers, Writer};
use super::{FolderError, KeyFolder, Tss2Key, Tss2Kind};
use crate::pem;
use crate::tpm::sized;
use crate::x509::Certificate;
use std::path::PathBuf;

const FILE: &str = ".attestation-key.pem";
const KEY: &str = "TSS2 PRIVATE KEY";
const TEMPLATE: &str = "TPM PRIMARY KEY TEMPLATE";
const CERTIFICATE: &str = "CERTIFICATE";

/// The content of an attestation key's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationKeyFile {
    /// The private and public key.
    pub key: AttestationKeyForm,
    /// The certificate of the key, then the certificates of its issuers. Empty until a CA certifies
    /// the key.
    pub certificates: Vec<Certificate>,
}

/// The form in which a file stores an attestation key: wrapped, or as a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttestationKeyForm {
    /// A key that the TPM created and wrapped (encrypted).
    Wrapped(Tss2Key),
    /// A primary key, which the TPM derives again from its template in the owner hierarchy. Each
    /// field is a TPMT_PUBLIC.
    Primary {
        /// The template, which is the input of TPM2_CreatePrimary.
        template: Vec<u8>,
        /// The public area of the key, which is the output of TPM2_CreatePrimary.
        area: Vec<u8>,
    },
}

impl AttestationKeyForm {
    /// Returns the TPMT_PUBLIC of the key.
    pub fn area(&self) -> &[u8] {
        match self {
            Self::Wrapped(key) => &key.public,
            Self::Primary { area, .. } => area,
        }
    }
}

impl KeyFolder {
    /// Returns the path of the file with the attestation key.
    pub fn attestation_key_path(&self) -> PathBuf {
        self.path.join(FILE)
    }

    /// Reads the stored attestation key. Returns `None` if no key is stored.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or parsed.
    pub fn attestation_key(&self) -> Result<Option<AttestationKeyFile>, FolderError> {
        let Some(folder) = self.noted(OpenFolder::at(&self.path))? else {
            return Ok(None);
        };
        let Some(content) = self.content_of(&folder, FILE)? else {
            return Ok(None);
        };
        let read = parsed(&content).map_err(ReadError::Damaged);
        read.map(Some).map_err(|why| self.because_file(FILE, why))
    }

    /// Stores an attestation key, if none exists.
    /// [`certify_attestation_key`](Self::certify_attestation_key) can change its certificates
    /// later.
    ///
    /// # Errors
    ///
    /// Fails if a key is already stored, or if the folder cannot be written.
    pub fn keep_attestation_key(&self, kept: &AttestationKeyFile) -> Result<(), FolderError> {
        let text = rendered(kept).map_err(FolderError::Unfit)?;
        let writer = Writer::make_folder(&self.path, self.patience, None)?;
        writer.put_new(FILE, text.as_bytes(), Readers::Group)
    }

    /// Replaces the certificates of the attestation key.
    ///
    /// # Errors
    ///
    /// Fails if no attestation key is stored, or if the folder cannot be written.
    pub fn certify_attestation_key(
        &self,
        certificates: Vec<Certificate>,
    ) -> Result<(), FolderError> {
        let gone = || FolderError::Gone(FILE.into());
        let writer = Writer::open(&self.path, self.patience)?.ok_or_else(gone)?;
        let kept = self.attestation_key()?.ok_or_else(gone)?;
        let text = rendered(&AttestationKeyFile {
            certificates,
            ..kept
        });
        writer.replace(FILE, text.map_err(FolderError::Unfit)?.as_bytes())
    }

    /// Removes the attestation key. The next evidence bundle then uses a new key.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be removed.
    pub fn forget_attestation_key(&self) -> Result<(), FolderError> {
        self.delete_own(FILE)
    }
}

fn rendered(kept: &AttestationKeyFile) -> Result<String, String> {
    let mut text = match &kept.key {
        AttestationKeyForm::Wrapped(key) => {
            let der = key.to_der().map_err(|why| why.to_string())?;
            pem::render(KEY, &der)?
        }
        AttestationKeyForm::Primary { template, area } => {
            // The PEM block holds two TPM2B_PUBLIC structures: the template and the public area.
            pem::render(TEMPLATE, &[sized(template), sized(area)].concat())?
        }
    };
    for certificate in &kept.certificates {
        text += &pem::render(CERTIFICATE, certificate.der())?;
    }
    Ok(text)
}

fn parsed(content: &[u8]) -> Result<AttestationKeyFile, String> {
    let parts = pem::parse(content)?;
    let [first, others @ ..] = &parts.blocks[..] else {
        return Err("no PEM block".into());
    };
    let key = match first.label {
        KEY => {
            let key = Tss2Key::from_der(&first.der).map_err(|why| why.to_string())?;
            if key.kind != Tss2Kind::Loadable {
                return Err("its key is of a kind that TPM2_Load does not accept".into());
            }
            AttestationKeyForm::Wrapped(key)
        }
        TEMPLATE => {
            let parts = tpm2b(&first.der).and_then(|(template, rest)| {
                let (area, rest) = tpm2b(rest)?;
                rest.is_empty().then(|| (template.to_vec(), area.to_vec()))
            });
            let (template, area) = parts.ok_or("its template is incomplete")?;
            AttestationKeyForm::Primary { template, area }
        }
        _ => {
            return Err(format!(
                "its first PEM block is neither a {KEY} nor a {TEMPLATE}"
            ));
        }
    };
    let certificates = others.iter().map(|block| {
        let certificate = Certificate::in_block(&block.der);
        certificate.map_err(|why| why.to_string())
    });
    Ok(AttestationKeyFile {
        key,
        certificates: certificates.collect::<Result<_, _>>()?,
    })
}

/// Splits bytes into the content of the first TPM2B and the bytes that follow it.
fn tpm2b(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_of_a_primary_key_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyFolder::new(folder.path().join("keys"));
        let kept = AttestationKeyFile {
            key: AttestationKeyForm::Primary {
                template: vec![1; 90],
                area: vec![2; 120],
            },
            certificates: Vec::new(),
        };
        keys.keep_attestation_key(&kept).unwrap();
        assert_eq!(keys.attestation_key(), Ok(Some(kept)));
        let whole = std::fs::read_to_string(keys.attestation_key_path()).unwrap();
        let cut = pem::render(TEMPLATE, &[0, 3, 1, 2, 3, 0, 9, 1]).unwrap();
        let longer = pem::render(TEMPLATE, &[0, 1, 1, 0, 1, 1, 0]).unwrap();
        for damaged in [&cut, &longer, &whole.replace("PRIMARY", "OTHER")] {
            std::fs::write(keys.attestation_key_path(), damaged).unwrap();
            let read = keys.attestation_key();
            assert!(matches!(read, Err(FolderError::Damaged { .. })), "{read:?}");
        }
    }

    #[test]
    fn an_attestation_key_comes_back_and_is_no_object() {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyFolder::new(folder.path().join("keys"));
        assert_eq!(keys.attestation_key(), Ok(None));
        let key = Tss2Key::loadable(0x8100_0001, vec![0, 0x23, 0, 11], vec![7; 40]);
        let mut kept = AttestationKeyFile {
            key: AttestationKeyForm::Wrapped(key),
            certificates: Vec::new(),
        };
        keys.keep_attestation_key(&kept).unwrap();
        assert_eq!(keys.attestation_key(), Ok(Some(kept.clone())));
        assert!(keys.keep_attestation_key(&kept).is_err(), "kept already");
        let pem = include_bytes!("../../../testdata/leaf.pem");
        kept.certificates = Certificate::parse_all(pem).unwrap();
        let certified = kept.certificates.clone();
        keys.certify_attestation_key(certified).unwrap();
        assert_eq!(keys.attestation_key(), Ok(Some(kept)));
        assert!(keys.list().unwrap().entries.is_empty());
        keys.forget_attestation_key().unwrap();
        keys.forget_attestation_key().unwrap();
        assert_eq!(keys.attestation_key(), Ok(None));
    }

    #[test]
    fn a_damaged_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyFolder::new(folder.path().join("keys"));
        keys.begin("0123456789abcdef").unwrap();
        for damaged in ["", "nothing", "-----BEGIN CERTIFICATE-----\n"] {
            std::fs::write(keys.attestation_key_path(), damaged).unwrap();
            let read = keys.attestation_key();
            assert!(matches!(read, Err(FolderError::Damaged { .. })), "{read:?}");
        }
    }
}
