//! Functions of a session that sign and verify (PKCS#11 3.0, sections 5.13 and 5.14).
//! [`crate::session`] explains the rule for operations.

use super::Session;
use super::operation::{Form, SignOperation, Signing, begin, take};
use crate::error::Error;
use crate::handle::ObjectHandle;
use crate::mechanism::sign::SignMechanism;
use crate::mechanism::table::SignAlgorithm;
use crate::output::{Answer, Room};
use cryptoki_sys::CKA_ALWAYS_AUTHENTICATE;
use devid_core::store::SignError;
use devid_core::store::folder::Use;
use log::warn;
use std::sync::Arc;

impl Session {
    /// Implements C_SignInit. If the key has another type than the mechanism needs, the error is
    /// CKR_KEY_TYPE_INCONSISTENT. If the token does not list the mechanism, the error is
    /// CKR_MECHANISM_INVALID.
    pub(crate) fn sign_init(
        &self,
        mechanism: SignMechanism,
        key: ObjectHandle,
    ) -> Result<(), Error> {
        let object = self.key_object(key)?;
        let key = Arc::clone(object.private_key()?);
        if self.operations.lock().has_signature(Use::Sign) {
            return Err(Error::OperationActive);
        }
        if mechanism.row.takes_key(key.public()) {
            self.slot.prepare(&key)?;
        }
        if !object.has_use(Use::Sign) {
            return Err(Error::KeyFunctionNotPermitted);
        }
        match mechanism.check(&key) {
            Err(Error::KeyTypeInconsistent) if !self.token()?.offers(mechanism.row) => {
                return Err(Error::MechanismInvalid);
            }
            checked => checked?,
        }
        // RSA without padding can also decrypt. Therefore the key must have CKA_DECRYPT too.
        let may = mechanism.algorithm.is_padded() || object.has_use(Use::Decrypt);
        if !may || !object.allows(mechanism.row.kind) {
            return Err(Error::MechanismInvalid);
        }
        let operation = SignOperation {
            key,
            mechanism,
            form: Form::Open,
            parts: None,
            awaits_user: object.has_flag(CKA_ALWAYS_AUTHENTICATE),
            object,
        };
        begin(&mut self.operations.lock().sign, operation)
    }

    /// Ends the current signature (C_SignInit without a mechanism). Fails if there is no current
    /// signature.
    pub(crate) fn sign_cancel(&self) -> Result<(), Error> {
        self.end_operation(|operations| {
            operations.sign.take().is_some() || operations.mac(Use::Sign).take().is_some()
        })
    }

    /// Implements C_Sign. `data` and `room` are `None` if the caller's pointers are invalid.
    pub(crate) fn sign(&self, data: Option<&[u8]>, room: Option<Room>) -> Result<Answer, Error> {
        let mut signing = match self.take_signing() {
            Err(none @ Error::OperationNotInitialized) => {
                let operation = self.take_mac(Use::Sign).ok_or(none)?;
                return self.mac_sign(operation, data, room);
            }
            signing => signing?,
        };
        let data = signing.whole(data)?;
        let room = room.ok_or(Error::ArgumentsBad("pulSignatureLen is NULL"))?;
        if let Some(answer) = room.refuses(signing.key.public().signature_width()) {
            self.operations.lock().sign = Some(signing);
            return Ok(answer);
        }
        self.make(&signing, &signing.mechanism.prepared(data))
    }

    pub(crate) fn sign_update(&self, part: Option<&[u8]>) -> Result<(), Error> {
        if let Some(operation) = self.take_mac(Use::Sign) {
            return self.mac_update(Use::Sign, operation, part);
        }
        let signing = self.take_signing()?;
        let key = Arc::clone(&signing.key);
        let signing = signing.with(part, key.public())?;
        self.operations.lock().sign = Some(signing);
        Ok(())
    }

    pub(crate) fn sign_final(&self, room: Option<Room>) -> Result<Answer, Error> {
        if let Some(operation) = self.take_mac(Use::Sign) {
            return self.mac_final(operation, room);
        }
        let mut signing = self.take_signing()?;
        let room = room.ok_or(Error::ArgumentsBad("pulSignatureLen is NULL"))?;
        let parts = signing.parts()?;
        if let Some(answer) = room.refuses(signing.key.public().signature_width()) {
            signing.parts = Some(parts);
            self.operations.lock().sign = Some(signing);
            return Ok(answer);
        }
        self.make(&signing, &parts.finish())
    }

