//! `[owner]`: certificates of the device's owner for the factory's keys.

use super::beside_state;
use super::section::TomlTable;
use std::path::{Path, PathBuf};

/// The settings of `[owner]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerSettings {
    /// Where the certificates are shown.
    pub show: ShowOwner,
    /// The file that holds them, PEM.
    pub certificates: PathBuf,
}

/// Where a program finds the owner's certificates for the factory's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShowOwner {
    /// Nowhere: tokens show the factory's certificates.
    #[default]
    Nowhere,
    /// On the factory's token, in the place of the factory's certificates.
    Instead,
    /// On a token of their own, `oidevid`.
    Token,
}

impl ShowOwner {
    const WORDS: [(&str, Self); 3] = [
        ("nowhere", Self::Nowhere),
        ("instead", Self::Instead),
        ("token", Self::Token),
    ];

    /// As the setting has it.
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
    /// In a folder that all may enter: the state folder is for the users of its group alone.
    pub(super) fn new(show: Option<ShowOwner>, state: &Path) -> Self {
        Self {
            show: show.unwrap_or_default(),
            certificates: beside_state(state, "owner").join("certificates.pem"),
        }
    }
}
