//! Types for output of variable length (PKCS#11 3.0, section 5.2).

pub(crate) use devid_core::tpm::Secret;

/// The space in the caller's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// No buffer: the call asks for the length only.
    Length,
    /// A buffer of this many bytes.
    Bytes(usize),
}

/// The answer to the caller.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The length that the caller asked for.
    Length(usize),
    /// The necessary length, for CKR_BUFFER_TOO_SMALL.
    TooSmall(usize),
    /// The output, which fits into the buffer.
    Bytes(Vec<u8>),
    /// A secret output, which fits into the buffer. Its memory is wiped after the copy.
    Secret(Secret),
}

impl Room {
    /// The answer without output, if `needed` bytes do not fit.
    pub(crate) fn refuses(self, needed: usize) -> Option<Answer> {
        match self {
            Self::Length => Some(Answer::Length(needed)),
            Self::Bytes(room) if room < needed => Some(Answer::TooSmall(needed)),
            Self::Bytes(_) => None,
        }
    }
}
