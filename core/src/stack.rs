//! What computations with secrets leave on the stack.

use std::hint::black_box;

/// Overwrites what the calls before it left on the stack: hash and cipher crates copy the last block
/// there, and with it a part of a key or of an authorisation value.
///
/// Reaches 32 KiB below its caller's frame. The caller's own frame stays: compute in a function of its
/// own that is not inlined.
#[inline(never)]
pub fn overwrite_stack() {
    const DEPTH: usize = 32 << 10;
    black_box(&mut [0_u8; DEPTH]);
}

/// The result of `compute`, with nothing of it left on the stack.
pub(crate) fn leaving_nothing<R>(compute: impl FnOnce() -> R) -> R {
    #[inline(never)]
    fn apart<R>(compute: impl FnOnce() -> R) -> R {
        compute()
    }
    let result = apart(compute);
    overwrite_stack();
    result
}
