//! Stores keys and certificates of another program in a token, and unseals data that another
//! program sealed in this TPM.

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

/// The key or certificate of another program that a token took over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TakenObject {
    /// The name of the token that took over the key or certificate.
    pub token: String,
    /// The label of the key or certificate.
    pub label: String,
    /// `key` or `certificate`.
    pub kind: &'static str,
    /// The path of the new file in the key folder.
    pub file: String,
    /// True if the token already had the key or certificate. In this case nothing was changed.
    pub known: bool,
}

impl TakenObject {
    /// Returns the token and the label of the object, for the audit log.
    pub fn audit_subject(&self) -> AuditSubject {
        AuditSubject {
            label: Some(self.label.clone()),
            ..AuditSubject::default()
        }
    }
}

impl Device {
    /// Unseals data that another program sealed in this TPM. The file is TSS2 sealed data in PEM.
    /// `source` is the name of the file in messages.
    ///
    /// # Errors
    ///
    /// Fails with a refusal for a wrong `value`. The TPM counts this try.
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
                "{source}: the authorisation value is wrong. The TPM counts wrong values: devid \
                 status prints how many tries remain"
            )),
            error => IdentityError::failed(format!("{source}: {error}")),
        })
    }

    /// Takes over the object in a file for a token. The object is a key that another program made
    /// in this TPM (TSS2 PRIVATE KEY), or a certificate. The file has the format of a key folder.
    ///
    /// - `value` is the current authorisation value of the key.
    /// - `pin` is the user PIN of the token, if the configuration does not name it.
    /// - `source` is the name of the file in messages.
    ///
    /// # Errors
    ///
    /// After an error nothing is stored.
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
                "{source}: {label} is the label of an identity of this device; change the line \
                 Label: in the file to another label"
            )));
        }
        let (kind, taken) = match content {
            EntryContent::Pair(pair) => {
                match pin {
                    Some(pin) => store.login(UserType::User, pin).map_err(|error| {
                        IdentityError::failed(format!("token {}: {error}", store.name()))
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
                    "{source}: the file holds neither a key of the TPM (TSS2 PRIVATE KEY) nor a \
                     certificate; nothing was changed"
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

/// Translates an error of taking over a key. Some errors become refusals, because the next key
/// would cost a further try or fail too.
fn refusal(error: StoreError) -> IdentityError {
    match error {
        StoreError::Protection(why) => IdentityError::refused(why),
        StoreError::Tpm(error @ (TpmError::WrongAuth(_) | TpmError::NeedsAuth(_))) => {
            IdentityError::refused(format!(
                "{error}. The TPM counts wrong values: devid status prints how many tries remain"
            ))
        }
        StoreError::Tpm(error @ (TpmError::NoTryLeft(_) | TpmError::Lockout(_))) => {
            IdentityError::refused(IdentityError::from(error).to_string())
        }
        other => other.into(),
    }
}
