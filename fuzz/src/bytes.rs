//! An input of the fuzzer as a sequence of choices. After the end of the input, every choice is the
//! first possible choice.

/// The bytes of an input, and the position of the next byte.
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

    /// Returns a number below `count`. `count` is at most 256.
    pub fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count.max(1)
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Returns true for one of `often` values of the next byte. Returns false after the end of the
    /// input.
    pub fn rarely(&mut self, often: u8) -> bool {
        self.byte() % often == often - 1
    }

    /// Returns `count` bytes, or all remaining bytes if there are fewer.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let left = &self.data[self.at.min(self.data.len())..];
        let taken = left[..count.min(left.len())].to_vec();
        self.at += taken.len();
        taken
    }

    /// Returns some bytes. The byte before them gives their number.
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
