//! The transports of the tests.

/// The transport of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The module's own transport.
    Ours,
    /// The transport of libtss2.
    Tctildr,
}

impl Link {
    /// Returns the setting `tcti` for this transport.
    pub fn tcti(self, tcti: &str) -> String {
        match (self, tcti.split_once(':')) {
            (Link::Tctildr, Some((name, conf))) => format!("libtss2-tcti-{name}.so.0:{conf}"),
            _ => tcti.to_owned(),
        }
    }
}
