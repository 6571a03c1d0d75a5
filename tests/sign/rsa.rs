//! RSA: the data for CKM_RSA_PKCS, the parameters for PSS, and refusals. A refused call costs no
//! TPM command, and a signature costs one command.

use cryptoki_sys::*;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::Opened;
use testkit::openssl::Verifier;
use testkit::proxy::{Fault, Proxy, answer, command};
use testkit::raw::Code;
use testkit::signing::{HASHES, Hash, Message, Signer};
use testkit::tpm::Swtpm;

over_our_transport!(
    a_signature_costs_one_command,
    the_length_is_the_modulus,
    data_that_is_no_digest_info,
    pss_takes_one_salt_and_no_other,
    pss_wants_a_whole_digest,
    a_damaged_signature_is_not_given_away,
    a_key_for_pkcs1_only,
    a_key_for_pss_only,
    mechanisms_of_the_other_type,
    mechanisms_that_no_tpm_has,
);

/// A device with one RSA key, behind a proxy that counts.
struct Bench {
    _tpm: Swtpm,
    proxy: Proxy,
    _home: Home,
    module: Opened,
    key: CK_ULONG,
    judge: Verifier,
    message: Message,
}

impl Bench {
    fn new(link: Link, options: &[&str]) -> Bench {
        let (tpm, identity) = Swtpm::manufactured_with(options);
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        let module = Opened::new(&home);
        let key = module.key();
        proxy.book().take();
        Bench {
            _tpm: tpm,
            proxy,
            _home: home,
            module,
            key,
            judge: Verifier::new(&identity.public_key()),
            message: Message::new(),
        }
    }

    fn init(&self, mechanism: CK_ULONG, parameter: &[CK_ULONG]) -> Result<(), Code> {
        let (raw, session) = (&self.module.raw, self.module.session);
        raw.sign_init_with(session, mechanism, parameter, self.key)
    }

    fn sign(
        &self,
        mechanism: CK_ULONG,
        parameter: &[CK_ULONG],
        data: &[u8],
    ) -> Result<Vec<u8>, Code> {
        self.init(mechanism, parameter)?;
        self.module.raw.sign(self.module.session, data)
    }

    /// C_SignInit refuses with `code`, and the TPM is not asked.
    #[track_caller]
    fn refuses(&self, what: &str, mechanism: CK_ULONG, parameter: &[CK_ULONG], code: CK_ULONG) {
        let answer = self.init(mechanism, parameter);
        assert_eq!(answer, Err(Code(code)), "{what}: {mechanism:#x}");
        let (raw, session) = (&self.module.raw, self.module.session);
        let idle = raw.sign(session, &[0; 32]);
        assert_eq!(idle, Err(Code(CKR_OPERATION_NOT_INITIALIZED)), "{what}");
        self.costs_nothing(what);
    }

    /// C_Sign refuses the data with `code`, and the TPM is not asked.
    #[track_caller]
    fn refuses_data(
        &self,
        what: &str,
        mechanism: CK_ULONG,
        parameter: &[CK_ULONG],
        data: &[u8],
        code: CK_ULONG,
    ) {
        let answer = self.sign(mechanism, parameter, data);
        assert_eq!(answer, Err(Code(code)), "{what}");
        let (raw, session) = (&self.module.raw, self.module.session);
        let idle = raw.sign(session, data);
        assert_eq!(idle, Err(Code(CKR_OPERATION_NOT_INITIALIZED)), "{what}");
        self.costs_nothing(what);
    }

    #[track_caller]
    fn costs_nothing(&self, what: &str) {
        let seen = self.proxy.book().take();
        assert_eq!(seen.total(), 0, "{what}: {seen:?}");
    }

    /// The key still signs, and OpenSSL verifies.
    #[track_caller]
    fn signs_pkcs1(&self, hash: &Hash) {
        let digest = self.message.digest(hash);
        let signature = self.sign(CKM_RSA_PKCS, &[], &hash.digest_info(digest));
        let signature = signature.unwrap();
        self.judge.accepts_pkcs1(hash.name, digest, &signature).ok();
        self.proxy.book().take();
    }

