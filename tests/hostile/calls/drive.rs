//! Makes hostile calls with one function table, each in a separate process.

use super::attacks::{Attack, Row, rows};
use super::call::{Bench, Call};
use super::entries::{ENTRIES, Entry, Scene};
use super::memory::Wall;
use cryptoki_sys::*;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use testkit::module::ulong;
use testkit::own::{create, generate_key};
use testkit::raw::{Code, Raw};

/// A module with one of its tables.
pub struct Target<'a> {
    pub raw: &'a Raw,
    /// The table's functions, in the order of [`ENTRIES`].
    pub functions: Vec<usize>,
    /// The flags of sessions.
    pub session: CK_FLAGS,
    /// For tokens that want a login before they show keys.
    pub pin: Option<&'a [u8]>,
    /// Tells whether the module has this call.
    pub supports: &'a dyn Fn(&str) -> bool,
    /// A key that OpenSSL wrapped under [`TRANSPORT`], and one that OpenSSL wrapped for the token's
    /// unwrapping RSA key. The label is 65 times 4.
    pub wrapped: Option<&'a [Vec<u8>; 2]>,
    /// Tells whether this call is made.
    pub wants: &'a dyn Fn(&Entry, &Row) -> bool,
}

/// An AES key.
pub const TRANSPORT: [u8; 32] = [9; 32];

/// How one call ended.
pub struct Outcome {
    pub entry: &'static str,
    pub attack: Attack,
    pub wall: Wall,
    pub right: Vec<Code>,
    /// The code, or how the process ended instead.
    pub got: Result<Code, String>,
    pub complaints: String,
}

impl Outcome {
    pub fn is_right(&self) -> bool {
        let known = |code: &Code| self.right.contains(code);
        self.got.as_ref().is_ok_and(known) && self.complaints.is_empty()
    }
}

/// The report of a child to its parent.
enum Told {
    Code(Code, String),
    /// The token has nothing that this attack is about.
    NotHere,
}

/// Makes every call that is wanted.
pub fn drive(target: &Target<'_>) -> Vec<Outcome> {
    let output = tempfile::tempfile().expect("a file");
    let answer = tempfile::tempfile().expect("a file");
    let mut outcomes = Vec::new();
    for (entry, function) in ENTRIES.iter().zip(&target.functions) {
        for row in rows(entry) {
            for wall in [Wall::Behind, Wall::Before] {
                if (target.wants)(entry, &row) {
                    let right = right(target, entry, &row);
                    let body = || one_call(target, entry, *function, row.attack, wall);
                    let Some((got, complaints)) = in_a_process(&output, &answer, body) else {
                        continue;
                    };
                    outcomes.push(Outcome {
                        entry: entry.name,
                        attack: row.attack,
                        wall,
                        right,
                        got,
                        complaints,
                    });
                }
            }
        }
    }
    outcomes
}

/// A call that a module does not have says so for every fault (section 5.1.7). It may first report
/// that the module is not initialised.
fn right(target: &Target<'_>, entry: &Entry, row: &Row) -> Vec<Code> {
    let outside = matches!(
        row.attack,
        Attack::State(Scene::Outside) | Attack::Finalized
    );
    let read_write = target.session & CKF_RW_SESSION != 0;
    let codes = match ((target.supports)(entry.name), outside) {
        (true, _) if read_write && row.right.contains(&CKR_SESSION_READ_ONLY) => {
            let written = [CKR_OK, CKR_ATTRIBUTE_TYPE_INVALID, CKR_PIN_INCORRECT];
            [&row.right[..], &written].concat()
        }
        (true, _) => row.right.clone(),
        (false, true) => vec![CKR_FUNCTION_NOT_SUPPORTED, CKR_CRYPTOKI_NOT_INITIALIZED],
        (false, false) => vec![CKR_FUNCTION_NOT_SUPPORTED],
    };
    codes.into_iter().map(Code).collect()
}

