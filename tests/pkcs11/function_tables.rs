//! The function tables: every entry exists, the versions differ, and unsupported functions return
//! CKR_FUNCTION_NOT_SUPPORTED. Also the arguments of C_Initialize.

use cryptoki_sys::*;
use std::ffi::c_void;
use std::{mem, ptr};
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{Opened, loaded};
use testkit::raw::{Code, Raw};
use testkit::tpm::Swtpm;

over_our_transport!(what_is_not_supported_says_so,);
once!(
    every_entry_is_there,
    interfaces_are_told_apart,
    the_arguments_of_initialize,
    parallel_functions_of_old_times,
);

fn nowhere() -> (Home, Raw) {
    let home = Home::new("swtpm:path=/nonexistent/socket");
    let raw = loaded(&home);
    (home, raw)
}

/// The entries of a table after its version, as addresses.
fn entries(table: *const c_void, size: usize) -> Vec<usize> {
    let count = size / mem::size_of::<usize>() - 1;
    // SAFETY: a table is its version, padded to the size of a pointer, and then pointers. Its size
    // is that of the standard's structure for this version.
    unsafe { std::slice::from_raw_parts(table.cast::<usize>().add(1), count).to_vec() }
}

fn every_entry_is_there() {
    let (_home, raw) = nowhere();
    let v2 = ptr::from_ref(&raw.table).cast();
    let v2 = entries(v2, mem::size_of::<CK_FUNCTION_LIST>());
    let v3 = raw.interface(Some((3, 0))).unwrap();
    let v3 = entries(v3, mem::size_of::<CK_FUNCTION_LIST_3_0>());
    assert_eq!((v2.len(), v3.len()), (68, 92));
    for (table, list) in [("2.40", &v2), ("3.0", &v3)] {
        let holes: Vec<_> = (0..list.len()).filter(|at| list[*at] == 0).collect();
        assert!(holes.is_empty(), "{table}: no function at {holes:?}");
    }
    assert_eq!((raw.table.version.major, raw.table.version.minor), (2, 40));
}

fn interfaces_are_told_apart() {
    let (_home, raw) = nowhere();
    // SAFETY: every table begins with its version.
    let version = |table: *const c_void| unsafe { *table.cast::<CK_VERSION>() };
    for wanted in [(2, 40), (3, 0)] {
        let found = version(raw.interface(Some(wanted)).unwrap());
        assert_eq!((found.major, found.minor), wanted);
    }
    let default = version(raw.interface(None).unwrap());
    assert!(default.major >= 3, "the default is the newest: {default:?}");
    assert_eq!(raw.interface(Some((7, 7))), Err(Code(CKR_ARGUMENTS_BAD)));

    // SAFETY: a function table of version 3.0 or later begins with that of 3.0.
    let v3 = unsafe {
        *raw.interface(Some((3, 0)))
            .unwrap()
            .cast::<CK_FUNCTION_LIST_3_0>()
    };
    let mut count = 0;
    let asked = call!(v3, C_GetInterfaceList(ptr::null_mut(), &raw mut count));
    assert_eq!(asked, Code(CKR_OK));
    assert!(count >= 2);
    let empty = CK_INTERFACE {
        pInterfaceName: ptr::null_mut(),
        pFunctionList: ptr::null_mut(),
        flags: 0,
    };
    let mut list = vec![empty; count as usize];
    let mut short = count - 1;
    let code = call!(v3, C_GetInterfaceList(list.as_mut_ptr(), &raw mut short));
    assert_eq!((code, short), (Code(CKR_BUFFER_TOO_SMALL), count));
    let code = call!(v3, C_GetInterfaceList(list.as_mut_ptr(), &raw mut count));
    assert_eq!(code, Code(CKR_OK));
    let mut versions = Vec::new();
    for interface in list {
        // SAFETY: the name is a C string, as the standard says.
        let name = unsafe { std::ffi::CStr::from_ptr(interface.pInterfaceName.cast()) };
        assert_eq!(name.to_str(), Ok("PKCS 11"));
        assert_eq!(
            interface.flags & CKF_INTERFACE_FORK_SAFE,
            0,
            "sessions are not copied"
        );
        let version = version(interface.pFunctionList);
        versions.push((version.major, version.minor));
    }
    assert!(
        versions.contains(&(2, 40)) && versions.contains(&(3, 0)),
        "{versions:?}"
    );

    let mut found: *mut CK_INTERFACE = ptr::null_mut();
    let mut name = *b"Vendor X\0";
    let to = &raw mut found;
    let code = call!(
        v3,
        C_GetInterface(name.as_mut_ptr(), ptr::null_mut(), to, 0)
    );
    assert_eq!(code, Code(CKR_ARGUMENTS_BAD));
}

