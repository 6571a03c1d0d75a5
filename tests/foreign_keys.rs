//! Key files of other programs that hold keys which are no ordinary signing keys: what can be used
//! signs, what cannot says why, and neither costs another key anything, nor a counted try.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[macro_use]
mod common;

use common::devid::{Bench, Kind, MASTER, Own, SRK};
use common::openssl::element;
use common::own::{NO, YES};
use common::programs::{program, run, run_with};
use common::proxy::command;
use common::raw::Code;
use common::signing::{HASHES, Hash, Message, Signer};
use common::story::Link;
use cryptoki_sys::*;
use std::fs;

over_both_links!(
    a_key_that_only_decrypts_signs_by_padding,
    a_key_below_the_owners_hierarchy_that_only_decrypts,
    what_is_no_digest_info_is_signed_by_keys_that_decrypt,
    an_unpadded_number_is_signed_where_that_is_allowed,
    keys_that_cannot_be_used_say_why,
    a_parent_that_counts_wrong_values_is_not_tried,
    a_key_of_one_scheme_takes_no_mechanism_from_the_others,
);

/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA.
const BOUND: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda";
const DECRYPTS: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|decrypt";

const PKCS1: [u64; 5] = [
    CKM_RSA_PKCS,
    CKM_SHA1_RSA_PKCS,
    CKM_SHA256_RSA_PKCS,
    CKM_SHA384_RSA_PKCS,
    CKM_SHA512_RSA_PKCS,
];
const PSS: [u64; 4] = [
    CKM_RSA_PKCS_PSS,
    CKM_SHA256_RSA_PKCS_PSS,
    CKM_SHA384_RSA_PKCS_PSS,
    CKM_SHA512_RSA_PKCS_PSS,
];

/// A folder with a key of ours, and the SRK.
fn begun(link: Link) -> (Bench, Own) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "of ours").unwrap();
    (bench, own)
}

/// A wrapped key, as tpm2-tools make it.
struct Wrapped {
    public: Vec<u8>,
    private: Vec<u8>,
}

impl Wrapped {
    /// `tpm2_create` with these words.
    fn create(bench: &Bench, words: &[&str]) -> Wrapped {
        let [public, private] = ["made.pub", "made.priv"].map(|name| bench.home.path(name));
        let mut create = bench.tpm.tool("tpm2_create");
        create.arg("-Q").args(words);
        create.arg("-u").arg(&public).arg("-r").arg(&private);
        run(&mut create).ok();
        flush(bench);
        Wrapped {
            public: fs::read(public).unwrap(),
            private: fs::read(private).unwrap(),
        }
    }

    /// As a file "TSS2 PRIVATE KEY" of this kind and parent, with these members between.
    fn file(&self, kind: u8, parent: u32, members: &[Vec<u8>]) -> Vec<u8> {
        let mut all = vec![element(6, &[0x67, 0x81, 0x05, 0x0A, 0x01, kind])];
        all.push(element(0xA0, &element(1, &[0xFF])));
        all.extend_from_slice(members);
        all.push(element(2, &[&[0][..], &parent.to_be_bytes()].concat()));
        all.push(element(4, &self.public));
        all.push(element(4, &self.private));
        pem_of(&element(0x30, &all.concat())).into_bytes()
    }

    fn loadable(&self, parent: u32) -> Vec<u8> {
        self.file(3, parent, &[])
    }
}

fn pem_of(der: &[u8]) -> String {
    let encoded = run_with(program("openssl").arg("base64"), der).ok().text();
    format!("-----BEGIN TSS2 PRIVATE KEY-----\n{encoded}-----END TSS2 PRIVATE KEY-----\n")
}

fn flush(bench: &Bench) {
    run(bench.tpm.tool("tpm2_flushcontext").arg("-t")).ok();
}

/// A primary key in a persistent handle.
fn put_primary(bench: &Bench, handle: u32, words: &[&str]) {
    let context = bench.home.path("primary.ctx");
    let mut create = bench.tpm.tool("tpm2_createprimary");
    run(create.arg("-Q").args(words).arg("-c").arg(&context)).ok();
    let mut keep = bench.tpm.tool("tpm2_evictcontrol");
    keep.args(["-Q", "-C", "o", "-c"]).arg(&context);
    run(keep.arg(format!("0x{handle:08X}"))).ok();
    flush(bench);
}