fn one_call(
    target: &Target<'_>,
    entry: &Entry,
    function: usize,
    attack: Attack,
    wall: Wall,
) -> Told {
    let scene = match attack {
        Attack::State(scene) => scene,
        _ => entry.scene,
    };
    let (mut bench, mechanisms) = prepare(target, scene, entry.name);
    if entry.name == "C_DigestInit" {
        bench.mechanism = CKM_SHA256;
    }
    if entry.name == "C_GenerateKeyPair" {
        bench.mechanism = CKM_EC_KEY_PAIR_GEN;
    }
    // In read-only sessions: a public key, which cannot be digested.
    let writes = target.session & CKF_RW_SESSION != 0 && !matches!(scene, Scene::Outside);
    if entry.name == "C_DigestKey" && writes {
        let secret = [
            (CKA_CLASS, ulong(CKO_SECRET_KEY)),
            (CKA_KEY_TYPE, ulong(CKK_GENERIC_SECRET)),
            (CKA_VALUE, vec![7; 32]),
            (CKA_EXTRACTABLE, vec![CK_TRUE]),
        ];
        let made = create(target.raw, bench.session, &secret);
        bench.object = made.expect("C_CreateObject");
    }
    if let ("C_UnwrapKey", Some([for_aes, for_rsa])) = (entry.name, target.wrapped) {
        let own = [
            (CKA_CLASS, ulong(CKO_SECRET_KEY)),
            (CKA_KEY_TYPE, ulong(CKK_AES)),
            (CKA_VALUE, TRANSPORT.to_vec()),
            (CKA_UNWRAP, vec![CK_TRUE]),
        ];
        let elsewhere = matches!(scene, Scene::Outside);
        if !elsewhere {
            let key = create(target.raw, bench.session, &own);
            (bench.key, bench.mechanism) = (key.expect("C_CreateObject"), CKM_AES_KEY_WRAP_KWP);
        }
        bench.data = match attack {
            Attack::Nested(..) => for_rsa.clone(),
            _ => for_aes.clone(),
        };
    }
    if let Attack::Nested(..) = attack {
        let (kind, class, usage) = match entry.name {
            "C_DeriveKey" => (CKM_ECDH1_DERIVE, CKO_PRIVATE_KEY, CKA_DERIVE),
            "C_EncryptInit" => (CKM_RSA_PKCS_OAEP, CKO_PUBLIC_KEY, CKA_ENCRYPT),
            "C_UnwrapKey" => (CKM_RSA_AES_KEY_WRAP, CKO_PRIVATE_KEY, CKA_UNWRAP),
            _ => (CKM_RSA_PKCS_OAEP, CKO_PRIVATE_KEY, CKA_DECRYPT),
        };
        if !mechanisms.contains(&kind) {
            return Told::NotHere;
        }
        let template = [(CKA_CLASS, ulong(class)), (usage, vec![CK_TRUE])];
        let found = target.raw.find(bench.session, &template);
        if entry.name == "C_UnwrapKey" {
            bench.point = vec![4; 65];
        }
        (bench.mechanism, bench.key) = (kind, found.expect("a search")[0]);
    }
    match attack {
        Attack::Pss(..)
            if bench.mechanism == CKM_ECDSA_SHA256
                || !mechanisms.contains(&CKM_SHA256_RSA_PKCS_PSS) =>
        {
            return Told::NotHere;
        }
        Attack::Finalized => {
            target.raw.finalize().ok();
        }
        Attack::Closed => target.raw.close(bench.session).expect("C_CloseSession"),
        _ => {}
    }
    let needed = needed(entry, function, attack, &bench);
    let call = Call::new(function, entry, attack, &bench, wall, needed);
    let code = call.make();
    let mut complaints = call.complaints(code);
    let ends = matches!(entry.name, "C_Initialize" | "C_Finalize");
    if scene != Scene::Outside
        && attack != Attack::Finalized
        && !ends
        && let Err(code) = target.raw.finalize()
    {
        complaints.push(format!("C_Finalize afterwards: {code:?}"));
    }
    Told::Code(code, complaints.join("; "))
}

/// How much room the call says it wants, asked for as programs do.
fn needed(entry: &Entry, function: usize, attack: Attack, bench: &Bench) -> Option<usize> {
    use super::entries::Arg;
    let elsewhere = matches!(
        attack,
        Attack::State(_) | Attack::Finalized | Attack::Closed
    );
    let place = |arg: &Arg| matches!(arg, Arg::List(_) | Arg::Bytes);
    let at = entry.args.iter().position(place).filter(|_| !elsewhere)?;
    let query = Call::new(function, entry, Attack::Null(at), bench, Wall::Behind, None);
    match query.make() {
        Code(CKR_OK) => query.counted(),
        _ => None,
    }
}

