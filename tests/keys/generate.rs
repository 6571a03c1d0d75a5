//! C_GenerateKeyPair with the templates of real programs. The new key signs, OpenSSL verifies the
//! signature, and the private key is only in the TPM.

use cryptoki_sys::*;
use std::fs;
use testkit::budgets::commands::KEY_SIZE;
use testkit::budgets::is_exactly;
use testkit::devid::{Bench, PERSISTENT, PROTECTION, TPM_HANDLE};
use testkit::link::Link;
use testkit::module::ulong;
use testkit::openssl::Verifier;
use testkit::own::{NO, Own, P256, P384, P521, YES, folder, public_pem};
use testkit::programs::{Said, run};
use testkit::proxy::command;
use testkit::raw::{Code, Item};
use testkit::signing::{Hash, Message, Signer};

over_our_transport!(
    #[cfg_attr(target_pointer_width = "32", ignore = "its tool has 64 bits")]
    pkcs11_tool_makes_keys,
    #[cfg_attr(target_pointer_width = "32", ignore = "its tool has 64 bits")]
    p11tool_makes_keys,
    every_kind_of_key_signs_by_every_mechanism,
    a_key_in_a_persistent_handle,
    a_key_of_the_session_goes_with_it,
    a_public_key_of_the_session_beside_a_private_one_of_the_token,
    what_is_made_says_what_it_is,
    templates_that_are_refused,
    the_largest_key_that_is_told_is_made,
    uses_are_kept,
);

/// The steps of these stories on a [`Bench`].
trait Steps {
    fn path(&self, name: &str) -> String;
    fn p11tool(&self, arguments: &[&str]) -> Said;
    /// pkcs11-tool signs with the key of this ID, and OpenSSL verifies it.
    fn signs(&self, own: &Own, id: u8, mechanism: &str);
}

