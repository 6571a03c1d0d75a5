//! Any sequence of PKCS#11 calls over a correct TPM in memory. After the calls, the TPM must
//! contain no object and no session of the module, and no temporary file may remain.
#![no_main]

use devid_fuzz::bytes::Bytes;
use devid_fuzz::calls::Caller;
use devid_fuzz::device::{reset, table};
use devid_fuzz::host::Files;
use devid_fuzz::memory::Installed;
use devid_fuzz::{call, folder, libtpms};
use libfuzzer_sys::fuzz_target;
use std::ptr;

/// The first handles of transient objects, loaded HMAC sessions and loaded policy sessions
/// (TPM_HT).
const LEFT: [u32; 3] = [0x8000_0000, 0x0200_0000, 0x0300_0000];

fuzz_target!(|data: &[u8]| {
    reset();
    let _tpm = Installed::new(Box::new(|command| Some(libtpms::execute(command))));
    let table = table();
    assert_eq!(call!(table, C_Initialize, ptr::null_mut()), 0);
    let mut caller = Caller::new(Bytes::new(data));
    caller.run();
    call!(table, C_Finalize, ptr::null_mut());
    // The TPM counts each wrong PIN once, and never counts a right PIN.
    assert!(libtpms::lockout_counter() <= caller.wrong_pins);
    assert!(
        !Files::of(&folder()).has_unfinished(),
        "a temporary file of a writer remains"
    );
    for kind in LEFT {
        assert_eq!(libtpms::handles(kind), 0, "{kind:#x} left in the TPM");
    }
});
