//! What a device maker does in a TPM: the factory keys IDevID and IAK from the TCG's templates, requests for
//! their certificates, and the certificates in NV (TCG, TPM 2.0 Keys for Device Identity and Attestation;
//! IEEE 802.1AR).
//!
//! Each step is looked for before it is done, so a run goes on where a killed one stopped. Nothing is undefined,
//! overwritten or evicted.

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

/// A TPM that a maker works at, and what authorises that.
#[derive(Debug)]
pub struct Maker {
    tpm: Tpm,
    owner: AuthValue,
    platform: AuthValue,
}

/// A factory key, and where it and its certificate go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPlace {
    /// IDevID or IAK.
    pub kind: DevIdKind,
    /// The persistent handle.
    pub handle: u32,
    /// The NV index of the certificate.
    pub index: u32,
}

/// Which template a key is derived from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTemplate {
    /// Algorithm and size.
    pub algorithm: KeyAlgorithm,
    /// Where an ECC template has the label.
    pub label: UniqueLabel,
}

/// The words for templates, and what they stand for.
pub const TEMPLATES: [(&str, KeyAlgorithm); 6] = [
    ("h1", KeyAlgorithm::Rsa(2048)),
    ("h2", KeyAlgorithm::Ec(Curve::P256)),
    ("h3", KeyAlgorithm::Ec(Curve::P384)),
    ("h4", KeyAlgorithm::Ec(Curve::P521)),
    ("rsa3072", KeyAlgorithm::Rsa(3072)),
    ("rsa4096", KeyAlgorithm::Rsa(4096)),
];

impl Maker {
    /// Nothing is sent yet. The owner's authorisation value is the one that the configuration names.
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
    /// The IDevID's usual places.
    pub const IDEVID: Self = Self {
        kind: DevIdKind::Identity,
        handle: 0x8102_0000,
        index: 0x01C9_0200,
    };
    /// The IAK's usual places.
    pub const IAK: Self = Self {
        kind: DevIdKind::Attestation,
        handle: 0x8102_0001,
        index: 0x01C9_0100,
    };

    /// True if the places are such as factory keys and their certificates have.
    ///
    /// # Errors
    ///
    /// A handle outside 0x8102xxxx, an NV index outside 0x01C9xxxx: nobody would look there.
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

    /// What the key is called.
    pub fn called(&self) -> &'static str {
        match self.kind {
            DevIdKind::Identity => "IDevID",
            DevIdKind::Attestation => "IAK",
        }
    }
}

/// A refusal of the platform hierarchy, in words that say what helps.
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
