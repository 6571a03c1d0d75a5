//! Sealed RSA keys and RSA keys in files, which the module uses in memory. They sign and decrypt,
//! and OpenSSL checks the results.

use cryptoki_sys::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use testkit::budgets::commands::{OPENING_OF_A_KEY, SALT_KEY};
use testkit::budgets::is_exactly;
use testkit::ciphers::{Bench, mechanism, oaep, openssl_encrypts, pkcs1};
use testkit::devid::{IN_FILE, PROTECTION, SEALED};
use testkit::fork::Forked;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::ulong;
use testkit::openssl::{Verifier, rsa_numbers};
use testkit::own::{NO, Own, RSA_KEY, YES, folder, outside, without_tpm};
use testkit::programs::{output, program, run};
use testkit::raw::{Code, Item};
use testkit::signing::{HASHES, Hash, Message, Signer};

over_our_transport!(
    a_sealed_key_signs_all_that_it_lists,
    it_decrypts,
    it_costs_commands_once,
    what_it_says,
    digests_by_sha1_are_the_tpms_own,
    every_fault_of_a_ciphertext_is_one,
    a_child_signs_with_random_numbers_of_its_own,
    the_private_half_of_another_key,
    a_key_that_is_brought,
    numbers_that_do_not_belong_together,
    all_sizes_without_a_tpm,
    openssl_makes_a_file_key,
    files_that_are_no_keys_for_memory,
);

fn made(own: &Own, bits: CK_ULONG, protection: CK_ULONG) -> (CK_ULONG, CK_ULONG) {
    let both: [Item; 2] = [(CKA_TOKEN, YES.to_vec()), (CKA_LABEL, b"soft".to_vec())];
    let public = [
        &both[..],
        &[(CKA_MODULUS_BITS, ulong(bits)), (CKA_ENCRYPT, YES.to_vec())],
    ]
    .concat();
    let private = [
        &both[..],
        &[(PROTECTION, ulong(protection)), (CKA_DECRYPT, YES.to_vec())],
    ]
    .concat();
    let made = own.generate(CKM_RSA_PKCS_KEY_PAIR_GEN, &public, &private);
    made.expect("C_GenerateKeyPair")
}

fn found(own: &Own, label: &str) -> (CK_ULONG, CK_ULONG) {
    let find = |class| own.find(&[(CKA_CLASS, ulong(class)), (CKA_LABEL, label.into())])[0];
    (find(CKO_PUBLIC_KEY), find(CKO_PRIVATE_KEY))
}

fn allowed(own: &Own, private: CK_ULONG) -> Vec<CK_ULONG> {
    let allowed = own.attribute(private, CKA_ALLOWED_MECHANISMS);
    let words = allowed
        .chunks(size_of::<CK_ULONG>())
        .map(|word| word.try_into().unwrap());
    words.map(CK_ULONG::from_ne_bytes).collect()
}

/// By each mechanism that the key lists, over each digest that it takes.
#[track_caller]
fn signs(own: &Own, home: &Home, (public, private): (CK_ULONG, CK_ULONG)) {
    let mut mechanisms = allowed(own, private);
    mechanisms.retain(|kind| ![CKM_RSA_PKCS_OAEP, CKM_RSA_AES_KEY_WRAP].contains(kind));
    assert_eq!(mechanisms.len(), 8, "{mechanisms:x?}");
    let tried = Signer {
        module: own,
        key: private,
        judge: own.verifier(home, public),
        message: &Message::new(),
        hashes: ["sha256", "sha384", "sha512"].map(Hash::named).to_vec(),
    }
    .try_all(&mechanisms);
    assert!(tried.faults.is_empty(), "{}", tried.faults.join("\n"));
    assert!(tried.verified >= 18, "{}", tried.verified);
}

