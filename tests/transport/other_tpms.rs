//! TPMs other than Debian 12's libtpms: wolfTPM's fwTPM (`scripts/test-fwtpm`), Microsoft's reference
//! implementation (`scripts/test-simulator`), and a newer libtpms whose profile lacks algorithms
//! (`scripts/test-profile`). OpenSSL verifies the signatures of each algorithm that the TPM has. Other
//! algorithms are not listed, and are refused.
//!
//! `DEVID_SWTPM` names the swtpm with profiles.

use crate::simulators::Simulator;
use cryptoki_sys::*;
use std::fs;
use std::process::Command;
use testkit::ciphers::{mechanism, oaep};
use testkit::devid::{Inspection, Kind, Own, folder, label, yes};
use testkit::factory::{self, Identity};
use testkit::home::Home;
use testkit::module::{Opened, tool, ulong};
use testkit::openssl::Verifier;
use testkit::own::YES;
use testkit::pins::{OFFICER, Token, USER};
use testkit::programs::{Said, run};
use testkit::raw::Code;
use testkit::signing::{HASHES, Hash, Message, Signer, Tried};
use testkit::tpm::{self, Swtpm};
use testkit::wrapping::{KEYS, keys, openssl_wraps, private_key_info, rsa_aes, signs_as, wanted};

once!(
    #[ignore = "the server is no package: scripts/test-fwtpm builds it and runs this"]
    fwtpm_factory_identities,
    #[ignore = "the server is no package: scripts/test-fwtpm builds it and runs this"]
    fwtpm_keys_of_the_device,
    #[ignore = "the server is no package: scripts/test-fwtpm builds it and runs this"]
    fwtpm_no_curve_of_521_bits,
    #[ignore = "the server is no package: scripts/test-fwtpm builds it and runs this"]
    fwtpm_pins,
    #[ignore = "the server is no package: scripts/test-fwtpm builds it and runs this"]
    fwtpm_keys_that_come_in,
    #[ignore = "the server is no package: scripts/test-fwtpm builds it and runs this"]
    fwtpm_an_identity_of_its_own,
    #[ignore = "the server is no package: scripts/test-fwtpm builds it and runs this"]
    fwtpm_ml_dsa_keys_are_in_nobodys_way,
    #[ignore = "the simulator is a Go module: scripts/test-simulator builds it and runs this"]
    simulator_factory_identities,
    #[ignore = "the simulator is a Go module: scripts/test-simulator builds it and runs this"]
    simulator_keys_of_the_device,
    #[ignore = "the simulator is a Go module: scripts/test-simulator builds it and runs this"]
    simulator_pins,
    #[ignore = "the simulator is a Go module: scripts/test-simulator builds it and runs this"]
    simulator_keys_that_come_in,
    #[ignore = "the simulator is a Go module: scripts/test-simulator builds it and runs this"]
    simulator_an_identity_of_its_own,
    #[ignore = "Debian's releases have no swtpm with profiles: scripts/test-profile fetches it and runs this"]
    profile_factory_identities,
    #[ignore = "Debian's releases have no swtpm with profiles: scripts/test-profile fetches it and runs this"]
    profile_keys_of_the_device,
    #[ignore = "Debian's releases have no swtpm with profiles: scripts/test-profile fetches it and runs this"]
    profile_pins,
    #[ignore = "Debian's releases have no swtpm with profiles: scripts/test-profile fetches it and runs this"]
    profile_an_identity_of_its_own,
);

/// All of libtpms 0.10 but SHA-1, SHA-512 and RSAPSS.
const FEW: &str = "rsa,rsa-min-size=2048,hmac,aes,aes-min-size=128,mgf1,keyedhash,xor,sha256,sha384,null,\
    rsassa,rsaes,oaep,ecdsa,ecdh,kdf1-sp800-56a,kdf2,kdf1-sp800-108,ecc,ecc-min-size=256,ecc-nist,\
    symcipher,cmac,ctr,ofb,cbc,cfb,ecb";