    pub(crate) fn verify_init(
        &self,
        mechanism: SignMechanism,
        key: ObjectHandle,
    ) -> Result<(), Error> {
        let object = self.key_object(key)?;
        let key = object.public_key()?.clone();
        if !object.has_use(Use::Verify) {
            return Err(Error::KeyFunctionNotPermitted);
        }
        if !mechanism.algorithm.is_padded() && !self.token()?.offers(mechanism.row) {
            return Err(Error::MechanismInvalid);
        }
        if !mechanism.row.takes_key(&key) {
            return Err(Error::KeyTypeInconsistent);
        }
        let operation = SignOperation {
            key,
            mechanism,
            form: Form::Open,
            parts: None,
            awaits_user: false,
            object,
        };
        let mut operations = self.operations.lock();
        match operations.has_signature(Use::Verify) {
            true => Err(Error::OperationActive),
            false => begin(&mut operations.verify, operation),
        }
    }

    /// Ends the current verification (C_VerifyInit without a mechanism). Fails if there is no
    /// current verification.
    pub(crate) fn verify_cancel(&self) -> Result<(), Error> {
        self.end_operation(|operations| {
            operations.verify.take().is_some() || operations.mac(Use::Verify).take().is_some()
        })
    }

    pub(crate) fn verify(
        &self,
        data: Option<&[u8]>,
        signature: Option<&[u8]>,
    ) -> Result<(), Error> {
        if let Some(operation) = self.take_mac(Use::Verify) {
            return operation.verify(data, signature);
        }
        let mut verifying = take(&mut self.operations.lock().verify)?;
        let data = verifying.whole(data)?;
        verifying.check(&verifying.mechanism.prepared(data), signature)
    }

    pub(crate) fn verify_update(&self, part: Option<&[u8]>) -> Result<(), Error> {
        if let Some(operation) = self.take_mac(Use::Verify) {
            return self.mac_update(Use::Verify, operation, part);
        }
        let verifying = take(&mut self.operations.lock().verify)?;
        let key = verifying.key.clone();
        let verifying = verifying.with(part, &key)?;
        self.operations.lock().verify = Some(verifying);
        Ok(())
    }

    pub(crate) fn verify_final(&self, signature: Option<&[u8]>) -> Result<(), Error> {
        if let Some(operation) = self.take_mac(Use::Verify) {
            return operation.verify_final(signature);
        }
        let mut verifying = take(&mut self.operations.lock().verify)?;
        let prepared = verifying.parts()?.finish();
        verifying.check(&prepared, signature)
    }

    fn take_signing(&self) -> Result<Signing, Error> {
        let signing = self.operations.lock().sign.take();
        let signing = signing.ok_or(Error::OperationNotInitialized)?;
        match signing.awaits_user {
            true => Err(Error::UserNotLoggedIn),
            false => Ok(signing),
        }
    }

    /// Makes a signature in the format of PKCS#11. For ECDSA the format is r ‖ s. For RSA the
    /// format is a number as long as the modulus.
    fn make(&self, signing: &Signing, prepared: &[u8]) -> Result<Answer, Error> {
        let SignOperation { key, mechanism, .. } = signing;
        let request = mechanism.request(key.public(), prepared)?;
        let names_hash =
            mechanism.algorithm == SignAlgorithm::Pkcs1 && mechanism.hasher().is_none();
        let answer = match (key.sign(self.slot.tpm()?, request), names_hash) {
            (Ok(signature), _) => Ok(Answer::Bytes(signature)),
            // The data of CKM_RSA_PKCS names the hash.
            (Err(SignError::Scheme), true) => Err(Error::DataInvalid),
            (Err(error), _) => {
                warn!("signature: {error}");
                Err(error.into())
            }
        };
        if let Some(audit) = &self.slot.audit {
            self.note_use(audit, &signing.object, mechanism.row, &answer);
        }
        answer
    }
}
