//! `[owner]`: certificates of the device's owner for the factory's keys.

use super::beside_state;
use super::section::TomlTable;
use std::path::{Path, PathBuf};

/// The settings of `[owner]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerSettings {
    /// The token that shows the owner's certificates.
    pub show: ShowOwner,
    /// The PEM file with the owner's certificates.
    pub certificates: PathBuf,
}

/// The token that shows the owner's certificates for factory keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShowOwner {
    /// No token shows the owner's certificates. Tokens show the factory's certificates.
    #[default]
    Nowhere,
    /// The token `idev-id` shows the owner's certificates instead of the factory's certificates.
    Instead,
    /// A separate token, `oidevid`, shows the owner's certificates.
    Token,
}

impl ShowOwner {
    const WORDS: [(&str, Self); 3] = [
        ("nowhere", Self::Nowhere),
        ("instead", Self::Instead),
        ("token", Self::Token),
    ];

    /// Returns the value of `[owner] show` in the configuration file.
    pub fn word(self) -> &'static str {
        let mut words = Self::WORDS.iter();
        words
            .find(|(_, one)| *one == self)
            .map_or("", |(word, _)| word)
    }

    pub(super) fn of(mut section: TomlTable<'_>) -> Option<Self> {
        let show = section.one_of("show", &Self::WORDS);
        section.end();
        show
    }
}

impl OwnerSettings {
    /// Creates the settings with the default path of the certificate file. This path is outside of
    /// the state folder, because only the group of the state folder may enter it.
    pub(super) fn new(show: Option<ShowOwner>, state: &Path) -> Self {
        Self {
            show: show.unwrap_or_default(),
            certificates: beside_state(state, "owner").join("certificates.pem"),
        }
    }
}
