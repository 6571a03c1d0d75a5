//! PINs of a token. Each PIN opens a seal of the TPM, and the seal holds the secret of the token.
//! The authorisation value of each key is derived from that secret. So a change of a PIN needs only
//! a new seal, and no key depends on the PIN itself.
//!
//! The seals are the only objects of the project for which the TPM counts wrong values. Too many
//! wrong values lock the whole TPM, and a factory identity cannot sign while the TPM is locked. So
//! the module first asks the TPM for the number of remaining tries, and never uses the last try.

use super::{DevidStore, OpenedBy, StoreError};
use crate::store::folder::{EntryContent, KeyAuth, PinSeal, PinSealText, Tss2Key, Tss2Kind};
use crate::store::key::{SECRET, secret_mark};
use crate::store::{Access, LoginError, unloadable};
use crate::tpm::{AuthValue, Hash, Secret, TpmError, random_secret};
use log::{info, warn};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// The length of the salt from which the authorisation value of one key is derived, in bytes.
const SALT: usize = 16;
/// The permitted lengths of a PIN in bytes.
pub(in crate::store) const PIN_LENGTHS: RangeInclusive<usize> = 4..=64;

/// A new seal (sealed data of the TPM) that is not stored in a file yet.
struct NewSeal {
    seal: PinSeal,
    sealed: Tss2Key,
    beside: PinSealText,
}

impl DevidStore {
    /// Initialises the token with the PIN of the security officer. The security officer then sets
    /// the PIN of the user. If the token was initialised before, all its objects are destroyed.
    ///
    /// # Errors
    ///
    /// After an error the token is unchanged.
    ///
    /// - [`LoginError::Wrong`]: the PIN is not the PIN of the security officer.
    /// - [`LoginError::NotEmpty`]: the token holds objects but was never initialised. A user
    ///   without PIN must not destroy these objects.
    /// - [`LoginError::Refused`]: a key cannot be destroyed.
    /// - [`LoginError::Tpm`]: the TPM does not open the new seal.
    pub fn initialize(&self, pin: &[u8], label: &str) -> Result<(), LoginError> {
        let value = value_of(pin)?;
        let has_officer = self.folder.has_seal(PinSeal::SecurityOfficer);
        let has_officer = has_officer.map_err(StoreError::from)?;
        if has_officer {
            self.open(PinSeal::SecurityOfficer, pin)?;
            self.refuse_identity()?;
            self.check_writable()?;
        } else if !self.is_empty()? {
            return Err(LoginError::NotEmpty);
        }
        let secret = random_secret(SECRET)?;
        // The TPM opens the new seal once as a test, before any object is destroyed.
        let sealed = self.proven_seal(PinSeal::SecurityOfficer, &value, &secret, label)?;
        if has_officer {
            self.erase(true, true)?;
            self.folder
                .remove_seal(PinSeal::User)
                .map_err(StoreError::from)?;
        }
        self.folder
            .begin(&self.first_serial().map_err(StoreError::from)?)
            .map_err(StoreError::from)?;
        self.put(&sealed)?;
        info!("{}: initialised", self.folder.path().display());
        Ok(())
    }

    /// Sets the PIN of the user. The security officer must be logged in.
    ///
    /// # Errors
    ///
    /// Fails with [`LoginError::Refused`] while the token holds keys whose files have no line
    /// `Auth`. These keys would still need no PIN.
    pub fn set_user_pin(&self, pin: &[u8]) -> Result<(), LoginError> {
        let value = value_of(pin)?;
        let secret = self.officer.secret().map_err(|_| LoginError::NotLoggedIn)?;
        if !self.is_current(&secret)? {
            return Err(LoginError::NotLoggedIn);
        }
        let listing = self.whole_listing()?;
        let open = |content: &EntryContent| match content {
            EntryContent::Pair(pair) => pair.auth == KeyAuth::Unsaid,
            EntryContent::SecretKey(key) => key.auth == KeyAuth::Unsaid,
            EntryContent::Public(..) | EntryContent::Certificate(..) | EntryContent::Data(_) => {
                false
            }
        };
        if let Some(key) = listing.entries.iter().find(|one| open(&one.content)) {
            return Err(LoginError::Refused(format!(
                "the key {:?} needs no PIN, and would need none after this call either: destroy \
                 such keys, set the PIN, then create the keys again",
                key.name
            )));
        }
        self.put(&self.proven_seal(PinSeal::User, &value, &secret, "")?)
    }

