//! Real factory certificates: fields that a strict parser refuses, the key in another notation,
//! data before and after the certificate. The token shows the identifying fields and the key.

use cryptoki_sys::*;
use std::fs;
use std::path::Path;
use testkit::der::{self, Certificate, body, element, elements, with_key_info};
use testkit::factory::Identity;
use testkit::home::Home;
use testkit::maker::{INDEX, Maker, OPEN};
use testkit::module::{Opened, ulong};
use testkit::openssl::{Verifier, certificate_der, digest};
use testkit::programs::{program, run};
use testkit::tpm::Swtpm;

once!(
    fields_that_nobody_needs,
    every_notation_of_a_point,
    every_notation_of_a_modulus,
    a_search_by_issuer_finds_what_it_issued,
    what_stands_around_it,
    a_certificate_over_several_indices,
    an_attestation_key_alone,
    a_derived_key_whose_certificate_says_that_it_is_a_cas,
);

/// A device whose certificate is exchanged for others.
struct Bench {
    tpm: Swtpm,
    identity: Identity,
    home: Home,
    module: Opened,
}

impl Bench {
    fn new(options: &[&str]) -> Bench {
        let (tpm, identity) = Swtpm::manufactured_with(options);
        let home = Home::new(&tpm.tcti());
        let module = Opened::new(&home);
        Bench {
            tpm,
            identity,
            home,
            module,
        }
    }

    /// Puts these bytes where the factory put the certificate, and looks again.
    fn burn(&self, content: &[u8]) {
        let maker = Maker::new(&self.tpm);
        maker.forget_index(INDEX);
        maker.index(INDEX, OPEN, "", content);
        self.home.next_generation();
    }

    fn find(&self, template: &[(u64, Vec<u8>)]) -> Vec<u64> {
        self.module.raw.find(self.module.session, template).unwrap()
    }

    fn read(&self, object: u64, kind: u64) -> Vec<u8> {
        let read = self.module.raw.attribute(self.module.session, object, kind);
        read.unwrap_or_else(|code| panic!("{kind:#x}: {code:?}"))
    }

    fn key_info(&self) -> Vec<u8> {
        Certificate::new(&certificate_der(&self.identity.certificate())).public_key_info
    }

    /// Checks that `idev-id` is this certificate and its key, which signs.
    #[track_caller]
    fn shows(&self, name: &str, der: &[u8]) {
        let is = |class| {
            let found = self.find(&[(CKA_CLASS, ulong(class)), (CKA_LABEL, "idev-id".into())]);
            assert_eq!(
                found.len(),
                1,
                "{name}: one object of class {class}\n{}",
                self.home.log()
            );
            found[0]
        };
        let [certificate, private] = [CKO_CERTIFICATE, CKO_PRIVATE_KEY].map(is);
        let usual = Certificate::new(&with_key_info(der, &self.key_info()));
        let written = Certificate::new(der);
        for (kind, wanted) in [
            (CKA_VALUE, der),
            (CKA_SUBJECT, &written.subject),
            (CKA_ISSUER, &written.issuer),
            (CKA_SERIAL_NUMBER, &written.serial),
            (CKA_ID, &digest("-sha1", &usual.key_bits())),
        ] {
            assert_eq!(self.read(certificate, kind), wanted, "{name}: {kind:#x}");
        }
        assert_eq!(self.read(certificate, CKA_ID), self.read(private, CKA_ID));
        assert_eq!(self.read(private, CKA_SUBJECT), written.subject, "{name}");
    }

    #[track_caller]
    fn shows_nothing(&self) {
        let found = self.module.raw.find(self.module.session, &[]);
        assert_eq!(found.unwrap_err().0, CKR_DEVICE_REMOVED);
    }

    fn signs(&self) {
        let found = self.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
        let signature = self.module.sign(CKM_ECDSA, found[0], &[9; 32]).unwrap();
        let judge = Verifier::new(&self.identity.public_key());
        judge.accepts_digest(&[9; 32], &signature).ok();
    }
}

fn shape(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("core/testdata/shapes");
    fs::read(folder.join(format!("{name}.der"))).unwrap()
}

fn fields_that_nobody_needs() {
    let bench = Bench::new(&[]);
    let info = bench.key_info();
    for name in [
        "nb-year1",
        "nb-1949",
        "nb-utc1950",
        "nb-utc-noseconds",
        "na-235960",
        "crit-true-01",
        "str-universal",
        "rdn-multi-unsorted",
        "ca-true-leaf",
        "bc-badvalue",
        "ext-dup",
        "san-x400",
        "sub-empty-san-dirname-sn",
    ] {
        let der = with_key_info(&shape(name), &info);
        bench.burn(&der);
        bench.shows(name, &der);
        bench.signs();
    }
    // A length with more digits than it needs.
    let der = with_key_info(&shape("ca-true-leaf"), &info);
    let inside = body(&der);
    let length = (inside.len() as u32).to_be_bytes();
    let long = [&[0x30, 0x84], &length[..], inside].concat();
    bench.burn(&long);
    bench.shows("a long length", &long);
    // No day is shown where none can be read.
    let der = with_key_info(&shape("na-235960"), &info);
    bench.burn(&der);
    let found = bench.find(&[(CKA_VALUE, der)]);
    assert_eq!(bench.read(found[0], CKA_END_DATE), b"");
    assert_eq!(bench.read(found[0], CKA_START_DATE), b"20200101");
}

