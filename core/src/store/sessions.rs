//! A token that holds nothing: a place where sessions keep public keys of their peers.
//!
//! pkcs11-provider keeps such keys at the first token that says that a login is required. Where no
//! token has a PIN, this one says so and takes any.

use super::{KeyStore, Listing, LookError, Stamp, machine};
use crate::tpm::Tpm;
use std::path::Path;
use std::sync::Arc;

const LABEL: &str = "sessions";

/// The store of such a token. It asks no TPM.
#[derive(Debug)]
pub struct SessionStore;

impl KeyStore for SessionStore {
    fn stamp(&self) -> Stamp {
        Stamp::Sessions
    }

    fn look(&self) -> Result<Listing, LookError> {
        let serial = machine::serial(LABEL).map_err(|errno| {
            let path = Path::new(machine::MACHINE).display();
            LookError::Unread(format!("{path}: {errno}"))
        })?;
        Ok(Listing {
            label: LABEL.into(),
            serial,
            objects: Vec::new(),
            refused: Vec::new(),
            unread: None,
            stamp: Stamp::Sessions,
        })
    }

    fn for_child(&self, _tpm: &Arc<Tpm>) -> Box<dyn KeyStore> {
        Box::new(Self)
    }

    fn is_for_sessions(&self) -> bool {
        true
    }
}
