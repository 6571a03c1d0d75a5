//! Hostile callers: every kind of wrong argument is tried on every function of every function
//! table. Each call has its own process. The call must return the right code, and the process must
//! not crash. The call must print nothing, and write only into the caller's buffers.
//!
//! Rules that apply to every module also run on SoftHSM, to check the test itself.

mod attacks;
mod call;
mod drive;
mod entries;
mod memory;

use attacks::Attack;
use cryptoki_sys::*;
use drive::{Outcome, TRANSPORT, Target, drive};
use entries::{ENTRIES, Scene, supported};
use std::collections::{BTreeMap, HashSet};
use std::ffi::c_void;
use std::fs;
use std::time::Instant;
use testkit::ciphers::openssl_encrypts;
use testkit::fork::Forked;
use testkit::home::Home;
use testkit::module::{library, loaded};
use testkit::own::{NO, Own, P256, P256_KEY, YES, outside};
use testkit::pins::{OFFICER, Token};
use testkit::raw::{Code, Raw};
use testkit::softhsm::{PIN, SoftHsm};
use testkit::tpm::Swtpm;
use testkit::wrapping::{AesWrap, oaep_options, private_key_info};

once!(
    every_table_is_driven,
    version_2_40,
    version_3_0,
    version_3_2,
    rsa,
    the_token_that_can_be_written,
    the_token_with_pins,
    #[cfg_attr(target_pointer_width = "32", ignore = "SoftHSM has 64 bits")]
    softhsm_agrees,
    #[cfg_attr(target_pointer_width = "32", ignore = "SoftHSM has 64 bits")]
    bad_functions_are_seen,
);

/// The functions of a table that has so many.
fn functions(table: *const c_void, count: usize) -> Vec<usize> {
    // SAFETY: a table is its version, padded to a pointer's size, and then its functions.
    unsafe { std::slice::from_raw_parts(table.cast::<usize>().add(1), count).to_vec() }
}

/// The versions that have a story here, with the number of their functions.
const DRIVEN: [((u8, u8), usize); 3] = [((2, 40), 68), ((3, 0), 92), ((3, 2), 104)];

fn every_table_is_driven() {
    let raw = loaded(&Home::new("swtpm:path=/nonexistent/socket"));
    let v3: *const CK_FUNCTION_LIST_3_0 = raw.interface(Some((3, 0))).unwrap().cast();
    // SAFETY: the table of version 3.0 lives as long as the module.
    let v3 = unsafe { &*v3 };
    let mut count = 0;
    call!(v3, C_GetInterfaceList(std::ptr::null_mut(), &raw mut count))
        .result()
        .unwrap();
    let mut interfaces = vec![CK_INTERFACE::default(); count as usize];
    call!(
        v3,
        C_GetInterfaceList(interfaces.as_mut_ptr(), &raw mut count)
    )
    .result()
    .unwrap();
    let versions = interfaces.iter().map(|interface| {
        // SAFETY: every table begins with its version.
        let version = unsafe { *interface.pFunctionList.cast::<CK_VERSION>() };
        (version.major, version.minor)
    });
    let mut versions: Vec<_> = versions.collect();
    versions.sort_unstable();
    assert_eq!(versions, DRIVEN.map(|(version, _)| version));
}

fn version_2_40() {
    ours(&[], DRIVEN[0], |_| true);
}

fn version_3_0() {
    ours(&[], DRIVEN[1], |_| true);
}

fn version_3_2() {
    ours(&[], DRIVEN[2], |_| true);
}

/// An RSA key has mechanisms with parameters. An unsupported mechanism is refused before the key is
/// checked.
fn rsa() {
    let supported = supported();
    let wanted = |name: &str| supported.contains(name);
    let outcomes = ours(&["--template", "h1"], DRIVEN[2], wanted);
    let pss = |outcome: &Outcome| matches!(outcome.attack, Attack::Pss(..));
    assert!(
        outcomes.iter().any(pss),
        "no CKM_SHA256_RSA_PKCS_PSS is listed"
    );
}

