//! One session: its search and its operation (PKCS#11 3.0, sections 2.6, 5.7.6 and 5.13).
//!
//! The rule of operations: a call TAKES the operation out of the session, and puts it back only
//! for a length query or a small buffer. Whatever else happens, the operation is over; and no lock
//! is held while the TPM works.

use crate::attribute::Template;
use crate::ciphering::{Decrypting, Encrypting};
use crate::digest::Hasher;
use crate::digesting::Digesting;
use crate::error::Error;
use crate::handle::{Mint, ObjectHandle, SessionHandle};
use crate::mechanism::Mechanism;
use crate::object::Object;
use crate::output::{Answer, Room};
use crate::slot::Slot;
use crate::token::Token;
use cryptoki_sys::{
    CK_FLAGS, CKA_ALWAYS_AUTHENTICATE, CKF_DECRYPT, CKF_DIGEST, CKF_ENCRYPT, CKF_FIND_OBJECTS,
    CKF_SIGN, CKF_VERIFY,
};
use devid_core::key::PublicKey;
use devid_core::store::folder::Use;
use devid_core::store::{Key, SignError};
use log::warn;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// A session.
pub(crate) struct Session {
    pub(crate) handle: SessionHandle,
    pub(crate) slot: Arc<Slot>,
    pub(crate) is_read_write: bool,
    pub(crate) state: Mutex<State>,
}

/// What is under way.
#[derive(Default, Clone)]
pub(crate) struct State {
    find: Option<Find>,
    sign: Option<Signing>,
    verify: Option<Verifying>,
    pub(crate) decrypt: Option<Decrypting>,
    pub(crate) encrypt: Option<Encrypting>,
    pub(crate) digest: Option<Digesting>,
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
    /// Whether the user is still to prove that he is there (CKA_ALWAYS_AUTHENTICATE).
    awaits_user: bool,
}

type Signing = Operation<Arc<Key>>;
type Verifying = Operation<PublicKey>;

impl Session {
    pub(crate) fn new(handle: SessionHandle, slot: Arc<Slot>, is_read_write: bool) -> Self {
        Self {
            handle,
            slot,
            is_read_write,
            state: Mutex::default(),
        }
    }

    /// The session in a forked child; `None` if another thread of the parent was inside it.
    pub(crate) fn for_child(&self, slot: Arc<Slot>) -> Option<Self> {
        let state = self.state.try_lock()?.clone();
        Some(Self {
            handle: self.handle,
            slot,
            is_read_write: self.is_read_write,
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
                let shows = |object: &Object| self.slot.shows(object);
                let wanted = token
                    .objects()
                    .iter()
                    .filter(|found| shows(&found.object) && found.object.matches(template));
                let mut found: VecDeque<_> = wanted.map(|found| found.handle).collect();
                found.extend(self.slot.kept.lock().find(template, shows));
                found
            }
            Err(Error::TokenNotPresent) => return Err(Error::DeviceRemoved),
            Err(error) => return Err(error),
        };
        self.state.lock().find = Some(Find(found));
        Ok(())
    }

    /// At most `most` of the handles that were not given yet. What a logout has hidden meanwhile is
    /// left out.
    pub(crate) fn find(&self, most: usize) -> Result<Vec<ObjectHandle>, Error> {
        let mut state = self.state.lock();
        let Find(left) = state.find.as_mut().ok_or(Error::OperationNotInitialized)?;
        if self.slot.asks_login() {
            left.retain(|handle| self.slot.object(*handle).is_ok());
        }
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
        if flags & CKF_DECRYPT != 0 {
            state.decrypt = None;
        }
        if flags & CKF_ENCRYPT != 0 {
            state.encrypt = None;
        }
        if flags & CKF_DIGEST != 0 {
            state.digest = None;
        }
    }

    /// The key decides what it can do. Of a mechanism for another type of key the token says
    /// whether it knows such at all.
    pub(crate) fn sign_init(&self, mechanism: Mechanism, key: ObjectHandle) -> Result<(), Error> {
        let object = self.key_object(key)?;
        let key = Arc::clone(object.private().ok_or(Error::KeyHandleInvalid)?);
        if self.state.lock().sign.is_some() {
            return Err(Error::OperationActive);
        }
        if mechanism.is_of_type(key.public()) {
            self.slot.prepare(&key)?;
        }
        if !object.is_for(Use::Sign) {
            return Err(Error::KeyFunctionNotPermitted);
        }
        match mechanism.check(&key) {
            Err(Error::KeyTypeInconsistent) if !self.token()?.lists(mechanism) => {
                return Err(Error::MechanismInvalid);
            }
            checked => checked?,
        }
        // What decrypts all the same is for keys that may.
        let may = mechanism.is_padded() || object.is_for(Use::Decrypt);
        if !may || !object.allows(mechanism.kind()) {
            return Err(Error::MechanismInvalid);
        }
        let operation = Operation {
            key,
            mechanism,
            parts: None,
            awaits_user: object.is(CKA_ALWAYS_AUTHENTICATE),
        };
        begin(&mut self.state.lock().sign, operation)
    }

