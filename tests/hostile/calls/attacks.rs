//! The hostile calls, and the right codes for each call. The codes come from PKCS#11 3.0, chapter
//! 5, and not from the results of a module.

use super::entries::{Arg, Entry, Scene};
use cryptoki_sys::*;

/// The fault of a call. A number is the position of an argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attack {
    /// No fault.
    Nothing,
    /// The call is made in another state than it wants.
    State(Scene),
    /// After C_Finalize.
    Finalized,
    /// With a session that was closed.
    Closed,
    Null(usize),
    /// NULL, of length 0.
    Empty(usize),
    /// Not NULL where only NULL may be.
    NotNull(usize),
    /// Behind the wall's address by one byte, with all the room that is promised.
    Unaligned(usize),
    /// Another number.
    Number(usize, CK_ULONG),
    /// The handle of an object of another kind.
    OtherObject(usize),
    /// There is, and is said to be, so much less room than it takes.
    Short(usize, Room),
    /// There is just the room that it takes, said to be that much more.
    Boast(usize, CK_ULONG),
    /// In a template: NULL with a length, and lengths that no memory has.
    ItemNull(usize),
    ItemLength(usize, CK_ULONG),
    /// In a template: a type that no object has.
    ItemType(usize),
    /// In a template: values at odd addresses.
    ItemUnaligned(usize),
    /// A mechanism that nobody knows.
    MechanismUnknown(usize),
    /// The mechanism with this parameter.
    Parameter(usize, Parameter),
    /// CKM_SHA256_RSA_PKCS_PSS with this parameter, on tokens that list it.
    Pss(usize, Parameter),
    /// CKM_RSA_PKCS_OAEP, CKM_ECDH1_DERIVE or CKM_RSA_AES_KEY_WRAP, whose parameters point to
    /// further data, on tokens that list the mechanism.
    /// bytes, on tokens that list it.
    Nested(usize, Nested),
    Init(Init),
    NameUnknown(usize),
    VersionUnknown(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    None,
    One,
    OneLess,
}

/// A mechanism's parameter, and the length that is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    Null {
        said: CK_ULONG,
    },
    /// So many bytes, that length.
    Bytes {
        length: usize,
    },
    /// The buffer at an odd address.
    Odd {
        length: usize,
    },
    /// A buffer of one byte, with this stated length.
    Lie {
        said: CK_ULONG,
    },
    /// CK_RSA_PKCS_PSS_PARAMS with these fields.
    Fields {
        hash: CK_ULONG,
        mgf: CK_ULONG,
        salt: CK_ULONG,
    },
}

/// The fault of a parameter that points to further data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nested {
    /// No fault. `odd`: at an odd address.
    Fine { odd: bool },
    /// So many bytes of it, that length.
    Cut { length: usize },
    /// NULL, that length.
    Null { said: CK_ULONG },
    /// The data is NULL or a few bytes, with this stated length.
    Inner { null: bool, said: CK_ULONG },
    /// The parameter that it names is NULL.
    Hollow,
}

/// Wrong CK_C_INITIALIZE_ARGS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    ReservedSet,
    OneCallback,
    ThreeCallbacks,
    CallbacksOnly,
}

/// A hostile call.
pub struct Row {
    pub attack: Attack,
    /// The codes that are right for it.
    pub right: Vec<CK_RV>,
    /// True if the standard fixes the code, so that every module must return it.
    pub generic: bool,
}

/// Lengths that no memory has: a whole address space, and half of one.
const HALF: CK_ULONG = 1 << (CK_ULONG::BITS - 1);
const BEYOND: [CK_ULONG; 2] = [CK_ULONG::MAX, HALF];
/// Counts whose size in bytes overflows, becomes small again, or is half an address space.
const ITEM: CK_ULONG = size_of::<CK_ATTRIBUTE>() as CK_ULONG;
const BEYOND_ITEMS: [CK_ULONG; 3] = [CK_ULONG::MAX, CK_ULONG::MAX / ITEM + 2, HALF / ITEM + 1];
const NEVER_GIVEN: [CK_ULONG; 3] = [0, 0x7777_7777, CK_ULONG::MAX];
const PIN_CODES: [CK_RV; 4] = [
    CKR_ARGUMENTS_BAD,
    CKR_PIN_INCORRECT,
    CKR_PIN_LEN_RANGE,
    CKR_PIN_INVALID,
];
const TOO_MUCH: [CK_RV; 2] = [CKR_ARGUMENTS_BAD, CKR_HOST_MEMORY];
pub const NESTED_LENGTH: usize = size_of::<CK_RSA_PKCS_OAEP_PARAMS>();
pub const PSS_LENGTH: usize = size_of::<CK_RSA_PKCS_PSS_PARAMS>();

