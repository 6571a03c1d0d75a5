//! The visible effects of unwrapping: the data on the bus, the list of mechanisms, and the
//! attributes of the unwrapping keys.

use cryptoki_sys::*;
use std::fs;
use testkit::budgets::commands::{DECRYPTION_WRAPPED, IMPORT_OF_A_KEY, NOTHING};
use testkit::budgets::is_exactly;
use testkit::ciphers::{Bench, mechanism, oaep, openssl_decrypts, openssl_encrypts};
use testkit::home::Home;
use testkit::link::Link;
use testkit::memory::contains;
use testkit::module::{Opened, loaded, ulong};
use testkit::openssl::public_key_der;
use testkit::own::{NO, Own, YES, folder};
use testkit::raw::Code;
use testkit::tpm::Swtpm;
use testkit::wrapping::{
    AesWrap, KEYS, by_aes_wrapped, keys, oaep_options, private_key_info, random, rsa_aes, signs_as,
    wanted,
};

over_our_transport!(
    what_an_unwrapping_costs_and_shows,
    who_unwraps_says_so,
    secret_keys_that_are_brought,
);

/// A key that is wrapped for an RSA key costs a decryption more than other keys. No command carries
/// the private key or a secret that unwraps it.
fn what_an_unwrapping_costs_and_shows(link: Link) {
    let bench = Bench::new(link);
    let (home, own) = (&bench.home, &bench.own);
    keys(home);
    let sha256 = oaep(CKM_SHA256, CKG_MGF1_SHA256, b"");
    let parameter = rsa_aes(256, &sha256);
    let by_rsa = mechanism(CKM_RSA_AES_KEY_WRAP, Some(&parameter));
    let by_oaep = mechanism(CKM_RSA_PKCS_OAEP, Some(&sha256));
    let by_aes = AesWrap::Kwp.plain();
    let value = random(32);
    let transport = own.transport(CKK_AES, &value).unwrap();
    // The unwrapping key came wrapped itself, so that OpenSSL can do what the TPM does with it.
    let wrapped = by_aes_wrapped(home, &value, "rsa");
    let uses = [CKA_TOKEN, CKA_UNWRAP, CKA_DECRYPT].map(|kind| (kind, YES.to_vec()));
    let template = wanted(CKK_RSA, &uses);
    let key = own.unwrap(by_aes, transport, &wrapped, &template).unwrap();
    // The key that hides the TPM's answers is read once.
    let front = openssl_encrypts(
        home,
        &home.path("rsa.pub"),
        &oaep_options("sha256"),
        b"hello",
    );
    own.decrypt(by_oaep, key, &front).unwrap();
    let watched = |call: &dyn Fn() -> CK_ULONG| {
        bench.proxy.book().take();
        bench.proxy.book().keep();
        let made = call();
        (made, bench.proxy.book().take(), bench.proxy.book().wire())
    };
    let is_seen = |wire: &[Vec<u8>], bytes: &[u8]| wire.iter().any(|it| contains(it, bytes));
    for (name, _, key_type) in KEYS {
        let info = private_key_info(home, name);
        let aes = random(32);
        let options = oaep_options("sha256");
        let front = openssl_encrypts(home, &home.path("rsa.pub"), &options, &aes);
        let raw = ["rsa_padding_mode:none"];
        let block = openssl_decrypts(home, &home.path("rsa.key"), &raw, &front);
        let for_rsa = [&front[..], &AesWrap::Kwp.wraps(home, &aes, &info)].concat();
        let for_aes = by_aes_wrapped(home, &value, name);
        for (by, with, wrapped, decryption) in [
            (by_rsa, key, &for_rsa, DECRYPTION_WRAPPED),
            (by_aes, transport, &for_aes, NOTHING),
        ] {
            let template = wanted(key_type, &[]);
            let (made, book, mut wire) = watched(&|| {
                let made = own.unwrap(by, with, wrapped, &template);
                made.unwrap()
            });
            let budget = [decryption, IMPORT_OF_A_KEY].concat();
            is_exactly("C_UnwrapKey", &book, &budget);
            let (_, _, signing) = watched(&|| {
                signs_as(own, home, made, name);
                made
            });
            wire.extend(signing);
            // The search finds data that did cross the bus: the public key.
            let public = public_key_der(&home.path(&format!("{name}.pub")));
            let (known, number) = match name {
                "rsa" => (&public[40..72], &info[info.len() / 2..]),
                _ => (&public[public.len() - 32..], &info[36..68]),
            };
            assert!(is_seen(&wire, known));
            for part in number.chunks_exact(16) {
                assert!(!is_seen(&wire, part), "{name}: a part of the private key");
            }
            // Nor the block that holds the AES key, for whoever takes its padding off.
            assert!(!is_seen(&wire, &block[1..]), "{name}: what unwraps it");
        }
    }
    assert_eq!(bench.tpm.transients(), 0);
}