const NOT_THERE: [CK_MECHANISM_TYPE; 5] = [
    CKM_SHA1_RSA_PKCS,
    CKM_SHA512_RSA_PKCS,
    CKM_RSA_PKCS_PSS,
    CKM_SHA256_RSA_PKCS_PSS,
    CKM_SHA384_RSA_PKCS_PSS,
];

fn few() -> Swtpm {
    let swtpm = std::env::var_os("DEVID_SWTPM").expect("DEVID_SWTPM names an swtpm with profiles");
    Swtpm::with_algorithms(swtpm.into(), FEW)
}

/// Makes a primary key of this ML-DSA parameter set (1: ML-DSA-44) and keeps it at `handle`.
fn keep_ml_dsa(tpm: &Simulator, set: u16, handle: u32) {
    const OWNER: u32 = 0x4000_0001;
    const PASSWORD: [u8; 13] = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
    // TPMT_PUBLIC of TPM_ALG_MLDSA (level 1.85): SHA-256; fixedTPM, fixedParent,
    // sensitiveDataOrigin, userWithAuth, sign; no policy; the set, no external µ; no unique.
    let [high, low] = set.to_be_bytes();
    let area = [0, 0xA1, 0, 0x0B, 0, 4, 0, 0x72, 0, 0, high, low, 0, 0, 0];
    let area = [&[0, 15][..], &area].concat();
    let tail = [&[0, 4, 0, 0, 0, 0][..], &area, &[0; 6]].concat();
    let made = tpm.sends(0x131, &[&OWNER.to_be_bytes()[..], &PASSWORD, &tail]);
    let transient = &made[10..14];
    let evict = [
        &OWNER.to_be_bytes()[..],
        transient,
        &PASSWORD,
        &handle.to_be_bytes(),
    ];
    tpm.sends(0x120, &evict);
    let flush = [&[0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x65][..], transient].concat();
    tpm.sends_bytes(&flush);
}

/// The factory's P-256 key and its RSA key, each with a certificate.
fn manufacture(home: &Home, tcti: &str) -> [Identity; 2] {
    let second = [
        ["--template", "h1"],
        ["--name", "rsa"],
        ["--handle", "0x81020002"],
        ["--nv", "0x01C90210"],
    ];
    [&[][..], second.as_flattened()].map(|options: &[&str]| {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        factory::run(tcti, &home.path("factory"), &options)
    })
}

/// No key and no auth session of ours is left.
#[track_caller]
fn nothing_is_loaded(tcti: &str) {
    for what in ["handles-transient", "handles-loaded-session"] {
        let listed = run(tpm::tool("tpm2_getcap", tcti).arg(what)).ok().text();
        assert_eq!(listed, "", "{what}");
    }
}

/// `devid` with these words.
fn devid(home: &Home, words: &[&str]) -> Said {
    let mut command = Command::new(tool());
    run(home.settle(command.args(words)))
}

/// Each mechanism that the slot lists signs, and OpenSSL accepts what it signed.
fn signs_by_what_is_listed(module: &Opened, key: CK_ULONG, judge: Verifier) -> Tried {
    let listed = module
        .raw
        .mechanisms(module.slot)
        .expect("C_GetMechanismList");
    let is_ec = module.raw.attribute(module.session, key, CKA_KEY_TYPE) == Ok(ulong(CKK_EC));
    let signs = |kind: &CK_MECHANISM_TYPE| {
        let info = module
            .raw
            .mechanism_info(module.slot, *kind)
            .expect("C_GetMechanismInfo");
        let ec = [
            CKM_ECDSA,
            CKM_ECDSA_SHA1,
            CKM_ECDSA_SHA256,
            CKM_ECDSA_SHA384,
            CKM_ECDSA_SHA512,
        ]
        .contains(kind);
        let rsa = [CKM_RSA_PKCS, CKM_RSA_PKCS_PSS].contains(kind)
            || HASHES
                .iter()
                .any(|hash| hash.pkcs1 == *kind || hash.pss == Some(*kind));
        info.flags & CKF_SIGN != 0 && if is_ec { ec } else { rsa }
    };
    let wanted: Vec<_> = listed.into_iter().filter(signs).collect();
    let message = Message::new();
    let hashes = HASHES
        .iter()
        .filter(|hash| wanted.contains(&hash.pkcs1))
        .collect();
    let signer = Signer {
        module,
        key,
        judge,
        message: &message,
        hashes,
    };
    let tried = signer.try_all(&wanted);
    assert_eq!(tried.faults, Vec::<String>::new());
    assert_eq!(tried.verified, tried.asked);
    tried
}