    /// Changes a PIN. The caller must know the old PIN. Replaces only the seal. A copy of the old
    /// file can still be opened with the old PIN.
    pub fn change_pin(&self, seal: PinSeal, old: &[u8], new: &[u8]) -> Result<(), LoginError> {
        let value = value_of(new)?;
        let secret = self.open(seal, old)?;
        let label = match seal {
            PinSeal::SecurityOfficer => self.label()?,
            PinSeal::User => String::new(),
        };
        self.put(&self.proven_seal(seal, &value, &secret, &label)?)
    }

    /// Unseals the data of a seal with a PIN as the authorisation value.
    pub(super) fn open(&self, seal: PinSeal, pin: &[u8]) -> Result<Secret, LoginError> {
        // A PIN of this length cannot have been set. The TPM is not asked, so it counts no failed
        // try.
        let value = value_of(pin).map_err(|_| LoginError::Wrong)?;
        let sealed = self.folder.seal(seal).map_err(StoreError::from)?;
        let (sealed, _) = sealed.ok_or(LoginError::NotInitialized)?;
        let master = self.remembered_master()?;
        let _lock = self.tpm.lock_pin_try(self.allow_last_try)?;
        let parentless = |why| StoreError::from(self.folder.damaged_seal(seal, why));
        let sealed = sealed.wrapped().map_err(parentless)?;
        let value = AuthValue::salted(value, master.salt_key());
        self.tpm
            .unseal(&sealed, &value)
            .map_err(|error| match error {
                TpmError::WrongAuth(_) => LoginError::Wrong,
                TpmError::Lockout(tcti) => LoginError::Locked(tcti),
                error => self.of_seal(seal, error),
            })
    }

    /// Explains why the TPM does not unseal the data of a seal.
    fn of_seal(&self, seal: PinSeal, error: TpmError) -> LoginError {
        match self.master_record().judged(&self.tpm, error) {
            TpmError::Unloadable(why) => {
                LoginError::Store(self.folder.damaged_seal(seal, &unloadable(&why)).into())
            }
            error => LoginError::Tpm(error),
        }
    }

    /// Returns the label that the token got at its initialisation. A token without such a label has
    /// its name as label.
    pub fn label(&self) -> Result<String, StoreError> {
        let officer = self.folder.seal(PinSeal::SecurityOfficer)?;
        let given = officer
            .map(|(_, beside)| beside.label)
            .filter(|label| !label.is_empty());
        Ok(given.unwrap_or_else(|| self.name.clone()))
    }

    /// Returns how a new key is authorised, and the authorisation value that the TPM gives to the
    /// key.
    ///
    /// # Errors
    ///
    /// Fails if the token needs a login.
    pub(super) fn access_for_new_key(
        &self,
        opened_by: OpenedBy,
    ) -> Result<(Access, Secret), StoreError> {
        let access = match (self.folder.has_seal(PinSeal::SecurityOfficer)?, opened_by) {
            (false, _) => Some(Access::Open),
            (true, OpenedBy::Anybody) => Some(Access::Everybody),
            (true, OpenedBy::User) => None,
        };
        if let Some(access) = access {
            return Ok((access, Secret::default()));
        }
        self.check_login()?;
        let salt = random_secret(SALT)?.to_vec();
        let access = self.access(&salt);
        let value = access.value().map_err(|_| StoreError::NotLoggedIn)?;
        Ok((access, Secret::new(value.as_bytes().to_vec())))
    }

    /// Checks that the logged-in user has the current secret of the token. Another process may have
    /// initialised the token in the meantime. No PIN could open a key that is created with the old
    /// secret.
    pub(super) fn check_login(&self) -> Result<(), StoreError> {
        if !self.folder.has_seal(PinSeal::SecurityOfficer)? {
            return Ok(());
        }
        let secret = self.login.secret().map_err(|_| StoreError::NotLoggedIn)?;
        match self.is_current(&secret)? {
            true => Ok(()),
            false => Err(StoreError::NotLoggedIn),
        }
    }

    fn is_current(&self, secret: &Secret) -> Result<bool, StoreError> {
        let officer = self.folder.seal(PinSeal::SecurityOfficer)?;
        let mark = officer.and_then(|(_, beside)| beside.mark);
        // A file of a seal from an older version has no line `Secret`, so the secret cannot be
        // compared.
        let is_current = mark.is_none_or(|mark| mark == secret_mark(secret));
        if !is_current {
            warn!(
                "{}: the token was initialised again after the login: log out, then log in with \
                 the new PIN",
                self.folder.path().display()
            );
        }
        Ok(is_current)
    }