/// Flags and mechanisms promise what there is; of keys whose files say more, too.
fn who_unwraps_says_so(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured_with(&["--template", "h1"]);
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let own = Own::new(&home);
    let kinds = [CKM_RSA_AES_KEY_WRAP, CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_KWP];
    let factory = own.raw.slots(true).unwrap()[0];
    for kind in own.raw.mechanisms(factory).unwrap() {
        let flags = own.raw.mechanism_info(factory, kind).unwrap().flags;
        assert_eq!(flags & (CKF_WRAP | CKF_UNWRAP), 0);
        assert!(!kinds.contains(&kind));
    }
    let session = own.raw.open(factory, CKF_SERIAL_SESSION).unwrap();
    let identity = Own(Opened {
        raw: loaded(&home),
        slot: factory,
        session,
    });
    let refused = identity.transport(CKK_AES, &[7; 32]);
    assert_eq!(refused, Err(Code(CKR_ATTRIBUTE_VALUE_INVALID)));
    let (by, template) = (AesWrap::Kwp.plain(), wanted(CKK_EC, &[]));
    let refused = identity.unwrap(by, 1, &[7; 64], &template);
    assert_eq!(refused, Err(Code(CKR_MECHANISM_INVALID)));
    let listed = own.raw.mechanisms(own.slot).unwrap();
    for kind in &listed {
        let info = own.raw.mechanism_info(own.slot, *kind).unwrap();
        let unwraps = kinds.contains(kind);
        assert_eq!(info.flags & CKF_UNWRAP != 0, unwraps, "{kind:#x}");
        assert_eq!(info.flags & CKF_WRAP, 0, "{kind:#x}");
    }
    assert!(kinds.iter().all(|kind| listed.contains(kind)));
    let sizes = |kind| {
        let info = own.raw.mechanism_info(own.slot, kind).unwrap();
        (info.ulMinKeySize, info.ulMaxKeySize)
    };
    assert_eq!(sizes(CKM_AES_KEY_WRAP), (16, 32));
    // As large as this TPM takes RSA keys.
    assert_eq!(sizes(CKM_RSA_AES_KEY_WRAP), (2048, 3072));

    let all = [CKA_WRAP, CKA_ENCRYPT].map(|kind| (kind, YES.to_vec()));
    let public = [
        &all[..],
        &[(CKA_MODULUS_BITS, ulong(2048)), (CKA_TOKEN, YES.to_vec())],
    ]
    .concat();
    let private = [CKA_UNWRAP, CKA_TOKEN].map(|kind| (kind, YES.to_vec()));
    let kind = CKM_RSA_PKCS_KEY_PAIR_GEN;
    let (public, private) = own.generate(kind, &public, &private).unwrap();
    let (other_public, other) = own.pair("ec");
    for (key, attribute, value) in [
        (public, CKA_WRAP, NO),
        (public, CKA_ENCRYPT, YES),
        (private, CKA_UNWRAP, YES),
        (private, CKA_DECRYPT, NO),
        (other_public, CKA_WRAP, NO),
        (other, CKA_UNWRAP, NO),
    ] {
        assert_eq!(own.attribute(key, attribute), value, "{attribute:#x}");
    }
    let allowed = own.attribute(private, CKA_ALLOWED_MECHANISMS);
    let mut allowed = allowed.chunks(size_of::<CK_ULONG>());
    assert!(allowed.any(|one| one == CKM_RSA_AES_KEY_WRAP.to_ne_bytes()));
    // A file of old says that its public half wraps, and its private half on a curve unwraps.
    own.raw.finalize().unwrap();
    for file in folder(&home) {
        let text = fs::read_to_string(&file).unwrap();
        let said = text.replace("Usage: verify, encrypt", "Usage: verify, encrypt, wrap");
        let said = said.replace("Usage: verify\n", "Usage: verify, wrap\n");
        let said = said.replace("Usage: sign\n", "Usage: sign, unwrap\n");
        assert!(said.contains("wrap"), "{text}");
        fs::write(&file, said).unwrap();
    }
    let own = Own::new(&home);
    for (class, attribute, count) in [
        (CKO_PUBLIC_KEY, CKA_WRAP, 0),
        (CKO_PRIVATE_KEY, CKA_UNWRAP, 1),
    ] {
        let found = own.find(&[(CKA_CLASS, ulong(class)), (attribute, YES.to_vec())]);
        assert_eq!(found.len(), count);
        assert_eq!(own.find(&[(CKA_CLASS, ulong(class))]).len(), 2);
    }
}

