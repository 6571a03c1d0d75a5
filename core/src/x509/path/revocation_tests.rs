use super::*;
use crate::oid::{BASIC_CONSTRAINTS, KEY_USAGE};
use crate::x509::samples::{
    ECDSA_SHA256, IS_ANOTHER, IS_CA, IS_NO_CA, IS_SOMEBODY, Party, SIGNS_CERTIFICATES, Sample,
    element, in_year, name, unhex,
};
use x509_cert::der::asn1::ObjectIdentifier;

const POINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.31");
/// A keyUsage with keyCertSign and cRLSign.
const SIGNS_BOTH: crate::x509::samples::Extension = (KEY_USAGE, true, "03020106");

/// The content of a test CRL.
#[derive(Clone)]
struct List {
    issuer: &'static str,
    this: &'static str,
    next: Option<&'static str>,
    /// The serial numbers of revoked certificates, each with the extensions of its CRL entry.
    revoked: Vec<(Vec<u8>, &'static str)>,
    extensions: &'static str,
}

impl List {
    /// Returns a CRL that is valid for all of 2026.
    fn of(issuer: &'static str) -> Self {
        Self {
            issuer,
            this: "260101000000Z",
            next: Some("270101000000Z"),
            revoked: Vec::new(),
            extensions: "",
        }
    }

    fn revoking(mut self, certificate: &Certificate, extensions: &'static str) -> Self {
        self.revoked
            .push((certificate.serial().to_vec(), extensions));
        self
    }

    fn by(&self, signer: &Party) -> Result<Crl, String> {
        let time = |text: &str| element(0x17, text.as_bytes());
        let entry = |(serial, extensions): &(Vec<u8>, &str)| {
            let extensions = match *extensions {
                "" => Vec::new(),
                digits => element(0x30, &unhex(digits)),
            };
            let parts = [element(2, serial), time("260301120000Z"), extensions].concat();
            element(0x30, &parts)
        };
        let mut parts = vec![
            element(2, &[1]),
            unhex(ECDSA_SHA256),
            name(self.issuer),
            time(self.this),
        ];
        parts.extend(self.next.map(time));
        if !self.revoked.is_empty() {
            let entries: Vec<u8> = self.revoked.iter().flat_map(entry).collect();
            parts.push(element(0x30, &entries));
        }
        if !self.extensions.is_empty() {
            parts.push(element(0xA0, &element(0x30, &unhex(self.extensions))));
        }
        Crl::from_der(&signer.sealed(&element(0x30, &parts.concat())))
    }
}

struct Bench {
    root: Party,
    ca: Party,
    /// The certification path; the leaf is first.
    path: [Certificate; 3],
}

impl Bench {
    fn new() -> Self {
        Self::with(Sample::of_device())
    }

    fn with(leaf: Sample) -> Self {
        let (root, ca) = (Party::new("CN=root", 1), Party::new("CN=ca", 3));
        let device = Party::new("CN=device", 2);
        let middle = Sample {
            serial: vec![0x33; 8],
            subject: ca.name,
            extensions: vec![IS_CA, SIGNS_BOTH, IS_SOMEBODY],
            ..Sample::of_device()
        };
        let path = [
            leaf.issued(&ca, &device),
            middle.issued(&root, &ca),
            root.certified_by(&root, &[IS_CA]),
        ];
        Self { root, ca, path }
    }

    fn leaf(&self) -> &Certificate {
        &self.path[0]
    }

