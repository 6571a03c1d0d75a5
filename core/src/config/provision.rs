//! `[provision]`: how the device gets its own identity.

use super::file::ProvisionTable;
use crate::x509::SubjectTemplate;
use std::path::{Path, PathBuf};

/// The settings for the device's own identity (`[provision]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provision {
    /// The setting `own`: does the device need its own identity in addition to the factory's
    /// identity?
    pub own: OwnIdentity,
    /// The marker file. The file states that the identity is in the TPM, and names the key.
    pub marker: PathBuf,
    /// The behaviour on a device without TPM.
    pub fallback: Fallback,
    /// An identity of another party that is used instead of an own identity.
    pub existing: Option<ExistingSource>,
    /// The time at which a software key is given up when the device has a TPM.
    pub leave_software: LeaveSoftware,
    /// The NV index for a copy of the certificate. `None`: no copy is written.
    pub nv_index: Option<u32>,
    /// The subject of the device's own certificate. `None`: the factory's subject.
    pub subject: Option<SubjectTemplate>,
}

/// The values of the setting `own`: does the device need its own identity?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OwnIdentity {
    /// Not configured. A device with a factory identity is complete, until `devid provision` makes
    /// an own identity.
    #[default]
    Unset,
    /// `true`: the device needs its own identity.
    Wanted,
    /// `false`: the factory identity is enough.
    Unwanted,
}

/// The behaviour on a device without TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Fallback {
    /// The device gets no identity.
    #[default]
    None,
    /// The device gets a key in a file.
    Software,
}

/// The time at which a device with a software key moves to a TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LeaveSoftware {
    /// The device never moves to the TPM.
    Never,
    /// The device moves when a new certificate is made, because the identity changes then in any
    /// case.
    #[default]
    OnNewCertificate,
}

/// The location of an identity of another party.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExistingSource {
    /// An object of a token of this module, by its PKCS#11 URI (RFC 7512).
    Uri(String),
    /// Two files.
    Files {
        /// The file with the certificate. The certificates of its issuers may follow.
        certificate: PathBuf,
        /// The file with the key: PKCS#8, or a key wrapped by the TPM (`TSS2 PRIVATE KEY`).
        key: PathBuf,
    },
}

impl From<Option<bool>> for OwnIdentity {
    fn from(written: Option<bool>) -> Self {
        match written {
            None => Self::Unset,
            Some(true) => Self::Wanted,
            Some(false) => Self::Unwanted,
        }
    }
}

impl Fallback {
    pub(super) const WORDS: [(&str, Self); 2] =
        [("none", Self::None), ("software", Self::Software)];
}

impl LeaveSoftware {
    pub(super) const WORDS: [(&str, Self); 2] = [
        ("never", Self::Never),
        ("on-new-certificate", Self::OnNewCertificate),
    ];
}

impl Provision {
    const MARKER: &str = "tpm_in_use";

    pub(super) fn from_table(written: ProvisionTable, state: &Path) -> Self {
        Self {
            own: written.own.into(),
            marker: written.marker.unwrap_or_else(|| state.join(Self::MARKER)),
            fallback: written.fallback.unwrap_or_default(),
            existing: written.existing,
            leave_software: written.leave_software.unwrap_or_default(),
            nv_index: written.nv_index,
            subject: written.subject,
        }
    }
}
