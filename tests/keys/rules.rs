//! The token of the device's own keys under unusual conditions: another TPM, a folder that is
//! read-only or full of foreign files, many objects, many writers.

use cryptoki_sys::*;
use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use testkit::fork::Forked;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{loaded, ulong};
use testkit::openssl::certificate_der;
use testkit::own::{NO, Own, P256, P256_KEY, YES, folder, generate, outside, slot_of};
use testkit::programs::thread_time;
use testkit::proxy::Proxy;
use testkit::raw::{Code, Item};
use testkit::tpm::Swtpm;

over_our_transport!(
    another_tpm_is_not_taken_for_ours,
    a_child_goes_on,
    two_writers_at_once,
    a_folder_whose_files_nobody_may_touch,
    a_certificate_makes_a_public_certificates_token,
    ten_thousand_objects,
    an_old_handle_is_no_other_object,
);

fn home(tpm: &Swtpm, link: Link) -> Home {
    Home::new(&link.tcti(&tpm.tcti()))
}

/// Keys of another TPM are listed, and neither used nor papered over with new ones.
fn another_tpm_is_not_taken_for_ours(link: Link) {
    let (first, second) = (Swtpm::blank(), Swtpm::blank());
    let home = home(&first, link);
    let own = Own::new(&home);
    own.pair("one");
    own.raw.finalize().unwrap();
    let before = home;
    let home = self::home(&second, link);
    fs::rename(before.path("state/devid"), home.path("state/devid")).unwrap();
    let own = Own::new(&home);
    let files = folder(&home);
    let key = own.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))])[0];
    let foreign = Err(Code(CKR_TOKEN_NOT_RECOGNIZED));
    assert_eq!(own.sign(CKM_ECDSA, key, &[1; 32]), foreign);
    let token = [(CKA_TOKEN, YES.to_vec()), (CKA_EC_PARAMS, P256.to_vec())];
    let made = own.generate(CKM_EC_KEY_PAIR_GEN, &token, &token[..1]);
    assert_eq!(made, Err(Code(CKR_TOKEN_NOT_RECOGNIZED)));
    home.log_says(&["cleared or exchanged"]);
    assert_eq!(folder(&home), files);
}

/// A child of fork goes on with the parent's sessions and keys, and the parent with its own.
fn a_child_goes_on(link: Link) {
    let tpm = Swtpm::blank();
    let home = home(&tpm, link);
    let own = Own::new(&home);
    let (_, key) = own.pair("parent's");
    let curve = [(CKA_EC_PARAMS, P256.to_vec())];
    let brief = own.generate(CKM_EC_KEY_PAIR_GEN, &curve, &[]).unwrap().1;
    for key in [key, brief] {
        own.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    }
    Forked::new(|| {
        for key in [key, brief] {
            own.sign(CKM_ECDSA, key, &[1; 32]).expect("a signature");
        }
        own.pair("child's");
        assert_eq!(own.labelled("child's").len(), 2);
    })
    .succeeds();
    assert_eq!(own.labelled("child's").len(), 2);
    for key in [key, brief] {
        own.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    }
    assert_eq!(tpm.transients(), 0);
}

fn two_writers_at_once(link: Link) {
    const EACH: usize = 15;
    let tpm = Swtpm::blank();
    let home = home(&tpm, link);
    // Not before the fork, so that each has a life of its own.
    let raw = loaded(&home);
    let write = |name: &str| {
        raw.initialize().expect("C_Initialize");
        let slot = slot_of(&raw, "devid");
        let session = raw.open(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION);
        let session = session.expect("C_OpenSession");
        for n in 0..EACH {
            let label = (CKA_LABEL, format!("{name}-{n}").into_bytes());
            let both = [(CKA_TOKEN, YES.to_vec()), label.clone()];
            let public = [&both[..], &[(CKA_EC_PARAMS, P256.to_vec())]].concat();
            let made = generate(&raw, session, CKM_EC_KEY_PAIR_GEN, &public, &both);
            let (_, key) = made.expect("C_GenerateKeyPair");
            let found = raw.find(session, &[label]).expect("a search");
            assert!(found.contains(&key), "what is made is found at once");
            raw.sign_init(session, CKM_ECDSA, key).expect("C_SignInit");
            raw.sign(session, &[1; 32]).expect("a signature");
        }
        raw.finalize().expect("C_Finalize");
    };
    let writers = ["one", "two", "three"].map(|name| Forked::new(|| write(name)));
    writers.into_iter().for_each(Forked::succeeds);
    assert_eq!(folder(&home).len(), 3 * EACH);
    let own = Own::new(&home);
    let keys = own.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
    assert_eq!(keys.len(), 3 * EACH);
    let ids: HashSet<_> = keys.iter().map(|key| own.attribute(*key, CKA_ID)).collect();
    assert_eq!(ids.len(), 3 * EACH);
}

