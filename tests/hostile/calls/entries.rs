//! Every entry of the function tables: its arguments, the state for the call, and the allowed codes
//! of a call with correct arguments.

use cryptoki_sys::*;
use std::collections::HashSet;
use std::fs;
use std::mem::size_of;

/// An argument, by its role in the call. The length of a pointer follows directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    Session,
    Slot,
    /// An object of any class.
    Object,
    /// The private key, or the public one where that is what the call takes.
    Key,
    /// A number that is right as it stands.
    Number(CK_ULONG),
    UserType,
    /// The flags of C_OpenSession.
    Opening,
    MechanismType,
    /// Must be NULL.
    Reserved,
    /// Never followed: NULL or anything.
    Ignored,
    /// Room for one value of so many bytes.
    Out(usize),
    /// Room for a list of values of so many bytes each, then [`Arg::Count`].
    List(usize),
    /// Room for bytes, then [`Arg::Count`].
    Bytes,
    /// How much room there is, and then how much there would have to be.
    Count,
    /// Room for bytes, then [`Arg::Size`]: all of it is filled.
    Random,
    /// Room for handles, then [`Arg::Size`].
    Handles,
    /// Bytes to read, then [`Arg::Size`].
    Data,
    /// A PIN, then [`Arg::Size`].
    Pin,
    /// A template to read, then [`Arg::Size`].
    Template,
    /// A template to fill, then [`Arg::Size`].
    Query,
    /// The length of the argument before it.
    Size,
    /// 32 bytes.
    Label,
    Mechanism,
    /// NULL or CK_C_INITIALIZE_ARGS.
    InitArgs,
    /// NULL or the name of an interface.
    Name,
    /// NULL or CK_VERSION.
    Version,
}

/// How far a process has come when it makes the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    Outside,
    Initialized,
    Session,
    LoggedIn,
    Finding,
    /// After C_SignInit; then after C_SignUpdate.
    Signing,
    SigningParts,
    Verifying,
    VerifyingParts,
    Digesting,
    DigestingParts,
    /// After C_EncryptInit and C_DecryptInit, where the token has an RSA key for that.
    Encrypting,
    Decrypting,
    /// After C_EncryptUpdate and C_DecryptUpdate by an AES key, where the token makes such a key.
    EncryptingParts,
    DecryptingParts,
}

pub struct Entry {
    pub name: &'static str,
    pub scene: Scene,
    pub args: &'static [Arg],
    /// The right codes for a call without a fault.
    pub good: &'static [CK_RV],
}

const OK: &[CK_RV] = &[CKR_OK];
/// For calls that continue an operation which no test here starts.
const IDLE: &[CK_RV] = &[CKR_OPERATION_NOT_INITIALIZED];
/// For calls that start an operation with the signing key and its mechanism.
const NOT_FOR_THIS_KEY: &[CK_RV] = &[
    CKR_OK,
    CKR_MECHANISM_INVALID,
    CKR_KEY_TYPE_INCONSISTENT,
    CKR_KEY_FUNCTION_NOT_PERMITTED,
];
/// For calls that change a token, in a read-only session without login.
const READ_ONLY: &[CK_RV] = &[
    CKR_SESSION_READ_ONLY,
    CKR_TOKEN_WRITE_PROTECTED,
    CKR_USER_NOT_LOGGED_IN,
    CKR_ACTION_PROHIBITED,
    CKR_ATTRIBUTE_READ_ONLY,
    CKR_TEMPLATE_INCONSISTENT,
    CKR_TEMPLATE_INCOMPLETE,
    CKR_MECHANISM_INVALID,
    CKR_KEY_HANDLE_INVALID,
    CKR_OBJECT_HANDLE_INVALID,
    CKR_KEY_TYPE_INCONSISTENT,
];
/// For C_UnwrapKey without an unwrapping key, or with an unusable one.
const UNWRAPPED: &[CK_RV] = &[
    CKR_OK,
    CKR_MECHANISM_INVALID,
    CKR_UNWRAPPING_KEY_HANDLE_INVALID,
    CKR_TEMPLATE_INCOMPLETE,
    CKR_USER_NOT_LOGGED_IN,
];
/// For C_Encrypt and similar calls, also if the token has no key for them.
const ENCRYPTED: &[CK_RV] = &[CKR_OK, CKR_OPERATION_NOT_INITIALIZED];
const DECRYPTED: &[CK_RV] = &[
    CKR_OK, // how much room it takes
    CKR_ENCRYPTED_DATA_LEN_RANGE,
    CKR_ENCRYPTED_DATA_INVALID,
    CKR_OPERATION_NOT_INITIALIZED,
];
/// For C_SetPIN without login: the user's PIN, if there is one and the session may change it.
const CHANGED_PIN: &[CK_RV] = &[
    CKR_SESSION_READ_ONLY,
    CKR_TOKEN_WRITE_PROTECTED,
    CKR_PIN_INCORRECT,
    CKR_USER_NOT_LOGGED_IN,
];
/// For C_GetFunctionStatus and C_CancelFunction (section 5.16).
const OF_OLD: &[CK_RV] = &[CKR_FUNCTION_NOT_PARALLEL];

