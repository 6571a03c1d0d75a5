//! The NV indices and files where certificates of the factory identity are stored.

use crate::config::IdentityHint;
use crate::x509::Certificate;
use std::fmt;
use std::path::PathBuf;

/// The NV index or the file where a certificate is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CertificateLocation {
    Nv(u32),
    File(PathBuf),
}

/// A certificate, with its NV index or file.
pub(super) type LocatedCertificate = (CertificateLocation, Certificate);

impl CertificateLocation {
    /// Returns true if this entry of `[[identity]]` in the configuration names the location.
    pub(super) fn is_named_by(&self, hint: &IdentityHint) -> bool {
        match self {
            Self::Nv(index) => hint.nv == Some(*index),
            Self::File(path) => hint.certificate.as_ref() == Some(path),
        }
    }
}

impl fmt::Display for CertificateLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nv(index) => write!(f, "NV index 0x{index:08X}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}
