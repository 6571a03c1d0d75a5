//! Certificate chains of the device's keys.

use super::ca_certificates::above;
use super::device::{Device, Inventory};
use super::entry::TokenEntry;
use super::{IdentityError, IdentityErrorKind};
use crate::shell::argument;
use crate::x509::Certificate;

impl Device {
    /// The certificate of an entry, then those of its CAs that the device has, the issuer first.
    ///
    /// # Errors
    ///
    /// The key has no certificate.
    pub fn chain(&self, entry: &TokenEntry) -> Result<Vec<Certificate>, IdentityError> {
        self.inventory().chain(entry)
    }
}

impl Inventory {
    /// The chain of an entry, from tokens that were read before.
    ///
    /// # Errors
    ///
    /// Those of [`Device::chain`].
    pub(crate) fn chain(&self, entry: &TokenEntry) -> Result<Vec<Certificate>, IdentityError> {
        let Some(leaf) = entry.certificate() else {
            return Err(IdentityError::new(
                IdentityErrorKind::NotFound,
                format!(
                    "{}: there is no certificate for this key; devid csr {} makes a request, \
                     devid import-cert imports the CA's answer",
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

    /// Known certificates of CAs. They are not trusted for that.
    pub(super) fn ca_certificates(&self) -> Vec<Certificate> {
        let certificates = self.entries.iter().flat_map(|one| &one.certificates);
        let certificates = certificates.map(|placed| &placed.certificate);
        certificates.filter(|one| one.is_ca()).cloned().collect()
    }
}
