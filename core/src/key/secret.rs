//! Types of secret keys.

/// The maximum size of a secret key, in bytes.
pub const LONGEST_SECRET_KEY: usize = 1024;

/// The type of a secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKeyType {
    /// A key of 128, 192 or 256 bits for AES.
    Aes,
    /// A key of arbitrary bytes, for HMAC (CKK_GENERIC_SECRET).
    GenericSecret,
}

impl SecretKeyType {
    const ALL: [Self; 2] = [Self::Aes, Self::GenericSecret];

    /// Returns the word for this type in files and in `devid`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Aes => "aes",
            Self::GenericSecret => "generic-secret",
        }
    }

    /// Returns the type for a result of [`Self::word`].
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.word() == word)
    }

    /// Returns true if a key of this type can have this length in bytes.
    pub fn takes(self, length: usize) -> bool {
        match self {
            Self::Aes => matches!(length, 16 | 24 | 32),
            Self::GenericSecret => (1..=LONGEST_SECRET_KEY).contains(&length),
        }
    }
}
