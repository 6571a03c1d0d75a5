//! Attacks on secret keys: altered and swapped files, threads, forks, and events that end a current
//! operation.

use cryptoki_sys::*;
use std::fs;
use std::path::PathBuf;
use testkit::ciphers::{Bench, gcm, mechanism};
use testkit::devid::Kind;
use testkit::fork::Forked;
use testkit::link::Link;
use testkit::module::ulong;
use testkit::own::{NO, Own, YES, folder, generate_key};
use testkit::pins;
use testkit::raw::{Code, Item, Raw};

over_our_transport!(
    files_that_were_altered_or_exchanged,
    the_file_of_another_device,
    threads_that_share_a_key,
    a_fork_between_the_parts,
    what_ends_an_operation,
    no_plaintext_before_the_tag,
);

const IV: [u8; 16] = [4; 16];
const OVER: Code = Code(CKR_OPERATION_NOT_INITIALIZED);

fn label(label: &str) -> Item {
    (CKA_LABEL, label.into())
}

fn cbc() -> CK_MECHANISM {
    mechanism(CKM_AES_CBC_PAD, Some(&IV))
}

fn init(raw: &Raw, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> Result<(), Code> {
    let mut by = cbc();
    call!(raw.table, C_EncryptInit(session, &raw mut by, key)).result()
}

fn update(raw: &Raw, session: CK_SESSION_HANDLE, part: &[u8]) -> Result<Vec<u8>, Code> {
    let mut room = vec![0; part.len() + 16];
    let (at, count) = (part.as_ptr().cast_mut(), part.len() as CK_ULONG);
    let (out, mut length) = (room.as_mut_ptr(), room.len() as CK_ULONG);
    let table = raw.table;
    call!(
        table,
        C_EncryptUpdate(session, at, count, out, &raw mut length)
    )
    .result()?;
    room.truncate(length as usize);
    Ok(room)
}

fn last(raw: &Raw, session: CK_SESSION_HANDLE) -> Result<Vec<u8>, Code> {
    let mut room = vec![0; 16];
    let (out, mut length) = (room.as_mut_ptr(), 16);
    call!(raw.table, C_EncryptFinal(session, out, &raw mut length)).result()?;
    room.truncate(length as usize);
    Ok(room)
}

/// The file of the key with this label, and its text.
fn file_of(files: &[PathBuf], label: &str) -> (PathBuf, String) {
    let line = format!("Label: {label}\n");
    let mut read = files
        .iter()
        .map(|file| (file.clone(), fs::read_to_string(file).unwrap()));
    read.find(|(_, text)| text.contains(&line))
        .expect("a file with this label")
}

/// The PEM block of this kind, from its first line to its last.
fn block<'a>(text: &'a str, kind: &str) -> &'a str {
    let (begin, end) = (
        format!("-----BEGIN {kind}-----"),
        format!("-----END {kind}-----\n"),
    );
    let from = text.find(&begin).unwrap();
    let to = text.find(&end).unwrap() + end.len();
    &text[from..to]
}

const SEAL: &str = "TSS2 PRIVATE KEY";
const SECRET: &str = "DEVID SECRET KEY";

/// Whoever can write to the folder can make a key useless, and nothing else.
fn files_that_were_altered_or_exchanged(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    for name in ["one", "other", "sound"] {
        own.aes_key(&[(CKA_TOKEN, YES.to_vec()), label(name)]);
    }
    own.generic_secret(&[(CKA_TOKEN, YES.to_vec()), label("generic")]);
    let files = folder(&bench.home);
    let [(file, text), (_, other), (_, generic)] =
        ["one", "other", "generic"].map(|name| file_of(&files, name));
    let with = |kind, of: &str| text.replace(block(&text, kind), block(of, kind));
    let flipped = |kind| {
        let inside = block(&text, kind);
        let (at, was) = inside.char_indices().nth(inside.len() / 2).unwrap();
        let now = if was == 'A' { "B" } else { "A" };
        text.replace(inside, &[&inside[..at], now, &inside[at + 1..]].concat())
    };
    let mut altered = vec![
        with(SECRET, &other),
        with(SEAL, &other),
        with(SECRET, &generic),
        flipped(SECRET),
        flipped(SEAL),
        text.replace("Key-Type: aes", "Key-Type: generic-secret"),
        text.replace("Key-Type: aes", "Key-Type: des"),
        text.replace("Key-Type: aes\n", ""),
        text.replace(block(&text, SECRET), ""),
        text.replace(block(&text, SEAL), ""),
        text.clone() + block(&other, SECRET),
        [block(&text, SECRET), block(&text, SEAL)].concat(),
    ];
    altered.extend(
        (0..text.len())
            .step_by(97)
            .map(|end| text[..end].to_owned()),
    );
    for altered in altered {
        fs::write(&file, &altered).unwrap();
        bench.proxy.book().take();
        for key in own.labelled("one") {
            for (begun, what) in [
                (own.encrypt_init(cbc(), key), "C_EncryptInit"),
                (own.decrypt_init(cbc(), key), "C_DecryptInit"),
                (
                    own.raw.sign_init(own.session, CKM_SHA256_HMAC, key),
                    "C_SignInit",
                ),
            ] {
                let code = begun.expect_err("an altered key");
                assert!(
                    [
                        CKR_KEY_TYPE_INCONSISTENT,
                        CKR_KEY_FUNCTION_NOT_PERMITTED,
                        CKR_DEVICE_ERROR
                    ]
                    .contains(&code.0),
                    "{what}: {code:?}\n{altered}"
                );
            }
        }
        let sound = own.labelled("sound")[0];
        assert!(own.encrypt(cbc(), sound, b"data").is_ok());
    }
    fs::write(&file, &text).unwrap();
    let again = own.labelled("one")[0];
    assert!(own.encrypt(cbc(), again, b"data").is_ok());
    assert_eq!(bench.tpm.lockout_counter(), 0);
    let name = file.file_name().unwrap().to_str().unwrap();
    bench.home.log_says(&[name, "its file was changed"]);
}

