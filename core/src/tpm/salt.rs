//! The key of the TPM that reads the salt of an auth session (Part 1, section 19.6.8).

use super::exchange::Exchange;
use super::wrapped::flush;
use super::{AuthValue, Hash, Link, PublicArea, Salt, Tpm, TpmError, Used, name_of, template};
use crate::key::PublicKey;
use std::sync::Arc;

/// The key of the TPM that reads the salt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaltKey {
    place: Place,
    /// Its public half.
    pub public: PublicKey,
    /// Its nameAlg.
    pub hash: Hash,
    /// Its TPM name.
    pub name: Vec<u8>,
}

/// Where the TPM has the key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// In this handle.
    Handle(u32),
    /// In no handle: it is loaded for each session, and flushed after that.
    Saved(Arc<Saved>),
}

/// A primary key whose context was saved.
#[derive(Debug, PartialEq, Eq)]
struct Saved {
    hierarchy: Hierarchy,
    template: Vec<u8>,
    context: Vec<u8>,
}

/// A hierarchy whose primary keys can be had with the empty authorisation value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hierarchy {
    /// TPM_RH_NULL, which always has the empty value. Its keys are others after each TPM reset.
    Null,
    /// TPM_RH_ENDORSEMENT.
    Endorsement,
}

impl Hierarchy {
    fn used(self) -> Used<'static> {
        match self {
            Self::Null => Used::null(),
            Self::Endorsement => Used::endorsement(),
        }
    }
}

impl SaltKey {
    /// The key with this TPMT_PUBLIC; `None` if its kind cannot be one: it must be a storage key, since
    /// a TPM takes no other for a salt.
    pub(super) fn of(handle: u32, area: &[u8]) -> Option<Self> {
        Self::at(Place::Handle(handle), area)
    }

    /// The key in this handle.
    pub(super) fn in_handle(handle: u32, public: &PublicKey, hash: Hash, name: &[u8]) -> Self {
        Self {
            place: Place::Handle(handle),
            public: public.clone(),
            hash,
            name: name.to_vec(),
        }
    }

    fn at(place: Place, area: &[u8]) -> Option<Self> {
        let name = name_of(area)?;
        let area = PublicArea::parse(area).filter(PublicArea::is_storage_key)?;
        Some(Self {
            place,
            name,
            hash: area.name_hash,
            public: area.key,
        })
    }

    /// Its handle, if it has one.
    pub(super) fn handle(&self) -> Option<u32> {
        match self.place {
            Place::Handle(handle) => Some(handle),
            Place::Saved(_) => None,
        }
    }
}

impl Link {
    /// The key as the TPM has it now, its handle, and whether that is to be flushed.
    pub(super) fn with_salt_key(
        &mut self,
        key: &SaltKey,
    ) -> Result<(SaltKey, u32, bool), TpmError> {
        let saved = match &key.place {
            Place::Handle(handle) => return Ok((key.clone(), *handle, false)),
            Place::Saved(saved) => saved,
        };
        match self.context_load(&saved.context) {
            Ok(handle) => return Ok((key.clone(), handle, true)),
            // No slot, or not now: the exchange repeats it.
            Err(TpmError::Response(code)) if code.is_out_of_objects() || code.asks_for_resend() => {
                return Err(code.into());
            }
            // The TPM was started anew, or the context is of another connection.
            Err(TpmError::Response(_) | TpmError::Unsupported(_)) => {}
            Err(error) => return Err(error),
        }
        let (handle, area, _) = self.create_primary(saved.hierarchy.used(), &saved.template)?;
        match SaltKey::at(key.place.clone(), &area) {
            Some(now) if now.name == key.name || saved.hierarchy == Hierarchy::Null => {
                Ok((now, handle, true))
            }
            _ => {
                flush(self, handle, &Ok(()));
                Err(TpmError::SeedChanged)
            }
        }
    }
}

impl Tpm {
    /// The salt key for commands that show this authorisation value, or hide their response.
    pub(super) fn salt_key_for(&self, value: &AuthValue) -> Result<Option<SaltKey>, TpmError> {
        match &value.salt {
            _ if value.is_empty() && !value.hides => Ok(None),
            Salt::Needless => Ok(None),
            Salt::For(_) | Salt::ForAny => self.session_key(value).map(Some),
        }
    }

    /// The salt key for a command in an auth session, also if the value is empty: so that the HMAC of
    /// the response proves where it comes from.
    pub(super) fn session_key(&self, value: &AuthValue) -> Result<SaltKey, TpmError> {
        match &value.salt {
            Salt::For(key) => Ok(key.clone()),
            Salt::Needless | Salt::ForAny => self.salt_key(),
        }
    }

    /// A P-256 storage key in the NULL hierarchy: for a TPM that has no key for salts in a handle. It
    /// lives as long as this process, and is in the TPM only while a session begins.
    pub(super) fn null_key(&self) -> Result<SaltKey, TpmError> {
        self.saved_primary(Hierarchy::Null, template::storage_root(false))
    }

    /// A primary key as a salt key. Three commands.
    pub(super) fn saved_primary(
        &self,
        hierarchy: Hierarchy,
        template: Vec<u8>,
    ) -> Result<SaltKey, TpmError> {
        let making = Exchange::new("CreatePrimary(salt key)").loading();
        let (area, context) = making.run(self, |link| {
            let (handle, area, _) = link.create_primary(hierarchy.used(), &template)?;
            let context = link.context_save(handle);
            flush(link, handle, &context);
            Ok((area, context?))
        })?;
        let saved = Saved {
            hierarchy,
            template,
            context,
        };
        let unfit = || TpmError::Unsupported("the TPM made a key that reads no salt".into());
        let key = SaltKey::at(Place::Saved(Arc::new(saved)), &area).ok_or_else(unfit)?;
        self.own(&key.name);
        Ok(key)
    }
}