fn every_notation_of_a_point() {
    let bench = Bench::new(&[]);
    let info = bench.key_info();
    let [algorithm, bits] = elements(body(&info))[..] else {
        unreachable!()
    };
    let point = &body(bits)[1..];
    let (x, y) = (&point[1..33], &point[33..]);
    let odd = y[31] & 1;
    let hybrid = [&[6 + odd], x, y].concat();
    let compressed = [&[2 + odd], x].concat();
    let other = |name: &str| Certificate::new(&shape(name)).public_key_info;
    let (explicit, ec_dh) = (other("spki-ec-explicit"), other("spki-ec-ecdh-oid"));
    let of = |info: &[u8]| elements(body(info))[0].to_vec();
    for (name, algorithm, point) in [
        ("explicit parameters", &*of(&explicit), point),
        ("id-ecDH", &of(&ec_dh), point),
        ("a hybrid point", algorithm, &hybrid),
        ("a compressed point", algorithm, &compressed),
        ("explicit and hybrid", &of(&explicit), &hybrid),
    ] {
        let bits = element(3, &[&[0], point].concat());
        let info = element(0x30, &[algorithm, &bits].concat());
        let der = with_key_info(&shape("ca-true-leaf"), &info);
        bench.burn(&der);
        bench.shows(name, &der);
        bench.signs();
    }
    // The hybrid form of another point: not understood, and said so.
    let wrong = [&[7 - odd], x, y].concat();
    let bits = element(3, &[&[0], &wrong[..]].concat());
    let der = with_key_info(
        &certificate_der(&bench.identity.certificate()),
        &element(0x30, &[algorithm, &bits].concat()),
    );
    bench.burn(&der);
    assert_eq!(bench.find(&[(CKA_VALUE, der)]).len(), 1);
    assert_eq!(bench.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]).len(), 0);
    bench.home.log_says(&["not supported"]);
}

fn every_notation_of_a_modulus() {
    let bench = Bench::new(&["--template", "h1"]);
    let info = bench.key_info();
    let [_, bits] = elements(body(&info))[..] else {
        unreachable!()
    };
    let numbers = elements(body(&body(bits)[1..]));
    let modulus = body(numbers[0]);
    let unsigned = [element(2, &modulus[1..]), numbers[1].to_vec()].concat();
    let padded = [
        element(2, &[&[0, 0], modulus].concat()),
        numbers[1].to_vec(),
    ]
    .concat();
    let usual = body(&body(bits)[1..]);
    let rsa = |last: u8| element(6, &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, last]);
    let null = [5, 0];
    for (name, algorithm, numbers) in [
        ("rsaEncryption without NULL", rsa(1), usual),
        ("id-RSASSA-PSS", rsa(10), usual),
        (
            "id-RSASSA-PSS with parameters",
            [rsa(10), element(0x30, &[])].concat(),
            usual,
        ),
        (
            "id-RSAES-OAEP",
            [rsa(7), element(0x30, &[])].concat(),
            usual,
        ),
        (
            "a modulus without sign",
            [rsa(1), null.to_vec()].concat(),
            &unsigned,
        ),
        (
            "a modulus with zeros",
            [rsa(1), null.to_vec()].concat(),
            &padded,
        ),
    ] {
        let key = element(0x30, numbers);
        let bits = element(3, &[&[0], &key[..]].concat());
        let info = element(0x30, &[element(0x30, &algorithm), bits].concat());
        let der = with_key_info(&shape("crit-true-01"), &info);
        bench.burn(&der);
        bench.shows(name, &der);
    }
}

/// The issuer of a certificate is searched for by the bytes of its name.
fn a_search_by_issuer_finds_what_it_issued() {
    let bench = Bench::new(&[]);
    let ca = shape("rdn-multi-unsorted");
    let subject = Certificate::new(&ca).subject;
    let leaf = with_key_info(&shape("crit-true-01"), &bench.key_info());
    let outer = elements(body(&leaf));
    let fields = elements(body(outer[0]));
    let fields = [&fields[..3].concat(), &subject[..], &fields[4..].concat()].concat();
    let leaf = element(
        0x30,
        &[&element(0x30, &fields), outer[1], outer[2]].concat(),
    );
    bench.burn(&leaf);
    bench.shows("issued by an odd name", &leaf);
    let found = bench.find(&[(CKA_ISSUER, subject.clone())]);
    assert_eq!(found.len(), 1);
    assert_eq!(
        der::Certificate::new(&bench.read(found[0], CKA_VALUE)).issuer,
        subject
    );
}

