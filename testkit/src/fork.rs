//! fork() as in nginx and pkcs11-provider: the child is a copy with one thread.

use super::programs::poll;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A forked child that runs a closure and ends; killed on drop.
pub struct Forked {
    id: libc::pid_t,
    ended: bool,
}

impl Forked {
    /// Runs `body` in a child. A panic there makes [`Forked::succeeds`] fail.
    pub fn new(body: impl FnOnce()) -> Forked {
        // SAFETY: the test needs a fork of a process with threads. The allocator supports this. The
        // child leaves by _exit, so that no destructor of the parent runs twice.
        let id = unsafe { libc::fork() };
        assert!(id >= 0, "fork");
        if id == 0 {
            let good = catch_unwind(AssertUnwindSafe(body)).is_ok();
            // SAFETY: ends this process at once.
            unsafe { libc::_exit(i32::from(!good)) };
        }
        Forked { id, ended: false }
    }

    /// The child's process id.
    pub fn id(&self) -> libc::pid_t {
        self.id
    }

    /// Checks without reaping the child; [`Forked::succeeds`] does that.
    pub fn is_running(&self) -> bool {
        let id = libc::id_t::try_from(self.id).expect("a process id fits");
        // SAFETY: the child is ours and not yet waited for; zeroed, the record names no process.
        let ended = unsafe {
            let mut about: libc::siginfo_t = std::mem::zeroed();
            let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            assert_eq!(libc::waitid(libc::P_PID, id, &raw mut about, how), 0);
            about.si_pid()
        };
        ended == 0
    }

    /// Waits for the child, and fails unless it succeeded.
    #[track_caller]
    pub fn succeeds(self) {
        let limit = Duration::from_secs(80);
        let status = self.ends(limit);
        assert!(status.is_some(), "the child still runs after {limit:?}");
        assert_eq!(status, Some(0), "the child failed");
    }

    /// The status from waitpid; `None` if the child still ran after `limit` and was killed.
    pub fn ends(mut self, limit: Duration) -> Option<libc::c_int> {
        let mut status = 0;
        let ended = poll(limit, || {
            // SAFETY: the child is ours and not yet waited for.
            let id = unsafe { libc::waitpid(self.id, &raw mut status, libc::WNOHANG) };
            (id == self.id).then_some(())
        });
        self.ended = ended.is_some();
        ended.map(|()| status)
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        if !self.ended {
            // SAFETY: the child is ours and not yet waited for, so the id is still its own.
            unsafe {
                libc::kill(self.id, libc::SIGKILL);
                libc::waitpid(self.id, std::ptr::null_mut(), 0);
            }
        }
    }
}
