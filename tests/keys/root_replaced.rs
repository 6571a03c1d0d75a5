//! The storage root key was replaced, is missing, or is hidden: calls that still work, calls that
//! are refused, and the record of the key.

use cryptoki_sys::*;
use std::fs;
use testkit::ciphers::{ecdh, mechanism, readable};
use testkit::devid::{Bench, FIRST, Kind, MASTER, Own, PERSISTENT, SRK, persistent, yes};
use testkit::interposer::number_at;
use testkit::link::Link;
use testkit::own::P256;
use testkit::pins::{OFFICER, Token};
use testkit::proxy::Interposer;
use testkit::proxy::command::{CREATE_PRIMARY, EVICT_CONTROL, READ_PUBLIC, START_AUTH_SESSION};
use testkit::raw::Code;

over_our_transport!(
    a_key_in_a_handle_is_destroyed_though_the_root_is_another,
    a_token_is_initialised_anew_though_the_root_is_another,
    a_token_is_as_it_was_if_its_keys_cannot_be_evicted,
    a_key_agrees_though_the_root_is_another,
    the_root_is_remembered_while_a_key_is_destroyed,
    a_hidden_root_gets_no_value,
    the_root_is_remembered_when_a_master_key_is_adopted,
);

const OWNER: &str = "s3cret";
/// The handle of the key that reads the salt, in TPM2_StartAuthSession.
const SALT_KEY: usize = 10;

fn a_key_in_a_handle_is_destroyed_though_the_root_is_another(link: Link) {
    for is_missing in [false, true] {
        let bench = Bench::new(link);
        bench.set_owner(OWNER);
        let own = Own::new(&bench.home);
        own.signs(own.make_persistent(Kind::P256, "key").unwrap().private);
        let own = own.anew();
        match is_missing {
            false => bench.replace_root(OWNER),
            true => bench.evict(SRK, OWNER),
        }
        own.destroy(own.key_called("key")).unwrap();
        assert!(!persistent(&bench.tpm).contains(&FIRST), "{is_missing}");
        let kept = own.make_persistent(Kind::P256, "next").unwrap();
        own.signs(kept.private);
        own.raw.finalize().unwrap();
    }
}

/// A token with an officer, a key in a handle, and a certificate.
fn token(bench: &Bench) -> Token {
    bench.set_owner(OWNER);
    let Own(opened) = Own::new(&bench.home);
    let token = Token {
        raw: opened.raw,
        slot: opened.slot,
    };
    token.raw.close(opened.session).unwrap();
    token.become_one_with_pins();
    let session = token.read_write();
    token.login(session, testkit::pins::USER).unwrap();
    token.pair(session, "key", &[yes(PERSISTENT)]);
    testkit::tls::server_identity(&bench.home);
    let own = Own(testkit::module::Opened {
        raw: token.raw,
        slot: token.slot,
        session,
    });
    let der = testkit::openssl::certificate_der(&bench.home.path("server.pem"));
    own.create(&[
        (CKA_CLASS, testkit::module::ulong(CKO_CERTIFICATE)),
        (CKA_CERTIFICATE_TYPE, testkit::module::ulong(CKC_X_509)),
        yes(CKA_TOKEN),
        (CKA_VALUE, der),
    ])
    .unwrap();
    let Own(opened) = own;
    opened.raw.close(session).unwrap();
    opened.raw.finalize().unwrap();
    opened.raw.initialize().unwrap();
    Token {
        raw: opened.raw,
        slot: opened.slot,
    }
}

fn a_token_is_initialised_anew_though_the_root_is_another(link: Link) {
    let bench = Bench::new(link);
    let token = token(&bench);
    bench.replace_root(OWNER);
    token.init(OFFICER, "label").unwrap();
    assert!(!persistent(&bench.tpm).contains(&FIRST));
    let officer = bench.folder().join(".officer.pem");
    assert_eq!(testkit::own::folder(&bench.home), [officer]);
}

/// The owner's value cannot be read any more.
fn a_token_is_as_it_was_if_its_keys_cannot_be_evicted(link: Link) {
    let bench = Bench::new(link);
    let token = token(&bench);
    let before = testkit::own::folder(&bench.home);
    fs::remove_file(bench.home.path("owner")).unwrap();
    assert!(token.init(OFFICER, "label").is_err());
    assert_eq!(testkit::own::folder(&bench.home), before);
    assert!(persistent(&bench.tpm).contains(&FIRST));
}

