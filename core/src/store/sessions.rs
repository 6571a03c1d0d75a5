//! A token that holds nothing: a place where sessions keep public keys of their peers.
//!
//! pkcs11-provider keeps such keys at the first token that says that a login is required. Where no
//! token has a PIN, this one says so and takes any.

use super::{ScanError, ScanResult, StoreStamp, machine};
use crate::config::SESSIONS;
use std::path::Path;

/// The store of such a token. It asks no TPM.
#[derive(Debug, Clone, Copy)]
pub struct SessionStore;

impl SessionStore {
    /// A listing without objects.
    pub(super) fn scan(&self) -> Result<ScanResult, ScanError> {
        let serial = machine::serial(SESSIONS).map_err(|errno| {
            let path = Path::new(machine::MACHINE).display();
            ScanError::Unread(format!("{path}: {errno}"))
        })?;
        Ok(ScanResult {
            label: SESSIONS.into(),
            serial,
            objects: Vec::new(),
            refused: Vec::new(),
            unread: None,
            stamp: StoreStamp::Sessions,
        })
    }
}
