use super::*;
use crate::oid::{NAME_CONSTRAINTS, SUBJECT_ALT_NAME};
use crate::x509::path::{PathResult, build_path};
use crate::x509::samples::{Extension, IS_CA, Party, Sample};

/// Validates the path of a leaf with the given subject and subjectAltName, below a CA with the
/// given name constraints.
fn ends(
    constraints: &'static str,
    subject: &'static str,
    names: &'static str,
) -> Result<(), String> {
    let (root, device) = (Party::new("CN=root,O=Ex", 1), Party::new("CN=device", 2));
    let constraints = (NAME_CONSTRAINTS, false, constraints);
    let trusted = root.certified_by(&root, &[IS_CA, constraints]);
    let extensions = match names {
        "" => Vec::new(),
        names => vec![(SUBJECT_ALT_NAME, false, names)],
    };
    let sample = Sample {
        subject,
        extensions,
        ..Sample::of_device()
    };
    match build_path(&sample.issued(&root, &device), &[trusted], &[], None) {
        PathResult::Trusted(_) => Ok(()),
        PathResult::Invalid(why) => Err(why),
        other => panic!("{other:?}"),
    }
}

/// Name constraints that permit only O=ex, a PrintableString.
const ONLY_EX: &str = "3016a0143012a410300e310c300a060355040a1303657820";
/// Name constraints that exclude O=ex, a PrintableString.
const NOT_EX: &str = "3016a1143012a410300e310c300a060355040a1303657820";
/// Name constraints that permit only the IPv4 network 10.0.0.0/8.
const ONLY_TEN: &str = "300ea00c300a87080a000000ff000000";

#[test]
fn names_keep_to_the_constraints_above_them() {
    for (constraints, subject, names, why) in [
        (ONLY_EX, "CN=x,O=EX", "", ""),
        (
            ONLY_EX,
            "CN=x,O=other",
            "",
            "is not among the permitted names",
        ),
        (ONLY_EX, "", "3004820261 62", ""),
        // A leaf with the subject O=ex: first with a directoryName O=ex, then with a directoryName
        // O=other.
        (
            ONLY_EX,
            "CN=x,O=ex",
            "3011a40f300d310b3009060355040a0c026578",
            "",
        ),
        (
            ONLY_EX,
            "CN=x,O=ex",
            "3011a40f300d310b3009060355040a0c026f74",
            "not among the permitted",
        ),
        (NOT_EX, "CN=x,O=other", "", ""),
        (NOT_EX, "CN=x,O=Ex", "", "is excluded"),
        (NOT_EX, "O=Ex", "", "is excluded"),
        (ONLY_TEN, "CN=x,O=Ex", "300687040a010203", ""),
        (
            ONLY_TEN,
            "CN=x,O=Ex",
            "300687040b010203",
            "an iPAddress is not among the permitted",
        ),
        (
            ONLY_TEN,
            "CN=x,O=Ex",
            "30128710 0a000000000000000000000000000000",
            "not among the permitted",
        ),
        (ONLY_TEN, "CN=x,O=Ex", "300587030a0102", "is not supported"),
        // The name constraints contain no constraint on the leaf's type of name.
        (ONLY_TEN, "CN=x,O=Ex", "3004820261 62", ""),
    ] {
        let found = ends(constraints, subject, names);
        match why {
            "" => assert_eq!(found, Ok(()), "{constraints} {subject} {names}"),
            why => {
                let said = found.unwrap_err();
                assert!(said.contains(why), "{said}");
                assert!(said.contains("the name constraints of CN=root"), "{said}");
            }
        }
    }
}

#[test]
fn dns_names_are_below_a_domain_by_whole_labels() {
    for (name, base, below) in [
        ("a.example.com", "example.com", true),
        ("example.com", "Example.COM", true),
        ("badexample.com", "example.com", false),
        ("a.example.com", ".example.com", true),
        ("example.com", ".example.com", false),
        ("com", "example.com", false),
        ("anything", "", true),
    ] {
        assert_eq!(
            is_dns_below(name.as_bytes(), base.as_bytes()),
            below,
            "{name} {base}"
        );
    }
}

/// As in OpenSSL, the common name of a leaf without DNS name may be the name of a host.
#[test]
fn a_common_name_that_looks_like_a_host_is_one() {
    let excluded = "300fa10d300b82096576696c2e74657374";
    for (subject, names, good) in [
        ("CN=x.evil.test,O=Ex", "", false),
        ("CN=x.good.test,O=Ex", "", true),
        ("CN=x.evil.test,O=Ex", "3004820261 62", true),
        ("CN=-x.evil.test,O=Ex", "", true),
        ("CN=evil test,O=Ex", "", true),
        // The common name as a NumericString, and as a BIT STRING.
        ("O=Ex,2.5.4.3=#120b782e6576696c2e74657374", "", false),
        ("O=Ex,2.5.4.3=#0303006576", "", false),
    ] {
        let found = ends(excluded, subject, names);
        assert_eq!(found.is_ok(), good, "{subject}: {found:?}");
    }
}