const fn entry(
    name: &'static str,
    scene: Scene,
    args: &'static [Arg],
    good: &'static [CK_RV],
) -> Entry {
    Entry {
        name,
        scene,
        args,
        good,
    }
}

use Arg::*;
use Scene::{
    Decrypting, DecryptingParts, Digesting, DigestingParts, Encrypting, EncryptingParts, Finding,
    Initialized, LoggedIn, Outside, Signing, SigningParts, Verifying, VerifyingParts,
};
const IN: Scene = Scene::Session;
const HANDLE: Arg = Out(size_of::<CK_OBJECT_HANDLE>());
const POINTER: Arg = Out(size_of::<usize>());

/// The arguments of an update that gives what it makes.
const THROUGH: &[Arg] = &[Session, Data, Size, Bytes, Count];
const BEGIN: &[Arg] = &[Session, Mechanism, Key];
const PART: &[Arg] = &[Session, Data, Size];
const RESULT: &[Arg] = &[Session, Bytes, Count];
/// For a message: parameter, associated data, input, output.
const MESSAGE: &[Arg] = &[Session, Data, Size, Data, Size, Data, Size, Bytes, Count];
const MESSAGE_BEGIN: &[Arg] = &[Session, Data, Size, Data, Size];
const MESSAGE_NEXT: &[Arg] = &[Session, Data, Size, Data, Size, Bytes, Count, Number(0)];
const MESSAGE_SIGN: &[Arg] = &[Session, Data, Size, Data, Size, Bytes, Count];
const MESSAGE_VERIFY: &[Arg] = &[Session, Data, Size, Data, Size, Data, Size];

