//! `[owner]`: certificates of the device's owner for the factory's keys.

use super::beside_state;
use super::section::TomlTable;
use std::path::{Path, PathBuf};

/// The settings of `[owner]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerSettings {
    /// The token that shows the certificates.
    pub show: ShowOwner,
    /// The file that holds them, PEM.
    pub certificates: PathBuf,
}

/// The token on which programs find the owner's certificates for the factory's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShowOwner {
    /// None: tokens show the factory's certificates.
    #[default]
    Nowhere,
    /// The factory's token, in place of the factory's certificates.
    Instead,
    /// A separate token, `oidevid`.
    Token,
}

impl ShowOwner {
    const WORDS: [(&str, Self); 3] = [
        ("nowhere", Self::Nowhere),
        ("instead", Self::Instead),
        ("token", Self::Token),
    ];

    /// The word of the setting.
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
    /// The default file is in a public folder, since only its group may enter the state folder.
    pub(super) fn new(show: Option<ShowOwner>, state: &Path) -> Self {
        Self {
            show: show.unwrap_or_default(),
            certificates: beside_state(state, "owner").join("certificates.pem"),
        }
    }
}
