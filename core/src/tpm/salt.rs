//! The choice of the TPM key that decrypts the salt of an auth session (Part 1, section 19.6.8).
//! The project calls this key a key for salts.

use super::command::Hierarchy;
use super::exchange::Exchange;
use super::primary::saved_context;
use super::{AuthValue, SRK, Salt, SaltKey, StorageKey, Tpm, TpmError, flush, handle, template};
use log::warn;

/// Handles of keys for salts: the SRK, then the EKs of RSA-2048 and P-256 (TCG, TPM 2.0
/// Provisioning Guidance, section 7.8).
const PLACES: [u32; 3] = [
    SRK,
    handle::ENDORSEMENT_KEY_RSA,
    handle::ENDORSEMENT_KEY_P256,
];

/// The purpose of an auth session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SaltPurpose {
    /// The session proves an authorisation value, or authenticates responses of the TPM.
    Show,
    /// The session encrypts the response of a key without authorisation value. An attacker on the
    /// bus could use such a key himself. So a false salt key gives this attacker nothing new.
    Hide,
}

impl Tpm {
    /// Returns the key for salts. The choice is the storage root key, else an endorsement key, else
    /// a key that is made for this purpose. The key is searched once, and again after each
    /// transport fault.
    ///
    /// If the key that was found is not trusted, the known master key is used instead. The master
    /// key costs two commands each time.
    ///
    /// # Errors
    ///
    /// [`TpmError::Distrusted`] if the storage root key is not trusted, or if it is missing
    /// although the record contains one. [`TpmError::Unread`] if the record cannot be read now.
    pub fn salt_key(&self) -> Result<SaltKey, TpmError> {
        self.salt_key_to(SaltPurpose::Show)
    }

    fn salt_key_to(&self, purpose: SaltPurpose) -> Result<SaltKey, TpmError> {
        let faults = self.faults();
        if let Some((at, known)) = &*self.salt_key.lock()
            && *at == faults
        {
            return Ok(known.clone());
        }
        let shown = self.shown_salt_key()?;
        let believed = match &shown {
            Some(key) if key.handle() == Some(SRK) => {
                self.believe_root(&key.name).map(|()| shown.clone())
            }
            _ => match self.endorsement_key() {
                Ok(None) => self.root().check_none_remembered().map(|()| shown.clone()),
                other => other,
            },
        };
        match believed {
            Ok(key) => {
                let key = key.map_or_else(|| self.null_key(), Ok)?;
                *self.salt_key.lock() = Some((faults, key.clone()));
                Ok(key)
            }
            Err(doubt @ (TpmError::Distrusted(_) | TpmError::Unread(_))) => {
                if self.root().lacks_certificate() {
                    return Err(doubt);
                }
                match (self.known_master()?, purpose) {
                    (Some(master), _) => Ok(master),
                    (None, SaltPurpose::Show) => Err(doubt),
                    (None, SaltPurpose::Hide) => shown.map_or_else(|| self.null_key(), Ok),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the first key in a persistent handle to which sessions can be salted.
    fn shown_salt_key(&self) -> Result<Option<SaltKey>, TpmError> {
        for handle in PLACES {
            let public =
                Exchange::new("ReadPublic").run(self, |link| match link.read_public(handle) {
                    Err(TpmError::Response(code)) if code.is_definite() => Ok(None),
                    Err(TpmError::Unsupported(_)) => Ok(Some(Default::default())),
                    other => other.map(Some),
                })?;
            let Some((area, _)) = public else { continue };
            let found = SaltKey::from_area(handle, &area);
            if found.is_some() {
                return Ok(found);
            }
            warn!(
                "handle 0x{handle:08X} contains no storage key of RSA, P-256, P-384 or P-521 (its \
                 type is 0x{:04X}), so no auth session is salted to it: the next handle is tried",
                area.first_chunk()
                    .map_or(0, |kind| u16::from_be_bytes(*kind))
            );
        }
        Ok(None)
    }

    /// Returns the master key, if its public area is remembered and its handle contains it. An
    /// attacker who shows this public area cannot decrypt a salt, because he lacks the private
    /// part.
    fn known_master(&self) -> Result<Option<SaltKey>, TpmError> {
        let remembered = self.master.zip(self.root().master());
        let Some(master) =
            remembered.and_then(|(handle, area)| StorageKey::from_area(handle, &area))
        else {
            return Ok(None);
        };
        match self.holds(master.handle(), master.name()) {
            Ok(is_there) => Ok((is_there && master.has_our_template()).then(|| master.salt_key())),
            Err(TpmError::Response(_) | TpmError::Unsupported(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets the chosen key for salts, because a better key may exist now.
    pub(super) fn seek_salt_key(&self) {
        *self.salt_key.lock() = None;
    }

    /// Checks that the value may be proven to this TPM. If needed, the storage root key becomes
    /// trusted and is remembered.
    ///
    /// # Errors
    ///
    /// The errors of [`Tpm::salt_key`].
    pub(crate) fn check_shows(&self, value: &AuthValue) -> Result<(), TpmError> {
        self.salt_key_for(value).map(drop)
    }

    /// Returns the key for salts if the commands prove a value or encrypt their response. Otherwise
    /// returns `None`.
    pub(super) fn salt_key_for(&self, value: &AuthValue) -> Result<Option<SaltKey>, TpmError> {
        match &value.salt {
            _ if value.is_empty() && !value.encrypts_response => Ok(None),
            Salt::Needless => Ok(None),
            Salt::ForAny if value.is_empty() => self.salt_key_to(SaltPurpose::Hide).map(Some),
            Salt::For(_) | Salt::ForAny => self.session_key(value).map(Some),
        }
    }

    /// Returns the key for salts for a command in an auth session, even if the value is empty. The
    /// HMAC of the response then proves which TPM answered.
    pub(super) fn session_key(&self, value: &AuthValue) -> Result<SaltKey, TpmError> {
        match &value.salt {
            Salt::For(key) => Ok(key.clone()),
            Salt::Needless | Salt::ForAny => self.salt_key(),
        }
    }

    /// Returns a P-256 storage key in the NULL hierarchy, for a TPM without a key for salts in a
    /// handle. The process keeps the saved context, and loads the key only while a session starts.
    pub(super) fn null_key(&self) -> Result<SaltKey, TpmError> {
        let (key, _) = self.saved_primary(Hierarchy::Null, template::storage_root(false))?;
        Ok(key)
    }

    /// Derives a primary key and saves its context. Returns it as a key for salts, together with
    /// its TPMT_PUBLIC. Sends three commands.
    pub(super) fn saved_primary(
        &self,
        hierarchy: Hierarchy,
        template: Vec<u8>,
    ) -> Result<(SaltKey, Vec<u8>), TpmError> {
        let making = Exchange::new("CreatePrimary(salt key)").needing_object_slot();
        let (area, context) = making.run(self, |link| {
            let (handle, area, _) = link.create_primary(hierarchy.auth_handle(), &template)?;
            let context = saved_context(link, handle);
            flush(link, handle, &context);
            Ok((area, context?))
        })?;
        let unfit =
            || TpmError::Unsupported("the TPM made a key that cannot decrypt a salt".into());
        let key = SaltKey::saved(hierarchy, template, context, &area).ok_or_else(unfit)?;
        self.register_flushable(&key.name);
        Ok((key, area))
    }
}