/// A copied disk opens nothing: the seal is for the TPM that made it.
fn the_file_of_another_device(link: Link) {
    let one = testkit::devid::Bench::new(link);
    Forked::new(|| {
        let own = Own::new(&one.home);
        own.aes_key(&[(CKA_TOKEN, YES.to_vec()), label("copied")]);
    })
    .succeeds();
    let file = folder(&one.home).remove(0);
    let name = file.file_name().unwrap().to_owned();
    let other = testkit::devid::Bench::new(link);
    let elsewhere = testkit::devid::Own::new(&other.home);
    elsewhere.make(Kind::P256, "of this device").unwrap();
    fs::copy(&file, other.folder().join(&name)).unwrap();
    let template = [(CKA_CLASS, ulong(CKO_SECRET_KEY))];
    let (raw, session) = (&elsewhere.raw, elsewhere.session);
    let copied = raw.find(session, &template).unwrap()[0];
    let refused = init(raw, session, copied);
    assert_eq!(refused, Err(Code(CKR_DEVICE_ERROR)));
    let name = name.to_str().unwrap();
    other.home.log_says(&[name]);
    assert_eq!(other.tpm.lockout_counter(), 0);
}

/// Two threads, each with a session of its own, and one key that a login opened.
fn threads_that_share_a_key(link: Link) {
    let (_bench, token) = pins::Bench::with_pins(link);
    let session = token.read_write();
    token.login(session, pins::USER).unwrap();
    let template = [(CKA_TOKEN, YES.to_vec()), (CKA_VALUE_LEN, ulong(32))];
    let key = generate_key(&token.raw, session, CKM_AES_KEY_GEN, &template).unwrap();
    let data = vec![7; 1000];
    let encrypted = |session| {
        init(&token.raw, session, key).unwrap();
        let mut all = Vec::new();
        for part in data.chunks(33) {
            all.extend(update(&token.raw, session, part).unwrap());
        }
        all.extend(last(&token.raw, session).unwrap());
        all
    };
    let expected = encrypted(session);
    std::thread::scope(|scope| {
        let begun: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let session = token.read_only();
                    (0..20).all(|_| encrypted(session) == expected)
                })
            })
            .collect();
        assert!(begun.into_iter().all(|thread| thread.join().unwrap()));
    });
    // Two threads in one session. One of them gets an error, because there is already an operation
    // or none.
    std::thread::scope(|scope| {
        let begun: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let codes = [
                            init(&token.raw, session, key).err(),
                            update(&token.raw, session, b"data").err(),
                            last(&token.raw, session).err(),
                        ];
                        let fine = [Code(CKR_OPERATION_ACTIVE), OVER];
                        assert!(
                            codes.iter().flatten().all(|code| fine.contains(code)),
                            "{codes:?}"
                        );
                    }
                })
            })
            .collect();
        begun.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let _ = last(&token.raw, session);
    assert_eq!(encrypted(session), expected);
}

/// Each of the two ends it for itself.
fn a_fork_between_the_parts(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let key = own.aes_key(&[(CKA_TOKEN, YES.to_vec())]);
    let hmac = own.generic_secret(&[(CKA_TOKEN, YES.to_vec())]);
    let (raw, session) = (&own.raw, own.session);
    let expected = own.encrypt(cbc(), key, &[7; 40]).unwrap();
    raw.sign_init(session, CKM_SHA256_HMAC, hmac).unwrap();
    let code = raw.sign(session, &[7; 40]).unwrap();
    for starts_over in [false, true] {
        init(raw, session, key).unwrap();
        raw.sign_init(session, CKM_SHA256_HMAC, hmac).unwrap();
        raw.sign_update(session, &[7; 20]).unwrap();
        let begin = update(raw, session, &[7; 20]).unwrap();
        let goes_on = || {
            let rest = [
                update(raw, session, &[7; 20]).unwrap(),
                last(raw, session).unwrap(),
            ];
            assert_eq!([&begin[..], &rest.concat()].concat(), expected);
            raw.sign_update(session, &[7; 20]).unwrap();
            assert_eq!(raw.sign_final(session).unwrap(), code);
        };
        let child = Forked::new(|| {
            if starts_over {
                raw.initialize().unwrap();
                let gone = update(raw, session, &[7; 20]);
                assert_eq!(gone, Err(Code(CKR_SESSION_HANDLE_INVALID)));
            } else {
                goes_on();
                let again = own.encrypt(cbc(), key, &[7; 40]).unwrap();
                assert_eq!(again, expected);
            }
        });
        child.succeeds();
        goes_on();
    }
}