/// Brings this process to where the call is made.
fn prepare(target: &Target<'_>, scene: Scene, name: &str) -> (Bench, Vec<CK_MECHANISM_TYPE>) {
    let raw = target.raw;
    let mut bench = Bench {
        session: 1,
        slot: 0,
        object: 1,
        label: 8,
        key: 1,
        other: 1,
        mechanism: CKM_ECDSA,
        point: vec![4; 65],
        data: vec![7; 32],
    };
    if scene == Scene::Outside {
        return (bench, Vec::new());
    }
    raw.initialize().expect("C_Initialize");
    let slot = raw.slots(true).expect("C_GetSlotList")[0];
    bench.slot = slot;
    let mechanisms = raw.mechanisms(slot).expect("C_GetMechanismList");
    let both = [CKM_ECDSA_SHA256, CKM_SHA256_RSA_PKCS];
    let found = both.into_iter().find(|one| mechanisms.contains(one));
    bench.mechanism = found.expect("a mechanism that signs");
    if scene == Scene::Initialized {
        return (bench, mechanisms);
    }
    let session = raw.open(slot, target.session).expect("C_OpenSession");
    bench.session = session;
    let signing = matches!(scene, Scene::Signing | Scene::SigningParts);
    if scene == Scene::LoggedIn || (signing && target.pin.is_some()) {
        let pin = target.pin.unwrap_or(b"1234");
        raw.login(session, CKU_USER, pin).expect("C_Login");
    }
    let first = |class| {
        let mut template = vec![(CKA_CLASS, ulong(class))];
        // There may be keys of both types.
        if bench.mechanism == CKM_ECDSA_SHA256 && class != CKO_CERTIFICATE {
            template.push((CKA_KEY_TYPE, ulong(CKK_EC)));
        }
        let found = raw.find(session, &template);
        found.expect("a search").first().copied()
    };
    let public = first(CKO_PUBLIC_KEY).expect("a public key");
    let private = first(CKO_PRIVATE_KEY).unwrap_or(public);
    bench.object = public;
    if bench.mechanism == CKM_ECDSA_SHA256 {
        let point = raw.attribute(session, public, CKA_EC_POINT);
        bench.point = point.expect("CKA_EC_POINT")[2..].to_vec();
    }
    let label = raw.attribute(session, public, CKA_LABEL);
    bench.label = label.expect("CKA_LABEL").len();
    (bench.key, bench.other) = match name.contains("Verify") {
        true => (public, first(CKO_CERTIFICATE).unwrap_or(private)),
        false => (private, public),
    };
    begin(raw, scene, &bench, public, private);
    (bench, mechanisms)
}

/// Begins the scene's operation. A module that lacks the call has nothing to begin.
fn begin(raw: &Raw, scene: Scene, bench: &Bench, public: CK_ULONG, private: CK_ULONG) {
    let session = bench.session;
    let mechanism = |kind| CK_MECHANISM {
        mechanism: kind,
        pParameter: ptr::null_mut(),
        ulParameterLen: 0,
    };
    let mut data = [7_u8; 32];
    let (part, size) = (data.as_mut_ptr(), data.len() as CK_ULONG);
    let mut begun = Vec::new();
    match scene {
        Scene::Finding => raw.find_init(session, &[]).expect("C_FindObjectsInit"),
        Scene::Signing | Scene::SigningParts => {
            raw.sign_init(session, bench.mechanism, private)
                .expect("C_SignInit");
            if scene == Scene::SigningParts {
                raw.sign_update(session, &data).expect("C_SignUpdate");
            }
        }
        Scene::Verifying | Scene::VerifyingParts => {
            let mut kind = mechanism(bench.mechanism);
            begun.push(call!(
                raw.table,
                C_VerifyInit(session, &raw mut kind, public)
            ));
            if scene == Scene::VerifyingParts {
                begun.push(call!(raw.table, C_VerifyUpdate(session, part, size)));
            }
        }
        Scene::Encrypting | Scene::Decrypting => {
            let (class, usage) = match scene {
                Scene::Encrypting => (CKO_PUBLIC_KEY, CKA_ENCRYPT),
                _ => (CKO_PRIVATE_KEY, CKA_DECRYPT),
            };
            let template = [(CKA_CLASS, ulong(class)), (usage, vec![CK_TRUE])];
            let found = raw.find(session, &template).expect("a search");
            let mut kind = mechanism(CKM_RSA_PKCS);
            for key in found {
                let kind = &raw mut kind;
                begun.push(match scene {
                    Scene::Encrypting => call!(raw.table, C_EncryptInit(session, kind, key)),
                    _ => call!(raw.table, C_DecryptInit(session, kind, key)),
                });
            }
        }
        Scene::EncryptingParts | Scene::DecryptingParts => {
            let (mut iv, mut out, mut length) = ([0_u8; 16], [0_u8; 64], 64);
            let (iv, out) = (iv.as_mut_ptr(), out.as_mut_ptr());
            let mut kind = CK_MECHANISM {
                mechanism: CKM_AES_CBC_PAD,
                pParameter: iv.cast(),
                ulParameterLen: 16,
            };
            let (kind, length) = (&raw mut kind, &raw mut length);
            if let Some(key) = aes_key(raw, session) {
                begun.extend(match scene {
                    Scene::EncryptingParts => [
                        call!(raw.table, C_EncryptInit(session, kind, key)),
                        call!(raw.table, C_EncryptUpdate(session, part, size, out, length)),
                    ],
                    _ => [
                        call!(raw.table, C_DecryptInit(session, kind, key)),
                        call!(raw.table, C_DecryptUpdate(session, part, size, out, length)),
                    ],
                });
            }
        }
        Scene::Digesting | Scene::DigestingParts => {
            let mut kind = mechanism(CKM_SHA256);
            begun.push(call!(raw.table, C_DigestInit(session, &raw mut kind)));
            if scene == Scene::DigestingParts {
                begun.push(call!(raw.table, C_DigestUpdate(session, part, size)));
            }
        }
        _ => {}
    }
    let fine = [Code(CKR_OK), Code(CKR_FUNCTION_NOT_SUPPORTED)];
    assert!(begun.iter().all(|code| fine.contains(code)), "{begun:?}");
}

