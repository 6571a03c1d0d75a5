//! RSA keys that decrypt also sign. The padding is made in software, and OpenSSL accepts the
//! signatures.

use cryptoki_sys::*;
use testkit::budgets::commands::{DECRYPTION_WRAPPED, SIGNATURE_PADDED};
use testkit::budgets::is_exactly;
use testkit::devid::{Bench, Kind, Own, SRK};
use testkit::foreign::{DECRYPTS, Wrapped, allowed, begun, drop_in};
use testkit::link::Link;
use testkit::own::{NO, YES};
use testkit::programs::{program, run};
use testkit::proxy::command;
use testkit::raw::Code;
use testkit::signing::{HASHES, Hash, Message, Signer};

over_our_transport!(
    a_key_that_only_decrypts_signs_by_padding,
    a_key_below_the_owners_hierarchy_that_only_decrypts,
    what_is_no_digest_info_is_signed_by_keys_that_decrypt,
    an_unpadded_number_is_signed_where_that_is_allowed,
);

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
    is_exactly("C_Sign", &seen, SIGNATURE_PADDED);
    // The key decrypts as before.
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
    let both = [
        testkit::devid::label("both"),
        testkit::devid::yes(CKA_TOKEN),
    ];
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
        is_exactly(what, &seen, SIGNATURE_PADDED);
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
    // A key that does not decrypt cannot do this.
    let signs = own.make(Kind::Rsa(2048), "signs").unwrap().private;
    let refused = own.sign(CKM_RSA_PKCS, signs, &[7; 36]);
    assert_eq!(refused, Err(Code(CKR_DATA_INVALID)));
}

/// The module's own verification with the public half of this label.
#[track_caller]
fn verifies(own: &Own, mechanism: u64, label: &str, data: &[u8], signature: &[u8]) {
    let public = own.find(&[
        (CKA_CLASS, testkit::module::ulong(CKO_PUBLIC_KEY)),
        testkit::devid::label(label),
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
        // The result may be a secret, so an auth session encrypts it.
        is_exactly("C_Sign by CKM_RSA_X_509", &seen, DECRYPTION_WRAPPED);
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
    // Neither for a key that only signs, nor for a key whose owner only allows signing.
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

/// The data that OpenSSL recovers from a signature with this padding.
fn recovered(bench: &Bench, own: &Own, key: u64, padding: &str, signature: &[u8]) -> Vec<u8> {
    let public = own.verifier(&bench.home, key).public_key().to_owned();
    let signature = bench.home.write("signature", signature);
    let mut recover = program("openssl");
    recover.args(["pkeyutl", "-verifyrecover", "-pubin", "-inkey"]);
    recover.arg(public).arg("-in").arg(signature);
    let padding = format!("rsa_padding_mode:{padding}");
    run(recover.args(["-pkeyopt", &padding])).ok().out
}
