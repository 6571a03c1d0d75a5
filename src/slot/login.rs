//! Logins and PINs (PKCS#11 3.0, sections 5.5.8, 5.5.9 and 5.6.6 to 5.6.10).

use crate::error::Error;
use crate::handle::Mint;
use crate::slot::Slot;
use cryptoki_sys::*;
use devid_core::store::folder::PinSeal;
use devid_core::store::{LoginError, Pins, UserType};
use devid_core::tpm::Secret;
use log::warn;
use std::sync::Arc;

impl Slot {
    pub(crate) fn has_user(&self) -> bool {
        self.logged_in.who() == Some(UserType::User)
    }

    pub(crate) fn has_security_officer(&self) -> bool {
        self.logged_in.who() == Some(UserType::SecurityOfficer)
    }

    /// Logs a user in. `enter` runs after the PIN was correct. If `enter` fails, the user is not
    /// logged in.
    pub(crate) fn login(
        &self,
        who: UserType,
        pin: Option<&[u8]>,
        enter: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let _turn = self.login_turn.lock();
        match self.logged_in.who() {
            None => {}
            Some(already) if already == who => return Err(Error::UserAlreadyLoggedIn),
            Some(_) => return Err(Error::UserAnotherAlreadyLoggedIn),
        }
        let store = self.store()?;
        match (store.pins(), who) {
            // The token has no PIN. Therefore no value is sent to the TPM. A wrong value would
            // count towards lockout.
            (Pins::None, UserType::User) => {}
            (_, UserType::SecurityOfficer) if !self.is_writable() => {
                return Err(Error::PinIncorrect);
            }
            (Pins::None, UserType::SecurityOfficer) => return Err(Error::PinIncorrect),
            (Pins::SecurityOfficer, UserType::User) => return Err(Error::UserPinNotInitialized),
            (Pins::SecurityOfficer | Pins::User, _) => {
                let pin = self.pin(who, pin)?;
                self.noted(who, store.login(who, &pin)).map_err(logged)?;
            }
        }
        enter().inspect_err(|_| store.logout())
    }

    /// Checks the user's PIN again for one operation (CKU_CONTEXT_SPECIFIC).
    pub(crate) fn prove_user(&self, pin: Option<&[u8]>, mint: &Mint) -> Result<(), Error> {
        let _turn = self.login_turn.lock();
        if !self.has_user() {
            return Err(Error::UserNotLoggedIn);
        }
        let pin = self.pin(UserType::User, pin)?;
        let store = self.store()?;
        let proven = self.noted(UserType::User, store.login(UserType::User, &pin));
        let proven = proven.map_err(logged);
        if proven == Err(Error::PinLocked) {
            self.logout(mint);
        } else if !self.has_user() {
            // Another thread logged out during the check. The secrets that this PIN unsealed are
            // wiped.
            store.logout();
            return Err(Error::UserNotLoggedIn);
        }
        proven
    }

    /// Records whether the PIN was right, for the token flags.
    fn noted<R>(&self, who: UserType, tried: Result<R, LoginError>) -> Result<R, LoginError> {
        match &tried {
            Ok(_) => self.tries.lock().right(who),
            Err(LoginError::Wrong) => self.tries.lock().wrong(who),
            Err(_) => {}
        }
        tried
    }

    /// Returns the PIN that the caller gave. If the caller gave no PIN, returns the user's PIN of
    /// the configuration.
    fn pin(&self, who: UserType, given: Option<&[u8]>) -> Result<Secret, Error> {
        match (given, who) {
            (Some(pin), _) => Ok(Secret::new(pin.to_vec())),
            (None, UserType::User) => self.configured_pin(),
            (None, UserType::SecurityOfficer) => Err(Error::ArgumentsBad("pPin is NULL")),
        }
    }

    /// Logs the current user out. Returns `false` if no user is logged in.
    pub(crate) fn logout(&self, mint: &Mint) -> bool {
        let was = self.logged_in.clear();
        // If no user is logged in, the store is not logged out. Another thread may be logging in,
        // and a logout would wipe the secrets that this login unseals.
        if was.is_some()
            && let Ok(store) = self.store()
        {
            store.logout();
        }
        if was == Some(UserType::User) && self.asks_login() {
            self.session_objects.lock().remove_private();
            let mut token = self.token.write();
            *token = token.as_ref().map(|token| Arc::new(token.logged_out(mint)));
        }
        was.is_some()
    }