    /// Returns how a key is authorised, from the form that the file of the key stores.
    pub(super) fn access_of(&self, auth: &KeyAuth) -> Access {
        match auth {
            KeyAuth::Unsaid => Access::Open,
            KeyAuth::Open => Access::Everybody,
            KeyAuth::Salt(salt) => self.access(salt),
        }
    }

    /// Returns the authorisation of a key whose authorisation value is derived with this salt.
    pub(super) fn access(&self, salt: &[u8]) -> Access {
        Access::Derived {
            login: Arc::clone(&self.login),
            salt: salt.to_vec(),
        }
    }

    /// Creates a seal that is not stored yet. The TPM opens the seal once with the PIN, so the PIN
    /// is known to work.
    ///
    /// # Errors
    ///
    /// After an error the token is unchanged.
    fn proven_seal(
        &self,
        seal: PinSeal,
        value: &Secret,
        secret: &Secret,
        label: &str,
    ) -> Result<NewSeal, LoginError> {
        let master = self.master_for_new_keys()?;
        let sealed = match self.tpm.seal(&master, value, secret, true) {
            // The parent is a storage key with an empty authorisation value. So the auth session
            // caused the error.
            Err(TpmError::Response(code)) if code.is_wrong_auth() => {
                return Err(unopened(
                    "it rejected the right authorisation value of the parent as wrong",
                ));
            }
            other => other?,
        };
        let by = AuthValue::salted(value.clone(), master.salt_key());
        let _lock = self.tpm.lock_pin_try(self.allow_last_try)?;
        match self.tpm.unseal(&sealed, &by) {
            Ok(opened) if opened == *secret => {}
            Ok(_) => return Err(unopened("it returned other data")),
            Err(TpmError::WrongAuth(_)) => {
                return Err(unopened(
                    "it rejected the right PIN as wrong, and counted a failed try",
                ));
            }
            Err(TpmError::Unloadable(_)) => return Err(unopened("it did not load the new seal")),
            Err(TpmError::Lockout(tcti)) => return Err(LoginError::Locked(tcti)),
            Err(error) => return Err(error.into()),
        }
        Ok(NewSeal {
            seal,
            sealed: Tss2Key::of(Tss2Kind::Sealed, &sealed, true),
            beside: PinSealText {
                label: label.to_owned(),
                mark: (seal == PinSeal::SecurityOfficer).then(|| secret_mark(secret)),
            },
        })
    }

    fn put(&self, new: &NewSeal) -> Result<(), LoginError> {
        let put = self.folder.put_seal(new.seal, &new.sealed, &new.beside);
        Ok(put.map_err(StoreError::from)?)
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        let listing = self.whole_listing()?;
        Ok(listing.entries.is_empty() && listing.refused.is_empty())
    }

    /// Fails if the own identity of the device is in this folder. The security officer must not
    /// destroy it.
    fn refuse_identity(&self) -> Result<(), LoginError> {
        let listing = self.whole_listing()?;
        let stays = |content: &EntryContent| matches!(content, EntryContent::Pair(pair) if !pair.private.destroyable);
        match listing.entries.iter().find(|one| stays(&one.content)) {
            None => Ok(()),
            Some(key) => Err(LoginError::Refused(format!(
                "{}: the key {:?} belongs to the own identity of the device and cannot be \
                 destroyed, so the token is not initialised again; only devid reset --factory ends \
                 the identity",
                self.folder.path().display(),
                key.name
            ))),
        }
    }
}

/// Returns the error for a TPM that cannot seal and unseal data for a new PIN.
fn unopened(what: &str) -> LoginError {
    let why = format!(
        "the TPM cannot seal and unseal data for a new PIN: {what}. No PIN was set, and the token \
         is unchanged. The auth sessions of this TPM differ from the standard, so no PIN works \
         with it"
    );
    TpmError::WrongAnswer(why).into()
}

/// Returns the authorisation value for a PIN: the hash of the PIN. The PIN itself might end in zero
/// bytes, which a TPM would remove, or be longer than the TPM permits.
fn value_of(pin: &[u8]) -> Result<Secret, LoginError> {
    match PIN_LENGTHS.contains(&pin.len()) {
        true => Ok(Secret::new(Hash::Sha256.digest(&[pin]))),
        false => Err(LoginError::Length),
    }
}
