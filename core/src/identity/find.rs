//! Finds the key or certificate that a name in a `devid` command means.

use super::device::{Device, Inventory};
use super::entry::{FACTORY, OWN, SOFTWARE, TokenEntry};
use super::{IdentityError, IdentityErrorKind};
use crate::config::SESSIONS;
use crate::key::hex;
use crate::shell::quoted;
use crate::store::devid::DevidStore;
use crate::uri::{ObjectType, Uri};

/// The smallest number of hexadecimal digits that count as a CKA_ID. A shorter text is a label.
const SHORTEST_ID: usize = 8;
/// The largest number of object names that a message lists.
const MOST_TOLD: usize = 12;

/// The name of a key or certificate, as the user gives it.
enum ObjectName<'a> {
    /// A PKCS#11 URI.
    Uri(Uri),
    /// `token/label`. The text after the name of the token and the slash is a label, even if it
    /// contains a slash.
    InToken(&'a str, &'a str),
    /// A label, or a CKA_ID in hexadecimal digits.
    Anywhere(&'a str),
}

impl Device {
    /// Finds the token entry with the name `name`. The name can have these forms:
    ///
    /// - `LABEL` or a CKA_ID; `idev-id` means the factory identity, even if other objects have this
    ///   label;
    /// - `TOKEN/LABEL`;
    /// - a PKCS#11 URI, which finds the objects that it finds in other programs.
    ///
    /// # Errors
    ///
    /// Fails if no object has the name, if several keys have it, or if the URI is wrong.
    pub fn find(&self, name: &str) -> Result<TokenEntry, IdentityError> {
        if Uri::is_uri(name) {
            // An invalid URI is an error before any TPM command is sent.
            uri(name)?;
        }
        self.find_in(&self.inventory(), name)
    }

    /// Finds the token entry with the name `name` in tokens that were read before.
    ///
    /// # Errors
    ///
    /// Fails if no object has the name, if several keys have it, or if the URI is wrong.
    pub fn find_in(&self, inventory: &Inventory, name: &str) -> Result<TokenEntry, IdentityError> {
        let wanted = self.object_name(name, inventory)?;
        match inventory.named(&wanted)[..] {
            [] => Err(inventory.no_such(name, &wanted)),
            [one] => Ok(TokenEntry::clone(one)),
            ref several => Err(inventory.ambiguous(name, several)),
        }
    }

    fn object_name<'a>(
        &self,
        name: &'a str,
        inventory: &Inventory,
    ) -> Result<ObjectName<'a>, IdentityError> {
        if Uri::is_uri(name) {
            return uri(name).map(ObjectName::Uri);
        }
        Ok(match name.split_once('/') {
            Some((token, label)) if self.has_token(token) || inventory.has_token(token) => {
                ObjectName::InToken(token, label)
            }
            _ => ObjectName::Anywhere(name),
        })
    }

    /// Returns true if the configuration has a token with the name `name`.
    fn has_token(&self, name: &str) -> bool {
        [FACTORY, SESSIONS, SOFTWARE].contains(&name) || self.tokens().contains(&name)
    }

    /// Returns the token for a new key with the name `name`, and the label of the key. The default
    /// token is `devid`.
    ///
    /// # Errors
    ///
    /// Fails if the name has no label, or names a token that accepts no keys.
    pub(super) fn place_of_new<'a>(
        &'a self,
        name: &str,
    ) -> Result<(&'a DevidStore, String), IdentityError> {
        let usage = |why: String| IdentityError::new(IdentityErrorKind::Usage, why);
        let (token, label) = match Uri::is_uri(name) {
            true => {
                let (token, label) = uri(name)?.for_new_key().map_err(usage)?;
                (token.unwrap_or_else(|| OWN.into()), label)
            }
            false => match name.split_once('/') {
                Some((token, label)) if self.has_token(token) => (token.into(), label.into()),
                _ => (OWN.into(), name.to_owned()),
            },
        };
        Ok((self.taking_new(&token)?, label))
    }

    /// Returns the store of the token with the name `token`, if it accepts new keys.
    ///
    /// # Errors
    ///
    /// Fails if no token has this name, or if the token accepts no new keys.
    pub(super) fn taking_new(&self, token: &str) -> Result<&DevidStore, IdentityError> {
        if let Some(store) = self.stores().find(|store| store.name() == token) {
            return Ok(store);
        }
        let why = match token {
            FACTORY => "the token of the factory identity cannot be written",
            SESSIONS => "this token holds only session objects of running programs",
            SOFTWARE => "this is not a token; devid provision makes an identity in files",
            _ => "no token has this name",
        };
        let tokens = self.tokens().join(", ");
        Err(IdentityError::refused(format!(
            "{token}: {why}; these tokens accept new keys: {tokens}"
        )))
    }
}

fn uri(text: &str) -> Result<Uri, IdentityError> {
    Uri::parse(text).map_err(|why| IdentityError::new(IdentityErrorKind::Usage, why))
}

impl TokenEntry {
    fn is_in(&self, token: &str) -> bool {
        self.token == token || self.token_label == token
    }

    fn is_called(&self, name: &str) -> bool {
        let is_id = || name.len() >= SHORTEST_ID && hex(&self.id) == name.to_lowercase();
        self.label == name || is_id()
    }

    /// Returns true if a PKCS#11 URI names the key or a certificate of this entry. Ignores the
    /// serial number of the token in the URI.
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

