//! What is meant by a name that somebody gives to `devid`.

use super::device::{Device, Inventory};
use super::entry::{FACTORY, TokenEntry};
use super::{IdentityError, IdentityErrorKind};
use crate::key::hex;
use crate::uri::{ObjectType, Uri};

impl Device {
    /// What bears this label, or this CKA_ID in hexadecimal digits; `token/label` says in which
    /// token. `idev-id` alone is the factory's, whatever else is called so. A PKCS#11 URI names what
    /// a program would find by it.
    ///
    /// # Errors
    ///
    /// Nothing bears it, or several keys do, or the URI is wrong.
    pub fn find(&self, name: &str) -> Result<TokenEntry, IdentityError> {
        if Uri::is_uri(name) {
            return self.find_by_uri(name);
        }
        let inventory = self.inventory();
        let mut found: Vec<_> = inventory.entries.iter().collect();
        found.retain(|one| one.is_called(name));
        if name == FACTORY && found.iter().any(|one| one.token == FACTORY) {
            found.retain(|one| one.token == FACTORY);
        }
        let Some(first) = found.first() else {
            return Err(inventory.no_such(name));
        };
        let others = found.iter().skip(1);
        match others.clone().find(|one| one.has_key() && first.has_key()) {
            None => Ok(TokenEntry::clone(first)),
            Some(other) => Err(two_keys(name, first, other)),
        }
    }

    /// A key goes before certificates that the URI names as well.
    fn find_by_uri(&self, text: &str) -> Result<TokenEntry, IdentityError> {
        let uri =
            Uri::parse(text).map_err(|why| IdentityError::new(IdentityErrorKind::Usage, why))?;
        let inventory = self.inventory();
        let mut found: Vec<_> = inventory.entries.iter().collect();
        found.retain(|one| one.is_named_by(&uri) && uri.matches_serial(inventory.serial(one)));
        if found.iter().any(|one| one.has_key()) {
            found.retain(|one| one.has_key());
        }
        match found[..] {
            [] => Err(inventory.no_such(text)),
            [one] => Ok(TokenEntry::clone(one)),
            [first, other, ..] => Err(two_keys(text, first, other)),
        }
    }
}

fn two_keys(name: &str, one: &TokenEntry, other: &TokenEntry) -> IdentityError {
    let told = |entry: &TokenEntry| match one.token == other.token {
        true => hex(&entry.id),
        false => format!("{}/{}", entry.token, entry.label),
    };
    let how = match one.token == other.token {
        true => "its id",
        false => "its token",
    };
    let what = match one.has_key() {
        true => "keys",
        false => "objects",
    };
    let (one, other) = (told(one), told(other));
    IdentityError::new(
        IdentityErrorKind::Usage,
        format!("{name}: two {what} are called so; say which by {how}: {one} or {other}"),
    )
}

impl TokenEntry {
    /// Whether it is meant by this name.
    fn is_called(&self, name: &str) -> bool {
        let in_token = |label: &str| self.label == label;
        match name.split_once('/') {
            Some((token, label)) if token == self.token => in_token(label),
            _ => in_token(name) || (name.len() >= 8 && hex(&self.id) == name.to_lowercase()),
        }
    }
}

impl TokenEntry {
    /// Whether a PKCS#11 URI names its key or one of its certificates; the token's serial number is
    /// not looked at.
    fn is_named_by(&self, uri: &Uri) -> bool {
        let is_private = self.key.is_some() || self.software.is_some();
        let by_key = match uri.object_type() {
            None => is_private || self.secret.is_some(),
            Some(ObjectType::Private) => is_private,
            Some(ObjectType::SecretKey) => self.secret.is_some(),
            Some(ObjectType::Public) => self.public.is_some(),
            Some(ObjectType::Cert | ObjectType::Data) => false,
        };
        let by_certificate = matches!(uri.object_type(), None | Some(ObjectType::Cert));
        let mut certificates = self.certificates.iter();
        uri.matches_token(&[&self.token, &self.token_label])
            && (by_key && uri.matches_object(&self.label, &self.id)
                || by_certificate
                    && certificates.any(|one| uri.matches_object(&one.label, &one.id)))
    }
}

impl Inventory {
    /// The serial number of the token that shows it; empty if it is in no token.
    fn serial(&self, entry: &TokenEntry) -> &str {
        let mut serials = self.serials.iter();
        let of_token = serials.find(|(token, _)| *token == entry.token);
        of_token.map_or("", |(_, serial)| serial)
    }

    fn no_such(&self, name: &str) -> IdentityError {
        let mut unread = self.faults.iter().chain(&self.unread);
        if let Some((token, fault)) = unread.find(|(_, fault)| {
            // What cannot be read may hold it.
            fault.kind != IdentityErrorKind::NotFound
        }) {
            return fault.clone().while_doing(format!("token {token}"));
        }
        let labels: Vec<&str> = self.entries.iter().map(|one| one.label.as_str()).collect();
        let why = self.faults.first();
        let hint = match (labels.is_empty(), why) {
            (true, Some((_, fault))) => fault.text.clone(),
            (true, None) => "the tokens are empty".into(),
            (false, _) => format!("there are {}", labels.join(", ")),
        };
        IdentityError::new(
            IdentityErrorKind::NotFound,
            format!("{name}: not found; {hint}"),
        )
    }
}