fn what_ends_an_operation(link: Link) {
    let (_bench, token) = pins::Bench::with_pins(link);
    let raw = &token.raw;
    let session = token.read_write();
    token.login(session, pins::USER).unwrap();
    let made = |more: &[Item]| {
        let template = [&[(CKA_VALUE_LEN, ulong(32))], more].concat();
        generate_key(raw, session, CKM_AES_KEY_GEN, &template).unwrap()
    };
    // A logout ends the handles of what is private, too.
    let kept = [(CKA_TOKEN, YES.to_vec()), label("kept")];
    made(&kept);
    let on_token = || raw.find(session, &kept).unwrap()[0];
    let open = made(&[(CKA_TOKEN, YES.to_vec()), (CKA_PRIVATE, NO.to_vec())]);
    // A logout ends what is done with private keys, and nothing else.
    for (key, stays) in [(Some(on_token()), false), (None, false), (Some(open), true)] {
        let key = key.unwrap_or_else(|| made(&[]));
        init(raw, session, key).unwrap();
        update(raw, session, b"data").unwrap();
        raw.logout(session).unwrap();
        let after = update(raw, session, b"data");
        assert_eq!(after.is_ok(), stays, "{after:?}");
        if !stays {
            assert_eq!(after, Err(OVER));
        }
        let _ = last(raw, session);
        token.login(session, pins::USER).unwrap();
    }
    // The key of an operation that is destroyed: the operation ends, or goes on. The key is gone.
    let key = made(&[(CKA_TOKEN, YES.to_vec())]);
    init(raw, session, key).unwrap();
    update(raw, session, b"data").unwrap();
    call!(raw.table, C_DestroyObject(session, key))
        .result()
        .unwrap();
    let _ = update(raw, session, b"data");
    let _ = last(raw, session);
    assert_eq!(init(raw, session, key), Err(Code(CKR_KEY_HANDLE_INVALID)));
    let key = on_token();
    // A session that another thread closes amid the parts.
    for _ in 0..20 {
        let closed = token.read_only();
        init(raw, closed, key).unwrap();
        std::thread::scope(|scope| {
            let parts = scope.spawn(|| {
                loop {
                    if let Err(code) = update(raw, closed, &[7; 100]) {
                        break code;
                    }
                }
            });
            raw.close(closed).unwrap();
            let code = parts.join().unwrap();
            assert!(
                [CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED].contains(&code.0),
                "{code:?}"
            );
        });
    }
    assert!(init(raw, session, key).is_ok());
    raw.finalize().unwrap();
    assert_eq!(
        update(raw, session, b"data"),
        Err(Code(CKR_CRYPTOKI_NOT_INITIALIZED))
    );
}

fn no_plaintext_before_the_tag(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let key = own.aes_key(&[]);
    let (table, session) = (own.raw.table, own.session);
    let parameter = gcm(&IV[..12], b"about", 128);
    let by = mechanism(CKM_AES_GCM, Some(&parameter));
    let hidden = own.encrypt(by, key, &[7; 100]).unwrap();
    for wrong in [None, Some(0), Some(99), Some(100), Some(115_usize)] {
        let mut given = hidden.clone();
        if let Some(at) = wrong {
            given[at] ^= 1;
        }
        own.decrypt_init(by, key).unwrap();
        let mut room = [0xEE_u8; 200];
        let out = room.as_mut_ptr();
        for part in given.chunks(30) {
            let (at, count) = (part.as_ptr().cast_mut(), part.len() as CK_ULONG);
            let mut length = 200;
            let code = call!(
                table,
                C_DecryptUpdate(session, at, count, out, &raw mut length)
            );
            assert_eq!((code, length), (Code(CKR_OK), 0));
        }
        let mut length = 200;
        let code = call!(table, C_DecryptFinal(session, out, &raw mut length));
        if wrong.is_none() {
            assert_eq!((code, length), (Code(CKR_OK), 100));
            assert_eq!(room[..100], [7; 100]);
            continue;
        }
        assert_eq!(code, Code(CKR_ENCRYPTED_DATA_INVALID));
        assert_eq!(room, [0xEE; 200], "nothing was written");
        assert_eq!(
            own.decrypt(by, key, &given),
            Err(Code(CKR_ENCRYPTED_DATA_INVALID))
        );
    }
}
