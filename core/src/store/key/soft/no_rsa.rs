//! A build without RSA in memory. The module creates and imports no RSA key in memory, and refuses
//! such a key in a file.

use crate::key::PrivateKeyInfo;
use crate::store::{DecryptRequest, SignError};
use crate::tpm::{Hash, Secret, SignatureScheme, TpmError};

pub(super) const HASHES: &[Hash] = &[];

pub(super) fn generate(_: u32) -> Result<PrivateKeyInfo, TpmError> {
    Err(TpmError::Unsupported(
        "this build does not support RSA in memory".into(),
    ))
}

pub(super) fn usable(_: &PrivateKeyInfo) -> Option<Secret> {
    None
}

pub(super) fn sign(_: &[u8], _: SignatureScheme, _: &[u8]) -> Result<Vec<u8>, SignError> {
    Err(SignError::Scheme)
}

pub(super) fn opens(_: DecryptRequest) -> bool {
    false
}

pub(super) fn decrypt(_: &[u8], _: DecryptRequest, _: &[u8]) -> Result<Secret, SignError> {
    Err(SignError::Scheme)
}