fn a_key_agrees_though_the_root_is_another(link: Link) {
    for is_missing in [false, true] {
        let bench = Bench::new(link);
        let own = Own::new(&bench.home);
        own.agreeing(&P256, &[]);
        let own = own.anew();
        match is_missing {
            false => bench.replace_root(""),
            true => bench.evict(SRK, ""),
        }
        let (_, key) = {
            let keys = own.keys();
            (keys.len(), keys[0])
        };
        let peer = own.make(Kind::P256, "peer").unwrap();
        let point = own.attribute(peer.public, CKA_EC_POINT)[2..].to_vec();
        let parameter = ecdh(CKD_NULL, &[], &point);
        let by = mechanism(CKM_ECDH1_DERIVE, Some(&parameter));
        own.derive(by, key, &readable()).unwrap();
        own.raw.finalize().unwrap();
    }
}

/// The folder is locked while the key is evicted, and the record is in that folder.
fn the_root_is_remembered_while_a_key_is_destroyed(link: Link) {
    let bench = Bench::new(link);
    bench.set_owner(OWNER);
    let own = Own::new(&bench.home);
    own.make_persistent(Kind::P256, "key").unwrap();
    let record = bench.folder().join(".storage-root");
    let before = fs::read(&record).unwrap();
    let own = own.anew();
    fs::remove_file(&record).unwrap();
    own.destroy(own.key_called("key")).unwrap();
    assert!(!persistent(&bench.tpm).contains(&FIRST));
    assert_eq!(fs::read(&record).unwrap(), before);
    assert!(!bench.home.log().contains("locked"));
}

/// Says that neither the storage root key nor an endorsement key is there.
fn hiding() -> Option<Interposer> {
    Some(Box::new(|command, execute| {
        let hides = [SRK, 0x8101_0001, 0x8101_0002];
        let asks = number_at(command, 6) == READ_PUBLIC;
        match asks && hides.contains(&number_at(command, 10)) {
            true => vec![0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x8B],
            false => execute(command),
        }
    }))
}

fn a_hidden_root_gets_no_value(link: Link) {
    let bench = Bench::new(link);
    bench.set_owner(OWNER);
    let own = Own::new(&bench.home);
    own.make_persistent(Kind::P256, "key").unwrap();
    let own = own.anew();
    // With the master key: its name is known.
    let book = bench.proxy.book();
    book.interpose(hiding());
    book.keep();
    own.destroy(own.key_called("key")).unwrap();
    let wire = book.wire();
    let sessions = wire
        .iter()
        .filter(|packet| number_at(packet, 6) == START_AUTH_SESSION);
    let salt_keys: Vec<_> = sessions.map(|packet| number_at(packet, SALT_KEY)).collect();
    assert_eq!(salt_keys, [MASTER]);
    assert!(wire.iter().any(|one| number_at(one, 6) == EVICT_CONTROL));
    // Without: nothing is proven to whoever shows a key of his own.
    bench.evict(MASTER, OWNER);
    let record = bench.folder().join(".storage-root");
    for file in fs::read_dir(bench.folder()).unwrap() {
        let path = file.unwrap().path();
        if path != record {
            fs::remove_file(path).unwrap();
        }
    }
    let own = own.anew();
    book.keep();
    let refused = own.make(Kind::P256, "second");
    assert_eq!(refused, Err(Code(CKR_TOKEN_NOT_RECOGNIZED)));
    let wire = book.wire();
    for code in [START_AUTH_SESSION, CREATE_PRIMARY] {
        assert!(
            !wire.iter().any(|one| number_at(one, 6) == code),
            "{code:#x}"
        );
    }
    bench.home.log_says(&["0x81000001", "is empty", "mv -T"]);
    book.interpose(None);
    own.signs(own.make(Kind::P256, "third").unwrap().private);
}

fn the_root_is_remembered_when_a_master_key_is_adopted(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "first").unwrap();
    fs::remove_dir_all(bench.folder()).unwrap();
    let own = own.anew();
    own.signs(own.make(Kind::P256, "second").unwrap().private);
    assert!(bench.folder().join(".master").exists());
    assert!(bench.folder().join(".storage-root").exists());
}
