//! C_CreateObject, C_SetAttributeValue and C_DestroyObject on the token of the device's own keys. A
//! change is visible at once in this process, and at the next search in other processes.

use cryptoki_sys::*;
use std::fs;
use testkit::devid::Bench;
use testkit::link::Link;
use testkit::module::ulong;
use testkit::own::{NO, Own, P256, P256_KEY, YES, ec_public, folder, outside};
use testkit::proxy::command;
use testkit::raw::{Code, Item};

over_our_transport!(
    data_and_public_keys,
    attributes_change_all_or_none,
    what_others_do_is_seen_at_the_next_search,
    a_pair_goes_half_by_half,
    a_folder_that_cannot_be_written,
    listing_costs_no_command,
);

fn data(label: &str) -> Vec<Item> {
    vec![
        (CKA_CLASS, ulong(CKO_DATA)),
        (CKA_TOKEN, YES.to_vec()),
        (CKA_LABEL, label.into()),
        (CKA_APPLICATION, b"a test".to_vec()),
        (CKA_OBJECT_ID, vec![0x06, 0x03, 0x55, 0x04, 0x03]),
        (CKA_VALUE, vec![0, 1, 2, 255]),
    ]
}

fn data_and_public_keys(link: Link) {
    let bench = Bench::new(link);
    outside(&bench.home, "other", &P256_KEY);
    let own = Own::new(&bench.home);
    let object = own.create(&data("some")).unwrap();
    for (kind, value) in data("some") {
        assert_eq!(own.attribute(object, kind), value, "{kind:#x}");
    }
    let mut size: CK_ULONG = 0;
    let asked = call!(
        own.raw.table,
        C_GetObjectSize(own.session, object, &raw mut size)
    );
    assert_eq!(asked, Code(CKR_OK));
    assert!((20..4000).contains(&size), "{size}");

    let public = [
        &ec_public(&bench.home.path("other.pub"))[..],
        &[(CKA_TOKEN, YES.to_vec())],
    ]
    .concat();
    let public = own.create(&public).unwrap();
    assert_eq!(own.attribute(public, CKA_LOCAL), NO);
    assert_eq!(own.attribute(public, CKA_VERIFY), YES);
    assert_eq!(
        bench.proxy.book().take().of(command::CREATE),
        0,
        "no key is made for these"
    );
    assert_eq!(folder(&bench.home).len(), 2);
    for object in [object, public] {
        assert_eq!(own.destroy(object), Ok(()));
        assert_eq!(own.destroy(object), Err(Code(CKR_OBJECT_HANDLE_INVALID)));
    }
    assert_eq!(folder(&bench.home).len(), 0);
}

fn attributes_change_all_or_none(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let (public, key) = own.pair("before");
    let template: [Item; 5] = [
        (CKA_LABEL, b"after".to_vec()),
        (CKA_ID, b"\x01".to_vec()),
        (CKA_SUBJECT, b"\x30\x00".to_vec()),
        (CKA_END_DATE, b"20991231".to_vec()),
        (CKA_SENSITIVE, YES.to_vec()),
    ];
    own.change(key, &template).unwrap();
    for (kind, value) in &template {
        assert_eq!(own.attribute(key, *kind), *value);
    }
    assert_eq!(own.attribute(public, CKA_LABEL), b"before");
    assert_eq!(own.labelled("after"), [key]);
    // Uses are given up and not had again.
    own.change(key, &[(CKA_SIGN, YES.to_vec())]).unwrap();
    own.change(key, &[(CKA_SIGN, NO.to_vec())]).unwrap();
    let refused = own.sign(CKM_ECDSA_SHA256, key, b"data");
    assert_eq!(refused, Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED)));

    let files: Vec<_> = folder(&bench.home)
        .iter()
        .map(|file| fs::read(file).unwrap())
        .collect();
    for (item, code) in [
        ((CKA_SIGN, YES.to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_SENSITIVE, NO.to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_EXTRACTABLE, YES.to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_TOKEN, NO.to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_CLASS, ulong(CKO_DATA)), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_LOCAL, NO.to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_UNIQUE_ID, b"x".to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_EC_PARAMS, P256.to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_MODULUS, vec![1]), CKR_ATTRIBUTE_TYPE_INVALID),
        ((CKA_START_DATE, vec![1]), CKR_ATTRIBUTE_VALUE_INVALID),
        (
            (CKA_LABEL, b"two labels".to_vec()),
            CKR_TEMPLATE_INCONSISTENT,
        ),
    ] {
        let template = [(CKA_LABEL, b"half a change".to_vec()), item];
        assert_eq!(own.change(key, &template), Err(Code(code)));
        assert_eq!(own.attribute(key, CKA_LABEL), b"after");
    }
    let after: Vec<_> = folder(&bench.home)
        .iter()
        .map(|file| fs::read(file).unwrap())
        .collect();
    assert_eq!(after, files);

    // Session objects behave in this way too.
    let curve = [(CKA_EC_PARAMS, P256.to_vec())];
    let (public, key) = own.generate(CKM_EC_KEY_PAIR_GEN, &curve, &[]).unwrap();
    own.change(key, &[(CKA_LABEL, b"brief".to_vec())]).unwrap();
    assert_eq!(own.labelled("brief"), [key]);
    let refused = own.change(
        public,
        &[(CKA_LABEL, b"x".to_vec()), (CKA_LOCAL, NO.to_vec())],
    );
    assert_eq!(refused, Err(Code(CKR_ATTRIBUTE_READ_ONLY)));
    assert_eq!(own.attribute(public, CKA_LABEL), b"");
}

