//! A hostile call: its arguments in guarded memory, and the state of that memory after the call.

use super::attacks::{Attack, Init, NESTED_LENGTH, Nested, PSS_LENGTH, Parameter, Room};
use super::entries::{Arg, Entry};
use super::memory::{Wall, Walled};
use cryptoki_sys::*;
use std::mem::{offset_of, transmute};
use testkit::raw::Code;

/// The values of a process for its call. Missing values are arbitrary numbers.
#[derive(Clone)]
pub struct Bench {
    pub session: CK_ULONG,
    pub slot: CK_ULONG,
    /// Any object, the value of its CKA_LABEL, and a key for the call.
    pub object: CK_ULONG,
    pub label: usize,
    pub key: CK_ULONG,
    /// An object that is not such a key.
    pub other: CK_ULONG,
    pub mechanism: CK_ULONG,
    /// A point on the key's curve, or any 65 bytes.
    pub point: Vec<u8>,
    /// Data that is wrapped for the key, or any 32 bytes.
    pub data: Vec<u8>,
}

/// A call with its arguments.
pub struct Call {
    attack: Attack,
    function: usize,
    words: Vec<usize>,
    memory: Vec<Walled>,
    /// The position of [`Arg::Count`], and the memory that a caller would need there.
    count: Option<(usize, usize)>,
    room: usize,
    /// The position of a filled template's items.
    items: Option<usize>,
}

/// Room to be asked for where a call does not say.
const SOME: usize = 64;

impl Call {
    /// `needed`: the length that the call said it needs.
    pub fn new(
        function: usize,
        entry: &Entry,
        attack: Attack,
        bench: &Bench,
        wall: Wall,
        needed: Option<usize>,
    ) -> Call {
        let mut call = Call {
            attack,
            function,
            words: Vec::new(),
            memory: Vec::new(),
            count: None,
            room: 0,
            items: None,
        };
        // The buffer before Count or Size: its length, and the stated length.
        let mut said = 0;
        for (at, arg) in entry.args.iter().copied().enumerate() {
            let shift = usize::from(attack == Attack::Unaligned(at));
            let word = match arg {
                Arg::Session => bench.session as usize,
                Arg::Slot => bench.slot as usize,
                Arg::Object => bench.object as usize,
                Arg::Key if attack == Attack::OtherObject(at) => bench.other as usize,
                Arg::Key => bench.key as usize,
                Arg::Number(number) => number as usize,
                Arg::UserType => CKU_USER as usize,
                Arg::Opening => CKF_SERIAL_SESSION as usize,
                Arg::MechanismType => bench.mechanism as usize,
                Arg::Reserved if attack == Attack::NotNull(at) => {
                    call.keep(Walled::holding(&[0; 64], wall, 0))
                }
                Arg::Reserved => 0,
                Arg::Ignored => call.keep(Walled::new(0, wall, 0)),
                Arg::Out(length) => call.keep(Walled::new(length, wall, shift)),
                Arg::List(_) | Arg::Bytes | Arg::Handles => {
                    let width = match arg {
                        Arg::List(width) => width,
                        Arg::Handles => size_of::<CK_OBJECT_HANDLE>(),
                        _ => 1,
                    };
                    let wanted = needed.unwrap_or(match arg {
                        Arg::Handles => 8,
                        _ => SOME,
                    });
                    call.room = match attack {
                        Attack::Short(_, room) => shortened(wanted, room),
                        _ => wanted,
                    };
                    said = match attack {
                        Attack::Boast(_, more) => more as usize,
                        _ => call.room,
                    };
                    call.keep(Walled::new(call.room * width, wall, shift))
                }
                Arg::Count => {
                    call.count = Some((call.memory.len(), needed.unwrap_or(SOME)));
                    call.keep(Walled::filled(&said.to_ne_bytes(), wall, shift))
                }
                Arg::Random => {
                    said = 32;
                    call.keep(Walled::new(said, wall, shift))
                }
                Arg::Data => {
                    said = bench.data.len();
                    call.keep(Walled::holding(&bench.data, wall, shift))
                }
                Arg::Pin => {
                    said = 4;
                    call.keep(Walled::holding(b"1234", wall, shift))
                }
                Arg::Template => {
                    // A derived or unwrapped key belongs to its session.
                    let brief = ["C_DeriveKey", "C_UnwrapKey"].contains(&entry.name);
                    let token = call.item(CKA_TOKEN, &[CK_BBOOL::from(!brief)], true, wall);
                    let mut items = vec![token, call.item(CKA_LABEL, b"label", false, wall)];
                    if entry.name == "C_UnwrapKey" {
                        for (kind, value) in [(CKA_CLASS, CKO_PRIVATE_KEY), (CKA_KEY_TYPE, CKK_EC)]
                        {
                            items.push(call.item(kind, &value.to_ne_bytes(), false, wall));
                        }
                    }
                    said = items.len();
                    call.keep(Walled::holding(&items.concat(), wall, shift))
                }
                Arg::Query => {
                    said = 2;
                    let length = bench.label;
                    let class = call.item(CKA_CLASS, &[0; 8], false, wall);
                    let label = call.item(CKA_LABEL, &vec![0; length], true, wall);
                    call.items = Some(call.memory.len());
                    call.keep(Walled::filled(&[class, label].concat(), wall, shift))
                }
                Arg::Size if matches!(attack, Attack::Empty(of) if of + 1 == at) => 0,
                Arg::Size => said,
                Arg::Label => {
                    let mut label = [b' '; 32];
                    label[31] = 0;
                    call.keep(Walled::holding(&label, wall, 0))
                }
                Arg::Mechanism => match attack {
                    Attack::Nested(of, nested) if of == at => call.nested(nested, bench, wall),
                    _ => call.mechanism(at, bench.mechanism, wall, shift),
                },
                Arg::InitArgs => call.init_args(wall, shift),
                Arg::Name => {
                    let name = match attack {
                        Attack::NameUnknown(_) => b"PKCS 12\0",
                        _ => b"PKCS 11\0",
                    };
                    call.keep(Walled::holding(name, wall, shift))
                }
                Arg::Version => {
                    let version = match attack {
                        Attack::VersionUnknown(_) => [9, 9],
                        _ => [2, 40],
                    };
                    call.keep(Walled::holding(&version, wall, shift))
                }
            };
            call.words.push(match attack {
                Attack::Null(of) | Attack::Empty(of) if of == at => 0,
                Attack::Number(of, number) if of == at => number as usize,
                _ => word,
            });
        }
        call
    }

