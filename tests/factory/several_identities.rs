//! Further factory contents in addition to an identity: more identities, attestation keys,
//! certificates for other keys, and unreadable indices. None of them hides the others.

use cryptoki_sys::*;
use std::fs;
use testkit::factory::Identity;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{Opened, ulong};
use testkit::openssl::{Verifier, certificate_der};
use testkit::programs::run;
use testkit::proxy::{Proxy, command};
use testkit::raw::Code;
use testkit::signing::{HASHES, Hash, Message, Signer};
use testkit::tpm::Swtpm;

over_our_transport!(
    four_algorithms_on_one_tpm,
    schemes_that_exclude_each_other,
    what_a_key_allows_can_begin,
    attestation_keys_are_shown_without_private_key,
    a_certificate_for_another_key,
    indices_of_which_nothing_can_be_had,
    nothing_but_a_truncated_certificate,
);

struct Bench {
    tpm: Swtpm,
    identities: Vec<Identity>,
    home: Home,
    module: Opened,
}

/// The options of one run of the factory, from words.
fn options(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

impl Bench {
    /// A TPM that was through the factory with each of these options.
    fn new(link: Link, runs: &[&str]) -> Bench {
        Bench::with(link, runs, |_| {})
    }

    fn with(link: Link, runs: &[&str], prepare: impl FnOnce(&Swtpm)) -> Bench {
        let runs: Vec<_> = runs.iter().map(|words| options(words)).collect();
        let (tpm, identities) = Swtpm::manufactured_in_runs(&runs);
        prepare(&tpm);
        let home = Home::new(&link.tcti(&tpm.tcti()));
        let module = Opened::new(&home);
        Bench {
            tpm,
            identities,
            home,
            module,
        }
    }

    fn find(&self, template: &[(CK_ULONG, Vec<u8>)]) -> Vec<CK_ULONG> {
        self.module.raw.find(self.module.session, template).unwrap()
    }

    fn read(&self, object: CK_ULONG, kind: CK_ULONG) -> Vec<u8> {
        let value = self.module.raw.attribute(self.module.session, object, kind);
        value.unwrap()
    }

    /// The classes of all objects with this label.
    fn classes(&self, label: &str) -> Vec<CK_ULONG> {
        let mut classes: Vec<CK_ULONG> = self
            .find(&[(CKA_LABEL, label.into())])
            .into_iter()
            .map(|object| self.read(object, CKA_CLASS))
            .map(|class| CK_ULONG::from_ne_bytes(class.try_into().unwrap()))
            .collect();
        classes.sort_unstable();
        classes
    }

    /// The certificate's label, or `None` where it is not shown.
    fn label_of(&self, certificate: &std::path::Path) -> Option<String> {
        match self.find(&[(CKA_VALUE, certificate_der(certificate))])[..] {
            [] => None,
            [one] => Some(String::from_utf8(self.read(one, CKA_LABEL)).unwrap()),
            _ => panic!("{} twice", certificate.display()),
        }
    }

    fn private_key(&self, label: &str) -> CK_ULONG {
        let class = (CKA_CLASS, ulong(CKO_PRIVATE_KEY));
        let found = self.find(&[class, (CKA_LABEL, label.into())]);
        assert_eq!(found.len(), 1, "one private key {label}");
        found[0]
    }

    /// All the mechanisms sign with the key of this identity, and OpenSSL verifies.
    #[track_caller]
    fn signs(
        &self,
        identity: usize,
        label: &str,
        mechanisms: &[CK_ULONG],
        hashes: &[&'static Hash],
    ) {
        let identity = &self.identities[identity];
        assert_eq!(
            self.label_of(&identity.certificate()).as_deref(),
            Some(label)
        );
        assert_eq!(self.classes(label), WHOLE, "{label}");
        let tried = Signer {
            module: &self.module,
            key: self.private_key(label),
            judge: Verifier::new(&identity.public_key()),
            message: &Message::new(),
            hashes: hashes.to_vec(),
        }
        .try_all(mechanisms);
        assert!(tried.faults.is_empty(), "{}", tried.faults.join("\n"));
        assert!(tried.asked > 0 && tried.verified == tried.asked);
    }

    fn is_logged(&self, words: &[&str]) {
        let log = self.home.log();
        let told = log
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)));
        assert!(told, "no line with {words:?}");
    }
}

/// An identity whose key is in the TPM.
const WHOLE: [CK_ULONG; 3] = [CKO_CERTIFICATE, CKO_PUBLIC_KEY, CKO_PRIVATE_KEY];
const WITHOUT_PRIVATE_KEY: [CK_ULONG; 2] = [CKO_CERTIFICATE, CKO_PUBLIC_KEY];

const EC: [CK_ULONG; 5] = [
    CKM_ECDSA,
    CKM_ECDSA_SHA1,
    CKM_ECDSA_SHA256,
    CKM_ECDSA_SHA384,
    CKM_ECDSA_SHA512,
];