fn a_sealed_key_signs_all_that_it_lists(link: Link) {
    let bench = Bench::new(link);
    let Bench { tpm, home, own, .. } = &bench;
    let pair = made(own, 2048, SEALED);
    signs(own, home, pair);
    own.raw.finalize().unwrap();
    let own = Own::new(home);
    signs(&own, home, found(&own, "soft"));
    // The token's list, too: what each of its keys can do.
    let listed = own.raw.mechanisms(own.slot).unwrap();
    for kind in allowed(&own, found(&own, "soft").1) {
        assert!(listed.contains(&kind), "{kind:#x}");
    }
    assert_eq!(tpm.transients(), 0);
}

fn it_costs_commands_once(link: Link) {
    let bench = Bench::new(link);
    let Bench { proxy, own, .. } = &bench;
    let (_, private) = made(own, 2048, SEALED);
    proxy.book().take();
    let data = Hash::named("sha256").digest_info(&[7; 32]);
    for _ in 0..20 {
        own.sign(CKM_RSA_PKCS, private, &data).unwrap();
    }
    let book = proxy.book().take();
    let opening = [SALT_KEY, OPENING_OF_A_KEY].concat();
    is_exactly("all signatures", &book, &opening);
}

fn what_it_says(link: Link) {
    let bench = Bench::new(link);
    let Bench { home, own, .. } = &bench;
    let (public, private) = made(own, 2048, SEALED);
    for (kind, expected) in [
        (PROTECTION, ulong(SEALED)),
        (CKA_SENSITIVE, YES.to_vec()),
        (CKA_ALWAYS_SENSITIVE, YES.to_vec()),
        (CKA_EXTRACTABLE, NO.to_vec()),
        (CKA_NEVER_EXTRACTABLE, NO.to_vec()),
        (CKA_LOCAL, YES.to_vec()),
        (CKA_DECRYPT, YES.to_vec()),
        (CKA_MODULUS, own.attribute(public, CKA_MODULUS)),
    ] {
        assert_eq!(own.attribute(private, kind), expected, "{kind:#x}");
    }
    for kind in [CKA_PRIVATE_EXPONENT, CKA_PRIME_1, CKA_COEFFICIENT] {
        let value = own.raw.attribute(own.session, private, kind);
        assert_eq!(value, Err(Code(CKR_ATTRIBUTE_SENSITIVE)));
    }
    let text = fs::read_to_string(&folder(home)[0]).unwrap();
    assert!(!text.contains("BEGIN PRIVATE KEY"), "{text}");
    for label in ["TSS2 PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "PUBLIC KEY"] {
        assert!(text.contains(&format!("BEGIN {label}-")), "{text}");
    }
}

/// A key in memory makes no signature over a SHA-1 digest, and the token does not list such
/// mechanisms.
fn digests_by_sha1_are_the_tpms_own(link: Link) {
    let bench = Bench::new(link);
    let Bench { own, .. } = &bench;
    let (_, private) = made(own, 2048, SEALED);
    let sha1 = Hash::named("sha1");
    let refused = own.sign(CKM_RSA_PKCS, private, &sha1.digest_info(&[7; 20]));
    assert_eq!(refused, Err(Code(CKR_DATA_INVALID)));
    let refused = own.sign(CKM_SHA1_RSA_PKCS, private, b"hello");
    assert_eq!(refused, Err(Code(CKR_MECHANISM_INVALID)));
    assert!(!allowed(own, private).contains(&CKM_SHA1_RSA_PKCS));
    let parameter = sha1.pss_parameter();
    let refused = own
        .raw
        .sign_init_with(own.session, CKM_RSA_PKCS_PSS, &parameter, private);
    assert_eq!(refused, Err(Code(CKR_MECHANISM_PARAM_INVALID)));
}

