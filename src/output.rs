//! The convention for output of variable length (PKCS#11 3.0, section 5.2), as types.

pub(crate) use devid_core::tpm::Secret;

/// What the caller has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// No buffer: only the length is asked for.
    Length,
    /// A buffer of so many bytes.
    Bytes(usize),
}

/// What the caller gets.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The length that was asked for.
    Length(usize),
    /// The length that would have been needed: CKR_BUFFER_TOO_SMALL.
    TooSmall(usize),
    /// The output; it fits.
    Bytes(Vec<u8>),
    /// The output; it fits, and is wiped when it was given.
    Secret(Secret),
}

impl Room {
    /// The answer that needs no output, if `needed` bytes have no room.
    pub(crate) fn refuses(self, needed: usize) -> Option<Answer> {
        match self {
            Self::Length => Some(Answer::Length(needed)),
            Self::Bytes(room) if room < needed => Some(Answer::TooSmall(needed)),
            Self::Bytes(_) => None,
        }
    }
}
