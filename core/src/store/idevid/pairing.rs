//! Finds the key of each certificate, and gives both their label.

use super::location::{CertificateLocation, LocatedCertificate};
use super::{Identity, IdentityScope, IdevidStore, ScanError};
use crate::config::{FACTORY, IdentityAuth};
use crate::key::PublicKey;
use crate::store::key::{Abilities, Given};
use crate::store::{Access, Key, SignError};
use crate::tpm::{AuthValue, PublicArea, Tpm, TpmError, handle};
use crate::x509::Certificate;
use crate::x509::device::NamedDevice;
use log::{debug, info, warn};
use std::sync::Arc;

/// The label of an attestation key. Such a key signs only data that the TPM created, so it is no
/// PKCS#11 key.
const ATTESTATION: &str = "iak";

/// An end-entity certificate during the search for its key.
struct Leaf {
    origin: CertificateLocation,
    certificate: Certificate,
    public: Option<PublicKey>,
    holder: Holder,
    says: StatedRole,
}

/// What basicConstraints and keyUsage of a certificate state: a CA or an end entity. Some makers
/// state it wrongly. So a certificate whose key is in the TPM counts as an end-entity certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StatedRole {
    EndEntity,
    /// The certificate states a CA, and that is plausible. So no handle is read for it.
    Ca,
    /// The certificate states a CA, but issued no certificate that was found. It names a device, or
    /// is the only certificate.
    Doubtful,
}

/// Tells whether the TPM has the private key of a certificate.
enum Holder {
    Nobody,
    /// The TPM has the key, and the key is the key of a factory identity.
    Identity(Arc<Key>, Option<usize>),
    /// The TPM has the key, but the key cannot be an identity. An attestation key is an example.
    Other(Option<u32>),
}

impl IdevidStore {
    /// Returns each certificate with its key, if the TPM has the key. Identities come first. Also
    /// returns the CA certificates, whose keys are not in the TPM. `chain` holds further CA
    /// certificates.
    pub(super) fn paired(
        &self,
        tpm: &Tpm,
        certificates: Vec<LocatedCertificate>,
        chain: Vec<LocatedCertificate>,
    ) -> Result<(Vec<Identity>, Vec<LocatedCertificate>), ScanError> {
        let all = || certificates.iter().chain(&chain).map(|(_, one)| one);
        let issued = |issuer: &Certificate| {
            all().any(|one| one != issuer && one.issuer_der() == issuer.subject_der())
        };
        let alone = certificates.iter().all(|(_, one)| one.is_ca());
        let says = |one: &Certificate| match one.is_ca() {
            false => StatedRole::EndEntity,
            true if !issued(one) && (alone || names_a_device(one)) => StatedRole::Doubtful,
            true => StatedRole::Ca,
        };
        let says: Vec<StatedRole> = certificates.iter().map(|(_, one)| says(one)).collect();
        let leaf = |((origin, certificate), says): (LocatedCertificate, StatedRole)| Leaf {
            origin,
            public: certificate.public_key(),
            certificate,
            holder: Holder::Nobody,
            says,
        };
        let mut leaves: Vec<Leaf> = certificates.into_iter().zip(says).map(leaf).collect();
        if leaves.iter().any(Leaf::is_looked_for) {
            for handle in self.handles(tpm)? {
                if !leaves.iter().any(Leaf::is_looked_for) {
                    break;
                }
                self.pair(tpm, handle, &mut leaves)?;
            }
            self.derivable(tpm, &mut leaves)?;
        }
        let (leaves, authorities): (Vec<_>, Vec<_>) =
            leaves.into_iter().partition(Leaf::is_identity);
        leaves.iter().for_each(Leaf::tell);
        let authorities = authorities
            .into_iter()
            .map(|leaf| (leaf.origin, leaf.certificate));
        Ok((named(leaves), authorities.chain(chain).collect()))
    }