/// A key of the session, where the token makes such keys.
fn aes_key(raw: &Raw, session: CK_SESSION_HANDLE) -> Option<CK_OBJECT_HANDLE> {
    let template = [
        (CKA_PRIVATE, vec![CK_FALSE]),
        (CKA_VALUE_LEN, ulong(16)),
        (CKA_ENCRYPT, vec![CK_TRUE]),
        (CKA_DECRYPT, vec![CK_TRUE]),
    ];
    generate_key(raw, session, CKM_AES_KEY_GEN, &template).ok()
}

/// Runs `body` in a child and reads its report. `None`: no report. Any output of the child on
/// standard output or error is a complaint.
fn in_a_process(
    output: &File,
    answer: &File,
    body: impl FnOnce() -> Told,
) -> Option<(Result<Code, String>, String)> {
    answer.set_len(0).expect("truncated");
    // SAFETY: the child only makes calls that are allowed in a child of a process with threads, and
    // ends by _exit.
    let id = unsafe { libc::fork() };
    assert!(id >= 0, "fork");
    if id == 0 {
        let told = catch_unwind(AssertUnwindSafe(|| {
            retreat(output);
            body()
        }));
        let text = match &told {
            Ok(Told::Code(code, complaints)) => format!("{:x} {complaints}", code.0),
            Ok(Told::NotHere) => "not here".to_owned(),
            Err(_) => String::new(),
        };
        let good = answer.write_all_at(text.as_bytes(), 0).is_ok() && told.is_ok();
        // SAFETY: ends this process at once.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    let mut status = 0;
    // SAFETY: the child is ours and not yet waited for; its alarm ends it if nothing else does.
    let ended = unsafe { libc::waitpid(id, &raw mut status, 0) };
    assert_eq!(ended, id, "waitpid");
    let said = take(output);
    let told = take(answer);
    if told == "not here" {
        return None;
    }
    let code = told
        .split_once(' ')
        .and_then(|(code, complaints)| Some((CK_RV::from_str_radix(code, 16).ok()?, complaints)));
    let mut complaints = String::new();
    let got = match code {
        Some((code, told)) if status == 0 => {
            complaints.push_str(told);
            Ok(Code(code))
        }
        _ if libc::WIFSIGNALED(status) => Err(format!("signal {}", libc::WTERMSIG(status))),
        _ => Err(format!("exit {}", libc::WEXITSTATUS(status))),
    };
    if !said.is_empty() {
        write!(complaints, " wrote: {said}").expect("a string takes all");
    }
    Some((got, complaints))
}

/// The first steps of the child. It ends with its parent or after some time, writes no core, and
/// sends its output to `output`.
fn retreat(output: &File) {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let file = output.as_raw_fd();
    // SAFETY: plain system calls about this process.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::alarm(20);
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::dup2(file, libc::STDOUT_FILENO);
        libc::dup2(file, libc::STDERR_FILENO);
    }
}

/// Empties a file and gives what was in it.
fn take(mut file: &File) -> String {
    let length = file.metadata().expect("a size").len();
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0).expect("read back");
    if length != 0 {
        file.set_len(0).expect("truncated");
        file.seek(SeekFrom::Start(0)).expect("rewound");
        file.flush().expect("flushed");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
