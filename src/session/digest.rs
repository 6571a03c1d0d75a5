//! Functions of a session that hash (PKCS#11 3.0, section 5.12), or that save and restore a hash
//! (sections 5.6.4 and 5.6.5). These functions need no TPM, no login and no token.
//! [`crate::session`] explains the rule for operations.

use super::Session;
use super::operation::{DigestOperation, Form, Operations, begin, take};
use crate::error::Error;
use crate::handle::ObjectHandle;
use crate::mechanism::table::Mechanism;
use crate::output::{Answer, Room};
use cryptoki_sys::{CKA_EXTRACTABLE, CKA_PRIVATE};

impl Session {
    pub(crate) fn digest_init(&self, mechanism: &'static Mechanism) -> Result<(), Error> {
        let digest = mechanism.digest.ok_or(Error::MechanismInvalid)?;
        let operation = DigestOperation {
            kind: mechanism.kind,
            digest,
            hasher: digest.hasher(),
            form: Form::Open,
            of_key: false,
            of_private: false,
        };
        begin(&mut self.operations.lock().digest, operation)
    }

    /// Ends the current digest (C_DigestInit without a mechanism). Fails if there is no current
    /// digest.
    pub(crate) fn digest_cancel(&self) -> Result<(), Error> {
        self.end_operation(|operations| operations.digest.take().is_some())
    }

    /// Implements C_Digest. `data` and `room` are `None` if the caller's pointers are invalid.
    pub(crate) fn digest(&self, data: Option<&[u8]>, room: Option<Room>) -> Result<Answer, Error> {
        let mut digesting = self.take_digesting()?;
        digesting.form.settle(Form::Whole)?;
        let data = data.ok_or(Error::ArgumentsBad("pData is NULL"))?;
        let room = room.ok_or(Error::ArgumentsBad("pulDigestLen is NULL"))?;
        if let Some(answer) = room.refuses(digesting.digest.width()) {
            self.put_digest_back(digesting);
            return Ok(answer);
        }
        digesting.hasher.update(data);
        Ok(Answer::Bytes(digesting.hasher.finish()))
    }

    pub(crate) fn digest_update(&self, part: Option<&[u8]>) -> Result<(), Error> {
        let mut digesting = self.take_digesting()?;
        digesting.form.settle(Form::InParts)?;
        digesting
            .hasher
            .update(part.ok_or(Error::ArgumentsBad("pPart is NULL"))?);
        self.put_digest_back(digesting);
        Ok(())
    }

    /// Implements C_DigestKey. Only a secret key with CKA_EXTRACTABLE true can become part of a
    /// digest, because a short value can be guessed from its digest. CKA_ALLOWED_MECHANISMS of the
    /// key must contain the mechanism.
    pub(crate) fn digest_key(&self, key: ObjectHandle) -> Result<(), Error> {
        let mut digesting = self.take_digesting()?;
        digesting.form.settle(Form::InParts)?;
        let object = self.key_object(key)?;
        let may = object.has_flag(CKA_EXTRACTABLE) && object.allows(digesting.kind);
        match object.secret() {
            Some(key) if may => {
                let value = self.slot.open_secret_key(key)?;
                digesting.hasher.update(&value);
            }
            _ if object.is_key() => return Err(Error::KeyIndigestible),
            _ => return Err(Error::KeyHandleInvalid),
        }
        digesting.of_key = true;
        digesting.of_private |= object.has_flag(CKA_PRIVATE);
        self.put_digest_back(digesting);
        Ok(())
    }

    pub(crate) fn digest_final(&self, room: Option<Room>) -> Result<Answer, Error> {
        let mut digesting = self.take_digesting()?;
        digesting.form.settle(Form::InParts)?;
        let room = room.ok_or(Error::ArgumentsBad("pulDigestLen is NULL"))?;
        if let Some(answer) = room.refuses(digesting.digest.width()) {
            self.put_digest_back(digesting);
            return Ok(answer);
        }
        Ok(Answer::Bytes(digesting.hasher.finish()))
    }

    /// Implements C_GetOperationState, for digests only. Java and OpenSSL copy a digest in this
    /// way. A digest that contains a key is refused, because its state could show bytes of the key.
    pub(crate) fn operation_state(&self, room: Room) -> Result<Answer, Error> {
        let operations = self.operations.lock();
        let others = operations.has_key_operation();
        let digesting = match &operations.digest {
            Some(digesting) if !others && !digesting.of_key => digesting,
            Some(_) => return Err(Error::StateUnsaveable),
            None if others => return Err(Error::Unsupported),
            None => return Err(Error::OperationNotInitialized),
        };
        let saved = digesting.save(self.slot.id);
        let refused = room.refuses(saved.len());
        Ok(refused.unwrap_or(Answer::Bytes(saved)))
    }

    /// Implements C_SetOperationState. All current operations of the session end.
    ///
    /// `has_keys`: true if the caller passes key handles. A digest needs no key, so the call is
    /// then refused.
    pub(crate) fn restore_operation(
        &self,
        saved: Option<&[u8]>,
        has_keys: bool,
    ) -> Result<(), Error> {
        let saved = saved.ok_or(Error::ArgumentsBad("pOperationState is NULL"))?;
        let restored = DigestOperation::restore(saved, self.slot.id);
        let digest = restored.ok_or(Error::SavedStateInvalid)?;
        if has_keys {
            return Err(Error::KeyNotNeeded);
        }
        let mut operations = self.operations.lock();
        *operations = Operations::default();
        operations.digest = Some(digest);
        Ok(())
    }

    /// Ends the operations that use a key with CKA_PRIVATE true. A logout calls this function.
    pub(crate) fn forget_private_operations(&self) {
        let mut operations = self.operations.lock();
        operations.digest.take_if(|digesting| digesting.of_private);
        operations.secret.forget_private();
    }

    /// Puts an operation back into the session after a call. If a logout happened during the call,
    /// the operation ends instead.
    ///
    /// C_Logout clears the login before it locks the operations of each session. Therefore either
    /// this function sees the logout, or C_Logout ends the operation.
    pub(super) fn go_on(&self, of_private: bool, put_back: impl FnOnce(&mut Operations)) {
        let mut operations = self.operations.lock();
        if self.check_may_hold(of_private).is_ok() {
            put_back(&mut operations);
        }
    }

    fn put_digest_back(&self, digesting: DigestOperation) {
        self.go_on(digesting.of_private, |operations| {
            operations.digest = Some(digesting);
        });
    }

    fn take_digesting(&self) -> Result<DigestOperation, Error> {
        take(&mut self.operations.lock().digest)
    }
}
