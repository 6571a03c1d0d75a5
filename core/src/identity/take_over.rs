//! Objects of another program's store that a token takes over.

use super::IdentityError;
use super::device::Device;
use super::entry::{FACTORY, OWN};
use crate::audit::AuditSubject;
use crate::store::devid::StoreError;
use crate::store::folder::{EntryContent, Tss2Key};
use crate::store::{LoginError, UserType};
use crate::tpm::{Secret, TpmError};
use serde::Serialize;
use std::path::Path;

/// What became of an object that a token was to take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TakenObject {
    /// The name of the token.
    pub token: String,
    /// The label of the object.
    pub label: String,
    /// `key` or `certificate`.
    pub kind: &'static str,
    /// The path of its file.
    pub file: String,
    /// Whether the token had the object before; then nothing was changed.
    pub known: bool,
}

impl TakenObject {
    /// The object as audit lines name it.
    pub fn audit_subject(&self) -> AuditSubject {
        AuditSubject {
            label: Some(self.label.clone()),
            ..AuditSubject::default()
        }
    }
}

impl Device {
    /// Opens data that another program sealed in this TPM: TSS2 sealed data, PEM. `source` is what messages
    /// call the file.
    ///
    /// # Errors
    ///
    /// Refused for a wrong `value`, which the TPM counts.
    pub fn unseal(
        &self,
        (source, file): (&str, &[u8]),
        value: Secret,
    ) -> Result<Secret, IdentityError> {
        let seal = Tss2Key::of_file(file)
            .map_err(|why| IdentityError::failed(format!("{source}: {why}")))?;
        self.own.unseal(&seal, value).map_err(|error| match error {
            LoginError::Tpm(error) => IdentityError::from(error).while_doing(source),
            LoginError::Wrong => IdentityError::refused(format!(
                "{source}: the authorisation value is wrong. The TPM counts wrong values: devid status tells \
                 how many tries are left"
            )),
            error => IdentityError::failed(format!("{source}: {error}")),
        })
    }

    /// Has a token take over what a file holds, as a key folder would hold it: a key that another program
    /// made in this TPM (TSS2 PRIVATE KEY), or a certificate. `value` is the authorisation value of the key so
    /// far; `pin` is the user's PIN of the token, where the configuration does not name it. `source` is what
    /// messages call the file.
    ///
    /// # Errors
    ///
    /// Nothing was kept.
    pub fn take_over(
        &self,
        token: &str,
        (source, file): (&str, &[u8]),
        value: Secret,
        pin: Option<&Secret>,
    ) -> Result<TakenObject, IdentityError> {
        let store = self.taking_new(token)?;
        let told = |error: IdentityError| error.while_doing(source);
        let name = Path::new(source).file_stem().unwrap_or_default();
        let content = EntryContent::of_file(&name.to_string_lossy(), file)
            .map_err(|why| IdentityError::failed(format!("{source}: {why}")))?;
        store.check_readable()?;
        let label = content.description().label.clone();
        if matches!(content, EntryContent::Pair(_)) && (label == FACTORY || label == OWN) {
            return Err(IdentityError::refused(format!(
                "{source}: {label} is what an identity of this device is called; give the key another label, by \
                 the line Label: above it"
            )));
        }
        let (kind, taken) = match content {
            EntryContent::Pair(pair) => {
                match pin {
                    Some(pin) => store.login(UserType::User, pin).map_err(|error| {
                        IdentityError::failed(format!("the token {}: {error}", store.name()))
                    })?,
                    None => self.unlock_store(store)?,
                }
                let taken = store.take_over_key(&pair, value);
                ("key", taken.map_err(|error| told(refusal(error)))?)
            }
            content @ EntryContent::Certificate(..) => {
                let taken = store.take_over_certificate(content);
                ("certificate", taken.map_err(|error| told(error.into()))?)
            }
            EntryContent::SecretKey(_) | EntryContent::Public(..) | EntryContent::Data(_) => {
                return Err(IdentityError::refused(format!(
                    "{source}: neither a key of the TPM (TSS2 PRIVATE KEY) nor a certificate; nothing was \
                     changed"
                )));
            }
        };
        if !taken.known {
            self.tell_others();
        }
        Ok(TakenObject {
            token: store.name().to_owned(),
            label,
            kind,
            file: store.file(&taken.name).display().to_string(),
            known: taken.known,
        })
    }
}

/// A fault of taking a key over. After some of them the next key would cost a further try, or fail alike: these
/// are refusals.
fn refusal(error: StoreError) -> IdentityError {
    match error {
        StoreError::Protection(why) => IdentityError::refused(why),
        StoreError::Tpm(error @ (TpmError::WrongAuth(_) | TpmError::NeedsAuth(_))) => {
            IdentityError::refused(format!(
                "{error}. The TPM counts wrong values: devid status tells how many tries are left"
            ))
        }
        StoreError::Tpm(error @ (TpmError::NoTryLeft(_) | TpmError::Lockout(_))) => {
            IdentityError::refused(IdentityError::from(error).to_string())
        }
        other => other.into(),
    }
}
