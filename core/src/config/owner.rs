//! `[owner]`: certificates of the device's owner for the factory's keys.

use super::beside_state;
use super::section::TomlTable;
use std::path::{Path, PathBuf};

/// The settings of `[owner]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerSettings {
    /// The token that shows the certificates.
    pub show: ShowOwner,
    /// The PEM file with the certificates.
    pub certificates: PathBuf,
}

/// The token on which programs find the owner's certificates for the factory's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShowOwner {
    /// No token shows them. Tokens show the factory's certificates.
    #[default]
    Nowhere,
    /// The factory's token shows them instead of the factory's certificates.
    Instead,
    /// A separate token with the name `oidevid` shows them.
    Token,
}

impl ShowOwner {
    const WORDS: [(&str, Self); 3] = [
        ("nowhere", Self::Nowhere),
        ("instead", Self::Instead),
        ("token", Self::Token),
    ];

    /// Returns the word of the setting in the configuration file.
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
    /// Creates the settings. The default file is in a public folder, because only the group of the
    /// state folder may enter the state folder.
    pub(super) fn new(show: Option<ShowOwner>, state: &Path) -> Self {
        Self {
            show: show.unwrap_or_default(),
            certificates: beside_state(state, "owner").join("certificates.pem"),
        }
    }
}
