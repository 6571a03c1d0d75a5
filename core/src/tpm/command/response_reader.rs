//! Reads what a response holds, piece by piece.
//!
//! The library's structures refuse a whole answer for one number that they do not know. Here an
//! unknown number is a number, and what follows the pieces that are asked for is left alone.

use crate::tpm::TpmError;

/// The part of a response that was not read yet.
pub(super) struct ResponseReader<'a>(&'a [u8]);

impl<'a> ResponseReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// BYTE.
    pub(super) fn uint8(&mut self) -> Result<u8, TpmError> {
        self.piece::<1>().map(u8::from_be_bytes)
    }

    /// UINT16, or a TPM_ALG_ID.
    pub(super) fn uint16(&mut self) -> Result<u16, TpmError> {
        self.piece::<2>().map(u16::from_be_bytes)
    }

    /// UINT32.
    pub(super) fn uint32(&mut self) -> Result<u32, TpmError> {
        self.piece::<4>().map(u32::from_be_bytes)
    }

    /// The content of a TPM2B.
    pub(super) fn tpm2b(&mut self) -> Result<&'a [u8], TpmError> {
        let size = self.uint16()?;
        let (content, rest) = self.0.split_at_checked(size.into()).ok_or_else(short)?;
        self.0 = rest;
        Ok(content)
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// True if all was read.
    pub(super) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    fn piece<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], TpmError> {
        let (piece, rest) = self.0.split_first_chunk().ok_or_else(short)?;
        self.0 = rest;
        Ok(*piece)
    }
}

fn short() -> TpmError {
    TpmError::Unsupported("response: shorter than it says".into())
}
