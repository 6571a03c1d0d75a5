//! One session: its search and its operation (PKCS#11 3.0, sections 2.6, 5.7.6 and 5.13).
//!
//! The rule of operations: a call TAKES the operation out of the session, and puts it back only
//! for a length query or a small buffer. Whatever else happens, the operation is over; and no lock
//! is held while the TPM works.

use crate::attribute::Template;
use crate::error::Error;
use crate::handle::{Mint, ObjectHandle, SessionHandle};
use crate::mechanism::{Hasher, Mechanism};
use crate::output::{Answer, Room};
use crate::token::{Slot, Token};
use cryptoki_sys::{CK_FLAGS, CKF_FIND_OBJECTS, CKF_SIGN};
use devid_core::store::Key;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

/// A session, always read-only so far.
pub(crate) struct Session {
    pub(crate) handle: SessionHandle,
    pub(crate) slot: Arc<Slot>,
    state: Mutex<State>,
}

#[derive(Default, Clone)]
struct State {
    find: Option<Find>,
    sign: Option<Signing>,
}

/// A search: what was found when it began.
#[derive(Clone)]
struct Find(VecDeque<ObjectHandle>);

/// A signature under way.
#[derive(Clone)]
struct Signing {
    key: Arc<Key>,
    mechanism: Mechanism,
    /// Of a signature in parts: the hash of the parts so far.
    parts: Option<Hasher>,
}

impl Session {
    pub(crate) fn new(handle: SessionHandle, slot: Arc<Slot>) -> Self {
        Self {
            handle,
            slot,
            state: Mutex::default(),
        }
    }

    /// The session in a forked child; `None` if another thread of the parent was inside it.
    pub(crate) fn for_child(&self, slot: Arc<Slot>) -> Option<Self> {
        let state = self.state.try_lock()?.clone();
        Some(Self {
            handle: self.handle,
            slot,
            state: Mutex::new(state),
        })
    }

    /// The session's token as it is known, without a look.
    pub(crate) fn token(&self) -> Result<Arc<Token>, Error> {
        self.slot.known().ok_or(Error::DeviceRemoved)
    }

    pub(crate) fn find_init(&self, template: &Template, mint: &Mint) -> Result<(), Error> {
        if self.state.lock().find.is_some() {
            return Err(Error::OperationActive);
        }
        let found = match self.slot.token(mint) {
            Ok(token) => token.find(template),
            Err(Error::TokenNotPresent) => return Err(Error::DeviceRemoved),
            Err(error) => return Err(error),
        };
        self.state.lock().find = Some(Find(found.into()));
        Ok(())
    }

    /// At most `most` of the handles that were not given yet.
    pub(crate) fn find(&self, most: usize) -> Result<Vec<ObjectHandle>, Error> {
        let mut state = self.state.lock();
        let Find(left) = state.find.as_mut().ok_or(Error::OperationNotInitialized)?;
        Ok(left.drain(..most.min(left.len())).collect())
    }

    pub(crate) fn find_final(&self) -> Result<(), Error> {
        match self.state.lock().find.take() {
            Some(_) => Ok(()),
            None => Err(Error::OperationNotInitialized),
        }
    }

    pub(crate) fn sign_init(&self, mechanism: Mechanism, key: ObjectHandle) -> Result<(), Error> {
        let token = self.token()?;
        let object = token.object(key).map_err(|_| Error::KeyHandleInvalid)?;
        let key = object.key.as_ref().ok_or(Error::KeyHandleInvalid)?;
        if !token.lists(mechanism) {
            return Err(Error::MechanismInvalid);
        }
        self.slot.prepare(key)?;
        mechanism.check(key)?;
        let mut state = self.state.lock();
        if state.sign.is_some() {
            return Err(Error::OperationActive);
        }
        state.sign = Some(Signing {
            key: Arc::clone(key),
            mechanism,
            parts: None,
        });
        Ok(())
    }

    /// Ends the operations that `flags` name, whether there are such or not (section 5.6.8).
    pub(crate) fn cancel(&self, flags: CK_FLAGS) {
        let mut state = self.state.lock();
        if flags & CKF_FIND_OBJECTS != 0 {
            state.find = None;
        }
        if flags & CKF_SIGN != 0 {
            state.sign = None;
        }
    }

    /// Ends the signature under way, if there is one (C_SignInit without a mechanism).
    pub(crate) fn sign_cancel(&self) -> Result<(), Error> {
        let cancelled = self.state.lock().sign.take();
        cancelled
            .map(drop)
            .ok_or(Error::ArgumentsBad("pMechanism is NULL"))
    }

    /// `data` and `room` are `None` where the caller's pointers are of no use.
    pub(crate) fn sign(&self, data: Option<&[u8]>, room: Option<Room>) -> Result<Answer, Error> {
        let signing = self.take_signing()?;
        if signing.parts.is_some() {
            return Err(Error::OperationActive);
        }
        let data = data.ok_or(Error::ArgumentsBad("pData is NULL"))?;
        let room = room.ok_or(Error::ArgumentsBad("pulSignatureLen is NULL"))?;
        if let Some(answer) = room.refuses(signing.key.public().signature_width()) {
            self.put_back(signing);
            return Ok(answer);
        }
        match signing.mechanism.hasher() {
            Some(mut hasher) => {
                hasher.update(data);
                self.finish(&signing, &hasher.finish())
            }
            None => self.finish(&signing, data),
        }
    }

    pub(crate) fn sign_update(&self, part: Option<&[u8]>) -> Result<(), Error> {
        let mut signing = self.take_signing()?;
        let part = part.ok_or(Error::ArgumentsBad("pPart is NULL"))?;
        let mut hasher = signing.hasher()?;
        hasher.update(part);
        signing.parts = Some(hasher);
        self.put_back(signing);
        Ok(())
    }

    pub(crate) fn sign_final(&self, room: Option<Room>) -> Result<Answer, Error> {
        let mut signing = self.take_signing()?;
        let room = room.ok_or(Error::ArgumentsBad("pulSignatureLen is NULL"))?;
        let hasher = signing.hasher()?;
        if let Some(answer) = room.refuses(signing.key.public().signature_width()) {
            signing.parts = Some(hasher);
            self.put_back(signing);
            return Ok(answer);
        }
        self.finish(&signing, &hasher.finish())
    }

    fn finish(&self, signing: &Signing, prepared: &[u8]) -> Result<Answer, Error> {
        let request = signing.mechanism.request(&signing.key, prepared)?;
        self.slot.sign(&signing.key, request).map(Answer::Bytes)
    }

    fn take_signing(&self) -> Result<Signing, Error> {
        mem::take(&mut self.state.lock().sign).ok_or(Error::OperationNotInitialized)
    }

    fn put_back(&self, signing: Signing) {
        self.state.lock().sign = Some(signing);
    }
}

impl Signing {
    /// The hash so far. CKM_ECDSA has none: it is for single parts only.
    fn hasher(&mut self) -> Result<Hasher, Error> {
        let begun = self.parts.take().or_else(|| self.mechanism.hasher());
        begun.ok_or(Error::OperationNotInitialized)
    }
}
