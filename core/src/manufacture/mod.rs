//! Manufacturing: the maker of a device puts factory keys and certificates into its TPM. The TPM
//! derives the keys IDevID and IAK from templates of the TCG. The maker requests their certificates
//! and writes them to NV memory (TCG, TPM 2.0 Keys for Device Identity and Attestation; IEEE
//! 802.1AR).
//!
//! A step that an earlier run has done is skipped, so a new run continues an interrupted run. No
//! step removes, overwrites or evicts an object.

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

/// A TPM during manufacturing, with the authorisation values of its hierarchies.
#[derive(Debug)]
pub struct Maker {
    tpm: Tpm,
    owner: AuthValue,
    platform: AuthValue,
}

/// A factory key: the persistent handle of the key, and the NV index of its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPlace {
    /// The kind of the key: IDevID or IAK.
    pub kind: DevIdKind,
    /// The persistent handle of the key.
    pub handle: u32,
    /// The NV index of the key's certificate.
    pub index: u32,
}

/// The choices for the template of a factory key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTemplate {
    /// The algorithm and the size of the key.
    pub algorithm: KeyAlgorithm,
    /// Which coordinates of an ECC template's unique field hold the label.
    pub label: UniqueLabel,
}

/// The values of `--template` and their key algorithms. `h1` to `h4` are the templates H-1 to H-4
/// of the TCG.
pub const TEMPLATES: [(&str, KeyAlgorithm); 6] = [
    ("h1", KeyAlgorithm::Rsa(2048)),
    ("h2", KeyAlgorithm::Ec(Curve::P256)),
    ("h3", KeyAlgorithm::Ec(Curve::P384)),
    ("h4", KeyAlgorithm::Ec(Curve::P521)),
    ("rsa3072", KeyAlgorithm::Rsa(3072)),
    ("rsa4096", KeyAlgorithm::Rsa(4096)),
];

impl Maker {
    /// Creates the client for manufacturing. Sends no TPM command. The authorisation value of the
    /// owner hierarchy comes from the configuration.
    ///
    /// # Errors
    ///
    /// Fails if an authorisation value cannot be read.
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
    /// The default handle and NV index of the IDevID.
    pub const IDEVID: Self = Self {
        kind: DevIdKind::Identity,
        handle: 0x8102_0000,
        index: 0x01C9_0200,
    };
    /// The default handle and NV index of the IAK.
    pub const IAK: Self = Self {
        kind: DevIdKind::Attestation,
        handle: 0x8102_0001,
        index: 0x01C9_0100,
    };

    /// Checks that the handle and the NV index are in the ranges for factory keys.
    ///
    /// # Errors
    ///
    /// Fails if the handle is outside of 0x8102xxxx, or the NV index outside of 0x01C9xxxx. No
    /// program searches for factory keys outside of these ranges.
    pub fn check(&self) -> Result<(), IdentityError> {
        let (handle, index) = (self.handle, self.index);
        if handle::DEVID_KEYS.contains(&handle) && handle::DEVID_CERTIFICATES.contains(&index) {
            return Ok(());
        }
        Err(IdentityError::new(
            IdentityErrorKind::Usage,
            format!(
                "{}: handle 0x{handle:08X}, NV index 0x{index:08X}: the handle must be from \
                 0x81020000 to 0x8102FFFF, and the NV index from 0x01C90000 to 0x01C9FFFF, because \
                 devices search only these ranges",
                self.called()
            ),
        ))
    }

    /// Returns the name of the key for messages: `IDevID` or `IAK`.
    pub fn called(&self) -> &'static str {
        match self.kind {
            DevIdKind::Identity => "IDevID",
            DevIdKind::Attestation => "IAK",
        }
    }
}

/// Converts the error of a command that the platform hierarchy authorises. If the hierarchy is
/// disabled or its authorisation value is wrong, adds the remedy.
fn by_platform(error: TpmError) -> IdentityError {
    const CLOSED: &str = "the platform hierarchy cannot be used: firmware gives it a random \
                          authorisation value, or disables it, before an operating system starts. \
                          Run this command in the environment of the firmware, or name the source \
                          of the value (--platform-auth), or use --by owner; TPM2_Clear deletes \
                          certificates of the owner hierarchy";
    match &error {
        TpmError::Response(code) if code.is_wrong_auth() || code.is_disabled_hierarchy() => {
            IdentityError::refused(format!("{CLOSED} (the TPM returned {code})"))
        }
        _ => error.into(),
    }
}