    /// The token lists these mechanisms for its keys, and no other.
    #[track_caller]
    fn lists(&self, wanted: &[CK_ULONG]) {
        let (raw, slot) = (&self.module.raw, self.module.slot);
        let mut listed = raw.mechanisms_of_keys(slot).unwrap();
        listed.sort_unstable();
        assert_eq!(listed, wanted);
        for kind in wanted {
            let info = raw.mechanism_info(slot, *kind).unwrap();
            assert_eq!((info.ulMinKeySize, info.ulMaxKeySize), (2048, 2048));
            let flags = CKF_HW | CKF_SIGN | CKF_VERIFY;
            assert_eq!(info.flags, flags, "{kind:#x}");
        }
        let session = self.module.session;
        let allowed = raw.attribute(session, self.key, CKA_ALLOWED_MECHANISMS);
        let allowed = allowed.unwrap();
        let words = allowed
            .chunks(size_of::<CK_ULONG>())
            .map(|word| word.try_into().unwrap());
        let mut allowed: Vec<CK_ULONG> = words.map(CK_ULONG::from_ne_bytes).collect();
        allowed.sort_unstable();
        assert_eq!(allowed, wanted, "CKA_ALLOWED_MECHANISMS");
        self.costs_nothing("lists");
    }

    /// C_SignInit and C_GetMechanismInfo know nothing of these.
    #[track_caller]
    fn lacks(&self, mechanisms: &[CK_ULONG]) {
        for kind in mechanisms {
            let pss = HASHES.iter().find(|hash| hash.pss == Some(*kind));
            let parameter = match (pss, *kind) {
                (Some(hash), _) => hash.pss_parameter().to_vec(),
                (None, CKM_RSA_PKCS_PSS) => Hash::named("sha256").pss_parameter().to_vec(),
                _ => Vec::new(),
            };
            self.refuses("not listed", *kind, &parameter, CKR_MECHANISM_INVALID);
            let info = self.module.raw.mechanism_info(self.module.slot, *kind);
            assert_eq!(info.err(), Some(Code(CKR_MECHANISM_INVALID)), "{kind:#x}");
        }
    }
}

fn h1(link: Link) -> Bench {
    Bench::new(link, &["--template", "h1"])
}

const EC: [CK_ULONG; 4] = [
    CKM_ECDSA,
    CKM_ECDSA_SHA256,
    CKM_ECDSA_SHA384,
    CKM_ECDSA_SHA512,
];
const PKCS1: [CK_ULONG; 5] = [
    CKM_RSA_PKCS,
    CKM_SHA1_RSA_PKCS,
    CKM_SHA256_RSA_PKCS,
    CKM_SHA384_RSA_PKCS,
    CKM_SHA512_RSA_PKCS,
];
const PSS: [CK_ULONG; 4] = [
    CKM_RSA_PKCS_PSS,
    CKM_SHA256_RSA_PKCS_PSS,
    CKM_SHA384_RSA_PKCS_PSS,
    CKM_SHA512_RSA_PKCS_PSS,
];

fn a_signature_costs_one_command(link: Link) {
    let bench = h1(link);
    let book = bench.proxy.book();
    // The TPM itself answers RETRY to its first use of a key that is not noDA.
    let hash = Hash::named("sha256");
    let parameter = hash.pss_parameter();
    bench
        .sign(CKM_SHA256_RSA_PKCS_PSS, &parameter, b"")
        .unwrap();
    let first = book.take();
    let retried = first.answered(command::SIGN, answer::RETRY);
    assert_eq!(first.total() - retried, 1, "{first:?}");
    let signer = Signer {
        module: &bench.module,
        key: bench.key,
        judge: Verifier::new(bench.judge.public_key()),
        message: &bench.message,
        hashes: HASHES.iter().collect(),
    };
    for mechanism in PKCS1.into_iter().chain(PSS) {
        let tried = signer.try_all(&[mechanism]);
        assert!(tried.faults.is_empty(), "{}", tried.faults.join("\n"));
        assert_eq!(tried.verified, tried.asked);
        let seen = book.take();
        let (total, signed) = (seen.total(), seen.answered(command::SIGN, 0));
        assert_eq!((total, signed), (tried.asked, tried.asked), "{seen:?}");
    }
}