fn the_arguments_of_initialize() {
    let (_home, raw) = nowhere();
    unsafe extern "C" fn create(_: *mut *mut c_void) -> CK_RV {
        CKR_OK
    }
    unsafe extern "C" fn other(_: *mut c_void) -> CK_RV {
        CKR_OK
    }
    let none = CK_C_INITIALIZE_ARGS {
        CreateMutex: None,
        DestroyMutex: None,
        LockMutex: None,
        UnlockMutex: None,
        flags: 0,
        pReserved: ptr::null_mut(),
    };
    let reserved = CK_C_INITIALIZE_ARGS {
        pReserved: ptr::from_ref(&raw).cast_mut().cast(),
        ..none
    };
    let some = CK_C_INITIALIZE_ARGS {
        CreateMutex: Some(create),
        LockMutex: Some(other),
        ..none
    };
    for mut bad in [reserved, some] {
        let code = call!(raw.table, C_Initialize((&raw mut bad).cast()));
        assert_eq!(code, Code(CKR_ARGUMENTS_BAD));
        assert_eq!(raw.finalize(), Err(Code(CKR_CRYPTOKI_NOT_INITIALIZED)));
    }
    let locks = CK_C_INITIALIZE_ARGS {
        CreateMutex: Some(create),
        DestroyMutex: Some(other),
        LockMutex: Some(other),
        UnlockMutex: Some(other),
        flags: CKF_OS_LOCKING_OK,
        pReserved: ptr::null_mut(),
    };
    let no_threads = CKF_OS_LOCKING_OK | CKF_LIBRARY_CANT_CREATE_OS_THREADS;
    let quiet = CK_C_INITIALIZE_ARGS {
        flags: no_threads,
        ..none
    };
    for mut good in [none, locks, quiet] {
        assert_eq!(
            call!(raw.table, C_Initialize((&raw mut good).cast())),
            Code(CKR_OK)
        );
        let twice = call!(raw.table, C_Initialize((&raw mut good).cast()));
        assert_eq!(twice, Code(CKR_CRYPTOKI_ALREADY_INITIALIZED));
        raw.finalize().unwrap();
    }
    assert_eq!(
        call!(raw.table, C_Initialize(ptr::null_mut())),
        Code(CKR_OK)
    );
    raw.finalize().unwrap();
    assert_eq!(raw.finalize(), Err(Code(CKR_CRYPTOKI_NOT_INITIALIZED)));
}

fn parallel_functions_of_old_times() {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    let Opened { raw, session, .. } = Opened::new(&home);
    let parallel = Code(CKR_FUNCTION_NOT_PARALLEL);
    assert_eq!(call!(raw.table, C_GetFunctionStatus(session)), parallel);
    assert_eq!(call!(raw.table, C_CancelFunction(session)), parallel);
    let mut slot = 0;
    let event = call!(
        raw.table,
        C_WaitForSlotEvent(CKF_DONT_BLOCK, &raw mut slot, ptr::null_mut())
    );
    assert!(
        [CKR_NO_EVENT, CKR_FUNCTION_NOT_SUPPORTED].contains(&event.0),
        "{event:?}"
    );
}

fn what_is_not_supported_says_so(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let Opened { raw, session, .. } = Opened::new(&home);
    // SAFETY: as above.
    let v3 = unsafe {
        *raw.interface(Some((3, 0)))
            .unwrap()
            .cast::<CK_FUNCTION_LIST_3_0>()
    };
    macro_rules! addresses {
        ($($name:ident)+) => {
            [$((stringify!($name), v3.$name.expect("an entry") as *const c_void)),+]
        };
    }
    let unsupported = addresses! {
        C_SignRecoverInit C_SignRecover C_VerifyRecoverInit C_VerifyRecover
        C_DigestEncryptUpdate C_DecryptDigestUpdate C_SignEncryptUpdate C_DecryptVerifyUpdate
        C_WrapKey
        C_MessageEncryptInit C_EncryptMessage C_EncryptMessageBegin C_EncryptMessageNext
        C_MessageEncryptFinal
        C_MessageDecryptInit C_DecryptMessage C_DecryptMessageBegin C_DecryptMessageNext
        C_MessageDecryptFinal
        C_MessageSignInit C_SignMessage C_SignMessageBegin C_SignMessageNext C_MessageSignFinal
        C_MessageVerifyInit C_VerifyMessage C_VerifyMessageBegin C_VerifyMessageNext
        C_MessageVerifyFinal
    };
    type Words = unsafe extern "C" fn(
        CK_ULONG,
        CK_ULONG,
        CK_ULONG,
        CK_ULONG,
        CK_ULONG,
        CK_ULONG,
        CK_ULONG,
        CK_ULONG,
        CK_ULONG,
        CK_ULONG,
    ) -> CK_RV;
    for (name, address) in unsupported {
        // SAFETY: with the C calling conventions of our platforms a function may ignore arguments.
        // All of these functions take integers and pointers only, and must not follow null
        // pointers.
        let code = unsafe {
            let function: Words = mem::transmute(address);
            function(session, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        };
        assert_eq!(Code(code), Code(CKR_FUNCTION_NOT_SUPPORTED), "{name}");
    }
}
