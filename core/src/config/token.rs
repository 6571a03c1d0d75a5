//! `[[token]]`: the settings of tokens that store their keys in a key folder.

use super::file::TokenTable;
use super::{ConfigError, OWN, SecretSource};
use std::path::PathBuf;

/// The settings of a token that stores its keys in a key folder: `devid`, or another token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSettings {
    /// The label of the token, unless its security officer changed the label.
    pub name: String,
    /// The key folder. `None`: a folder with the token's name in the state folder.
    pub path: Option<PathBuf>,
    /// True if private keys may be stored in clear. New keys are then stored in clear by default.
    pub allow_file_keys: bool,
    /// True if a PIN may be tried even if a wrong PIN would put the TPM into lockout.
    pub allow_last_try: bool,
    /// The source of the user's PIN, if callers need not enter the PIN.
    pub pin: Option<SecretSource>,
    /// Persistent storage keys that are parents of TSS2 key files. The module uses these parents
    /// with the empty authorisation value, although a wrong value counts towards lockout.
    pub parents: Vec<u32>,
    /// True if RSA decryption keys in files may also sign without padding (CKM_RSA_X_509).
    pub allow_raw_rsa: bool,
    /// True if the token belongs to one service. The owner of its key folder then sees no other
    /// token. The token has an attestation key that only its keys use.
    pub service: bool,
}

impl TokenSettings {
    /// Returns the default settings of the token `name`.
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

/// Returns only the token `devid`, with default settings.
pub(super) fn none() -> Vec<TokenSettings> {
    vec![TokenSettings::named(OWN)]
}

/// Returns all tokens; `devid` is first. Later settings of a token override earlier settings.
pub(super) fn all(written: Vec<TokenTable>) -> Result<Vec<TokenSettings>, ConfigError> {
    let mut tokens = none();
    // The file and the line of each `path` setting, for the error message about equal paths.
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
