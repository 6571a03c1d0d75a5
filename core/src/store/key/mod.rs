//! A private key: where it is, who may use it, and how it is used.

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
use crate::fork::without_fork;
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

/// A private key, usually in the TPM.
#[derive(Debug)]
pub struct Key {
    place: KeyLocation,
    access: Access,
    /// The supported algorithms. The TPM is asked only for keys that need the answer.
    algorithms: KnownAlgorithms,
    pss_salt: AtomicU8,
    source: Option<KeyFile>,
    /// True if the configuration permits the raw RSA operation.
    allows_unpadded: bool,
    /// True if [`Key::prepare`] has succeeded.
    is_ready: AtomicBool,
}

/// The protection of a private key against copying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protection {
    /// Only the TPM uses the key.
    #[default]
    Tpm,
    /// The file is encrypted under a key that the TPM has sealed. The module uses the private key
    /// in memory.
    Sealed,
    /// Only file permissions protect the key.
    File,
}

/// The abilities of the TPM that a key depends on.
#[derive(Debug, Default)]
pub(super) struct Abilities {
    /// The algorithms that the TPM supports, if it was asked.
    pub(super) algorithms: KnownAlgorithms,
    /// False if a PSS signature of the TPM had a salt of the wrong length.
    pub(super) pss: bool,
}

/// The place where a key is stored.
#[derive(Debug)]
enum KeyLocation {
    /// In a persistent handle of the TPM.
    Handle(PersistentKey, PublicArea),
    /// In no place: the TPM derives the key from a factory template, which may be unknown yet.
    Template(
        PublicKey,
        Templates,
        OnceLock<(PublicArea, PrimaryKey)>,
        Mutex<()>,
    ),
    /// Wrapped in a file. The key may also be in the persistent handle that the file names.
    Disk(WrappedKey, PublicArea, Option<Persisted>),
    /// In a file; the module uses the key in memory.
    Memory(SoftKey),
    /// In a file of a kind that is not supported. The text gives the reason.
    Refused(PublicKey, &'static str),
}

/// The persistent handle that a key's file names. The first use of the key checks what the handle
/// holds. `found` is `None` if the handle holds another object.
#[derive(Debug)]
struct Persisted {
    handle: u32,
    found: OnceLock<Option<PersistentKey>>,
    /// True if the handle held the key earlier, but does not hold it any more.
    lost: AtomicBool,
}

impl Key {
    /// Returns a key in a persistent handle.
    pub(super) fn resident(
        resident: PersistentKey,
        area: PublicArea,
        abilities: Abilities,
    ) -> Self {
        Self::new(KeyLocation::Handle(resident, area), abilities)
    }

    /// Returns a key in a persistent handle whose authorisation value is empty.
    #[cfg(feature = "manufacture")]
    pub(crate) fn in_handle(resident: PersistentKey, area: PublicArea) -> Self {
        let abilities = Abilities {
            pss: true,
            ..Abilities::default()
        };
        Self::resident(resident, area, abilities)
    }

    /// Returns a key that the TPM may derive. Its first use tries the derivation.
    pub(super) fn derivable(public: PublicKey, templates: Templates, abilities: Abilities) -> Self {
        Self::new(
            KeyLocation::Template(public, templates, OnceLock::new(), Mutex::new(())),
            abilities,
        )
    }

    /// Returns a key from a file. The file may also name a persistent `handle` with the key.
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

    /// Returns a key whose file cannot be used.
    pub(super) fn refused(public: PublicKey, why: &'static str) -> Self {
        Self::new(KeyLocation::Refused(public, why), Abilities::default())
    }

    /// Returns the salt from which the authorisation value is derived, if any.
    pub(crate) fn auth_salt(&self) -> Option<&[u8]> {
        self.access.salt()
    }

    /// Returns the access in the form that a file stores.
    pub(super) fn auth(&self) -> KeyAuth {
        self.access.kept()
    }

    /// Returns true if the key needs no login, even on a token with a PIN.
    pub fn is_for_everybody(&self) -> bool {
        matches!(self.access, Access::Everybody)
    }

    /// Returns a key from a file that the module uses in memory.
    ///
    /// # Errors
    ///
    /// Fails with the reason why the module cannot use the key in memory.
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