/// The entries in the order of the tables. The first 68 are version 2.40, the first 92 are version
/// 3.0, and all are version 3.2.
pub const ENTRIES: [Entry; 104] = [
    entry("C_Initialize", Outside, &[InitArgs], OK),
    entry("C_Finalize", Initialized, &[Reserved], OK),
    entry("C_GetInfo", Initialized, &[Out(size_of::<CK_INFO>())], OK),
    entry("C_GetFunctionList", Initialized, &[POINTER], OK),
    entry(
        "C_GetSlotList",
        Initialized,
        &[Number(1), List(8), Count],
        OK,
    ),
    entry(
        "C_GetSlotInfo",
        Initialized,
        &[Slot, Out(size_of::<CK_SLOT_INFO>())],
        OK,
    ),
    entry(
        "C_GetTokenInfo",
        Initialized,
        &[Slot, Out(size_of::<CK_TOKEN_INFO>())],
        OK,
    ),
    entry(
        "C_GetMechanismList",
        Initialized,
        &[Slot, List(8), Count],
        OK,
    ),
    entry(
        "C_GetMechanismInfo",
        Initialized,
        &[Slot, MechanismType, Out(size_of::<CK_MECHANISM_INFO>())],
        OK,
    ),
    // With a session open, so that no token is lost to the test (section 5.5.7).
    entry(
        "C_InitToken",
        IN,
        &[Slot, Pin, Size, Label],
        &[CKR_SESSION_EXISTS, CKR_TOKEN_WRITE_PROTECTED],
    ),
    entry("C_InitPIN", IN, &[Session, Pin, Size], READ_ONLY),
    entry(
        "C_SetPIN",
        IN,
        &[Session, Pin, Size, Pin, Size],
        CHANGED_PIN,
    ),
    entry(
        "C_OpenSession",
        Initialized,
        &[Slot, Opening, Ignored, Ignored, HANDLE],
        OK,
    ),
    entry("C_CloseSession", IN, &[Session], OK),
    entry("C_CloseAllSessions", IN, &[Slot], OK),
    entry(
        "C_GetSessionInfo",
        IN,
        &[Session, Out(size_of::<CK_SESSION_INFO>())],
        OK,
    ),
    entry("C_GetOperationState", IN, RESULT, IDLE),
    entry(
        "C_SetOperationState",
        IN,
        &[Session, Data, Size, Number(0), Number(0)],
        &[CKR_SAVED_STATE_INVALID],
    ),
    entry("C_Login", IN, &[Session, UserType, Pin, Size], OK),
    entry("C_Logout", LoggedIn, &[Session], OK),
    entry(
        "C_CreateObject",
        IN,
        &[Session, Template, Size, HANDLE],
        READ_ONLY,
    ),
    entry(
        "C_CopyObject",
        IN,
        &[Session, Object, Template, Size, HANDLE],
        READ_ONLY,
    ),
    entry("C_DestroyObject", IN, &[Session, Object], READ_ONLY),
    entry("C_GetObjectSize", IN, &[Session, Object, HANDLE], OK),
    entry(
        "C_GetAttributeValue",
        IN,
        &[Session, Object, Query, Size],
        OK,
    ),
    entry(
        "C_SetAttributeValue",
        IN,
        &[Session, Object, Template, Size],
        READ_ONLY,
    ),
    entry("C_FindObjectsInit", IN, &[Session, Template, Size], OK),
    entry(
        "C_FindObjects",
        Finding,
        &[Session, Handles, Size, HANDLE],
        OK,
    ),
    entry("C_FindObjectsFinal", Finding, &[Session], OK),
    entry("C_EncryptInit", LoggedIn, BEGIN, NOT_FOR_THIS_KEY),
    entry("C_Encrypt", Encrypting, THROUGH, ENCRYPTED),
    entry("C_EncryptUpdate", EncryptingParts, THROUGH, ENCRYPTED),
    entry("C_EncryptFinal", EncryptingParts, RESULT, ENCRYPTED),
    entry("C_DecryptInit", LoggedIn, BEGIN, NOT_FOR_THIS_KEY),
    entry("C_Decrypt", Decrypting, THROUGH, DECRYPTED),
    entry("C_DecryptUpdate", DecryptingParts, THROUGH, ENCRYPTED),
    entry("C_DecryptFinal", DecryptingParts, RESULT, DECRYPTED),
    entry("C_DigestInit", IN, &[Session, Mechanism], OK),
    entry("C_Digest", Digesting, THROUGH, OK),
    entry("C_DigestUpdate", Digesting, PART, OK),
    entry(
        "C_DigestKey",
        Digesting,
        &[Session, Object],
        &[CKR_OK, CKR_KEY_INDIGESTIBLE, CKR_KEY_HANDLE_INVALID],
    ),
    entry("C_DigestFinal", DigestingParts, RESULT, OK),
    entry("C_SignInit", LoggedIn, BEGIN, OK),
    entry("C_Sign", Signing, THROUGH, OK),
    entry("C_SignUpdate", Signing, PART, OK),
    entry("C_SignFinal", SigningParts, RESULT, OK),
    entry("C_SignRecoverInit", LoggedIn, BEGIN, NOT_FOR_THIS_KEY),
    entry("C_SignRecover", IN, THROUGH, IDLE),
    entry("C_VerifyInit", IN, BEGIN, OK),
    entry(
        "C_Verify",
        Verifying,
        &[Session, Data, Size, Data, Size],
        &[CKR_SIGNATURE_LEN_RANGE, CKR_SIGNATURE_INVALID],
    ),
    entry("C_VerifyUpdate", Verifying, PART, OK),
    entry(
        "C_VerifyFinal",
        VerifyingParts,
        PART,
        &[CKR_SIGNATURE_LEN_RANGE, CKR_SIGNATURE_INVALID],
    ),
    entry("C_VerifyRecoverInit", IN, BEGIN, NOT_FOR_THIS_KEY),
    entry("C_VerifyRecover", IN, THROUGH, IDLE),
    entry("C_DigestEncryptUpdate", IN, THROUGH, IDLE),
    entry("C_DecryptDigestUpdate", IN, THROUGH, IDLE),
    entry("C_SignEncryptUpdate", IN, THROUGH, IDLE),
    entry("C_DecryptVerifyUpdate", IN, THROUGH, IDLE),
    entry(
        "C_GenerateKey",
        IN,
        &[Session, Mechanism, Template, Size, HANDLE],
        READ_ONLY,
    ),
    entry(
        "C_GenerateKeyPair",
        IN,
        &[
            Session, Mechanism, Template, Size, Template, Size, HANDLE, HANDLE,
        ],
        READ_ONLY,
    ),
    entry(
        "C_WrapKey",
        IN,
        &[Session, Mechanism, Key, Key, Bytes, Count],
        READ_ONLY,
    ),
    entry(
        "C_UnwrapKey",
        IN,
        &[Session, Mechanism, Key, Data, Size, Template, Size, HANDLE],
        UNWRAPPED,
    ),
    entry(
        "C_DeriveKey",
        IN,
        &[Session, Mechanism, Key, Template, Size, HANDLE],
        READ_ONLY,
    ),
    entry("C_SeedRandom", IN, PART, &[CKR_OK]),
    entry("C_GenerateRandom", IN, &[Session, Random, Size], OK),
    entry("C_GetFunctionStatus", IN, &[Session], OF_OLD),
    entry("C_CancelFunction", IN, &[Session], OF_OLD),
    entry(
        "C_WaitForSlotEvent",
        Initialized,
        &[Number(CKF_DONT_BLOCK), HANDLE, Reserved],
        &[CKR_OK, CKR_NO_EVENT],
    ),
    entry(
        "C_GetInterfaceList",
        Initialized,
        &[List(size_of::<CK_INTERFACE>()), Count],
        OK,
    ),
    entry(
        "C_GetInterface",
        Initialized,
        &[Name, Version, POINTER, Number(0)],
        OK,
    ),
    entry(
        "C_LoginUser",
        IN,
        &[Session, UserType, Pin, Size, Pin, Size],
        &[CKR_OK, CKR_USER_TYPE_INVALID, CKR_ARGUMENTS_BAD],
    ),
    entry("C_SessionCancel", IN, &[Session, Number(CKF_SIGN)], OK),
    entry("C_MessageEncryptInit", LoggedIn, BEGIN, NOT_FOR_THIS_KEY),
    entry("C_EncryptMessage", IN, MESSAGE, IDLE),
    entry("C_EncryptMessageBegin", IN, MESSAGE_BEGIN, IDLE),
    entry("C_EncryptMessageNext", IN, MESSAGE_NEXT, IDLE),
    entry("C_MessageEncryptFinal", IN, &[Session], IDLE),
    entry("C_MessageDecryptInit", LoggedIn, BEGIN, NOT_FOR_THIS_KEY),
    entry("C_DecryptMessage", IN, MESSAGE, IDLE),
    entry("C_DecryptMessageBegin", IN, MESSAGE_BEGIN, IDLE),
    entry("C_DecryptMessageNext", IN, MESSAGE_NEXT, IDLE),
    entry("C_MessageDecryptFinal", IN, &[Session], IDLE),
    entry("C_MessageSignInit", LoggedIn, BEGIN, NOT_FOR_THIS_KEY),
    entry("C_SignMessage", IN, MESSAGE_SIGN, IDLE),
    entry("C_SignMessageBegin", IN, PART, IDLE),
    entry("C_SignMessageNext", IN, MESSAGE_SIGN, IDLE),
    entry("C_MessageSignFinal", IN, &[Session], IDLE),
    entry("C_MessageVerifyInit", IN, BEGIN, NOT_FOR_THIS_KEY),
    entry("C_VerifyMessage", IN, MESSAGE_VERIFY, IDLE),
    entry("C_VerifyMessageBegin", IN, PART, IDLE),
    entry("C_VerifyMessageNext", IN, MESSAGE_VERIFY, IDLE),
    entry("C_MessageVerifyFinal", IN, &[Session], IDLE),
    entry(
        "C_EncapsulateKey",
        IN,
        &[
            Session, Mechanism, Key, Template, Size, Bytes, Count, HANDLE,
        ],
        READ_ONLY,
    ),
    entry(
        "C_DecapsulateKey",
        IN,
        &[Session, Mechanism, Key, Template, Size, Data, Size, HANDLE],
        READ_ONLY,
    ),
    entry(
        "C_VerifySignatureInit",
        IN,
        &[Session, Mechanism, Key, Data, Size],
        NOT_FOR_THIS_KEY,
    ),
    entry("C_VerifySignature", IN, PART, IDLE),
    entry("C_VerifySignatureUpdate", IN, PART, IDLE),
    entry("C_VerifySignatureFinal", IN, &[Session], IDLE),
    entry(
        "C_GetSessionValidationFlags",
        IN,
        &[Session, Number(1), HANDLE],
        OK,
    ),
    entry("C_AsyncComplete", IN, &[Session, Label, Out(40)], IDLE),
    entry("C_AsyncGetID", IN, &[Session, Label, HANDLE], IDLE),
    entry(
        "C_AsyncJoin",
        IN,
        &[Session, Label, Number(1), Random, Size],
        IDLE,
    ),
    entry(
        "C_WrapKeyAuthenticated",
        IN,
        &[Session, Mechanism, Key, Key, Data, Size, Bytes, Count],
        READ_ONLY,
    ),
    entry(
        "C_UnwrapKeyAuthenticated",
        IN,
        &[
            Session, Mechanism, Key, Data, Size, Template, Size, Data, Size, HANDLE,
        ],
        READ_ONLY,
    ),
];

/// The calls that docs/SUPPORT.md lists as supported. The tests check that all other calls are
/// unsupported.
pub fn supported() -> HashSet<String> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/SUPPORT.md"));
    let page = page.expect("docs/SUPPORT.md");
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| C_")?.split(" | ");
        let (name, status) = (cells.next()?, cells.next()?);
        (status != "not supported").then(|| format!("C_{name}"))
    });
    rows.collect()
}