fn what_others_do_is_seen_at_the_next_search(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let (public, key) = own.pair("first");
    let reader = own.raw.open(own.slot, CKF_SERIAL_SESSION).unwrap();
    let sees = |label: &str| own.raw.find(reader, &[(CKA_LABEL, label.into())]).unwrap();
    for n in 0..5 {
        let label = format!("other-{n}");
        let made = [
            "--keypairgen",
            "--key-type",
            "EC:prime256v1",
            "--label",
            &label,
            "--id",
        ];
        let id = format!("0{n}");
        bench.pkcs11_tool(&[&made[..], &[&id]].concat());
        let found = sees(&label);
        assert_eq!(found.len(), 2);
        assert_eq!(sees("first"), [key, public].as_slice(), "handles stay");
        bench.pkcs11_tool(&["--delete-object", "--type", "privkey", "--label", &label]);
        assert_eq!(sees(&label).len(), 1);
        let gone = found.iter().filter(|one| {
            let asked = own.raw.attribute(reader, **one, CKA_LABEL);
            asked == Err(Code(CKR_OBJECT_HANDLE_INVALID))
        });
        assert_eq!(gone.count(), 1);
    }
    // An object that another process destroyed is missing.
    let object = own.create(&data("theirs")).unwrap();
    for file in folder(&bench.home) {
        if fs::read_to_string(&file).unwrap().contains("theirs") {
            fs::remove_file(file).unwrap();
        }
    }
    let late = own.change(object, &[(CKA_LABEL, b"mine".to_vec())]);
    assert_eq!(late, Err(Code(CKR_OBJECT_HANDLE_INVALID)));
    assert_eq!(own.destroy(object), Err(Code(CKR_OBJECT_HANDLE_INVALID)));
    assert_eq!(sees("theirs"), []);
}

fn a_pair_goes_half_by_half(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let (public, key) = own.pair("one");
    assert_eq!(own.destroy(public), Ok(()));
    assert_eq!(own.labelled("one"), [key]);
    assert!(own.sign(CKM_ECDSA, key, &[1; 32]).is_ok());
    assert_eq!(own.destroy(key), Ok(()));
    assert_eq!(folder(&bench.home).len(), 0);
    let (public, key) = own.pair("two");
    assert_eq!(own.destroy(key), Ok(()));
    assert_eq!(own.labelled("two").len(), 1);
    let gone = own.raw.attribute(own.session, key, CKA_LABEL);
    assert_eq!(gone, Err(Code(CKR_OBJECT_HANDLE_INVALID)));
    for public in own.labelled("two") {
        assert_eq!(own.destroy(public), Ok(()));
    }
    assert!(own.raw.attribute(own.session, public, CKA_LABEL).is_err());
    assert_eq!(folder(&bench.home).len(), 0);
}

/// A full disk, or a folder that is not a folder: no change is half done, and the code tells the
/// reason.
fn a_folder_that_cannot_be_written(link: Link) {
    let bench = Bench::new(link);
    bench
        .home
        .write("state/devid", b"a file where the folder is to be");
    let raw = testkit::module::loaded(&bench.home);
    raw.initialize().unwrap();
    let tokens = raw.slots(true).unwrap();
    assert_eq!(tokens, [], "neither an identity nor a folder");
    bench.home.log_says(&["devid"]);
}

fn listing_costs_no_command(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    for n in 0..20 {
        own.pair(&format!("key-{n}"));
    }
    bench.proxy.book().take();
    own.raw.finalize().unwrap();
    own.raw.initialize().unwrap();
    let session = own.raw.open(own.slot, CKF_SERIAL_SESSION).unwrap();
    let keys = [(CKA_CLASS, ulong(CKO_PRIVATE_KEY))];
    assert_eq!(own.raw.find(session, &keys).unwrap().len(), 20);
    assert_eq!(bench.proxy.book().take().total(), 0);
}