/// Calls that write meet no write protection there. The tested objects stay, because they cannot be
/// destroyed.
fn the_token_that_can_be_written() {
    let tpm = Swtpm::blank();
    let home = Home::new(&tpm.tcti());
    let raw = loaded(&home);
    Forked::new(|| {
        let own = Own::new(&home);
        let stays = [
            (CKA_TOKEN, YES.to_vec()),
            (CKA_DESTROYABLE, NO.to_vec()),
            (CKA_LABEL, b"hostile".to_vec()),
        ];
        let public = [&stays[..], &[(CKA_EC_PARAMS, P256.to_vec())]].concat();
        let private = [&stays[..], &[(CKA_DERIVE, YES.to_vec())]].concat();
        let made = own.generate(CKM_EC_KEY_PAIR_GEN, &public, &private);
        made.expect("C_GenerateKeyPair");
        let unwraps = [&stays[1..], &[(CKA_UNWRAP, YES.to_vec())]].concat();
        let (public, _) = own.decrypting(&unwraps);
        fs::rename(own.pem(&home, public), home.path("rsa.pem")).unwrap();
    })
    .succeeds();
    outside(&home, "key", &P256_KEY);
    let info = private_key_info(&home, "key");
    let label = format!("rsa_oaep_label:{}", "04".repeat(65));
    let options = [&oaep_options("sha256")[..], &[&label]].concat();
    let front = openssl_encrypts(&home, &home.path("rsa.pem"), &options, &TRANSPORT);
    let for_aes = AesWrap::Kwp.wraps(&home, &TRANSPORT, &info);
    let wrapped = [for_aes.clone(), [front, for_aes].concat()];
    let session = CKF_SERIAL_SESSION | CKF_RW_SESSION;
    let supported = supported();
    let wanted = |name: &str| supported.contains(name);
    let outcomes = told(
        &raw,
        "the token devid",
        DRIVEN[2],
        session,
        Some(&wrapped),
        wanted,
    );
    for name in [
        "C_DecryptInit",
        "C_EncryptInit",
        "C_DeriveKey",
        "C_UnwrapKey",
    ] {
        let nested = |one: &&Outcome| matches!(one.attack, Attack::Nested(..));
        let here = outcomes
            .iter()
            .filter(nested)
            .filter(|one| one.entry == name);
        let done = here.filter(|one| one.got == Ok(Code(CKR_OK))).count();
        assert!(done > 0, "no parameter of {name} is right");
    }
    for name in [
        "C_UnwrapKey",
        "C_DigestKey",
        "C_EncryptUpdate",
        "C_EncryptFinal",
        "C_DecryptUpdate",
    ] {
        let plain = |one: &&Outcome| one.entry == name && one.attack == Attack::Nothing;
        let plain = outcomes.iter().find(plain).map(|one| one.got.clone());
        assert_eq!(plain, Some(Ok(Code(CKR_OK))), "{name} does nothing");
    }
}

/// A token with PINs, with its current label and a new key. A call with another fault than its PIN
/// is not a try. No row makes the last try.
fn the_token_with_pins() {
    const USER: &str = "1234";
    let tpm = Swtpm::blank();
    let home = Home::new(&tpm.tcti());
    let raw = loaded(&home);
    Forked::new(|| {
        raw.initialize().unwrap();
        let slot = raw.slots(true).unwrap()[0];
        let token = Token {
            raw: Raw::load(&library()),
            slot,
        };
        token.init(OFFICER, "device keys").unwrap();
        let session = token.read_write();
        token.officer(session, OFFICER).unwrap();
        token.init_pin(session, USER).unwrap();
        raw.logout(session).unwrap();
        token.login(session, USER).unwrap();
        token.pair(session, "key", &[(CKA_DESTROYABLE, NO.to_vec())]);
    })
    .succeeds();
    let supported = supported();
    let calls = [
        "C_InitToken",
        "C_InitPIN",
        "C_SetPIN",
        "C_Login",
        "C_LoginUser",
        "C_Logout",
        "C_Sign",
    ];
    let target = Target {
        functions: functions(raw.interface(Some((3, 2))).unwrap(), 104),
        raw: &raw,
        session: CKF_SERIAL_SESSION,
        pin: Some(USER.as_bytes()),
        wrapped: None,
        supports: &|name| supported.contains(name),
        wants: &|entry, _| calls.contains(&entry.name),
    };
    let start = Instant::now();
    report("the token with PINs", &drive(&target), start);
    let tries = tpm.lockout_counter();
    assert!(tries < 3, "{tries} failed tries: the TPM is locked");
}

