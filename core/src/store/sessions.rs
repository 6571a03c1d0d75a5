//! A token without objects, for sessions that hold public keys of their peers.
//!
//! pkcs11-provider uses the first token that requires a login for such keys. If no token has a PIN,
//! this one claims to require a login, and accepts any PIN.

use super::{ScanError, ScanResult, StoreStamp, machine};
use crate::config::SESSIONS;
use std::path::Path;

/// The store of such a token. It asks no TPM.
#[derive(Debug, Clone, Default)]
pub struct SessionStore {
    /// The token of a service beside which it stands alone: then its serial number is for that service,
    /// so that two services see two.
    pub service: Option<String>,
}

impl SessionStore {
    /// A listing without objects.
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