fn drop_in(bench: &Bench, stem: &str, file: impl AsRef<[u8]>) {
    fs::write(bench.folder().join(format!("{stem}.pem")), file).unwrap();
}

fn allowed(own: &Own, key: u64) -> Vec<u64> {
    let words = own.attribute(key, CKA_ALLOWED_MECHANISMS);
    let words = words.chunks(8).map(|word| word.try_into().unwrap());
    words.map(u64::from_ne_bytes).collect()
}

/// The key signs by each padded mechanism and over each digest, and OpenSSL accepts it.
#[track_caller]
fn signs_by_all(own: &Own, bench: &Bench, stem: &str) {
    let key = own.key_called(stem);
    assert_eq!(own.attribute(key, CKA_SIGN), YES);
    let mechanisms = allowed(own, key);
    for kind in PKCS1.iter().chain(&PSS) {
        assert!(mechanisms.contains(kind), "{kind:#x}");
    }
    assert!(!mechanisms.contains(&CKM_RSA_X_509));
    let tried = Signer {
        module: own,
        key,
        judge: own.verifier(&bench.home, key),
        message: &Message::new(),
        hashes: HASHES.iter().collect(),
    }
    .try_all(&[&PKCS1[..], &PSS].concat());
    assert!(tried.faults.is_empty(), "{}", tried.faults.join("\n"));
    assert_eq!((tried.asked, tried.verified), (22, 22));
    let raw = own.raw.sign_init(own.session, CKM_RSA_X_509, key);
    assert_eq!(raw, Err(Code(CKR_MECHANISM_INVALID)));
}

fn a_key_that_only_decrypts_signs_by_padding(link: Link) {
    let (bench, own) = begun(link);
    let before = own.raw.mechanisms(own.slot).unwrap();
    let words = ["-C", "0x81000001", "-G", "rsa2048:null", "-a", DECRYPTS];
    let key = Wrapped::create(&bench, &words);
    drop_in(&bench, "decrypts", key.loadable(SRK));
    signs_by_all(&own, &bench, "decrypts");
    assert_eq!(own.raw.mechanisms(own.slot).unwrap(), before);
    assert_eq!(bench.tpm.transients(), 0);

    // A signature is public: it costs what another one costs, without an auth session.
    let key = own.key_called("decrypts");
    bench.proxy.book().take();
    own.sign_data(key, b"data").unwrap();
    let seen = bench.proxy.book().take();
    let used = (seen.of(command::SIGN), seen.of(command::RSA_DECRYPT));
    assert_eq!((used, seen.total()), ((0, 1), 3), "{seen:?}");
    // It decrypts as before.
    assert_eq!(own.attribute(key, CKA_DECRYPT), YES);
    own.signs(own.key_called("of ours"));
}

/// As openssl_tpm2_engine's create_tpm2_key leaves it: below the primary that everybody derives.
fn a_key_below_the_owners_hierarchy_that_only_decrypts(link: Link) {
    let (bench, own) = begun(link);
    let root = bench.home.path("root.ctx");
    let attributes =
        "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    let mut create = bench.tpm.tool("tpm2_createprimary");
    create.args(["-Q", "-C", "o", "-G", "ecc256:aes128cfb", "-a", attributes]);
    run(create.arg("-c").arg(&root)).ok();
    flush(&bench);
    let root = root.to_str().unwrap();
    let words = ["-C", root, "-G", "rsa2048:null", "-a", DECRYPTS];
    let key = Wrapped::create(&bench, &words);
    drop_in(&bench, "engine", key.loadable(0x4000_0001));
    signs_by_all(&own, &bench, "engine");
    assert_eq!(bench.tpm.transients(), 0);
}

