//! Somebody between module and TPM who shows a key of his own, guesses a short value from what he
//! recorded, replays an answer, or cuts the connection.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[macro_use]
mod common;

use common::devid::{Bench, FIRST, Inspection, Kind, MASTER, Own, SRK, persistent};
use common::interposer::{Impostor, after_sized, hmac, number_at, signs, sized, wraps};
use common::link::Link;
use common::pins::{OFFICER, Token};
use common::programs::run;
use common::proxy::Interposer;
use common::proxy::command::{CREATE_PRIMARY, EVICT_CONTROL, READ_PUBLIC, START_AUTH_SESSION};
use common::raw::Code;
use cryptoki_sys::*;
use sha2::{Digest, Sha256};
use std::fs;

over_our_transport!(
    another_key_in_the_place_of_a_new_one,
    another_key_in_the_place_of_the_master_key,
    nothing_of_a_short_owner_auth_can_be_guessed,
    an_old_public_area_after_the_first_master_key_was_made,
    an_old_public_area_before_the_first_master_key_is_made,
    a_connection_that_ends_after_a_key_got_its_handle,
);

/// What the token shows and holds after a creation that failed: nothing.
#[track_caller]
fn nothing_was_made(bench: &Bench, own: &Own, made: Result<common::devid::Pair, Code>) {
    assert_eq!(made, Err(Code(CKR_DEVICE_ERROR)));
    assert!(own.keys().is_empty(), "a key is shown");
    let files: Vec<_> = common::own::folder(&bench.home);
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
    make_root(&bench);
    book.interpose(Impostor::new(wraps).between());
    let made = own.make(Kind::P256, "key");
    nothing_was_made(&bench, &own, made);
    assert!(!bench.folder().join(".master").exists());
    assert!(!persistent(&bench.tpm).contains(&MASTER));
    book.interpose(None);
    own.signs(own.make(Kind::P256, "key").unwrap().private);
}

/// The storage root key at its handle, by tpm2-tools.
fn make_root(bench: &Bench) {
    let context = bench.home.path("root.ctx");
    let mut create = bench.tpm.tool("tpm2_createprimary");
    run(create
        .args([
            "-C",
            "o",
            "-G",
            "ecc256:null:aes128cfb",
            "-g",
            "sha256",
            "-a",
        ])
        .arg("fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt")
        .arg("-c")
        .arg(&context))
    .ok();
    let mut keep = bench.tpm.tool("tpm2_evictcontrol");
    keep.args(["-C", "o", "-c"]).arg(&context);
    run(keep.arg(format!("{SRK:#x}"))).ok();
    run(bench.tpm.tool("tpm2_flushcontext").arg("-t")).ok();
}

/// An owner's value of four digits, and whoever recorded everything on the bus.
fn nothing_of_a_short_owner_auth_can_be_guessed(link: Link) {
    let bench = Bench::new(link);
    const VALUE: &str = "4711";
    run(bench.tpm.tool("tpm2_changeauth").args(["-c", "o", VALUE])).ok();
    bench.home.write("owner", VALUE);
    let file = bench.home.path("owner");
    let settings = format!("[master]\nowner_auth = \"file:{}\"\n", file.display());
    bench.home.write("config.toml", settings);
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
    /// What the HMAC is over, but the digest of the command.
    nonces: Vec<u8>,
    attributes: u8,
    hmac: Vec<u8>,
    /// Digests of the command for each name that its first handle may have.
    command: Vec<u8>,
}

impl Proof {
    /// Those of commands whose one handle is the owner hierarchy.
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

/// What TPM2_ReadPublic answered of a master key that is there no more.
fn old_answer(bench: &Bench) -> Vec<u8> {
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "old").unwrap();
    bench.proxy.book().keep();
    let mut read = common::tpm::tool("tpm2_readpublic", &bench.proxy.tcti());
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
    let raw = common::module::loaded(&bench.home);
    raw.initialize().unwrap();
    let slot = common::own::slot_of(&raw, "devid");
    Token { raw, slot }
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
