//! `[provision]`: how the device gets the identity with the label `devid` (an LDevID of IEEE
//! 802.1AR).

use super::file::ProvisionTable;
use crate::x509::SubjectTemplate;
use std::path::{Path, PathBuf};

/// The settings for the identity with the label `devid` (`[provision]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provision {
    /// Whether the device needs the identity `devid` in addition to the factory's identity.
    pub own: OwnIdentity,
    /// The marker file. If it exists, the identity `devid` is in the TPM. The file names the handle
    /// of the key.
    pub marker: PathBuf,
    /// The behaviour of `devid provision` on a device without TPM.
    pub fallback: Fallback,
    /// A certificate and key of another program, which the device uses as the identity `devid`.
    pub existing: Option<ExistingSource>,
    /// When a device with a key in a file moves to a key in the TPM, once it has a TPM.
    pub leave_software: LeaveSoftware,
    /// The NV index for a copy of the certificate `devid`. `None`: no copy is written.
    pub nv_index: Option<u32>,
    /// The subject of the certificate `devid`. `None`: the subject of the factory's certificate.
    pub subject: Option<SubjectTemplate>,
}

/// Whether the device needs the identity `devid` (`[provision] own`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OwnIdentity {
    /// The setting is missing. A device with a factory identity is complete, until `devid
    /// provision` creates the identity `devid`.
    #[default]
    Unset,
    /// `true`: the device needs the identity `devid`.
    Wanted,
    /// `false`: the factory identity is enough.
    Unwanted,
}

/// The behaviour of `devid provision` on a device without TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Fallback {
    /// A device without TPM gets no identity.
    #[default]
    None,
    /// The device gets an identity whose key is in a file.
    Software,
}

/// When a device moves from a key in a file to a key in the TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LeaveSoftware {
    /// The device keeps the key in the file.
    Never,
    /// The device moves when it needs a new certificate, because a new certificate changes the
    /// identity anyway.
    #[default]
    OnNewCertificate,
}

/// Where to find a certificate and key of another program (`[provision] existing`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExistingSource {
    /// A key or certificate in a token of this module, by its PKCS#11 URI (RFC 7512).
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
