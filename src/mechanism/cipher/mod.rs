//! Ciphers with secret keys (PKCS#11 3.0, sections 6.10.4 to 6.10.7 and 6.10.11): the mechanisms
//! with their parameters, and encryptions and decryptions in progress.
//!
//! An operation in progress does not hold the key, because another thread may log out and wipe the
//! key. Each call passes the key again.

mod blocks;
mod gcm;

use crate::error::Error;
use crate::mechanism::params::Parameter;
use crate::mechanism::table::{Algorithm, CipherAlgorithm, Mechanism};
use crate::output::Secret;
use blocks::Blocks;
use devid_core::{Computation, overwrite_stack};
use gcm::Gcm;
pub(crate) use gcm::tag_length;

/// The length in bytes of an AES block, and of the initialisation vector of CBC.
pub(crate) const BLOCK: usize = 16;
/// The length in bytes of the longest message or part. This length also limits a ciphertext that
/// waits for the check of its tag.
pub(crate) const LONGEST_MESSAGE: usize = 64 << 20;

/// A cipher mechanism with its parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CipherMechanism {
    pub(crate) row: &'static Mechanism,
    mode: CipherMode,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum CipherMode {
    Ecb,
    Cbc {
        iv: [u8; BLOCK],
        padded: bool,
    },
    Gcm {
        iv: Vec<u8>,
        aad: Vec<u8>,
        /// The length of the authentication tag in bytes.
        tag: usize,
    },
}

/// The direction of a cipher operation: encryption or decryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Encrypt,
    Decrypt,
}

impl Direction {
    /// Returns the error for an input of a wrong length.
    fn length_error(self, length: usize) -> Error {
        match self {
            Self::Encrypt => Error::DataLenRange(length),
            Self::Decrypt => Error::EncryptedDataLenRange(length),
        }
    }
}

impl CipherMechanism {
    /// # Errors
    ///
    /// [`Error::MechanismInvalid`] if the mechanism is not a cipher.
    /// [`Error::MechanismParamInvalid`] if the parameter is missing or not supported.
    pub(crate) fn new(row: &'static Mechanism, parameter: Parameter) -> Result<Self, Error> {
        let Algorithm::Cipher(algorithm) = row.algorithm else {
            return Err(Error::MechanismInvalid);
        };
        let mode = match (algorithm, parameter) {
            (CipherAlgorithm::Ecb, Parameter::None) => CipherMode::Ecb,
            (CipherAlgorithm::Cbc, Parameter::Iv(iv)) => CipherMode::Cbc { iv, padded: false },
            (CipherAlgorithm::CbcPad, Parameter::Iv(iv)) => CipherMode::Cbc { iv, padded: true },
            (CipherAlgorithm::Gcm, Parameter::Gcm { iv, aad, tag_bits }) => CipherMode::Gcm {
                iv: Some(iv)
                    .filter(|iv| !iv.is_empty())
                    .ok_or(Error::MechanismParamInvalid)?,
                aad,
                tag: tag_length(tag_bits).ok_or(Error::MechanismParamInvalid)?,
            },
            _ => return Err(Error::MechanismParamInvalid),
        };
        Ok(Self { row, mode })
    }

    /// Starts an operation with this AES key.
    pub(crate) fn begin(&self, key: &[u8], direction: Direction) -> Result<CipherState, Error> {
        let state = match &self.mode {
            CipherMode::Ecb => CipherState::Blocks(Blocks::new(None, false, direction)),
            CipherMode::Cbc { iv, padded } => {
                CipherState::Blocks(Blocks::new(Some(*iv), *padded, direction))
            }
            CipherMode::Gcm { iv, aad, tag } => {
                let state = Gcm::new(key, iv, aad, *tag, direction);
                overwrite_stack(Computation::Cipher);
                CipherState::Gcm(Box::new(state.ok_or(Error::KeySizeRange)?))
            }
        };
        Ok(state)
    }
}

/// An encryption or decryption in progress.
#[derive(Clone)]
pub(crate) enum CipherState {
    Blocks(Blocks),
    Gcm(Box<Gcm>),
}

impl CipherState {
    /// Returns the number of output bytes for a part of this length. For the last part, add
    /// [`Self::finish_length`].
    ///
    /// # Errors
    ///
    /// Fails if the part is too long.
    pub(crate) fn update_length(&self, part: usize) -> Result<usize, Error> {
        match self {
            Self::Blocks(blocks) => blocks.update_length(part),
            Self::Gcm(gcm) => gcm.update_length(part),
        }
    }

    /// Returns the largest number of output bytes at the end of the message, after one more part of
    /// `part` bytes. If a padding is removed, only the decryption shows the exact number.
    ///
    /// # Errors
    ///
    /// Fails if a message of this length is impossible.
    pub(crate) fn finish_length(&self, part: usize) -> Result<usize, Error> {
        match self {
            Self::Blocks(blocks) => blocks.finish_length(part),
            Self::Gcm(gcm) => gcm.finish_length(part),
        }
    }

    /// Returns true if the operation removes a padding. The last output may then be shorter than
    /// [`Self::finish_length`].
    pub(crate) fn takes_padding_off(&self) -> bool {
        match self {
            Self::Blocks(blocks) => blocks.takes_padding_off(),
            Self::Gcm(_) => false,
        }
    }

    /// Encrypts or decrypts a part of a message, and appends the output to `out`.
    pub(crate) fn update(
        &mut self,
        key: &[u8],
        part: &[u8],
        out: &mut Secret,
    ) -> Result<(), Error> {
        reserve(out, self.update_length(part.len())?)?;
        let updated = match self {
            Self::Blocks(blocks) => blocks.update(key, part, out),
            Self::Gcm(gcm) => gcm.update(key, part, out),
        };
        overwrite_stack(Computation::Cipher);
        updated
    }

    /// Ends the operation, and appends the last output to `out`.
    ///
    /// # Errors
    ///
    /// [`Error::EncryptedDataInvalid`] if the padding or the tag is wrong. In GCM no byte of the
    /// message was returned before this error.
    pub(crate) fn finish(self, key: &[u8], out: &mut Secret) -> Result<(), Error> {
        reserve(out, self.finish_length(0)?)?;
        let finished = match self {
            Self::Blocks(blocks) => blocks.finish(key, out),
            Self::Gcm(gcm) => gcm.finish(key, out),
        };
        overwrite_stack(Computation::Cipher);
        finished
    }
}

/// Reserves memory in `out` before data is appended. If the vector grew later, a copy of secret
/// data would stay in memory. If it could not grow, the process would end.
fn reserve(out: &mut Secret, more: usize) -> Result<(), Error> {
    if out.capacity() - out.len() >= more {
        return Ok(());
    }
    let mut larger = Secret::default();
    larger
        .try_reserve_exact(out.len() + more)
        .map_err(|_| Error::HostMemory)?;
    larger.extend_from_slice(out);
    *out = larger;
    Ok(())
}

#[cfg(test)]
mod tests;