/// The answer of C_SignInit for a key and this mechanism, with its parameter.
fn asked(own: &Opened, key: CK_ULONG, kind: CK_MECHANISM_TYPE) -> Result<(), Code> {
    let of = HASHES.iter().find(|hash| hash.pss == Some(kind));
    let pss = match kind {
        CKM_RSA_PKCS_PSS => Some(Hash::named("sha256")),
        _ => of,
    };
    let parameter = pss.map(Hash::pss_parameter);
    let parameter = parameter
        .as_ref()
        .map_or(&[][..], |parameter| &parameter[..]);
    own.raw.sign_init_with(own.session, kind, parameter, key)
}

/// The key refuses mechanisms that its token does not list.
#[track_caller]
fn refuses(own: &Opened, key: CK_ULONG, absent: &[CK_MECHANISM_TYPE]) {
    let listed = own.raw.mechanisms(own.slot).expect("C_GetMechanismList");
    for kind in absent {
        assert!(!listed.contains(kind), "{kind:#x} is listed");
        assert_eq!(
            asked(own, key, *kind),
            Err(Code(CKR_MECHANISM_INVALID)),
            "{kind:#x}"
        );
    }
}

/// A P-256 and an RSA key, each with a certificate: both are listed, and both sign by what is listed.
fn factory_identities(tcti: &str, absent: &[CK_MECHANISM_TYPE]) {
    let home = Home::new(tcti);
    let identities = manufacture(&home, tcti);
    identities_sign(&home, &identities, absent);
    nothing_is_loaded(tcti);
}

fn identities_sign(home: &Home, identities: &[Identity], absent: &[CK_MECHANISM_TYPE]) {
    let module = Opened::new(home);
    let private = [(CKA_CLASS, ulong(CKO_PRIVATE_KEY))];
    let found = module.raw.find(module.session, &private).expect("a search");
    assert_eq!(found.len(), identities.len(), "{}", home.log());
    for key in found {
        let is_ec = module.raw.attribute(module.session, key, CKA_KEY_TYPE) == Ok(ulong(CKK_EC));
        let judge = Verifier::new(&identities[usize::from(!is_ec)].public_key());
        assert!(signs_by_what_is_listed(&module, key, judge).verified > 0);
        if !is_ec {
            refuses(&module, key, absent);
        }
    }
}

/// Keys that the device makes: each signs by what is listed, also in the next process.
fn keys_of_the_device(tcti: &str, absent: &[CK_MECHANISM_TYPE]) {
    let home = Home::new(tcti);
    let own = Own::new(&home);
    for kind in [Kind::P256, Kind::P384, Kind::Rsa(2048)] {
        let name = format!("{kind:?}");
        let made = own.make(kind, &name);
        let made = made.unwrap_or_else(|code| panic!("{name}: {code:?}"));
        let judge = own.verifier(&home, made.public);
        assert!(signs_by_what_is_listed(&own, made.private, judge).verified > 0);
        if let Kind::Rsa(_) = kind {
            refuses(&own, made.private, absent);
        }
    }
    let kept = own.make_persistent(Kind::P256, "kept");
    own.signs(kept.expect("a key in a handle").private);
    let own = own.anew();
    assert_eq!(own.keys().len(), 4);
    for key in own.keys() {
        own.signs(key);
    }
    for key in own.keys() {
        own.destroy(key).expect("C_DestroyObject");
    }
    assert_eq!(own.keys(), []);
    nothing_is_loaded(tcti);
}

