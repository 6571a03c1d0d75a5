//! `[provision]`: how the device gets an identity of its own.

use super::file::ProvisionTable;
use crate::x509::SubjectTemplate;
use std::path::{Path, PathBuf};

/// The settings for the device's own identity (`[provision]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provision {
    /// The wish for an own identity beside the factory's.
    pub own: OwnIdentity,
    /// The marker: a file that says that the identity is in the TPM, and names its key.
    pub marker: PathBuf,
    /// The behaviour without TPM.
    pub fallback: Fallback,
    /// An identity of another party, to be used instead of our own.
    pub existing: Option<ExistingSource>,
    /// The wish to leave a software key when the device has a TPM.
    pub leave_software: LeaveSoftware,
    /// The NV index for a copy of the certificate; without it no copy is written.
    pub nv_index: Option<u32>,
    /// The subject of the device's own certificate; by default the factory's.
    pub subject: Option<SubjectTemplate>,
}

/// The wish for an own identity (`own`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OwnIdentity {
    /// Not configured: a device with a factory identity is complete, until `devid provision` makes
    /// an own identity.
    #[default]
    Unset,
    /// `true`: the device needs an own identity.
    Wanted,
    /// `false`: the factory identity suffices.
    Unwanted,
}

/// The behaviour without TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Fallback {
    /// No identity is made.
    #[default]
    None,
    /// A key in a file.
    Software,
}

/// The time at which a device with a software key moves to a TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LeaveSoftware {
    /// Never.
    Never,
    /// When a new certificate is made, since the identity changes then anyway.
    #[default]
    OnNewCertificate,
}

/// The location of an existing identity of another party.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExistingSource {
    /// In a token of ours, by PKCS#11 URI (RFC 7512).
    Uri(String),
    /// In two files.
    Files {
        /// The certificate, optionally followed by those of its issuers.
        certificate: PathBuf,
        /// PKCS#8, or a key wrapped by the TPM (`TSS2 PRIVATE KEY`).
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