fn it_decrypts(link: Link) {
    let bench = Bench::new(link);
    let Bench { home, own, .. } = &bench;
    let (public, private) = made(own, 2048, SEALED);
    let pem = own.pem(home, public);
    for message in [&b"hello"[..], &[7; 245], &[0; 1], &[]] {
        let hidden = openssl_encrypts(home, &pem, &[], message);
        let plain = own.decrypt(pkcs1(), private, &hidden);
        assert_eq!(plain, Ok(message.to_vec()));
    }
    let encrypted = |hash: &Hash, mask: &Hash, label: &[u8]| {
        let digits: String = label.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut options = vec![
            "rsa_padding_mode:oaep".to_owned(),
            format!("rsa_oaep_md:{}", hash.name),
            format!("rsa_mgf1_md:{}", mask.name),
        ];
        options.extend((!label.is_empty()).then(|| format!("rsa_oaep_label:{digits}")));
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        openssl_encrypts(home, &pem, &options, b"hello")
    };
    for hash in &HASHES {
        for label in [&b""[..], b"a label"] {
            let hidden = encrypted(hash, hash, label);
            let parameter = oaep(hash.kind, hash.mask, label);
            let by = mechanism(CKM_RSA_PKCS_OAEP, Some(&parameter));
            let plain = own.decrypt(by, private, &hidden);
            assert_eq!(plain, Ok(b"hello".to_vec()), "{}", hash.name);
        }
    }
    let (sha1, sha256) = (Hash::named("sha1"), Hash::named("sha256"));
    let hidden = encrypted(sha256, sha1, b"");
    let parameter = oaep(sha256.kind, sha1.mask, b"");
    let by = mechanism(CKM_RSA_PKCS_OAEP, Some(&parameter));
    let refused = own.decrypt(by, private, &hidden);
    assert_eq!(refused, Err(Code(CKR_MECHANISM_PARAM_INVALID)));
    home.log_says(&["OAEP", "same hash"]);
    // The session goes on.
    let hidden = openssl_encrypts(home, &pem, &[], b"hello");
    assert!(own.decrypt(pkcs1(), private, &hidden).is_ok());
}

fn every_fault_of_a_ciphertext_is_one(link: Link) {
    let bench = Bench::new(link);
    let Bench { home, own, .. } = &bench;
    let (public, private) = made(own, 2048, SEALED);
    let pem = own.pem(home, public);
    let block = |begin: &[u8], fill: u8, end: &[u8]| {
        let fill = vec![fill; 256 - begin.len() - end.len()];
        let raw = ["rsa_padding_mode:none"];
        openssl_encrypts(home, &pem, &raw, &[begin, &fill, end].concat())
    };
    let parameter = oaep(CKM_SHA256, CKG_MGF1_SHA256, b"");
    for wrong in [
        block(&[0, 1], 7, b"\0hello"),
        block(&[0, 2], 7, b""),
        block(&[0, 2, 7, 7, 0], 7, b"hello"),
        block(&[0, 0], 0, b""),
        vec![0xFF; 256],
        vec![0; 256],
    ] {
        for by in [pkcs1(), mechanism(CKM_RSA_PKCS_OAEP, Some(&parameter))] {
            let refused = own.decrypt(by, private, &wrong);
            assert_eq!(refused, Err(Code(CKR_ENCRYPTED_DATA_INVALID)));
        }
    }
    let options = ["rsa_padding_mode:oaep", "rsa_oaep_md:sha256"];
    let hidden = openssl_encrypts(home, &pem, &options, b"hello");
    let parameter = oaep(CKM_SHA256, CKG_MGF1_SHA256, b"other");
    let by = mechanism(CKM_RSA_PKCS_OAEP, Some(&parameter));
    let refused = own.decrypt(by, private, &hidden);
    assert_eq!(refused, Err(Code(CKR_ENCRYPTED_DATA_INVALID)));
}

/// A salt that two processes share would tell that they are of one state.
fn a_child_signs_with_random_numbers_of_its_own(link: Link) {
    let bench = Bench::new(link);
    let Bench { home, own, .. } = &bench;
    let pair = made(own, 2048, SEALED);
    let (sha256, digest) = (Hash::named("sha256"), [7; 32]);
    let sign = || {
        let (raw, session) = (&own.raw, own.session);
        raw.sign_init_with(session, CKM_RSA_PKCS_PSS, &sha256.pss_parameter(), pair.1)
            .expect("C_SignInit");
        raw.sign(session, &digest).expect("C_Sign")
    };
    sign();
    let names = ["one", "two"];
    let children = names.map(|name| {
        let file = home.path(name);
        Forked::new(|| fs::write(file, sign()).expect("a file"))
    });
    let mut signatures = vec![sign()];
    children.into_iter().for_each(Forked::succeeds);
    signatures.extend(names.map(|name| fs::read(home.path(name)).unwrap()));
    let judge = own.verifier(home, pair.0);
    for signature in &signatures {
        judge.accepts_pss(sha256.name, &digest, signature).ok();
    }
    signatures.sort_unstable();
    signatures.dedup();
    assert_eq!(signatures.len(), 3);
}

