//! Reads the memory of another process, as a core image would contain it.

use super::fork::Forked;
use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::unix::fs::FileExt;

/// A memory region of a process that contains the bytes of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// True if the kernel does not swap the region.
    pub locked: bool,
}

/// Returns the writable regions that contain these bytes.
pub fn places(process: u32, wanted: &[u8]) -> Vec<Place> {
    let maps = fs::read_to_string(format!("/proc/{process}/smaps")).unwrap();
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let (mut places, mut searched, mut holds) = (Vec::new(), 0, false);
    for line in maps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let locked = flags.split_whitespace().any(|flag| flag == "lo");
            places.extend(std::mem::take(&mut holds).then_some(Place { locked }));
        }
        let Some((from, to)) = writable(line) else {
            continue;
        };
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            searched += bytes.len();
            holds = contains(&bytes, wanted);
        } // else the kernel's own pages
    }
    assert!(searched > 100_000, "{searched} bytes searched");
    places
}

/// Returns the names of the secrets that are in the memory of the process. The first half of a
/// secret counts as the secret.
pub fn found(process: u32, secrets: &[(&'static str, Vec<u8>)]) -> Vec<&'static str> {
    let half = |secret: &[u8]| secret[..secret.len().min(16)].to_vec();
    let there = |secret: &[u8]| !places(process, &half(secret)).is_empty();
    let held = secrets.iter().filter(|(_, secret)| there(secret));
    held.map(|(name, _)| *name).collect()
}

/// Returns the address range of a writable region, if the line begins such a region.
fn writable(line: &str) -> Option<(u64, u64)> {
    let (range, rest) = line.split_once(' ')?;
    let (from, to) = range.split_once('-')?;
    let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16));
    rest.starts_with("rw").then_some((from.ok()?, to.ok()?))
}

/// Returns true if `bytes` contain `wanted`.
pub fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    // SAFETY: Both pointers are valid for the lengths that are passed.
    let there = unsafe {
        let (at, wanted_at) = (bytes.as_ptr().cast(), wanted.as_ptr().cast());
        libc::memmem(at, bytes.len(), wanted_at, wanted.len())
    };
    !there.is_null()
}

/// A process with the module that waits between its steps, so that its memory can be inspected.
pub struct Host {
    child: Forked,
    orders: PipeWriter,
    reports: PipeReader,
}

impl Host {
    /// Starts the process, which runs `live`. `live` receives a callback that waits for the next
    /// order.
    pub fn new(live: impl FnOnce(&mut dyn FnMut())) -> Host {
        let (mut from_parent, orders) = pipe().unwrap();
        let (reports, mut to_parent) = pipe().unwrap();
        let child = Forked::new(|| {
            live(&mut || {
                to_parent.write_all(&[0]).unwrap();
                from_parent.read_exact(&mut [0]).unwrap();
            });
        });
        Host {
            child,
            orders,
            reports,
        }
    }

    pub fn id(&self) -> u32 {
        u32::try_from(self.child.id()).unwrap()
    }

    /// Returns when the process waits for the next order of the test.
    pub fn waits(&mut self) {
        self.reports.read_exact(&mut [0]).expect("the host lives");
    }

    /// Gives an order, and returns when the process waits again.
    pub fn goes_on(&mut self) {
        self.orders.write_all(&[0]).unwrap();
        self.waits();
    }

    pub fn ends(mut self) {
        self.orders.write_all(&[0]).unwrap();
        self.child.succeeds();
    }
}
