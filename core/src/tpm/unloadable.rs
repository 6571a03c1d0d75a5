//! The reason why the TPM does not load a wrapped key, derived from the response code of TPM2_Load.

use super::ResponseCode;
use std::fmt;

/// The reason why the TPM does not load a wrapped key. No reason proves that the TPM was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unloadable {
    /// The parent of the key, according to its file.
    pub parent: Parent,
    /// The reason why the TPM does not load the key.
    pub why: Obstacle,
}

/// A reason why a wrapped key cannot be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// The persistent handle of the parent is empty.
    NoParent,
    /// The object in the persistent handle of the parent is not a storage key.
    NoStorageKey,
    /// The parent, or the hierarchy that derives it, has an authorisation value.
    ParentHasPassword,
    /// Wrong values for the parent count towards lockout, so the empty value was not tried.
    ParentCounts,
    /// The parent needs a policy.
    ParentHasPolicy,
    /// TPM2_Load refused the key: another parent wrapped it, or the file was changed.
    NotWrapped(ResponseCode),
}

/// The parent of a wrapped key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// A storage key in a persistent handle, with the empty authorisation value.
    Persistent(u32),
    /// The storage root key that the owner hierarchy derives, RSA-2048 or P-256. The format "TSS2
    /// PRIVATE KEY" names the owner hierarchy as the parent of such a key.
    Owner {
        /// True for RSA-2048, false for P-256.
        rsa: bool,
    },
}

impl Obstacle {
    /// Returns the reason for a response code of TPM2_Load, or of the command that derives the
    /// parent. Returns `None` if the code does not concern the key or the parent.
    pub(super) fn from_code(code: ResponseCode) -> Option<Self> {
        match code {
            code if code.is_wrong_auth() => Some(Self::ParentHasPassword),
            code if code.asks_for_policy() => Some(Self::ParentHasPolicy),
            code if code.is_missing_handle() => Some(Self::NoParent),
            code if code.is_other_kind() => Some(Self::NoStorageKey),
            code if code.is_unsound_object() => Some(Self::NotWrapped(code)),
            _ => None,
        }
    }
}

impl fmt::Display for Unloadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parent = &self.parent;
        match self.why {
            Obstacle::NoParent => write!(f, "its parent is missing: {parent} is empty"),
            Obstacle::NoStorageKey => {
                write!(
                    f,
                    "its parent is unusable: {parent} contains no storage key"
                )
            }
            Obstacle::ParentHasPassword => write!(f, "its parent asks for a password ({parent})"),
            Obstacle::ParentCounts => write!(
                f,
                "its parent ({parent}) may ask for a password, and a wrong one would count towards \
                 the TPM's lockout, so it is not tried"
            ),
            Obstacle::ParentHasPolicy => write!(f, "its parent asks for a policy ({parent})"),
            Obstacle::NotWrapped(code) => write!(
                f,
                "its file is damaged, or another key than its parent ({parent}) wrapped it: \
                 TPM2_Load answered {code}"
            ),
        }
    }
}

impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Persistent(handle) => write!(f, "handle 0x{handle:08X}"),
            Self::Owner { .. } => f.write_str("the owner hierarchy's storage key"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_a_load_are_told_apart() {
        for (code, why) in [
            (0x98E, Some(Obstacle::ParentHasPassword)),
            (0x9A2, Some(Obstacle::ParentHasPassword)),
            (0x12F, Some(Obstacle::ParentHasPolicy)),
            (0x18B, Some(Obstacle::NoParent)),
            (0x910, Some(Obstacle::NoParent)),
            (0x18A, Some(Obstacle::NoStorageKey)),
            (0x1DF, Some(Obstacle::NotWrapped(ResponseCode(0x1DF)))),
            (0x2C4, Some(Obstacle::NotWrapped(ResponseCode(0x2C4)))),
            (0x155, Some(Obstacle::NotWrapped(ResponseCode(0x155)))),
            // Response codes without the number of a handle, session or parameter.
            (0x09F, Some(Obstacle::NotWrapped(ResponseCode(0x09F)))),
            (0x084, Some(Obstacle::NotWrapped(ResponseCode(0x084)))),
            (0x08B, Some(Obstacle::NoParent)),
            (0x08A, Some(Obstacle::NoStorageKey)),
            (0x08E, Some(Obstacle::ParentHasPassword)),
            (0x921, None),
            (0x902, None),
            (0x922, None),
            (0x101, None),
        ] {
            assert_eq!(Obstacle::from_code(ResponseCode(code)), why, "{code:x}");
        }
    }
}
