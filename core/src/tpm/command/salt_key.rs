//! The TPM key that decrypts the salt of an auth session (Part 1, section 19.6.8).

use super::{AuthHandle, Link, flush};
use crate::key::PublicKey;
use crate::tpm::{Hash, PublicArea, TpmError, name_of};
use std::sync::Arc;

/// A TPM key that can decrypt salts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaltKey {
    place: KeySource,
    /// The public key.
    pub public: PublicKey,
    /// The nameAlg of the key.
    pub hash: Hash,
    /// The TPM name of the key.
    pub name: Vec<u8>,
}

/// The source of the key: a persistent handle, or a saved context.
#[derive(Debug, Clone, PartialEq, Eq)]
enum KeySource {
    /// The key is in this handle.
    Handle(u32),
    /// The key has no handle. The key is loaded for each session and flushed afterwards.
    Saved(Arc<SavedPrimary>),
}

/// A primary key with a saved context.
#[derive(Debug, PartialEq, Eq)]
struct SavedPrimary {
    hierarchy: Hierarchy,
    template: Vec<u8>,
    /// The saved context. `None` if the TPM saves no context; the key is then derived for each
    /// session.
    context: Option<Vec<u8>>,
}

/// A hierarchy that derives primary keys, with the empty authorisation value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tpm) enum Hierarchy {
    /// TPM_RH_NULL, whose value is always empty. Its keys change with each TPM reset.
    Null,
    /// TPM_RH_ENDORSEMENT.
    Endorsement,
}

impl Hierarchy {
    pub(in crate::tpm) fn auth_handle(self) -> AuthHandle<'static> {
        match self {
            Self::Null => AuthHandle::null(),
            Self::Endorsement => AuthHandle::endorsement(),
        }
    }
}

impl SaltKey {
    /// Creates the value for a key with this TPMT_PUBLIC. Returns `None` unless the key is a
    /// storage key, because a TPM accepts only a storage key for a salt.
    pub(in crate::tpm) fn from_area(handle: u32, area: &[u8]) -> Option<Self> {
        Self::at(KeySource::Handle(handle), area)
    }

    /// Creates the [`SaltKey`] for a key in this persistent handle.
    pub(in crate::tpm) fn in_handle(
        handle: u32,
        public: &PublicKey,
        hash: Hash,
        name: &[u8],
    ) -> Self {
        Self {
            place: KeySource::Handle(handle),
            public: public.clone(),
            hash,
            name: name.to_vec(),
        }
    }

    /// Creates the value for a primary key without a handle. `context` is the result of
    /// TPM2_ContextSave, if the TPM saved the context.
    pub(in crate::tpm) fn saved(
        hierarchy: Hierarchy,
        template: Vec<u8>,
        context: Option<Vec<u8>>,
        area: &[u8],
    ) -> Option<Self> {
        let saved = SavedPrimary {
            hierarchy,
            template,
            context,
        };
        Self::at(KeySource::Saved(Arc::new(saved)), area)
    }

    fn at(place: KeySource, area: &[u8]) -> Option<Self> {
        let name = name_of(area)?;
        let area = PublicArea::parse(area).filter(PublicArea::is_storage_key)?;
        Some(Self {
            place,
            name,
            hash: area.name_hash,
            public: area.key,
        })
    }

    /// Returns the handle of the key; `None` if it must be loaded.
    pub(in crate::tpm) fn handle(&self) -> Option<u32> {
        match self.place {
            KeySource::Handle(handle) => Some(handle),
            KeySource::Saved(_) => None,
        }
    }
}

impl Link {
    /// Loads the key if needed. Returns the key as the TPM has it now, its handle, and true if the
    /// caller must flush the handle.
    pub(in crate::tpm) fn with_salt_key(
        &mut self,
        key: &SaltKey,
    ) -> Result<(SaltKey, u32, bool), TpmError> {
        let saved = match &key.place {
            KeySource::Handle(handle) => return Ok((key.clone(), *handle, false)),
            KeySource::Saved(saved) => saved,
        };
        let loaded = saved.context.as_ref().map(|one| self.context_load(one));
        match loaded {
            Some(Ok(handle)) => return Ok((key.clone(), handle, true)),
            // After a temporary response code, the exchange repeats the command.
            Some(Err(TpmError::Response(code))) if code.is_temporary() => return Err(code.into()),
            // The TPM was restarted, or the context belongs to another connection. The key is
            // derived again.
            None | Some(Err(TpmError::Response(_) | TpmError::Unsupported(_))) => {}
            Some(Err(error)) => return Err(error),
        }
        let (handle, area, _) =
            self.create_primary(saved.hierarchy.auth_handle(), &saved.template)?;
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