/// Everything that is done to an entry.
pub fn rows(entry: &Entry) -> Vec<Row> {
    let mut rows = Rows {
        entry,
        rows: Vec::new(),
    };
    rows.add(Attack::Nothing, &[]);
    rows.states();
    for (at, arg) in entry.args.iter().enumerate() {
        rows.argument(at, *arg);
    }
    rows.rows
}

struct Rows<'a> {
    entry: &'a Entry,
    rows: Vec<Row>,
}

impl Rows<'_> {
    /// `right` beside the errors that the call may end with anyway. An empty list: as the call
    /// without a fault.
    fn add(&mut self, attack: Attack, right: &[CK_RV]) {
        self.row(attack, right, true);
    }

    /// A call for which the standard relies on the caller.
    fn add_special(&mut self, attack: Attack, right: &[CK_RV]) {
        self.row(attack, right, false);
    }

    fn row(&mut self, attack: Attack, right: &[CK_RV], generic: bool) {
        let good = self.entry.good.iter().copied();
        let right = match right {
            [] => good.collect(),
            _ => right
                .iter()
                .copied()
                .chain(good.filter(|code| *code != CKR_OK))
                .collect(),
        };
        self.rows.push(Row {
            attack,
            right,
            generic,
        });
    }

    fn states(&mut self) {
        let name = self.entry.name;
        // Sections 5.4 and 5.1.3: calls that are allowed at any time, and others.
        let outside: &[CK_RV] = match name {
            "C_Initialize" | "C_GetFunctionList" | "C_GetInterfaceList" | "C_GetInterface" => {
                &[CKR_OK]
            }
            _ => &[CKR_CRYPTOKI_NOT_INITIALIZED],
        };
        self.add(Attack::State(Scene::Outside), outside);
        self.add(Attack::Finalized, outside);
        if self.entry.args.first() == Some(&Arg::Session) {
            let closed = [CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED];
            self.add(Attack::Closed, &closed);
        }
        let (state, right): (Scene, &[CK_RV]) = match (name, self.entry.scene) {
            ("C_Initialize", _) => (Scene::Initialized, &[CKR_CRYPTOKI_ALREADY_INITIALIZED]),
            ("C_Login", _) => (Scene::LoggedIn, &[CKR_USER_ALREADY_LOGGED_IN]),
            ("C_Logout", _) => (Scene::Session, &[CKR_USER_NOT_LOGGED_IN]),
            ("C_FindObjectsInit", _) => (Scene::Finding, &[CKR_OPERATION_ACTIVE]),
            ("C_SignInit", _) => (Scene::Signing, &[CKR_OPERATION_ACTIVE]),
            ("C_VerifyInit", _) => (Scene::Verifying, &[CKR_OPERATION_ACTIVE]),
            ("C_DigestInit", _) => (Scene::Digesting, &[CKR_OPERATION_ACTIVE]),
            (
                _,
                Scene::Finding
                | Scene::Signing
                | Scene::SigningParts
                | Scene::Verifying
                | Scene::VerifyingParts
                | Scene::Digesting
                | Scene::DigestingParts
                | Scene::Encrypting
                | Scene::Decrypting
                | Scene::EncryptingParts
                | Scene::DecryptingParts,
            ) => (Scene::Session, &[CKR_OPERATION_NOT_INITIALIZED]),
            _ => return,
        };
        self.add(Attack::State(state), right);
        // Not after an update (sections 5.12.2, 5.13.2 and 5.15.2), under either name.
        let parts = match name {
            "C_Sign" => Scene::SigningParts,
            "C_Verify" => Scene::VerifyingParts,
            "C_Digest" => Scene::DigestingParts,
            "C_Encrypt" => Scene::EncryptingParts,
            "C_Decrypt" => Scene::DecryptingParts,
            _ => return,
        };
        let right = [CKR_OPERATION_ACTIVE, CKR_OPERATION_NOT_INITIALIZED];
        self.add(Attack::State(parts), &right);
    }

    fn argument(&mut self, at: usize, arg: Arg) {
        match arg {
            Arg::Session => self.numbers(at, &NEVER_GIVEN, &[CKR_SESSION_HANDLE_INVALID]),
            Arg::Slot => self.numbers(at, &NEVER_GIVEN[1..], &[CKR_SLOT_ID_INVALID]),
            Arg::Object => self.numbers(at, &NEVER_GIVEN, &[CKR_OBJECT_HANDLE_INVALID]),
            Arg::Key if self.entry.name == "C_UnwrapKey" => {
                let unknown = CKR_UNWRAPPING_KEY_HANDLE_INVALID;
                self.numbers(at, &NEVER_GIVEN, &[unknown]);
                let other = [unknown, CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT];
                self.add(Attack::OtherObject(at), &other);
            }
            Arg::Key => {
                self.numbers(at, &NEVER_GIVEN, &[CKR_KEY_HANDLE_INVALID]);
                let other = [
                    CKR_KEY_TYPE_INCONSISTENT,
                    CKR_KEY_HANDLE_INVALID,
                    CKR_KEY_FUNCTION_NOT_PERMITTED,
                ];
                self.add(Attack::OtherObject(at), &other);
            }
            Arg::UserType => self.numbers(at, &[3, 99, CK_ULONG::MAX], &[CKR_USER_TYPE_INVALID]),
            // Section 5.6.1: the flag for serial sessions is a must.
            Arg::Opening => self.numbers(at, &[0], &[CKR_SESSION_PARALLEL_NOT_SUPPORTED]),
            Arg::MechanismType => {
                self.numbers(at, &[0x7fff_fff0, CK_ULONG::MAX], &[CKR_MECHANISM_INVALID]);
            }
            Arg::Reserved => self.add(Attack::NotNull(at), &[CKR_ARGUMENTS_BAD]),
            Arg::Ignored => {
                self.add(Attack::Null(at), &[]);
                self.add(Attack::NotNull(at), &[]);
            }
            Arg::Out(_) | Arg::Count => {
                self.add(Attack::Null(at), &[CKR_ARGUMENTS_BAD]);
                self.add_special(Attack::Unaligned(at), &[]);
            }
            Arg::List(_) | Arg::Bytes => self.sized_output(at),
            Arg::Random => {
                self.add(Attack::Null(at), &[CKR_ARGUMENTS_BAD]);
                self.add(Attack::Empty(at), &[CKR_OK, CKR_ARGUMENTS_BAD]);
                self.add_special(Attack::Unaligned(at), &[]);
                self.lies(at + 1, &BEYOND, &TOO_MUCH);
            }
            Arg::Handles => {
                self.add(Attack::Null(at), &[CKR_ARGUMENTS_BAD]);
                self.add(Attack::Short(at, Room::None), &[CKR_OK, CKR_ARGUMENTS_BAD]);
                self.add(Attack::Short(at, Room::One), &[]);
                self.add_special(Attack::Unaligned(at), &[]);
                for more in BEYOND {
                    self.add_special(Attack::Boast(at, more), &[]);
                }
            }
            Arg::Data => {
                self.add(Attack::Null(at), &[CKR_ARGUMENTS_BAD]);
                let empty = [
                    CKR_OK,
                    CKR_ARGUMENTS_BAD,
                    CKR_DATA_LEN_RANGE,
                    CKR_DATA_INVALID,
                ];
                match self.entry.name {
                    "C_UnwrapKey" => {
                        self.add_special(Attack::Empty(at), &[CKR_WRAPPED_KEY_LEN_RANGE]);
                    }
                    _ => self.add_special(Attack::Empty(at), &empty),
                }
                self.add_special(Attack::Unaligned(at), &[]);
                let beyond = [
                    TOO_MUCH[0],
                    TOO_MUCH[1],
                    CKR_DATA_LEN_RANGE,
                    CKR_ENCRYPTED_DATA_LEN_RANGE,
                ];
                self.lies(at + 1, &BEYOND, &beyond);
            }
            Arg::Pin => {
                let mut right = PIN_CODES.to_vec();
                right.extend(self.entry.good);
                self.add(Attack::Null(at), &right);
                self.add(Attack::Empty(at), &right);
                self.add_special(Attack::Unaligned(at), &[]);
                right.push(CKR_HOST_MEMORY);
                self.lies(at + 1, &BEYOND, &right);
            }
            Arg::Template => self.template(at),
            Arg::Query => self.query(at),
            Arg::Label => self.add(Attack::Null(at), &[CKR_ARGUMENTS_BAD]),
            Arg::Mechanism => self.mechanism(at),
            Arg::InitArgs => self.init_args(at),
            Arg::Name | Arg::Version => {
                self.add(Attack::Null(at), &[]);
                self.add_special(Attack::Unaligned(at), &[]);
                let unknown = match arg {
                    Arg::Name => Attack::NameUnknown(at),
                    _ => Attack::VersionUnknown(at),
                };
                self.add(unknown, &[CKR_ARGUMENTS_BAD]);
            }
            Arg::Number(_) if self.entry.name == "C_GetInterface" => {
                let right = [CKR_FUNCTION_FAILED, CKR_ARGUMENTS_BAD];
                self.numbers(at, &[1 << 30], &right);
            }
            // Blocking may be left out (section 5.5.4); whoever has it would wait here.
            Arg::Number(CKF_DONT_BLOCK) if self.entry.name == "C_WaitForSlotEvent" => {
                self.lies(at, &[0], &[CKR_FUNCTION_NOT_SUPPORTED]);
            }
            Arg::Number(_) | Arg::Size => {}
        }
    }

    fn numbers(&mut self, at: usize, numbers: &[CK_ULONG], right: &[CK_RV]) {
        for number in numbers {
            self.add(Attack::Number(at, *number), right);
        }
    }

    fn lies(&mut self, at: usize, numbers: &[CK_ULONG], right: &[CK_RV]) {
        for number in numbers {
            self.add_special(Attack::Number(at, *number), right);
        }
    }

    /// Section 5.2: NULL asks for the length; too little room is said, and ends nothing.
    fn sized_output(&mut self, at: usize) {
        self.add(Attack::Null(at), &[]);
        self.add(Attack::Short(at, Room::None), &[CKR_BUFFER_TOO_SMALL]);
        self.add(Attack::Short(at, Room::OneLess), &[CKR_BUFFER_TOO_SMALL]);
        self.add_special(Attack::Unaligned(at), &[]);
        for more in BEYOND {
            self.add_special(Attack::Boast(at, more), &[]);
        }
    }

    fn template(&mut self, at: usize) {
        self.add(Attack::Null(at), &[CKR_ARGUMENTS_BAD]);
        // To find all objects there are no items (section 5.7.6).
        self.add(Attack::Empty(at), &[]);
        self.add_special(Attack::Unaligned(at), &[]);
        self.add_special(Attack::ItemUnaligned(at), &[]);
        let value = [CKR_ATTRIBUTE_VALUE_INVALID, CKR_ARGUMENTS_BAD];
        self.add_special(Attack::ItemNull(at), &value);
        for length in BEYOND {
            let right = [value[0], value[1], CKR_HOST_MEMORY];
            self.add_special(Attack::ItemLength(at, length), &right);
        }
        self.lies(at + 1, &BEYOND_ITEMS, &TOO_MUCH);
    }

    /// Section 5.7.5.
    fn query(&mut self, at: usize) {
        self.add(Attack::Null(at), &[CKR_ARGUMENTS_BAD]);
        self.add_special(Attack::Empty(at), &[CKR_OK, CKR_ARGUMENTS_BAD]);
        self.add_special(Attack::Unaligned(at), &[]);
        self.add_special(Attack::ItemUnaligned(at), &[]);
        self.add(Attack::ItemNull(at), &[]);
        self.add(Attack::ItemType(at), &[CKR_ATTRIBUTE_TYPE_INVALID]);
        self.add(Attack::Short(at, Room::None), &[CKR_BUFFER_TOO_SMALL]);
        self.add(Attack::Short(at, Room::OneLess), &[CKR_BUFFER_TOO_SMALL]);
        for length in BEYOND {
            self.add_special(Attack::ItemLength(at, length), &[]);
        }
        self.lies(at + 1, &BEYOND_ITEMS, &TOO_MUCH);
    }

    fn mechanism(&mut self, at: usize) {
        // Version 3.0: NULL cancels the operation. There is no operation here, and the standard
        // does not define the code. In version 2.40 NULL is a bad argument.
        let cancelled: &[CK_RV] = match self.entry.name.ends_with("Init") {
            true => &[CKR_OK, CKR_OPERATION_NOT_INITIALIZED, CKR_ARGUMENTS_BAD],
            false => &[CKR_ARGUMENTS_BAD],
        };
        self.add(Attack::Null(at), cancelled);
        self.add_special(Attack::Unaligned(at), &[]);
        self.add(Attack::MechanismUnknown(at), &[CKR_MECHANISM_INVALID]);
        let wrong = [CKR_MECHANISM_PARAM_INVALID];
        let bad = [CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD];
        for length in [1, 24, 4096] {
            self.add_special(Attack::Parameter(at, Parameter::Bytes { length }), &wrong);
        }
        self.add_special(Attack::Parameter(at, Parameter::Odd { length: 5 }), &wrong);
        for said in [1, BEYOND[0], BEYOND[1]] {
            self.add_special(Attack::Parameter(at, Parameter::Null { said }), &bad);
        }
        for said in BEYOND {
            self.add_special(Attack::Parameter(at, Parameter::Lie { said }), &bad);
        }
        match self.entry.name {
            "C_SignInit" | "C_VerifyInit" => {}
            "C_DecryptInit" | "C_EncryptInit" | "C_DeriveKey" => return self.nested(at),
            "C_UnwrapKey" => {
                let hollow = [CKR_MECHANISM_PARAM_INVALID];
                self.add_special(Attack::Nested(at, Nested::Hollow), &hollow);
                return self.nested(at);
            }
            _ => return,
        }
        for length in [1, PSS_LENGTH - 1, PSS_LENGTH + 1, 4096] {
            self.add_special(Attack::Pss(at, Parameter::Bytes { length }), &wrong);
        }
        let (hash, mgf, salt) = (CKM_SHA256, CKG_MGF1_SHA256, 32);
        for (hash, mgf, salt) in [
            (CKM_SHA384, mgf, salt),
            (CK_ULONG::MAX, mgf, salt),
            (hash, 0, salt),
            (hash, CKG_MGF1_SHA384, salt),
            (hash, mgf, BEYOND[0]),
            (hash, mgf, BEYOND[1]),
            (hash, mgf, 1024),
        ] {
            self.add_special(
                Attack::Pss(at, Parameter::Fields { hash, mgf, salt }),
                &wrong,
            );
        }
        let length = PSS_LENGTH;
        self.add_special(Attack::Pss(at, Parameter::Bytes { length }), &[]);
        self.add_special(Attack::Pss(at, Parameter::Odd { length }), &[]);
        for said in [0, PSS_LENGTH as CK_ULONG, BEYOND[0]] {
            self.add_special(Attack::Pss(at, Parameter::Null { said }), &bad);
        }
        for said in BEYOND {
            self.add_special(Attack::Pss(at, Parameter::Lie { said }), &bad);
        }
    }

    fn nested(&mut self, at: usize) {
        let bad = [
            CKR_MECHANISM_PARAM_INVALID,
            CKR_ARGUMENTS_BAD,
            CKR_HOST_MEMORY,
        ];
        for odd in [false, true] {
            self.add_special(Attack::Nested(at, Nested::Fine { odd }), &[CKR_OK]);
        }
        let length = NESTED_LENGTH;
        for length in [1, PSS_LENGTH, length - 1, length + 1, 4096] {
            self.add_special(Attack::Nested(at, Nested::Cut { length }), &bad);
        }
        for said in [0, length as CK_ULONG, BEYOND[0], BEYOND[1]] {
            self.add_special(Attack::Nested(at, Nested::Null { said }), &bad);
        }
        for said in [1, BEYOND[0], BEYOND[1]] {
            let inner = Nested::Inner { null: true, said };
            self.add_special(Attack::Nested(at, inner), &bad);
        }
        for said in BEYOND {
            let inner = Nested::Inner { null: false, said };
            self.add_special(Attack::Nested(at, inner), &bad);
        }
    }

    /// Section 5.4.1.
    fn init_args(&mut self, at: usize) {
        self.add(Attack::Null(at), &[]);
        self.add_special(Attack::Unaligned(at), &[]);
        self.add(Attack::Init(Init::ReservedSet), &[CKR_ARGUMENTS_BAD]);
        self.add(Attack::Init(Init::OneCallback), &[CKR_ARGUMENTS_BAD]);
        self.add(Attack::Init(Init::ThreeCallbacks), &[CKR_ARGUMENTS_BAD]);
        let locks = [CKR_OK, CKR_CANT_LOCK];
        self.add(Attack::Init(Init::CallbacksOnly), &locks);
    }
}
