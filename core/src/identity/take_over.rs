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

/// The result of a take-over of one object.
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
    /// True if the token had the object before; then nothing was changed.
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
    /// Opens data that another program sealed in this TPM: TSS2 sealed data, PEM. Messages name the
    /// file by `source`.
    ///
    /// # Errors
    ///
    /// Refused for a wrong `value`; the TPM counts this attempt.
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

    /// A token takes over the object in a file: a key that another program made in this TPM (TSS2
    /// PRIVATE KEY), or a certificate. The format is that of a key folder. `value` is the key's
    /// current authorisation value. `pin` is the user's PIN of the token, if the configuration does
    /// not name it. Messages name the file by `source`.
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
                "{source}: an identity of this device has the label {label}; give the key another \
                 label, in the line Label: above it"
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

/// Translates an error of the take-over of a key. After some errors the next key would cost a
/// further try, or fail too: these errors become refusals.
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
