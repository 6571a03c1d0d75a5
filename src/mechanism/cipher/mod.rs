//! Ciphers of secret keys (PKCS#11 3.0, sections 6.10.4 to 6.10.7 and 6.10.11): mechanisms with
//! their parameters, and current encryptions and decryptions.
//!
//! A current operation does not hold the key, because another thread may close the key. Each call
//! passes the key again.

mod blocks;
mod gcm;

use crate::error::Error;
use crate::mechanism::params::Parameter;
use crate::mechanism::table::{Algorithm, CipherAlgorithm, Mechanism};
use crate::output::Secret;
use blocks::Blocks;
use devid_core::overwrite_stack;
use gcm::Gcm;
pub(crate) use gcm::tag_length;

/// Bytes of an AES block, and of the initialisation vector of CBC.
pub(crate) const BLOCK: usize = 16;
/// The longest message or part. Also the longest ciphertext that is held until its tag was checked.
pub(crate) const LONGEST_MESSAGE: usize = 64 << 20;

/// A cipher with its parameter.
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
        /// Bytes.
        tag: usize,
    },
}

/// The direction of a cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Encrypt,
    Decrypt,
}

impl Direction {
    /// The error for input of an impossible length.
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
                overwrite_stack();
                CipherState::Gcm(Box::new(state.ok_or(Error::KeySizeRange)?))
            }
        };
        Ok(state)
    }
}

/// A current encryption or decryption.
#[derive(Clone)]
pub(crate) enum CipherState {
    Blocks(Blocks),
    Gcm(Box<Gcm>),
}

impl CipherState {
    /// The number of output bytes for a part of this length. For the last part, add
    /// [`Self::finish_length`].
    ///
    /// # Errors
    ///
    /// The part is too long.
    pub(crate) fn update_length(&self, part: usize) -> Result<usize, Error> {
        match self {
            Self::Blocks(blocks) => blocks.update_length(part),
            Self::Gcm(gcm) => gcm.update_length(part),
        }
    }

    /// The most output bytes at the end, after one more part of this length. If a padding is
    /// removed, only the decryption shows the true number.
    ///
    /// # Errors
    ///
    /// The message has an impossible length.
    pub(crate) fn finish_length(&self, part: usize) -> Result<usize, Error> {
        match self {
            Self::Blocks(blocks) => blocks.finish_length(part),
            Self::Gcm(gcm) => gcm.finish_length(part),
        }
    }

    /// True if the last output may be shorter than [`Self::finish_length`].
    pub(crate) fn takes_padding_off(&self) -> bool {
        match self {
            Self::Blocks(blocks) => blocks.takes_padding_off(),
            Self::Gcm(_) => false,
        }
    }

    /// Processes a part, and appends its output.
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
        overwrite_stack();
        updated
    }

    /// Ends the operation, and appends the last output.
    ///
    /// # Errors
    ///
    /// [`Error::EncryptedDataInvalid`] for a wrong padding or tag. GCM has then returned no byte of
    /// the message.
    pub(crate) fn finish(self, key: &[u8], out: &mut Secret) -> Result<(), Error> {
        reserve(out, self.finish_length(0)?)?;
        let finished = match self {
            Self::Blocks(blocks) => blocks.finish(key, out),
            Self::Gcm(gcm) => gcm.finish(key, out),
        };
        overwrite_stack();
        finished
    }
}

/// Reserves memory before data is appended. A vector that grows would leave a copy in memory, and a
/// failed growth would end the process.
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