/// Every call that is wanted on our module, with a TPM made by the factory with `options`.
fn ours(
    options: &[&str],
    driven: ((u8, u8), usize),
    wanted: impl Fn(&str) -> bool,
) -> Vec<Outcome> {
    let (tpm, _identity) = Swtpm::manufactured_with(options);
    let home = Home::new(&tpm.tcti());
    let raw = loaded(&home);
    let title = format!("version {}.{}, {options:?}", driven.0.0, driven.0.1);
    told(&raw, &title, driven, CKF_SERIAL_SESSION, None, wanted)
}

fn told(
    raw: &Raw,
    title: &str,
    driven: ((u8, u8), usize),
    session: CK_FLAGS,
    wrapped: Option<&[Vec<u8>; 2]>,
    wanted: impl Fn(&str) -> bool,
) -> Vec<Outcome> {
    let (version, count) = driven;
    let supported = supported();
    let target = Target {
        functions: functions(raw.interface(Some(version)).unwrap(), count),
        raw,
        session,
        pin: None,
        wrapped,
        supports: &|name| supported.contains(name),
        wants: &|entry, _| wanted(entry.name),
    };
    let start = Instant::now();
    let outcomes = drive(&target);
    report(title, &outcomes, start);
    outcomes
}

/// Prints the counts, and fails with each wrong outcome.
fn report(module: &str, outcomes: &[Outcome], start: Instant) {
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    for outcome in outcomes {
        let code = outcome.got.as_ref().map(|code| format!("{code:?}"));
        *codes
            .entry(code.unwrap_or_else(|how| how.clone()))
            .or_default() += 1;
    }
    let entries: HashSet<_> = outcomes.iter().map(|outcome| outcome.entry).collect();
    let took = start.elapsed();
    println!(
        "\n{module}: {} hostile calls of {} entries in {took:.1?}",
        outcomes.len(),
        entries.len()
    );
    for (code, count) in codes {
        println!("{count:6} {code}");
    }
    let wrong = outcomes.iter().filter(|outcome| !outcome.is_right());
    let wrong: Vec<_> = wrong
        .map(|outcome| {
            let Outcome {
                entry,
                attack,
                wall,
                right,
                got,
                complaints,
            } = outcome;
            format!("{entry} {attack:?}, wall {wall:?}: {got:?}, right: {right:?} {complaints}")
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} wrong answers:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// A difference of SoftHSM from the text of the standard.
struct Difference {
    entries: &'static [&'static str],
    attack: fn(Attack) -> bool,
    code: CK_RV,
}

const SOFTHSM_DIFFERS: [Difference; 7] = [
    // SoftHSM lacks these calls, but checks the session first.
    Difference {
        entries: &SOFTHSM_LACKS,
        attack: |_| true,
        code: CKR_FUNCTION_NOT_SUPPORTED,
    },
    // SoftHSM finds the object before it checks for a key.
    Difference {
        entries: &[
            "C_EncryptInit",
            "C_DecryptInit",
            "C_SignInit",
            "C_VerifyInit",
        ],
        attack: |attack| matches!(attack, Attack::Number(2, _)),
        code: CKR_OBJECT_HANDLE_INVALID,
    },
    // SoftHSM checks whether a key may verify, but not whether it is a public key.
    Difference {
        entries: &["C_VerifyInit"],
        attack: |attack| matches!(attack, Attack::OtherObject(_)),
        code: CKR_OK,
    },
    // SoftHSM ends an operation in parts by the call for a single part.
    Difference {
        entries: &["C_Digest", "C_Encrypt"],
        attack: |attack| matches!(attack, Attack::State(_)),
        code: CKR_OK,
    },
    // A wrong padding of CBC has a code of its own.
    Difference {
        entries: &["C_Decrypt", "C_DecryptFinal"],
        attack: |attack| matches!(attack, Attack::State(_) | Attack::Nothing),
        code: CKR_GENERAL_ERROR,
    },
    // SoftHSM allows a logout without login.
    Difference {
        entries: &["C_Logout"],
        attack: |attack| attack == Attack::State(Scene::Session),
        code: CKR_OK,
    },
    // SoftHSM wants a pointer to the missing items.
    Difference {
        entries: &[
            "C_CreateObject",
            "C_CopyObject",
            "C_SetAttributeValue",
            "C_UnwrapKey",
            "C_DeriveKey",
        ],
        attack: |attack| matches!(attack, Attack::Empty(_)),
        code: CKR_ARGUMENTS_BAD,
    },
];

/// The calls that SoftHSM leaves out.
const SOFTHSM_LACKS: [&str; 10] = [
    "C_GetOperationState",
    "C_SetOperationState",
    "C_SignRecoverInit",
    "C_SignRecover",
    "C_VerifyRecoverInit",
    "C_VerifyRecover",
    "C_DigestEncryptUpdate",
    "C_DecryptDigestUpdate",
    "C_SignEncryptUpdate",
    "C_DecryptVerifyUpdate",
];

/// The rows whose code the standard fixes.
fn softhsm_agrees() {
    let (_hsm, raw) = SoftHsm::enter();
    Forked::new(|| make_keys(&raw)).succeeds();
    let target = Target {
        functions: functions((&raw const raw.table).cast(), 68),
        raw: &raw,
        session: CKF_SERIAL_SESSION,
        pin: Some(PIN.as_bytes()),
        wrapped: None,
        supports: &|_| true,
        wants: &|_, row| row.generic,
    };
    let start = Instant::now();
    let mut outcomes = drive(&target);
    for difference in &SOFTHSM_DIFFERS {
        let mut seen = 0;
        for outcome in &mut outcomes {
            let (entries, code) = (difference.entries, Code(difference.code));
            let here = entries.contains(&outcome.entry) && (difference.attack)(outcome.attack);
            if here && outcome.got == Ok(code) {
                seen += 1;
                outcome.right.push(code);
            }
        }
        let entries = difference.entries;
        assert_ne!(
            seen, 0,
            "SoftHSM no longer differs in {entries:?}: mend the list"
        );
        println!(
            "differs in {seen} calls of {entries:?}: {:?}",
            Code(difference.code)
        );
    }
    report("SoftHSM", &outcomes, start);
}

/// Functions in place of C_GetInfo, one bad in each way that the test looks for.
mod bad {
    use cryptoki_sys::{CK_INFO, CK_RV, CKR_GENERAL_ERROR, CKR_OK};

    pub extern "C" fn one_byte_too_far(info: *mut CK_INFO) -> CK_RV {
        // SAFETY: not safe. The test must detect this write.
        unsafe { info.add(1).cast::<u8>().write_volatile(0) };
        CKR_OK
    }

    pub extern "C" fn one_byte_too_early(info: *mut CK_INFO) -> CK_RV {
        // SAFETY: not safe. The test must detect this write.
        unsafe { info.cast::<u8>().sub(1).write_volatile(0) };
        CKR_OK
    }

    pub extern "C" fn prints(_: *mut CK_INFO) -> CK_RV {
        let text = b"hello";
        // SAFETY: a plain system call.
        unsafe { libc::write(libc::STDOUT_FILENO, text.as_ptr().cast(), text.len()) };
        CKR_OK
    }

    pub extern "C" fn wrong_code(_: *mut CK_INFO) -> CK_RV {
        CKR_GENERAL_ERROR
    }

    pub extern "C" fn good(_: *mut CK_INFO) -> CK_RV {
        CKR_OK
    }
}

fn bad_functions_are_seen() {
    let (_hsm, raw) = SoftHsm::enter();
    let table = functions((&raw const raw.table).cast(), 68);
    let at = ENTRIES
        .iter()
        .position(|entry| entry.name == "C_GetInfo")
        .unwrap();
    let told = |function: extern "C" fn(*mut CK_INFO) -> CK_RV| {
        let mut functions = table.clone();
        functions[at] = function as *const () as usize;
        let target = Target {
            functions,
            raw: &raw,
            session: CKF_SERIAL_SESSION,
            pin: Some(PIN.as_bytes()),
            wrapped: None,
            supports: &|_| true,
            wants: &|entry, row| entry.name == "C_GetInfo" && row.attack == Attack::Nothing,
        };
        // For both guard pages: the code, the complaints, and whether they are right.
        let told = |one: Outcome| (one.got.clone(), one.complaints.clone(), one.is_right());
        drive(&target).into_iter().map(told).collect::<Vec<_>>()
    };
    let fine = |complaint: &str| (Ok(Code(CKR_OK)), complaint.to_owned(), complaint.is_empty());
    let past = fine(&format!(
        "buffer 0 of {} bytes: written past",
        size_of::<CK_INFO>()
    ));
    let crash = (
        Err(format!("signal {}", libc::SIGSEGV)),
        String::new(),
        false,
    );
    assert_eq!(told(bad::good), [fine(""), fine("")]);
    assert_eq!(told(bad::one_byte_too_far), [crash.clone(), past.clone()]);
    assert_eq!(told(bad::one_byte_too_early), [past, crash]);
    assert_eq!(
        told(bad::prints),
        [fine(" wrote: hello"), fine(" wrote: hello")]
    );
    let wrong = (Ok(Code(CKR_GENERAL_ERROR)), String::new(), false);
    assert_eq!(told(bad::wrong_code), [wrong.clone(), wrong]);
}

/// An RSA key pair on the token; the public key is seen without login.
fn make_keys(raw: &Raw) {
    raw.initialize().expect("C_Initialize");
    let slot = raw.slots(true).expect("C_GetSlotList")[0];
    let session = raw
        .open(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION)
        .expect("C_OpenSession");
    raw.login(session, CKU_USER, PIN.as_bytes())
        .expect("C_Login");
    let mut yes = CK_TRUE;
    let mut no = CK_FALSE;
    let mut bits: CK_ULONG = 2048;
    let mut label = *b"hostile";
    let item = |type_, value: *mut c_void, length: usize| CK_ATTRIBUTE {
        type_,
        pValue: value,
        ulValueLen: length as CK_ULONG,
    };
    let mut public = [
        item(CKA_TOKEN, (&raw mut yes).cast(), 1),
        item(CKA_PRIVATE, (&raw mut no).cast(), 1),
        item(CKA_VERIFY, (&raw mut yes).cast(), 1),
        item(
            CKA_MODULUS_BITS,
            (&raw mut bits).cast(),
            size_of::<CK_ULONG>(),
        ),
        item(CKA_LABEL, label.as_mut_ptr().cast(), 7),
    ];
    let mut private = [
        item(CKA_TOKEN, (&raw mut yes).cast(), 1),
        item(CKA_PRIVATE, (&raw mut yes).cast(), 1),
        item(CKA_SIGN, (&raw mut yes).cast(), 1),
    ];
    let mut mechanism = CK_MECHANISM {
        mechanism: CKM_RSA_PKCS_KEY_PAIR_GEN,
        pParameter: std::ptr::null_mut(),
        ulParameterLen: 0,
    };
    let (mut one, mut other) = (0, 0);
    let made = call!(
        raw.table,
        C_GenerateKeyPair(
            session,
            &raw mut mechanism,
            public.as_mut_ptr(),
            5,
            private.as_mut_ptr(),
            3,
            &raw mut one,
            &raw mut other
        )
    );
    made.result().expect("C_GenerateKeyPair");
    raw.finalize().expect("C_Finalize");
}
