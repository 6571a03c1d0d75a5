//! A private key in the TPM: where it is, what opens it, and how it is used.

mod access;
#[cfg(feature = "evidence")]
mod certifying;
mod decrypting;
mod locked_memory;
mod login;
mod obstacle;
mod padding;
mod proving;
mod secret;
mod signing;
#[cfg(test)]
mod signing_tests;
mod soft;

pub use access::Access;
pub(super) use access::Given;
pub use decrypting::DecryptRequest;
pub use login::Login;
pub(super) use login::{SECRET, secret_mark};
pub(super) use obstacle::KeyFile;
pub use secret::{SecretBytes, SecretKey};

use super::folder::{KeyAuth, KeyMaterial, Tss2Key, Tss2Kind};
use super::{SignError, Templates};
use crate::key::{Curve, PrivateKeyInfo, PublicKey};
use crate::tpm::{
    Algorithms, AuthHandle, AuthValue, KeyScheme, KnownAlgorithms, Link, Parent, PersistentKey,
    PrimaryKey, PublicArea, Tpm, TpmError, WrappedKey,
};
use log::{info, warn};
use parking_lot::Mutex;
use signing::{SALT_OF_OTHER_LENGTH, SALT_UNKNOWN};
pub(super) use soft::SoftKey;
#[cfg(feature = "evidence")]
pub(crate) use soft::sign_in_clear;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// A private key in the TPM.
#[derive(Debug)]
pub struct Key {
    place: KeyLocation,
    access: Access,
    /// What the TPM, or the RSA in memory, implements; asked only for keys to which it matters.
    algorithms: KnownAlgorithms,
    pss_salt: AtomicU8,
    source: Option<KeyFile>,
    /// True if its bare private operation may be asked for.
    allows_unpadded: bool,
    /// True if [`Key::prepare`] found it there.
    is_ready: AtomicBool,
}

/// What keeps a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protection {
    /// The TPM, which alone uses it.
    #[default]
    Tpm,
    /// On the disk it is encrypted under what the TPM has sealed; it is used in memory.
    Sealed,
    /// The file system's permissions.
    File,
}

/// What the TPM can do, as far as it matters to a key.
#[derive(Debug, Default)]
pub(super) struct Abilities {
    /// What it implements, as far as it was asked.
    pub(super) algorithms: KnownAlgorithms,
    /// True if its PSS signatures are of use, as far as is known.
    pub(super) pss: bool,
}

/// Where the TPM has the key.
#[derive(Debug)]
enum KeyLocation {
    /// In a persistent handle.
    Handle(PersistentKey, PublicArea),
    /// Nowhere: it is derived from one of the factories' templates, which one is to be found out.
    Template(
        PublicKey,
        Templates,
        OnceLock<(PublicArea, PrimaryKey)>,
        Mutex<()>,
    ),
    /// On the disk, wrapped; in a persistent handle as well if it says so and that is true.
    Disk(WrappedKey, PublicArea, Option<Persisted>),
    /// Used in memory.
    Memory(SoftKey),
    /// On the disk, in a form that is not supported; the text says why.
    Refused(PublicKey, &'static str),
}

/// A persistent handle that is said to hold a key, and the key as found there when it was first
/// needed: `None` if something else is there.
#[derive(Debug)]
struct Persisted {
    handle: u32,
    found: OnceLock<Option<PersistentKey>>,
    /// It was there, and is no more.
    lost: AtomicBool,
}

impl Key {
    /// A key in a persistent handle.
    pub(super) fn resident(
        resident: PersistentKey,
        area: PublicArea,
        abilities: Abilities,
    ) -> Self {
        Self::new(KeyLocation::Handle(resident, area), abilities)
    }

    /// A key in a persistent handle, whose authorisation value is empty.
    #[cfg(feature = "manufacture")]
    pub(crate) fn in_handle(resident: PersistentKey, area: PublicArea) -> Self {
        let abilities = Abilities {
            pss: true,
            ..Abilities::default()
        };
        Self::resident(resident, area, abilities)
    }

