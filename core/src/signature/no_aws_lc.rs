//! A build without aws-lc: the portable crates verify all signatures.

use crate::key::Curve;
use crate::tpm::Hash;

pub(super) fn ecdsa(_: Curve, _: &[u8], _: &[u8], _: &[u8]) -> Option<bool> {
    None
}

pub(super) fn pkcs1(_: (&[u8], &[u8]), _: Hash, _: &[u8], _: &[u8]) -> Option<bool> {
    None
}

pub(super) fn pss(_: (&[u8], &[u8]), _: Hash, _: &[u8], _: &[u8]) -> Option<bool> {
    None
}