/// Two files, in which the public halves were exchanged.
fn the_private_half_of_another_key(link: Link) {
    let bench = Bench::new(link);
    let Bench { home, own, .. } = &bench;
    made(own, 2048, SEALED);
    made(own, 2048, SEALED);
    own.raw.finalize().unwrap();
    let files = folder(home);
    let texts = [0, 1].map(|at| fs::read_to_string(&files[at]).unwrap());
    let public = |text: &str| text.find("-----BEGIN PUBLIC KEY").unwrap();
    for (at, file) in files.iter().enumerate() {
        let (own, other) = (&texts[at], &texts[1 - at]);
        let mixed = [&own[..public(own)], &other[public(other)..]].concat();
        fs::write(file, mixed).unwrap();
    }
    let own = Own::new(home);
    let keys = own.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
    assert_eq!(keys.len(), 2);
    for key in keys {
        let refused = own.sign(CKM_SHA256_RSA_PKCS, key, b"data");
        assert_eq!(refused, Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED)));
    }
    home.log_says(&["does not belong to its public key"]);
}

fn brought(numbers: &[Vec<u8>], prime: CK_ATTRIBUTE_TYPE, protection: CK_ULONG) -> Vec<Item> {
    vec![
        (CKA_CLASS, ulong(CKO_PRIVATE_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_RSA)),
        (CKA_TOKEN, YES.to_vec()),
        (CKA_MODULUS, numbers[0].clone()),
        (CKA_PUBLIC_EXPONENT, vec![1, 0, 1]),
        (prime, numbers[1].clone()),
        (PROTECTION, ulong(protection)),
    ]
}

fn a_key_that_is_brought(link: Link) {
    let bench = Bench::new(link);
    let Bench { home, own, .. } = &bench;
    for (bits, file) in [("2048", "small"), ("4096", "large")] {
        let bits = format!("rsa_keygen_bits:{bits}");
        outside(home, file, &["-algorithm", "RSA", "-pkeyopt", &bits]);
        let judge = Verifier::new(&home.path(&format!("{file}.pub")));
        let key = home.path(&format!("{file}.key"));
        for (name, kind) in [("prime1", CKA_PRIME_1), ("prime2", CKA_PRIME_2)] {
            let numbers = rsa_numbers(&key, &["modulus", name]);
            let key = own.create(&brought(&numbers, kind, SEALED)).unwrap();
            for (kind, value) in [
                (PROTECTION, ulong(SEALED)),
                (CKA_LOCAL, NO.to_vec()),
                (CKA_ALWAYS_SENSITIVE, NO.to_vec()),
                (CKA_SENSITIVE, YES.to_vec()),
            ] {
                assert_eq!(own.attribute(key, kind), value, "{kind:#x}");
            }
            let signature = own.sign(CKM_SHA256_RSA_PKCS, key, b"data").unwrap();
            judge.accepts_der("-sha256", b"data", &signature).ok();
        }
    }
}

