//! PKCS#11 for a C caller: the function tables, and return codes that print their names.

use cryptoki_sys::*;
use libloading::Library;
use std::ffi::c_void;
use std::fmt;
use std::path::Path;
use std::ptr;

/// Calls the function `$name` of a PKCS#11 function table.
#[macro_export]
macro_rules! call {
    ($table:expr, $name:ident ( $($argument:expr),* $(,)? )) => {{
        let function = $table.$name.expect(concat!(stringify!($name), " is in the table"));
        // SAFETY: The library is never unloaded. Pointer arguments come from live values of the
        // caller. Some pointers are wrong on purpose, if the standard defines the result.
        $crate::raw::Code(unsafe { function($($argument),*) })
    }};
}

/// A return code (CK_RV).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(pub CK_RV);

impl Code {
    /// Returns `Ok` for CKR_OK, and the code for any other value.
    pub fn result(self) -> Result<(), Code> {
        if self.0 == CKR_OK { Ok(()) } else { Err(self) }
    }
}

macro_rules! names {
    ($($name:ident)+) => {
        impl fmt::Debug for Code {
            fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($name => to.write_str(stringify!($name)),)+
                    other => write!(to, "{other:#x}"),
                }
            }
        }
    };
}

names! {
    CKR_OK CKR_CANCEL CKR_HOST_MEMORY CKR_SLOT_ID_INVALID CKR_GENERAL_ERROR CKR_FUNCTION_FAILED
    CKR_ARGUMENTS_BAD CKR_NO_EVENT CKR_NEED_TO_CREATE_THREADS CKR_CANT_LOCK
    CKR_ATTRIBUTE_READ_ONLY CKR_ATTRIBUTE_SENSITIVE CKR_ATTRIBUTE_TYPE_INVALID
    CKR_ATTRIBUTE_VALUE_INVALID CKR_ACTION_PROHIBITED CKR_DATA_INVALID CKR_DATA_LEN_RANGE
    CKR_DEVICE_ERROR CKR_DEVICE_MEMORY CKR_DEVICE_REMOVED CKR_FUNCTION_CANCELED
    CKR_FUNCTION_NOT_PARALLEL CKR_FUNCTION_NOT_SUPPORTED CKR_KEY_HANDLE_INVALID
    CKR_KEY_TYPE_INCONSISTENT CKR_KEY_FUNCTION_NOT_PERMITTED CKR_MECHANISM_INVALID
    CKR_MECHANISM_PARAM_INVALID CKR_OBJECT_HANDLE_INVALID CKR_OPERATION_ACTIVE
    CKR_OPERATION_NOT_INITIALIZED CKR_PIN_INCORRECT CKR_PIN_INVALID CKR_PIN_LEN_RANGE
    CKR_PIN_LOCKED CKR_DOMAIN_PARAMS_INVALID CKR_CURVE_NOT_SUPPORTED CKR_KEY_SIZE_RANGE CKR_SESSION_CLOSED
    CKR_USER_ANOTHER_ALREADY_LOGGED_IN CKR_SESSION_COUNT CKR_SESSION_HANDLE_INVALID
    CKR_SESSION_PARALLEL_NOT_SUPPORTED CKR_SESSION_READ_ONLY CKR_SESSION_EXISTS
    CKR_SESSION_READ_ONLY_EXISTS CKR_SIGNATURE_INVALID CKR_SIGNATURE_LEN_RANGE
    CKR_TEMPLATE_INCOMPLETE CKR_TEMPLATE_INCONSISTENT CKR_TOKEN_NOT_PRESENT
    CKR_TOKEN_NOT_RECOGNIZED CKR_TOKEN_WRITE_PROTECTED CKR_USER_ALREADY_LOGGED_IN
    CKR_USER_NOT_LOGGED_IN CKR_USER_PIN_NOT_INITIALIZED CKR_USER_TYPE_INVALID
    CKR_RANDOM_SEED_NOT_SUPPORTED CKR_RANDOM_NO_RNG CKR_BUFFER_TOO_SMALL
    CKR_CRYPTOKI_NOT_INITIALIZED CKR_CRYPTOKI_ALREADY_INITIALIZED
    CKR_ENCRYPTED_DATA_INVALID CKR_ENCRYPTED_DATA_LEN_RANGE CKR_WRAPPED_KEY_INVALID
    CKR_WRAPPED_KEY_LEN_RANGE CKR_UNWRAPPING_KEY_HANDLE_INVALID CKR_UNWRAPPING_KEY_SIZE_RANGE
    CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT CKR_STATE_UNSAVEABLE CKR_SAVED_STATE_INVALID CKR_KEY_INDIGESTIBLE
}