impl Steps for Bench {
    fn path(&self, name: &str) -> String {
        self.home.path(name).to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn p11tool(&self, arguments: &[&str]) -> Said {
        let arguments = [&["--batch"], arguments, &["pkcs11:token=devid"]].concat();
        self.program("p11tool", "--provider", &arguments).ok()
    }

    #[track_caller]
    fn signs(&self, own: &Own, id: u8, mechanism: &str) {
        let signature = self.path("signature");
        self.home.write("data", b"data");
        let public = [(CKA_CLASS, ulong(CKO_PUBLIC_KEY)), (CKA_ID, vec![id])];
        let verifier = own.verifier(&self.home, own.find(&public)[0]);
        let id = format!("{id:02x}");
        let data = self.path("data");
        self.pkcs11_tool(&[
            "--sign",
            "-m",
            mechanism,
            "--signature-format",
            "openssl",
            "--id",
            &id,
            "-i",
            &data,
            "-o",
            &signature,
        ]);
        let made = fs::read(&signature).unwrap();
        verifier.accepts_der("-sha256", b"data", &made).ok();
    }
}

fn pkcs11_tool_makes_keys(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    for (kind, id, mechanism) in [
        ("EC:prime256v1", 0x01, "ECDSA-SHA256"),
        ("EC:secp384r1", 0x02, "ECDSA-SHA256"),
        ("rsa:2048", 0x03, "SHA256-RSA-PKCS"),
    ] {
        let named = format!("{id:02x}");
        let generate = [
            "--keypairgen",
            "--key-type",
            kind,
            "--id",
            &named,
            "--label",
            kind,
        ];
        let said = bench.pkcs11_tool(&generate).text();
        for word in ["never extractable, local", kind] {
            assert!(said.contains(word), "no {word:?} in {said}");
        }
        bench.signs(&own, id, mechanism);
    }
    // Each way to say what a key is for.
    for (id, usage) in [
        (4, "--usage-sign"),
        (5, "--usage-derive"),
        (6, "--sensitive"),
    ] {
        let named = format!("{id:02x}");
        let generate = [
            "--keypairgen",
            "--key-type",
            "EC:secp256r1",
            "--id",
            &named,
            usage,
        ];
        bench.pkcs11_tool(&generate);
        bench.signs(&own, id, "ECDSA-SHA256");
    }
    let limited = ["--keypairgen", "--key-type", "rsa:2048", "--id", "07"];
    let limit = ["--allowed-mechanisms", "SHA256-RSA-PKCS,SHA384-RSA-PKCS"];
    let said = bench.pkcs11_tool(&[&limited[..], &limit].concat()).text();
    assert!(said.contains("SHA256-RSA-PKCS,SHA384-RSA-PKCS\n"), "{said}");
    bench.signs(&own, 7, "SHA256-RSA-PKCS");
    assert_eq!(folder(&bench.home).len(), 7);
}

fn p11tool_makes_keys(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    for (kind, more, id, mechanism) in [
        ("ecdsa", ["--curve", "secp256r1"], 0x11, "ECDSA-SHA256"),
        ("rsa", ["--bits", "2048"], 0x12, "SHA256-RSA-PKCS"),
    ] {
        let kind = format!("--generate-privkey={kind}");
        let public = bench.path("made.pem");
        let named = format!("{id:02x}");
        let generate = [
            &kind,
            "--label",
            "made",
            "--id",
            &named,
            "--outfile",
            &public,
        ];
        bench.p11tool(&[&generate[..], &more].concat());
        assert!(fs::read_to_string(&public).unwrap().contains("PUBLIC KEY"));
        bench.signs(&own, id, mechanism);
    }
}

fn every_kind_of_key_signs_by_every_mechanism(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let token = (CKA_TOKEN, YES.to_vec());
    let bits = |bits: CK_ULONG| (CKA_MODULUS_BITS, ulong(bits));
    let curve = |oid: &[u8]| (CKA_EC_PARAMS, oid.to_vec());
    let (ec, rsa) = (CKM_EC_KEY_PAIR_GEN, CKM_RSA_PKCS_KEY_PAIR_GEN);
    let decrypts = [(CKA_DECRYPT, YES.to_vec()), (CKA_UNWRAP, YES.to_vec())];
    let agrees = [(CKA_DERIVE, YES.to_vec())];
    let message = Message::new();
    for (mechanism, what, also) in [
        (ec, curve(&P256), &[][..]),
        (ec, curve(&P384), &agrees),
        (ec, curve(&P521), &[]),
        (ec, (CKA_EC_PARAMS, b"\x13\x09secp256r1".to_vec()), &agrees),
        (rsa, bits(2048), &decrypts),
        (rsa, bits(3072), &[]),
    ] {
        let public = [token.clone(), what.clone()];
        let private = [std::slice::from_ref(&token), also].concat();
        let made = own.generate(mechanism, &public, &private);
        if made == Err(Code(CKR_TEMPLATE_INCONSISTENT)) && what == bits(3072) {
            continue; // some swtpm know RSA-2048 only
        }
        let (public, private) = made.unwrap();
        let allowed = own.attribute(private, CKA_ALLOWED_MECHANISMS);
        let (allowed, _) = allowed.as_chunks();
        let allowed: Vec<_> = allowed
            .iter()
            .map(|kind| CK_ULONG::from_ne_bytes(*kind))
            // Other tests try decryption, agreement and unwrapping.
            .filter(|kind| {
                ![
                    CKM_RSA_PKCS_OAEP,
                    CKM_ECDH1_DERIVE,
                    CKM_ECDH1_COFACTOR_DERIVE,
                    CKM_RSA_AES_KEY_WRAP,
                ]
                .contains(kind)
            })
            .collect();
        let info = own.attribute(public, CKA_PUBLIC_KEY_INFO);
        let pem = bench.home.write("public.pem", public_pem(&info));
        let signer = Signer {
            module: &own,
            key: private,
            judge: Verifier::new(&pem),
            message: &message,
            hashes: ["sha256", "sha384", "sha512"].map(Hash::named).to_vec(),
        };
        let tried = signer.try_all(&allowed);
        assert!(tried.faults.is_empty(), "{:?}", tried.faults);
        assert!(allowed.len() >= 4 && tried.verified >= allowed.len());
    }
}

fn a_key_in_a_persistent_handle(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let both = [(CKA_TOKEN, YES.to_vec())];
    let public = [&both[..], &[(CKA_EC_PARAMS, P256.to_vec())]].concat();
    let persistent: Item = (PERSISTENT, YES.to_vec());
    let private = [&both[..], std::slice::from_ref(&persistent)].concat();
    own.pair("the master key is made with the first");
    bench.proxy.book().take();
    let (public, key) = own
        .generate(CKM_EC_KEY_PAIR_GEN, &public, &private)
        .unwrap();
    assert_eq!(bench.proxy.book().take().of(command::EVICT_CONTROL), 1);
    assert_eq!(own.attribute(key, persistent.0), YES);
    let handle = own.attribute(key, TPM_HANDLE);
    assert_eq!(handle, ulong(0x8100_0100));
    let verifier = own.verifier(&bench.home, public);
    let sign = || own.sign(CKM_ECDSA_SHA256, key, b"data").unwrap();
    verifier.accepts_message("-sha256", b"data", &sign()).ok();
    bench.proxy.book().take();
    sign();
    assert_eq!(bench.proxy.book().take().total(), 1);
    // Destroyed, it leaves its handle.
    assert_eq!(own.destroy(key), Ok(()));
    assert_eq!(bench.proxy.book().take().of(command::EVICT_CONTROL), 1);
    let left = run(bench.tpm.tool("tpm2_getcap").arg("handles-persistent"));
    assert!(!left.ok().text().contains("0x81000100"));
}

fn a_key_of_the_session_goes_with_it(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let reading = own.raw.open(own.slot, CKF_SERIAL_SESSION).unwrap();
    let curve = [(CKA_EC_PARAMS, P256.to_vec())];
    let label = [(CKA_LABEL, b"brief".to_vec())];
    let made = testkit::own::generate(&own.raw, reading, CKM_EC_KEY_PAIR_GEN, &curve, &label);
    let (public, key) = made.unwrap();
    assert_eq!(own.attribute(key, CKA_TOKEN), NO);
    assert_eq!(own.attribute(public, CKA_LOCAL), YES);
    assert_eq!(own.labelled("brief"), [key]);
    let verifier = own.verifier(&bench.home, public);
    let signature = own.sign(CKM_ECDSA_SHA256, key, b"data").unwrap();
    verifier
        .accepts_message("-sha256", b"data", &signature)
        .ok();
    assert_eq!(folder(&bench.home).len(), 0);
    own.raw.close(reading).unwrap();
    assert_eq!(own.labelled("brief"), []);
    let gone = own.sign(CKM_ECDSA_SHA256, key, b"data");
    assert_eq!(gone, Err(Code(CKR_KEY_HANDLE_INVALID)));
    assert_eq!(bench.tpm.transients(), 0);
}

fn a_public_key_of_the_session_beside_a_private_one_of_the_token(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let token = [(CKA_TOKEN, YES.to_vec())];
    let curve = [(CKA_EC_PARAMS, P256.to_vec())];
    let (public, key) = own.generate(CKM_EC_KEY_PAIR_GEN, &curve, &token).unwrap();
    assert_eq!(own.attribute(public, CKA_TOKEN), NO);
    assert_eq!(own.attribute(key, CKA_TOKEN), YES);
    assert_eq!(own.attribute(key, CKA_ID), own.attribute(public, CKA_ID));
    let on_token = [
        (CKA_CLASS, ulong(CKO_PUBLIC_KEY)),
        (CKA_TOKEN, YES.to_vec()),
    ];
    assert_eq!(own.find(&on_token), []);
    // And the other way round.
    let token = [&token[..], &curve].concat();
    let (public, key) = own.generate(CKM_EC_KEY_PAIR_GEN, &token, &[]).unwrap();
    assert_eq!(own.attribute(public, CKA_TOKEN), YES);
    assert_eq!(own.attribute(key, CKA_TOKEN), NO);
    assert_eq!(own.find(&on_token), [public]);
}

fn what_is_made_says_what_it_is(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let named = [
        (CKA_TOKEN, YES.to_vec()),
        (CKA_ID, b"\x01\x02".to_vec()),
        (CKA_LABEL, "Türsteher".into()),
        (CKA_SUBJECT, b"\x30\x00".to_vec()),
        (CKA_START_DATE, b"20260102".to_vec()),
        (CKA_END_DATE, b"".to_vec()),
    ];
    let public = [&named[..], &[(CKA_EC_PARAMS, P256.to_vec())]].concat();
    let private = [
        &named[..],
        &[
            (CKA_PRIVATE, YES.to_vec()),
            (CKA_SENSITIVE, YES.to_vec()),
            (CKA_EXTRACTABLE, NO.to_vec()),
            (CKA_MODIFIABLE, NO.to_vec()),
            (CKA_DESTROYABLE, NO.to_vec()),
            (CKA_ALLOWED_MECHANISMS, ulong(CKM_ECDSA_SHA384)),
            (CKA_CLASS, ulong(CKO_PRIVATE_KEY)),
            (CKA_KEY_TYPE, ulong(CKK_EC)),
        ],
    ]
    .concat();
    let (public, key) = own
        .generate(CKM_EC_KEY_PAIR_GEN, &public, &private)
        .unwrap();
    for (kind, value) in &named {
        for object in [public, key] {
            assert_eq!(own.attribute(object, *kind), *value, "{kind:#x}");
        }
    }
    for (kind, value) in &private {
        assert_eq!(own.attribute(key, *kind), *value, "{kind:#x}");
    }
    for (kind, value) in [
        (CKA_LOCAL, YES.to_vec()),
        (CKA_ALWAYS_SENSITIVE, YES.to_vec()),
        (CKA_NEVER_EXTRACTABLE, YES.to_vec()),
        (CKA_KEY_GEN_MECHANISM, ulong(CKM_EC_KEY_PAIR_GEN)),
    ] {
        assert_eq!(own.attribute(key, kind), value, "{kind:#x}");
    }
    assert_eq!(
        own.attribute(key, CKA_PUBLIC_KEY_INFO),
        own.attribute(public, CKA_PUBLIC_KEY_INFO)
    );
    // The owner's list of mechanisms is enforced.
    assert!(own.sign(CKM_ECDSA_SHA384, key, b"data").is_ok());
    let refused = own.sign(CKM_ECDSA_SHA256, key, b"data");
    assert_eq!(refused, Err(Code(CKR_MECHANISM_INVALID)));
    assert_eq!(own.destroy(key), Err(Code(CKR_ACTION_PROHIBITED)));
    let change = own.change(key, &[(CKA_LABEL, b"other".to_vec())]);
    assert_eq!(change, Err(Code(CKR_ACTION_PROHIBITED)));

    // Without an ID in the template, the ID is the key's own.
    let (public, key) = own.pair("");
    assert_eq!(own.attribute(key, CKA_ID).len(), 20);
    assert_eq!(own.attribute(key, CKA_ID), own.attribute(public, CKA_ID));
    assert_eq!(own.attribute(key, CKA_LABEL), b"");
}

fn templates_that_are_refused(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.pair("one");
    let files = folder(&bench.home);
    bench.proxy.book().take();
    let token = (CKA_TOKEN, YES.to_vec());
    let curve = (CKA_EC_PARAMS, P256.to_vec());
    let ec = CKM_EC_KEY_PAIR_GEN;
    let refused = |mechanism, public: &[Item], private: &[Item], code| {
        let public = [std::slice::from_ref(&token), public].concat();
        let private = [std::slice::from_ref(&token), private].concat();
        let made = own.generate(mechanism, &public, &private);
        assert_eq!(made, Err(Code(code)), "{public:?} {private:?}");
    };
    let unknown = CKA_VENDOR_DEFINED | 0x0BAD_CAFE;
    for (item, code) in [
        ((CKA_SENSITIVE, NO.to_vec()), CKR_TEMPLATE_INCONSISTENT),
        ((CKA_EXTRACTABLE, YES.to_vec()), CKR_TEMPLATE_INCONSISTENT),
        (
            (CKA_WRAP_WITH_TRUSTED, YES.to_vec()),
            CKR_TEMPLATE_INCONSISTENT,
        ),
        ((CKA_TOKEN, NO.to_vec()), CKR_TEMPLATE_INCONSISTENT),
        (
            (CKA_CLASS, ulong(CKO_PUBLIC_KEY)),
            CKR_TEMPLATE_INCONSISTENT,
        ),
        ((CKA_SIGN, NO.to_vec()), CKR_TEMPLATE_INCONSISTENT),
        ((CKA_SIGN, vec![2]), CKR_ATTRIBUTE_VALUE_INVALID),
        ((CKA_SIGN, vec![]), CKR_ATTRIBUTE_VALUE_INVALID),
        ((CKA_LABEL, vec![0xFF]), CKR_ATTRIBUTE_VALUE_INVALID),
        (
            (CKA_START_DATE, b"20261301".to_vec()),
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        ((CKA_LOCAL, YES.to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_VALUE, vec![1; 32]), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_UNIQUE_ID, b"mine".to_vec()), CKR_ATTRIBUTE_READ_ONLY),
        ((PROTECTION, ulong(4)), CKR_ATTRIBUTE_VALUE_INVALID),
        ((unknown, YES.to_vec()), CKR_ATTRIBUTE_TYPE_INVALID),
    ] {
        refused(ec, std::slice::from_ref(&curve), &[item], code);
    }
    let trusted = (CKA_TRUSTED, YES.to_vec());
    refused(ec, &[curve.clone(), trusted], &[], CKR_ATTRIBUTE_READ_ONLY);
    refused(ec, &[], &[], CKR_TEMPLATE_INCOMPLETE);
    // secp256k1
    let foreign = (
        CKA_EC_PARAMS,
        vec![0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x0A],
    );
    refused(ec, &[foreign], &[], CKR_CURVE_NOT_SUPPORTED);
    for malformed in [&b""[..], b"P-256", &P256[..9], b"\x06\x00"] {
        let malformed = (CKA_EC_PARAMS, malformed.to_vec());
        refused(ec, &[malformed], &[], CKR_DOMAIN_PARAMS_INVALID);
    }
    let even = (CKA_PUBLIC_EXPONENT, vec![1, 0, 0]);
    refused(
        CKM_RSA_PKCS_KEY_PAIR_GEN,
        &[(CKA_MODULUS_BITS, ulong(2048)), even],
        &[],
        CKR_ATTRIBUTE_VALUE_INVALID,
    );
    let rsa = CKM_RSA_PKCS_KEY_PAIR_GEN;
    let bits = |bits: CK_ULONG| (CKA_MODULUS_BITS, ulong(bits));
    refused(rsa, &[], &[], CKR_TEMPLATE_INCOMPLETE);
    for size in [512, 1024, 2047, 8192] {
        refused(rsa, &[bits(size)], &[], CKR_TEMPLATE_INCONSISTENT);
    }
    let exponent = (CKA_PUBLIC_EXPONENT, vec![3]);
    refused(rsa, &[bits(2048), exponent], &[], CKR_TEMPLATE_INCONSISTENT);
    refused(CKM_DSA_KEY_PAIR_GEN, &[], &[], CKR_MECHANISM_INVALID);
    assert_eq!(bench.proxy.book().take().of(command::CREATE), 0);
    assert_eq!(folder(&bench.home), files);
}

fn uses_are_kept(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let public = [(CKA_MODULUS_BITS, ulong(2048)), (CKA_VERIFY, NO.to_vec())];
    // No such key has these; who does not ask is answered.
    let private = [
        (CKA_SIGN, NO.to_vec()),
        (CKA_DECRYPT, YES.to_vec()),
        (CKA_SIGN_RECOVER, NO.to_vec()),
        (CKA_DERIVE, NO.to_vec()),
    ];
    let made = own.generate(CKM_RSA_PKCS_KEY_PAIR_GEN, &public, &private);
    let (public, key) = made.unwrap();
    assert_eq!(own.attribute(key, CKA_DECRYPT), YES);
    for kind in [CKA_SIGN, CKA_SIGN_RECOVER, CKA_DERIVE, CKA_UNWRAP] {
        assert_eq!(own.attribute(key, kind), NO, "{kind:#x}");
    }
    assert_eq!(own.attribute(public, CKA_VERIFY), NO);
    let refused = own.sign(CKM_SHA256_RSA_PKCS, key, b"data");
    assert_eq!(refused, Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED)));
}

