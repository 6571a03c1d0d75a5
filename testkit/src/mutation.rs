//! An attacker between the module and its TPM who alters answers. A seed determines all
//! alterations.

use super::proxy::{Mutate, Reply, command};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Pseudo-random numbers from a seed (SplitMix64).
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// The kind of alteration of a TPM response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Some bits of the response are flipped.
    Bits,
    /// The size in the response header is wrong.
    Size,
    /// A size or a count inside the response is wrong.
    Count,
    /// The end is missing. The size in the header is that of the shorter answer.
    Truncated,
    /// Bytes are appended. The size in the header is that of the longer answer.
    Lengthened,
    /// The response is an earlier response to the same command code.
    Replayed,
    /// The response belongs to another command.
    Swapped,
    /// The response is right, but arrives one byte at a time.
    Dripped,
    /// The connection ends before the end of the response.
    Closed,
    /// The response is incomplete, and the connection stays open.
    Silent,
    /// The response has another response code.
    Code,
    /// The TPM did not receive the command. Only faults of the proxy do that.
    Unsent,
    /// The TPM did not receive the command, and the answer says that an object of the command does
    /// not exist. Only faults of the proxy do that.
    Gone,
}

const KINDS: [Kind; 11] = [
    Kind::Bits,
    Kind::Size,
    Kind::Count,
    Kind::Truncated,
    Kind::Lengthened,
    Kind::Replayed,
    Kind::Swapped,
    Kind::Dripped,
    Kind::Closed,
    Kind::Silent,
    Kind::Code,
];

/// TPM_RC of each form (Part 2, section 6.6). The list has codes without a number, codes of a
/// parameter, a handle and a session, warnings, vendor codes, codes of resource managers, and
/// undefined codes.
const CODES: [u32; 40] = [
    0x000,
    0x030,
    0x100,
    0x101,
    0x103,
    0x120,
    0x124,
    0x125,
    0x12F,
    0x143,
    0x144,
    0x145,
    0x14A,
    0x14B,
    0x14C,
    0x084,
    0x08B,
    0x08E,
    0x09F,
    0x0A6,
    0x18B,
    0x1C4,
    0x1DF,
    0x28B,
    0x2C3,
    0x2D2,
    0x2DB,
    0x98E,
    0x9A2,
    0x902,
    0x903,
    0x908,
    0x90A,
    0x910,
    0x918,
    0x920,
    0x921,
    0x922,
    0x500,
    0x000B_0101,
];

/// The responses that are altered.
#[derive(Clone, Copy, Debug)]
enum Which {
    One(usize),
    /// Beginning with this answer, all answers to the command code of this answer.
    Alike(usize),
    /// Beginning with this answer, one of several answers.
    Some(usize, usize),
}

/// The maximum number of altered answers in a test. Most lasting faults occur after the first
/// altered answers.
const MOST: usize = 12;

/// The unaltered responses of a test, each with its command code.
pub type Recording = Arc<Vec<(u32, Vec<u8>)>>;

/// The alterations: the command code and the kind.
pub type Altered = Vec<(u32, Kind)>;
pub type Done = Arc<Mutex<Altered>>;

pub struct Interposer {
    dice: Dice,
    which: Which,
    /// The kind of all alterations; `None` for a random kind each time.
    kind: Option<Kind>,
    was_silent: bool,
    seen: usize,
    code: Option<u32>,
    recording: Recording,
    older: BTreeMap<u32, Vec<Vec<u8>>>,
    done: Done,
}

impl Interposer {
    /// Creates the attacker. `recording` is the unaltered answers of this test.
    pub fn new(seed: u64, recording: &Recording) -> (Interposer, Done) {
        let mut dice = Dice::new(seed);
        let from = dice.below(recording.len());
        let which = match dice.below(10) {
            0..6 => Which::One(from),
            6..8 => Which::Alike(from),
            _ => Which::Some(from, 1 + dice.below(4)),
        };
        let kind = (dice.below(2) == 0).then(|| dice.one_of(&KINDS));
        let mut older = BTreeMap::<_, Vec<_>>::new();
        for (code, answer) in recording.iter() {
            older.entry(*code).or_default().push(answer.clone());
        }
        let done = Done::default();
        let interposer = Interposer {
            dice,
            which,
            kind,
            was_silent: false,
            seen: 0,
            code: None,
            recording: Arc::clone(recording),
            older,
            done: Arc::clone(&done),
        };
        (interposer, done)
    }

    /// Returns the callback for [`super::proxy::Book::mutate`].
    pub fn boxed(mut self) -> Mutate {
        Box::new(move |code, answer| self.answers(code, answer))
    }

    fn answers(&mut self, code: u32, answer: Vec<u8>) -> Reply {
        let at = self.seen;
        self.seen += 1;
        let wanted = match self.which {
            Which::One(from) => at == from,
            Which::Alike(from) => {
                if at == from {
                    self.code = Some(code);
                }
                self.code == Some(code)
            }
            Which::Some(from, of) => at >= from && self.dice.below(of) == 0,
        };
        let reply = match wanted && self.done.lock().unwrap().len() < MOST {
            true => self.altered(code, &answer),
            false => Reply::Whole(answer.clone()),
        };
        self.older.entry(code).or_default().push(answer);
        reply
    }

