//! A session: its search and its operations (PKCS#11 3.0, sections 2.6, 5.7.6 and 5.13).
//!
//! The rule for operations: a call takes the operation out of the session. The call puts the
//! operation back only after a length query, or if the buffer is too small. In all other cases the
//! operation ends. The session is not locked while the TPM works.

mod audit;
mod changes;
mod cipher;
mod copy;
mod derive;
mod digest;
mod encrypt;
mod mac;
mod objects;
mod operation;
mod secret_keys;
mod sign;
mod unwrap;

use self::operation::{Find, Operations};
use crate::error::Error;
use crate::handle::{Mint, ObjectHandle, SessionHandle};
use crate::mechanism::cipher::Direction;
use crate::object::Object;
use crate::slot::Slot;
use crate::slot::token::Token;
use crate::template::Template;
use cryptoki_sys::{
    CK_FLAGS, CKA_PRIVATE, CKF_DECRYPT, CKF_DIGEST, CKF_ENCRYPT, CKF_FIND_OBJECTS, CKF_SIGN,
    CKF_VERIFY,
};
use devid_core::store::folder::Use;
use parking_lot::Mutex;
use std::cell::LazyCell;
use std::collections::VecDeque;
use std::sync::Arc;

/// A session.
pub(crate) struct Session {
    pub(crate) handle: SessionHandle,
    pub(crate) slot: Arc<Slot>,
    pub(crate) is_read_write: bool,
    operations: Mutex<Operations>,
}

impl Session {
    pub(crate) fn new(handle: SessionHandle, slot: Arc<Slot>, is_read_write: bool) -> Self {
        Self {
            handle,
            slot,
            is_read_write,
            operations: Mutex::default(),
        }
    }

    /// Returns the session for a forked child. Returns `None` if another thread of the parent had
    /// the session locked.
    pub(crate) fn for_child(&self, slot: Arc<Slot>) -> Option<Self> {
        let operations = self.operations.try_lock()?.clone();
        Some(Self {
            handle: self.handle,
            slot,
            is_read_write: self.is_read_write,
            operations: Mutex::new(operations),
        })
    }

    /// Returns the token of the last scan. Does not start a new scan.
    pub(crate) fn token(&self) -> Result<Arc<Token>, Error> {
        self.slot.known_token().ok_or(Error::DeviceRemoved)
    }

    pub(crate) fn find_init(&self, template: &Template, mint: &Mint) -> Result<(), Error> {
        if self.operations.lock().find.is_some() {
            return Err(Error::OperationActive);
        }
        let found = match self.slot.token(mint) {
            Ok(token) => {
                // `hides_private` runs at most once, and only if a private object matches.
                let hides_private = LazyCell::new(|| self.slot.hides_private());
                let is_wanted = |object: &Object| {
                    template.matches(object) && !(object.has_flag(CKA_PRIVATE) && *hides_private)
                };
                let of_token = token.objects().iter();
                let of_token = of_token.filter(|found| is_wanted(&found.object));
                let mut found: VecDeque<_> = of_token.map(|found| found.handle).collect();
                found.extend(self.slot.session_objects.lock().find(is_wanted));
                found
            }
            Err(Error::TokenNotPresent) => return Err(Error::DeviceRemoved),
            Err(error) => return Err(error),
        };
        self.operations.lock().find = Some(Find(found));
        Ok(())
    }

    /// Returns at most `most` of the handles that were not returned yet. Objects that a logout has
    /// hidden are not returned.
    pub(crate) fn find(&self, most: usize) -> Result<Vec<ObjectHandle>, Error> {
        let mut operations = self.operations.lock();
        let Find(left) = operations
            .find
            .as_mut()
            .ok_or(Error::OperationNotInitialized)?;
        self.slot.retain_seen(left);
        Ok(left.drain(..most.min(left.len())).collect())
    }

    pub(crate) fn find_final(&self) -> Result<(), Error> {
        match self.operations.lock().find.take() {
            Some(_) => Ok(()),
            None => Err(Error::OperationNotInitialized),
        }
    }

    /// Ends an operation (an Init call without a mechanism). `end` removes the operation, and
    /// returns true if the session had the operation.
    fn end_operation(&self, end: impl FnOnce(&mut Operations) -> bool) -> Result<(), Error> {
        match end(&mut self.operations.lock()) {
            true => Ok(()),
            false => Err(Error::ArgumentsBad("pMechanism is NULL")),
        }
    }

    /// Ends the current operations that `flags` name (section 5.6.8). No such operation is needed.
    pub(crate) fn cancel(&self, flags: CK_FLAGS) {
        let mut operations = self.operations.lock();
        if flags & CKF_FIND_OBJECTS != 0 {
            operations.find = None;
        }
        if flags & CKF_SIGN != 0 {
            operations.sign = None;
            *operations.mac(Use::Sign) = None;
        }
        if flags & CKF_VERIFY != 0 {
            operations.verify = None;
            *operations.mac(Use::Verify) = None;
        }
        if flags & CKF_DECRYPT != 0 {
            operations.decrypt = None;
            *operations.cipher(Direction::Decrypt) = None;
        }
        if flags & CKF_ENCRYPT != 0 {
            operations.encrypt = None;
            *operations.cipher(Direction::Encrypt) = None;
        }
        if flags & CKF_DIGEST != 0 {
            operations.digest = None;
        }
    }

    /// Implements C_Login with CKU_CONTEXT_SPECIFIC: the PIN authorises one current signature or
    /// decryption. If a signature and a decryption wait for the PIN, the PIN authorises the
    /// signature.
    pub(crate) fn prove_user(&self, pin: Option<&[u8]>, mint: &Mint) -> Result<(), Error> {
        if self.operations.lock().awaiting().is_none() {
            return Err(Error::OperationNotInitialized);
        }
        self.slot.prove_user(pin, mint)?;
        if let Some(awaits_user) = self.operations.lock().awaiting() {
            *awaits_user = false;
        }
        Ok(())
    }

    /// Implements C_InitPIN.
    pub(crate) fn init_pin(&self, pin: &[u8]) -> Result<(), Error> {
        self.check_may_write()?;
        self.slot.init_pin(pin)
    }

    /// Implements C_SetPIN.
    pub(crate) fn set_pin(&self, old: &[u8], new: &[u8]) -> Result<(), Error> {
        self.check_may_write()?;
        self.slot.set_pin(old, new)
    }

    pub(crate) fn key_object(&self, key: ObjectHandle) -> Result<Arc<Object>, Error> {
        self.slot.object(key).map_err(|error| match error {
            Error::ObjectHandleInvalid => Error::KeyHandleInvalid,
            other => other,
        })
    }
}