fn secret_keys_that_are_brought(link: Link) {
    let bench = Bench::new(link);
    let own = &bench.own;
    bench.proxy.book().take();
    let transport = own.transport(CKK_AES, &[7; 24]).unwrap();
    for (kind, value) in [
        (CKA_CLASS, ulong(CKO_SECRET_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_AES)),
        (CKA_TOKEN, NO.to_vec()),
        (CKA_LOCAL, NO.to_vec()),
        (CKA_SENSITIVE, YES.to_vec()),
        (CKA_ALWAYS_SENSITIVE, NO.to_vec()),
        (CKA_EXTRACTABLE, NO.to_vec()),
        (CKA_NEVER_EXTRACTABLE, NO.to_vec()),
        (CKA_VALUE_LEN, ulong(24)),
        (CKA_UNWRAP, YES.to_vec()),
        (CKA_WRAP, NO.to_vec()),
    ] {
        assert_eq!(own.attribute(transport, kind), value, "{kind:#x}");
    }
    let allowed = [
        CKM_AES_ECB,
        CKM_AES_CBC,
        CKM_AES_CBC_PAD,
        CKM_AES_GCM,
        CKM_AES_KEY_WRAP,
        CKM_AES_KEY_WRAP_KWP,
    ];
    let allowed = allowed.map(ulong).concat();
    assert_eq!(own.attribute(transport, CKA_ALLOWED_MECHANISMS), allowed);
    let hidden = own.raw.attribute(own.session, transport, CKA_VALUE);
    assert_eq!(hidden, Err(Code(CKR_ATTRIBUTE_SENSITIVE)));
    let base = [
        (CKA_CLASS, ulong(CKO_SECRET_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_AES)),
        (CKA_VALUE, vec![7; 16]),
    ];
    let open = [
        (CKA_SENSITIVE, NO.to_vec()),
        (CKA_EXTRACTABLE, YES.to_vec()),
    ];
    let readable = own.create(&[&base[..], &open].concat()).unwrap();
    assert_eq!(own.attribute(readable, CKA_VALUE), [7; 16]);
    let silent = own.create(&base).unwrap();
    assert_eq!(own.attribute(silent, CKA_UNWRAP), NO);
    let ciphers = [CKM_AES_ECB, CKM_AES_CBC, CKM_AES_CBC_PAD, CKM_AES_GCM];
    let ciphers = ciphers.map(ulong).concat();
    assert_eq!(own.attribute(silent, CKA_ALLOWED_MECHANISMS), ciphers);
    for (at, item, code) in [
        (2, (CKA_VALUE, vec![7; 20]), CKR_ATTRIBUTE_VALUE_INVALID),
        (2, (CKA_LABEL, vec![]), CKR_TEMPLATE_INCOMPLETE),
        (1, (CKA_LABEL, vec![]), CKR_TEMPLATE_INCOMPLETE),
        (
            1,
            (CKA_KEY_TYPE, ulong(CKK_DES3)),
            CKR_TEMPLATE_INCONSISTENT,
        ),
    ] {
        let mut template = base.clone();
        template[at] = item;
        assert_eq!(own.create(&template), Err(Code(code)));
    }
    // A value that the TPM seals can never be read.
    let on_token = [&base[..], &open, &[(CKA_TOKEN, YES.to_vec())]].concat();
    assert_eq!(own.create(&on_token), Err(Code(CKR_TEMPLATE_INCONSISTENT)));
    own.destroy(transport).unwrap();
    let refused = own.unwrap(
        AesWrap::Kwp.plain(),
        transport,
        &[7; 64],
        &wanted(CKK_EC, &[]),
    );
    assert_eq!(refused, Err(Code(CKR_UNWRAPPING_KEY_HANDLE_INVALID)));
    assert_eq!(bench.proxy.book().take().total(), 0);
}
