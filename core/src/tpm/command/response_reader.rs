//! Reads the fields of a response.
//!
//! The structures of the library refuse a whole answer because of one unknown number. This reader
//! accepts unknown numbers, and ignores the bytes that follow the requested fields.

use crate::tpm::TpmError;

/// The unread part of a response.
pub(super) struct ResponseReader<'a>(&'a [u8]);

impl<'a> ResponseReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Reads a BYTE.
    pub(super) fn uint8(&mut self) -> Result<u8, TpmError> {
        self.piece::<1>().map(u8::from_be_bytes)
    }

    /// Reads a UINT16, or a TPM_ALG_ID.
    pub(super) fn uint16(&mut self) -> Result<u16, TpmError> {
        self.piece::<2>().map(u16::from_be_bytes)
    }

    /// Reads a UINT32.
    pub(super) fn uint32(&mut self) -> Result<u32, TpmError> {
        self.piece::<4>().map(u32::from_be_bytes)
    }

    /// Reads a TPM2B and returns its content.
    pub(super) fn tpm2b(&mut self) -> Result<&'a [u8], TpmError> {
        let size = self.uint16()?;
        let (content, rest) = self.0.split_at_checked(size.into()).ok_or_else(short)?;
        self.0 = rest;
        Ok(content)
    }

    /// Returns the unread bytes.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Returns true if all bytes of the response were read.
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
    TpmError::Unsupported("response: shorter than its size field says".into())
}