/// A key pair of ours for signing and decrypting.
fn both_uses(own: &Own) -> u64 {
    let decrypts = [(CKA_DECRYPT, YES.to_vec())];
    let both = [common::devid::label("both"), common::devid::yes(CKA_TOKEN)];
    own.make_with(Kind::Rsa(2048), &both, &decrypts)
        .unwrap()
        .private
}

fn what_is_no_digest_info_is_signed_by_keys_that_decrypt(link: Link) {
    let (bench, own) = begun(link);
    let key = both_uses(&own);
    let sha224 = b"\x30\x2d\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x04\x05\x00\x04\x1c";
    for (what, data) in [
        ("MD5 and SHA-1, as TLS 1.0 signs", vec![7; 36]),
        ("SHA-224", [&sha224[..], &[7; 28]].concat()),
        ("a bare digest", vec![9; 32]),
        ("one byte", vec![0]),
        ("as long as there is room", vec![7; 245]),
    ] {
        bench.proxy.book().take();
        let signature = own.sign(CKM_RSA_PKCS, key, &data);
        let signature = signature.unwrap_or_else(|code| panic!("{what}: {code:?}"));
        let seen = bench.proxy.book().take();
        assert_eq!(
            (seen.of(command::RSA_DECRYPT), seen.total()),
            (1, 3),
            "{what}: {seen:?}"
        );
        assert_eq!(recovered(&bench, &own, key, "pkcs1", &signature), data);
        verifies(&own, CKM_RSA_PKCS, "both", &data, &signature);
    }
    let long = own.sign(CKM_RSA_PKCS, key, &[7; 246]);
    assert_eq!(long, Err(Code(CKR_DATA_LEN_RANGE)));
    // A DigestInfo is still the TPM's to pad.
    let hash = Hash::named("sha256");
    bench.proxy.book().take();
    own.sign(CKM_RSA_PKCS, key, &hash.digest_info(&[7; 32]))
        .unwrap();
    let seen = bench.proxy.book().take();
    assert_eq!(
        (seen.of(command::SIGN), seen.of(command::RSA_DECRYPT)),
        (1, 0)
    );
    // One that does not decrypt cannot.
    let signs = own.make(Kind::Rsa(2048), "signs").unwrap().private;
    let refused = own.sign(CKM_RSA_PKCS, signs, &[7; 36]);
    assert_eq!(refused, Err(Code(CKR_DATA_INVALID)));
}

/// The module's own verification with the public half of this label.
#[track_caller]
fn verifies(own: &Own, mechanism: u64, label: &str, data: &[u8], signature: &[u8]) {
    let public = own.find(&[
        (CKA_CLASS, common::module::ulong(CKO_PUBLIC_KEY)),
        common::devid::label(label),
    ])[0];
    let mut by = CK_MECHANISM {
        mechanism,
        pParameter: std::ptr::null_mut(),
        ulParameterLen: 0,
    };
    let (table, session) = (own.raw.table, own.session);
    call!(table, C_VerifyInit(session, &raw mut by, public))
        .result()
        .unwrap();
    let (mut data, mut signature) = (data.to_vec(), signature.to_vec());
    let verified = call!(
        table,
        C_Verify(
            session,
            data.as_mut_ptr(),
            data.len() as u64,
            signature.as_mut_ptr(),
            signature.len() as u64
        )
    );
    verified.result().unwrap();
}

