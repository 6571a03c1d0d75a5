//! The seals of a token's PINs. A seal is data that the TPM unseals for a user who knows the PIN.
//! The files of the seals are hidden files in the key folder.

use super::text::{Lines, escaped, unescaped, write_line};
use super::write::Writer;
use super::{FolderError, KeyFolder, OpenFolder, ReadError, Tss2Key, Tss2Kind};
use crate::key::{from_hex, hex};
use crate::pem;
use crate::trouble::is_there;
use rustix::io::Errno;

const LABEL: &str = "TSS2 PRIVATE KEY";

/// The name of the line that identifies the sealed secret.
const MARK: &str = "Secret";

/// The lines of text in the file of a PIN seal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PinSealText {
    /// The label of the token. Only the seal of the security officer has this line.
    pub label: String,
    /// A value that identifies the sealed secret and does not reveal it. Files of older versions
    /// have no such line.
    pub mark: Option<Vec<u8>>,
}

/// The user whose PIN is the authorisation value of a PIN seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinSeal {
    /// The security officer. The file of this seal also stores the label of the token.
    SecurityOfficer,
    /// The normal user.
    User,
}

impl PinSeal {
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::SecurityOfficer => ".officer.pem",
            Self::User => ".user.pem",
        }
    }
}

impl KeyFolder {
    /// Returns true if the file of the seal exists, even if the file is unreadable. Reads no file.
    ///
    /// # Errors
    ///
    /// Fails if the system does not tell whether the file exists. The caller must not treat the
    /// token as a token without PIN.
    pub fn has_seal(&self, seal: PinSeal) -> Result<bool, FolderError> {
        let [officer, user] = &self.seals;
        let path = match seal {
            PinSeal::SecurityOfficer => officer,
            PinSeal::User => user,
        };
        self.noted(is_there(path).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            FolderError::at(path)(errno)
        }))
    }

    /// Reads a seal and its lines of text. Returns `None` if the seal does not exist.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or parsed.
    pub fn seal(&self, seal: PinSeal) -> Result<Option<(Tss2Key, PinSealText)>, FolderError> {
        let file = seal.file();
        let Some(folder) = self.noted(OpenFolder::at(&self.path))? else {
            return Ok(None);
        };
        let Some(content) = self.content_of(&folder, file)? else {
            return Ok(None);
        };
        let sealed = parsed(&content).map_err(ReadError::Damaged);
        sealed.map(Some).map_err(|why| self.because_file(file, why))
    }

    /// Returns the error for a PIN seal whose data the TPM does not load or unseal.
    pub(in crate::store) fn damaged_seal(&self, seal: PinSeal, why: &str) -> FolderError {
        FolderError::Damaged {
            file: self.path.join(seal.file()).display().to_string(),
            reason: format!("{why}; restore the file from a backup"),
        }
    }

    /// Stores a seal. Replaces an existing seal of the same user.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be written.
    pub fn put_seal(
        &self,
        seal: PinSeal,
        sealed: &Tss2Key,
        beside: &PinSealText,
    ) -> Result<(), FolderError> {
        let unfit = |why: String| FolderError::Unfit(why);
        let der = sealed.to_der().map_err(|why| unfit(why.to_string()))?;
        let mut text = String::new();
        if !beside.label.is_empty() {
            write_line(&mut text, "Label", &escaped(&beside.label));
        }
        if let Some(mark) = &beside.mark {
            write_line(&mut text, MARK, &hex(mark));
        }
        text.push_str(&pem::render(LABEL, &der).map_err(unfit)?);
        let writer = Writer::make_folder(&self.path, self.patience, None)?;
        writer.replace(seal.file(), text.as_bytes())
    }

    /// Removes a seal, if it exists.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be written.
    pub fn remove_seal(&self, seal: PinSeal) -> Result<(), FolderError> {
        self.delete_own(seal.file())
    }
}

fn parsed(content: &[u8]) -> Result<(Tss2Key, PinSealText), String> {
    let parts = pem::parse(content)?;
    let [block] = &parts.blocks[..] else {
        return Err("the file does not hold exactly one PEM block".into());
    };
    let sealed = Tss2Key::from_der(&block.der).map_err(|why| why.to_string())?;
    let mut lines = Lines::new(parts.above);
    let label = lines.take("Label", unescaped)?;
    let mark = lines.take(MARK, from_hex)?;
    let beside = PinSealText {
        label: label.unwrap_or_default(),
        mark,
    };
    match (block.label, sealed.kind) {
        (LABEL, Tss2Kind::Sealed) => Ok((sealed, beside)),
        _ => Err("the PEM block does not hold sealed data".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(private: u8) -> Tss2Key {
        Tss2Key {
            kind: Tss2Kind::Sealed,
            empty_auth: Some(false),
            ..Tss2Key::loadable(0x8100_0080, vec![0, 8, 0, 11], vec![private; 40])
        }
    }

    #[test]
    fn seals_come_back_and_are_no_objects() {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyFolder::new(folder.path().join("keys"));
        assert!(
            !keys.has_seal(PinSeal::User).unwrap() && keys.seal(PinSeal::User).unwrap().is_none()
        );
        let beside = PinSealText {
            label: "a: token\n".into(),
            mark: Some(vec![7; 8]),
        };
        let none = PinSealText::default();
        keys.put_seal(PinSeal::SecurityOfficer, &sealed(1), &beside)
            .unwrap();
        keys.put_seal(PinSeal::User, &sealed(2), &none).unwrap();
        keys.put_seal(PinSeal::User, &sealed(3), &none).unwrap();
        let officer = keys.seal(PinSeal::SecurityOfficer).unwrap().unwrap();
        assert_eq!(officer, (sealed(1), beside));
        assert_eq!(keys.seal(PinSeal::User).unwrap().unwrap().0, sealed(3));
        assert!(keys.list().unwrap().entries.is_empty());
        keys.remove_seal(PinSeal::User).unwrap();
        keys.remove_seal(PinSeal::User).unwrap();
        assert_eq!(keys.has_seal(PinSeal::User), Ok(false));
    }

    #[test]
    fn what_is_no_seal_is_told_and_still_asks_for_a_pin() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let keys = KeyFolder::new(path.clone());
        keys.begin("0123456789abcdef").unwrap();
        std::fs::write(path.join(".user.pem"), "nothing").unwrap();
        assert_eq!(keys.has_seal(PinSeal::User), Ok(true));
        assert!(matches!(
            keys.seal(PinSeal::User),
            Err(FolderError::Damaged { .. })
        ));
    }
}
