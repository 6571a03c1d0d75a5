//! A private key in the TPM: where it is, what opens it, and how it is used.

mod access;
mod decrypting;
mod signing;

pub use access::{Access, Login};
pub use decrypting::DecryptRequest;
pub use signing::SignRequest;

use super::{SignError, Templates};
use crate::key::PublicKey;
use crate::tpm::{
    AuthValue, DerivedKey, Hash, Link, PublicArea, ResidentKey, SigningScheme, Tpm, TpmError, Used,
    WrappedKey,
};
use log::info;
use parking_lot::Mutex;
use signing::{SALT_OF_OTHER_LENGTH, SALT_UNKNOWN};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

/// A private key in the TPM.
#[derive(Debug)]
pub struct Key {
    place: Place,
    access: Access,
    /// Hashes that the TPM knows; asked only for keys to which it matters.
    hashes: Vec<Hash>,
    pss_salt: AtomicU8,
}

/// What the TPM can do, as far as it matters to a key.
#[derive(Debug, Default)]
pub(super) struct Abilities {
    /// The hashes that it implements.
    pub(super) hashes: Vec<Hash>,
    /// Whether its PSS signatures are of use, as far as is known.
    pub(super) pss: bool,
}

/// Where the TPM has the key.
#[derive(Debug)]
enum Place {
    /// In a persistent handle.
    Handle(ResidentKey, PublicArea),
    /// Nowhere: it is derived from one of the factories' templates, which one is to be found out.
    Template(
        PublicKey,
        Templates,
        OnceLock<(PublicArea, DerivedKey)>,
        Mutex<()>,
    ),
    /// On the disk, wrapped; in a persistent handle as well if it says so and that is true.
    Disk(WrappedKey, PublicArea, Option<Persisted>),
    /// On the disk, in a form that is not supported; the text says why.
    Refused(PublicArea, &'static str),
}

/// A persistent handle that is said to hold a key, and the key as found there when it was first
/// needed: `None` if something else is there.
#[derive(Debug)]
struct Persisted(u32, OnceLock<Option<ResidentKey>>);

/// How long one derivation may take, of which others wait for the end.
const DERIVATION: Duration = Duration::from_secs(60);

impl Key {
    /// A key in a persistent handle.
    pub(super) fn resident(resident: ResidentKey, area: PublicArea, abilities: Abilities) -> Self {
        Self::new(Place::Handle(resident, area), abilities)
    }

    /// A key that the TPM may derive; that is tried when it is first needed.
    pub(super) fn derivable(public: PublicKey, templates: Templates, abilities: Abilities) -> Self {
        Self::new(
            Place::Template(public, templates, OnceLock::new(), Mutex::new(())),
            abilities,
        )
    }

    /// A key on the disk, which the TPM is said to hold at `handle` as well.
    pub(super) fn wrapped(
        wrapped: WrappedKey,
        area: PublicArea,
        handle: Option<u32>,
        abilities: Abilities,
    ) -> Self {
        let persisted = handle.map(|handle| Persisted(handle, OnceLock::new()));
        Self::new(Place::Disk(wrapped, area, persisted), abilities)
    }

    /// A key on the disk that cannot be used.
    pub(super) fn refused(area: PublicArea, why: &'static str, abilities: Abilities) -> Self {
        Self::new(Place::Refused(area, why), abilities)
    }

    /// What its authorisation value derives from, beside a secret.
    pub(super) fn auth_salt(&self) -> Option<&[u8]> {
        match &self.access {
            Access::Derived { salt, .. } => Some(salt),
            Access::Open | Access::Given(_) | Access::Login(_) => None,
        }
    }

    /// Its wrapped form, if it has one.
    pub(super) fn on_disk(&self) -> Option<&WrappedKey> {
        match &self.place {
            Place::Disk(wrapped, ..) => Some(wrapped),
            Place::Handle(..) | Place::Template(..) | Place::Refused(..) => None,
        }
    }

    /// The key as the TPM derives it, if it was derived.
    pub(crate) fn derived(&self) -> Option<&DerivedKey> {
        match &self.place {
            Place::Template(_, _, derived, _) => derived.get().map(|(_, key)| key),
            Place::Handle(..) | Place::Disk(..) | Place::Refused(..) => None,
        }
    }

    /// The key, opened by this.
    #[must_use]
    pub(super) fn opened_by(self, access: Access) -> Self {
        Self { access, ..self }
    }

    fn new(place: Place, abilities: Abilities) -> Self {
        let salt = if abilities.pss {
            SALT_UNKNOWN
        } else {
            SALT_OF_OTHER_LENGTH
        };
        Self {
            place,
            access: Access::Open,
            hashes: abilities.hashes,
            pss_salt: AtomicU8::new(salt),
        }
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        match &self.place {
            Place::Handle(_, area) | Place::Disk(_, area, _) | Place::Refused(area, _) => &area.key,
            Place::Template(public, ..) => public,
        }
    }

    /// The TPM's persistent handle of it, if it has one.
    pub fn handle(&self) -> Option<u32> {
        match &self.place {
            Place::Handle(resident, _) => Some(resident.handle()),
            Place::Disk(_, _, persisted) => persisted.as_ref().map(|Persisted(handle, _)| *handle),
            Place::Template(..) | Place::Refused(..) => None,
        }
    }

