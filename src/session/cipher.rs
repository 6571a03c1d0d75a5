//! Encryption and decryption by secret keys (PKCS#11 3.0, sections 5.8 and 5.9), also in parts. The rule of
//! operations is that of [`crate::session`].

use super::Session;
use super::operation::{CipherOperation, take};
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
            in_parts: false,
            of_private: object.has_flag(CKA_PRIVATE),
        };
        let mut operations = self.operations.lock();
        if operations.has_cipher(direction) {
            return Err(Error::OperationActive);
        }
        // A logout may have come while the key was opened.
        self.check_may_hold(operation.of_private)?;
        *operations.cipher(direction) = Some(operation);
        Ok(())
    }

    /// The cipher operation under way, taken out of the session; `None` if there is none.
    pub(super) fn take_cipher(&self, direction: Direction) -> Option<CipherOperation> {
        self.operations.lock().cipher(direction).take()
    }

    /// A message as a whole.
    pub(super) fn cipher(
        &self,
        operation: CipherOperation,
        data: Option<&[u8]>,
        room: Option<Room>,
    ) -> Result<Answer, Error> {
        let data = data.ok_or(Error::ArgumentsBad("the data is NULL"))?;
        match operation.in_parts {
            true => Err(Error::OperationActive),
            false => self.end_cipher(operation, data, room),
        }
    }

    /// C_EncryptUpdate and C_DecryptUpdate.
    pub(crate) fn cipher_update(
        &self,
        direction: Direction,
        part: Option<&[u8]>,
        room: Option<Room>,
    ) -> Result<Answer, Error> {
        let mut operation = self.take_parts(direction)?;
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
        operation.in_parts = true;
        self.put_back(operation);
        Ok(Answer::Secret(out))
    }

    /// C_EncryptFinal and C_DecryptFinal.
    pub(crate) fn cipher_final(
        &self,
        direction: Direction,
        room: Option<Room>,
    ) -> Result<Answer, Error> {
        let operation = self.take_parts(direction)?;
        self.end_cipher(operation, &[], room)
    }

    /// Ends an operation with this last part. How much comes out where a padding is taken off shows only
    /// then: the caller's room may take the output though it is less than the most that can come.
    fn end_cipher(
        &self,
        operation: CipherOperation,
        last: &[u8],
        room: Option<Room>,
    ) -> Result<Answer, Error> {
        let room = room.ok_or(Error::ArgumentsBad("the length pointer is NULL"))?;
        let state = &operation.state;
        let most = state.update_length(last.len())? + state.finish_length(last.len())?;
        if room == Room::Length {
            self.put_back(operation);
            return Ok(told(most));
        }
        let key = self.slot.open_secret_key(&operation.key)?;
        let mut out = Secret::default();
        out.try_reserve_exact(most).map_err(|_| Error::HostMemory)?;
        let mut state = operation.state.clone();
        state.update(&key, last, &mut out)?;
        state.finish(&key, &mut out)?;
        match room.refuses(out.len()) {
            Some(answer) => {
                self.put_back(operation);
                Ok(answer)
            }
            None => Ok(Answer::Secret(out)),
        }
    }

    /// The operation for one part more. One by a public or private key takes a message as a whole, and
    /// goes on.
    fn take_parts(&self, direction: Direction) -> Result<CipherOperation, Error> {
        let mut operations = self.operations.lock();
        let by_pair = match direction {
            Direction::Encrypt => operations.encrypt.is_some(),
            Direction::Decrypt => operations.decrypt.is_some(),
        };
        match by_pair {
            true => Err(Error::Unsupported),
            false => take(operations.cipher(direction)),
        }
    }

    fn put_back(&self, operation: CipherOperation) {
        let direction = operation.direction;
        self.go_on(operation.of_private, |operations| {
            *operations.cipher(direction) = Some(operation);
        });
    }
}

/// The answer to a query of the length. A host that is told 0 comes back with a buffer of no bytes, which
/// may be NULL: another query. So the answer is 1 at least; section 5.2 lets it be more than comes.
fn told(length: usize) -> Answer {
    Answer::Length(length.max(1))
}

/// The answer that needs no output, as [`Room::refuses`] gives it.
fn refuses(room: Room, needed: usize) -> Option<Answer> {
    match room {
        Room::Length => Some(told(needed)),
        Room::Bytes(_) => room.refuses(needed),
    }
}
