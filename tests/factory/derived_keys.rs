//! Factory keys without a handle. The TPM makes such a key again from the template that the
//! manufacturer used.

use cryptoki_sys::*;
use testkit::budgets::commands::{DERIVATION, NOTHING, SIGNATURE_DERIVED};
use testkit::budgets::is_exactly;
use testkit::factory::Identity;
use testkit::fork::Forked;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{Opened, ulong};
use testkit::openssl::Verifier;
use testkit::proxy::{Fault, Proxy, command};
use testkit::raw::Code;
use testkit::tpm::Swtpm;

over_our_transport!(
    every_label_and_scheme_of_an_ecc_template,
    other_algorithms,
    a_signature_costs_three_and_leaves_nothing_behind,
    a_tpm_that_was_restarted_derives_again,
    a_certificate_of_another_key_is_found_out,
    nothing_takes_the_identitys_place,
    a_damaged_hint_is_none,
    a_child_signs_with_the_key_that_it_means,
    what_a_lost_answer_leaves_is_cleared,
);

struct Bench {
    tpm: Swtpm,
    identity: Identity,
    proxy: Proxy,
    home: Home,
}

impl Bench {
    fn new(link: Link, options: &[&str]) -> Bench {
        let (tpm, identity) = Swtpm::manufactured_with(options);
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        Bench {
            tpm,
            identity,
            proxy,
            home,
        }
    }

    /// Signs a digest, and has OpenSSL judge.
    fn signs(&self, module: &Opened) {
        let digest = [0x5A; 32];
        let signature = module.sign(CKM_ECDSA, module.key(), &digest).unwrap();
        Verifier::new(&self.identity.public_key())
            .accepts_digest(&digest, &signature)
            .ok();
    }
}

fn every_label_and_scheme_of_an_ecc_template(link: Link) {
    for unique in ["both", "x", "split", "none"] {
        for scheme in ["ecdsa", "null"] {
            let options = ["--no-persist", "--unique", unique, "--scheme", scheme];
            let bench = Bench::new(link, &options);
            let module = Opened::new(&bench.home);
            bench.signs(&module);
            module.raw.finalize().unwrap();
        }
    }
}

fn other_algorithms(link: Link) {
    for (template, mechanism, hash) in [
        ("h1", CKM_SHA256_RSA_PKCS, "-sha256"),
        ("h3", CKM_ECDSA_SHA384, "-sha384"),
        ("h4", CKM_ECDSA_SHA512, "-sha512"),
    ] {
        let bench = Bench::new(link, &["--no-persist", "--template", template]);
        let module = Opened::new(&bench.home);
        let message = b"what a device has to say";
        let signature = module.sign(mechanism, module.key(), message).unwrap();
        let judge = Verifier::new(&bench.identity.public_key());
        match template {
            "h1" => judge.accepts_der(hash, message, &signature).ok(), // as it is, for RSA
            _ => judge.accepts_message(hash, message, &signature).ok(),
        };
        module.raw.finalize().unwrap();
    }
}

fn a_signature_costs_three_and_leaves_nothing_behind(link: Link) {
    let bench = Bench::new(link, &["--no-persist"]);
    let module = Opened::new(&bench.home);
    let key = module.key();
    let book = bench.proxy.book();
    book.take();
    module.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    // The TPM answers RETRY to its first use of a key that is not noDA.
    let retried = [DERIVATION, SIGNATURE_DERIVED].concat();
    is_exactly("first of a TPM", &book.take(), &retried);
    let signs = |module: &Opened, key| {
        let Opened { raw, session, .. } = module;
        raw.sign_init(*session, CKM_ECDSA, key).unwrap();
        is_exactly("C_SignInit", &book.take(), NOTHING);
        raw.sign(*session, &[2; 32]).unwrap();
        is_exactly("C_Sign", &book.take(), SIGNATURE_DERIVED);
    };
    (0..5).for_each(|_| signs(&module, key));
    // Another process knows the template by the hint.
    module.raw.finalize().unwrap();
    let module = Opened::new(&bench.home);
    let key = module.key();
    book.take();
    module.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    is_exactly("first of a process", &book.take(), DERIVATION);
    signs(&module, key);
    assert_eq!(bench.tpm.transients(), 0);
    assert_eq!(bench.tpm.lockout_counter(), 0);
}

fn a_tpm_that_was_restarted_derives_again(link: Link) {
    let mut bench = Bench::new(link, &["--no-persist"]);
    let module = Opened::new(&bench.home);
    bench.signs(&module);
    bench.tpm.shut_down();
    bench.tpm.restart();
    bench.signs(&module);
}

