//! Manufacturing: a device maker puts factory keys and certificates into a TPM. The factory keys
//! IDevID and IAK come from the TCG's templates. The maker requests their certificates, and writes
//! them to NV (TCG, TPM 2.0 Keys for Device Identity and Attestation; IEEE 802.1AR).
//!
//! Each step is skipped if it was done already, so a new run continues an interrupted one. No step
//! undefines, overwrites or evicts an object.

mod certificates;
mod check;
mod keys;
mod nv;
mod record;
mod requests;
mod steps;

pub use certificates::GivenCertificate;
pub use check::{Finding, Inspection};
pub use nv::Contents;
pub use record::{CertificateRecord, DeviceRecord, KeyRecord, TpmRecord};
pub use requests::{Product, Requests};
pub use steps::{Action, Step, StepState};

use crate::config::{Config, SecretSource};
use crate::identity::{IdentityError, IdentityErrorKind, configured_tpm};
use crate::key::Curve;
use crate::tpm::{
    AuthValue, DevIdKind, KeyAlgorithm, NvHierarchy, Refusals, Tpm, TpmError, UniqueLabel, handle,
};

/// A TPM during manufacturing, with its authorisation values.
#[derive(Debug)]
pub struct Maker {
    tpm: Tpm,
    owner: AuthValue,
    platform: AuthValue,
}

/// A factory key, with the handle and NV index for it and its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPlace {
    /// IDevID or IAK.
    pub kind: DevIdKind,
    /// The persistent handle.
    pub handle: u32,
    /// The NV index of the certificate.
    pub index: u32,
}

/// The template of a factory key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTemplate {
    /// Algorithm and size.
    pub algorithm: KeyAlgorithm,
    /// The position of the label in an ECC template.
    pub label: UniqueLabel,
}

/// The names of templates.
pub const TEMPLATES: [(&str, KeyAlgorithm); 6] = [
    ("h1", KeyAlgorithm::Rsa(2048)),
    ("h2", KeyAlgorithm::Ec(Curve::P256)),
    ("h3", KeyAlgorithm::Ec(Curve::P384)),
    ("h4", KeyAlgorithm::Ec(Curve::P521)),
    ("rsa3072", KeyAlgorithm::Rsa(3072)),
    ("rsa4096", KeyAlgorithm::Rsa(4096)),
];

impl Maker {
    /// Creates the value; sends nothing yet. The owner's authorisation value comes from the
    /// configuration.
    ///
    /// # Errors
    ///
    /// A value cannot be read.
    pub fn new(config: &Config, platform: Option<&SecretSource>) -> Result<Self, IdentityError> {
        let value = |source: Option<&SecretSource>, called: &str| match source {
            None => Ok(AuthValue::default()),
            Some(source) => source
                .read()
                .map(AuthValue::new)
                .map_err(|error| IdentityError::failed(format!("{called}: {error}"))),
        };
        Ok(Self {
            tpm: configured_tpm(config, Refusals::default()),
            owner: value(config.master.owner_auth.as_ref(), "[master] owner_auth")?,
            platform: value(platform, "--platform-auth")?,
        })
    }

    fn value(&self, by: NvHierarchy) -> &AuthValue {
        match by {
            NvHierarchy::Owner => &self.owner,
            NvHierarchy::Platform => &self.platform,
        }
    }
}

impl KeyPlace {
    /// The usual handle and NV index of the IDevID.
    pub const IDEVID: Self = Self {
        kind: DevIdKind::Identity,
        handle: 0x8102_0000,
        index: 0x01C9_0200,
    };
    /// The usual handle and NV index of the IAK.
    pub const IAK: Self = Self {
        kind: DevIdKind::Attestation,
        handle: 0x8102_0001,
        index: 0x01C9_0100,
    };

    /// Checks that the handle and the NV index are in the ranges for factory keys.
    ///
    /// # Errors
    ///
    /// The handle is outside 0x8102xxxx, or the NV index is outside 0x01C9xxxx. No program searches
    /// there.
    pub fn check(&self) -> Result<(), IdentityError> {
        let (handle, index) = (self.handle, self.index);
        if handle::DEVID_KEYS.contains(&handle) && handle::DEVID_CERTIFICATES.contains(&index) {
            return Ok(());
        }
        Err(IdentityError::new(
            IdentityErrorKind::Usage,
            format!(
                "{}: handle 0x{handle:08X}, NV index 0x{index:08X}: expected a handle from 0x81020000 to \
                 0x8102FFFF and an NV index from 0x01C90000 to 0x01C9FFFF, where devices look for them",
                self.called()
            ),
        ))
    }

    /// The name of the key.
    pub fn called(&self) -> &'static str {
        match self.kind {
            DevIdKind::Identity => "IDevID",
            DevIdKind::Attestation => "IAK",
        }
    }
}

/// Explains a refusal of the platform hierarchy, with the remedy.
fn by_platform(error: TpmError) -> IdentityError {
    const CLOSED: &str = "the platform hierarchy is closed to us: firmware gives it a random value, or switches it \
         off, before an operating system starts. Install from the firmware's own environment, say where the value \
         is (--platform-auth), or choose --by owner, whose certificates TPM2_Clear deletes";
    match &error {
        TpmError::Response(code) if code.is_wrong_auth() || code.is_disabled_hierarchy() => {
            IdentityError::refused(format!("{CLOSED} (TPM answered {code})"))
        }
        _ => error.into(),
    }
}
