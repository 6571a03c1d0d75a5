//! `[[token]]`: the tokens with a key folder.

use super::file::TokenTable;
use super::{ConfigError, OWN, SecretSource};
use std::path::PathBuf;

/// A token with a key folder: `devid`, or a further one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSettings {
    /// Its label, unless its security officer gave it another.
    pub name: String,
    /// The key folder; below the state folder under the token's name if it says nothing.
    pub path: Option<PathBuf>,
    /// Whether private keys may lie there in clear; new ones then do, unless asked otherwise.
    pub allow_file_keys: bool,
    /// Whether a PIN may be tried that would put the TPM into lockout if it is wrong.
    pub allow_last_try: bool,
    /// Where the user's PIN is, if callers need not bring it.
    pub pin: Option<SecretSource>,
    /// Persistent storage keys below which files hold keys, and to which the empty authorisation
    /// value may be shown although a wrong one counts towards lockout.
    pub parents: Vec<u32>,
    /// Whether RSA keys of files that decrypt also sign without padding (CKM_RSA_X_509).
    pub allow_raw_rsa: bool,
    /// Whether it is the token of one service: who owns its folder sees no other token, and its keys have
    /// an attestation key of their own.
    pub service: bool,
}

impl TokenSettings {
    /// Of a token that the configuration says nothing about.
    fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            path: None,
            allow_file_keys: false,
            allow_last_try: false,
            pin: None,
            parents: Vec::new(),
            allow_raw_rsa: false,
            service: false,
        }
    }

    fn overlay(&mut self, later: TokenTable) {
        self.path = later.path.or(self.path.take());
        self.allow_file_keys = later.allow_file_keys.unwrap_or(self.allow_file_keys);
        self.allow_last_try = later.allow_last_try.unwrap_or(self.allow_last_try);
        self.pin = later.pin.or(self.pin.take());
        self.parents.extend(later.parents);
        self.allow_raw_rsa = later.allow_raw_rsa.unwrap_or(self.allow_raw_rsa);
        self.service = later.service.unwrap_or(self.service);
    }
}

/// `devid`, of which nothing is said.
pub(super) fn none() -> Vec<TokenSettings> {
    vec![TokenSettings::named(OWN)]
}

/// `devid` first, whatever the files say of it. What is said of a token later holds.
pub(super) fn all(written: Vec<TokenTable>) -> Result<Vec<TokenSettings>, ConfigError> {
    let mut tokens = none();
    // Where each path was written.
    let mut places = vec![String::new()];
    for token in written {
        let place = token.place.clone();
        let at = match tokens.iter().position(|known| known.name == token.name) {
            Some(at) => at,
            None => {
                tokens.push(TokenSettings::named(&token.name));
                places.push(String::new());
                tokens.len() - 1
            }
        };
        if token.path.is_some() {
            places[at] = place;
        }
        tokens[at].overlay(token);
    }
    for (n, token) in tokens.iter().enumerate() {
        let same = |other: &&TokenSettings| other.path.is_some() && other.path == token.path;
        if let Some(other) = tokens[..n].iter().find(same) {
            return Err(ConfigError {
                place: places[n].clone(),
                what: format!(
                    "[[token]] path: {} and {} have the same path",
                    other.name, token.name
                ),
                unread: false,
                distrusted: false,
            });
        }
    }
    Ok(tokens)
}
