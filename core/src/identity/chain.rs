//! Certificate chains for the keys of the device.

use super::ca_certificates::above;
use super::device::{Device, Inventory};
use super::entry::TokenEntry;
use super::{IdentityError, IdentityErrorKind};
use crate::shell::argument;
use crate::x509::Certificate;

impl Device {
    /// Returns the certificate of a token entry, then the CA certificates above it that the device
    /// has, from the issuer upwards.
    ///
    /// # Errors
    ///
    /// Fails if the key has no certificate.
    pub fn chain(&self, entry: &TokenEntry) -> Result<Vec<Certificate>, IdentityError> {
        self.inventory().chain(entry)
    }
}

impl Inventory {
    /// Returns the certificate chain of a token entry. Uses the tokens that were read before.
    ///
    /// # Errors
    ///
    /// Fails if the key has no certificate.
    pub(crate) fn chain(&self, entry: &TokenEntry) -> Result<Vec<Certificate>, IdentityError> {
        let Some(leaf) = entry.certificate() else {
            return Err(IdentityError::new(
                IdentityErrorKind::NotFound,
                format!(
                    "{}: this key has no certificate; devid csr {} makes a request, devid \
                     import-cert imports the CA's answer",
                    entry.label,
                    argument(&entry.label)
                ),
            ));
        };
        let known = self.ca_certificates();
        let mut chain = vec![leaf.clone()];
        let issuers = above(&[leaf], &known).into_iter();
        chain.extend(issuers.filter(|one| *one != leaf).cloned());
        Ok(chain)
    }

    /// Returns the CA certificates in the tokens. A CA certificate in a token need not be trusted.
    pub(super) fn ca_certificates(&self) -> Vec<Certificate> {
        let certificates = self.entries.iter().flat_map(|one| &one.certificates);
        let certificates = certificates.map(|placed| &placed.certificate);
        certificates.filter(|one| one.is_ca()).cloned().collect()
    }
}