fn the_length_is_the_modulus(link: Link) {
    for (template, width) in [("h1", 256), ("rsa3072", 384)] {
        // Each needs a process to itself.
        testkit::fork::Forked::new(|| length_of(link, template, width)).succeeds();
    }
}

fn length_of(link: Link, template: &str, width: CK_ULONG) {
    let bench = Bench::new(link, &["--template", template]);
    let (raw, session) = (&bench.module.raw, bench.module.session);
    for mechanism in PKCS1.into_iter().chain(PSS) {
        let pss = HASHES.iter().find(|hash| hash.pss == Some(mechanism));
        let hash = pss.unwrap_or(Hash::named("sha256"));
        let digest = bench.message.digest(hash);
        let (parameter, data) = match mechanism {
            CKM_RSA_PKCS => (Vec::new(), hash.digest_info(digest)),
            CKM_RSA_PKCS_PSS => (hash.pss_parameter().to_vec(), digest.to_vec()),
            _ if pss.is_some() => (hash.pss_parameter().to_vec(), b"a message".to_vec()),
            _ => (Vec::new(), b"a message".to_vec()),
        };
        bench.init(mechanism, &parameter).unwrap();
        for _ in 0..2 {
            let asked = raw.sign_into(session, &data, None);
            assert_eq!(asked, (Code(CKR_OK), width), "{mechanism:#x}");
            let mut short = vec![0xEE; width as usize - 1];
            let too_small = raw.sign_into(session, &data, Some(&mut short));
            assert_eq!(too_small, (Code(CKR_BUFFER_TOO_SMALL), width));
            assert!(short.iter().all(|byte| *byte == 0xEE));
        }
        bench.costs_nothing("asking for the length");
        let mut room = vec![0xEE; width as usize + 16];
        let signed = raw.sign_into(session, &data, Some(&mut room));
        assert_eq!(signed, (Code(CKR_OK), width), "{mechanism:#x}");
        assert_eq!(room[width as usize..], [0xEE; 16]);
        bench.proxy.book().take();
    }
}

fn data_that_is_no_digest_info(link: Link) {
    let bench = h1(link);
    let hash = Hash::named("sha256");
    let info = hash.digest_info(bench.message.digest(hash));
    // 2.16.840.1.101.3.4.2.4 and 1.2.840.113549.2.5: hashes that no TPM here signs.
    let sha224 = b"\x30\x2d\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x04\x05\x00\x04\x1c";
    let md5 = b"\x30\x20\x30\x0c\x06\x08\x2a\x86\x48\x86\xf7\x0d\x02\x05\x05\x00\x04\x10";
    // Without the NULL beside the hash; the TPM would put it there.
    let bare = b"\x30\x2f\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x04\x20";
    let invalid: [(&str, Vec<u8>); 11] = [
        ("SHA-224", [&sha224[..], &[7; 28]].concat()),
        ("MD5", [&md5[..], &[7; 16]].concat()),
        ("no parameters", [&bare[..], &[7; 32]].concat()),
        ("a bare SHA-1 digest", vec![7; 20]),
        ("a bare SHA-256 digest", vec![7; 32]),
        ("MD5 and SHA-1, as TLS 1.0 signs", vec![7; 36]),
        ("the prefix alone", hash.prefix.to_vec()),
        ("a byte less", info[..50].to_vec()),
        ("a byte more", [&info[..], &[0]].concat()),
        ("as long as there is room", vec![7; 245]),
        ("nothing", Vec::new()),
    ];
    for (what, data) in &invalid {
        bench.refuses_data(what, CKM_RSA_PKCS, &[], data, CKR_DATA_INVALID);
    }
    for length in [246, 256, 5000] {
        let data = [&info[..], &vec![0; length - info.len()]].concat();
        let what = format!("{length} bytes");
        bench.refuses_data(&what, CKM_RSA_PKCS, &[], &data, CKR_DATA_LEN_RANGE);
    }
    for hash in &HASHES {
        bench.signs_pkcs1(hash);
    }
}