    fn check(&self, lists: &[&Crl]) -> Result<RevocationStatus, String> {
        let lists: Vec<Crl> = lists.iter().map(|list| (*list).clone()).collect();
        check(&self.path, &lists, Some(in_year(2026)))
    }
}

#[test]
fn a_path_is_unrevoked_if_the_newest_crl_of_each_issuer_says_nothing_of_it() {
    let bench = Bench::new();
    let (of_ca, of_root) = (List::of("CN=CA"), List::of("CN=root"));
    let (ca, root) = (
        of_ca.by(&bench.ca).unwrap(),
        of_root.by(&bench.root).unwrap(),
    );
    let said = bench.check(&[&ca, &root]).unwrap();
    assert_eq!((said.by.len(), said.unknown.len()), (2, 0));
    assert!(
        said.by[0].ends_with("by the CRL of CN=CA of 2026-01-01T00:00:00Z"),
        "{said:?}"
    );
    // The result lists a CA certificate that no CRL covers.
    let said = bench.check(&[&ca]).unwrap();
    assert_eq!(said.unknown, ["CN=ca"]);
    let why = bench.check(&[&root]).unwrap_err();
    assert!(
        why.contains("none of the given CRLs is from the CA CN=ca"),
        "{why}"
    );
    // The leaf itself is trusted, so the path has only one certificate and needs no CRL.
    let said = check(&bench.path[..1], &[ca], None).unwrap();
    assert_eq!(said.by, [""; 0]);
}

#[test]
fn what_is_revoked_is_said_with_date_and_reason() {
    let bench = Bench::new();
    let fine = List::of("CN=ca").by(&bench.ca).unwrap();
    for (extensions, reason) in [
        ("", "unspecified"),
        ("300a0603551d1504030a0101", "keyCompromise"),
        ("300a0603551d1504030a0106", "certificateHold"),
    ] {
        let list = List::of("CN=ca")
            .revoking(bench.leaf(), extensions)
            .by(&bench.ca);
        let why = bench.check(&[&list.unwrap()]).unwrap_err();
        let said =
            format!("was revoked on 2026-03-01T12:00:00Z ({reason}) according to the CRL of CN=ca");
        assert!(why.contains(&said), "{why}");
        assert!(why.contains(&bench.leaf().subject()), "{why}");
    }
    let list = List::of("CN=root")
        .revoking(&bench.path[1], "")
        .by(&bench.root)
        .unwrap();
    let why = bench.check(&[&fine, &list]).unwrap_err();
    assert!(
        why.contains("the certificate of CN=ca was revoked"),
        "{why}"
    );
    // The CRL revokes another certificate of the CA, not the leaf.
    let other = List::of("CN=ca")
        .revoking(&bench.path[1], "")
        .by(&bench.ca)
        .unwrap();
    assert!(bench.check(&[&other]).is_ok());
}

#[test]
fn the_newest_crl_counts() {
    let bench = Bench::new();
    let held = List::of("CN=ca").revoking(bench.leaf(), "");
    let later = |list: List| List {
        this: "260601000000Z",
        ..list
    };
    let by = |list: &List| list.by(&bench.ca).unwrap();
    let (old, new) = (by(&held), by(&later(List::of("CN=ca"))));
    assert!(bench.check(&[&old, &new]).is_ok());
    assert!(bench.check(&[&new, &old]).is_ok());
    let (old, new) = (by(&List::of("CN=ca")), by(&later(held)));
    assert!(bench.check(&[&old, &new]).is_err());
    assert!(bench.check(&[&new, &old]).is_err());
}

#[test]
fn a_crl_out_of_date_or_by_another_says_nothing() {
    let bench = Bench::new();
    let of = || List::of("CN=ca");
    for (list, why) in [
        (
            List {
                next: Some("260501000000Z"),
                ..of()
            },
            "was valid until 2026-05-01T00:00:00Z",
        ),
        (
            List {
                this: "261201000000Z",
                ..of()
            },
            "is not valid before 2026-12-01T00:00:00Z",
        ),
        (List { next: None, ..of() }, "has no end of validity"),
        // Another CA signed the CRL, and the CRL has the key identifier of this other CA.
        (
            List {
                extensions: "300e0603551d23040730058003040506",
                ..of()
            },
            "by another key of a CA with this name",
        ),
    ] {
        let said = bench.check(&[&list.by(&bench.ca).unwrap()]).unwrap_err();
        assert!(said.contains(why), "{said}");
    }
    let forged = of().by(&bench.root).unwrap();
    let said = bench.check(&[&forged]).unwrap_err();
    assert!(
        said.contains("the signature of the CRL of CN=ca is wrong"),
        "{said}"
    );
    // A forged CRL has no effect if there is a valid CRL.
    let right = of().revoking(bench.leaf(), "").by(&bench.ca).unwrap();
    let said = bench.check(&[&forged, &right]).unwrap_err();
    assert!(said.contains("was revoked"), "{said}");
    // If the clock is wrong, thisUpdate and nextUpdate are not checked.
    let old = List {
        next: Some("260501000000Z"),
        ..of()
    }
    .by(&bench.ca)
    .unwrap();
    assert!(check(&bench.path, &[old], None).is_ok());
}

#[test]
fn a_key_that_may_not_sign_crls_signs_none() {
    let (root, device) = (Party::new("CN=root", 1), Party::new("CN=device", 2));
    let leaf = Sample::of_device().issued(&root, &device);
    let issuer = root.certified_by(&root, &[IS_CA, SIGNS_CERTIFICATES, IS_ANOTHER]);
    let list = List::of("CN=root").by(&root).unwrap();
    let why = check(&[leaf, issuer], &[list], None).unwrap_err();
    assert!(why.contains("may not sign CRLs"), "{why}");
}

/// Tests IssuingDistributionPoint, which is a critical extension.
#[test]
fn a_crl_for_some_certificates_says_nothing_of_others() {
    const OF_USERS: &str = "300f0603551d1c0101ff0405 30038101ff";
    const OF_CAS: &str = "300f0603551d1c0101ff0405 30038201ff";
    /// A distribution point with the URI http:a.
    const OF_A: &str = "30180603551d1c0101ff040e 300ca00aa0088606687474703a61";
    let points = |value| (POINTS, false, value);
    let plain = Bench::new();
    let with_point =
        Bench::with(Sample::of_device().with(points("300e300ca00aa0088606687474703a61")));
    let with_other =
        Bench::with(Sample::of_device().with(points("300e300ca00aa0088606687474703a62")));
    let no_ca = Bench::with(Sample::of_device().with((BASIC_CONSTRAINTS, true, IS_NO_CA.2)));
    for (bench, extensions, good) in [
        (&plain, OF_USERS, true),
        (&no_ca, OF_USERS, true),
        (&plain, OF_CAS, false),
        (&with_point, OF_A, true),
        (&plain, OF_A, false),
        (&with_other, OF_A, false),
    ] {
        let list = List {
            extensions,
            ..List::of("CN=ca")
        }
        .by(&bench.ca)
        .unwrap();
        let found = bench.check(&[&list]);
        assert_eq!(found.is_ok(), good, "{extensions}: {found:?}");
        if let Err(why) = found {
            assert!(why.contains("none of the given CRLs"), "{why}");
        }
    }
}

#[test]
fn crls_of_other_kinds_are_refused_with_the_reason() {
    let bench = Bench::new();
    for (extensions, why) in [
        ("300d0603551d1b0101ff0403020101", "delta CRL"),
        ("300f0603551d1c0101ff040530038401ff", "indirect CRL"),
        (
            "300f0603551d1c0101ff040530038501ff",
            "attribute certificates",
        ),
        ("30100603551d1c0101ff04063004 83020780", "some reasons"),
        (
            "30120603551d1c0101ff04083006a004a1020500",
            "distribution point",
        ),
        ("300c06022a030101ff0403020101", "critical extension 1.2.3"),
        ("300a0603551d1404030201010a", "cannot be read"),
        (
            "300a0603551d140403020101300a0603551d140403020101",
            "occurs twice",
        ),
    ] {
        let said = List {
            extensions,
            ..List::of("CN=ca")
        }
        .by(&bench.ca)
        .unwrap_err();
        assert!(said.contains(why), "{said}, not {why}");
    }
    // CRL entries with a critical extension that names another issuer, and with an invalid reason.
    for (entry, why) in [
        (
            "300f0603551d1d0101ff04053003a40130",
            "critical extension 2.5.29.29",
        ),
        ("300a0603551d1504030a0107", "cannot be read"),
    ] {
        let said = List::of("CN=ca")
            .revoking(bench.leaf(), entry)
            .by(&bench.ca)
            .unwrap_err();
        assert!(said.contains(why), "{said}, not {why}");
    }
    assert!(Crl::from_der(bench.leaf().der()).is_err());
    assert!(Crl::from_der(&[0x30, 0]).is_err());
}
