//! Memory with guard pages directly before and after it. An access beyond the buffer ends the
//! process, or changes a pattern that is checked afterwards.

use std::ptr;

const PATTERN: u8 = 0xA5;

/// At which wall the memory lies; the other side has the pattern up to its wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wall {
    Before,
    Behind,
}

/// So many bytes between walls. Never unmapped: its process ends soon.
pub struct Walled {
    pages: *mut u8,
    mapped: usize,
    at: usize,
    length: usize,
}

impl Walled {
    /// `length` bytes of the pattern, `shift` bytes away from the wall.
    pub fn new(length: usize, wall: Wall, shift: usize) -> Walled {
        // SAFETY: a question without arguments in memory.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let mapped = (length + shift).div_ceil(page).max(1) * page;
        let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, nobody else's memory; the inner pages stay within it.
        let pages = unsafe {
            let size = mapped + 2 * page;
            let all = libc::mmap(ptr::null_mut(), size, libc::PROT_NONE, private, -1, 0);
            assert_ne!(all, libc::MAP_FAILED, "mmap");
            let pages = all.cast::<u8>().add(page);
            let open = libc::mprotect(pages.cast(), mapped, libc::PROT_READ | libc::PROT_WRITE);
            assert_eq!(open, 0, "mprotect");
            pages.write_bytes(PATTERN, mapped);
            pages
        };
        let at = match wall {
            Wall::Before => shift,
            Wall::Behind => mapped - length - shift,
        };
        Walled {
            pages,
            mapped,
            at,
            length,
        }
    }

    /// With these bytes inside, which nobody may write to.
    pub fn holding(bytes: &[u8], wall: Wall, shift: usize) -> Walled {
        let memory = Walled::filled(bytes, wall, shift);
        // SAFETY: our own pages.
        let closed = unsafe { libc::mprotect(memory.pages.cast(), memory.mapped, libc::PROT_READ) };
        assert_eq!(closed, 0, "mprotect");
        memory
    }

    /// With these bytes inside.
    pub fn filled(bytes: &[u8], wall: Wall, shift: usize) -> Walled {
        let memory = Walled::new(bytes.len(), wall, shift);
        // SAFETY: `length` bytes of our own pages begin there.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), memory.start(), bytes.len()) };
        memory
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: `at` is at most `mapped`.
        unsafe { self.pages.add(self.at) }
    }

    pub fn address(&self) -> usize {
        self.start() as usize
    }

    pub fn length(&self) -> usize {
        self.length
    }

    /// The current content.
    pub fn bytes(&self) -> Vec<u8> {
        self.all()[self.at..self.at + self.length].to_vec()
    }

    /// True if the memory around the buffer is unchanged.
    pub fn is_intact(&self) -> bool {
        let all = self.all();
        let around = all[..self.at].iter().chain(&all[self.at + self.length..]);
        around.copied().all(|byte| byte == PATTERN)
    }

    fn all(&self) -> &[u8] {
        // SAFETY: our own pages, open for reading; no call is under way.
        unsafe { std::slice::from_raw_parts(self.pages, self.mapped) }
    }
}
