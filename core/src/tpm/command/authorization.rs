//! The authorisation of a command (Part 1, section 19).

use super::policy::PolicySession;
use crate::tpm::{SaltKey, handle};

/// A key or hierarchy that a command uses, with its authorisation.
#[derive(Clone, Copy)]
pub struct AuthHandle<'a> {
    /// Its handle.
    pub handle: u32,
    /// Its name; for a hierarchy the bytes of the handle (Part 1, section 16).
    pub name: &'a [u8],
    /// Its authorisation.
    pub auth: Auth<'a>,
}

/// The confidential inputs of TPM2_Create.
#[derive(Clone, Copy, Default)]
pub struct SensitiveCreate<'a> {
    /// The authorisation value of the new object.
    pub value: &'a [u8],
    /// Data to be sealed.
    pub data: &'a [u8],
}

/// A way to authorise the use of an entity.
#[derive(Clone, Copy)]
pub enum Auth<'a> {
    /// The empty value as a password. No secret crosses the bus.
    Empty,
    /// A value, proven in an HMAC auth session. The session serves one command, and costs one
    /// command more. Secret parameters of the command are encrypted.
    Value(&'a [u8], Option<&'a SaltKey>),
    /// A policy session with a satisfied policy. The command ends the session.
    Policy(&'a PolicySession),
}

impl<'a> Auth<'a> {
    /// Authorisation by this value. The empty value without a salt key needs no auth session.
    pub fn by(value: &'a [u8], salt_key: Option<&'a SaltKey>) -> Self {
        match (value, salt_key) {
            ([], None) => Self::Empty,
            _ => Self::Value(value, salt_key),
        }
    }
}

impl<'a> AuthHandle<'a> {
    /// An entity by handle and name.
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

    /// TPM_RH_ENDORSEMENT with the empty authorisation value.
    pub fn endorsement() -> Self {
        const NAME: [u8; 4] = handle::ENDORSEMENT.to_be_bytes();
        Self {
            handle: handle::ENDORSEMENT,
            name: &NAME,
            auth: Auth::Empty,
        }
    }
}
