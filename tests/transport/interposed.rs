//! An attacker between module and TPM who shows another key, guesses a short value from a
//! recording, replays an answer, or cuts the connection.

use cryptoki_sys::*;
use sha2::{Digest, Sha256};
use std::fs;
use testkit::devid::{Bench, FIRST, Inspection, Kind, MASTER, Own, SRK, persistent};
use testkit::interposer::{Impostor, after_sized, hmac, number_at, signs, sized, wraps};
use testkit::link::Link;
use testkit::module::ulong;
use testkit::pins::{OFFICER, Token};
use testkit::programs::run;
use testkit::proxy::Interposer;
use testkit::proxy::command::{
    CREATE, CREATE_PRIMARY, EVICT_CONTROL, READ_PUBLIC, SIGN, START_AUTH_SESSION,
};
use testkit::raw::Code;

over_our_transport!(
    another_key_in_the_place_of_a_new_one,
    another_key_in_the_place_of_the_master_key,
    nothing_of_a_short_owner_auth_can_be_guessed,
    a_key_that_the_tpm_was_told_of,
    an_old_public_area_after_the_first_master_key_was_made,
    an_old_public_area_before_the_first_master_key_is_made,
    a_connection_that_ends_after_a_key_got_its_handle,
    devid_certifies_no_other_key,
    an_altered_signature_is_given_out_only_if_nobody_asks,
    a_session_with_other_attributes_is_no_answer,
);

/// After a failed creation the token shows and holds no object.
#[track_caller]
fn nothing_was_made(bench: &Bench, own: &Own, made: Result<testkit::devid::Pair, Code>) {
    assert_eq!(made, Err(Code(CKR_DEVICE_ERROR)));
    assert!(own.keys().is_empty(), "a key is shown");
    let files: Vec<_> = testkit::own::folder(&bench.home);
    assert!(files.is_empty(), "{files:?}");
    assert!(
        !persistent(&bench.tpm).contains(&FIRST),
        "a handle is taken"
    );
}

fn another_key_in_the_place_of_a_new_one(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let book = bench.proxy.book();
    for persist in [false, true] {
        book.interpose(Impostor::new(signs).between());
        let made = match persist {
            true => own.make_persistent(Kind::P256, "key"),
            false => own.make(Kind::P256, "key"),
        };
        nothing_was_made(&bench, &own, made);
        book.interpose(None);
    }
    assert_eq!(bench.tpm.transients(), 0);
    own.signs(own.make_persistent(Kind::P256, "key").unwrap().private);
}

fn another_key_in_the_place_of_the_master_key(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let book = bench.proxy.book();
    // The storage root key is genuine: its answers come before.
    bench.make_root();
    book.interpose(Impostor::new(wraps).between());
    let made = own.make(Kind::P256, "key");
    nothing_was_made(&bench, &own, made);
    assert!(!bench.folder().join(".master").exists());
    assert!(!persistent(&bench.tpm).contains(&MASTER));
    book.interpose(None);
    own.signs(own.make(Kind::P256, "key").unwrap().private);
}

/// An owner's value of four digits, and whoever recorded everything on the bus.
fn nothing_of_a_short_owner_auth_can_be_guessed(link: Link) {
    let bench = Bench::new(link);
    const VALUE: &str = "4711";
    bench.set_owner(VALUE);
    bench.proxy.book().keep();
    let own = Own::new(&bench.home);
    own.signs(own.make_persistent(Kind::P256, "key").unwrap().private);
    let wire = bench.proxy.book().wire();
    let proofs = Proof::all(&wire);
    assert!(proofs.len() >= 4, "{} proofs", proofs.len());
    for proof in &proofs {
        let mut guesses = (0..10_000).map(|guess| format!("{guess:04}"));
        let found = guesses.find(|guess| proof.is_by(guess.as_bytes()));
        assert_eq!(found, None, "guessed from {:#x}", proof.code);
        assert!(proof.is_salted, "{:#x} is proven without salt", proof.code);
    }
    let of_owner = proofs.iter().filter(|proof| proof.code == CREATE_PRIMARY);
    assert!(of_owner.count() > 0);
    assert_eq!(bench.tpm.transients(), 0);
}

/// A command that proves a value in an HMAC auth session, as a recording has it.
struct Proof {
    code: u32,
    is_salted: bool,
    /// The input of the HMAC, without the digest of the command.
    nonces: Vec<u8>,
    attributes: u8,
    hmac: Vec<u8>,
    /// Digests of the command for each name that its first handle may have.
    command: Vec<u8>,
}

