//! Lists the factory identity for tokens, and logs in to an identity whose key needs a PIN.

use super::{CaCertificate, FactoryIdentities, Identity, IdentityScope, IdevidStore};
use crate::key::hex;
use crate::store::folder::{KeyOrigin, ObjectAttributes, Usage, Use};
use crate::store::{
    LoginError, ObjectKind, Pins, ScanError, ScanResult, SignError, StoreStamp, StoredObject,
    UserType,
};
use crate::tpm::{AuthValue, Lockout, Secret, Tpm, TpmError};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// The permitted lengths of a PIN in bytes. No authorisation value is longer than the longest
/// digest of a TPM.
pub(in crate::store) const PIN_LENGTHS: RangeInclusive<usize> = 1..=64;

/// Operations that [`Store`](crate::store::Store) calls.
impl IdevidStore {
    pub(in crate::store) fn stamp(&self) -> StoreStamp {
        StoreStamp::Factory(self.stamped(self.files.stamp()))
    }

    /// Searches for all objects. If only the known abilities of the TPM changed, updates the
    /// objects of the last scan without a TPM command.
    pub(crate) fn scan(&self) -> Result<ScanResult, ScanError> {
        let last = self.last.lock().take();
        if let Some(listing) = last.and_then(|last| self.anew(last)) {
            *self.last.lock() = Some(listing.clone());
            return Ok(listing);
        }
        let found = self.find()?;
        if let IdentityScope::Pin(guarded) = &self.part {
            let key = found.identities.iter().find_map(|one| one.key.clone());
            *guarded.key.lock() = key;
        }
        let listing = listing(found);
        *self.last.lock() = Some(listing.clone());
        Ok(listing)
    }

    /// Returns the updated result of the last scan. Returns `None` if a new search is needed.
    fn anew(&self, found: ScanResult) -> Option<ScanResult> {
        let now = self.stamped(self.files.stamp());
        let StoreStamp::Factory(then) = &found.stamp else {
            return None;
        };
        let changed = then.can != now.can;
        let can = now.can;
        let is_the_same = now
            == super::FactoryStamp {
                can,
                ..then.clone()
            };
        (changed && is_the_same).then(|| ScanResult {
            objects: found.objects.iter().map(|one| one.anew(can)).collect(),
            stamp: StoreStamp::Factory(now),
            ..found
        })
    }

    pub(in crate::store) fn for_child(&self, tpm: &Arc<Tpm>) -> Self {
        Self {
            tpm: Arc::clone(tpm),
            hints: self.hints.clone(),
            part: self.part.for_child(),
            origin: self.origin,
            files: self.files.for_child(),
            templates: self.templates.for_child(),
            last: Mutex::new(self.last.try_lock().and_then(|last| last.clone())),
        }
    }

    pub(in crate::store) fn pins(&self) -> Pins {
        match self.part {
            IdentityScope::Open => Pins::None,
            IdentityScope::Pin(_) => Pins::User,
        }
    }

    /// Logs in. The PIN is the authorisation value of the key. A signature over random bytes tests
    /// the PIN.
    pub(crate) fn login(&self, who: UserType, pin: &[u8]) -> Result<(), LoginError> {
        let (IdentityScope::Pin(guarded), UserType::User) = (&self.part, who) else {
            return Err(LoginError::NotInitialized);
        };
        if !PIN_LENGTHS.contains(&pin.len()) {
            return Err(LoginError::Length);
        }
        let key = guarded.key.lock().clone();
        let unknown = || TpmError::Unsupported("the TPM does not hold the key".into());
        let key = key.ok_or_else(unknown)?;
        let hint = self.hints.get(guarded.hint);
        let may_lock = hint.is_some_and(|hint| hint.allow_last_try);
        let _turn = match key.counts_wrong_auth() {
            true => self.tpm.lock_pin_try(may_lock)?,
            false => None,
        };
        let pin = Secret::new(pin.to_vec());
        match key.prove(&self.tpm, &AuthValue::new(pin.clone())) {
            Ok(()) => guarded.login.begin(pin),
            Err(SignError::Tpm(TpmError::WrongAuth(_))) => return Err(LoginError::Wrong),
            Err(SignError::Tpm(error)) => return Err(error.into()),
            Err(error) => return Err(TpmError::Unsupported(error.to_string()).into()),
        }
        Ok(())
    }

    pub(in crate::store) fn logout(&self) {
        if let IdentityScope::Pin(guarded) = &self.part {
            guarded.login.end();
        }
    }

    pub(in crate::store) fn lockout(&self) -> Option<Lockout> {
        match self.part {
            IdentityScope::Open => None,
            IdentityScope::Pin(_) => self.tpm.lockout().ok(),
        }
    }
}

/// Returns the key pair and certificate of each identity, then the certificates of its issuers.
fn listing(found: FactoryIdentities) -> ScanResult {
    let label = found.label().to_owned();
    let mut objects = Vec::new();
    for identity in found.identities {
        objects.extend(shown(identity));
    }
    objects.extend(found.authorities.into_iter().map(|authority| {
        let CaCertificate {
            label, certificate, ..
        } = authority;
        let name = hex(&certificate.sha1());
        StoredObject {
            name,
            kind: ObjectKind::Certificate(certificate, fixed(label, &[])),
        }
    }));
    // Two certificates for one public key share a single key pair object.
    let mut seen = HashSet::new();
    objects.retain(|one| seen.insert((one.name.clone(), one.kind.is_certificate())));
    ScanResult {
        label,
        serial: found.serial,
        objects: objects.into_iter().map(Arc::new).collect(),
        refused: Vec::new(),
        unread: found.unread,
        stamp: StoreStamp::Factory(found.stamp),
    }
}

fn shown(identity: Identity) -> Vec<StoredObject> {
    let Identity {
        label,
        id,
        certificate,
        public,
        key,
        ..
    } = identity;
    let described = |uses: &[Use]| ObjectAttributes {
        subject: certificate.subject_der().to_vec(),
        id: id.clone(),
        ..fixed(label.clone(), uses)
    };
    let mut shown = Vec::new();
    if let Some(public) = public {
        let kind = match key {
            Some(key) => ObjectKind::Pair {
                key,
                // The key of an identity has the attribute sensitiveDataOrigin: the TPM itself
                // generated the key.
                origin: KeyOrigin::Generated,
                private: described(&[Use::Sign]),
                public: Some(described(&[Use::Verify])),
            },
            None => ObjectKind::Public(public.clone(), described(&[Use::Verify])),
        };
        let name = hex(public.id().as_bytes());
        shown.push(StoredObject { name, kind });
    }
    shown.push(StoredObject {
        name: hex(&certificate.sha1()),
        kind: ObjectKind::Certificate(
            certificate,
            ObjectAttributes {
                id: id.clone(),
                ..fixed(label.clone(), &[])
            },
        ),
    });
    shown
}

/// Returns the attributes of an object that cannot be changed.
fn fixed(label: String, uses: &[Use]) -> ObjectAttributes {
    ObjectAttributes {
        modifiable: false,
        destroyable: false,
        usage: Some(uses.iter().copied().collect::<Usage>()),
        ..ObjectAttributes::labelled(label)
    }
}