    /// Handles certificates whose keys have no handle but may be derived. The TPM derives such a
    /// key when the key is first needed. If several certificates compete for a key, the TPM derives
    /// the key at once.
    fn derivable(&self, tpm: &Tpm, leaves: &mut [Leaf]) -> Result<(), ScanError> {
        let rivals: Vec<String> = leaves
            .iter()
            .filter(|leaf| leaf.says == StatedRole::EndEntity)
            .filter(|leaf| !matches!(leaf.holder, Holder::Other(_)))
            .filter_map(|leaf| leaf.public.as_ref().map(PublicKey::to_string))
            .collect();
        let alone = leaves.iter().all(|leaf| leaf.says != StatedRole::EndEntity);
        for leaf in leaves.iter_mut().filter(|leaf| leaf.is_looked_for()) {
            // The derivation of a key takes long, so an unlikely certificate is skipped.
            if leaf.says == StatedRole::Doubtful && !(alone && names_a_device(&leaf.certificate)) {
                continue;
            }
            let Some(public) = leaf.public.clone() else {
                continue;
            };
            if leaf.certificate.is_of_attestation_key() {
                leaf.holder = Holder::Other(None);
                continue;
            }
            if self.templates.is_given_up(&public) {
                continue;
            }
            let same = rivals.iter().filter(|rival| **rival == public.to_string());
            let only = leaf.says == StatedRole::EndEntity && same.count() == 1;
            let abilities = abilities(tpm, &public)?;
            let key = Key::derivable(public, self.templates.clone(), abilities);
            match if only { Ok(()) } else { key.prepare(tpm) } {
                Ok(()) => leaf.holder = Holder::Identity(Arc::new(key), None),
                Err(SignError::Tpm(error)) if !is_of_this_key(&error) => return Err(error.into()),
                Err(error) => warn!(
                    "{}: the TPM does not derive the key for the certificate of {}: {error}; the \
                     certificate is shown without a private key",
                    leaf.origin,
                    leaf.certificate.subject()
                ),
            }
        }
        Ok(())
    }

    /// Returns all persistent handles of the TPM. The most likely handles for factory keys come
    /// first.
    fn handles(&self, tpm: &Tpm) -> Result<Vec<u32>, ScanError> {
        let mut handles = tpm.handles(handle::PERSISTENT)?;
        for hinted in self.hints.iter().filter_map(|hint| hint.handle) {
            if !handles.contains(&hinted) {
                warn!("handle 0x{hinted:08X} under [[identity]]: the handle is empty");
            }
        }
        handles.sort_by_key(|handle| {
            let hinted = self.hints.iter().any(|hint| hint.handle == Some(*handle));
            (!hinted, !handle::DEVID_KEYS.contains(handle), *handle)
        });
        Ok(handles)
    }

