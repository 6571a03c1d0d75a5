//! What is in the memory of another process, as a core image would show it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// Which of the secrets are in the process's memory.
pub fn found(process: u32, secrets: &[(&'static str, Vec<u8>)]) -> Vec<&'static str> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let (mut names, mut searched) = (Vec::new(), 0);
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, rest) = line.split_once('-').unwrap();
        let (to, _) = rest.split_once(' ').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        if memory.read_exact_at(&mut bytes, from).is_err() {
            continue; // the kernel's own pages
        }
        searched += bytes.len();
        for (name, secret) in secrets {
            // Half of it is as bad as all of it.
            let half = &secret[..secret.len().min(16)];
            // SAFETY: both pointers are valid for as many bytes as is said.
            let there = unsafe {
                let (at, wanted) = (bytes.as_ptr().cast(), half.as_ptr().cast());
                libc::memmem(at, bytes.len(), wanted, half.len())
            };
            if !names.contains(name) && !there.is_null() {
                names.push(*name);
            }
        }
    }
    assert!(searched > 100_000, "{searched} bytes searched");
    names
}