    /// The TPM's name of it; of a key without handle unknown until it is derived.
    pub fn name(&self) -> Option<&[u8]> {
        match &self.place {
            Place::Handle(resident, _) => Some(resident.name()),
            Place::Disk(wrapped, ..) => Some(wrapped.name()),
            Place::Refused(..) => None,
            Place::Template(_, _, derived, _) => derived.get().map(|(_, key)| key.name()),
        }
    }

    /// Its public area: TPMT_PUBLIC as bytes; unknown as the name is.
    pub fn public_area(&self) -> Option<&[u8]> {
        self.area().map(PublicArea::as_bytes)
    }

    /// Whether this TPM made it; so it is with a key that is derived.
    pub fn is_of_this_tpm(&self) -> bool {
        self.area().is_none_or(PublicArea::is_of_this_tpm)
    }

    /// Whether the TPM lets it sign anything at all; so it is with a key that is derived.
    pub fn is_signing(&self) -> bool {
        self.area().is_none_or(PublicArea::signs)
    }

    /// Whether the TPM lets it decrypt, or agree on secrets.
    pub fn decrypts(&self) -> bool {
        self.area().is_some_and(PublicArea::decrypts)
    }

    fn area(&self) -> Option<&PublicArea> {
        match &self.place {
            Place::Handle(_, area) | Place::Disk(_, area, _) | Place::Refused(area, _) => {
                Some(area)
            }
            Place::Template(_, _, derived, _) => derived.get().map(|(area, _)| area),
        }
    }

    /// How it signs; anything goes for a key that is not derived yet.
    fn scheme(&self) -> SigningScheme {
        self.area().map_or(SigningScheme::Any, |area| area.scheme)
    }

    /// Makes sure that the key is there: derives one without handle, if that was not done before.
    ///
    /// # Errors
    ///
    /// [`SignError::NotInThisTpm`] if no template gives the certified key.
    pub fn prepare(&self, tpm: &Tpm) -> Result<(), SignError> {
        let Place::Template(public, templates, derived, turn) = &self.place else {
            return Ok(());
        };
        if derived.get().is_some() {
            return Ok(());
        }
        // One thread derives; a limit, for a child of a parent that was at it when it forked.
        let _turn = turn
            .try_lock_for(DERIVATION)
            .ok_or(TpmError::Timeout(DERIVATION))?;
        if derived.get().is_some() {
            return Ok(());
        }
        if templates.is_given_up(public) {
            return Err(SignError::NotInThisTpm);
        }
        match tpm.derive(public, templates.remembered(public))? {
            Some((area, key)) => {
                templates.remember(public, key.template());
                let _ = derived.set((area, key));
                Ok(())
            }
            None => {
                templates.give_up(public);
                Err(SignError::NotInThisTpm)
            }
        }
    }

    /// The persistent key that a key on the disk is said to be; one command when first asked.
    fn persisted<'a>(
        tpm: &Tpm,
        wrapped: &WrappedKey,
        persisted: Option<&'a Persisted>,
    ) -> Result<Option<&'a ResidentKey>, TpmError> {
        let Some(Persisted(handle, found)) = persisted else {
            return Ok(None);
        };
        if let Some(found) = found.get() {
            return Ok(found.as_ref());
        }
        let there = match tpm.resident_key(*handle) {
            Ok((_, there)) if there.name() == wrapped.name() => Some(there),
            Ok(_) => None,
            Err(TpmError::Response(code)) if code.is_definite() => None,
            Err(error) => return Err(error),
        };
        if there.is_none() {
            info!("handle 0x{handle:08X} does not hold the key; it is loaded from its file");
        }
        Ok(found.get_or_init(|| there).as_ref())
    }

    /// Runs commands with the key: as it is, or loaded for them. Whether it was loaded, which means
    /// that on a TPM that all share another's key may have answered.
    ///
    /// The commands may run twice if the authorisation value is empty.
    fn with<R>(
        &self,
        tpm: &Tpm,
        what: &str,
        value: &AuthValue,
        commands: impl FnMut(&mut dyn Link, Used) -> Result<R, TpmError>,
    ) -> Result<(R, bool), SignError> {
        Ok(match &self.place {
            Place::Handle(resident, _) => {
                (tpm.with_resident(what, resident, value, commands)?, false)
            }
            Place::Disk(wrapped, _, persisted) => {
                match Self::persisted(tpm, wrapped, persisted.as_ref())? {
                    Some(resident) => (tpm.with_resident(what, resident, value, commands)?, false),
                    None => (tpm.with_wrapped(what, wrapped, value, commands)?, true),
                }
            }
            Place::Template(_, _, derived, _) => {
                let (_, key) = derived.get().ok_or(SignError::NotInThisTpm)?;
                (tpm.with_derived(what, key, commands)?, true)
            }
            Place::Refused(_, why) => return Err(SignError::Refused(why)),
        })
    }

    /// Whether a wrong authorisation value counts towards the lockout of the whole TPM.
    pub(super) fn counts_wrong_auth(&self) -> bool {
        self.area().is_none_or(|area| !area.is_no_da())
    }
}