    /// C_Login of CKU_CONTEXT_SPECIFIC: for the signature or the decryption under way, if its key
    /// asks for that. Where both do, one PIN is for the one that was not proven yet, signatures
    /// first.
    pub(crate) fn prove_user(&self, pin: Option<&[u8]>, mint: &Mint) -> Result<(), Error> {
        if self.state.lock().awaiting().is_none() {
            return Err(Error::OperationNotInitialized);
        }
        self.slot.prove_user(pin, mint)?;
        if let Some(awaits_user) = self.state.lock().awaiting() {
            *awaits_user = false;
        }
        Ok(())
    }

    /// C_InitPIN.
    pub(crate) fn init_pin(&self, pin: &[u8]) -> Result<(), Error> {
        self.may_write()?;
        self.slot.init_pin(pin)
    }

    /// C_SetPIN.
    pub(crate) fn set_pin(&self, old: &[u8], new: &[u8]) -> Result<(), Error> {
        self.may_write()?;
        self.slot.set_pin(old, new)
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
        let data = signing.whole(data)?;
        let room = room.ok_or(Error::ArgumentsBad("pulSignatureLen is NULL"))?;
        if let Some(answer) = room.refuses(signing.key.public().signature_width()) {
            self.state.lock().sign = Some(signing);
            return Ok(answer);
        }
        self.make(&signing, &signing.mechanism.prepared(data))
    }

    pub(crate) fn sign_update(&self, part: Option<&[u8]>) -> Result<(), Error> {
        let signing = self.take_signing()?.with(part)?;
        self.state.lock().sign = Some(signing);
        Ok(())
    }

    pub(crate) fn sign_final(&self, room: Option<Room>) -> Result<Answer, Error> {
        let mut signing = self.take_signing()?;
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
        if !object.is_for(Use::Verify) {
            return Err(Error::KeyFunctionNotPermitted);
        }
        if !mechanism.is_padded() && !self.token()?.lists(mechanism) {
            return Err(Error::MechanismInvalid);
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
                awaits_user: false,
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
        verifying.check(&verifying.mechanism.prepared(data), signature)
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

    fn take_signing(&self) -> Result<Signing, Error> {
        let signing = self.state.lock().sign.take();
        let signing = signing.ok_or(Error::OperationNotInitialized)?;
        match signing.awaits_user {
            true => Err(Error::UserNotLoggedIn),
            false => Ok(signing),
        }
    }

    pub(crate) fn key_object(&self, key: ObjectHandle) -> Result<Arc<Object>, Error> {
        self.slot.object(key).map_err(|error| match error {
            Error::ObjectHandleInvalid => Error::KeyHandleInvalid,
            other => other,
        })
    }

    /// A signature as PKCS#11 has it: r ‖ s, or as wide as the modulus.
    fn make(&self, signing: &Signing, prepared: &[u8]) -> Result<Answer, Error> {
        let Operation { key, mechanism, .. } = signing;
        let request = mechanism.request(key.public(), prepared)?;
        match (key.sign(self.slot.tpm()?, request), mechanism) {
            (Ok(signature), _) => Ok(Answer::Bytes(signature)),
            // Of CKM_RSA_PKCS the data names the hash.
            (Err(SignError::Scheme), Mechanism::RsaPkcs) => Err(Error::DataInvalid),
            (Err(error), _) => {
                warn!("signature: {error}");
                Err(error.into())
            }
        }
    }
}

impl State {
    /// Whether there is an operation with a key.
    pub(crate) fn has_key_operation(&self) -> bool {
        self.sign.is_some()
            || self.verify.is_some()
            || self.decrypt.is_some()
            || self.encrypt.is_some()
    }

    /// The flag of an operation that waits for its user.
    fn awaiting(&mut self) -> Option<&mut bool> {
        let sign = self.sign.as_mut().map(|one| &mut one.awaits_user);
        let decrypt = self.decrypt.as_mut().map(|one| &mut one.awaits_user);
        let mut flags = sign.into_iter().chain(decrypt);
        flags.find(|awaits_user| **awaits_user)
    }
}

pub(crate) fn begin<O>(place: &mut Option<O>, operation: O) -> Result<(), Error> {
    match place {
        Some(_) => Err(Error::OperationActive),
        None => {
            *place = Some(operation);
            Ok(())
        }
    }
}

pub(crate) fn take<O>(place: &mut Option<O>) -> Result<O, Error> {
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
        match devid_core::signature::verify(&self.key, request, signature) {
            true => Ok(()),
            false => Err(Error::SignatureInvalid),
        }
    }
}
