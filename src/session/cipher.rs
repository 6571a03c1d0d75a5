//! Encryption and decryption with secret keys, in one call or in parts (PKCS#11 3.0, sections 5.8
//! and 5.9). [`crate::session`] explains the rule for operations.

use super::Session;
use super::operation::{CipherOperation, Form};
use crate::error::Error;
use crate::handle::ObjectHandle;
use crate::mechanism::cipher::{CipherMechanism, Direction};
use crate::output::{Answer, Room, Secret};
use cryptoki_sys::CKA_PRIVATE;
use devid_core::store::folder::Use;

impl Session {
    pub(crate) fn cipher_init(
        &self,
        mechanism: &CipherMechanism,
        key: ObjectHandle,
        direction: Direction,
    ) -> Result<(), Error> {
        let (object, key) = self.secret_key(mechanism.row, key)?;
        let wanted = match direction {
            Direction::Encrypt => Use::Encrypt,
            Direction::Decrypt => Use::Decrypt,
        };
        object.check_use(wanted, mechanism.row.kind)?;
        if self.operations.lock().has_cipher(direction) {
            return Err(Error::OperationActive);
        }
        let opened = self.slot.open_secret_key(&key)?;
        let operation = CipherOperation {
            state: mechanism.begin(&opened, direction)?,
            key,
            direction,
            form: Form::Open,
            of_private: object.has_flag(CKA_PRIVATE),
        };
        let mut operations = self.operations.lock();
        if operations.has_cipher(direction) {
            return Err(Error::OperationActive);
        }
        // Another thread may have logged out while this call read the secret key.
        self.check_may_hold(operation.of_private)?;
        *operations.cipher(direction) = Some(operation);
        Ok(())
    }

    /// Takes the current cipher operation out of the session. Returns `None` if the session has
    /// none.
    pub(super) fn take_cipher(&self, direction: Direction) -> Option<CipherOperation> {
        self.operations.lock().cipher(direction).take()
    }

    /// Encrypts or decrypts a whole message, for C_Encrypt and C_Decrypt.
    pub(super) fn cipher(
        &self,
        mut operation: CipherOperation,
        data: Option<&[u8]>,
        room: Option<Room>,
    ) -> Result<Answer, Error> {
        operation.form.settle(Form::Whole)?;
        let data = data.ok_or(Error::ArgumentsBad("the data is NULL"))?;
        self.end_cipher(operation, data, room)
    }

    /// Encrypts or decrypts a part of a message, for C_EncryptUpdate and C_DecryptUpdate.
    pub(super) fn cipher_update(
        &self,
        mut operation: CipherOperation,
        part: Option<&[u8]>,
        room: Option<Room>,
    ) -> Result<Answer, Error> {
        operation.form.settle(Form::InParts)?;
        let part = part.ok_or(Error::ArgumentsBad("the part is NULL"))?;
        let room = room.ok_or(Error::ArgumentsBad("the length pointer is NULL"))?;
        let length = operation.state.update_length(part.len())?;
        if let Some(answer) = refuses(room, length) {
            self.put_back(operation);
            return Ok(answer);
        }
        let key = self.slot.open_secret_key(&operation.key)?;
        let mut out = Secret::default();
        operation.state.update(&key, part, &mut out)?;
        self.put_back(operation);
        Ok(Answer::Secret(out))
    }

    /// Ends a message that arrived in parts, for C_EncryptFinal and C_DecryptFinal.
    pub(super) fn cipher_final(
        &self,
        mut operation: CipherOperation,
        room: Option<Room>,
    ) -> Result<Answer, Error> {
        operation.form.settle(Form::InParts)?;
        self.end_cipher(operation, &[], room)
    }

    /// Ends an operation with this last part. If a padding is removed, the output may be shorter
    /// than the largest possible length. A smaller buffer may therefore be large enough.
    fn end_cipher(
        &self,
        operation: CipherOperation,
        last: &[u8],
        room: Option<Room>,
    ) -> Result<Answer, Error> {
        let room = room.ok_or(Error::ArgumentsBad("the length pointer is NULL"))?;
        let state = &operation.state;
        let most = state.update_length(last.len())? + state.finish_length(last.len())?;
        let may_be_less = state.takes_padding_off();
        if (room == Room::Length || !may_be_less)
            && let Some(answer) = refuses(room, most)
        {
            self.put_back(operation);
            return Ok(answer);
        }
        let key = self.slot.open_secret_key(&operation.key)?;
        let mut out = Secret::default();
        out.try_reserve_exact(most).map_err(|_| Error::HostMemory)?;
        // The clone is small, because an operation that removes a padding holds at most one block.
        // A GCM operation may hold a whole message, and is not cloned.
        let before = may_be_less.then(|| operation.clone());
        let mut state = operation.state;
        state.update(&key, last, &mut out)?;
        state.finish(&key, &mut out)?;
        match (room.refuses(out.len()), before) {
            (Some(answer), Some(operation)) => {
                self.put_back(operation);
                Ok(answer)
            }
            _ => Ok(Answer::Secret(out)),
        }
    }

    fn put_back(&self, operation: CipherOperation) {
        let direction = operation.direction;
        self.go_on(operation.of_private, |operations| {
            *operations.cipher(direction) = Some(operation);
        });
    }
}

/// Returns the answer to a length query. The answer is at least 1. A host that got 0 could call
/// again with a NULL buffer, which is another length query. Section 5.2 allows an answer that is
/// larger than the output.
pub(super) fn told(length: usize) -> Answer {
    Answer::Length(length.max(1))
}

/// Does the same as [`Room::refuses`], but answers a length query with at least 1.
fn refuses(room: Room, needed: usize) -> Option<Answer> {
    match room {
        Room::Length => Some(told(needed)),
        Room::Bytes(_) => room.refuses(needed),
    }
}