    /// Pairs the key in the persistent handle `handle` with all certificates of this key.
    fn pair(&self, tpm: &Tpm, handle: u32, leaves: &mut [Leaf]) -> Result<(), ScanError> {
        let (area, resident) = match tpm.persistent_key(handle) {
            Ok(found) => found,
            Err(TpmError::Response(code)) if code.is_definite() => {
                debug!("handle 0x{handle:08X}: {code}");
                return Ok(());
            }
            Err(TpmError::Unsupported(why)) => {
                debug!("handle 0x{handle:08X}: {why}");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let Some(area) = PublicArea::parse(&area) else {
            return Ok(());
        };
        let public = area.key.clone();
        let mut own: Vec<&mut Leaf> = leaves
            .iter_mut()
            .filter(|leaf| leaf.wants_key() && leaf.public.as_ref() == Some(&public))
            .collect();
        if own.is_empty() {
            return Ok(());
        }
        if !area.is_identity() {
            own.iter_mut()
                .for_each(|leaf| leaf.holder = Holder::Other(Some(handle)));
            return Ok(());
        }
        let hint = self.hints.iter().position(|hint| {
            let names_it = hint.handle == Some(handle)
                || hint.handle.is_none() && own.iter().any(|leaf| leaf.origin.is_named_by(hint));
            names_it && hint.auth.is_some()
        });
        let (access, pin) = self.access(hint);
        let key = Key::resident(resident, area, abilities(tpm, &public)?).opened_by(access);
        let key = Arc::new(key);
        own.iter_mut()
            .for_each(|leaf| leaf.holder = Holder::Identity(Arc::clone(&key), pin));
        Ok(())
    }

    /// Returns how a key of this `[[identity]]` entry is authorised. If the key needs a PIN, also
    /// returns the entry.
    fn access(&self, hint: Option<usize>) -> (Access, Option<usize>) {
        match hint.and_then(|hint| self.hints[hint].auth.as_ref()) {
            None => (Access::Open, None),
            Some(IdentityAuth::Pin) => match &self.part {
                IdentityScope::Pin(guarded) if Some(guarded.hint) == hint => {
                    (Access::Login(Arc::clone(&guarded.login)), hint)
                }
                // The key needs a PIN, and another token shows the key.
                _ => (Access::Open, hint),
            },
            Some(IdentityAuth::Secret(source)) => match source.read() {
                Ok(value) => {
                    let last = hint.is_some_and(|hint| self.hints[hint].allow_last_try);
                    let given = Given::new(AuthValue::new(value), last);
                    (Access::Given(Arc::new(given)), None)
                }
                Err(error) => {
                    self.files.note_secret(source, &error);
                    (Access::Hidden, None)
                }
            },
        }
    }
}

/// Returns true if the error is final and concerns only this key. Other identities then remain
/// usable.
fn is_of_this_key(error: &TpmError) -> bool {
    match error {
        TpmError::Response(code) => code.is_definite(),
        other => matches!(
            other,
            TpmError::Unsupported(_) | TpmError::NeedsAuth(_) | TpmError::SeedChanged
        ),
    }
}

/// Returns the abilities of the TPM for a key. Asks the TPM only for RSA keys.
fn abilities(tpm: &Tpm, public: &PublicKey) -> Result<Abilities, TpmError> {
    if let PublicKey::Rsa { .. } = public {
        tpm.algorithms()?;
    }
    Ok(Abilities {
        algorithms: tpm.known_algorithms().clone(),
        pss: tpm.signs_pss(),
    })
}

impl Leaf {
    fn wants_key(&self) -> bool {
        self.public.is_some() && matches!(self.holder, Holder::Nobody)
    }

    /// Returns true if the search must read persistent handles to find the certificate's key.
    fn is_looked_for(&self) -> bool {
        self.wants_key() && self.says != StatedRole::Ca
    }

    /// Returns true if the TPM has the certificate's key, or if the certificate states an end
    /// entity.
    fn is_identity(&self) -> bool {
        self.says == StatedRole::EndEntity || !matches!(self.holder, Holder::Nobody)
    }

    fn tell(&self) {
        let origin = &self.origin;
        if self.says != StatedRole::EndEntity {
            warn!(
                "{origin}: the certificate of {} may be that of a CA, but its key is in this TPM, \
                 so it is shown as an identity",
                self.certificate.subject()
            );
        }
        match &self.holder {
            Holder::Identity(key, _) => match key.handle() {
                Some(handle) => {
                    info!("{origin}: an identity, whose key is in handle 0x{handle:08X}")
                }
                None => info!(
                    "{origin}: an identity, whose key has no handle; the TPM derives the key when \
                     it is needed"
                ),
            },
            Holder::Other(Some(handle)) => {
                info!(
                    "{origin}: the certificate of an attestation key, which is in handle \
                     0x{handle:08X}"
                )
            }
            Holder::Other(None) => info!("{origin}: the certificate of an attestation key"),
            Holder::Nobody if self.public.is_none() => warn!(
                "{origin}: the public key in the certificate of {} has an algorithm or encoding \
                 that is not supported; the certificate is shown without a private key",
                self.certificate.subject()
            ),
            Holder::Nobody => warn!(
                "{origin}: no persistent handle of this TPM holds the key for the certificate of \
                 {}; the certificate is shown without a private key",
                self.certificate.subject()
            ),
        }
    }

    /// Returns the sort key: the key at 0x81020000, other identities by place, certificates without
    /// key, attestation keys.
    fn rank(&self) -> (u8, u32) {
        let index = match self.origin {
            CertificateLocation::File(_) => 0,
            CertificateLocation::Nv(index) => index,
        };
        match &self.holder {
            Holder::Identity(key, _) if key.handle() == Some(handle::IDEVID_KEY) => (0, index),
            Holder::Identity(..) => (1, index),
            Holder::Nobody => (2, index),
            Holder::Other(_) => (3, index),
        }
    }
}

fn names_a_device(certificate: &Certificate) -> bool {
    NamedDevice::of(certificate).serial.is_some()
}

fn named(mut leaves: Vec<Leaf>) -> Vec<Identity> {
    leaves.sort_by_key(Leaf::rank);
    let mut labels: Vec<String> = Vec::new();
    let mut named = Vec::new();
    for Leaf {
        origin,
        certificate,
        public,
        holder,
        ..
    } in leaves
    {
        let base = match (&holder, labels.is_empty(), &public) {
            (Holder::Other(_), _, _) => ATTESTATION.to_owned(),
            (_, true, _) => FACTORY.to_owned(),
            (_, false, Some(public)) => format!("{FACTORY}-{public}"),
            (_, false, None) => format!("{FACTORY}-other"),
        };
        let same = labels.iter().filter(|label| **label == base).count();
        let label = match same {
            0 => base.clone(),
            count => format!("{base}-{}", count + 1),
        };
        labels.push(base);
        let attests = matches!(holder, Holder::Other(_));
        let (key, pin) = match holder {
            Holder::Identity(key, pin) => (Some(key), pin),
            Holder::Nobody | Holder::Other(_) => (None, None),
        };
        named.push(Identity {
            label,
            id: None,
            certificate,
            place: origin.to_string(),
            public,
            key,
            attests,
            pin,
        });
    }
    named
}

#[cfg(test)]
#[path = "pairing_tests.rs"]
mod tests;