    /// A key that the TPM may derive; that is tried when it is first needed.
    pub(super) fn derivable(public: PublicKey, templates: Templates, abilities: Abilities) -> Self {
        Self::new(
            KeyLocation::Template(public, templates, OnceLock::new(), Mutex::new(())),
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
        let persisted = handle.map(|handle| Persisted {
            handle,
            found: OnceLock::new(),
            lost: AtomicBool::new(false),
        });
        Self::new(KeyLocation::Disk(wrapped, area, persisted), abilities)
    }

    /// A key on the disk that cannot be used.
    pub(super) fn refused(public: PublicKey, why: &'static str) -> Self {
        Self::new(KeyLocation::Refused(public, why), Abilities::default())
    }

    /// What its authorisation value derives from, beside a secret.
    pub(crate) fn auth_salt(&self) -> Option<&[u8]> {
        self.access.salt()
    }

    /// What opens it, as a file says it.
    pub(super) fn auth(&self) -> KeyAuth {
        self.access.kept()
    }

    /// True if it needs no login, also on a token with a PIN, as whoever made it wanted.
    pub fn is_for_everybody(&self) -> bool {
        matches!(self.access, Access::Everybody)
    }

    /// A key of a file that is used in memory.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub(super) fn in_memory(
        public: &PublicKey,
        material: &KeyMaterial,
    ) -> Result<Self, &'static str> {
        let soft = SoftKey::of(public, material)?;
        let abilities = Abilities {
            algorithms: Algorithms::ANY.only(soft.hashes()).into(),
            pss: true,
        };
        Ok(Self::new(KeyLocation::Memory(soft), abilities))
    }

