//! An input of the fuzzer as a row of choices. Where it ends, every further choice is the first.

/// The input, from where it is read next.
pub struct Bytes {
    data: Vec<u8>,
    at: usize,
}

impl Bytes {
    pub fn new(data: &[u8]) -> Self {
        Self {
            data: data.to_vec(),
            at: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.at >= self.data.len()
    }

    pub fn byte(&mut self) -> u8 {
        let byte = self.data.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub fn long(&mut self) -> u32 {
        u32::from(self.word()) << 16 | u32::from(self.word())
    }

    /// A number below `count`, which is 256 at most.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count.max(1)
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// True once in `often` choices, and never behind the end.
    pub fn rarely(&mut self, often: u8) -> bool {
        self.byte() % often == often - 1
    }

    /// So many bytes, or all that are left.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let left = &self.data[self.at.min(self.data.len())..];
        let taken = left[..count.min(left.len())].to_vec();
        self.at += taken.len();
        taken
    }

    /// Some bytes; one byte in front says how many.
    pub fn some(&mut self) -> Vec<u8> {
        let count = match self.byte() {
            count @ ..250 => usize::from(count),
            _ => usize::from(self.word()) % 5000,
        };
        self.take(count)
    }

    pub fn rest(&mut self) -> Vec<u8> {
        self.take(usize::MAX)
    }
}