fn an_unpadded_number_is_signed_where_that_is_allowed(link: Link) {
    let (bench, own) = begun(link);
    both_uses(&own);
    own.make(Kind::Rsa(2048), "signs").unwrap();
    let words = ["-C", "0x81000001", "-G", "rsa2048:null", "-a", DECRYPTS];
    drop_in(
        &bench,
        "decrypts",
        Wrapped::create(&bench, &words).loadable(SRK),
    );
    let listed = own.raw.mechanisms(own.slot).unwrap();
    assert!(!listed.contains(&CKM_RSA_X_509));
    let off = own
        .raw
        .sign_init(own.session, CKM_RSA_X_509, own.key_called("both"));
    assert_eq!(off, Err(Code(CKR_MECHANISM_INVALID)));

    let setting = "[[token]]\nname = \"devid\"\nallow_raw_rsa = true\n";
    bench.home.write("config.toml", setting);
    let own = own.anew();
    let listed = own.raw.mechanisms(own.slot).unwrap();
    assert!(listed.contains(&CKM_RSA_X_509));
    for stem in ["both", "decrypts"] {
        let key = own.key_called(stem);
        assert!(allowed(&own, key).contains(&CKM_RSA_X_509), "{stem}");
        for data in [vec![1; 256], vec![0x7F; 100], vec![5]] {
            let signature = own.sign(CKM_RSA_X_509, key, &data).unwrap();
            assert_eq!(
                recovered(&bench, &own, key, "none", &signature),
                padded(&data)
            );
            if stem == "both" {
                verifies(&own, CKM_RSA_X_509, stem, &data, &signature);
            }
        }
        bench.proxy.book().take();
        own.sign(CKM_RSA_X_509, key, &[1; 256]).unwrap();
        let seen = bench.proxy.book().take();
        // What comes out may be a secret: StartAuthSession, and all else as before.
        assert_eq!(
            (seen.of(command::RSA_DECRYPT), seen.total()),
            (1, 4),
            "{seen:?}"
        );
        let modulus = own.attribute(key, CKA_MODULUS);
        for data in [&modulus[..], &[0xFF; 256]] {
            let refused = own.sign(CKM_RSA_X_509, key, data);
            assert_eq!(refused, Err(Code(CKR_DATA_INVALID)), "{stem}");
        }
        for length in [0, 257] {
            let refused = own.sign(CKM_RSA_X_509, key, &vec![1; length]);
            assert_eq!(refused, Err(Code(CKR_DATA_LEN_RANGE)), "{stem}");
        }
        assert_eq!(bench.proxy.book().take().total(), 0, "nothing is sent");
    }
    // Neither for a key that only signs, nor for one whose owner lets it sign only.
    let signs = own.key_called("signs");
    assert!(!allowed(&own, signs).contains(&CKM_RSA_X_509));
    let refused = own.raw.sign_init(own.session, CKM_RSA_X_509, signs);
    assert_eq!(refused, Err(Code(CKR_MECHANISM_INVALID)));
    let both = own.key_called("both");
    own.change(both, &[(CKA_DECRYPT, NO.to_vec())]).unwrap();
    let both = own.key_called("both");
    assert!(!allowed(&own, both).contains(&CKM_RSA_X_509));
    let refused = own.raw.sign_init(own.session, CKM_RSA_X_509, both);
    assert_eq!(refused, Err(Code(CKR_MECHANISM_INVALID)));
}

fn padded(data: &[u8]) -> Vec<u8> {
    [&vec![0; 256 - data.len()][..], data].concat()
}

/// What OpenSSL finds in a signature with such a padding.
fn recovered(bench: &Bench, own: &Own, key: u64, padding: &str, signature: &[u8]) -> Vec<u8> {
    let public = own.verifier(&bench.home, key).public_key().to_owned();
    let signature = bench.home.write("signature", signature);
    let mut recover = program("openssl");
    recover.args(["pkeyutl", "-verifyrecover", "-pubin", "-inkey"]);
    recover.arg(public).arg("-in").arg(signature);
    let padding = format!("rsa_padding_mode:{padding}");
    run(recover.args(["-pkeyopt", &padding])).ok().out
}

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
            "no key that wraps others",
        ),
        ("restricted", restricted.loadable(SRK), "restricted"),
        ("restricted-rsa", restricted_rsa.loadable(SRK), "restricted"),
        ("storage", storage_key.loadable(SRK), "storage key"),
    ] {
        drop_in(&bench, stem, file);
        let key = own.key_called(stem);
        let kind = own.attribute(key, CKA_KEY_TYPE);
        let mechanism = match kind == common::module::ulong(CKK_EC) {
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
    // What is no key pair at all, or of a kind that is not used here.
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
            "OAEP alone",
        ),
        (
            "rsaes",
            of_scheme("rsa2048:rsaes:null").loadable(SRK),
            "RSAES-PKCS1-v1_5 alone",
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

/// Where a wrong value counts, whether there is one cannot be asked without harm.
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
