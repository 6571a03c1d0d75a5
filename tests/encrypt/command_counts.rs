//! The number of TPM commands of decryptions, key agreements, and uses of secret keys, counted between
//! module and TPM.

use cryptoki_sys::*;
use testkit::budgets::commands::*;
use testkit::budgets::{is_exactly, managed};
use testkit::ciphers::{Bench, ecdh, mechanism, peer, pkcs1, readable};
use testkit::devid::{PERSISTENT, PROTECTION, SEALED};
use testkit::link::Link;
use testkit::managers::Kernel;
use testkit::module::ulong;
use testkit::own::{Own, P256, YES};
use testkit::raw::Item;

over_both_transports!(
    decryptions_and_agreements,
    behind_a_resource_manager,
    secret_keys
);

/// The first decryption or agreement of a process, and each further one, for each storage.
fn decryptions_and_agreements(link: Link) {
    let bench = Bench::new(link);
    let book = bench.proxy.book();
    let (_, point) = bench.peer("P-256", 32);
    // The first auth session of the process reads the key for salts.
    let (public, key) = bench.own.decrypting(&[]);
    let hidden = bench.own.encrypt(pkcs1(), public, b"hello").unwrap();
    book.take();
    bench.own.decrypt(pkcs1(), key, &hidden).unwrap();
    let first = [SALT_KEY, DECRYPTION_WRAPPED].concat();
    is_exactly("C_Decrypt, first of a process", &book.take(), &first);
    for (storage, also, decryption, agreement, opening) in [
        (
            "in a file, wrapped",
            None,
            DECRYPTION_WRAPPED,
            AGREEMENT_WRAPPED,
            NOTHING,
        ),
        (
            "in a persistent handle",
            Some((PERSISTENT, YES.to_vec())),
            DECRYPTION,
            AGREEMENT,
            HANDLE_CHECK,
        ),
        (
            "sealed",
            Some((PROTECTION, ulong(SEALED))),
            NOTHING,
            NOTHING,
            OPENING_OF_A_KEY,
        ),
    ] {
        let is = |doing: &str, budget: &[u32]| {
            is_exactly(&format!("{storage}: {doing}"), &book.take(), budget);
        };
        let also: Vec<Item> = also.into_iter().collect();
        let (public, key) = bench.own.decrypting(&also);
        book.take();
        let hidden = bench.own.encrypt(pkcs1(), public, b"hello").unwrap();
        is("C_Encrypt", NOTHING);
        bench.own.decrypt(pkcs1(), key, &hidden).unwrap();
        is("C_Decrypt, first", &[opening, decryption].concat());
        for _ in 0..2 {
            bench.own.decrypt(pkcs1(), key, &hidden).unwrap();
            is("C_Decrypt", decryption);
        }

        let (_, key) = bench.own.agreeing(&P256, &also);
        book.take();
        let parameter = ecdh(CKD_NULL, &[], &point);
        let by = mechanism(CKM_ECDH1_DERIVE, Some(&parameter));
        bench.own.derive(by, key, &readable()).unwrap();
        is("C_DeriveKey, first", &[opening, agreement].concat());
        for _ in 0..2 {
            let derived = bench.own.derive(by, key, &readable()).unwrap();
            is("C_DeriveKey", agreement);
            bench.own.attribute(derived, CKA_VALUE);
            bench.own.destroy(derived).unwrap();
            is("the derived key", NOTHING);
        }
    }
}

/// There a key stays loaded after its first use.
fn behind_a_resource_manager(link: Link) {
    let (_tpm, home, kernel) = Kernel::with_home(link);
    let own = Own::new(&home);
    let is = |doing: &str, budget: &[u32]| is_exactly(doing, &kernel.taken(link), budget);
    let (public, _) = own.decrypting(&[]);
    let hidden = own.encrypt(pkcs1(), public, b"hello").unwrap();
    let own = own.anew();
    let key = own.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))])[0];
    kernel.taken(link);
    own.decrypt(pkcs1(), key, &hidden).unwrap();
    let first = [SALT_KEY, managed(DECRYPTION_WRAPPED)].concat();
    is("C_Decrypt, first of a process", &first);
    own.decrypt(pkcs1(), key, &hidden).unwrap();
    is("C_Decrypt", DECRYPTION);
    let (_, key) = own.agreeing(&P256, &[]);
    let (_, point) = peer(&home);
    let parameter = ecdh(CKD_NULL, &[], &point);
    let by = mechanism(CKM_ECDH1_DERIVE, Some(&parameter));
    kernel.taken(link);
    for _ in 0..2 {
        own.derive(by, key, &readable()).unwrap();
        is("C_DeriveKey", AGREEMENT);
    }
}

/// A secret key of the token is sealed. The TPM opens the key once, and has no part in its uses.
fn secret_keys(link: Link) {
    let bench = Bench::new(link);
    let book = bench.proxy.book();
    let own = &bench.own;
    own.pair("the master key is made with the first");
    let is = |doing: &str, budget: &[u32]| is_exactly(doing, &book.take(), budget);
    let cbc = || mechanism(CKM_AES_CBC, Some(&[0_u8; 16]));
    let encrypts = (CKA_ENCRYPT, YES.to_vec());
    book.take();
    let key = own.aes_key(&[(CKA_TOKEN, YES.to_vec()), encrypts.clone()]);
    is("C_GenerateKey", GENERATION_SEALED);
    own.encrypt(cbc(), key, &[7; 32]).unwrap();
    is("C_Encrypt, first", &[SALT_KEY, OPENING_OF_A_KEY].concat());
    for _ in 0..3 {
        own.encrypt(cbc(), key, &[7; 32]).unwrap();
        is("C_Encrypt", NOTHING);
    }
    own.destroy(key).unwrap();
    is("C_DestroyObject", NOTHING);
    let of_session = own.aes_key(&[encrypts]);
    own.encrypt(cbc(), of_session, &[7; 32]).unwrap();
    is("a secret key of a session", NOTHING);
}
