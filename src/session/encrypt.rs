//! Functions of a session that encrypt and decrypt (PKCS#11 3.0, sections 5.8 and 5.9).
//! [`crate::session`] explains the rule for operations.

use super::Session;
use super::cipher::told;
use super::operation::{DecryptOperation, EncryptOperation, Form, begin, take};
use crate::error::Error;
use crate::handle::ObjectHandle;
use crate::mechanism::cipher::Direction;
use crate::mechanism::encrypt::EncryptMechanism;
use crate::output::{Answer, Room, Secret};
use cryptoki_sys::*;
use devid_core::store::folder::Use;
use devid_core::store::{encrypt, longest_message};
use log::warn;
use std::sync::Arc;

impl Session {
    pub(crate) fn decrypt_init(
        &self,
        mechanism: EncryptMechanism,
        key: ObjectHandle,
    ) -> Result<(), Error> {
        let object = self.key_object(key)?;
        let key = Arc::clone(object.private_key()?);
        if !mechanism.row.takes_key(key.public()) {
            return Err(Error::KeyTypeInconsistent);
        }
        object.check_use(Use::Decrypt, mechanism.row.kind)?;
        longest_message(key.public(), mechanism.request()).ok_or(Error::KeySizeRange)?;
        if !key.opens(mechanism.request()) {
            warn!(
                "decryption: with a key in memory, OAEP needs the same hash for the label and the mask"
            );
            return Err(Error::MechanismParamInvalid);
        }
        let operation = DecryptOperation {
            key,
            mechanism,
            awaits_user: object.has_flag(CKA_ALWAYS_AUTHENTICATE),
            object,
            form: Form::Open,
            parts: Vec::new(),
            opened: None,
        };
        let mut operations = self.operations.lock();
        match operations.has_cipher(Direction::Decrypt) {
            true => Err(Error::OperationActive),
            false => begin(&mut operations.decrypt, operation),
        }
    }

    /// Ends the current decryption (C_DecryptInit without a mechanism). Fails if there is no
    /// current decryption.
    pub(crate) fn decrypt_cancel(&self) -> Result<(), Error> {
        self.end_operation(|operations| {
            operations.decrypt.take().is_some()
                || operations.cipher(Direction::Decrypt).take().is_some()
        })
    }

    /// Implements C_Decrypt. A length query costs no TPM command and returns the largest possible
    /// length. Only the decryption shows the exact length. A smaller buffer may therefore be large
    /// enough.
    pub(crate) fn decrypt(
        &self,
        ciphertext: Option<&[u8]>,
        room: Option<Room>,
    ) -> Result<Answer, Error> {
        if let Some(operation) = self.take_cipher(Direction::Decrypt) {
            return self.cipher(operation, ciphertext, room);
        }
        let mut decrypting = self.take_decrypting()?;
        decrypting.form.settle(Form::Whole)?;
        let ciphertext = ciphertext.ok_or(Error::ArgumentsBad("pEncryptedData is NULL"))?;
        self.end_decrypting(decrypting, ciphertext, room)
    }

    /// Implements C_DecryptUpdate. By PKCS#11 the mechanisms of RSA keys are single-part, but
    /// clients send parts. Therefore the parts are collected, and C_DecryptFinal returns the
    /// output.
    pub(crate) fn decrypt_update(
        &self,
        part: Option<&[u8]>,
        room: Option<Room>,
    ) -> Result<Answer, Error> {
        if let Some(operation) = self.take_cipher(Direction::Decrypt) {
            return self.cipher_update(operation, part, room);
        }
        let mut decrypting = self.take_decrypting()?;
        decrypting.form.settle(Form::InParts)?;
        let part = part.ok_or(Error::ArgumentsBad("pEncryptedPart is NULL"))?;
        let room = room.ok_or(Error::ArgumentsBad("pulPartLen is NULL"))?;
        if room != Room::Length {
            let length = decrypting.parts.len().saturating_add(part.len());
            if length > decrypting.key.public().signature_width() {
                return Err(Error::EncryptedDataLenRange(length));
            }
            decrypting.parts.extend_from_slice(part);
        }
        self.operations.lock().decrypt = Some(decrypting);
        Ok(nothing_yet(room))
    }

    /// Implements C_DecryptFinal.
    pub(crate) fn decrypt_final(&self, room: Option<Room>) -> Result<Answer, Error> {
        if let Some(operation) = self.take_cipher(Direction::Decrypt) {
            return self.cipher_final(operation, room);
        }
        let mut decrypting = self.take_decrypting()?;
        decrypting.form.settle(Form::InParts)?;
        let ciphertext = decrypting.parts.clone();
        self.end_decrypting(decrypting, &ciphertext, room)
    }

    fn take_decrypting(&self) -> Result<DecryptOperation, Error> {
        let decrypting = take(&mut self.operations.lock().decrypt)?;
        match decrypting.awaits_user {
            true => Err(Error::UserNotLoggedIn),
            false => Ok(decrypting),
        }
    }