/// An attribute of a template: its type and its value.
pub type Item = (CK_ATTRIBUTE_TYPE, Vec<u8>);

/// A loaded module, which is never unloaded.
#[derive(Clone)]
pub struct Raw {
    library: &'static Library,
    /// The function table of version 2.40.
    pub table: CK_FUNCTION_LIST,
}

impl Raw {
    pub fn load(path: &Path) -> Raw {
        // SAFETY: The initialisers of the module only register handlers, and the module stays loaded.
        let library = unsafe { Library::new(path) }.unwrap_or_else(|why| panic!("{why}"));
        let library: &'static Library = Box::leak(Box::new(library));
        let mut table: CK_FUNCTION_LIST_PTR = ptr::null_mut();
        // SAFETY: The standard defines the type of the symbol. `table` is valid for writing. The
        // table to which it points lives as long as the library.
        let table = unsafe {
            let symbol: libloading::Symbol<
                unsafe extern "C" fn(*mut CK_FUNCTION_LIST_PTR) -> CK_RV,
            > = library
                .get(b"C_GetFunctionList")
                .expect("C_GetFunctionList is exported");
            assert_eq!(symbol(&raw mut table), CKR_OK, "C_GetFunctionList");
            *table
        };
        Raw { library, table }
    }

    /// Calls C_GetInterface for the version `(major, minor)`; `None` means the default.
    pub fn interface(&self, version: Option<(u8, u8)>) -> Result<*const c_void, Code> {
        type Function = unsafe extern "C" fn(
            *mut CK_UTF8CHAR,
            *mut CK_VERSION,
            *mut *mut CK_INTERFACE,
            CK_FLAGS,
        ) -> CK_RV;
        let mut name = *b"PKCS 11\0";
        let mut wanted = version.map(|(major, minor)| CK_VERSION { major, minor });
        let mut found: *mut CK_INTERFACE = ptr::null_mut();
        let version = wanted.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
        // SAFETY: The standard defines the type of the symbol, and all four arguments are valid.
        unsafe {
            let symbol: libloading::Symbol<Function> = self
                .library
                .get(b"C_GetInterface")
                .expect("C_GetInterface is exported");
            Code(symbol(name.as_mut_ptr(), version, &raw mut found, 0)).result()?;
            Ok((*found).pFunctionList.cast_const())
        }
    }

    /// Calls C_Initialize as programs do: locks of the operating system, no callbacks.
    pub fn initialize(&self) -> Result<(), Code> {
        let mut args = CK_C_INITIALIZE_ARGS {
            flags: CKF_OS_LOCKING_OK,
            ..CK_C_INITIALIZE_ARGS::default()
        };
        call!(self.table, C_Initialize((&raw mut args).cast())).result()
    }

    pub fn finalize(&self) -> Result<(), Code> {
        call!(self.table, C_Finalize(ptr::null_mut())).result()
    }

    pub fn slots(&self, with_token: bool) -> Result<Vec<CK_SLOT_ID>, Code> {
        let (present, mut count) = (u8::from(with_token), 0);
        call!(
            self.table,
            C_GetSlotList(present, ptr::null_mut(), &raw mut count)
        )
        .result()?;
        let mut slots = vec![0; count as usize];
        call!(
            self.table,
            C_GetSlotList(present, slots.as_mut_ptr(), &raw mut count)
        )
        .result()?;
        slots.truncate(count as usize);
        Ok(slots)
    }

    pub fn slot_info(&self, slot: CK_SLOT_ID) -> Result<CK_SLOT_INFO, Code> {
        let mut info = CK_SLOT_INFO::default();
        call!(self.table, C_GetSlotInfo(slot, &raw mut info)).result()?;
        Ok(info)
    }

    pub fn token_info(&self, slot: CK_SLOT_ID) -> Result<CK_TOKEN_INFO, Code> {
        let mut info = CK_TOKEN_INFO::default();
        call!(self.table, C_GetTokenInfo(slot, &raw mut info)).result()?;
        Ok(info)
    }

