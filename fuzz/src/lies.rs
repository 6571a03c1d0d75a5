//! Changes answers of a correct TPM.

use crate::bytes::Bytes;
use crate::memory::response;

/// Response codes that a client must survive: warnings, format-one codes with handle, session and
/// parameter numbers, codes of vendors, and undefined codes.
pub const CODES: [u32; 40] = [
    0x100,
    0x101,
    0x103,
    0x120,
    0x121,
    0x126,
    0x12F,
    0x143,
    0x144,
    0x14A,
    0x14B,
    0x14C,
    0x14D,
    0x153,
    0x155,
    0x081,
    0x184,
    0x18B,
    0x28B,
    0x1C4,
    0x2C4,
    0x095,
    0x1D5,
    0x09D,
    0x98E,
    0x9A2,
    0x922,
    0x921,
    0x920,
    0x908,
    0x90A,
    0x901,
    0x902,
    0x903,
    0x905,
    0x910,
    0x923,
    0x1E,
    0x500,
    0xFFFF_FFFF,
];

/// Changes answers between a client and a TPM: about one of `often` answers.
pub struct Liar {
    choices: Bytes,
    often: u8,
    earlier: Vec<Vec<u8>>,
}

impl Liar {
    pub fn new(choices: &[u8], often: u8) -> Self {
        Self {
            choices: Bytes::new(choices),
            often,
            earlier: Vec::new(),
        }
    }

    /// Returns the answer for the client. `execute` sends the command to the TPM. In some cases it
    /// is not called.
    pub fn tell(&mut self, execute: impl FnOnce() -> Vec<u8>) -> Option<Vec<u8>> {
        let choices = &mut self.choices;
        if choices.is_empty() || !choices.rarely(self.often) {
            let answer = execute();
            self.earlier.push(answer.clone());
            return Some(answer);
        }
        let kind = choices.below(14);
        match kind {
            0 => return None,
            1 => return Some(response(0x8001, choices.pick(&CODES), &[])),
            2 => return Some(response(0x8001, choices.long() & 0xFFF, &[])),
            _ => {}
        }
        let mut answer = execute();
        self.earlier.push(answer.clone());
        let length = answer.len();
        let body = length.saturating_sub(10);
        let at = 10 + usize::from(choices.word()) % body.max(1);
        match kind {
            3 => return None,
            4 if at < length => answer[at] ^= 1 << choices.below(8),
            5 if at < length => answer[at] = choices.byte(),
            6 | 7 if at + 1 < length => {
                let odd = [
                    0,
                    1,
                    2,
                    0xFFFF,
                    0x8000,
                    0x7FFF,
                    body as u16,
                    at as u16,
                    0x100,
                ];
                answer[at..at + 2].copy_from_slice(&choices.pick(&odd).to_be_bytes());
            }
            8 => answer.truncate(at),
            9 => answer.extend(choices.some()),
            10 => {
                let inserted = choices.some();
                answer.splice(at.min(length)..at.min(length), inserted);
            }
            11 => {
                let count = choices.below(64);
                answer.drain(at.min(length)..(at + count).min(length));
            }
            12 => {
                let which = choices.below(self.earlier.len());
                answer.clone_from(&self.earlier[which]);
            }
            _ => {
                // The header is changed too.
                let at = choices.below(10);
                if at < length {
                    answer[at] = choices.byte();
                }
                return Some(answer);
            }
        }
        if answer.len() >= 10 {
            let size = answer.len() as u32;
            answer[2..6].copy_from_slice(&size.to_be_bytes());
        }
        Some(answer)
    }
}
