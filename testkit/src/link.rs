//! The ways to a TPM that stories take.

/// How the module reaches the TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// By a transport of its own.
    Ours,
    /// By that of libtss2 of this name.
    Tctildr,
}

impl Link {
    /// The setting `tcti` over this link.
    pub fn tcti(self, tcti: &str) -> String {
        match (self, tcti.split_once(':')) {
            (Link::Tctildr, Some((name, conf))) => format!("libtss2-tcti-{name}.so.0:{conf}"),
            _ => tcti.to_owned(),
        }
    }
}
