//! Cleaning of the stack after computations with secrets.

use std::hint::black_box;

/// Overwrites the leftovers of earlier calls on the stack. Hash and cipher crates copy the last
/// block there, which may contain a part of a key or authorisation value.
///
/// Overwrites 32 KiB below its caller's frame. The caller's own frame stays, so compute in a
/// separate function that is not inlined.
#[inline(never)]
pub fn overwrite_stack() {
    const DEPTH: usize = 32 << 10;
    black_box(&mut [0_u8; DEPTH]);
}

/// The result of `compute`, without leftovers on the stack.
pub(crate) fn leaving_nothing<R>(compute: impl FnOnce() -> R) -> R {
    #[inline(never)]
    fn apart<R>(compute: impl FnOnce() -> R) -> R {
        compute()
    }
    let result = apart(compute);
    overwrite_stack();
    result
}
