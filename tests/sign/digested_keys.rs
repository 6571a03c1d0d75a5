//! Secret keys in digests, the traces of a digest in memory, and the effects of a fork and a
//! logout.

use cryptoki_sys::*;
use std::io::Read;
use std::{fs, hint, ptr};
use testkit::ciphers::{Bench, ecdh, mechanism, openssl_agrees, peer, readable};
use testkit::digests::{DIGESTS, bytes};
use testkit::fork::Forked;
use testkit::link::Link;
use testkit::memory::{Host, places};
use testkit::module::ulong;
use testkit::openssl;
use testkit::own::{NO, Own, P256, YES, create, without_tpm};
use testkit::pins;
use testkit::programs::output;
use testkit::raw::{Code, Item};

over_our_transport!(
    an_agreed_key_is_digested,
    a_logout_ends_the_digest_of_a_private_key,
);
once!(
    which_keys_are_digested,
    keys_and_data_in_any_order,
    parent_and_child_go_on_by_themselves,
    a_key_is_wiped_with_its_digest,
    long_data_takes_no_memory,
);

const ENDED: Code = Code(CKR_OPERATION_NOT_INITIALIZED);

/// A secret key of a session.
fn secret(value: &[u8], extractable: &[u8], more: &[Item]) -> Vec<Item> {
    let all = [
        (CKA_CLASS, ulong(CKO_SECRET_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_GENERIC_SECRET)),
        (CKA_VALUE, value.to_vec()),
        (CKA_EXTRACTABLE, extractable.to_vec()),
    ];
    [&all, more].concat()
}

fn an_agreed_key_is_digested(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    let (raw, session) = (&own.raw, own.session);
    let (public, key) = own.agreeing(&P256, &[]);
    let (file, point) = peer(&bench.home);
    let agreed = openssl_agrees(&bench.home, &file, &own.pem(&bench.home, public));
    let parameter = ecdh(CKD_NULL, &[], &point);
    let by = mechanism(CKM_ECDH1_DERIVE, Some(&parameter));
    let made = own.derive(by, key, &readable()).unwrap();
    let hidden = own.derive(by, key, &[]).unwrap();
    bench.proxy.book().take();
    for (mechanism, name, _) in DIGESTS {
        raw.digest_init(session, mechanism).unwrap();
        raw.digest_key(session, made).unwrap();
        let right = openssl::digest(name, &agreed);
        assert_eq!(raw.digest_final(session), Ok(right), "{name}");
        raw.digest_init(session, mechanism).unwrap();
        let refused = raw.digest_key(session, hidden);
        assert_eq!(refused, Err(Code(CKR_KEY_INDIGESTIBLE)));
        assert_eq!(raw.digest_final(session), Err(ENDED));
    }
    assert_eq!(bench.proxy.book().take().total(), 0);
}

fn which_keys_are_digested() {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    let (raw, session) = (&own.raw, own.session);
    let value = bytes(20);
    let only = |kinds: &[CK_MECHANISM_TYPE]| {
        let kinds = kinds.iter().flat_map(|kind| kind.to_ne_bytes());
        (CKA_ALLOWED_MECHANISMS, kinds.collect::<Vec<u8>>())
    };
    let sensitive = |flag: &[u8]| (CKA_SENSITIVE, flag.to_vec());
    for (extractable, more, may) in [
        (YES, vec![sensitive(NO)], true),
        // The key is extractable, although no call here wraps it.
        (YES, vec![sensitive(YES)], true),
        (YES, vec![only(&[CKM_SHA_1, CKM_SHA256])], true),
        (YES, vec![only(&[CKM_SHA_1, CKM_AES_KEY_WRAP])], false),
        (NO, vec![sensitive(NO)], false),
        (NO, vec![sensitive(YES)], false),
    ] {
        let key = own.create(&secret(&value, extractable, &more)).unwrap();
        raw.digest_init(session, CKM_SHA256).unwrap();
        let digested = raw.digest_key(session, key);
        match may {
            true => {
                let right = openssl::digest("-sha256", &value);
                assert_eq!(digested, Ok(()), "{more:x?}");
                assert_eq!(raw.digest_final(session), Ok(right), "{more:x?}");
            }
            false => {
                let refused = Err(Code(CKR_KEY_INDIGESTIBLE));
                assert_eq!(digested, refused, "{more:x?}");
                assert_eq!(raw.digest_final(session), Err(ENDED));
            }
        }
        let allowed = own.attribute(key, CKA_ALLOWED_MECHANISMS);
        let sha256 = CKM_SHA256.to_ne_bytes();
        let said = allowed.chunks(sha256.len()).any(|kind| kind == sha256);
        assert_eq!(said, may, "CKA_ALLOWED_MECHANISMS, {more:x?}");
    }
    // Key pairs, an object that is not a key, and a missing object.
    let (public, private) = own.pair("pair");
    let gone = own.create(&secret(&value, YES, &[])).unwrap();
    own.destroy(gone).unwrap();
    let data = [(CKA_CLASS, ulong(CKO_DATA)), (CKA_VALUE, b"data".to_vec())];
    let data = own.create(&data).unwrap();
    for (object, code) in [
        (public, CKR_KEY_INDIGESTIBLE),
        (private, CKR_KEY_INDIGESTIBLE),
        (data, CKR_KEY_HANDLE_INVALID),
        (gone, CKR_KEY_HANDLE_INVALID),
        (0, CKR_KEY_HANDLE_INVALID),
        (CK_ULONG::MAX, CKR_KEY_HANDLE_INVALID),
    ] {
        raw.digest_init(session, CKM_SHA256).unwrap();
        assert_eq!(raw.digest_key(session, object), Err(Code(code)));
        assert_eq!(raw.digest_final(session), Err(ENDED));
    }
}

