//! The subject of the certificate `devid`. It comes from the caller, the configuration, the
//! factory's certificate, or the key.

use super::device::{Device, TokenContents};
use super::entry::TokenEntry;
use super::{IdentityError, IdentityErrorKind};
use crate::file;
use crate::key::PublicKey;
use crate::x509::device::NamedDevice;
use crate::x509::{Subject, SubjectTemplate, SubjectVariable};
use log::warn;
use std::path::Path;

const MACHINE_ID: &str = "/etc/machine-id";
const DMI_SERIAL: &str = "/sys/class/dmi/id/product_serial";
/// The largest size of a file that gives the value of a subject variable, in bytes. A larger file
/// is refused.
const LARGEST: u64 = 4096;
/// Values that firmware reports if the maker entered none, in lower case. Many devices have these
/// values, so they identify no device.
const PLACEHOLDERS: [&str; 17] = [
    "to be filled by o.e.m.",
    "to be filled by o.e.m",
    "default string",
    "system serial number",
    "serial number",
    "not specified",
    "not available",
    "not applicable",
    "none",
    "n/a",
    "na",
    "null",
    "unknown",
    "invalid",
    "oem",
    "o.e.m.",
    "empty",
];

impl Device {
    /// Returns the subject that a template gives on this device, in the format of RFC 4514 and as a
    /// name.
    ///
    /// # Errors
    ///
    /// Fails if a variable has no value on this device. No other value replaces it.
    pub(super) fn subject_by(
        &self,
        template: &SubjectTemplate,
    ) -> Result<(String, Subject), IdentityError> {
        let named = template.with(|variable| self.value_of(variable));
        named.map_err(|fault| IdentityError {
            kind: match fault.kind {
                kind @ (IdentityErrorKind::Tpm | IdentityErrorKind::Denied) => kind,
                _ => IdentityErrorKind::Refused,
            },
            text: format!(
                "the subject {:?}: {}; no certificate, key or request was made. Give a subject \
                 with --subject, or change subject under [provision] in config.toml",
                template.text(),
                fault.text
            ),
        })
    }

    fn value_of(&self, variable: SubjectVariable) -> Result<String, IdentityError> {
        let refused = |why: String| IdentityError::refused(format!("{variable}: {why}"));
        match variable {
            SubjectVariable::MachineId => {
                let id = text_of(variable, Path::new(MACHINE_ID))?;
                let is_id = id.len() == 32
                    && id.bytes().all(|byte| byte.is_ascii_hexdigit())
                    && id.bytes().any(|byte| byte != b'0');
                match is_id {
                    true => Ok(id),
                    false => Err(refused(format!(
                        "{MACHINE_ID} does not hold a machine ID (machine-id(5)): {id:?}. \
                         systemd-machine-id-setup makes one"
                    ))),
                }
            }
            SubjectVariable::DmiSerial => {
                let serial = text_of(variable, Path::new(DMI_SERIAL))?;
                let is_told = |one: &str| {
                    let small = one.to_lowercase();
                    !PLACEHOLDERS.contains(&small.as_str())
                        && small.chars().any(|c| c.is_alphanumeric() && c != '0')
                };
                match is_told(&serial) {
                    true => Ok(serial),
                    false => Err(refused(format!(
                        "{DMI_SERIAL} holds {serial:?}, which many devices have in common"
                    ))),
                }
            }
            SubjectVariable::IdevIdSerial => {
                let entry = self.factory_entry()?;
                let entry =
                    entry.ok_or_else(|| refused("the device has no factory identity".into()))?;
                let named = entry.certificate().map(NamedDevice::of);
                named.and_then(|named| named.serial).ok_or_else(|| {
                    refused(
                        "the certificate of the factory has no serial number of the device".into(),
                    )
                })
            }
        }
    }

    /// Returns the token entry of the factory identity whose certificate has the serial number of
    /// the device, if there is one.
    fn factory_entry(&self) -> Result<Option<TokenEntry>, IdentityError> {
        let factory = match self.factory_contents() {
            // The subject never changes later. So an incomplete list of factory identities is an
            // error.
            Ok(TokenContents {
                unread: Some(fault),
                ..
            }) => return Err(fault),
            Ok(read) => read.entries,
            Err((_, fault)) if fault.kind == IdentityErrorKind::NotFound => Vec::new(),
            Err((_, fault)) => return Err(fault),
        };
        let mut identities = factory.into_iter();
        Ok(identities.find(|one| !one.attests && one.key.is_some()))
    }

    /// Returns the subject of the certificate `devid`: from the configuration, else from the
    /// factory's certificate, else from the key.
    pub(super) fn own_subject(&self, public: &PublicKey) -> Result<Subject, IdentityError> {
        if let Some(template) = &self.config.provision.subject {
            return Ok(self.subject_by(template)?.1);
        }
        let factory = match self.factory_entry() {
            // A subject can be made without a TPM, but then the subject of the factory identity is
            // unknown.
            Err(fault) if fault.kind == IdentityErrorKind::Tpm => {
                warn!("the factory's name for the device is unknown at present: {fault}");
                None
            }
            other => other?,
        };
        Ok(match factory.as_ref().and_then(TokenEntry::certificate) {
            Some(certificate) => Subject::copied(certificate)?,
            None => Subject::of_key(public)?,
        })
    }
}

/// Reads the value of a subject variable from a file with a single line.
fn text_of(variable: SubjectVariable, path: &Path) -> Result<String, IdentityError> {
    let bytes = file::read(path, LARGEST).map_err(|error| {
        let fault = IdentityError::file(path)(error);
        IdentityError {
            kind: fault.kind,
            text: format!("{variable}: {}", fault.text),
        }
    })?;
    let text = String::from_utf8(bytes).map_err(|_| {
        IdentityError::refused(format!("{variable}: {} is not UTF-8 text", path.display()))
    })?;
    Ok(text.trim().to_owned())
}
