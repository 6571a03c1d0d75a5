//! The file of the device's own attestation key: a wrapped key that no token shows, and its
//! certificates.

use super::read::{OpenFolder, ReadError};
use super::write::{Readers, Writer};
use super::{FolderError, KeyFolder, Tss2Key, Tss2Kind};
use crate::pem;
use crate::x509::Certificate;
use std::path::PathBuf;

const FILE: &str = ".attestation-key.pem";
const KEY: &str = "TSS2 PRIVATE KEY";
const CERTIFICATE: &str = "CERTIFICATE";

/// The content of an attestation key's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationKeyFile {
    /// The wrapped key.
    pub key: Tss2Key,
    /// Its certificate, then those of its issuers; empty before a CA issued one.
    pub certificates: Vec<Certificate>,
}

impl KeyFolder {
    /// The file of the attestation key.
    pub fn attestation_key_path(&self) -> PathBuf {
        self.path.join(FILE)
    }

    /// The stored attestation key; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The file cannot be read or parsed.
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

    /// Stores an attestation key, if none exists. Its certificates can be changed later
    /// ([`certify_attestation_key`](Self::certify_attestation_key)).
    ///
    /// # Errors
    ///
    /// Those of [`add`](Self::add).
    pub fn keep_attestation_key(&self, kept: &AttestationKeyFile) -> Result<(), FolderError> {
        let text = rendered(kept).map_err(FolderError::Unfit)?;
        let writer = Writer::make_folder(&self.path, self.patience, None)?;
        writer.put_new(FILE, text.as_bytes(), Readers::Group)
    }

    /// Replaces the certificates of the attestation key.
    ///
    /// # Errors
    ///
    /// There is no attestation key; or those of [`add`](Self::add).
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

    /// Removes the attestation key; the next evidence uses a new one.
    ///
    /// # Errors
    ///
    /// The file cannot be removed.
    pub fn forget_attestation_key(&self) -> Result<(), FolderError> {
        self.delete_own(FILE)
    }
}

fn rendered(kept: &AttestationKeyFile) -> Result<String, String> {
    let der = kept.key.to_der().map_err(|why| why.to_string())?;
    let mut text = pem::render(KEY, &der)?;
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
        KEY => Tss2Key::from_der(&first.der).map_err(|why| why.to_string())?,
        _ => return Err(format!("it does not begin with a {KEY}")),
    };
    if key.kind != Tss2Kind::Loadable {
        return Err("its key is none that the TPM loads".into());
    }
    let certificates = others.iter().map(|block| {
        let certificate = Certificate::in_block(&block.der);
        certificate.map_err(|why| why.to_string())
    });
    Ok(AttestationKeyFile {
        key,
        certificates: certificates.collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attestation_key_comes_back_and_is_no_object() {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyFolder::new(folder.path().join("keys"));
        assert_eq!(keys.attestation_key(), Ok(None));
        let key = Tss2Key::loadable(0x8100_0001, vec![0, 0x23, 0, 11], vec![7; 40]);
        let mut kept = AttestationKeyFile {
            key,
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
