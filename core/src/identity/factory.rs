//! Checks the factory identity (IDevID): its key makes a signature.

use super::device::Device;
use super::entry::TokenEntry;
use super::prove::{PossessionProof, prove};
use super::{IdentityError, IdentityErrorKind};
use crate::store::SignError;
use crate::x509::Certificate;

/// Whether the factory identity (IDevID) can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FactoryIdentity {
    /// The key signs, or it was not tried because it needs a PIN or because of lockout.
    Usable,
    /// The device has no device certificate from its factory. The value tells why.
    Absent(IdentityError),
    /// The device has, or may have, a certificate from its factory, but the key does not sign.
    Unusable(IdentityError),
}

impl FactoryIdentity {
    /// Returns the reason why the factory identity is not usable, if any.
    pub(super) fn usable(self) -> Result<(), IdentityError> {
        match self {
            Self::Usable => Ok(()),
            Self::Absent(why) | Self::Unusable(why) => Err(why),
        }
    }
}

impl Device {
    /// Searches the factory identity, and checks that its key signs.
    pub(super) fn factory_identity(&self) -> FactoryIdentity {
        let factory = match self.factory_contents() {
            Ok(read) => read,
            Err((_, fault)) if fault.kind == IdentityErrorKind::NotFound => {
                return FactoryIdentity::Absent(fault);
            }
            Err((_, fault)) => return FactoryIdentity::Unusable(fault),
        };
        let mut why = factory.unread;
        for key in factory.entries.iter().filter_map(|one| one.key.as_ref()) {
            match prove(&self.tpm, key, key.public()) {
                PossessionProof::Proven
                | PossessionProof::NotTried
                | PossessionProof::NoSignature(SignError::NotLoggedIn) => {
                    return FactoryIdentity::Usable;
                }
                PossessionProof::OtherKey => {
                    why = Some(IdentityError::failed(
                        "another key than the factory key made the signature",
                    ))
                }
                PossessionProof::NoSignature(error) => why = Some(error.into()),
            }
        }
        let is_device =
            |one: &TokenEntry| !one.attests && !one.certificate().is_some_and(Certificate::is_ca);
        let missing = |what| IdentityError::new(IdentityErrorKind::NotFound, what);
        match why {
            Some(fault) => FactoryIdentity::Unusable(fault),
            None if factory.entries.iter().any(is_device) => FactoryIdentity::Unusable(missing(
                "the TPM does not have the key for the factory's certificate",
            )),
            None => FactoryIdentity::Absent(missing("the device has no identity from its factory")),
        }
    }
}