impl Proof {
    /// The proofs of commands whose only handle is the owner hierarchy.
    fn all(wire: &[Vec<u8>]) -> Vec<Proof> {
        let (mut sessions, mut proofs) = (Vec::new(), Vec::new());
        for pair in wire.chunks(2) {
            let (command, answer) = (&pair[0], &pair[1]);
            let code = number_at(command, 6);
            if code == START_AUTH_SESSION && number_at(answer, 6) == 0 {
                let is_salted = !sized(after_sized(&command[18..])).is_empty();
                let nonce = sized(&answer[14..]).to_vec();
                sessions.push((number_at(answer, 10), is_salted, nonce));
            }
            let handles = match code {
                CREATE_PRIMARY => 1,
                EVICT_CONTROL => 2,
                _ => continue,
            };
            const OWNER: u32 = 0x4000_0001;
            if number_at(command, 10) != OWNER {
                continue;
            }
            let at = 10 + 4 * handles;
            let session = number_at(command, at + 4);
            let known = sessions
                .iter()
                .rev()
                .find(|(handle, ..)| *handle == session);
            let (_, is_salted, nonce_tpm) = known.expect("no value is shown as a password");
            let authorisation = &command[at + 8..];
            let rest = after_sized(authorisation);
            let parameters = after_sized(&rest[1..]);
            // The owner's name is its handle; an object's is not needed for CreatePrimary.
            let command = Sha256::new()
                .chain_update(&command[6..14])
                .chain_update(parameters)
                .finalize();
            proofs.push(Proof {
                code,
                is_salted: *is_salted,
                nonces: [sized(authorisation), nonce_tpm].concat(),
                attributes: rest[0],
                hmac: sized(&rest[1..]).to_vec(),
                command: command.to_vec(),
            });
        }
        proofs
    }

    fn is_by(&self, value: &[u8]) -> bool {
        let parts = [&self.command[..], &self.nonces, &[self.attributes]];
        hmac(value, &parts) == self.hmac
    }
}

/// Answers TPM2_ReadPublic of the master key's handle with an old answer, once `code` was answered
/// so many times.
fn replaying(old: Vec<u8>, code: u32, times: usize) -> Option<Interposer> {
    let mut seen = 0;
    Some(Box::new(move |command, execute| {
        let answer = execute(command);
        seen += usize::from(number_at(command, 6) == code);
        let asks = number_at(command, 6) == READ_PUBLIC && number_at(command, 10) == MASTER;
        match asks && seen >= times {
            true => old.clone(),
            false => answer,
        }
    }))
}

/// The answer of TPM2_ReadPublic about a master key that no longer exists.
fn old_answer(bench: &Bench) -> Vec<u8> {
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "old").unwrap();
    bench.proxy.book().keep();
    let mut read = testkit::tpm::tool("tpm2_readpublic", &bench.proxy.tcti());
    run(read.args(["-c", &format!("{MASTER:#x}")])).ok();
    let wire = bench.proxy.book().wire();
    let is_it = |pair: &&[Vec<u8>]| number_at(&pair[0], 6) == READ_PUBLIC;
    let old = wire.chunks(2).find(is_it).unwrap()[1].clone();
    own.raw.finalize().unwrap();
    let mut evict = bench.tpm.tool("tpm2_evictcontrol");
    run(evict.args(["-C", "o", "-c", &format!("{MASTER:#x}")])).ok();
    fs::remove_dir_all(bench.folder()).unwrap();
    old
}

fn token(bench: &Bench) -> Token {
    let raw = testkit::module::loaded(&bench.home);
    raw.initialize().unwrap();
    let slot = testkit::own::slot_of(&raw, "devid");
    Token { raw, slot }
}

/// A storage key in the handle of the master key is adopted only if the TPM has its private half.
fn a_key_that_the_tpm_was_told_of(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "first").unwrap();
    let area = bench.area_at(MASTER);
    for file in fs::read_dir(bench.folder()).unwrap() {
        let path = file.unwrap().path();
        if !path.ends_with(".storage-root") {
            fs::remove_file(path).unwrap();
        }
    }
    let own = own.anew();
    let book = bench.proxy.book();
    let impostor = Impostor::new(|_| false).knowing(&area);
    book.interpose(impostor.told_to_the_tpm(MASTER));
    let refused = own.make(Kind::P256, "second");
    assert_eq!(refused, Err(Code(CKR_DEVICE_ERROR)));
    assert!(!bench.folder().join(".master").exists());
    assert_eq!(bench.tpm.transients(), 0);
    book.interpose(None);
    own.signs(own.make(Kind::P256, "third").unwrap().private);
}

fn an_old_public_area_after_the_first_master_key_was_made(link: Link) {
    let bench = Bench::new(link);
    let old = old_answer(&bench);
    bench
        .proxy
        .book()
        .interpose(replaying(old, EVICT_CONTROL, 1));
    let token = token(&bench);
    token.init(OFFICER, "label").unwrap();
    bench.proxy.book().interpose(None);
    let session = token.read_write();
    token.officer(session, OFFICER).unwrap();
}