fn four_algorithms_on_one_tpm(link: Link) {
    let bench = Bench::new(
        link,
        &[
            "--name a --template h1 --nv 0x01C90210 --handle 0x81020010",
            "--name b --template h4 --nv 0x01C90211 --handle 0x81020011",
            "--name c --template h3 --nv 0x01C90212 --handle 0x81000012",
            "--name d --template h2",
            "--name e --template rsa3072 --nv 0x01C90000 --handle 0x81020013",
        ],
    );
    let all: Vec<_> = HASHES.iter().collect();
    let rsa = [
        CKM_RSA_PKCS,
        CKM_SHA1_RSA_PKCS,
        CKM_SHA384_RSA_PKCS,
        CKM_RSA_PKCS_PSS,
        CKM_SHA512_RSA_PKCS_PSS,
    ];
    // The one at the handle that the TCG gives to identities is the first.
    bench.signs(3, "idev-id", &EC, &[]);
    bench.signs(0, "idev-id-rsa2048", &rsa, &all);
    bench.signs(1, "idev-id-p521", &EC, &[]);
    bench.signs(2, "idev-id-p384", &EC, &[]);
    bench.signs(4, "idev-id-rsa3072", &rsa, &all);
    let (raw, slot) = (&bench.module.raw, bench.module.slot);
    let sizes = |kind| {
        let info = raw.mechanism_info(slot, kind).unwrap();
        (info.ulMinKeySize, info.ulMaxKeySize)
    };
    assert_eq!(sizes(CKM_ECDSA), (256, 521));
    assert_eq!(sizes(CKM_RSA_PKCS), (2048, 3072));
    assert_eq!(raw.mechanisms_of_keys(slot).unwrap().len(), 14);
    assert_eq!(bench.tpm.lockout_counter(), 0);
}

/// The token's list holds what every key of a mechanism's type can do: clients ask no more.
fn schemes_that_exclude_each_other(link: Link) {
    let bench = Bench::new(
        link,
        &[
            "--name a --template h1",
            "--name b --template h1 --scheme rsassa --nv 0x01C90210 --handle 0x81020010",
            "--name c --template h2 --nv 0x01C90211 --handle 0x81020011",
        ],
    );
    let (raw, slot) = (&bench.module.raw, bench.module.slot);
    let mut listed = raw.mechanisms_of_keys(slot).unwrap();
    listed.sort_unstable();
    let both = [CKM_RSA_PKCS, CKM_SHA256_RSA_PKCS];
    assert_eq!(listed, [&both[..], &EC].concat());
    let sha256 = [Hash::named("sha256")];
    bench.signs(0, "idev-id", &both, &sha256);
    bench.signs(1, "idev-id-rsa2048", &both, &sha256);
    bench.signs(2, "idev-id-p256", &EC, &[]);
}

/// CKA_ALLOWED_MECHANISMS promises nothing that C_SignInit does not keep, whatever keys there are.
fn what_a_key_allows_can_begin(link: Link) {
    let bench = Bench::new(
        link,
        &[
            "--name a --template h1",
            "--name b --template h1 --scheme rsassa --nv 0x01C90210 --handle 0x81020010",
        ],
    );
    for label in ["idev-id", "idev-id-rsa2048"] {
        let key = bench.private_key(label);
        let allowed = bench.read(key, CKA_ALLOWED_MECHANISMS);
        for word in allowed.chunks(size_of::<CK_ULONG>()) {
            let kind = CK_ULONG::from_ne_bytes(word.try_into().unwrap());
            let pss = HASHES.iter().find(|hash| hash.pss == Some(kind));
            let parameter = match (pss, kind) {
                (Some(hash), _) => hash.pss_parameter().to_vec(),
                (None, CKM_RSA_PKCS_PSS) => Hash::named("sha256").pss_parameter().to_vec(),
                _ => Vec::new(),
            };
            let (raw, session) = (&bench.module.raw, bench.module.session);
            let begun = raw.sign_init_with(session, kind, &parameter, key);
            assert_eq!(begun, Ok(()), "{label}: {kind:#x}");
            raw.sign(session, &[]).ok();
        }
    }
}