    /// Returns a key from an unencrypted private key. The module uses the key in memory.
    ///
    /// # Errors
    ///
    /// Fails with the reason why the key cannot be used.
    pub(crate) fn in_clear(key: PrivateKeyInfo) -> Result<Self, &'static str> {
        let public = key.public().clone();
        Self::in_memory(&public, &KeyMaterial::Clear(key))
    }

    /// Returns the content of the key's file, or `None` if no file can store the key.
    pub(super) fn material(&self) -> Option<KeyMaterial> {
        let has_value = self.auth_salt().is_some();
        match &self.place {
            KeyLocation::Memory(soft) => Some(soft.material(has_value)),
            KeyLocation::Disk(wrapped, ..) => match wrapped.parent() {
                // Another program made the key, so its authorisation value is unknown.
                Parent::Owner { .. } if self.source.is_some() => None,
                Parent::Persistent(_) | Parent::Owner { .. } => {
                    let key = Tss2Key::of(Tss2Kind::Loadable, wrapped, has_value);
                    Some(KeyMaterial::Wrapped(key))
                }
            },
            KeyLocation::Handle(..) | KeyLocation::Template(..) | KeyLocation::Refused(..) => None,
        }
    }

    /// Returns the wrapped form of the key, if it has one.
    pub(super) fn on_disk(&self) -> Option<&WrappedKey> {
        match &self.place {
            KeyLocation::Disk(wrapped, ..) => Some(wrapped),
            KeyLocation::Handle(..)
            | KeyLocation::Template(..)
            | KeyLocation::Memory(_)
            | KeyLocation::Refused(..) => None,
        }
    }

    /// Returns the primary key, if the TPM has derived it.
    pub(crate) fn derived(&self) -> Option<&PrimaryKey> {
        match &self.place {
            KeyLocation::Template(_, _, derived, _) => derived.get().map(|(_, key)| key),
            KeyLocation::Handle(..)
            | KeyLocation::Disk(..)
            | KeyLocation::Memory(_)
            | KeyLocation::Refused(..) => None,
        }
    }

    /// Returns this key with the given access.
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

    /// Returns the public key.
    pub fn public(&self) -> &PublicKey {
        match &self.place {
            KeyLocation::Handle(_, area) | KeyLocation::Disk(_, area, _) => &area.key,
            KeyLocation::Refused(public, _) => public,
            KeyLocation::Template(public, ..) => public,
            KeyLocation::Memory(soft) => soft.public(),
        }
    }

    /// Returns the persistent handle of the key, if it has one.
    pub fn handle(&self) -> Option<u32> {
        match &self.place {
            KeyLocation::Handle(resident, _) => Some(resident.handle()),
            KeyLocation::Disk(_, _, persisted) => {
                persisted.as_ref().map(|persisted| persisted.handle)
            }
            KeyLocation::Template(..) | KeyLocation::Memory(_) | KeyLocation::Refused(..) => None,
        }
    }

    /// Returns the TPM name, or `None` if the key is not in the TPM or not derived yet.
    pub fn name(&self) -> Option<&[u8]> {
        match &self.place {
            KeyLocation::Handle(resident, _) => Some(resident.name()),
            KeyLocation::Disk(wrapped, ..) => Some(wrapped.name()),
            KeyLocation::Memory(_) | KeyLocation::Refused(..) => None,
            KeyLocation::Template(_, _, derived, _) => derived.get().map(|(_, key)| key.name()),
        }
    }

    /// Returns the TPMT_PUBLIC, or `None` if the key is not in the TPM or not derived yet.
    pub fn public_area(&self) -> Option<&[u8]> {
        self.area().map(PublicArea::as_bytes)
    }

    /// Returns true if this TPM created the key. This is always so for a primary key.
    pub fn is_of_this_tpm(&self) -> bool {
        self.protection() == Protection::Tpm && self.area().is_none_or(PublicArea::is_of_this_tpm)
    }

    /// Returns the protection of the private key.
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

    /// Returns true if the key can sign. A primary key can always sign.
    pub fn is_signing(&self) -> bool {
        match &self.place {
            _ if self.idle().is_some() => false,
            _ => self.area().is_none_or(PublicArea::signs) || self.pads(),
        }
    }