    fn keep(&mut self, memory: Walled) -> usize {
        let address = memory.address();
        self.memory.push(memory);
        address
    }

    /// CK_ATTRIBUTE with a value of its own; the `last` one is the attacked one.
    fn item(&mut self, kind: CK_ATTRIBUTE_TYPE, value: &[u8], last: bool, wall: Wall) -> Vec<u8> {
        let (mut kind, mut room) = (kind, value.len());
        if let (true, Attack::Short(_, less)) = (last, self.attack) {
            room = shortened(room, less);
        }
        if let (true, Attack::ItemType(_)) = (last, self.attack) {
            kind = CKA_VENDOR_DEFINED | 0x0bad_cafe;
        }
        let shift = usize::from(matches!(self.attack, Attack::ItemUnaligned(_)));
        let mut address = self.keep(Walled::filled(&value[..room], wall, shift));
        let mut said = room;
        match self.attack {
            Attack::ItemNull(_) if last => address = 0,
            Attack::ItemLength(_, length) if last => said = length as usize,
            _ => {}
        }
        [kind as usize, address, said]
            .map(usize::to_ne_bytes)
            .concat()
    }

    fn mechanism(&mut self, at: usize, mechanism: CK_ULONG, wall: Wall, shift: usize) -> usize {
        let (kind, parameter) = match self.attack {
            Attack::MechanismUnknown(of) if of == at => (CKM_VENDOR_DEFINED | 0x0bad_cafe, None),
            Attack::Parameter(of, parameter) if of == at => (mechanism, Some(parameter)),
            Attack::Pss(of, parameter) if of == at => (CKM_SHA256_RSA_PKCS_PSS, Some(parameter)),
            _ => (mechanism, None),
        };
        let pss = [CKM_SHA256, CKG_MGF1_SHA256, 32]
            .map(CK_ULONG::to_ne_bytes)
            .concat();
        let some = |length: usize| {
            let filler = std::iter::repeat(&1_u8);
            pss.iter()
                .chain(filler)
                .take(length)
                .copied()
                .collect::<Vec<_>>()
        };
        let (address, said) = match parameter {
            None => (0, 0),
            Some(Parameter::Null { said }) => (0, said as usize),
            Some(Parameter::Bytes { length }) => {
                (self.keep(Walled::holding(&some(length), wall, 0)), length)
            }
            Some(Parameter::Odd { length }) => {
                (self.keep(Walled::holding(&some(length), wall, 1)), length)
            }
            Some(Parameter::Fields { hash, mgf, salt }) => {
                let fields = [hash, mgf, salt].map(CK_ULONG::to_ne_bytes).concat();
                (self.keep(Walled::holding(&fields, wall, 0)), PSS_LENGTH)
            }
            Some(Parameter::Lie { said }) => {
                (self.keep(Walled::holding(&some(1), wall, 0)), said as usize)
            }
        };
        let bytes = [kind as usize, address, said]
            .map(usize::to_ne_bytes)
            .concat();
        self.keep(Walled::holding(&bytes, wall, shift))
    }

