//! libtpms, the TPM of swtpm, in this process. There is only one TPM. Its state is a value.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_uchar, c_uint};
use std::ptr;
use std::sync::{Mutex, Once};

/// The state of a TPM in the format of swtpm. `scripts/factory` gave this TPM an identity (P-256,
/// key at 0x81020000).
pub const FACTORY_STATE: &[u8] = include_bytes!("factory-state.bin");

/// The files of the TPM: `permall`, and the state that a shutdown saves.
static KEPT: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());

const PERMANENT: &str = "permall";
/// TPM_RETRY: the state does not exist yet.
const NOTHING: u32 = 0x800;

/// Starts the TPM with this permanent state (TPM2_Startup with TPM_SU_CLEAR).
pub fn start(permanent: &[u8]) {
    static CHOSEN: Once = Once::new();
    let mut kept = KEPT.lock().expect("a lock");
    kept.clear();
    kept.insert(PERMANENT.into(), permanent.to_vec());
    drop(kept);
    // SAFETY: Only one thread calls this function. The callbacks are static.
    unsafe {
        CHOSEN.call_once(|| {
            assert_eq!(TPMLIB_ChooseTPMVersion(1), 0);
            assert_eq!(TPMLIB_RegisterCallbacks(&raw mut CALLBACKS), 0);
        });
        TPMLIB_Terminate();
        assert_eq!(TPMLIB_MainInit(), 0, "libtpms takes the state");
    }
    let started = execute(&[0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0]);
    assert_eq!(started[6..10], [0; 4], "TPM2_Startup");
}

/// Shuts the TPM down and returns its permanent state. Without the shutdown, the next start would
/// count a failed try.
pub fn permanent() -> Vec<u8> {
    execute(&[0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x45, 0, 0]);
    KEPT.lock().expect("a lock")[PERMANENT].clone()
}

/// Executes a command and returns the answer.
pub fn execute(command: &[u8]) -> Vec<u8> {
    let mut command = command.to_vec();
    let (mut answer, mut size, mut room) = (ptr::null_mut(), 0, 0);
    // SAFETY: The pointers are valid. libtpms returns a buffer of `size` bytes, which this block
    // frees.
    unsafe {
        let code = TPMLIB_Process(
            &raw mut answer,
            &raw mut size,
            &raw mut room,
            command.as_mut_ptr(),
            command.len() as c_uint,
        );
        assert_eq!(code, 0, "libtpms processes");
        let bytes = std::slice::from_raw_parts(answer, size as usize).to_vec();
        libc::free(answer.cast());
        bytes
    }
}

/// Returns the number of handles of this kind (TPM2_GetCapability).
pub fn handles(first: u32) -> usize {
    let mut command = vec![0x80, 1, 0, 0, 0, 22, 0, 0, 1, 0x7A, 0, 0, 0, 1];
    command.extend(first.to_be_bytes());
    command.extend([0, 0, 0, 254]);
    crate::memory::number(&execute(&command), 15) as usize
}

/// Returns the number of failed tries that the TPM counts (TPM_PT_LOCKOUT_COUNTER).
pub fn lockout_counter() -> u32 {
    let command = [
        0x80, 1, 0, 0, 0, 22, 0, 0, 1, 0x7A, 0, 0, 0, 6, 0, 0, 2, 0x0E, 0, 0, 0, 1,
    ];
    crate::memory::number(&execute(&command), 23)
}

unsafe extern "C" fn nothing() -> u32 {
    0
}

unsafe extern "C" fn load(
    data: *mut *mut c_uchar,
    length: *mut u32,
    _: u32,
    name: *const c_char,
) -> u32 {
    // SAFETY: libtpms passes a valid name and two valid pointers. It frees the buffer that it
    // receives.
    unsafe {
        let name = CStr::from_ptr(name).to_string_lossy().into_owned();
        let kept = KEPT.lock().expect("a lock");
        let Some(bytes) = kept.get(&name) else {
            return NOTHING;
        };
        let copy = libc::malloc(bytes.len().max(1)).cast::<c_uchar>();
        ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len());
        *data = copy;
        *length = bytes.len() as u32;
    }
    0
}

unsafe extern "C" fn store(data: *const c_uchar, length: u32, _: u32, name: *const c_char) -> u32 {
    // SAFETY: libtpms passes `length` valid bytes and a valid name.
    unsafe {
        let name = CStr::from_ptr(name).to_string_lossy().into_owned();
        let bytes = std::slice::from_raw_parts(data, length as usize).to_vec();
        KEPT.lock().expect("a lock").insert(name, bytes);
    }
    0
}

unsafe extern "C" fn delete(_: u32, name: *const c_char, _: c_uchar) -> u32 {
    // SAFETY: libtpms passes a valid name.
    let name = unsafe { CStr::from_ptr(name) }
        .to_string_lossy()
        .into_owned();
    KEPT.lock().expect("a lock").remove(&name);
    0
}

unsafe extern "C" fn locality(locality: *mut u32, _: u32) -> u32 {
    // SAFETY: libtpms passes a valid pointer.
    unsafe { *locality = 0 };
    0
}

unsafe extern "C" fn presence(presence: *mut c_uchar, _: u32) -> u32 {
    // SAFETY: libtpms passes a valid pointer.
    unsafe { *presence = 0 };
    0
}

type Simple = unsafe extern "C" fn() -> u32;

/// `struct libtpms_callbacks` of <libtpms/tpm_library.h>.
#[repr(C)]
struct Callbacks {
    size: c_int,
    nvram_init: Simple,
    load: unsafe extern "C" fn(*mut *mut c_uchar, *mut u32, u32, *const c_char) -> u32,
    store: unsafe extern "C" fn(*const c_uchar, u32, u32, *const c_char) -> u32,
    delete: unsafe extern "C" fn(u32, *const c_char, c_uchar) -> u32,
    io_init: Simple,
    locality: unsafe extern "C" fn(*mut u32, u32) -> u32,
    presence: unsafe extern "C" fn(*mut c_uchar, u32) -> u32,
}

static mut CALLBACKS: Callbacks = Callbacks {
    size: size_of::<Callbacks>() as c_int,
    nvram_init: nothing,
    load,
    store,
    delete,
    io_init: nothing,
    locality,
    presence,
};

#[link(name = "tpms")]
unsafe extern "C" {
    fn TPMLIB_ChooseTPMVersion(version: c_int) -> u32;
    fn TPMLIB_RegisterCallbacks(callbacks: *mut Callbacks) -> u32;
    fn TPMLIB_MainInit() -> u32;
    fn TPMLIB_Terminate();
    fn TPMLIB_Process(
        answer: *mut *mut c_uchar,
        size: *mut u32,
        room: *mut u32,
        command: *mut c_uchar,
        length: u32,
    ) -> u32;
}