fn pss_takes_one_salt_and_no_other(link: Link) {
    let bench = h1(link);
    for mechanism in PSS {
        let own = HASHES.iter().find(|hash| hash.pss == Some(mechanism));
        let hash = own.unwrap_or(Hash::named("sha384"));
        let [kind, mask, salt] = hash.pss_parameter();
        let longest = 256 - hash.width as CK_ULONG - 2;
        let mut wrong = vec![
            ("no salt", vec![kind, mask, 0]),
            ("a shorter salt", vec![kind, mask, salt - 1]),
            ("a longer salt", vec![kind, mask, salt + 1]),
            ("the longest possible salt", vec![kind, mask, longest]),
            ("an endless salt", vec![kind, mask, CK_ULONG::MAX]),
            (
                "a salt of half of all numbers",
                vec![kind, mask, salt | 1 << (CK_ULONG::BITS - 1)],
            ),
            ("another mask", vec![kind, CKG_MGF1_SHA1, salt]),
            ("SHA-224's mask", vec![kind, CKG_MGF1_SHA224, salt]),
            ("no mask", vec![kind, 0, salt]),
            ("an unknown hash", vec![CKM_MD5, mask, salt]),
            ("SHA-224", vec![CKM_SHA224, CKG_MGF1_SHA224, 28]),
            ("a signing mechanism", vec![CKM_SHA256_RSA_PKCS, mask, salt]),
            ("no hash", vec![0, mask, salt]),
            ("a short parameter", vec![kind, mask]),
            ("a long parameter", vec![kind, mask, salt, 0]),
            ("NULL", vec![]),
        ];
        if own.is_some() {
            let others = HASHES.iter().filter(|other| other.kind != kind);
            wrong.extend(others.map(|other| ("another hash", other.pss_parameter().to_vec())));
        }
        for (what, parameter) in &wrong {
            bench.refuses(what, mechanism, parameter, CKR_MECHANISM_PARAM_INVALID);
        }
        let right = hash.pss_parameter();
        let digest = bench.message.digest(hash);
        let data = match own {
            Some(_) => &bench.message.data,
            None => digest,
        };
        let signature = bench.sign(mechanism, &right, data).unwrap();
        bench.judge.accepts_pss(hash.name, digest, &signature).ok();
        let other = bench.judge.accepts_pkcs1(hash.name, digest, &signature);
        assert!(!other.status.success(), "the judge knows PSS: {other}");
        bench.proxy.book().take();
    }
    let parameter = Hash::named("sha256").pss_parameter();
    for mechanism in PKCS1 {
        let code = CKR_MECHANISM_PARAM_INVALID;
        bench.refuses("a parameter for none", mechanism, &parameter, code);
    }
}

fn pss_wants_a_whole_digest(link: Link) {
    let bench = h1(link);
    for hash in &HASHES {
        for length in [0, hash.width - 1, hash.width + 1, 245, 256, 1000] {
            let (parameter, data) = (hash.pss_parameter(), vec![7; length]);
            let what = format!("{length} bytes by {}", hash.name);
            let code = CKR_DATA_LEN_RANGE;
            bench.refuses_data(&what, CKM_RSA_PKCS_PSS, &parameter, &data, code);
        }
    }
}

/// The first PSS signature is verified before it is returned. One damaged answer is a device error,
/// and PSS stays available. A TPM with another salt length is not available here.
fn a_damaged_signature_is_not_given_away(link: Link) {
    let bench = h1(link);
    let hash = Hash::named("sha256");
    let (parameter, digest) = (hash.pss_parameter(), bench.message.digest(hash));
    // The TPM itself answers RETRY to its first use of a key that is not noDA.
    bench.signs_pkcs1(hash);
    bench.proxy.book().break_next(command::SIGN, Fault::Flip);
    let refused = bench.sign(CKM_RSA_PKCS_PSS, &parameter, digest);
    assert_eq!(refused, Err(Code(CKR_DEVICE_ERROR)));
    assert!(bench.proxy.book().all_broken());
    let signature = bench.sign(CKM_RSA_PKCS_PSS, &parameter, digest).unwrap();
    bench.judge.accepts_pss(hash.name, digest, &signature).ok();
}

