//! Calls that hash. OpenSSL checks their results.

use super::home::Home;
use super::module::Opened;
use super::openssl;
use super::own::{Own, without_tpm};
use super::raw::{Code, Raw};
use cryptoki_sys::*;
use std::ptr;

/// The mechanisms, each with its name in OpenSSL and the size of its digest.
pub const DIGESTS: [(CK_MECHANISM_TYPE, &str, usize); 5] = [
    (CKM_SHA_1, "-sha1", 20),
    (CKM_SHA224, "-sha224", 28),
    (CKM_SHA256, "-sha256", 32),
    (CKM_SHA384, "-sha384", 48),
    (CKM_SHA512, "-sha512", 64),
];

impl Raw {
    pub fn digest_init(
        &self,
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_TYPE,
    ) -> Result<(), Code> {
        self.digest_init_with(session, mechanism, ptr::null(), 0)
    }

    /// Calls C_DigestInit with a parameter.
    pub fn digest_init_with(
        &self,
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_TYPE,
        parameter: *const u8,
        length: usize,
    ) -> Result<(), Code> {
        let mut mechanism = CK_MECHANISM {
            mechanism,
            pParameter: parameter.cast_mut().cast(),
            ulParameterLen: length as CK_ULONG,
        };
        call!(self.table, C_DigestInit(session, &raw mut mechanism)).result()
    }

    /// Calls C_DigestInit without a mechanism, which cancels the operation.
    pub fn digest_cancel(&self, session: CK_SESSION_HANDLE) -> Result<(), Code> {
        call!(self.table, C_DigestInit(session, ptr::null_mut())).result()
    }

    /// Calls C_Digest with this buffer, or as a length query without buffer. Returns the code and
    /// the length.
    pub fn digest_into(
        &self,
        session: CK_SESSION_HANDLE,
        data: &[u8],
        room: Option<&mut [u8]>,
    ) -> (Code, CK_ULONG) {
        let mut length = room.as_ref().map_or(0, |room| room.len() as CK_ULONG);
        let to = room.map_or(ptr::null_mut(), <[u8]>::as_mut_ptr);
        let (from, size) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
        let table = &self.table;
        let code = call!(table, C_Digest(session, from, size, to, &raw mut length));
        (code, length)
    }

    /// Calls C_Digest with a large buffer.
    pub fn digest(&self, session: CK_SESSION_HANDLE, data: &[u8]) -> Result<Vec<u8>, Code> {
        let mut room = vec![0; 99];
        let (code, length) = self.digest_into(session, data, Some(&mut room));
        code.result()?;
        room.truncate(length as usize);
        Ok(room)
    }

    pub fn digest_update(&self, session: CK_SESSION_HANDLE, part: &[u8]) -> Result<(), Code> {
        let (from, size) = (part.as_ptr().cast_mut(), part.len() as CK_ULONG);
        call!(self.table, C_DigestUpdate(session, from, size)).result()
    }

    pub fn digest_key(
        &self,
        session: CK_SESSION_HANDLE,
        key: CK_OBJECT_HANDLE,
    ) -> Result<(), Code> {
        call!(self.table, C_DigestKey(session, key)).result()
    }

    /// Calls C_DigestFinal with this buffer, or as a length query without buffer. Returns the code
    /// and the length.
    pub fn digest_final_into(
        &self,
        session: CK_SESSION_HANDLE,
        room: Option<&mut [u8]>,
    ) -> (Code, CK_ULONG) {
        let mut length = room.as_ref().map_or(0, |room| room.len() as CK_ULONG);
        let to = room.map_or(ptr::null_mut(), <[u8]>::as_mut_ptr);
        let code = call!(self.table, C_DigestFinal(session, to, &raw mut length));
        (code, length)
    }

    /// Calls C_DigestFinal with a large buffer.
    pub fn digest_final(&self, session: CK_SESSION_HANDLE) -> Result<Vec<u8>, Code> {
        let mut room = vec![0; 99];
        let (code, length) = self.digest_final_into(session, Some(&mut room));
        code.result()?;
        room.truncate(length as usize);
        Ok(room)
    }

    /// Calls C_GetOperationState, first as a length query, as programs do.
    pub fn operation_state(&self, session: CK_SESSION_HANDLE) -> Result<Vec<u8>, Code> {
        let (table, mut length) = (&self.table, 0);
        let null = ptr::null_mut();
        call!(table, C_GetOperationState(session, null, &raw mut length)).result()?;
        let mut room = vec![0; length as usize];
        let mut short = length - 1;
        let to = room.as_mut_ptr();
        let answer = call!(table, C_GetOperationState(session, to, &raw mut short));
        assert_eq!((answer, short), (Code(CKR_BUFFER_TOO_SMALL), length));
        call!(table, C_GetOperationState(session, to, &raw mut length)).result()?;
        assert_eq!(room.len(), length as usize);
        Ok(room)
    }

    /// Calls C_SetOperationState with these keys; 0 means no key.
    pub fn restore(
        &self,
        session: CK_SESSION_HANDLE,
        state: &[u8],
        keys: [CK_OBJECT_HANDLE; 2],
    ) -> Result<(), Code> {
        let (from, size) = (state.as_ptr().cast_mut(), state.len() as CK_ULONG);
        let [one, other] = keys;
        let table = &self.table;
        call!(table, C_SetOperationState(session, from, size, one, other)).result()
    }

    /// Returns the mechanisms that use a key.
    pub fn mechanisms_of_keys(&self, slot: CK_SLOT_ID) -> Result<Vec<CK_MECHANISM_TYPE>, Code> {
        let mut listed = self.mechanisms(slot)?;
        listed.retain(|kind| DIGESTS.iter().all(|(digest, ..)| digest != kind));
        Ok(listed)
    }

    /// Checks that each mechanism gives the digest of OpenSSL, for data in one part and in several
    /// parts.
    #[track_caller]
    pub fn digests_as_openssl(&self, session: CK_SESSION_HANDLE, data: &[u8]) {
        for (mechanism, name, _) in DIGESTS {
            let right = openssl::digest(name, data);
            self.digest_init(session, mechanism).unwrap();
            assert_eq!(self.digest(session, data), Ok(right.clone()), "{name}");
            for size in [1, 7, 63, 64, 65, 127, 128, 129, 5000] {
                self.digest_init(session, mechanism).unwrap();
                for part in data.chunks(size) {
                    self.digest_update(session, part).unwrap();
                }
                let made = self.digest_final(session);
                let length = data.len();
                assert_eq!(made.as_ref(), Ok(&right), "{name}, {length} by {size}");
            }
        }
    }
}

/// Returns the bytes 0, 1, 2, … 250, 0, 1 …
pub fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

/// The module with a read-only session on the token `files`, without TPM and login.
pub struct Files {
    _home: Home,
    pub raw: Raw,
    pub session: CK_SESSION_HANDLE,
}

impl Files {
    pub fn new() -> Files {
        let home = without_tpm();
        let Opened { raw, slot, .. } = Own::on(&home, "files").0;
        let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
        Files {
            _home: home,
            raw,
            session,
        }
    }
}
