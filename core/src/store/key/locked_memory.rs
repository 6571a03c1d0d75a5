//! Locked memory for decrypted keys.

use log::warn;
use region::LockGuard;
use zeroize::Zeroize;

/// Bytes that the system does not swap, and that are wiped on drop. They fill whole pages of their
/// own, because the system locks whole pages.
pub(super) struct Locked {
    /// The first field is dropped first, so the lock ends before the memory is freed.
    guard: Option<LockGuard>,
    pages: Vec<u8>,
    start: usize,
    length: usize,
}

impl Locked {
    pub(super) fn new(secret: &[u8]) -> Self {
        let page = region::page::size();
        let room = secret.len().max(1).next_multiple_of(page);
        let pages = vec![0; room + page];
        let start = (page - pages.as_ptr().addr() % page) % page;
        let guard = region::lock(pages[start..].as_ptr(), room);
        let guard = guard
            .inspect_err(|error| {
                warn!("cannot lock memory (RLIMIT_MEMLOCK): {error}; a decrypted key may be swapped out to disk")
            })
            .ok();
        let mut locked = Self {
            guard,
            pages,
            start,
            length: secret.len(),
        };
        locked.pages[start..start + secret.len()].copy_from_slice(secret);
        locked
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.pages[self.start..self.start + self.length]
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.pages.zeroize();
        self.guard = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locked_bytes_lie_in_pages_of_their_own() {
        let page = region::page::size();
        let secrets = [vec![1; 66], vec![2; 32], vec![3; page], vec![4; page + 1]];
        let locked = secrets.each_ref().map(|secret| Locked::new(secret));
        let mut pages: Vec<_> = locked
            .iter()
            .flat_map(|locked| {
                let at = locked.bytes().as_ptr().addr();
                at / page..(at + locked.bytes().len()).div_ceil(page)
            })
            .collect();
        assert_eq!(
            locked.each_ref().map(|locked| locked.bytes().to_vec()),
            secrets
        );
        assert_eq!(pages.len(), 5);
        pages.sort_unstable();
        pages.dedup();
        assert_eq!(pages.len(), 5);
    }
}