fn a_key_for_pkcs1_only(link: Link) {
    let bench = Bench::new(link, &["--template", "h1", "--scheme", "rsassa"]);
    bench.lists(&[CKM_RSA_PKCS, CKM_SHA256_RSA_PKCS]);
    bench.lacks(&PSS);
    bench.lacks(&[CKM_SHA1_RSA_PKCS, CKM_SHA384_RSA_PKCS, CKM_SHA512_RSA_PKCS]);
    for hash in &HASHES {
        let info = hash.digest_info(bench.message.digest(hash));
        match hash.kind {
            CKM_SHA256 => bench.signs_pkcs1(hash),
            _ => bench.refuses_data(hash.name, CKM_RSA_PKCS, &[], &info, CKR_DATA_INVALID),
        }
    }
}

fn a_key_for_pss_only(link: Link) {
    let bench = Bench::new(link, &["--template", "h1", "--scheme", "rsapss"]);
    bench.lists(&[CKM_RSA_PKCS_PSS, CKM_SHA256_RSA_PKCS_PSS]);
    bench.lacks(&PKCS1);
    bench.lacks(&[CKM_SHA384_RSA_PKCS_PSS, CKM_SHA512_RSA_PKCS_PSS]);
    for hash in &HASHES {
        let (parameter, digest) = (hash.pss_parameter(), bench.message.digest(hash));
        if hash.kind != CKM_SHA256 {
            let code = CKR_MECHANISM_PARAM_INVALID;
            bench.refuses(hash.name, CKM_RSA_PKCS_PSS, &parameter, code);
            continue;
        }
        let signature = bench.sign(CKM_RSA_PKCS_PSS, &parameter, digest).unwrap();
        bench.judge.accepts_pss(hash.name, digest, &signature).ok();
        bench.proxy.book().take();
    }
}

/// A token with keys of both types reports a wrong key type. A token with RSA keys only reports an
/// unknown mechanism.
fn mechanisms_of_the_other_type(link: Link) {
    h1(link).lacks(&EC);
    testkit::fork::Forked::new(|| of_the_other_type(link)).succeeds();
}

fn of_the_other_type(link: Link) {
    let runs = [
        "--template h1",
        "--name ec --nv 0x01C90210 --handle 0x81020010",
    ];
    let (tpm, _) = Swtpm::manufactured_in_runs(&runs.map(|words| {
        let words = words.split_whitespace();
        words.map(str::to_owned).collect::<Vec<_>>()
    }));
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let module = Opened::new(&home);
    let (raw, session) = (&module.raw, module.session);
    let key = |label: &str| {
        let class = (CKA_CLASS, testkit::module::ulong(CKO_PRIVATE_KEY));
        raw.find(session, &[class, (CKA_LABEL, label.into())])
            .unwrap()[0]
    };
    let parameter = Hash::named("sha256").pss_parameter();
    let inconsistent = Err(Code(CKR_KEY_TYPE_INCONSISTENT));
    for mechanism in EC {
        let answer = raw.sign_init(session, mechanism, key("idev-id"));
        assert_eq!(answer, inconsistent, "{mechanism:#x}");
    }
    for mechanism in PKCS1 {
        let answer = raw.sign_init(session, mechanism, key("idev-id-p256"));
        assert_eq!(answer, inconsistent, "{mechanism:#x}");
    }
    for mechanism in [CKM_RSA_PKCS_PSS, CKM_SHA256_RSA_PKCS_PSS] {
        let answer = raw.sign_init_with(session, mechanism, &parameter, key("idev-id-p256"));
        assert_eq!(answer, inconsistent, "{mechanism:#x}");
    }
}

fn mechanisms_that_no_tpm_has(link: Link) {
    let bench = h1(link);
    bench.lacks(&[
        CKM_RSA_X_509,
        CKM_RSA_9796,
        CKM_RSA_PKCS_OAEP,
        CKM_RSA_X9_31,
        CKM_MD5_RSA_PKCS,
        CKM_SHA224_RSA_PKCS,
        CKM_SHA224_RSA_PKCS_PSS,
        CKM_SHA1_RSA_PKCS_PSS,
        CKM_RSA_PKCS_KEY_PAIR_GEN,
    ]);
}
