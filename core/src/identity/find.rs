//! What is meant by a name that somebody gives to `devid`.

use super::device::{Contents, Device};
use super::entry::{Entity, FACTORY};
use super::{Fault, FaultKind};
use crate::key::hex;

impl Device {
    /// What bears this label, or this CKA_ID in hexadecimal digits; `token/label` says in which
    /// token. `idev-id` alone is the factory's, whatever else is called so.
    ///
    /// # Errors
    ///
    /// Nothing bears it, or several keys do.
    pub fn find(&self, name: &str) -> Result<Entity, Fault> {
        let contents = self.contents();
        let mut found: Vec<_> = contents.entities.iter().collect();
        found.retain(|one| one.is_called(name));
        if name == FACTORY && found.iter().any(|one| one.token == FACTORY) {
            found.retain(|one| one.token == FACTORY);
        }
        let Some(first) = found.first() else {
            return Err(contents.no_such(name));
        };
        let others = found.iter().skip(1);
        match others
            .clone()
            .find(|one| one.key.is_some() && first.key.is_some())
        {
            None => Ok(Entity::clone(first)),
            Some(other) => Err(two_keys(name, first, other)),
        }
    }
}

fn two_keys(name: &str, one: &Entity, other: &Entity) -> Fault {
    let told = |entity: &Entity| match one.token == other.token {
        true => hex(&entity.id),
        false => format!("{}/{}", entity.token, entity.label),
    };
    let how = match one.token == other.token {
        true => "its id",
        false => "its token",
    };
    let (one, other) = (told(one), told(other));
    Fault::new(
        FaultKind::Usage,
        format!("{name}: two keys are called so; say which by {how}: {one} or {other}"),
    )
}

impl Entity {
    /// Whether it is meant by this name.
    fn is_called(&self, name: &str) -> bool {
        let in_token = |label: &str| self.label == label;
        match name.split_once('/') {
            Some((token, label)) if token == self.token => in_token(label),
            _ => in_token(name) || (name.len() >= 8 && hex(&self.id) == name.to_lowercase()),
        }
    }
}

impl Contents {
    fn no_such(&self, name: &str) -> Fault {
        let mut unread = self.faults.iter().chain(&self.unread);
        if let Some((token, fault)) = unread.find(|(_, fault)| {
            // What cannot be read may hold it.
            fault.kind != FaultKind::NotFound
        }) {
            return fault.clone().while_doing(format!("token {token}"));
        }
        let labels: Vec<&str> = self.entities.iter().map(|one| one.label.as_str()).collect();
        let why = self.faults.first();
        let hint = match (labels.is_empty(), why) {
            (true, Some((_, fault))) => fault.text.clone(),
            (true, None) => "the tokens are empty".into(),
            (false, _) => format!("there are {}", labels.join(", ")),
        };
        Fault::new(FaultKind::NotFound, format!("{name}: not found; {hint}"))
    }
}
