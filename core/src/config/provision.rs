//! `[provision]`: how the device gets an identity of its own.

use super::file::ProvisionTable;
use crate::x509::SubjectTemplate;
use std::path::{Path, PathBuf};

/// How the device gets its own identity (`[provision]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provision {
    /// True if the device is to have an identity of its own, beside the factory's.
    pub own: OwnIdentity,
    /// The file that says that the identity is in the TPM, and which key it is.
    pub marker: PathBuf,
    /// What is done where there is no TPM.
    pub fallback: Fallback,
    /// An identity that somebody else made, to be used instead of one of ours.
    pub existing: Option<ExistingSource>,
    /// True if a device with a software key moves to its TPM.
    pub leave_software: LeaveSoftware,
    /// The NV index that holds a copy of the certificate; none is written without it.
    pub nv_index: Option<u32>,
    /// Whom the device's own certificate names; whom the factory named, if it says nothing.
    pub subject: Option<SubjectTemplate>,
}

/// True if the device is to have an identity of its own (`own`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OwnIdentity {
    /// The configuration does not say: a device with a factory identity is whole as it is, until
    /// `devid provision` makes another identity.
    #[default]
    Unset,
    /// `true`: the device lacks one until it is there.
    Wanted,
    /// `false`: the factory's is all that is wanted.
    Unwanted,
}

/// What is done where there is no TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Fallback {
    /// Nothing: the device then has no identity.
    #[default]
    None,
    /// A key in a file.
    Software,
}

/// True if a device with a software key moves to a TPM that appears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LeaveSoftware {
    /// It never does.
    Never,
    /// When its certificate is to be made anew, since that is when the identity changes anyway.
    #[default]
    OnNewCertificate,
}

/// An identity that is there without us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExistingSource {
    /// In a token of ours, by PKCS#11 URI (RFC 7512).
    Uri(String),
    /// In two files.
    Files {
        /// The certificate, then perhaps those of its issuers.
        certificate: PathBuf,
        /// PKCS#8, or a key that the TPM wrapped (`TSS2 PRIVATE KEY`).
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
