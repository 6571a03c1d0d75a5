//! The authorisation of a command (Part 1, section 19).

use super::policy::PolicySession;
use crate::tpm::{SaltKey, handle};

/// A key or hierarchy that a command uses, with its authorisation.
#[derive(Clone, Copy)]
pub struct AuthHandle<'a> {
    /// The handle of the entity.
    pub handle: u32,
    /// The TPM name of the entity. The name of a hierarchy is the bytes of its handle (Part 1,
    /// section 16).
    pub name: &'a [u8],
    /// The authorisation of the entity.
    pub auth: Auth<'a>,
}

/// The confidential inputs of TPM2_Create.
#[derive(Clone, Copy, Default)]
pub struct SensitiveCreate<'a> {
    /// The authorisation value of the new object.
    pub value: &'a [u8],
    /// The data to be sealed.
    pub data: &'a [u8],
}

/// The authorisation for the use of an entity.
#[derive(Clone, Copy)]
pub enum Auth<'a> {
    /// The empty value as a password. No secret crosses the bus.
    Empty,
    /// A value that is proven in an HMAC auth session. The session serves one command, and costs
    /// one more command. Secret parameters of the command are encrypted.
    Value(&'a [u8], Option<&'a SaltKey>),
    /// A policy session with a satisfied policy. The command ends the session.
    Policy(&'a PolicySession),
}

impl<'a> Auth<'a> {
    /// Returns the authorisation by this value. The empty value without a salt key needs no auth
    /// session.
    pub fn by(value: &'a [u8], salt_key: Option<&'a SaltKey>) -> Self {
        match (value, salt_key) {
            ([], None) => Self::Empty,
            _ => Self::Value(value, salt_key),
        }
    }
}

impl<'a> AuthHandle<'a> {
    /// Creates the value for an entity with this handle and name.
    pub fn new(handle: u32, name: &'a [u8], auth: Auth<'a>) -> Self {
        Self { handle, name, auth }
    }

    /// Creates the [`AuthHandle`] for a key whose authorisation value is empty.
    pub fn open(handle: u32, name: &'a [u8]) -> Self {
        Self {
            handle,
            name,
            auth: Auth::Empty,
        }
    }

    /// Creates the [`AuthHandle`] for TPM_RH_OWNER.
    pub fn owner(auth: Auth<'a>) -> Self {
        const NAME: [u8; 4] = handle::OWNER.to_be_bytes();
        Self {
            handle: handle::OWNER,
            name: &NAME,
            auth,
        }
    }

    /// Creates the [`AuthHandle`] for TPM_RH_PLATFORM.
    #[cfg(feature = "manufacture")]
    pub fn platform(auth: Auth<'a>) -> Self {
        const NAME: [u8; 4] = handle::PLATFORM.to_be_bytes();
        Self {
            handle: handle::PLATFORM,
            name: &NAME,
            auth,
        }
    }

    /// Creates the [`AuthHandle`] for TPM_RH_NULL, whose authorisation value is always empty.
    pub fn null() -> Self {
        const NAME: [u8; 4] = handle::NULL.to_be_bytes();
        Self {
            handle: handle::NULL,
            name: &NAME,
            auth: Auth::Empty,
        }
    }

    /// Creates the [`AuthHandle`] for TPM_RH_ENDORSEMENT with the empty authorisation value.
    pub fn endorsement() -> Self {
        const NAME: [u8; 4] = handle::ENDORSEMENT.to_be_bytes();
        Self {
            handle: handle::ENDORSEMENT,
            name: &NAME,
            auth: Auth::Empty,
        }
    }
}
