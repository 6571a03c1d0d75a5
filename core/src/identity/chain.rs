//! The certificates that a device shows with its own.

use super::ca_certificates::above;
use super::device::Device;
use super::entry::TokenEntry;
use super::{IdentityError, IdentityErrorKind};
use crate::shell::argument;
use crate::x509::Certificate;

impl Device {
    /// The certificate of an entry, then those of the CAs above it that the device has, the issuer
    /// first.
    ///
    /// # Errors
    ///
    /// There is no certificate for the key.
    pub fn chain(&self, entry: &TokenEntry) -> Result<Vec<Certificate>, IdentityError> {
        let Some(leaf) = entry.certificate() else {
            return Err(IdentityError::new(
                IdentityErrorKind::NotFound,
                format!(
                    "{}: there is no certificate for this key; devid csr {} makes a request for one, \
                     devid import-cert takes what the CA answers",
                    entry.label,
                    argument(&entry.label)
                ),
            ));
        };
        let known = self.known_ca_certificates();
        let mut chain = vec![leaf.clone()];
        let issuers = above(&[leaf], &known).into_iter();
        chain.extend(issuers.filter(|one| *one != leaf).cloned());
        Ok(chain)
    }
}