    /// The mechanism that the bench has, with a parameter that names the bench's point, or a label.
    fn nested(&mut self, nested: Nested, bench: &Bench, wall: Wall) -> usize {
        let (mut inner, mut inside) = (self.keep(Walled::holding(&bench.point, wall, 1)), 65);
        if let Nested::Inner { null, said } = nested {
            inside = said as usize;
            inner = if null { 0 } else { inner };
        }
        let words = match bench.mechanism {
            CKM_RSA_PKCS_OAEP | CKM_RSA_AES_KEY_WRAP => [
                CKM_SHA256 as usize,
                CKG_MGF1_SHA256 as usize,
                CKZ_DATA_SPECIFIED as usize,
                inner,
                inside,
            ],
            _ => [CKD_NULL as usize, 0, 0, inside, inner],
        };
        let mut bytes = words.map(usize::to_ne_bytes).concat();
        assert_eq!(bytes.len(), NESTED_LENGTH);
        if bench.mechanism == CKM_RSA_AES_KEY_WRAP {
            // One more level around the parameter.
            let oaep = match nested {
                Nested::Hollow => 0,
                _ => self.keep(Walled::holding(&bytes, wall, 1)),
            };
            bytes = [256, oaep].map(usize::to_ne_bytes).concat();
        }
        let (address, said) = match nested {
            Nested::Null { said } => (0, said as usize),
            Nested::Cut { length } => {
                bytes.resize(length, 0);
                (self.keep(Walled::holding(&bytes, wall, 0)), length)
            }
            Nested::Fine { odd } => {
                let shift = usize::from(odd);
                (self.keep(Walled::holding(&bytes, wall, shift)), bytes.len())
            }
            Nested::Inner { .. } | Nested::Hollow => {
                (self.keep(Walled::holding(&bytes, wall, 0)), bytes.len())
            }
        };
        let bytes = [bench.mechanism as usize, address, said]
            .map(usize::to_ne_bytes)
            .concat();
        self.keep(Walled::holding(&bytes, wall, 0))
    }

    fn init_args(&mut self, wall: Wall, shift: usize) -> usize {
        let mut words = [0_usize; size_of::<CK_C_INITIALIZE_ARGS>() / size_of::<usize>()];
        let mut set = |offset: usize, word: usize| words[offset / size_of::<usize>()] = word;
        // Callbacks lead to a wall: nobody has reason to call them here.
        let callbacks = match self.attack {
            Attack::Init(Init::OneCallback) => 1,
            Attack::Init(Init::ThreeCallbacks) => 3,
            Attack::Init(Init::CallbacksOnly) => 4,
            _ => 0,
        };
        for offset in [
            offset_of!(CK_C_INITIALIZE_ARGS, CreateMutex),
            offset_of!(CK_C_INITIALIZE_ARGS, DestroyMutex),
            offset_of!(CK_C_INITIALIZE_ARGS, LockMutex),
            offset_of!(CK_C_INITIALIZE_ARGS, UnlockMutex),
        ]
        .into_iter()
        .take(callbacks)
        {
            set(offset, no_mutex as *const () as usize);
        }
        if callbacks != 4 {
            set(
                offset_of!(CK_C_INITIALIZE_ARGS, flags),
                CKF_OS_LOCKING_OK as usize,
            );
        }
        if self.attack == Attack::Init(Init::ReservedSet) {
            set(offset_of!(CK_C_INITIALIZE_ARGS, pReserved), 8);
        }
        let bytes = words.map(usize::to_ne_bytes).concat();
        self.keep(Walled::holding(&bytes, wall, shift))
    }

