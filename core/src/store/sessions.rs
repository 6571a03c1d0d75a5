//! A token without stored objects, for sessions that hold public keys of their peers.
//!
//! For public keys of peers, pkcs11-provider uses the first token that requires a login. If no
//! token has a PIN, this token claims to require a login, and accepts every PIN.

use super::{ScanError, ScanResult, StoreStamp, machine};
use crate::config::SESSIONS;
use std::path::Path;

/// The store of a token that holds only session objects. It sends no TPM command.
#[derive(Debug, Clone, Default)]
pub struct SessionStore {
    /// The name of the service whose token is the only other token. The serial number then depends
    /// on this name, so that two services see different tokens.
    pub service: Option<String>,
}

impl SessionStore {
    /// Returns a scan result without objects.
    pub(super) fn scan(&self) -> Result<ScanResult, ScanError> {
        let what = match &self.service {
            Some(service) => format!("{SESSIONS} {service}"),
            None => SESSIONS.into(),
        };
        let serial = machine::serial(&what).map_err(|errno| {
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
