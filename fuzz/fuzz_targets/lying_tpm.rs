//! Sequences of PKCS#11 calls over a TPM in memory. Some of its answers are changed: another code,
//! a changed bit, a wrong length, a truncated answer, an earlier answer, no answer. The first half
//! of the input chooses the calls, the second half the changes.
#![no_main]

use devid_fuzz::bytes::Bytes;
use devid_fuzz::calls::Caller;
use devid_fuzz::device::{reset, table};
use devid_fuzz::host::Files;
use devid_fuzz::lies::Liar;
use devid_fuzz::memory::Installed;
use devid_fuzz::{call, folder, libtpms};
use libfuzzer_sys::fuzz_target;
use std::ptr;

fuzz_target!(|data: &[u8]| {
    reset();
    let (calls, lies) = data.split_at(data.len() / 2);
    let mut liar = Liar::new(lies, 6);
    let _tpm = Installed::new(Box::new(move |command| {
        liar.tell(|| libtpms::execute(command))
    }));
    let table = table();
    assert_eq!(call!(table, C_Initialize, ptr::null_mut()), 0);
    Caller::new(Bytes::new(calls)).run();
    call!(table, C_Finalize, ptr::null_mut());
    assert!(
        !Files::of(&folder()).has_unfinished(),
        "a temporary file of a writer remains"
    );
});
