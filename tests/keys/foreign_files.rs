//! Key files of other programs whose keys are not ordinary signing keys. The log has a reason for
//! each unusable key. An unusable key affects no other key, and costs no counted try.

use cryptoki_sys::*;
use testkit::devid::{Kind, MASTER, SRK};
use testkit::foreign::{BOUND, DECRYPTS, Wrapped, allowed, begun, drop_in, put_primary};
use testkit::link::Link;
use testkit::openssl::element;
use testkit::own::NO;
use testkit::raw::Code;

over_our_transport!(
    keys_that_cannot_be_used_say_why,
    a_parent_that_counts_wrong_values_is_not_tried,
    a_key_of_one_scheme_takes_no_mechanism_from_the_others,
);

fn a_key_of_one_scheme_takes_no_mechanism_from_the_others(link: Link) {
    let (bench, own) = begun(link);
    own.make(Kind::Rsa(2048), "rsa of ours").unwrap();
    let before = own.raw.mechanisms(own.slot).unwrap();
    let signs = format!("{BOUND}|sign");
    let words = [
        "-C",
        "0x81000001",
        "-G",
        "rsa2048:rsassa-sha256:null",
        "-a",
        &signs,
    ];
    drop_in(
        &bench,
        "one-scheme",
        Wrapped::create(&bench, &words).loadable(SRK),
    );
    let key = own.key_called("one-scheme");
    own.signs(key);
    assert_eq!(allowed(&own, key), [CKM_RSA_PKCS, CKM_SHA256_RSA_PKCS]);
    assert_eq!(own.raw.mechanisms(own.slot).unwrap(), before);
}

/// PolicyPCR (TPM_CC 0x17F) with some parameter, as the draft's section 3.1 has it.
fn policy_member() -> Vec<u8> {
    let code = element(0xA0, &element(2, &[0x01, 0x7F]));
    let parameter = element(0xA1, &element(4, &[0; 10]));
    let command = element(0x30, &[code, parameter].concat());
    element(0xA1, &element(0x30, &command))
}

