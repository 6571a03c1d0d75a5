//! Handles: numbers that name slots, sessions and objects for the caller.

use cryptoki_sys::{CK_OBJECT_HANDLE, CK_SESSION_HANDLE, CK_SLOT_ID, CK_ULONG};
use std::sync::atomic::{AtomicU64, Ordering};

/// The identifier of a slot (CK_SLOT_ID).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SlotId(pub(crate) CK_SLOT_ID);

/// The handle of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionHandle(pub(crate) CK_SESSION_HANDLE);

/// The handle of an object. A later handle is greater than an earlier handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectHandle(pub(crate) CK_OBJECT_HANDLE);

/// Makes new handles. No handle is 0 (CK_INVALID_HANDLE). No handle occurs twice in a process and
/// its forked children.
#[derive(Debug)]
pub(crate) struct Mint(AtomicU64);

impl Mint {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(1))
    }

    /// Returns a mint for a forked child. The mint continues with the number that the parent
    /// reached.
    pub(crate) fn for_child(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }

    pub(crate) fn session(&self) -> SessionHandle {
        SessionHandle(self.next())
    }

    pub(crate) fn object(&self) -> ObjectHandle {
        ObjectHandle(self.next())
    }

    fn next(&self) -> CK_ULONG {
        self.0.fetch_add(1, Ordering::Relaxed) as CK_ULONG
    }
}
