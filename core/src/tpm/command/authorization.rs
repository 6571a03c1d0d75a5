//! What authorises a command (Part 1, section 19).

use super::policy::PolicySession;
use crate::tpm::{SaltKey, handle};

/// What a command uses, and what proves that it may: a key, or a hierarchy.
#[derive(Clone, Copy)]
pub struct AuthHandle<'a> {
    /// Its handle.
    pub handle: u32,
    /// Its name; of a hierarchy the handle's bytes (Part 1, section 16).
    pub name: &'a [u8],
    /// The proof.
    pub auth: Auth<'a>,
}

/// What TPM2_Create is told that nobody else is to know.
#[derive(Clone, Copy, Default)]
pub struct SensitiveCreate<'a> {
    /// The authorisation value of the new object.
    pub value: &'a [u8],
    /// Data to be sealed.
    pub data: &'a [u8],
}

/// How the use of something is authorised.
#[derive(Clone, Copy)]
pub enum Auth<'a> {
    /// By the empty value, as a password: nothing secret crosses the bus.
    Empty,
    /// By a value that is proven in an HMAC auth session, made for the command and gone with it:
    /// one command more. Secrets among the command's parameters are encrypted.
    Value(&'a [u8], Option<&'a SaltKey>),
    /// By a policy session whose policy the TPM has been told, and that the command ends.
    Policy(&'a PolicySession),
}

impl<'a> Auth<'a> {
    /// By this value; by the empty one without auth session, unless there is a salt for one.
    pub fn by(value: &'a [u8], salt_key: Option<&'a SaltKey>) -> Self {
        match (value, salt_key) {
            ([], None) => Self::Empty,
            _ => Self::Value(value, salt_key),
        }
    }
}

impl<'a> AuthHandle<'a> {
    /// Something by handle and name.
    pub fn new(handle: u32, name: &'a [u8], auth: Auth<'a>) -> Self {
        Self { handle, name, auth }
    }

    /// A key whose authorisation value is empty.
    pub fn open(handle: u32, name: &'a [u8]) -> Self {
        Self {
            handle,
            name,
            auth: Auth::Empty,
        }
    }

    /// TPM_RH_OWNER.
    pub fn owner(auth: Auth<'a>) -> Self {
        const NAME: [u8; 4] = handle::OWNER.to_be_bytes();
        Self {
            handle: handle::OWNER,
            name: &NAME,
            auth,
        }
    }

    /// TPM_RH_PLATFORM.
    #[cfg(feature = "manufacture")]
    pub fn platform(auth: Auth<'a>) -> Self {
        const NAME: [u8; 4] = handle::PLATFORM.to_be_bytes();
        Self {
            handle: handle::PLATFORM,
            name: &NAME,
            auth,
        }
    }

    /// TPM_RH_NULL, whose authorisation value is always empty.
    pub fn null() -> Self {
        const NAME: [u8; 4] = handle::NULL.to_be_bytes();
        Self {
            handle: handle::NULL,
            name: &NAME,
            auth: Auth::Empty,
        }
    }

    /// TPM_RH_ENDORSEMENT, its authorisation value empty.
    pub fn endorsement() -> Self {
        const NAME: [u8; 4] = handle::ENDORSEMENT.to_be_bytes();
        Self {
            handle: handle::ENDORSEMENT,
            name: &NAME,
            auth: Auth::Empty,
        }
    }
}