    pub fn mechanisms(&self, slot: CK_SLOT_ID) -> Result<Vec<CK_MECHANISM_TYPE>, Code> {
        let mut count = 0;
        let null = ptr::null_mut();
        call!(self.table, C_GetMechanismList(slot, null, &raw mut count)).result()?;
        let mut list = vec![0; count as usize];
        call!(
            self.table,
            C_GetMechanismList(slot, list.as_mut_ptr(), &raw mut count)
        )
        .result()?;
        list.truncate(count as usize);
        Ok(list)
    }

    pub fn mechanism_info(
        &self,
        slot: CK_SLOT_ID,
        mechanism: CK_MECHANISM_TYPE,
    ) -> Result<CK_MECHANISM_INFO, Code> {
        let mut info = CK_MECHANISM_INFO::default();
        call!(
            self.table,
            C_GetMechanismInfo(slot, mechanism, &raw mut info)
        )
        .result()?;
        Ok(info)
    }

    pub fn open(&self, slot: CK_SLOT_ID, flags: CK_FLAGS) -> Result<CK_SESSION_HANDLE, Code> {
        let mut session = 0;
        let null = ptr::null_mut();
        call!(
            self.table,
            C_OpenSession(slot, flags, null, None, &raw mut session)
        )
        .result()?;
        assert_ne!(session, CK_INVALID_HANDLE, "a session handle is never 0");
        Ok(session)
    }

    pub fn close(&self, session: CK_SESSION_HANDLE) -> Result<(), Code> {
        call!(self.table, C_CloseSession(session)).result()
    }

    pub fn session_info(&self, session: CK_SESSION_HANDLE) -> Result<CK_SESSION_INFO, Code> {
        let mut info = CK_SESSION_INFO::default();
        call!(self.table, C_GetSessionInfo(session, &raw mut info)).result()?;
        Ok(info)
    }

    pub fn login(
        &self,
        session: CK_SESSION_HANDLE,
        user: CK_ULONG,
        pin: &[u8],
    ) -> Result<(), Code> {
        let mut pin = pin.to_vec();
        let length = pin.len() as CK_ULONG;
        call!(self.table, C_Login(session, user, pin.as_mut_ptr(), length)).result()
    }

    pub fn logout(&self, session: CK_SESSION_HANDLE) -> Result<(), Code> {
        call!(self.table, C_Logout(session)).result()
    }

    pub fn find_init(&self, session: CK_SESSION_HANDLE, template: &[Item]) -> Result<(), Code> {
        let mut items: Vec<CK_ATTRIBUTE> = template
            .iter()
            .map(|(kind, value)| CK_ATTRIBUTE {
                type_: *kind,
                pValue: value.as_ptr().cast_mut().cast(),
                ulValueLen: value.len() as CK_ULONG,
            })
            .collect();
        let count = items.len() as CK_ULONG;
        call!(
            self.table,
            C_FindObjectsInit(session, items.as_mut_ptr(), count)
        )
        .result()
    }

    /// Calls C_FindObjects for at most `room` handles.
    pub fn find_next(
        &self,
        session: CK_SESSION_HANDLE,
        room: usize,
    ) -> Result<Vec<CK_OBJECT_HANDLE>, Code> {
        let (mut handles, mut count) = (vec![0; room], 0);
        let size = room as CK_ULONG;
        let code = call!(
            self.table,
            C_FindObjects(session, handles.as_mut_ptr(), size, &raw mut count)
        );
        code.result()?;
        handles.truncate(count as usize);
        Ok(handles)
    }

    pub fn find_final(&self, session: CK_SESSION_HANDLE) -> Result<(), Code> {
        call!(self.table, C_FindObjectsFinal(session)).result()
    }

    /// Makes a whole search: C_FindObjectsInit, C_FindObjects and C_FindObjectsFinal.
    pub fn find(
        &self,
        session: CK_SESSION_HANDLE,
        template: &[Item],
    ) -> Result<Vec<CK_OBJECT_HANDLE>, Code> {
        self.find_init(session, template)?;
        let mut all = Vec::new();
        loop {
            let some = self.find_next(session, 3)?;
            if some.is_empty() {
                break;
            }
            all.extend(some);
        }
        self.find_final(session)?;
        Ok(all)
    }

