//! Stores CA certificates beside the keys. A CA certificate is added with the first certificate
//! that needs it, and removed with the last.

use super::IdentityError;
use super::device::Device;
use super::entry::{ca_label, is_ca_label_of};
use crate::store::ObjectKind;
use crate::store::devid::DevidStore;
use crate::x509::Certificate;
use crate::x509::path::{is_signed_by, names};

/// The certificates that a token shows: those of keys, and CA certificates.
struct TokenCertificates {
    /// The CA certificates, each with its file and its label.
    ca_certificates: Vec<(String, String, Certificate)>,
    leaves: Vec<Certificate>,
}

impl Device {
    /// Stores the CA certificates from `all` that `leaf` needs. `label` is the label of the key.
    /// Returns the subjects of the CA certificates that were added, and the subjects of those that
    /// are not needed.
    pub(super) fn add_ca_certificates(
        &self,
        store: &DevidStore,
        label: &str,
        leaf: &Certificate,
        all: &[Certificate],
    ) -> Result<(Vec<String>, Vec<String>), IdentityError> {
        let mut held = TokenCertificates::of(store)?;
        let needed = above(&[leaf], all);
        let (mut added, mut others) = (Vec::new(), Vec::new());
        for ca in all {
            if !needed.contains(&ca) {
                others.push(ca.subject());
                continue;
            }
            if held.ca_certificates.iter().any(|(_, _, one)| one == ca) {
                continue;
            }
            let named = |number: &usize| {
                let name = ca_label(label, *number);
                held.ca_certificates
                    .iter()
                    .all(|(_, there, _)| *there != name)
            };
            let number = (1..).find(named).unwrap_or_default();
            let name = ca_label(label, number);
            let file = self.keep_certificate(store, ca.clone(), &name, true)?;
            added.push(ca.subject());
            held.ca_certificates.push((file, name, ca.clone()));
        }
        Ok((added, others))
    }

    /// Removes the CA certificates that belong to the key `label`, if only the certificates in
    /// `going` need them. Returns the names of the removed files.
    pub(super) fn drop_ca_certificates(
        &self,
        store: &DevidStore,
        label: &str,
        going: &[&Certificate],
    ) -> Result<Vec<String>, IdentityError> {
        let held = TokenCertificates::of(store)?;
        let all: Vec<Certificate> = held
            .ca_certificates
            .iter()
            .map(|(_, _, one)| one.clone())
            .collect();
        let stays = |leaf: &&Certificate| !going.contains(leaf);
        let leaves: Vec<&Certificate> = held.leaves.iter().filter(stays).collect();
        let (were, are) = (above(going, &all), above(&leaves, &all));
        let mut dropped = Vec::new();
        for (file, name, ca) in &held.ca_certificates {
            if is_ca_label_of(name, label) && were.contains(&ca) && !are.contains(&ca) {
                store.destroy_whole(file)?;
                dropped.push(file.clone());
            }
        }
        Ok(dropped)
    }
}

impl TokenCertificates {
    fn of(store: &DevidStore) -> Result<Self, IdentityError> {
        let mut held = Self {
            ca_certificates: Vec::new(),
            leaves: Vec::new(),
        };
        let listing = store.scan()?;
        if let Some(unread) = listing.unread {
            return Err(IdentityError::failed(unread));
        }
        for shown in &listing.objects {
            match &shown.kind {
                ObjectKind::Certificate(one, about) if one.is_ca() => {
                    let ca = (shown.name.clone(), about.label.clone(), one.clone());
                    held.ca_certificates.push(ca);
                }
                ObjectKind::Certificate(one, _) => held.leaves.push(one.clone()),
                _ => {}
            }
        }
        Ok(held)
    }
}

/// Returns the certificates from `all` that issued a certificate in `leaves`, directly or through
/// other CAs.
pub(super) fn above<'a>(leaves: &[&Certificate], all: &'a [Certificate]) -> Vec<&'a Certificate> {
    let issued = |child: &Certificate, issuer: &Certificate| {
        // If this program does not support the signature algorithm, the signature counts as valid,
        // because a verifier may support the algorithm.
        names(child, issuer) && is_signed_by(child, issuer) != Ok(false)
    };
    let mut found: Vec<&Certificate> = Vec::new();
    loop {
        let next = all.iter().find(|one| {
            let below = |child: &&Certificate| issued(child, one);
            !found.contains(one) && (leaves.iter().any(below) || found.iter().any(below))
        });
        match next {
            Some(one) => found.push(one),
            None => return found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leads_up_from_a_certificate_is_needed() {
        let one = |pem: &[u8]| Certificate::parse_all(pem).unwrap().remove(0);
        let leaf = one(include_bytes!("../../testdata/leaf.pem"));
        let ca = one(include_bytes!("../../testdata/ca.pem"));
        let root = one(include_bytes!("../../testdata/root.pem"));
        let all = [root.clone(), ca.clone()];
        assert_eq!(above(&[&leaf], &all), [&ca, &root]);
        assert_eq!(above(&[&ca], &all), [&root], "it issued itself");
        assert!(above(&[&leaf], &all[..1]).is_empty(), "nothing leads there");
    }
}