/// Root may write anywhere; the immutable and the read-only mount are for the folder's own tests.
fn a_folder_whose_files_nobody_may_touch(link: Link) {
    let tpm = Swtpm::blank();
    let home = home(&tpm, link);
    let own = Own::new(&home);
    let (_, key) = own.pair("one");
    // Other users may write there, so any of them may have made the files.
    let state = home.path("state/devid");
    fs::set_permissions(&state, Permissions::from_mode(0o777)).unwrap();
    let token = [(CKA_TOKEN, YES.to_vec()), (CKA_EC_PARAMS, P256.to_vec())];
    let made = own.generate(CKM_EC_KEY_PAIR_GEN, &token, &token[..1]);
    assert_eq!(made, Err(Code(CKR_DEVICE_ERROR)));
    assert_eq!(own.destroy(key), Err(Code(CKR_DEVICE_ERROR)));
    fs::set_permissions(&state, Permissions::from_mode(0o750)).unwrap();
    assert_eq!(own.destroy(key), Ok(()));
}

/// Profiles are claimed for what is really there.
fn a_certificate_makes_a_public_certificates_token(link: Link) {
    let tpm = Swtpm::blank();
    let home = home(&tpm, link);
    let own = Own::new(&home);
    let claims = || -> Vec<Vec<u8>> {
        let profiles = own.find(&[(CKA_CLASS, ulong(CKO_PROFILE))]);
        let id = |profile: &CK_ULONG| own.attribute(*profile, CKA_PROFILE_ID);
        profiles.iter().map(id).collect()
    };
    let always = [CKP_BASELINE_PROVIDER, CKP_EXTENDED_PROVIDER].map(ulong);
    assert_eq!(claims(), always);
    own.pair("one");
    assert_eq!(claims(), always);
    let rsa = [(CKA_TOKEN, YES.to_vec()), (CKA_MODULUS_BITS, ulong(2048))];
    own.generate(CKM_RSA_PKCS_KEY_PAIR_GEN, &rsa, &rsa[..1])
        .unwrap();
    let signs = [&always[..], &[ulong(CKP_AUTHENTICATION_TOKEN)]].concat();
    assert_eq!(claims(), signs);
    // A certificate counts once there is a key of the same CKA_ID.
    outside(&home, "other", &P256_KEY);
    let certificate = own.create(&[
        (CKA_CLASS, ulong(CKO_CERTIFICATE)),
        (CKA_CERTIFICATE_TYPE, ulong(CKC_X_509)),
        (CKA_TOKEN, YES.to_vec()),
        (CKA_VALUE, certificate_der(&home.path("other.pem"))),
    ]);
    assert_eq!(claims(), signs);
    let id = own.attribute(own.labelled("one")[0], CKA_ID);
    own.change(certificate.unwrap(), &[(CKA_ID, id)]).unwrap();
    let all = [&signs[..], &[ulong(CKP_PUBLIC_CERTIFICATES_TOKEN)]].concat();
    assert_eq!(claims(), all);
}

/// One change among many objects costs as much as writing one file.
fn ten_thousand_objects(link: Link) {
    const MANY: usize = 10_000;
    let tpm = Swtpm::blank();
    let home = home(&tpm, link);
    let own = Own::new(&home);
    let data = |label: &str| -> Vec<Item> {
        vec![
            (CKA_CLASS, ulong(CKO_DATA)),
            (CKA_TOKEN, YES.to_vec()),
            (CKA_LABEL, label.into()),
            (CKA_VALUE, vec![7; 40]),
        ]
    };
    let first = own.create(&data("0")).unwrap();
    let sample = fs::read_to_string(&folder(&home)[0]).unwrap();
    for n in 1..MANY {
        let text = sample.replacen("\"0\"", &format!("\"{n}\""), 1);
        fs::write(home.path(&format!("state/devid/data-{n:016x}.pem")), text).unwrap();
    }
    let all = [(CKA_CLASS, ulong(CKO_DATA))];
    assert_eq!(own.find(&all).len(), MANY);
    let begin = thread_time();
    let last = own.create(&data("last")).unwrap();
    own.change(last, &[(CKA_LABEL, b"renamed".to_vec())])
        .unwrap();
    assert_eq!(own.labelled("renamed"), [last]);
    own.destroy(last).unwrap();
    let took = thread_time() - begin;
    assert!(took < Duration::from_secs(8), "{took:?}");
    // Each by its handle, and each handle is still the same.
    let found = own.find(&all);
    assert_eq!(found.len(), MANY);
    assert!(found.contains(&first));
    let begin = thread_time();
    for object in &found {
        own.attribute(*object, CKA_LABEL);
    }
    let took = thread_time() - begin;
    assert!(took < Duration::from_secs(4), "{took:?} for {MANY} objects");
}

/// A file that comes under the name of another is another object.
fn an_old_handle_is_no_other_object(link: Link) {
    let tpm = Swtpm::blank();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(&link.tcti(&proxy.tcti()));
    let own = Own::new(&home);
    let (_, one) = own.pair("one");
    own.pair("two");
    let files = folder(&home);
    let named = |label: &str| {
        let mut files = files.iter();
        let has = |file: &&std::path::PathBuf| fs::read_to_string(file).unwrap().contains(label);
        files.find(has).unwrap()
    };
    fs::copy(named("two"), named("one")).unwrap();
    assert_eq!(own.labelled("one"), []);
    assert_eq!(own.labelled("two").len(), 4);
    let stale = own.raw.attribute(own.session, one, CKA_LABEL);
    assert_eq!(stale, Err(Code(CKR_OBJECT_HANDLE_INVALID)));
    for key in own.labelled("two") {
        assert_eq!(own.attribute(key, CKA_TOKEN), YES);
        assert_ne!(own.attribute(key, CKA_LOCAL), NO);
    }
}