    fn altered(&mut self, code: u32, answer: &[u8]) -> Reply {
        let kind = match self.kind.unwrap_or_else(|| self.dice.one_of(&KINDS)) {
            // One incomplete response is enough. More of them would only take longer.
            Kind::Silent if std::mem::replace(&mut self.was_silent, true) => Kind::Closed,
            kind => kind,
        };
        self.done.lock().unwrap().push((code, kind));
        match kind {
            Kind::Bits => Reply::Whole(self.with_other_bits(answer)),
            Kind::Size => {
                let mut altered = answer.to_vec();
                let size = self.another_size(answer.len(), u32::MAX as usize);
                altered[2..6].copy_from_slice(&(size as u32).to_be_bytes());
                self.ended(altered)
            }
            Kind::Count => Reply::Whole(self.with_another_count(answer)),
            Kind::Truncated => {
                let left = 10 + self.dice.below(answer.len() - 9);
                Reply::Whole(sized(answer[..left.min(answer.len())].to_vec()))
            }
            Kind::Lengthened => {
                let more = 1 + self.dice.below(300);
                let more = (0..more).map(|_| self.dice.below(256) as u8);
                Reply::Whole(sized([answer.to_vec(), more.collect()].concat()))
            }
            Kind::Replayed => {
                let older = &self.older[&code];
                Reply::Whole(older[self.dice.below(older.len())].clone())
            }
            Kind::Swapped => {
                let at = self.dice.below(self.recording.len());
                Reply::Whole(self.recording[at].1.clone())
            }
            Kind::Dripped => Reply::Dripped(answer.to_vec()),
            Kind::Unsent | Kind::Gone => Reply::Cut(Vec::new()),
            Kind::Closed => Reply::Cut(answer[..self.dice.below(answer.len())].to_vec()),
            Kind::Silent => Reply::Whole(answer[..self.dice.below(answer.len())].to_vec()),
            Kind::Code => {
                let code = match self.dice.below(4) {
                    0 => self.dice.next() as u32,
                    _ => self.dice.one_of(&CODES),
                };
                Reply::Whole(sized(
                    [&[0x80, 1, 0, 0, 0, 0][..], &code.to_be_bytes()].concat(),
                ))
            }
        }
    }

    /// Flips one to four bits, usually after the header.
    fn with_other_bits(&mut self, answer: &[u8]) -> Vec<u8> {
        let mut altered = answer.to_vec();
        let from = match answer.len() > 10 && self.dice.below(5) > 0 {
            true => 10,
            false => 0,
        };
        for _ in 0..=self.dice.below(4) {
            let at = from + self.dice.below(answer.len() - from);
            altered[at] ^= 1 << self.dice.below(8);
        }
        altered
    }

    /// Changes two bytes that match a size (this number of bytes follows), or four bytes that match
    /// a count.
    fn with_another_count(&mut self, answer: &[u8]) -> Vec<u8> {
        let value = |at: usize| usize::from(u16::from_be_bytes([answer[at], answer[at + 1]]));
        let looks = |at: &usize| value(*at) > 0 && at + 2 + value(*at) <= answer.len();
        let places: Vec<_> = (10..answer.len().saturating_sub(1)).filter(looks).collect();
        let mut altered = answer.to_vec();
        match places[..] {
            [] => altered[5] ^= 1,
            _ => {
                let at = self.dice.one_of(&places);
                let size = self.another_size(value(at), usize::from(u16::MAX)) as u16;
                altered[at..at + 2].copy_from_slice(&size.to_be_bytes());
            }
        }
        altered
    }

    fn another_size(&mut self, size: usize, most: usize) -> usize {
        let near = [
            size.wrapping_sub(1),
            size + 1,
            size.wrapping_sub(2),
            size + 2,
        ];
        let far = [0, 1, 9, 2 * size, most / 2, most - 1, most];
        match self.dice.below(2) {
            0 => self.dice.one_of(&near) & most,
            _ => self.dice.one_of(&far),
        }
    }

    /// Returns the bytes as an answer after which the connection ends, or stays open longer than
    /// any client waits.
    fn ended(&mut self, bytes: Vec<u8>) -> Reply {
        match self.dice.below(8) {
            0 => Reply::Whole(bytes),
            _ => Reply::Cut(bytes),
        }
    }
}

/// Returns the answer with the right size in its header.
fn sized(mut answer: Vec<u8>) -> Vec<u8> {
    let size = u32::try_from(answer.len()).expect("fits");
    answer[2..6].copy_from_slice(&size.to_be_bytes());
    answer
}

/// Returns true if a command with this code leaves an object in the TPM.
pub fn makes_a_handle(code: u32) -> bool {
    const CREATE_LOADED: u32 = 0x191;
    const LOAD_EXTERNAL: u32 = 0x167;
    let makers = [
        command::LOAD,
        command::CREATE_PRIMARY,
        command::CONTEXT_LOAD,
        command::START_AUTH_SESSION,
        CREATE_LOADED,
        LOAD_EXTERNAL,
    ];
    makers.contains(&code)
}