fn attestation_keys_are_shown_without_private_key(link: Link) {
    let bench = Bench::new(
        link,
        &[
            "--template h2",
            "--iak --template h2",
            "--iak --template h1 --name rsa --nv 0x01C90101 --handle 0x81020002",
            "--iak --template h1 --name rsassa --scheme rsassa --nv 0x01C90102 --handle 0x81020003",
            "--iak --template h3 --name p384 --nv 0x01C90103 --handle 0x81020004",
        ],
    );
    bench.signs(0, "idev-id", &EC, &[]);
    for (at, label) in [(1, "iak"), (2, "iak-2"), (3, "iak-3"), (4, "iak-4")] {
        let certificate = bench.identities[at].certificate();
        assert_eq!(bench.label_of(&certificate).as_deref(), Some(label));
        assert_eq!(bench.classes(label), WITHOUT_PRIVATE_KEY, "{label}");
        bench.is_logged(&[
            "the certificate of an attestation key",
            &format!("0x{:08X}", 0x8102_0000 + at),
        ]);
    }
    // The public half is no way to the private one.
    let public = (CKA_CLASS, ulong(CKO_PUBLIC_KEY));
    let public = bench.find(&[public, (CKA_LABEL, b"iak".to_vec())])[0];
    let refused = bench.module.sign(CKM_ECDSA_SHA256, public, b"a message");
    assert!(
        matches!(
            refused,
            Err(Code(
                CKR_KEY_TYPE_INCONSISTENT | CKR_KEY_FUNCTION_NOT_PERMITTED | CKR_KEY_HANDLE_INVALID
            ))
        ),
        "{refused:?}"
    );
}

fn a_certificate_for_another_key(link: Link) {
    // At an index before the right one's, so that it is read first.
    let bench = Bench::new(link, &["--template h2 --wrong-key 0x01C90000"]);
    bench.signs(0, "idev-id", &EC, &[]);
    let wrong = bench.identities[0].wrong_certificate();
    assert_eq!(bench.label_of(&wrong).as_deref(), Some("idev-id-p256"));
    assert_eq!(bench.classes("idev-id-p256"), WITHOUT_PRIVATE_KEY);
    bench.is_logged(&["WARN", "0x01C90000", "without a private key"]);
    assert_eq!(bench.module.key(), bench.private_key("idev-id"));
}

fn indices_of_which_nothing_can_be_had(link: Link) {
    let bench = Bench::with(
        link,
        &[
            "--name cut --template h3 --nv 0x01C90000 --handle 0x81020010 --padding -40",
            "--name shut --template h4 --nv 0x01C90020 --handle 0x81020011 --nv-auth secret",
            "--name pem --template h1 --nv 0x01C90021 --handle 0x81020012 --form pem --padding -20",
            "--name good --template h2",
        ],
        leave_other_indices,
    );
    bench.signs(3, "idev-id", &EC, &[]);
    for at in 0..3 {
        assert_eq!(bench.label_of(&bench.identities[at].certificate()), None);
    }
    assert_eq!(bench.find(&[(CKA_CLASS, ulong(CKO_CERTIFICATE))]).len(), 2);
    for index in [
        "0x01C90000",
        "0x01C90020",
        "0x01C90021",
        "0x01C90300",
        "0x01C90301",
        "0x01C90302",
    ] {
        bench.is_logged(&["WARN", index]);
    }
    assert_eq!(bench.tpm.lockout_counter(), 0, "nobody guessed a password");
}

/// An index that was never written, one whose wrong password counts, one that holds no certificate.
fn leave_other_indices(tpm: &Swtpm) {
    let define = |index: &str, attributes: &str| {
        let mut define = tpm.tool("tpm2_nvdefine");
        define.args(["-C", "o", "-s", "600", "-p", "secret", "-a", attributes]);
        run(define.arg(index)).ok();
    };
    define("0x01C90300", "authread|ownerwrite|no_da");
    define("0x01C90301", "authread|ownerwrite");
    let mut define = tpm.tool("tpm2_nvdefine");
    define.args(["-C", "o", "-s", "600", "-a", "authread|ownerwrite|no_da"]);
    run(define.arg("0x01C90302")).ok();
    let folder = tempfile::TempDir::new().unwrap();
    let noise = folder.path().join("noise");
    let bytes: Vec<u8> = (0..600_u32).map(|at| (at * 7 + 0x31) as u8).collect();
    fs::write(&noise, bytes).unwrap();
    for index in ["0x01C90301", "0x01C90302"] {
        let mut write = tpm.tool("tpm2_nvwrite");
        run(write.args(["-C", "o", "-i"]).arg(&noise).arg(index)).ok();
    }
}

/// A key whose certificate is cut is none that can be shown; the log says why.
fn nothing_but_a_truncated_certificate(link: Link) {
    let runs = [options("--template h2 --padding -1")];
    let (tpm, _) = Swtpm::manufactured_in_runs(&runs);
    let proxy = Proxy::new(&tpm);
    let home = Home::new(&link.tcti(&proxy.tcti()));
    let raw = testkit::module::loaded(&home);
    raw.initialize().unwrap();
    assert_eq!(testkit::module::identity(&raw), None);
    assert!(!raw.slots(false).unwrap().is_empty());
    let log = home.log();
    assert!(
        log.lines()
            .any(|line| line.contains("WARN") && line.contains("0x01C90200")),
        "{log}"
    );
    assert_eq!(proxy.book().take().of(command::SIGN), 0);
    assert_eq!(tpm.lockout_counter(), 0);
}