fn keys_and_data_in_any_order() {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    let (raw, session) = (&own.raw, own.session);
    let (short, long) = (bytes(7), bytes(1024));
    let keys = [&short, &long].map(|value| own.create(&secret(value, YES, &[])).unwrap());
    raw.digest_init(session, CKM_SHA512).unwrap();
    raw.digest_key(session, keys[0]).unwrap();
    raw.digest_update(session, b"between").unwrap();
    raw.digest_key(session, keys[1]).unwrap();
    raw.digest_key(session, keys[0]).unwrap();
    // Nor does a state show a part of a key.
    let state = raw.operation_state(session);
    assert_eq!(state, Err(Code(CKR_STATE_UNSAVEABLE)));
    // The key may go: its value is in the digest.
    for key in keys {
        own.destroy(key).unwrap();
    }
    raw.digest_update(session, b"").unwrap();
    let all = [&short[..], b"between", &long, &short].concat();
    let right = openssl::digest("-sha512", &all);
    assert_eq!(raw.digest_final(session), Ok(right));
    // A single part comes after no key.
    let key = own.create(&secret(&short, YES, &[])).unwrap();
    raw.digest_init(session, CKM_SHA512).unwrap();
    raw.digest_key(session, key).unwrap();
    let whole = raw.digest(session, b"whole");
    assert_eq!(whole, Err(Code(CKR_OPERATION_ACTIVE)));
}

fn parent_and_child_go_on_by_themselves() {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    let (raw, session) = (&own.raw, own.session);
    let (begun, of_parent, of_child) = (bytes(100), b"of the parent", b"of the child");
    raw.digest_init(session, CKM_SHA256).unwrap();
    raw.digest_update(session, &begun).unwrap();
    Forked::new(|| {
        raw.digest_update(session, of_child).unwrap();
        let right = openssl::digest("-sha256", &[&begun[..], of_child].concat());
        assert_eq!(raw.digest_final(session), Ok(right));
        raw.digests_as_openssl(session, &begun);
    })
    .succeeds();
    raw.digest_update(session, of_parent).unwrap();
    let right = openssl::digest("-sha256", &[&begun[..], of_parent].concat());
    assert_eq!(raw.digest_final(session), Ok(right));
    // C_Initialize in a child begins with nothing.
    raw.digest_init(session, CKM_SHA256).unwrap();
    Forked::new(|| {
        raw.initialize().unwrap();
        let gone = raw.digest_update(session, b"x");
        assert_eq!(gone, Err(Code(CKR_SESSION_HANDLE_INVALID)));
    })
    .succeeds();
    raw.digest(session, b"abc").unwrap();
}

/// A digest without private key continues. The standard does not define the fate of operations.
fn a_logout_ends_the_digest_of_a_private_key(link: Link) {
    let (_bench, token) = pins::Bench::with_pins(link);
    let raw = &token.raw;
    let session = token.read_write();
    let public = token.read_only();
    token.login(session, pins::USER).unwrap();
    for (private, session) in [(YES, session), (NO, public)] {
        let flag = [(CKA_PRIVATE, private.to_vec())];
        let key = create(raw, session, &secret(b"value", YES, &flag)).unwrap();
        raw.digest_init(session, CKM_SHA256).unwrap();
        raw.digest_key(session, key).unwrap();
    }
    raw.logout(session).unwrap();
    assert_eq!(raw.digest_final(session), Err(ENDED));
    let right = openssl::digest("-sha256", b"value");
    assert_eq!(raw.digest_final(public), Ok(right));
}

