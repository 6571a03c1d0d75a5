//! The record of a device for its maker: a JSON object that fits on one line.

use super::{KeyPlace, Maker};
use crate::evidence::Endorsement;
use crate::identity::{IdentityError, IdentityErrorKind, maker_and_firmware};
use crate::key::hex;
use crate::tpm::{Hash, NvHierarchy};
use crate::x509::clock::now;
use crate::x509::device::NamedDevice;
use serde::Serialize;

/// The format of a [`DeviceRecord`].
const FORMAT: &str = "devid-manufacture/1";

/// The record of a device for its maker: the TPM, the factory keys and their certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceRecord {
    /// The format: `devid-manufacture/1`.
    pub format: &'static str,
    /// The time of the record in the format of RFC 3339, UTC. `None` if the clock is wrong.
    pub time: Option<String>,
    /// The serial number in the IDevID certificate.
    pub serial: Option<String>,
    /// The model in the IDevID certificate.
    pub model: Option<String>,
    /// The TPM of the device.
    pub tpm: TpmRecord,
    /// The factory keys; the IDevID is the first.
    pub keys: Vec<KeyRecord>,
}

/// The TPM of the device: its maker, its firmware and its endorsement keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TpmRecord {
    /// The maker of the TPM: TPM_PT_MANUFACTURER as text.
    pub maker: String,
    /// The version of the TPM's firmware.
    pub firmware: String,
    /// The TPM name of the first endorsement key, in hexadecimal digits.
    pub ek_name: Option<String>,
    /// The SHA-256 of each endorsement certificate.
    pub ek_certificates: Vec<String>,
}

/// A factory key and its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyRecord {
    /// The kind of the key: `IDevID` or `IAK`.
    pub role: &'static str,
    /// The algorithm and size of the key, for example `P-256`.
    pub algorithm: String,
    /// The persistent handle of the key.
    pub handle: String,
    /// The TPM name of the key, in hexadecimal digits.
    pub name: String,
    /// The SHA-256 of the key's SubjectPublicKeyInfo, in hexadecimal digits.
    pub public_sha256: String,
    /// The certificate of the key.
    pub certificate: CertificateRecord,
}

/// The certificate of a factory key in NV memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateRecord {
    /// The NV index of the certificate.
    pub nv: String,
    /// The SHA-256 of the certificate in DER, in hexadecimal digits.
    pub sha256: String,
    /// The serial number of the certificate, in hexadecimal digits.
    pub serial: String,
    /// The issuer of the certificate, in the format of RFC 4514.
    pub issuer: String,
    /// The hierarchy that defined the NV index: `owner` or `platform`.
    pub authorisation: &'static str,
    /// True if TPM2_Clear does not delete the NV index.
    pub survives_clear: bool,
    /// True if TPM2_NV_WriteLock has locked the NV index.
    pub locked: bool,
}

impl Maker {
    /// Returns the record of a finished device. Writes nothing.
    ///
    /// # Errors
    ///
    /// Fails if a key or a certificate is missing, or if a certificate is not for its key.
    pub fn record(&self, places: &[KeyPlace]) -> Result<DeviceRecord, IdentityError> {
        let mut named = NamedDevice::default();
        let mut keys = Vec::new();
        for place in places {
            let resident = self.resident(place)?;
            let unfinished = |why: &str| {
                IdentityError::new(
                    IdentityErrorKind::NotFound,
                    format!(
                        "NV index 0x{:08X} holds {why}; devid-manufacture install writes the \
                         certificate",
                        place.index
                    ),
                )
            };
            let burned = self.burned_in(place.index)?;
            let burned = burned.ok_or_else(|| unfinished("no certificate"))?;
            let one = &burned.certificate;
            if one.public_key().as_ref() != Some(&resident.area.key) {
                return Err(unfinished("a certificate for another key"));
            }
            if named.serial.is_none() {
                named = NamedDevice::of(one);
            }
            let by = NvHierarchy::of(burned.about);
            keys.push(KeyRecord {
                role: place.called(),
                algorithm: resident.area.key.to_string(),
                handle: format!("0x{:08X}", place.handle),
                name: hex(&resident.name),
                public_sha256: hex(&Hash::Sha256.digest(&[&resident.area.key.info_der()])),
                certificate: CertificateRecord {
                    nv: format!("0x{:08X}", place.index),
                    sha256: hex(&one.sha256()),
                    serial: hex(one.serial()),
                    issuer: one.issuer(),
                    authorisation: by.name(),
                    survives_clear: by.survives_clear(),
                    locked: burned.about.is_locked(),
                },
            });
        }
        let (maker, firmware) = maker_and_firmware(&self.tpm)?;
        let endorsement = Endorsement::of(&self.tpm, Vec::new())?;
        let certificates = endorsement.certificates.iter();
        Ok(DeviceRecord {
            format: FORMAT,
            time: now().ok().map(|time| time.to_string()),
            serial: named.serial,
            model: named.model,
            tpm: TpmRecord {
                maker,
                firmware,
                ek_name: endorsement.key.map(|key| hex(key.name())),
                ek_certificates: certificates.map(|one| hex(&one.sha256())).collect(),
            },
            keys,
        })
    }
}
