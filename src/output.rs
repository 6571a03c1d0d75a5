//! Types for output of variable length (PKCS#11 3.0, section 5.2).

pub(crate) use devid_core::tpm::Secret;

/// The size of the caller's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// The caller gave no buffer, and asks for the length only.
    Length,
    /// The caller's buffer has this number of bytes.
    Bytes(usize),
}

/// The answer to the caller.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The length that the caller asked for.
    Length(usize),
    /// The necessary length, which CKR_BUFFER_TOO_SMALL reports.
    TooSmall(usize),
    /// The output, which fits into the buffer.
    Bytes(Vec<u8>),
    /// A secret output, which fits into the buffer. Its memory is wiped after the copy.
    Secret(Secret),
}

impl Room {
    /// Returns an answer without output if `needed` bytes do not fit into the buffer. Returns
    /// `None` if they fit.
    pub(crate) fn refuses(self, needed: usize) -> Option<Answer> {
        match self {
            Self::Length => Some(Answer::Length(needed)),
            Self::Bytes(room) if room < needed => Some(Answer::TooSmall(needed)),
            Self::Bytes(_) => None,
        }
    }
}
