//! Connections to a resource manager. Each connection keeps keys loaded in its own space.

use super::Link;

/// The number of keys that stay loaded behind a resource manager. Another key replaces the least
/// recently used key.
const LOADED: usize = 8;

/// A link to the TPM, and the keys that are loaded over this link.
pub(super) struct Connection {
    pub(super) link: Option<Link>,
    /// The loaded keys, in the order of their last use: the oldest use first.
    pub(super) loaded: Vec<LoadedKey>,
}

pub(super) struct LoadedKey {
    pub(super) name: Vec<u8>,
    pub(super) handle: u32,
    /// The count of transport faults when the key was loaded. After a fault the new connection has
    /// an empty space.
    pub(super) faults: u64,
}

impl Connection {
    /// Closes the parent's connection in a forked child, without sending a byte.
    pub(super) fn abandon(self) {
        if let Some(link) = self.link {
            link.abandon();
        }
    }
}

/// Returns the connection that has the key of this name loaded, or that will load it. Moves this
/// connection to the end of the list, because the list begins with the least recently used
/// connection.
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
                connections.remove(0); // its loaded objects are flushed
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
