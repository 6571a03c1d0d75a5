//! Templates and mechanism parameters at the C interface, on the token for session objects. This
//! target has no TPM and needs none.
#![no_main]

use devid_fuzz::bytes::Bytes;
use devid_fuzz::call;
use devid_fuzz::calls::Caller;
use devid_fuzz::device::{prepared, table};
use libfuzzer_sys::fuzz_target;
use std::ptr;

fuzz_target!(|data: &[u8]| {
    prepared();
    let table = table();
    assert_eq!(call!(table, C_Initialize, ptr::null_mut()), 0);
    Caller::with_slots(Bytes::new(data), &[256]).run();
    call!(table, C_Finalize, ptr::null_mut());
});