/// C_GetMechanismInfo tells the sizes that this TPM makes. The TPM is asked once, by two commands
/// at most.
fn the_largest_key_that_is_told_is_made(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let sizes = |kind| {
        let info = own.raw.mechanism_info(own.slot, kind).unwrap();
        (info.ulMinKeySize, info.ulMaxKeySize)
    };
    own.raw.mechanisms(own.slot).unwrap();
    bench.proxy.book().take();
    let (rsa, ec) = (CKM_RSA_PKCS_KEY_PAIR_GEN, CKM_EC_KEY_PAIR_GEN);
    let (smallest, largest) = sizes(rsa);
    assert_eq!(smallest, 2048);
    assert_eq!(sizes(CKM_SHA256_RSA_PKCS), (2048, largest));
    let curves = sizes(ec);
    assert_eq!(sizes(ec), curves);
    let asked = bench.proxy.book().take();
    // The TPM is asked for the largest size first, and never for the smallest.
    let questions = |largest, best| if largest == best { 1 } else { 2 };
    let questions = questions(largest, 4096) + questions(curves.1, 521);
    is_exactly("C_GetMechanismInfo", &asked, &KEY_SIZE.repeat(questions));
    for bits in [2048, 3072, 4096] {
        let made = own.generate(rsa, &[(CKA_MODULUS_BITS, ulong(bits))], &[]);
        match bits <= largest {
            true => assert!(made.is_ok(), "{bits} of {largest}"),
            false => assert_eq!(made, Err(Code(CKR_TEMPLATE_INCONSISTENT)), "{bits}"),
        }
    }
    for (bits, oid) in [(256, &P256[..]), (384, &P384), (521, &P521)] {
        let made = own.generate(ec, &[(CKA_EC_PARAMS, oid.to_vec())], &[]);
        assert_eq!(made.is_ok(), bits <= curves.1, "{bits}: {made:?}");
    }
}
