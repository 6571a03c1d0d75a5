//! Cleans the stack after computations with secrets.

use std::hint::black_box;

/// Overwrites the part of the stack that earlier calls used. Hash and cipher crates copy the last
/// block to the stack. The block may contain a part of a key or authorisation value.
///
/// Overwrites 32 KiB below the frame of the caller. The frame of the caller itself is not
/// overwritten. The caller must therefore compute in a separate function that is not inlined.
#[inline(never)]
pub fn overwrite_stack() {
    const DEPTH: usize = 32 << 10;
    black_box(&mut [0_u8; DEPTH]);
}

/// Runs `compute` and overwrites its part of the stack. Returns the result of `compute`.
pub(crate) fn leaving_nothing<R>(compute: impl FnOnce() -> R) -> R {
    #[inline(never)]
    fn apart<R>(compute: impl FnOnce() -> R) -> R {
        compute()
    }
    let result = apart(compute);
    overwrite_stack();
    result
}
