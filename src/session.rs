//! One session: its search and its operation (PKCS#11 3.0, sections 2.6, 5.7.6 and 5.13).
//!
//! The rule of operations: a call TAKES the operation out of the session, and puts it back only
//! for a length query or a small buffer. Whatever else happens, the operation is over; and no lock
//! is held while the TPM works.

use crate::attribute::Template;
use crate::create;
use crate::error::Error;
use crate::handle::{Mint, ObjectHandle, SessionHandle};
use crate::mechanism::{Hasher, Mechanism};
use crate::object::Object;
use crate::output::{Answer, Room};
use crate::token::{Slot, Token};
use cryptoki_sys::{CK_FLAGS, CK_TRUE, CKA_VERIFY, CKF_FIND_OBJECTS, CKF_SIGN, CKF_VERIFY};
use devid_core::key::PublicKey;
use devid_core::store::Key;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// A session: read-only, for a write-protected token.
pub(crate) struct Session {
    pub(crate) handle: SessionHandle,
    pub(crate) slot: Arc<Slot>,
    state: Mutex<State>,
}

#[derive(Default, Clone)]
struct State {
    find: Option<Find>,
    sign: Option<Signing>,
    verify: Option<Verifying>,
}

/// A search: what was found when it began.
#[derive(Clone)]
struct Find(VecDeque<ObjectHandle>);

/// A signature under way, to be made or to be verified.
#[derive(Clone)]
struct Operation<K> {
    key: K,
    mechanism: Mechanism,
    /// Of one in parts: the hash of the parts so far.
    parts: Option<Hasher>,
}

type Signing = Operation<Arc<Key>>;
type Verifying = Operation<PublicKey>;

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
            Ok(token) => {
                let mut found = token.find(template);
                found.extend(self.slot.find_of_sessions(template));
                found
            }
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

    /// Ends the operations that `flags` name, whether there are such or not (section 5.6.8).
    pub(crate) fn cancel(&self, flags: CK_FLAGS) {
        let mut state = self.state.lock();
        if flags & CKF_FIND_OBJECTS != 0 {
            state.find = None;
        }
        if flags & CKF_SIGN != 0 {
            state.sign = None;
        }
        if flags & CKF_VERIFY != 0 {
            state.verify = None;
        }
    }

    /// Makes an object that lives as long as the session.
    pub(crate) fn create(&self, template: &Template, mint: &Mint) -> Result<ObjectHandle, Error> {
        let handle = mint.object();
        let draft = create::public_key(template, format!("session-{}", handle.0))?;
        self.slot.keep(self.handle, draft.with_handle(handle));
        Ok(handle)
    }

    /// Destroys an object of a session; the token's own are not to be destroyed.
    pub(crate) fn destroy(&self, object: ObjectHandle) -> Result<(), Error> {
        let exists = self.slot.object(object).map(drop);
        match self.slot.forget(object) {
            true => Ok(()),
            false => exists.and(Err(Error::ActionProhibited)),
        }
    }

    /// The key decides what it can do. Of a mechanism for another type of key the token says
    /// whether it knows such at all.
    pub(crate) fn sign_init(&self, mechanism: Mechanism, key: ObjectHandle) -> Result<(), Error> {
        let object = self.key_object(key)?;
        let key = object.shared_private().ok_or(Error::KeyHandleInvalid)?;
        if self.state.lock().sign.is_some() {
            return Err(Error::OperationActive);
        }
        if mechanism.is_of_type(key.public()) {
            self.slot.prepare(&key)?;
        }
        match mechanism.check(&key) {
            Err(Error::KeyTypeInconsistent) if !self.token()?.lists(mechanism) => {
                return Err(Error::MechanismInvalid);
            }
            checked => checked?,
        }
        let operation = Operation {
            key,
            mechanism,
            parts: None,
        };
        begin(&mut self.state.lock().sign, operation)
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
        let signing = take(&mut self.state.lock().sign)?;
        let data = signing.whole(data)?;
        let room = room.ok_or(Error::ArgumentsBad("pulSignatureLen is NULL"))?;
        if let Some(answer) = room.refuses(signing.key.public().signature_width()) {
            self.state.lock().sign = Some(signing);
            return Ok(answer);
        }
        self.make(&signing, &signing.digest(data))
    }

    pub(crate) fn sign_update(&self, part: Option<&[u8]>) -> Result<(), Error> {
        let signing = take(&mut self.state.lock().sign)?.with(part)?;
        self.state.lock().sign = Some(signing);
        Ok(())
    }

    pub(crate) fn sign_final(&self, room: Option<Room>) -> Result<Answer, Error> {
        let mut signing = take(&mut self.state.lock().sign)?;
        let room = room.ok_or(Error::ArgumentsBad("pulSignatureLen is NULL"))?;
        let hasher = signing.hasher()?;
        if let Some(answer) = room.refuses(signing.key.public().signature_width()) {
            signing.parts = Some(hasher);
            self.state.lock().sign = Some(signing);
            return Ok(answer);
        }
        self.make(&signing, &hasher.finish())
    }

    pub(crate) fn verify_init(&self, mechanism: Mechanism, key: ObjectHandle) -> Result<(), Error> {
        let object = self.key_object(key)?;
        let key = object.public().ok_or(Error::KeyHandleInvalid)?.clone();
        if object.attribute(CKA_VERIFY) != Ok(&[CK_TRUE]) {
            return Err(Error::KeyFunctionNotPermitted);
        }
        if !mechanism.is_of_type(&key) {
            return Err(Error::KeyTypeInconsistent);
        }
        begin(
            &mut self.state.lock().verify,
            Operation {
                key,
                mechanism,
                parts: None,
            },
        )
    }

    /// Ends the verification under way, if there is one (C_VerifyInit without a mechanism).
    pub(crate) fn verify_cancel(&self) -> Result<(), Error> {
        let cancelled = self.state.lock().verify.take();
        cancelled
            .map(drop)
            .ok_or(Error::ArgumentsBad("pMechanism is NULL"))
    }

    pub(crate) fn verify(
        &self,
        data: Option<&[u8]>,
        signature: Option<&[u8]>,
    ) -> Result<(), Error> {
        let verifying = take(&mut self.state.lock().verify)?;
        let data = verifying.whole(data)?;
        verifying.check(&verifying.digest(data), signature)
    }

    pub(crate) fn verify_update(&self, part: Option<&[u8]>) -> Result<(), Error> {
        let verifying = take(&mut self.state.lock().verify)?.with(part)?;
        self.state.lock().verify = Some(verifying);
        Ok(())
    }

    pub(crate) fn verify_final(&self, signature: Option<&[u8]>) -> Result<(), Error> {
        let mut verifying = take(&mut self.state.lock().verify)?;
        let digest = verifying.hasher()?.finish();
        verifying.check(&digest, signature)
    }

    fn key_object(&self, key: ObjectHandle) -> Result<Arc<Object>, Error> {
        self.slot.object(key).map_err(|error| match error {
            Error::ObjectHandleInvalid => Error::KeyHandleInvalid,
            other => other,
        })
    }

    fn make(&self, signing: &Signing, prepared: &[u8]) -> Result<Answer, Error> {
        let request = signing.mechanism.request(signing.key.public(), prepared)?;
        signing.mechanism.check_request(&signing.key, request)?;
        self.slot.sign(&signing.key, request).map(Answer::Bytes)
    }
}