    /// A private key in clear, used in memory.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub(crate) fn in_clear(key: PrivateKeyInfo) -> Result<Self, &'static str> {
        let public = key.public().clone();
        Self::in_memory(&public, &KeyMaterial::Clear(key))
    }

    /// What a file of it is to hold; `None` for a key that has none.
    pub(super) fn material(&self) -> Option<KeyMaterial> {
        let has_value = self.auth_salt().is_some();
        match &self.place {
            KeyLocation::Memory(soft) => Some(soft.material(has_value)),
            KeyLocation::Disk(wrapped, ..) => match wrapped.parent() {
                // Of another program's file it is not known whether it has a value.
                Parent::Owner { .. } if self.source.is_some() => None,
                Parent::Persistent(_) | Parent::Owner { .. } => {
                    let key = Tss2Key::of(Tss2Kind::Loadable, wrapped, has_value);
                    Some(KeyMaterial::Wrapped(key))
                }
            },
            KeyLocation::Handle(..) | KeyLocation::Template(..) | KeyLocation::Refused(..) => None,
        }
    }

    /// Its wrapped form, if it has one.
    pub(super) fn on_disk(&self) -> Option<&WrappedKey> {
        match &self.place {
            KeyLocation::Disk(wrapped, ..) => Some(wrapped),
            KeyLocation::Handle(..)
            | KeyLocation::Template(..)
            | KeyLocation::Memory(_)
            | KeyLocation::Refused(..) => None,
        }
    }

    /// The key as the TPM derives it, if it was derived.
    pub(crate) fn derived(&self) -> Option<&PrimaryKey> {
        match &self.place {
            KeyLocation::Template(_, _, derived, _) => derived.get().map(|(_, key)| key),
            KeyLocation::Handle(..)
            | KeyLocation::Disk(..)
            | KeyLocation::Memory(_)
            | KeyLocation::Refused(..) => None,
        }
    }

    /// The key, opened by this.
    #[must_use]
    pub(super) fn opened_by(self, access: Access) -> Self {
        Self { access, ..self }
    }

    fn new(place: KeyLocation, abilities: Abilities) -> Self {
        let salt = if abilities.pss {
            SALT_UNKNOWN
        } else {
            SALT_OF_OTHER_LENGTH
        };
        Self {
            place,
            access: Access::Open,
            algorithms: abilities.algorithms,
            pss_salt: AtomicU8::new(salt),
            source: None,
            allows_unpadded: false,
            is_ready: AtomicBool::new(false),
        }
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        match &self.place {
            KeyLocation::Handle(_, area) | KeyLocation::Disk(_, area, _) => &area.key,
            KeyLocation::Refused(public, _) => public,
            KeyLocation::Template(public, ..) => public,
            KeyLocation::Memory(soft) => soft.public(),
        }
    }

    /// The TPM's persistent handle of it, if it has one.
    pub fn handle(&self) -> Option<u32> {
        match &self.place {
            KeyLocation::Handle(resident, _) => Some(resident.handle()),
            KeyLocation::Disk(_, _, persisted) => {
                persisted.as_ref().map(|persisted| persisted.handle)
            }
            KeyLocation::Template(..) | KeyLocation::Memory(_) | KeyLocation::Refused(..) => None,
        }
    }

    /// The TPM's name of it; of a key without handle unknown until it is derived.
    pub fn name(&self) -> Option<&[u8]> {
        match &self.place {
            KeyLocation::Handle(resident, _) => Some(resident.name()),
            KeyLocation::Disk(wrapped, ..) => Some(wrapped.name()),
            KeyLocation::Memory(_) | KeyLocation::Refused(..) => None,
            KeyLocation::Template(_, _, derived, _) => derived.get().map(|(_, key)| key.name()),
        }
    }

    /// Its public area: TPMT_PUBLIC as bytes; unknown as the name is.
    pub fn public_area(&self) -> Option<&[u8]> {
        self.area().map(PublicArea::as_bytes)
    }

    /// True if this TPM made it; so it is with a key that is derived.
    pub fn is_of_this_tpm(&self) -> bool {
        self.protection() == Protection::Tpm && self.area().is_none_or(PublicArea::is_of_this_tpm)
    }

    /// What keeps the private key.
    pub fn protection(&self) -> Protection {
        match &self.place {
            KeyLocation::Memory(soft) if soft.is_sealed() => Protection::Sealed,
            KeyLocation::Memory(_) => Protection::File,
            KeyLocation::Handle(..)
            | KeyLocation::Template(..)
            | KeyLocation::Disk(..)
            | KeyLocation::Refused(..) => Protection::Tpm,
        }
    }

    /// True if it signs anything at all; so it is with a key that is derived.
    pub fn is_signing(&self) -> bool {
        match &self.place {
            _ if self.idle().is_some() => false,
            _ => self.area().is_none_or(PublicArea::signs) || self.pads(),
        }
    }

    /// True if the empty authorisation value is only supposed, and a wrong one counts towards lockout.
    pub(crate) fn supposes_empty_value(&self) -> bool {
        matches!(self.access, Access::Open | Access::Everybody)
            && self.area().is_some_and(PublicArea::counts_wrong_auth)
    }

    fn area(&self) -> Option<&PublicArea> {
        match &self.place {
            KeyLocation::Handle(_, area) | KeyLocation::Disk(_, area, _) => Some(area),
            KeyLocation::Memory(_) | KeyLocation::Refused(..) => None,
            KeyLocation::Template(_, _, derived, _) => derived.get().map(|(area, _)| area),
        }
    }

    /// How it signs; anything goes for a key that is not derived yet.
    fn own_scheme(&self) -> KeyScheme {
        match self.area() {
            Some(area) => area.scheme,
            None => KeyScheme::Any,
        }
    }

    /// Makes sure that the key is there: derives one without handle, and loads one that another
    /// program wrapped, if that was not done before.
    ///
    /// # Errors
    ///
    /// [`SignError::NotInThisTpm`] if no template gives the certified key, and
    /// [`SignError::Refused`] for a key that cannot be used here.
    pub fn prepare(&self, tpm: &Tpm) -> Result<(), SignError> {
        if self.is_ready.load(Ordering::Acquire) {
            return Ok(());
        }
        if let Some(why) = self.obstacle() {
            return Err(SignError::Refused(why));
        }
        match &self.place {
            KeyLocation::Template(public, templates, derived, turn) => {
                Self::derive(tpm, public, templates, derived, turn)?;
            }
            _ => self.check_loads(tpm)?,
        }
        self.learn_algorithms(tpm)?;
        self.is_ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Asks the TPM once which schemes and hashes it has, before the first use of a key that leaves the
    /// choice to the caller. Every TPM has SHA-256, which is all that P-256 takes.
    fn learn_algorithms(&self, tpm: &Tpm) -> Result<(), TpmError> {
        let asks = match &self.place {
            KeyLocation::Handle(_, area) | KeyLocation::Disk(_, area, _) => {
                let is_p256 = matches!(
                    area.key,
                    PublicKey::Ec {
                        curve: Curve::P256,
                        ..
                    }
                );
                area.takes_any_scheme() && !is_p256
            }
            KeyLocation::Template(..) | KeyLocation::Memory(_) | KeyLocation::Refused(..) => false,
        };
        match asks && self.algorithms.known().is_none() {
            true => tpm.algorithms().map(drop),
            false => Ok(()),
        }
    }

    fn derive(
        tpm: &Tpm,
        public: &PublicKey,
        templates: &Templates,
        derived: &OnceLock<(PublicArea, PrimaryKey)>,
        turn: &Mutex<()>,
    ) -> Result<(), SignError> {
        // One thread derives. The wait has a limit, for a child of a parent that was at it when it
        // forked.
        let _turn = tpm.wait_for(turn)?;
        if derived.get().is_some() {
            return Ok(());
        }
        if templates.is_given_up(public) {
            return Err(SignError::NotInThisTpm);
        }
        match tpm.find_primary_key(public, templates.remembered(public))? {
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
        persisted: &'a Persisted,
    ) -> Result<Option<&'a PersistentKey>, TpmError> {
        let Persisted { handle, found, .. } = persisted;
        if persisted.lost.load(Ordering::Acquire) {
            return Ok(None);
        }
        if let Some(found) = found.get() {
            return Ok(found.as_ref());
        }
        let there = match tpm.persistent_key(*handle) {
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

    /// From now on the key is loaded from its file; `false` if there is none, or it was so already.
    fn leave_handle(&self) -> bool {
        let KeyLocation::Disk(_, _, Some(persisted)) = &self.place else {
            return false;
        };
        if !matches!(persisted.found.get(), Some(Some(_))) {
            return false;
        }
        let first = !persisted.lost.swap(true, Ordering::AcqRel);
        if first {
            let handle = persisted.handle;
            warn!("handle 0x{handle:08X} no longer holds the key; it is loaded from its file");
        }
        first
    }

    /// From now on the key is derived anew; `false` if it was not taken from a saved context.
    fn leave_context(&self) -> bool {
        match &self.place {
            KeyLocation::Template(_, _, derived, _) => {
                derived.get().is_some_and(|(_, key)| key.forget_context())
            }
            KeyLocation::Handle(..)
            | KeyLocation::Disk(..)
            | KeyLocation::Memory(_)
            | KeyLocation::Refused(..) => false,
        }
    }

    /// Runs commands with the key: as it is, or loaded for them. Whether another's key may have
    /// answered: one that got the same transient handle on a TPM that all share, or the persistent
    /// handle after ours was destroyed. Not where an authorisation value was proven: the proof is
    /// over the key's name, and the TPM's answer over the same.
    ///
    /// The commands may run twice if the authorisation value is empty.
    fn with<R>(
        &self,
        tpm: &Tpm,
        what: &str,
        value: &AuthValue,
        commands: impl FnMut(&mut Link, AuthHandle) -> Result<R, TpmError>,
    ) -> Result<(R, bool), SignError> {
        let used = match &self.place {
            KeyLocation::Handle(resident, _) => {
                let answer = match self.access.untried() {
                    Some(given) if self.counts_wrong_auth() => {
                        given.tried(tpm, || tpm.with_persistent(what, resident, value, commands))
                    }
                    _ => tpm.with_persistent(what, resident, value, commands),
                };
                answer.map(|answer| (answer, false))
            }
            KeyLocation::Disk(wrapped, _, persisted) => self
                .with_file(tpm, what, wrapped, persisted.as_ref(), value, commands)
                .map(|answer| (answer, value.is_empty())),
            KeyLocation::Template(_, _, derived, _) => match derived.get() {
                Some((_, key)) => {
                    let answer = tpm.with_primary(what, key, commands);
                    answer.map(|answer| (answer, true))
                }
                None => return Err(SignError::NotInThisTpm),
            },
            // It is not the TPM that uses it.
            KeyLocation::Memory(_) => return Err(SignError::Scheme),
            KeyLocation::Refused(_, why) => return Err(SignError::Refused(self.of_file(why))),
        };
        used.map_err(|error| self.judged(tpm, error.into()))
    }

    /// Runs commands with a key on the disk: in its handle if it is there, else loaded.
    fn with_file<R>(
        &self,
        tpm: &Tpm,
        what: &str,
        wrapped: &WrappedKey,
        persisted: Option<&Persisted>,
        value: &AuthValue,
        mut commands: impl FnMut(&mut Link, AuthHandle) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        let resident = persisted
            .map(|persisted| Self::persisted(tpm, wrapped, persisted))
            .transpose()?
            .flatten();
        if let Some(resident) = resident {
            match tpm.with_persistent(what, resident, value, &mut commands) {
                Err(error) if is_elsewhere(&error) => drop(self.leave_handle()),
                other => return other,
            }
        }
        tpm.with_wrapped(what, wrapped, value, commands)
    }

    /// True if a wrong authorisation value counts towards the lockout of the whole TPM.
    pub(super) fn counts_wrong_auth(&self) -> bool {
        self.area().is_none_or(PublicArea::counts_wrong_auth)
    }
}

/// True if the key is not, or no longer, where it was found.
fn is_elsewhere(error: &TpmError) -> bool {
    match error {
        TpmError::Response(code) => code.is_missing_handle(),
        other => matches!(other, TpmError::KeyReplaced(_)),
    }
}