fn keys_that_come_in(tcti: &str) {
    let home = Home::new(tcti);
    let own = Own::new(&home);
    keys(&home);
    let (public, key) = own.unwrapping(&[]);
    for (name, _, key_type) in KEYS {
        let info = private_key_info(&home, name);
        let wrapped = openssl_wraps(&home, &own.pem(&home, public), (256, "sha256"), &info);
        let inner = oaep(CKM_SHA256, CKG_MGF1_SHA256, b"");
        let parameter = rsa_aes(256, &inner);
        let by = mechanism(CKM_RSA_AES_KEY_WRAP, Some(&parameter));
        let more = [(CKA_TOKEN, YES.to_vec()), (CKA_LABEL, name.into())];
        let made = own.unwrap(by, key, &wrapped, &wanted(key_type, &more));
        let made = made.unwrap_or_else(|code| panic!("{name}: {code:?}"));
        signs_as(&own, &home, made, name);
    }
    nothing_is_loaded(tcti);
}

fn an_identity_of_its_own(tcti: &str) {
    let home = Home::new(tcti);
    manufacture(&home, tcti);
    fs::create_dir(home.path("trust")).expect("a folder");
    let identity = || {
        let said = devid(&home, &["status", "--json"]).ok();
        assert!(said.text().contains("\"mode\": \"tpm\""), "{said}");
        devid(&home, &["csr", "devid"]).ok().text()
    };
    devid(&home, &["provision"]).ok();
    let first = identity();
    devid(&home, &["provision"]).ok();
    devid(&home, &["key", "generate", "service"]).ok();
    devid(&home, &["reset", "--factory", "--yes"]).ok();
    assert_ne!(identity(), first);
    let listed = devid(&home, &["list"]).ok().text();
    assert!(
        listed.contains("idev-id") && !listed.contains("service"),
        "{listed}"
    );
    nothing_is_loaded(tcti);
}

/// The TPM has neither SHA-1 nor SHA-512.
fn fwtpm_factory_identities() {
    let absent = [
        CKM_SHA1_RSA_PKCS,
        CKM_SHA512_RSA_PKCS,
        CKM_SHA512_RSA_PKCS_PSS,
    ];
    factory_identities(&Simulator::fwtpm().tcti(), &absent);
}

fn fwtpm_keys_of_the_device() {
    let tpm = Simulator::fwtpm();
    let absent = [
        CKM_SHA1_RSA_PKCS,
        CKM_SHA512_RSA_PKCS,
        CKM_SHA512_RSA_PKCS_PSS,
    ];
    keys_of_the_device(&tpm.tcti(), &absent);
}

fn fwtpm_no_curve_of_521_bits() {
    let tpm = Simulator::fwtpm();
    let home = Home::new(&tpm.tcti());
    let own = Own::new(&home);
    let refused = own.make(Kind::P521, "absent");
    assert_eq!(refused, Err(Code(CKR_CURVE_NOT_SUPPORTED)));
    own.signs(own.make(Kind::P256, "there").expect("a key").private);
}

/// Its key for parameter encryption does not include the authorisation value of the session, so no
/// login would work. The token stays unchanged.
fn fwtpm_pins() {
    let tpm = Simulator::fwtpm();
    let home = Home::new(&tpm.tcti());
    let Own(Opened { raw, slot, session }) = Own::new(&home);
    raw.close(session).expect("C_CloseSession");
    let token = Token { raw, slot };
    let flags = token.flags();
    let refused = token.init(OFFICER, "another label");
    assert_eq!(refused, Err(Code(CKR_DEVICE_ERROR)), "{}", home.log());
    assert_eq!(token.flags(), flags);
    let seals = Inspection::of(&folder(&home));
    assert!(!seals.has(".officer.pem") && !seals.has(".user.pem"));
    let own = Own::with(token.raw, "devid");
    let made = own.make(Kind::P256, "after").expect("a key without PIN");
    own.signs(made.private);
    nothing_is_loaded(&tpm.tcti());
}

fn fwtpm_keys_that_come_in() {
    keys_that_come_in(&Simulator::fwtpm().tcti());
}

fn fwtpm_an_identity_of_its_own() {
    an_identity_of_its_own(&Simulator::fwtpm().tcti());
}