    /// Returns the rank of the entry if several entries have the same name: keys of a token are
    /// first, then software keys, then certificates without key.
    fn rank(&self) -> u8 {
        match (self.has_key(), &self.software) {
            (true, _) => 0,
            (false, Some(_)) => 1,
            (false, None) => 2,
        }
    }

    /// Returns true if no name can distinguish the two entries. They are certificates for the same
    /// key.
    fn is_twin_of(&self, other: &Self) -> bool {
        let told = |one: &Self| (one.token.clone(), one.label.clone(), one.id.clone());
        !self.has_key() && !other.has_key() && told(self) == told(other)
    }

    /// Returns the possible names of the entry, the shortest first.
    fn names(&self) -> [String; 3] {
        let Self { token, label, .. } = self;
        let object_type = match (&self.key, &self.secret) {
            (None, Some(_)) => ObjectType::SecretKey,
            (None, None) if self.software.is_none() => ObjectType::Cert,
            _ => ObjectType::Private,
        };
        let uri = Uri::of_object(token, label, &self.id, object_type);
        [
            format!("{token}/{label}"),
            format!("{token}/{}", hex(&self.id)),
            uri.to_string(),
        ]
    }
}

impl Inventory {
    fn has_token(&self, label: &str) -> bool {
        self.entries.iter().any(|one| one.token_label == label)
    }

    /// Returns all entries that a name can mean, the best first. Of several entries that no name
    /// distinguishes, returns only the first.
    fn named(&self, name: &ObjectName) -> Vec<&TokenEntry> {
        let mut found: Vec<_> = self.entries.iter().collect();
        match name {
            ObjectName::Uri(uri) => {
                found.retain(|one| one.is_named_by(uri) && uri.matches_serial(self.serial(one)))
            }
            ObjectName::InToken(token, name) => {
                found.retain(|one| one.is_in(token) && one.is_called(name));
            }
            ObjectName::Anywhere(name) => {
                found.retain(|one| one.is_called(name));
                if *name == FACTORY && found.iter().any(|one| one.token == FACTORY) {
                    found.retain(|one| one.token == FACTORY);
                }
            }
        }
        let best = found.iter().map(|one| one.rank()).min();
        found.retain(|one| Some(one.rank()) == best);
        found.dedup_by(|next, first| next.is_twin_of(first));
        found
    }

    /// Returns the shortest name that means only the entry `entry`.
    fn name_of(&self, entry: &TokenEntry) -> String {
        let [by_label, by_id, by_uri] = entry.names();
        let token = entry.token.as_str();
        let is_unique = |name: &str| {
            let name = ObjectName::InToken(token, name);
            matches!(self.named(&name)[..], [one] if std::ptr::eq(one, entry))
        };
        match () {
            () if is_unique(&entry.label) => by_label,
            () if is_unique(&hex(&entry.id)) => by_id,
            () => by_uri,
        }
    }

    /// Returns the serial number of the token of an entry. Returns an empty text if the entry is in
    /// no token.
    fn serial(&self, entry: &TokenEntry) -> &str {
        let mut serials = self.serials.iter();
        let of_token = serials.find(|(token, _)| *token == entry.token);
        of_token.map_or("", |(_, serial)| serial)
    }

    fn ambiguous(&self, name: &str, found: &[&TokenEntry]) -> IdentityError {
        let what = match found.iter().all(|one| one.has_key()) {
            true => "keys",
            false => "objects",
        };
        let names = found.iter().map(|one| quoted(&self.name_of(one)));
        let (count, told) = (found.len(), listed(names.collect(), " or "));
        IdentityError::new(
            IdentityErrorKind::Usage,
            format!("{name}: {count} {what} have this name; use one of these names: {told}"),
        )
    }

    fn no_such(&self, text: &str, name: &ObjectName) -> IdentityError {
        let may_hold = |token: &str| match name {
            ObjectName::Uri(uri) => uri.matches_token(&[token]),
            ObjectName::InToken(wanted, _) => *wanted == token,
            ObjectName::Anywhere(_) => true,
        };
        let mut unread = self.faults.iter().chain(&self.unread);
        if let Some((token, fault)) = unread.find(|(token, fault)| {
            // The named object may be in a token that could not be read.
            fault.kind != IdentityErrorKind::NotFound && may_hold(token)
        }) {
            return fault.clone().while_doing(format!("token {token}"));
        }
        let there: Vec<String> = match name {
            ObjectName::InToken(token, _) => {
                let entries = self.entries.iter().filter(|one| one.is_in(token));
                entries.map(|one| quoted(&self.name_of(one))).collect()
            }
            _ => self.entries.iter().map(|one| quoted(&one.label)).collect(),
        };
        let hint = match (there.is_empty(), self.faults.first(), name) {
            (false, ..) => format!("there are {}", listed(there, ", ")),
            (true, _, ObjectName::InToken(token, _)) => format!("the token {token} is empty"),
            (true, Some((_, fault)), _) => fault.text.clone(),
            (true, None, _) => "all tokens are empty".into(),
        };
        IdentityError::new(
            IdentityErrorKind::NotFound,
            format!("{text}: not found; {hint}"),
        )
    }
}

/// Joins object names for a message. Shortens a very long list.
fn listed(mut names: Vec<String>, between: &str) -> String {
    let more = names.len().saturating_sub(MOST_TOLD);
    names.truncate(MOST_TOLD);
    match more {
        0 => names.join(between),
        _ => format!(
            "{}, and {more} more (devid list shows all)",
            names.join(", ")
        ),
    }
}