/// Before the templates are tried, the certificate looks like one of a key without handle. Then its
/// private key disappears from the token, and the certificate stays.
fn a_certificate_of_another_key_is_found_out(link: Link) {
    let bench = Bench::new(link, &["--no-key"]);
    let module = Opened::new(&bench.home);
    let Opened { raw, session, .. } = &module;
    let code = raw.sign_init(*session, CKM_ECDSA, module.key());
    assert_eq!(code, Err(Code(CKR_KEY_HANDLE_INVALID)));
    let of = |class| {
        raw.find(*session, &[(CKA_CLASS, ulong(class))])
            .unwrap()
            .len()
    };
    assert_eq!(of(CKO_PRIVATE_KEY), 0);
    assert_eq!((of(CKO_PUBLIC_KEY), of(CKO_CERTIFICATE)), (1, 2));
    assert!(
        bench.home.log().contains("no factory template"),
        "{}",
        bench.home.log()
    );
    assert_eq!(bench.tpm.transients(), 0);
}

/// An attestation key's certificate, and the certificate of another key, are found before the
/// identity's. Neither takes the place of the identity. An identity with a handle does not take it
/// either.
fn nothing_takes_the_identitys_place(link: Link) {
    let options = |words: &str| {
        words
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for other in [
        "--iak --no-persist --name other",
        "--no-key --name other --nv 0x01C90150",
        "--unique x --name other --handle 0x81010020 --nv 0x01C90300",
    ] {
        let runs = [options("--no-persist"), options(other)];
        let (tpm, identities) = Swtpm::manufactured_in_runs(&runs);
        let home = Home::new(&link.tcti(&tpm.tcti()));
        let module = Opened::new(&home);
        let Opened { raw, session, .. } = &module;
        let signers = raw
            .find(*session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))])
            .unwrap();
        let judge = Verifier::new(&identities[0].public_key());
        let mine = signers.iter().filter(|key| {
            let signature = module.sign(CKM_ECDSA, **key, &[3; 32]).unwrap();
            judge.accepts_digest(&[3; 32], &signature).status.success()
        });
        assert_eq!(mine.count(), 1, "{other}");
        if !other.contains("--handle") {
            let labelled = [
                (CKA_LABEL, b"idev-id".to_vec()),
                (CKA_CLASS, ulong(CKO_PRIVATE_KEY)),
            ];
            assert_eq!(raw.find(*session, &labelled).unwrap(), signers, "{other}");
        }
        assert_eq!(tpm.transients(), 0, "{other}");
        raw.finalize().unwrap();
    }
}

fn a_damaged_hint_is_none(link: Link) {
    let bench = Bench::new(link, &["--no-persist"]);
    let module = Opened::new(&bench.home);
    bench.signs(&module);
    let run = bench.home.path("run");
    let hint = std::fs::read_dir(run)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_file())
        .expect("a hint");
    let good = std::fs::read(&hint).unwrap();
    for damaged in ["", "00", "zz", "\u{e9}", "0023000b"] {
        std::fs::write(&hint, damaged).unwrap();
        module.raw.finalize().unwrap();
        bench.signs(&Opened::new(&bench.home));
        assert_eq!(
            std::fs::read(&hint).unwrap(),
            good,
            "{damaged}: it is written anew"
        );
    }
}

/// Saved contexts of the parent's link mean nothing, or another key, to the child's.
fn a_child_signs_with_the_key_that_it_means(link: Link) {
    let options = |words: &str| {
        words
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let second = "--no-persist --template h3 --name second --nv 0x01C90300";
    let runs = [options("--no-persist"), options(second)];
    let (tpm, identities) = Swtpm::manufactured_in_runs(&runs);
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let module = Opened::new(&home);
    let Opened { raw, session, .. } = &module;
    let key = |label: &str| {
        let template = [
            (CKA_LABEL, label.as_bytes().to_vec()),
            (CKA_CLASS, ulong(CKO_PRIVATE_KEY)),
        ];
        raw.find(*session, &template).unwrap()[0]
    };
    let keys = [key("idev-id"), key("idev-id-p384")];
    for key in keys {
        module.sign(CKM_ECDSA, key, &[1; 32]).unwrap();
    }
    let child = Forked::new(|| {
        for (key, identity) in keys.iter().zip(&identities).rev() {
            let signature = module.sign(CKM_ECDSA, *key, &[2; 32]).unwrap();
            Verifier::new(&identity.public_key())
                .accepts_digest(&[2; 32], &signature)
                .ok();
        }
    });
    child.succeeds();
    assert_eq!(tpm.transients(), 0);
}

/// A loaded object whose handle was lost occupies one of the few slots. If no slot is free, our
/// objects are flushed.
fn what_a_lost_answer_leaves_is_cleared(link: Link) {
    let bench = Bench::new(link, &["--no-persist"]);
    let module = Opened::new(&bench.home);
    bench.signs(&module);
    for _ in 0..4 {
        bench
            .proxy
            .book()
            .break_next(command::CONTEXT_LOAD, Fault::Lost);
        bench.signs(&module);
    }
    assert!(bench.tpm.transients() <= 3);
    bench.signs(&module);
}