fn what_stands_around_it() {
    let bench = Bench::new(&[]);
    let der = certificate_der(&bench.identity.certificate());
    let pem = fs::read(bench.identity.certificate()).unwrap();
    let [high, low] = (der.len() as u16).to_be_bytes();
    for (name, content) in [
        (
            "a TCG header",
            [&[0x10, 1, 0, high, low], &der[..]].concat(),
        ),
        ("a size", [&[high, low], &der[..]].concat()),
        (
            "a size and padding",
            [&[high, low], &der[..], &[0xFF; 50]].concat(),
        ),
        ("PEM", pem.clone()),
        (
            "PEM without lines",
            String::from_utf8(pem).unwrap().replace('\n', "").into(),
        ),
    ] {
        bench.burn(&content);
        bench.shows(name, &der);
    }
    bench.burn(&[&[0x1F, 0x8B], &[7; 300][..]].concat());
    bench.shows_nothing();
    bench.home.log_says(&[INDEX, "gzip"]);
}

/// An index of libtpms holds 2048 bytes: a certificate that is larger goes on in the next.
fn a_certificate_over_several_indices() {
    let bench = Bench::new(&["--ca-nv", "none"]);
    let der = certificate_der(&bench.identity.certificate());
    let outer = elements(body(&der));
    let fields = elements(body(outer[0]));
    // A large extension that means nothing.
    let (name, value) = (element(6, &[0x2A, 3, 4]), element(4, &[7; 4500]));
    let large = element(0x30, &[name, value].concat());
    let extensions = elements(body(body(fields[7])));
    let extensions = element(
        0xA3,
        &element(0x30, &[&extensions.concat(), &large[..]].concat()),
    );
    let signed = element(0x30, &[&fields[..7].concat(), &extensions[..]].concat());
    let large = element(0x30, &[&signed, outer[1], outer[2]].concat());
    assert!(large.len() > 2 * 2048);
    let maker = Maker::new(&bench.tpm);
    let after = ["0x01C90201", "0x01C90202", "0x01C90203"];
    let mut pieces = large.chunks(2048);
    let first = pieces.next().unwrap();
    for (piece, index) in pieces.zip(after) {
        maker.index(index, OPEN, "", piece);
    }
    bench.burn(first);
    bench.shows("three indices", &large);
    bench.signs();
    // The last piece is too small for a certificate, and belongs to it all the same.
    for index in &after[..2] {
        maker.forget_index(index);
    }
    let (first, rest) = large.split_at(2048);
    let (second, rest) = rest.split_at(2048);
    let (third, last) = rest.split_at(rest.len() - 20);
    for (piece, index) in [second, third, last].into_iter().zip(after) {
        maker.index(index, OPEN, "", piece);
    }
    bench.burn(first);
    bench.shows("four indices", &large);
    let forget = || after.iter().for_each(|index| maker.forget_index(index));
    forget();
    let file = bench.home.write("large.der", &large);
    let mut pem = program("openssl");
    let pem = run(pem.args(["x509", "-inform", "DER", "-in"]).arg(file))
        .ok()
        .out;
    let mut pieces = pem.chunks(2048);
    let beginning = pieces.next().unwrap();
    for (piece, index) in pieces.zip(after) {
        maker.index(index, OPEN, "", piece);
    }
    bench.burn(beginning);
    bench.shows("PEM in four indices", &large);
    // Without its end it is not a certificate, and the log names the missing part.
    forget();
    bench.burn(first);
    bench.shows_nothing();
    bench.home.log_says(&[INDEX, "truncated", "2048 of"]);
}

fn an_attestation_key_alone() {
    let bench = Bench::new(&["--iak", "--ca-nv", "none"]);
    let der = certificate_der(&bench.identity.certificate());
    let found = bench.find(&[(CKA_CLASS, ulong(CKO_CERTIFICATE))]);
    assert_eq!(found.len(), 1, "{}", bench.home.log());
    assert_eq!(bench.read(found[0], CKA_VALUE), der);
    assert_eq!(bench.read(found[0], CKA_LABEL), b"iak");
    let keys = bench.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
    assert_eq!(keys.len(), 0, "it signs only what the TPM made");
}

fn a_derived_key_whose_certificate_says_that_it_is_a_cas() {
    let bench = Bench::new(&["--no-persist"]);
    let der = with_key_info(&shape("ca-true-leaf"), &bench.key_info());
    bench.burn(&der);
    bench.shows("derived", &der);
    bench.signs();
}