    /// Returns true if two conditions hold: an empty authorisation value is only assumed, and a
    /// wrong value counts towards lockout.
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

    /// Returns the permitted scheme: any scheme, if the key is not derived yet.
    fn own_scheme(&self) -> KeyScheme {
        match self.area() {
            Some(area) => area.scheme,
            None => KeyScheme::Any,
        }
    }

    /// Makes sure that the key is available. Derives a primary key. Tries to load a key that
    /// another program wrapped. Does this only once.
    ///
    /// # Errors
    ///
    /// - [`SignError::NotInThisTpm`] if no template gives the certified key.
    /// - [`SignError::Refused`] for a key that cannot be used.
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

    /// Asks the TPM once for its schemes and hashes, before the first use of a key without a fixed
    /// scheme. A key on P-256 needs no question: it uses only SHA-256, which every TPM has.
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
        // Only one thread derives the key. The wait ends, as a forked child may find it locked.
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
                without_fork(|| drop(derived.set((area, key))));
                Ok(())
            }
            None => {
                templates.give_up(public);
                Err(SignError::NotInThisTpm)
            }
        }
    }

    /// Returns the persistent key, if its handle holds it. Sends a command at the first call.
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
            info!("handle 0x{handle:08X} does not hold the key; its file is used instead");
        }
        Ok(without_fork(|| found.get_or_init(|| there)).as_ref())
    }

    /// Makes later uses load the key from its file. Returns `false` if that changes nothing.
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
            warn!("handle 0x{handle:08X} does not hold the key any more; its file is used");
        }
        first
    }

    /// Makes later uses derive the key again. Returns `false` if that changes nothing.
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

    /// Loads the key if needed and runs `commands`. Returns their result, and true if the caller
    /// must verify it, because another process may have put another key into the handle. A key in a
    /// space of its own needs no check, nor one with a proven value: the HMACs cover its name.
    ///
    /// If the authorisation value is empty, the commands may run twice.
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
            KeyLocation::Disk(wrapped, _, persisted) => {
                self.with_file(tpm, what, wrapped, persisted.as_ref(), value, commands)
            }
            KeyLocation::Template(_, _, derived, _) => match derived.get() {
                Some((_, key)) => tpm
                    .with_primary(what, key, commands)
                    .map(|answer| (answer, !tpm.tcti().has_own_space())),
                None => return Err(SignError::NotInThisTpm),
            },
            // The TPM does not hold a key that the module uses in memory.
            KeyLocation::Memory(_) => return Err(SignError::Scheme),
            KeyLocation::Refused(_, why) => return Err(SignError::Refused(self.of_file(why))),
        };
        used.map_err(|error| self.judged(tpm, error.into()))
    }

    /// Runs commands with the key in its persistent handle, or with the key loaded from its file.
    /// Returns their result, and true if the caller must verify the result.
    fn with_file<R>(
        &self,
        tpm: &Tpm,
        what: &str,
        wrapped: &WrappedKey,
        persisted: Option<&Persisted>,
        value: &AuthValue,
        mut commands: impl FnMut(&mut Link, AuthHandle) -> Result<R, TpmError>,
    ) -> Result<(R, bool), TpmError> {
        let resident = persisted
            .map(|persisted| Self::persisted(tpm, wrapped, persisted))
            .transpose()?
            .flatten();
        if let Some(resident) = resident {
            match tpm.with_persistent(what, resident, value, &mut commands) {
                Err(error) if is_elsewhere(&error) => drop(self.leave_handle()),
                other => return other.map(|answer| (answer, value.is_empty())),
            }
        }
        let answer = tpm.with_wrapped(what, wrapped, value, commands)?;
        Ok((answer, value.is_empty() && !tpm.tcti().has_own_space()))
    }

    /// Returns true if a wrong authorisation value counts towards the lockout of the whole TPM.
    pub(super) fn counts_wrong_auth(&self) -> bool {
        self.area().is_none_or(PublicArea::counts_wrong_auth)
    }
}

/// Returns true if the error means that the handle does not hold the key.
fn is_elsewhere(error: &TpmError) -> bool {
    match error {
        TpmError::Response(code) => code.is_missing_handle(),
        other => matches!(other, TpmError::KeyReplaced(_)),
    }
}
