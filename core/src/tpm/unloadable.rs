//! Why the TPM does not load a wrapped key, told from what it answers to TPM2_Load.

use super::ResponseCode;
use std::fmt;

/// Why the TPM does not load a wrapped key. None of it says that the TPM is another than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unloadable {
    /// What wraps the key, as its file has it.
    pub parent: Parent,
    /// What is wrong.
    pub why: Obstacle,
}

/// What keeps a wrapped key from being loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// The parent's handle is empty.
    NoParent,
    /// What is in the parent's handle wraps no keys.
    NoStorageKey,
    /// The parent, or the hierarchy that derives it, has an authorisation value.
    ParentHasPassword,
    /// True if the parent has one is not tried: a wrong value would count towards lockout.
    ParentCounts,
    /// The parent is used by a policy only.
    ParentHasPolicy,
    /// The parent did not wrap the key, or one of its halves was changed since.
    NotWrapped(ResponseCode),
}

/// The key that wraps another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// A storage key at a persistent handle, its authorisation value empty.
    Persistent(u32),
    /// The storage root key that the owner hierarchy derives, RSA-2048 or P-256, as the format
    /// "TSS2 PRIVATE KEY" has it for keys whose parent is the hierarchy.
    Owner {
        /// RSA-2048 rather than P-256.
        rsa: bool,
    },
}

impl Obstacle {
    /// What an answer to TPM2_Load, or to the making of the parent, says; `None` for one that says
    /// nothing of the key.
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
                    "its parent is none: {parent} holds no key that wraps others"
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
                "its file is damaged, or another key than its parent ({parent}) wrapped it: TPM2_Load \
                 answered {code}"
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
            // Without what they are about.
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
