//! fork() as in nginx and pkcs11-provider: the child is a copy of the process with one thread.

use super::programs::poll;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// A forked child that runs a closure and ends. The child is killed when this value is dropped.
pub struct Forked {
    id: libc::pid_t,
    ended: bool,
}

impl Forked {
    /// Runs `body` in a child. If `body` panics, [`Forked::succeeds`] fails.
    pub fn new(body: impl FnOnce()) -> Forked {
        // SAFETY: The test needs a fork of a process with threads, and the allocator supports this.
        // The child ends by _exit, so that no destructor of the parent runs twice.
        let id = unsafe { libc::fork() };
        assert!(id >= 0, "fork");
        if id == 0 {
            let good = catch_unwind(AssertUnwindSafe(body)).is_ok();
            // SAFETY: The call ends this process at once.
            unsafe { libc::_exit(i32::from(!good)) };
        }
        Forked { id, ended: false }
    }

    /// Returns the process id of the child.
    pub fn id(&self) -> libc::pid_t {
        self.id
    }

    /// Returns true if the child runs. Does not wait for the child; [`Forked::succeeds`] does that.
    pub fn is_running(&self) -> bool {
        let id = libc::id_t::try_from(self.id).expect("a process id fits");
        // SAFETY: The child belongs to this process, which has not waited for it. A zeroed record
        // names no process.
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

    /// Returns the status from waitpid. Returns `None` if the child still ran after `limit` and was
    /// killed.
    pub fn ends(mut self, limit: Duration) -> Option<libc::c_int> {
        let mut status = 0;
        let ended = poll(limit, || {
            // SAFETY: The child belongs to this process, which has not waited for it.
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
            // SAFETY: The child belongs to this process, which has not waited for it, so no other
            // process has the id.
            unsafe {
                libc::kill(self.id, libc::SIGKILL);
                libc::waitpid(self.id, std::ptr::null_mut(), 0);
            }
        }
    }
}
