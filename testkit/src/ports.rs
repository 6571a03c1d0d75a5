//! Free TCP ports, in pairs. libtss2 expects a TPM's control port after its command port.

use super::folders;
use std::fs::File;
use std::net::TcpListener;
use std::{fs, process};

/// The first port. The ports are below the kernel's range for outgoing connections.
const FIRST: u16 = 15000;
const COUNT: u16 = 8000;

/// The ports `first` and `first + 1`. They are reserved until this value is dropped. Other tests
/// respect the lock on a file with the name of the port. Other programs did not use the ports when
/// they were checked.
#[derive(Debug)]
pub struct Pair {
    pub first: u16,
    _lock: File,
}

impl Pair {
    pub fn claim() -> Pair {
        let folder = folders::scratch().join("ports");
        fs::create_dir_all(&folder).expect("a folder for locks");
        let start = u16::try_from(process::id() * 97 % u32::from(COUNT / 2)).expect("in range");
        for step in 0..COUNT / 2 {
            let first = FIRST + (start + step) % (COUNT / 2) * 2;
            let lock = File::create(folder.join(first.to_string())).expect("a lock file");
            if lock.try_lock().is_ok() && listen(first).is_some() && listen(first + 1).is_some() {
                return Pair { first, _lock: lock };
            }
        }
        panic!("no free pair of ports in {FIRST}..{}", FIRST + COUNT);
    }
}

/// Returns a listener on `port` of the loopback interface, if the port is free.
pub fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).ok()
}