    pub fn make(&self) -> Code {
        // SAFETY: the function is from a table and takes this number of words (a CK_BBOOL is passed
        // as a word). This test passes wrong values on purpose, and this process ends soon.
        Code(unsafe { invoke(self.function, &self.words) })
    }

    /// The current value of [`Arg::Count`].
    pub fn counted(&self) -> Option<usize> {
        let (at, _) = self.count?;
        Some(word(&self.memory[at].bytes()))
    }

    /// The faults of the caller's memory after the call.
    pub fn complaints(&self, code: Code) -> Vec<String> {
        let mut complaints = Vec::new();
        for (n, memory) in self.memory.iter().enumerate() {
            if !memory.is_intact() {
                complaints.push(format!(
                    "buffer {n} of {} bytes: written past",
                    memory.length()
                ));
            }
        }
        let counted = self.counted().unwrap_or(0);
        match (self.attack, self.count, code.0) {
            (Attack::Short(..), Some((_, needed)), CKR_BUFFER_TOO_SMALL) if counted != needed => {
                complaints.push(format!("says {counted} are needed, and before {needed}"));
            }
            (Attack::Nothing | Attack::Unaligned(_), Some(_), CKR_OK) if counted > self.room => {
                complaints.push(format!("says {counted} were written to {}", self.room));
            }
            _ => {}
        }
        // Section 5.7.5: an item that was not filled says so.
        if let (Some(items), Attack::Short(..) | Attack::ItemType(_)) = (self.items, self.attack) {
            let bytes = self.memory[items].bytes();
            let length = word(&bytes[bytes.len() - size_of::<usize>()..]);
            if length as CK_ULONG != CK_UNAVAILABLE_INFORMATION {
                complaints.push(format!(
                    "an item that was not filled has the length {length}"
                ));
            }
        }
        complaints
    }
}

extern "C" fn no_mutex() -> CK_RV {
    CKR_GENERAL_ERROR
}

fn shortened(room: usize, how: Room) -> usize {
    match how {
        Room::None => 0,
        Room::One => 1,
        Room::OneLess => room.saturating_sub(1),
    }
}

fn word(bytes: &[u8]) -> usize {
    let mut word = [0; size_of::<usize>()];
    word.copy_from_slice(bytes);
    usize::from_ne_bytes(word)
}

/// # Safety
///
/// `function` takes as many words as there are, and may be called with these.
unsafe fn invoke(function: usize, words: &[usize]) -> CK_RV {
    macro_rules! with {
        ($($word:ident)*) => {{
            let [$($word),*] = *words else { unreachable!("the number of words") };
            // SAFETY: as this function's contract.
            unsafe {
                let function: unsafe extern "C" fn($(with!(@ $word)),*) -> CK_RV = transmute(function);
                function($($word),*)
            }
        }};
        (@ $word:ident) => { usize };
    }
    match words.len() {
        1 => with!(a),
        2 => with!(a b),
        3 => with!(a b c),
        4 => with!(a b c d),
        5 => with!(a b c d e),
        6 => with!(a b c d e f),
        7 => with!(a b c d e f g),
        8 => with!(a b c d e f g h),
        9 => with!(a b c d e f g h i),
        10 => with!(a b c d e f g h i j),
        other => unreachable!("no entry has {other} arguments"),
    }
}

const _: () = assert!(PSS_LENGTH == 3 * size_of::<CK_ULONG>());