fn an_old_public_area_before_the_first_master_key_is_made(link: Link) {
    let bench = Bench::new(link);
    let old = old_answer(&bench);
    bench.proxy.book().interpose(replaying(old, READ_PUBLIC, 0));
    let token = token(&bench);
    assert_eq!(token.init(OFFICER, "label"), Err(Code(CKR_DEVICE_ERROR)));
    let before = Inspection::of(&bench.folder());
    assert!(!bench.folder().join(".master").exists(), "{}", before.len());
    bench.proxy.book().interpose(None);
    token.init(OFFICER, "label").unwrap();
    let session = token.read_write();
    token.officer(session, OFFICER).unwrap();
}

/// For each key that gets a handle: the root key, the master key, a key of the device's own.
fn a_connection_that_ends_after_a_key_got_its_handle(link: Link) {
    for nth in 1..=3 {
        let bench = Bench::new(link);
        let own = Own::new(&bench.home);
        let mut seen = 0;
        bench
            .proxy
            .book()
            .interpose(Some(Box::new(move |command, execute| {
                let answer = execute(command);
                seen += usize::from(number_at(command, 6) == EVICT_CONTROL);
                match seen == nth && number_at(command, 6) == EVICT_CONTROL {
                    true => Vec::new(),
                    false => answer,
                }
            })));
        let made = own.make_persistent(Kind::P256, "key");
        bench.proxy.book().interpose(None);
        let made = made.unwrap_or_else(|code| panic!("handle {nth}: {code:?}"));
        own.signs(made.private);
        assert_eq!(persistent(&bench.tpm), [SRK, MASTER, FIRST]);
        own.raw.finalize().unwrap();
    }
}

/// `devid provision`, `devid key generate` and the request of either: none is over another key.
fn devid_certifies_no_other_key(link: Link) {
    let bench = Bench::new(link);
    let request = bench.home.path("request.pem");
    let devid = |words: &[&str]| {
        let mut command = std::process::Command::new(testkit::module::tool());
        run(bench
            .home
            .settle(command.args(words).stdin(std::process::Stdio::null())))
    };
    let book = bench.proxy.book();
    let certify = [
        "provision",
        "--wait",
        "0",
        "--csr",
        request.to_str().unwrap(),
    ];
    for words in [&certify[..], &["key", "generate", "service"]] {
        book.interpose(Impostor::new(signs).between());
        let said = devid(words);
        assert!(!said.status.success(), "{said}");
        assert!(!request.exists());
        let files = testkit::own::folder(&bench.home);
        assert!(files.is_empty(), "{files:?}");
        book.interpose(None);
    }
    devid(&certify).ok();
    assert!(request.exists());
}

/// Flips a bit of each ECDSA signature that the TPM makes.
fn altering() -> Option<Interposer> {
    Some(Box::new(|command, execute| {
        let mut answer = execute(command);
        if number_at(command, 6) == SIGN && number_at(&answer, 6) == 0 {
            answer[30] ^= 1;
        }
        answer
    }))
}

fn an_altered_signature_is_given_out_only_if_nobody_asks(link: Link) {
    for verifies in [false, true] {
        let (tpm, _identity) = testkit::tpm::Swtpm::manufactured();
        let proxy = testkit::proxy::Proxy::new(&tpm);
        let home = testkit::home::Home::new(&link.tcti(&proxy.tcti()));
        home.write("config.toml", format!("verify_signatures = {verifies}\n"));
        let module = testkit::module::Opened::new(&home);
        let key = module
            .raw
            .find(module.session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
        let key = key.unwrap()[0];
        let sign = || module.sign(CKM_ECDSA, key, &[7; 32]);
        let sound = sign().unwrap();
        proxy.book().take();
        sign().unwrap();
        assert_eq!(
            proxy.book().take().total(),
            1,
            "a steady signature costs the same"
        );
        proxy.book().interpose(altering());
        match verifies {
            false => assert_eq!(sign().map(|signature| signature.len()), Ok(sound.len())),
            true => assert_eq!(sign(), Err(Code(CKR_DEVICE_ERROR))),
        }
        proxy.book().interpose(None);
        module.raw.finalize().unwrap();
    }
}

/// The attacker cannot change the attributes of a session.
fn a_session_with_other_attributes_is_no_answer(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "first").unwrap();
    bench
        .proxy
        .book()
        .interpose(Some(Box::new(|command, execute| {
            let mut answer = execute(command);
            if number_at(command, 6) == CREATE && number_at(&answer, 6) == 0 {
                let at = answer.len() - 32 - 2 - 1;
                answer[at] ^= 1;
            }
            answer
        })));
    assert_eq!(own.make(Kind::P256, "key"), Err(Code(CKR_DEVICE_ERROR)));
    bench.proxy.book().interpose(None);
    own.signs(own.make(Kind::P256, "key").unwrap().private);
}