    /// Returns the value of one attribute. Makes a length query first, as programs do.
    pub fn attribute(
        &self,
        session: CK_SESSION_HANDLE,
        object: CK_OBJECT_HANDLE,
        kind: CK_ATTRIBUTE_TYPE,
    ) -> Result<Vec<u8>, Code> {
        let mut item = CK_ATTRIBUTE {
            type_: kind,
            pValue: ptr::null_mut(),
            ulValueLen: 0,
        };
        call!(
            self.table,
            C_GetAttributeValue(session, object, &raw mut item, 1)
        )
        .result()?;
        let mut value = vec![0_u8; item.ulValueLen as usize];
        item.pValue = value.as_mut_ptr().cast();
        call!(
            self.table,
            C_GetAttributeValue(session, object, &raw mut item, 1)
        )
        .result()?;
        assert_eq!(
            value.len() as CK_ULONG,
            item.ulValueLen,
            "the length of the length query"
        );
        Ok(value)
    }

    pub fn sign_init(
        &self,
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_TYPE,
        key: CK_OBJECT_HANDLE,
    ) -> Result<(), Code> {
        self.sign_init_with(session, mechanism, &[], key)
    }

    /// Calls C_SignInit with a parameter. An empty parameter is NULL.
    pub fn sign_init_with(
        &self,
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_TYPE,
        parameter: &[CK_ULONG],
        key: CK_OBJECT_HANDLE,
    ) -> Result<(), Code> {
        let mut mechanism = CK_MECHANISM {
            mechanism,
            pParameter: match parameter {
                [] => ptr::null_mut(),
                some => some.as_ptr().cast_mut().cast(),
            },
            ulParameterLen: size_of_val(parameter) as CK_ULONG,
        };
        call!(self.table, C_SignInit(session, &raw mut mechanism, key)).result()
    }

    /// Calls C_Sign with a large buffer.
    pub fn sign(&self, session: CK_SESSION_HANDLE, data: &[u8]) -> Result<Vec<u8>, Code> {
        let mut room = vec![0; 512];
        let (code, length) = self.sign_into(session, data, Some(&mut room));
        code.result()?;
        room.truncate(length as usize);
        Ok(room)
    }

    /// Calls C_Sign with this buffer, or as a length query without buffer. Returns the code and the
    /// length.
    pub fn sign_into(
        &self,
        session: CK_SESSION_HANDLE,
        data: &[u8],
        room: Option<&mut [u8]>,
    ) -> (Code, CK_ULONG) {
        let mut length = room.as_ref().map_or(0, |room| room.len() as CK_ULONG);
        let to = room.map_or(ptr::null_mut(), <[u8]>::as_mut_ptr);
        let size = data.len() as CK_ULONG;
        let data = data.as_ptr().cast_mut();
        (
            call!(self.table, C_Sign(session, data, size, to, &raw mut length)),
            length,
        )
    }

    pub fn sign_update(&self, session: CK_SESSION_HANDLE, data: &[u8]) -> Result<(), Code> {
        let size = data.len() as CK_ULONG;
        call!(
            self.table,
            C_SignUpdate(session, data.as_ptr().cast_mut(), size)
        )
        .result()
    }

    /// Calls C_SignFinal with this buffer, or as a length query without buffer. Returns the code
    /// and the length.
    pub fn sign_final_into(
        &self,
        session: CK_SESSION_HANDLE,
        room: Option<&mut [u8]>,
    ) -> (Code, CK_ULONG) {
        let mut length = room.as_ref().map_or(0, |room| room.len() as CK_ULONG);
        let to = room.map_or(ptr::null_mut(), <[u8]>::as_mut_ptr);
        (
            call!(self.table, C_SignFinal(session, to, &raw mut length)),
            length,
        )
    }

    pub fn sign_final(&self, session: CK_SESSION_HANDLE) -> Result<Vec<u8>, Code> {
        let mut room = vec![0; 512];
        let (code, length) = self.sign_final_into(session, Some(&mut room));
        code.result()?;
        room.truncate(length as usize);
        Ok(room)
    }

    pub fn random(&self, session: CK_SESSION_HANDLE, size: usize) -> Result<Vec<u8>, Code> {
        let mut bytes = vec![0; size];
        let length = size as CK_ULONG;
        call!(
            self.table,
            C_GenerateRandom(session, bytes.as_mut_ptr(), length)
        )
        .result()?;
        Ok(bytes)
    }
}

/// Returns a blank-padded field without its padding.
pub fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field)
        .trim_end_matches(' ')
        .to_owned()
}
