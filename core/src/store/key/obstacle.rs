//! The reasons why a key from a file cannot be used, with the path of the file.

use super::{Access, Key, KeyLocation};
use crate::store::devid::MasterRecord;
use crate::store::{SignError, unloadable};
use crate::tpm::{PublicArea, Tpm, TpmError, WrappedKey};
use std::path::PathBuf;

/// The file of a key, and the master key of its folder.
#[derive(Debug, Clone)]
pub(in crate::store) struct KeyFile {
    pub(in crate::store) file: PathBuf,
    pub(in crate::store) master: MasterRecord,
    /// True if this project created the key, false if another program created it.
    pub(in crate::store) is_ours: bool,
}

/// Returns the reason, preceded by the path of the file.
pub(super) fn of_file(source: Option<&KeyFile>, why: &str) -> String {
    match source {
        Some(source) => format!("{}: {why}", source.file.display()),
        None => why.to_owned(),
    }
}

/// Explains an error of the TPM by the state of the master key.
pub(super) fn explained(source: Option<&KeyFile>, tpm: &Tpm, error: SignError) -> SignError {
    match (error, source) {
        (SignError::Tpm(error), Some(source)) => SignError::Tpm(source.master.judged(tpm, error)),
        (error, _) => error,
    }
}

/// Explains an error of the TPM by the state of the master key, and adds the path of the file.
pub(super) fn judged(source: Option<&KeyFile>, tpm: &Tpm, error: SignError) -> SignError {
    match explained(source, tpm, error) {
        SignError::Tpm(TpmError::Unloadable(why)) => {
            SignError::Unloadable(of_file(source, &unloadable(&why)))
        }
        SignError::Refused(why) => SignError::Refused(of_file(source, &why)),
        SignError::Tpm(TpmError::NeedsAuth(_)) => {
            SignError::Tpm(TpmError::NeedsAuth(of_file(source, "its key")))
        }
        SignError::Tpm(TpmError::WrongAuth(_)) => {
            SignError::Tpm(TpmError::WrongAuth(of_file(source, "its key")))
        }
        other => other,
    }
}

impl Key {
    /// Returns this key with the file that it comes from.
    #[must_use]
    pub(in crate::store) fn kept_in(self, source: KeyFile) -> Self {
        Self {
            source: Some(source),
            ..self
        }
    }

    /// Returns the reason why the key can neither sign nor decrypt for any user. Returns `None` if
    /// the key may be usable.
    pub fn obstacle(&self) -> Option<String> {
        self.idle().map(|why| self.of_file(why))
    }

    pub(super) fn idle(&self) -> Option<&'static str> {
        match &self.place {
            KeyLocation::Refused(_, why) => Some(why),
            _ => self.area().and_then(idle),
        }
    }

    pub(super) fn of_file(&self, why: &str) -> String {
        of_file(self.source.as_ref(), why)
    }

    /// Explains an error of the TPM by the state of the master key, and adds the path of the file.
    pub(super) fn judged(&self, tpm: &Tpm, error: SignError) -> SignError {
        judged(self.source.as_ref(), tpm, error)
    }

    /// Checks that the TPM loads a key that another program wrapped. So the user learns about an
    /// error at the beginning of an operation.
    pub(super) fn check_loads(&self, tpm: &Tpm) -> Result<(), SignError> {
        let KeyLocation::Disk(wrapped, _, None) = &self.place else {
            return Ok(());
        };
        let is_ours = self.source.as_ref().is_none_or(|source| source.is_ours);
        if is_ours {
            return Ok(());
        }
        tpm.check_loads(wrapped)
            .map_err(|error| match self.judged(tpm, error.into()) {
                SignError::Unloadable(why) => SignError::Refused(why),
                other => other,
            })
    }

    /// Checks that the key can be loaded from its file, even if a handle holds the key too. The TPM
    /// loads the key, or the seal of a key that is used in memory. A seal without authorisation
    /// value is also opened. No command can count a wrong value.
    pub(in crate::store) fn check_file(&self, tpm: &Tpm) -> Result<(), SignError> {
        match &self.place {
            KeyLocation::Disk(wrapped, ..) => self.check_loads_of(tpm, wrapped),
            KeyLocation::Memory(soft) => {
                if let Some(seal) = soft.seal() {
                    self.check_loads_of(tpm, seal)?;
                }
                match self.access {
                    Access::Open | Access::Everybody => soft.check(tpm, &self.access),
                    Access::Given(_)
                    | Access::Hidden
                    | Access::Login(_)
                    | Access::Derived { .. } => Ok(()),
                }
            }
            KeyLocation::Handle(..) | KeyLocation::Template(..) | KeyLocation::Refused(..) => {
                Ok(())
            }
        }
    }

    fn check_loads_of(&self, tpm: &Tpm, wrapped: &WrappedKey) -> Result<(), SignError> {
        let checked = tpm.check_loads(wrapped);
        checked.map_err(|error| explained(self.source.as_ref(), tpm, error.into()))
    }
}

/// Returns the reason why the TPM permits no supported use of a key with this public area.
fn idle(area: &PublicArea) -> Option<&'static str> {
    match () {
        () if area.asks_for_policy() => Some("its use needs a policy"),
        () if area.is_storage_key() => {
            Some("it is a storage key: it wraps other keys, but can neither sign nor decrypt")
        }
        () if area.attests() => {
            Some("it is a restricted key: it signs only data that the TPM itself created or hashed")
        }
        () if area.signs() || area.decrypts() => None,
        () => Some("its attributes permit the TPM neither to sign nor to decrypt with it"),
    }
}