    /// Implements C_InitToken. The caller has checked that the slot has no open session.
    pub(crate) fn init_token(&self, pin: &[u8], label: &str, mint: &Mint) -> Result<(), Error> {
        let _turn = self.login_turn.lock();
        self.folder()?.initialize(pin, label).map_err(logged)?;
        self.rescan(mint).map(drop)
    }

    /// Implements C_InitPIN. Fails unless the security officer is logged in.
    pub(crate) fn init_pin(&self, pin: &[u8]) -> Result<(), Error> {
        if !self.has_security_officer() {
            return Err(Error::UserNotLoggedIn);
        }
        self.folder()?.set_user_pin(pin).map_err(logged)
    }

    /// Implements C_SetPIN. Changes the security officer's PIN if the security officer is logged
    /// in. Otherwise changes the user's PIN.
    pub(crate) fn set_pin(&self, old: &[u8], new: &[u8]) -> Result<(), Error> {
        let _turn = self.login_turn.lock();
        let seal = match self.has_security_officer() {
            true => PinSeal::SecurityOfficer,
            false => PinSeal::User,
        };
        let who = match seal {
            PinSeal::SecurityOfficer => UserType::SecurityOfficer,
            PinSeal::User => UserType::User,
        };
        let changed = self.noted(who, self.folder()?.change_pin(seal, old, new));
        changed.map_err(|error| match logged(error) {
            // The token has no such PIN, so the given PIN cannot be correct.
            Error::UserPinNotInitialized => Error::PinIncorrect,
            other => other,
        })
    }

    /// Returns the flags for C_GetTokenInfo. If the token has PINs, asks the TPM how many tries are
    /// left.
    pub(crate) fn token_flags(&self) -> CK_FLAGS {
        // Clients skip a token without these flags. Therefore a token without PIN sets the flags
        // too. Without CKF_LOGIN_REQUIRED no client asks for a PIN.
        let mut flags = CKF_RNG | CKF_TOKEN_INITIALIZED;
        if self.is_for_sessions() {
            // pkcs11-provider stores the public keys of peers only on a writable token with these
            // flags. The token for sessions has no PIN, and C_Login accepts any PIN or none.
            let login = CKF_LOGIN_REQUIRED | CKF_PROTECTED_AUTHENTICATION_PATH;
            return flags | login | CKF_USER_PIN_INITIALIZED;
        }
        if !self.is_writable() {
            flags |= CKF_WRITE_PROTECTED;
        }
        let Ok(store) = self.store() else {
            return flags;
        };
        let pins = store.pins();
        if pins != Pins::SecurityOfficer {
            flags |= CKF_USER_PIN_INITIALIZED;
        }
        if pins == Pins::None {
            return flags;
        }
        flags |= CKF_LOGIN_REQUIRED;
        if self.configured_pin().is_ok() {
            flags |= CKF_PROTECTED_AUTHENTICATION_PATH;
        }
        // All PINs share the dictionary attack counter of the TPM.
        let Some(lockout) = store.lockout() else {
            return flags;
        };
        let (mut user, mut officer) = match lockout.tries_left() {
            0 => (CKF_USER_PIN_LOCKED, CKF_SO_PIN_LOCKED),
            1 => (CKF_USER_PIN_FINAL_TRY, CKF_SO_PIN_FINAL_TRY),
            _ => (0, 0),
        };
        let mut tries = self.tries.lock();
        if tries.has_failed(UserType::User, lockout.counter) {
            user |= CKF_USER_PIN_COUNT_LOW;
        }
        if tries.has_failed(UserType::SecurityOfficer, lockout.counter) {
            officer |= CKF_SO_PIN_COUNT_LOW;
        }
        match self.is_writable() {
            true => flags | user | officer,
            false => flags | user,
        }
    }

    /// Returns the smallest and the largest length of a PIN in bytes.
    pub(crate) fn pin_lengths(&self) -> Result<(CK_ULONG, CK_ULONG), Error> {
        let lengths = self.source()?.store.pin_lengths();
        Ok((*lengths.start() as CK_ULONG, *lengths.end() as CK_ULONG))
    }
}

fn logged(error: LoginError) -> Error {
    warn!("PIN: {error}");
    error.into()
}