fn simulator_factory_identities() {
    factory_identities(&Simulator::reference().tcti(), &[]);
}

fn simulator_keys_of_the_device() {
    keys_of_the_device(&Simulator::reference().tcti(), &[]);
}

fn simulator_pins() {
    pins(&Simulator::reference().tcti(), &[]);
}

fn simulator_keys_that_come_in() {
    keys_that_come_in(&Simulator::reference().tcti());
}

fn simulator_an_identity_of_its_own() {
    an_identity_of_its_own(&Simulator::reference().tcti());
}

/// Keys of an algorithm that is not used here, in handles among the factory's and the device's own.
fn fwtpm_ml_dsa_keys_are_in_nobodys_way() {
    let tpm = Simulator::fwtpm();
    let home = Home::new(&tpm.tcti());
    let identities = manufacture(&home, &tpm.tcti());
    let listed = || devid(&home, &["list"]).ok().text();
    let before = listed();
    for (n, handle) in [0x8102_0001, 0x8102_0004, 0x8100_0081]
        .into_iter()
        .enumerate()
    {
        keep_ml_dsa(&tpm, u16::try_from(n).unwrap() + 1, handle);
    }
    assert_eq!(listed(), before);
    let doctor = devid(&home, &["doctor"]).text();
    assert!(doctor.contains("0x81020001"), "{doctor}");
    let own = Own::new(&home);
    own.signs(own.make_persistent(Kind::P256, "kept").unwrap().private);
    let module = own.anew();
    assert_eq!(module.keys().len(), 1);
    let absent = [CKM_SHA1_RSA_PKCS, CKM_SHA512_RSA_PKCS];
    module.raw.finalize().unwrap();
    identities_sign(&home, &identities, &absent);
    nothing_is_loaded(&tpm.tcti());
    let held = run(tpm::tool("tpm2_getcap", &tpm.tcti()).arg("handles-persistent"))
        .ok()
        .text();
    assert!(held.contains("0x81020004"), "{held}");
}

fn profile_factory_identities() {
    factory_identities(&few().tcti(), &NOT_THERE);
}

fn profile_keys_of_the_device() {
    keys_of_the_device(&few().tcti(), &NOT_THERE);
}

fn profile_an_identity_of_its_own() {
    an_identity_of_its_own(&few().tcti());
}

fn profile_pins() {
    let tpm = few();
    pins(&tpm.tcti(), &NOT_THERE);
    assert_eq!(tpm.lockout_counter(), 1);
}

/// A wrong PIN is refused, the right one lets keys be made and used, and another takes its place.
fn pins(tcti: &str, absent: &[CK_MECHANISM_TYPE]) {
    let home = Home::new(tcti);
    let Own(Opened { raw, slot, session }) = Own::new(&home);
    raw.close(session).expect("C_CloseSession");
    let token = Token { raw, slot };
    token.become_one_with_pins();
    let session = token.read_write();
    let wrong = token.login(session, "a wrong one");
    assert_eq!(wrong, Err(Code(CKR_PIN_INCORRECT)));
    token.login(session, USER).expect("C_Login");
    let own = Own(Opened {
        raw: token.raw,
        slot,
        session,
    });
    for kind in [Kind::P256, Kind::Rsa(2048)] {
        let private = [(CKA_PRIVATE, YES.to_vec())];
        let both = [label(&format!("{kind:?}")), yes(CKA_TOKEN)];
        let made = own.make_with(kind, &both, &private).expect("a key");
        let judge = own.verifier(&home, made.public);
        assert!(signs_by_what_is_listed(&own, made.private, judge).verified > 0);
        if let Kind::Rsa(_) = kind {
            refuses(&own, made.private, absent);
        }
    }
    let Own(Opened { raw, .. }) = own;
    let token = Token { raw, slot };
    token
        .set_pin(session, USER, "another PIN")
        .expect("C_SetPIN");
    token.raw.logout(session).unwrap();
    token.login(session, "another PIN").expect("C_Login");
    assert_eq!(token.private_keys(session).len(), 2);
    nothing_is_loaded(tcti);
}