fn numbers_that_do_not_belong_together(link: Link) {
    let bench = Bench::new(link);
    let Bench { home, own, .. } = &bench;
    for name in ["one", "two"] {
        outside(home, name, &RSA_KEY);
    }
    let mut mixed = rsa_numbers(&home.path("one.key"), &["modulus", "prime1"]);
    mixed[1] = rsa_numbers(&home.path("two.key"), &["prime1"]).remove(0);
    let refused = own.create(&brought(&mixed, CKA_PRIME_1, SEALED));
    assert_eq!(refused, Err(Code(CKR_TEMPLATE_INCONSISTENT)));
    let whole = rsa_numbers(&home.path("one.key"), &["modulus", "prime1"]);
    let refused = own.create(&brought(&whole, CKA_PRIME_1, IN_FILE));
    assert_eq!(refused, Err(Code(CKR_TEMPLATE_INCONSISTENT)));
    home.log_says(&["allow_file_keys"]);
    assert!(folder(home).is_empty());
}

fn all_sizes_without_a_tpm(_: Link) {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    for bits in [2048, 3072, 4096] {
        let pair = made(&own, bits, IN_FILE);
        assert_eq!(own.attribute(pair.1, PROTECTION), ulong(IN_FILE));
        assert_eq!(own.attribute(pair.0, CKA_MODULUS_BITS), ulong(bits));
        signs(&own, &home, pair);
        let hidden = openssl_encrypts(&home, &own.pem(&home, pair.0), &[], b"hello");
        assert_eq!(own.decrypt(pkcs1(), pair.1, &hidden), Ok(b"hello".to_vec()));
    }
    let info = own
        .raw
        .mechanism_info(own.slot, CKM_SHA256_RSA_PKCS)
        .unwrap();
    assert_eq!((info.ulMinKeySize, info.ulMaxKeySize), (2048, 4096));
    let written = fs::read_dir(home.path("files")).unwrap().flatten();
    for file in written.filter(|file| file.path().extension().is_some_and(|it| it == "pem")) {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

/// Has `openssl genpkey` make a file in the folder of keys.
fn dropped(home: &Home, name: &str, options: &[&str]) {
    let file = home.path(&format!("files/{name}.pem"));
    let mut make = program("openssl");
    make.arg("genpkey").args(options).arg("-out");
    run(make.arg(&file)).ok();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
}

fn openssl_makes_a_file_key(_: Link) {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    own.pair("first"); // so that there is a folder
    dropped(&home, "server", &RSA_KEY);
    dropped(
        &home,
        "odd",
        &[
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2056",
            "-pkeyopt",
            "rsa_keygen_pubexp:3",
        ],
    );
    for name in ["server", "odd"] {
        signs(&own, &home, found(&own, name));
    }
}

fn files_that_are_no_keys_for_memory(_: Link) {
    let home = without_tpm();
    let own = Own::on(&home, "files");
    own.pair("first");
    dropped(
        &home,
        "small",
        &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
    );
    let primes = ["-pkeyopt", "rsa_keygen_primes:3"];
    dropped(&home, "many", &[&RSA_KEY[..], &primes].concat());
    dropped(&home, "pss", &["-algorithm", "RSA-PSS"]);
    dropped(&home, "edwards", &["-algorithm", "ED25519"]);
    for name in ["small", "many", "pss", "edwards"] {
        assert_eq!(own.labelled(name), [], "{name}");
    }
    home.log_says(&["small", "2048 to 4096 bits"]);
    home.log_says(&["many", "more than two primes"]);
    home.log_says(&["pss", "1.2.840.113549.1.1.10"]);
    // Damaged within: the numbers no longer fit, which shows when it is used.
    dropped(&home, "damaged", &RSA_KEY);
    let file = home.path("files/damaged.pem");
    let mut der = program("openssl");
    der.args(["pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in"])
        .arg(&file);
    let mut der = run(&mut der).ok().out;
    let last = der.len() - 1;
    der[last] ^= 1;
    let raw = home.write("damaged.der", &der);
    let base64 = output("base64", ["-w64", raw.to_str().unwrap()]);
    let base64 = String::from_utf8(base64).unwrap();
    fs::write(
        &file,
        format!("-----BEGIN PRIVATE KEY-----\n{base64}-----END PRIVATE KEY-----\n"),
    )
    .unwrap();
    let (_, key) = found(&own, "damaged");
    let refused = own.sign(CKM_SHA256_RSA_PKCS, key, b"data");
    assert_eq!(refused, Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED)));
}
