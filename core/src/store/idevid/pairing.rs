//! Which key each certificate is for, and what the pairs are called.

use super::places::Origin;
use super::{Identity, IdevidStore, LABEL, LookError};
use crate::certificate::Certificate;
use crate::key::PublicKey;
use crate::store::Key;
use crate::tpm::{PublicArea, Tpm, TpmError};
use log::{debug, info, warn};
use std::sync::Arc;

const PERSISTENT: u32 = 0x8100_0000;
/// The IDevID key's own handle (TCG, TPM 2.0 Provisioning Guidance, section 7.8).
const IDEVID_HANDLE: u32 = 0x8102_0000;
/// Handles of device identities: the likeliest, and read first.
const DEVID_HANDLES: std::ops::RangeInclusive<u32> = 0x8102_0000..=0x8102_FFFF;
/// The label of an attestation key: it signs only what the TPM made, so nothing for PKCS#11.
const ATTESTATION: &str = "iak";

/// An end-entity certificate on its way to its key.
struct Leaf {
    origin: Origin,
    certificate: Certificate,
    public: Option<PublicKey>,
    holder: Holder,
}

/// What holds the private key of a certificate.
enum Holder {
    Nobody,
    /// A key that is an identity.
    Identity(Arc<Key>),
    /// A key that only attests, or does something else that an identity must not.
    Other(u32),
}

impl IdevidStore {
    /// Each certificate with the key behind it, if the TPM has that; identities first.
    pub(super) fn paired(
        &self,
        tpm: &Tpm,
        leaves: Vec<(Origin, Certificate)>,
    ) -> Result<Vec<Identity>, LookError> {
        let leaf = |(origin, certificate): (Origin, Certificate)| Leaf {
            origin,
            public: certificate.public_key(),
            certificate,
            holder: Holder::Nobody,
        };
        let mut leaves: Vec<Leaf> = leaves.into_iter().map(leaf).collect();
        if leaves.is_empty() {
            return Ok(Vec::new());
        }
        for handle in self.handles(tpm)? {
            if leaves.iter().all(|leaf| !leaf.wants_key()) {
                break;
            }
            pair(tpm, handle, &mut leaves)?;
        }
        leaves.iter().for_each(Leaf::tell);
        Ok(named(leaves))
    }

    /// Persistent handles, the likeliest first.
    fn handles(&self, tpm: &Tpm) -> Result<Vec<u32>, LookError> {
        let mut handles = tpm.handles(PERSISTENT)?;
        for hinted in self.hints.iter().filter_map(|hint| hint.handle) {
            if !handles.contains(&hinted) {
                warn!("[[identity]] handle 0x{hinted:08X}: nothing there");
            }
        }
        handles.sort_by_key(|handle| {
            let hinted = self.hints.iter().any(|hint| hint.handle == Some(*handle));
            (!hinted, !DEVID_HANDLES.contains(handle), *handle)
        });
        Ok(handles)
    }
}

/// Gives the key at `handle` to every certificate that it belongs to.
fn pair(tpm: &Tpm, handle: u32, leaves: &mut [Leaf]) -> Result<(), LookError> {
    let (area, resident) = match tpm.resident_key(handle) {
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
            .for_each(|leaf| leaf.holder = Holder::Other(handle));
        return Ok(());
    }
    let hashes = match public {
        PublicKey::Rsa { .. } => tpm.hashes()?,
        PublicKey::Ec { .. } => Vec::new(),
    };
    let key = Arc::new(Key::new(resident, area, hashes));
    own.iter_mut()
        .for_each(|leaf| leaf.holder = Holder::Identity(Arc::clone(&key)));
    Ok(())
}

impl Leaf {
    fn wants_key(&self) -> bool {
        self.public.is_some() && matches!(self.holder, Holder::Nobody)
    }

    fn tell(&self) {
        let origin = &self.origin;
        match &self.holder {
            Holder::Identity(key) => info!("{origin}: identity, key 0x{:08X}", key.handle()),
            Holder::Other(handle) => info!("{origin}: for key 0x{handle:08X}, which only attests"),
            Holder::Nobody => warn!(
                "{origin}: no persistent key of this TPM belongs to the certificate of {}; it is \
                 shown without a private key",
                self.certificate.subject()
            ),
        }
    }

    /// The key at 0x81020000, other identities by where their certificates are, certificates
    /// without key, attestation keys.
    fn rank(&self) -> (u8, u32) {
        let index = match self.origin {
            Origin::File(_) => 0,
            Origin::Nv(index) => index,
        };
        match &self.holder {
            Holder::Identity(key) if key.handle() == IDEVID_HANDLE => (0, index),
            Holder::Identity(_) => (1, index),
            Holder::Nobody => (2, index),
            Holder::Other(_) => (3, index),
        }
    }
}

fn named(mut leaves: Vec<Leaf>) -> Vec<Identity> {
    leaves.sort_by_key(Leaf::rank);
    let mut labels: Vec<String> = Vec::new();
    let mut named = Vec::new();
    for Leaf {
        certificate,
        public,
        holder,
        ..
    } in leaves
    {
        let base = match (&holder, labels.is_empty(), &public) {
            (Holder::Other(_), _, _) => ATTESTATION.to_owned(),
            (_, true, _) => LABEL.to_owned(),
            (_, false, Some(public)) => format!("{LABEL}-{public}"),
            (_, false, None) => format!("{LABEL}-other"),
        };
        let same = labels.iter().filter(|label| **label == base).count();
        let label = match same {
            0 => base.clone(),
            count => format!("{base}-{}", count + 1),
        };
        labels.push(base);
        let key = match holder {
            Holder::Identity(key) => Some(key),
            Holder::Nobody | Holder::Other(_) => None,
        };
        named.push(Identity {
            label,
            certificate,
            public,
            key,
        });
    }
    named
}
