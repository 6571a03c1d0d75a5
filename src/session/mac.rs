//! Message authentication codes with secret keys, in one call or in parts (PKCS#11 3.0, sections
//! 5.13 and 5.14). C_Sign makes a code, and C_Verify checks a code. [`crate::session`] explains the
//! rule for operations.

use super::Session;
use super::operation::{Form, MacOperation};
use crate::error::Error;
use crate::handle::ObjectHandle;
use crate::mechanism::mac::{Mac, MacMechanism};
use crate::output::{Answer, Room};
use cryptoki_sys::CKA_PRIVATE;
use devid_core::store::folder::Use;
use subtle::ConstantTimeEq;

impl Session {
    /// Implements C_SignInit for a secret key.
    pub(crate) fn mac_sign_init(
        &self,
        mechanism: MacMechanism,
        key: ObjectHandle,
    ) -> Result<(), Error> {
        self.mac_init(mechanism, key, Use::Sign)
    }

    /// Implements C_VerifyInit for a secret key.
    pub(crate) fn mac_verify_init(
        &self,
        mechanism: MacMechanism,
        key: ObjectHandle,
    ) -> Result<(), Error> {
        self.mac_init(mechanism, key, Use::Verify)
    }

    fn mac_init(
        &self,
        MacMechanism { row, digest, width }: MacMechanism,
        key: ObjectHandle,
        wanted: Use,
    ) -> Result<(), Error> {
        let (object, key) = self.secret_key(row, key)?;
        object.check_use(wanted, row.kind)?;
        if self.operations.lock().has_signature(wanted) {
            return Err(Error::OperationActive);
        }
        let opened = self.slot.open_secret_key(&key)?;
        let operation = MacOperation {
            mac: Mac::new(digest, &opened).ok_or(Error::KeySizeRange)?,
            width,
            form: Form::Open,
            of_private: object.has_flag(CKA_PRIVATE),
        };
        let mut operations = self.operations.lock();
        if operations.has_signature(wanted) {
            return Err(Error::OperationActive);
        }
        // Another thread may have logged out while this call read the secret key.
        self.check_may_hold(operation.of_private)?;
        *operations.mac(wanted) = Some(operation);
        Ok(())
    }

    /// Takes the current MAC operation out of the session. Returns `None` if the session has none.
    pub(super) fn take_mac(&self, wanted: Use) -> Option<MacOperation> {
        self.operations.lock().mac(wanted).take()
    }

    fn put_mac_back(&self, wanted: Use, operation: MacOperation) {
        self.go_on(operation.of_private, |operations| {
            *operations.mac(wanted) = Some(operation);
        });
    }

    /// Implements C_Sign for a secret key.
    pub(super) fn mac_sign(
        &self,
        mut operation: MacOperation,
        data: Option<&[u8]>,
        room: Option<Room>,
    ) -> Result<Answer, Error> {
        let data = operation.whole(data)?;
        let room = room.ok_or(Error::ArgumentsBad("pulSignatureLen is NULL"))?;
        if let Some(answer) = room.refuses(operation.width) {
            self.put_mac_back(Use::Sign, operation);
            return Ok(answer);
        }
        operation.mac.update(data);
        Ok(Answer::Bytes(operation.code()))
    }

    /// Implements C_SignUpdate and C_VerifyUpdate for a secret key.
    pub(super) fn mac_update(
        &self,
        wanted: Use,
        mut operation: MacOperation,
        part: Option<&[u8]>,
    ) -> Result<(), Error> {
        let part = part.ok_or(Error::ArgumentsBad("pPart is NULL"))?;
        operation.form.settle(Form::InParts)?;
        operation.mac.update(part);
        self.put_mac_back(wanted, operation);
        Ok(())
    }

    /// Implements C_SignFinal for a secret key.
    pub(super) fn mac_final(
        &self,
        mut operation: MacOperation,
        room: Option<Room>,
    ) -> Result<Answer, Error> {
        operation.form.settle(Form::InParts)?;
        let room = room.ok_or(Error::ArgumentsBad("pulSignatureLen is NULL"))?;
        if let Some(answer) = room.refuses(operation.width) {
            self.put_mac_back(Use::Sign, operation);
            return Ok(answer);
        }
        Ok(Answer::Bytes(operation.code()))
    }
}

impl MacOperation {
    /// Returns the data of a C_Sign or C_Verify call. Fails if the operation already has parts.
    fn whole<'a>(&mut self, data: Option<&'a [u8]>) -> Result<&'a [u8], Error> {
        self.form.settle(Form::Whole)?;
        data.ok_or(Error::ArgumentsBad("pData is NULL"))
    }

    /// Returns the code. A mechanism with a general length returns only the first bytes of the
    /// code.
    fn code(self) -> Vec<u8> {
        let mut code = self.mac.finish();
        code.truncate(self.width);
        code
    }

    /// Implements C_Verify for a secret key.
    pub(super) fn verify(mut self, data: Option<&[u8]>, code: Option<&[u8]>) -> Result<(), Error> {
        let data = self.whole(data)?;
        self.mac.update(data);
        self.check(code)
    }

    /// Implements C_VerifyFinal for a secret key.
    pub(super) fn verify_final(mut self, code: Option<&[u8]>) -> Result<(), Error> {
        self.form.settle(Form::InParts)?;
        self.check(code)
    }

    /// Compares the message authentication codes in constant time.
    fn check(self, code: Option<&[u8]>) -> Result<(), Error> {
        let code = code.ok_or(Error::ArgumentsBad("pSignature is NULL"))?;
        if code.len() != self.width {
            return Err(Error::SignatureLenRange(code.len()));
        }
        match bool::from(self.code().ct_eq(code)) {
            true => Ok(()),
            false => Err(Error::SignatureInvalid),
        }
    }
}
