//! Temporary faults that a test injects. A preloaded library makes system calls on one path fail
//! (tests/c/trouble.c).

use super::host::preloaded;
use super::story::tell_with;
use std::ffi::{CString, c_char, c_int};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Possible errors (errno) for a file that exists and is valid.
pub const ERRORS: [c_int; 7] = [
    libc::EMFILE,
    libc::ENFILE,
    libc::EIO,
    libc::ENOMEM,
    libc::ESTALE,
    libc::EACCES,
    libc::EINTR,
];
/// A number of calls that no test reaches.
pub const ALL: c_int = 1 << 20;

/// Runs a story in a process with the library.
pub fn tell(name: &str, story: impl FnOnce()) {
    let folder = TempDir::new().expect("a temporary folder");
    let library = preloaded(folder.path(), "trouble");
    tell_with(name, &[("LD_PRELOAD", library.as_os_str())], story);
}

/// A fault for one kind of call on one path, until [`Trouble::over`].
pub struct Trouble(());

impl Trouble {
    /// Injects a fault. The calls are `open`, `read`, `stat`, `link`, `cwd`, `list`, `write`,
    /// `fsync`, `access2`, `rename2`, and `clock` on `/`. The path is given by its end, or by a
    /// part followed by `*`. The first `first` calls pass, then `count` calls fail.
    pub fn new(call: &str, end: &Path, first: c_int, count: c_int, error: c_int) -> Trouble {
        type Arm = extern "C" fn(*const c_char, *const c_char, c_int, c_int, c_int);
        let call = CString::new(call).unwrap();
        let end = CString::new(end.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: The library has a function of this name and type. It copies both strings.
        unsafe {
            let arm: Arm = std::mem::transmute(symbol(c"trouble_arm".as_ptr()));
            arm(call.as_ptr(), end.as_ptr(), first, count, error);
        }
        Trouble(())
    }

    /// Counts calls of this kind on this path without a fault.
    pub fn counted(call: &str, end: &Path) -> Trouble {
        Trouble::new(call, end, ALL, 0, 0)
    }

    /// Returns the number of counted calls so far, failed or not.
    pub fn met(&self) -> c_int {
        // SAFETY: The library has a function of this name and type.
        unsafe {
            let met: extern "C" fn() -> c_int =
                std::mem::transmute(symbol(c"trouble_met".as_ptr()));
            met()
        }
    }

    /// Ends the fault. Returns the number of failed calls.
    pub fn over(self) -> c_int {
        // SAFETY: The library has a function of this name and type.
        unsafe {
            let over: extern "C" fn() -> c_int =
                std::mem::transmute(symbol(c"trouble_over".as_ptr()));
            over()
        }
    }
}

/// Stops the real-time clock at this second since 1970. `None` lets the clock run.
pub fn stop_clock(second: Option<u64>) {
    let second = second.map_or(-1, |second| second as std::ffi::c_long);
    // SAFETY: The library has a function of this name and type.
    unsafe {
        let clock: extern "C" fn(std::ffi::c_long) =
            std::mem::transmute(symbol(c"trouble_clock".as_ptr()));
        clock(second);
    }
}

/// Sets the fault for a program.
pub fn for_program(
    command: &mut Command,
    call: &str,
    end: &Path,
    first: c_int,
    count: c_int,
    error: c_int,
) {
    let end = end.display();
    command.env("TROUBLE", format!("{call}:{end}:{first}:{count}:{error}"));
}

fn symbol(name: *const c_char) -> *mut libc::c_void {
    // SAFETY: The name ends with a zero.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name) };
    assert!(!found.is_null(), "the story must run with `trouble::tell`");
    found
}

/// Makes one test of each story, `troubled::NAME`, in which faults can be injected.
#[macro_export]
macro_rules! troubled {
    ($($story:ident),+ $(,)?) => {
        mod troubled {
            $(#[test]
            fn $story() {
                let name = concat!(module_path!(), "::", stringify!($story));
                $crate::trouble::tell(name, super::$story);
            })+
        }
    };
}