fn begin<K>(place: &mut Option<Operation<K>>, operation: Operation<K>) -> Result<(), Error> {
    match place {
        Some(_) => Err(Error::OperationActive),
        None => {
            *place = Some(operation);
            Ok(())
        }
    }
}

fn take<K>(place: &mut Option<Operation<K>>) -> Result<Operation<K>, Error> {
    place.take().ok_or(Error::OperationNotInitialized)
}

impl<K> Operation<K> {
    /// The data of a single part; an operation that was begun in parts is not ended by it.
    fn whole<'a>(&self, data: Option<&'a [u8]>) -> Result<&'a [u8], Error> {
        match self.parts {
            Some(_) => Err(Error::OperationActive),
            None => data.ok_or(Error::ArgumentsBad("pData is NULL")),
        }
    }

    /// The digest of a single part; the data itself where the mechanism makes no hash.
    fn digest(&self, data: &[u8]) -> Vec<u8> {
        match self.mechanism.hasher() {
            Some(mut hasher) => {
                hasher.update(data);
                hasher.finish()
            }
            None => data.to_vec(),
        }
    }

    /// The operation with one part more.
    fn with(mut self, part: Option<&[u8]>) -> Result<Self, Error> {
        let part = part.ok_or(Error::ArgumentsBad("pPart is NULL"))?;
        let mut hasher = self.hasher()?;
        hasher.update(part);
        self.parts = Some(hasher);
        Ok(self)
    }

    /// The hash so far. A mechanism that makes none is for single parts only.
    fn hasher(&mut self) -> Result<Hasher, Error> {
        let begun = self.parts.take().or_else(|| self.mechanism.hasher());
        begun.ok_or(Error::OperationNotInitialized)
    }
}

impl Verifying {
    fn check(&self, prepared: &[u8], signature: Option<&[u8]>) -> Result<(), Error> {
        let signature = signature.ok_or(Error::ArgumentsBad("pSignature is NULL"))?;
        let request = self.mechanism.request(&self.key, prepared)?;
        if signature.len() != self.key.signature_width() {
            return Err(Error::SignatureLenRange(signature.len()));
        }
        match devid_core::store::verify(&self.key, request, signature) {
            true => Ok(()),
            false => Err(Error::SignatureInvalid),
        }
    }
}
