//! The maker's record of a device: one JSON object that fits on one line.

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

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceRecord {
    /// `devid-manufacture/1`.
    pub format: &'static str,
    /// RFC 3339, UTC; `None` if the clock is wrong.
    pub time: Option<String>,
    /// The serial number in the IDevID certificate.
    pub serial: Option<String>,
    /// The model in the IDevID certificate.
    pub model: Option<String>,
    /// The TPM.
    pub tpm: TpmRecord,
    /// The keys, the IDevID first.
    pub keys: Vec<KeyRecord>,
}

/// A TPM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TpmRecord {
    /// TPM_PT_MANUFACTURER.
    pub maker: String,
    /// The version of its firmware.
    pub firmware: String,
    /// TPM name of its endorsement key, hexadecimal digits.
    pub ek_name: Option<String>,
    /// SHA-256 of its endorsement certificates.
    pub ek_certificates: Vec<String>,
}

/// A factory key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyRecord {
    /// `IDevID` or `IAK`.
    pub role: &'static str,
    /// Algorithm and size, such as `P-256`.
    pub algorithm: String,
    /// The persistent handle.
    pub handle: String,
    /// The TPM name, hexadecimal digits.
    pub name: String,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub public_sha256: String,
    /// Its certificate.
    pub certificate: CertificateRecord,
}

/// A certificate in NV.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateRecord {
    /// The NV index.
    pub nv: String,
    /// The hash of the whole certificate.
    pub sha256: String,
    /// Its own serial number, hexadecimal digits.
    pub serial: String,
    /// In the format of RFC 4514.
    pub issuer: String,
    /// The hierarchy that defined the index: `owner` or `platform`.
    pub authorisation: &'static str,
    /// True if TPM2_Clear keeps it.
    pub survives_clear: bool,
    /// True if the index is locked against writing.
    pub locked: bool,
}

impl Maker {
    /// The record of a finished device. Writes nothing.
    ///
    /// # Errors
    ///
    /// A key or a certificate is missing, or they do not match.
    pub fn record(&self, places: &[KeyPlace]) -> Result<DeviceRecord, IdentityError> {
        let mut named = NamedDevice::default();
        let mut keys = Vec::new();
        for place in places {
            let resident = self.resident(place)?;
            let unfinished = |why: &str| {
                IdentityError::new(
                    IdentityErrorKind::NotFound,
                    format!(
                        "NV index 0x{:08X} holds {why}: devid-manufacture install writes it",
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