#[test]
fn a_constraint_that_is_not_compared_refuses_only_names_of_its_kind() {
    // An e-mail address, a URI, an otherName 1.2.3, and a registeredID.
    for (constraint, name) in [
        ("3008a0063004 81026869", "30048102 6869"),
        ("3008a0063004 86026869", "30048602 6869"),
        (
            "300ea00c300aa00806022a03a0020500",
            "300aa00806022a03a0020500",
        ),
        ("3008a1063004 88022a03", "300488022a03"),
    ] {
        let why = ends(constraint, "CN=x,O=Ex", name).unwrap_err();
        assert!(why.contains("is not supported"), "{why}");
        assert_eq!(ends(constraint, "CN=x,O=Ex", ""), Ok(()), "{constraint}");
    }
    let mail: Extension = (NAME_CONSTRAINTS, true, "3008a006300481026869");
    let (root, device) = (Party::new("CN=root", 1), Party::new("CN=device", 2));
    let trusted = root.certified_by(&root, &[IS_CA, mail]);
    let leaf = Sample {
        subject: "emailAddress=a@hi,CN=x",
        ..Sample::of_device()
    };
    let found = build_path(&leaf.issued(&root, &device), &[trusted], &[], None);
    assert!(
        matches!(&found, PathResult::Invalid(why) if why.contains("e-mail address a@hi")),
        "{found:?}"
    );
}

/// Name constraints that permit only O=ex hold for a CA below, as for the leaf. A self-issued CA is
/// exempt (RFC 5280, section 6.1.3), a self-issued leaf is not. OpenSSL 3.0 gives these results.
#[test]
fn all_certificates_below_keep_to_the_constraints_but_self_issued_cas() {
    const ROOT: &str = "CN=root,O=Other";
    for (middle, leaf, refused) in [
        ("CN=middle,O=ex", "CN=device,O=ex", None),
        ("CN=middle,O=Foreign", "CN=device,O=ex", Some("CN=middle")),
        ("CN=middle,O=ex", "CN=device,O=Foreign", Some("CN=device")),
        // A CA that the root issued for its own name, as in a change of its key.
        (ROOT, "CN=device,O=ex", None),
        // The last certificate has the name of its issuer.
        ("CN=middle,O=ex", "CN=middle,O=ex", None),
        (ROOT, ROOT, Some(ROOT)),
    ] {
        let (root, middle) = (Party::new(ROOT, 1), Party::new(middle, 2));
        let trusted = root.certified_by(&root, &[IS_CA, (NAME_CONSTRAINTS, true, ONLY_EX)]);
        let between = middle.certified_by(&root, &[IS_CA]);
        let sample = Sample {
            subject: leaf,
            extensions: Vec::new(),
            ..Sample::of_device()
        };
        let leaf = sample.issued(&middle, &Party::new("CN=device", 3));
        let found = check(&[&leaf, &between, &trusted]);
        match refused {
            None => assert_eq!(found, Ok(()), "{} {}", middle.name, sample.subject),
            Some(whose) => {
                let said = found.unwrap_err();
                let wanted = format!("do not allow the certificate of {whose}");
                assert!(said.contains(&wanted), "{said}");
                assert!(
                    said.contains("O=") && said.contains(" is not among"),
                    "{said}"
                );
            }
        }
    }
}

/// The limit is OpenSSL's: 2^20 comparisons of a name with a constraint, permitted or excluded.
#[test]
fn comparisons_have_a_limit() {
    let dns = |text: &str| GeneralName::Dns(Cow::Owned(text.as_bytes().to_vec()));
    let many = |text: &str, count: usize| (0..count).map(|_| dns(text)).collect::<Vec<_>>();
    for (names, permitted, excluded, refused) in [
        (1024, 1024, 0, false),
        (1024, 1025, 0, true),
        (1024, 0, 1024, false),
        (1024, 0, 1025, true),
        (1024, 512, 512, false),
        (1024, 512, 513, true),
    ] {
        let constraints = NameConstraints {
            permitted: many("example.com", permitted),
            excluded: many("example.org", excluded),
        };
        let why = breach(&many("a.example.com", names), &constraints);
        let wanted = refused.then_some("too many names and constraints");
        assert_eq!(why.as_deref(), wanted, "{permitted} {excluded}");
    }
}
