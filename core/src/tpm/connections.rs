//! Connections to a resource manager. Each connection keeps keys loaded in its own space.

use super::Link;

/// The number of keys that stay loaded behind a resource manager. The least recently used key makes
/// room.
const LOADED: usize = 8;

/// A link, and the keys that are loaded in its space.
pub(super) struct Connection {
    pub(super) link: Option<Link>,
    /// The least recently used first.
    pub(super) loaded: Vec<LoadedKey>,
}

pub(super) struct LoadedKey {
    pub(super) name: Vec<u8>,
    pub(super) handle: u32,
    /// The fault count at loading. After a fault the new connection has an empty space.
    pub(super) faults: u64,
}

impl Connection {
    /// In a forked child: closes the parent's connection.
    pub(super) fn abandon(self) {
        if let Some(link) = self.link {
            link.abandon();
        }
    }
}

/// The connection that has, or will load, the key of this name. The connection moves to the end of
/// the list, since the least recently used comes first.
pub(super) fn connection_for<'a>(
    connections: &'a mut Vec<Connection>,
    name: &[u8],
    keys_in_one: usize,
) -> &'a mut Connection {
    let holds = |connection: &Connection| connection.loaded.iter().any(|one| one.name == name);
    let at = match connections.iter().position(holds) {
        Some(at) => at,
        None if keys_in_one > 1 && !connections.is_empty() => 0,
        None => {
            if connections.len() * keys_in_one >= LOADED {
                connections.remove(0); // the connection ends together with its loaded objects
            }
            connections.push(Connection {
                link: None,
                loaded: Vec::new(),
            });
            connections.len() - 1
        }
    };
    let mut connection = connections.remove(at);
    if let Some(at) = connection.loaded.iter().position(|one| one.name == name) {
        let used = connection.loaded.remove(at);
        connection.loaded.push(used);
    }
    connections.push(connection);
    let last = connections.len() - 1;
    &mut connections[last]
}