    fn end_decrypting(
        &self,
        mut decrypting: DecryptOperation,
        ciphertext: &[u8],
        room: Option<Room>,
    ) -> Result<Answer, Error> {
        let room = room.ok_or(Error::ArgumentsBad("the length pointer is NULL"))?;
        let public = decrypting.key.public();
        if room == Room::Length {
            let most = longest_message(public, decrypting.mechanism.request());
            self.operations.lock().decrypt = Some(decrypting);
            return Ok(Answer::Length(most.unwrap_or_default()));
        }
        if ciphertext.len() != public.signature_width() {
            return Err(Error::EncryptedDataLenRange(ciphertext.len()));
        }
        let message = match decrypting.opened.take() {
            Some((same, message)) if same == ciphertext => message,
            _ => {
                let request = decrypting.mechanism.request();
                let opened = self.slot.decrypt(&decrypting.key, request, ciphertext);
                if let Some(audit) = &self.slot.audit {
                    let row = decrypting.mechanism.row;
                    self.note_use(audit, &decrypting.object, row, &opened);
                }
                opened?
            }
        };
        match room.refuses(message.len()) {
            Some(answer) => {
                decrypting.opened = Some((ciphertext.to_vec(), message));
                self.operations.lock().decrypt = Some(decrypting);
                Ok(answer)
            }
            None => Ok(Answer::Secret(message)),
        }
    }

    pub(crate) fn encrypt_init(
        &self,
        mechanism: EncryptMechanism,
        key: ObjectHandle,
    ) -> Result<(), Error> {
        let object = self.key_object(key)?;
        let key = object.public_key()?.clone();
        if !mechanism.row.takes_key(&key) {
            return Err(Error::KeyTypeInconsistent);
        }
        object.check_use(Use::Encrypt, mechanism.row.kind)?;
        longest_message(&key, mechanism.request()).ok_or(Error::KeySizeRange)?;
        let mut operations = self.operations.lock();
        match operations.has_cipher(Direction::Encrypt) {
            true => Err(Error::OperationActive),
            false => begin(
                &mut operations.encrypt,
                EncryptOperation {
                    key,
                    mechanism,
                    form: Form::Open,
                    parts: Secret::default(),
                },
            ),
        }
    }

    /// Ends the current encryption (C_EncryptInit without a mechanism). Fails if there is no
    /// current encryption.
    pub(crate) fn encrypt_cancel(&self) -> Result<(), Error> {
        self.end_operation(|operations| {
            operations.encrypt.take().is_some()
                || operations.cipher(Direction::Encrypt).take().is_some()
        })
    }

    pub(crate) fn encrypt(
        &self,
        message: Option<&[u8]>,
        room: Option<Room>,
    ) -> Result<Answer, Error> {
        if let Some(operation) = self.take_cipher(Direction::Encrypt) {
            return self.cipher(operation, message, room);
        }
        let mut encrypting = take(&mut self.operations.lock().encrypt)?;
        encrypting.form.settle(Form::Whole)?;
        let message = message.ok_or(Error::ArgumentsBad("pData is NULL"))?;
        self.end_encrypting(encrypting, message, room)
    }

    /// Implements C_EncryptUpdate. Collects the parts as [`Self::decrypt_update`] does.
    pub(crate) fn encrypt_update(
        &self,
        part: Option<&[u8]>,
        room: Option<Room>,
    ) -> Result<Answer, Error> {
        if let Some(operation) = self.take_cipher(Direction::Encrypt) {
            return self.cipher_update(operation, part, room);
        }
        let mut encrypting = take(&mut self.operations.lock().encrypt)?;
        encrypting.form.settle(Form::InParts)?;
        let part = part.ok_or(Error::ArgumentsBad("pPart is NULL"))?;
        let room = room.ok_or(Error::ArgumentsBad("pulEncryptedPartLen is NULL"))?;
        if room != Room::Length {
            let length = encrypting.parts.len().saturating_add(part.len());
            let longest = longest_message(&encrypting.key, encrypting.mechanism.request());
            if longest < Some(length) {
                return Err(Error::DataLenRange(length));
            }
            // The vector must not grow later. Growth would leave a copy of the message in memory.
            let mut parts = Secret::new(Vec::with_capacity(length));
            parts.extend_from_slice(&encrypting.parts);
            parts.extend_from_slice(part);
            encrypting.parts = parts;
        }
        self.operations.lock().encrypt = Some(encrypting);
        Ok(nothing_yet(room))
    }

    /// Implements C_EncryptFinal.
    pub(crate) fn encrypt_final(&self, room: Option<Room>) -> Result<Answer, Error> {
        if let Some(operation) = self.take_cipher(Direction::Encrypt) {
            return self.cipher_final(operation, room);
        }
        let mut encrypting = take(&mut self.operations.lock().encrypt)?;
        encrypting.form.settle(Form::InParts)?;
        let message = encrypting.parts.clone();
        self.end_encrypting(encrypting, &message, room)
    }

    fn end_encrypting(
        &self,
        encrypting: EncryptOperation,
        message: &[u8],
        room: Option<Room>,
    ) -> Result<Answer, Error> {
        let room = room.ok_or(Error::ArgumentsBad("the length pointer is NULL"))?;
        if let Some(answer) = room.refuses(encrypting.key.signature_width()) {
            self.operations.lock().encrypt = Some(encrypting);
            return Ok(answer);
        }
        let EncryptOperation { key, mechanism, .. } = encrypting;
        if longest_message(&key, mechanism.request()) < Some(message.len()) {
            return Err(Error::DataLenRange(message.len()));
        }
        let ciphertext = encrypt(&key, mechanism.request(), message);
        ciphertext.map(Answer::Bytes).ok_or(Error::RandomFailed)
    }
}

/// Returns the answer of an Update call whose part was only collected: no output.
fn nothing_yet(room: Room) -> Answer {
    match room {
        Room::Length => told(0),
        Room::Bytes(_) => Answer::Bytes(Vec::new()),
    }
}