fn keys_that_cannot_be_used_say_why(link: Link) {
    let (bench, own) = begun(link);
    let srk = "0x81000001";
    let create = |words: &[&str]| Wrapped::create(&bench, words);
    let plain = create(&["-C", srk, "-G", "ecc256"]);
    let rsa = create(&["-C", srk, "-G", "rsa2048"]);
    // Parents of all kinds; wrong values for these do not count.
    let storage = format!("{BOUND}|restricted|decrypt");
    put_primary(
        &bench,
        0x8100_0010,
        &[
            "-C",
            "o",
            "-G",
            "ecc256:aes128cfb",
            "-a",
            &storage,
            "-p",
            "secret",
        ],
    );
    put_primary(
        &bench,
        0x8100_0011,
        &[
            "-C",
            "o",
            "-G",
            "ecc256:ecdsa",
            "-a",
            &format!("{BOUND}|sign"),
        ],
    );
    let below_closed = create(&["-C", "0x81000010", "-P", "secret", "-G", "ecc256"]);
    let policy = bench.home.write("policy", [7; 32]);
    let no_auth = "fixedtpm|fixedparent|sensitivedataorigin|noda|sign";
    let bound = create(&[
        "-C",
        srk,
        "-G",
        "ecc256",
        "-a",
        no_auth,
        "-L",
        policy.to_str().unwrap(),
    ]);
    let restricted = create(&[
        "-C",
        srk,
        "-G",
        "ecc256:ecdsa-sha256:null",
        "-a",
        &format!("{BOUND}|restricted|sign"),
    ]);
    let restricted_rsa = create(&[
        "-C",
        srk,
        "-G",
        "rsa2048:rsassa-sha256:null",
        "-a",
        &format!("{BOUND}|restricted|sign"),
    ]);
    let storage_key = create(&["-C", srk, "-G", "rsa2048:aes128cfb", "-a", &storage]);
    bench.home.write("sealed", "secret");
    let sealed = create(&["-C", srk, "-i", bench.home.path("sealed").to_str().unwrap()]);

    let before = own.raw.mechanisms(own.slot).unwrap();
    let secret = element(0xA2, &element(4, &[7; 40]));
    for (stem, file, words) in [
        ("importable", plain.file(4, SRK, &[secret]), "importable"),
        ("policy", plain.file(3, SRK, &[policy_member()]), "policy"),
        ("needs-policy", bound.loadable(SRK), "policy"),
        (
            "endorsement",
            rsa.loadable(0x4000_000B),
            "endorsement hierarchy",
        ),
        ("platform", rsa.loadable(0x4000_000C), "platform hierarchy"),
        ("null", rsa.loadable(0x4000_0007), "null hierarchy"),
        ("transient", plain.loadable(0x8000_0001), "transient handle"),
        (
            "absent",
            rsa.loadable(0x8100_00AA),
            "parent is missing: handle 0x810000AA",
        ),
        ("wrong", rsa.loadable(MASTER), "another key than its parent"),
        (
            "closed",
            below_closed.loadable(0x8100_0010),
            "parent asks for a password",
        ),
        (
            "no-parent",
            plain.loadable(0x8100_0011),
            "contains no storage key",
        ),
        ("restricted", restricted.loadable(SRK), "restricted"),
        ("restricted-rsa", restricted_rsa.loadable(SRK), "restricted"),
        ("storage", storage_key.loadable(SRK), "storage key"),
    ] {
        drop_in(&bench, stem, file);
        let key = own.key_called(stem);
        let kind = own.attribute(key, CKA_KEY_TYPE);
        let mechanism = match kind == testkit::module::ulong(CKK_EC) {
            true => CKM_ECDSA,
            false => CKM_RSA_PKCS,
        };
        for _ in 0..2 {
            let refused = own.raw.sign_init(own.session, mechanism, key);
            assert_eq!(refused, Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED)), "{stem}");
        }
        bench.home.log_says(&[&format!("{stem}.pem"), words]);
        assert_eq!(own.raw.mechanisms(own.slot).unwrap(), before, "{stem}");
        assert_eq!(bench.tpm.lockout_counter(), 0, "{stem}");
    }
    for stem in [
        "importable",
        "policy",
        "needs-policy",
        "endorsement",
        "restricted",
        "storage",
    ] {
        let key = own.key_called(stem);
        assert_eq!(own.attribute(key, CKA_SIGN), NO, "{stem}");
        assert_eq!(allowed(&own, key), [] as [u64; 0], "{stem}");
    }
    // A file without key pair, or with an unsupported kind of key.
    let of_scheme = |scheme: &str| create(&["-C", srk, "-G", scheme, "-a", DECRYPTS]);
    for (stem, file, words) in [
        ("sealed", sealed.file(5, SRK, &[]), "sealed data"),
        ("sealed-as-key", sealed.loadable(SRK), "sealed data"),
        (
            "hmac",
            create(&["-C", srk, "-G", "hmac"]).loadable(SRK),
            "HMAC key",
        ),
        (
            "aes",
            create(&["-C", srk, "-G", "aes128cfb"]).loadable(SRK),
            "symmetric key",
        ),
        (
            "oaep",
            of_scheme("rsa2048:oaep-sha256:null").loadable(SRK),
            "only decrypt by OAEP",
        ),
        (
            "rsaes",
            of_scheme("rsa2048:rsaes:null").loadable(SRK),
            "only decrypt by RSAES-PKCS1-v1_5",
        ),
        ("other-type", plain.file(9, SRK, &[]), "2.23.133.10.1.9"),
    ] {
        drop_in(&bench, stem, file);
        assert_eq!(own.labels(CKO_PRIVATE_KEY).len(), 15, "{stem}");
        bench.home.log_says(&[&format!("{stem}.pem"), words]);
    }
    assert!(!bench.home.log().contains("cleared or exchanged"));
    own.signs(own.key_called("of ours"));
    assert_eq!(
        (bench.tpm.transients(), bench.tpm.lockout_counter()),
        (0, 0)
    );
}

/// If wrong values count, a try to find out whether there is a value would do harm.
fn a_parent_that_counts_wrong_values_is_not_tried(link: Link) {
    let (bench, own) = begun(link);
    let handles = [
        (0x8100_0020, "closed", &["-p", "secret"][..]),
        (0x8100_0021, "open", &[]),
    ];
    for (handle, stem, password) in handles {
        let words = [&["-C", "o", "-G", "ecc256:aes128cfb"], password].concat();
        put_primary(&bench, handle, &words);
        let parent = format!("0x{handle:08X}");
        let mut words = vec!["-C", &parent, "-G", "ecc256"];
        if !password.is_empty() {
            words.extend(["-P", "secret"]);
        }
        drop_in(
            &bench,
            stem,
            Wrapped::create(&bench, &words).loadable(handle),
        );
        let refused = own.sign_data(own.key_called(stem), b"data");
        assert_eq!(refused, Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED)), "{stem}");
        bench
            .home
            .log_says(&[&format!("{stem}.pem"), "may ask for a password", "parents"]);
        assert_eq!(bench.tpm.lockout_counter(), 0, "{stem}");
    }
    let setting = "[[token]]\nname = \"devid\"\nparents = [0x81000021]\n";
    bench.home.write("config.toml", setting);
    let own = own.anew();
    own.signs(own.key_called("open"));
    assert!(own.sign_data(own.key_called("closed"), b"data").is_err());
    own.signs(own.key_called("of ours"));
    assert_eq!(bench.tpm.lockout_counter(), 0);
}