/// How a digest ends.
const ENDS: [&str; 7] = [
    "C_DigestFinal",
    "an error",
    "C_DigestInit without a mechanism",
    "C_SessionCancel",
    "C_CloseSession",
    "C_CloseAllSessions",
    "C_Finalize",
];

/// The host is a forked child whose memory is searched from outside.
fn a_key_is_wiped_with_its_digest() {
    let home = without_tpm();
    let values = ENDS
        .iter()
        .enumerate()
        .map(|(n, _)| home.path(&format!("value-{n}")));
    let values: Vec<_> = values.collect();
    let mut host = Host::new(|wait| {
        for (how, value) in ENDS.iter().zip(&values) {
            let own = Own::on(&home, "files");
            let (raw, session) = (&own.raw, own.session);
            let mut template = secret(&[0; 32], YES, &[]);
            wait(); // for the value
            let mut file = fs::File::open(value).unwrap();
            let room = template.iter_mut().find(|(kind, _)| *kind == CKA_VALUE);
            file.read_exact(&mut room.unwrap().1).unwrap();
            let key = own.create(&template).unwrap();
            template.iter_mut().for_each(|(_, value)| wipe(value));
            raw.digest_init(session, CKM_SHA256).unwrap();
            raw.digest_key(session, key).unwrap();
            own.destroy(key).unwrap();
            wait(); // with the value in the digest alone
            match *how {
                "C_DigestFinal" => drop(raw.digest_final(session).unwrap()),
                "an error" => assert!(raw.digest_key(session, 4711).is_err()),
                "C_DigestInit without a mechanism" => raw.digest_cancel(session).unwrap(),
                "C_SessionCancel" => {
                    let v3 = raw.interface(Some((3, 0))).unwrap();
                    let v3: *const CK_FUNCTION_LIST_3_0 = v3.cast();
                    // SAFETY: the table of version 3.0 lives as long as the module.
                    let v3 = unsafe { &*v3 };
                    call!(v3, C_SessionCancel(session, CKF_DIGEST))
                        .result()
                        .unwrap();
                }
                "C_CloseSession" => raw.close(session).unwrap(),
                "C_CloseAllSessions" => {
                    call!(raw.table, C_CloseAllSessions(own.slot))
                        .result()
                        .unwrap();
                }
                _ => {}
            }
            if *how == "C_Finalize" {
                raw.finalize().unwrap();
                wait();
            } else {
                wait();
                raw.finalize().unwrap();
            }
        }
    });
    host.waits();
    for (how, file) in ENDS.iter().zip(&values) {
        let value = output("openssl", ["rand", "32"]);
        fs::write(file, &value).unwrap();
        host.goes_on();
        assert!(!places(host.id(), &value).is_empty(), "the search sees");
        host.goes_on();
        assert_eq!(places(host.id(), &value), [], "after {how}");
        if *how != ENDS[ENDS.len() - 1] {
            host.goes_on();
        }
    }
    host.ends();
}

/// So that no copy of the test's own is found.
fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    hint::black_box(bytes);
}

/// The data reads as zero without being anywhere, so that all new memory is the module's.
fn long_data_takes_no_memory() {
    const LENGTH: usize = (1 << 26) + 100;
    let home = without_tpm();
    let own = Own::on(&home, "files");
    let (raw, session) = (&own.raw, own.session);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: maps new memory, which is never unmapped.
    let zeros = unsafe {
        let zeros = libc::mmap(ptr::null_mut(), LENGTH, libc::PROT_READ, flags, -1, 0);
        assert_ne!(zeros, libc::MAP_FAILED);
        std::slice::from_raw_parts(zeros.cast::<u8>(), LENGTH)
    };
    raw.digests_as_openssl(session, b"what is loaded for the first digest");
    let before = peak();
    raw.digest_init(session, CKM_SHA_1).unwrap();
    let whole = raw.digest(session, zeros).unwrap();
    raw.digest_init(session, CKM_SHA_1).unwrap();
    for part in zeros.chunks(1 << 20) {
        raw.digest_update(session, part).unwrap();
    }
    let parts = raw.digest_final(session).unwrap();
    let more = peak() - before;
    assert!(more < 1 << 10, "{more} KiB more");
    let right = "f7d652b75597b87adc554959c99b481b75ea7e7e";
    assert_eq!([whole, parts].map(|made| pins::hex(&made)), [right; 2]);
}

/// The most memory that this process had, in KiB.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}
