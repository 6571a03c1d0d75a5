use super::*;
use crate::x509::samples::{
    AGREES, Extension, IS_ANOTHER, IS_CA, IS_NO_CA, IS_SOMEBODY, NAMES, NO_CA_BELOW, POLICY,
    PURPOSE, Party, SIGNS_CERTIFICATES, Sample, in_year,
};

const MASA_URL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.32");
const PROXY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.14");

fn one(pem: &[u8]) -> Certificate {
    Certificate::parse_all(pem).unwrap().remove(0)
}

fn leaf() -> Certificate {
    one(include_bytes!("../../../testdata/leaf.pem"))
}

fn ca() -> Certificate {
    one(include_bytes!("../../../testdata/ca.pem"))
}

fn root() -> Certificate {
    one(include_bytes!("../../../testdata/root.pem"))
}

#[track_caller]
fn broken(way: &PathResult) -> &str {
    match way {
        PathResult::Invalid(why) => why,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn length(way: &PathResult) -> usize {
    match way {
        PathResult::Trusted(path) => path.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_way_leads_to_whatever_is_trusted() {
    let now = Some(in_year(2025));
    for (trusted, others, steps) in [
        (vec![ca()], vec![], 2),
        (vec![leaf()], vec![], 1),
        (vec![root()], vec![ca()], 3),
    ] {
        assert_eq!(length(&build_path(&leaf(), &trusted, &others, now)), steps);
    }
}

#[test]
fn without_its_issuer_a_certificate_is_neither_good_nor_bad() {
    let issuer = ca().subject();
    assert_eq!(
        build_path(&leaf(), &[], &[], None),
        PathResult::NoIssuer(issuer.clone())
    );
    let known = build_path(&leaf(), &[], &[ca()], None);
    assert!(
        matches!(&known, PathResult::NoIssuer(whose) if *whose != issuer),
        "{known:?}"
    );
}

#[test]
fn a_self_signed_certificate_is_told_from_one_whose_issuer_is_missing() {
    let device = Party::new("serialNumber=7,CN=X-1", 2);
    let own = Sample::of_device().issued(&device, &device);
    assert_eq!(build_path(&own, &[], &[], None), PathResult::SelfSigned);
    assert_eq!(
        length(&build_path(&own, std::slice::from_ref(&own), &[], None)),
        1
    );
    // Subject and issuer have the same name, but another key signed the certificate.
    let other = Sample::of_device().issued(&Party::new(device.name, 3), &device);
    assert!(matches!(
        build_path(&other, &[], &[], None),
        PathResult::NoIssuer(_)
    ));
}

#[test]
fn a_signature_that_is_wrong_is_not_only_missing() {
    let mut der = leaf().der().to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    let damaged = Certificate::from_der(&der).unwrap();
    let found = build_path(&damaged, &[ca()], &[], None);
    assert!(broken(&found).contains("signature"), "{found:?}");
    assert_eq!(is_signed_by(&leaf(), &root()), Ok(false));
}

#[test]
fn an_expired_issuer_ends_the_way() {
    let found = build_path(&leaf(), &[ca()], &[], Some(in_year(2020)));
    assert!(broken(&found).contains("not valid before"), "{found:?}");
    let (root, device) = (Party::new("CN=root", 1), Party::new("CN=device", 2));
    let over = Sample {
        subject: "CN=root",
        extensions: vec![IS_CA],
        ..Sample::of_device()
    };
    let over = over.until("251231235959Z").issued(&root, &root);
    let leaf = Sample::of_device().issued(&root, &device);
    let trusted = [over];
    assert_eq!(
        length(&build_path(&leaf, &trusted, &[], Some(in_year(2025)))),
        2
    );
    let found = build_path(&leaf, &trusted, &[], Some(in_year(2026)));
    assert!(broken(&found).contains("was valid until"), "{found:?}");
    assert_eq!(
        length(&build_path(&leaf, &trusted, &[], None)),
        2,
        "no clock"
    );
}

/// The extensions of the issuer's certificate decide whether the issuer may issue certificates.
#[test]
fn an_issuer_must_be_allowed_to_issue() {
    let (root, device) = (Party::new("CN=root", 1), Party::new("CN=device", 2));
    let leaf = Sample::of_device().issued(&root, &device);
    let critical = |extension: Extension| (extension.0, true, extension.2);
    for (extensions, said) in [
        (&[][..], "not a CA certificate"),
        (&[IS_NO_CA], "not a CA certificate"),
        (&[IS_CA, AGREES], "may not sign certificates"),
        (&[IS_CA, critical(IS_SOMEBODY)], "2.5.29.14"),
        (&[IS_CA, (MASA_URL, true, "16016d")], "1.3.6.1.5.5.7.1.32"),
        (&[IS_CA, (PROXY, false, "3000")], "proxy"),
    ] {
        let issuer = root.certified_by(&root, extensions);
        let found = build_path(&leaf, &[issuer], &[], None);
        assert!(broken(&found).contains(said), "{said}: {found:?}");
    }
    for extensions in [
        &[IS_CA][..],
        &[IS_CA, SIGNS_CERTIFICATES, POLICY, PURPOSE],
        &[IS_CA, critical(POLICY), (MASA_URL, false, "16016d")],
    ] {
        let issuer = root.certified_by(&root, extensions);
        assert_eq!(length(&build_path(&leaf, &[issuer], &[], None)), 2);
    }
}

#[test]
fn a_path_length_counts_the_cas_between() {
    let root = Party::new("CN=root", 1);
    let (middle, device) = (Party::new("CN=middle", 3), Party::new("CN=device", 2));
    let below = middle.certified_by(&root, &[IS_CA]);
    let leaf = Sample::of_device().issued(&middle, &device);
    for (constraints, good) in [(IS_CA, true), (NO_CA_BELOW, false)] {
        let trusted = root.certified_by(&root, &[constraints]);
        let found = build_path(&leaf, &[trusted], std::slice::from_ref(&below), None);
        match good {
            true => assert_eq!(length(&found), 3),
            false => assert!(broken(&found).contains("only 0 CAs below"), "{found:?}"),
        }
    }
    // Leaf certificates that the CA issued itself are not CAs.
    let trusted = root.certified_by(&root, &[NO_CA_BELOW]);
    let direct = Sample::of_device().issued(&root, &device);
    assert_eq!(length(&build_path(&direct, &[trusted], &[], None)), 2);
}

#[test]
fn a_leaf_with_an_unknown_critical_extension_is_refused_and_with_a_policy_not() {
    let (root, device) = (Party::new("CN=root", 1), Party::new("CN=device", 2));
    let trusted = [root.certified_by(&root, &[IS_CA])];
    let leaf = |extension| Sample::of_device().with(extension).issued(&root, &device);
    let found = build_path(&leaf(NAMES), &trusted, &[], None);
    assert!(broken(&found).contains("2.5.29.30"), "{found:?}");
    // Unsupported critical extensions of the leaf are refused even if the leaf itself is trusted.
    let named = leaf(NAMES);
    broken(&build_path(&named, std::slice::from_ref(&named), &[], None));
    let policy = (POLICY.0, true, POLICY.2);
    assert_eq!(length(&build_path(&leaf(policy), &trusted, &[], None)), 2);
}

/// Tests a CA that received a new key and has its old name.
#[test]
fn an_issuer_is_chosen_by_its_key_and_not_by_its_name_alone() {
    let (old, new) = (Party::new("CN=ca", 1), Party::new("CN=ca", 3));
    let device = Party::new("CN=device", 2);
    let trusted = [&old, &new].map(|ca| ca.certified_by(ca, &[IS_CA]));
    for ca in [&old, &new] {
        let leaf = Sample::of_device().issued(ca, &device);
        assert_eq!(length(&build_path(&leaf, &trusted, &[], None)), 2);
    }
    // The key identifiers of leaf and CA differ, so this CA is not the issuer, and the issuer is
    // missing.
    let leaf = Sample::of_device().issued(&old, &device);
    let other = new.certified_by(&new, &[IS_CA, IS_ANOTHER]);
    assert_eq!(
        build_path(&leaf, &[other], &[], None),
        PathResult::NoIssuer("CN=ca".into())
    );
    let liar = new.certified_by(&new, &[IS_CA, IS_SOMEBODY]);
    let found = build_path(&leaf, &[liar], &[], None);
    assert!(broken(&found).contains("signature"), "{found:?}");
}

/// An unreadable extension in a CA certificate makes the path invalid, even if the extension is not
/// critical.
#[test]
fn a_ca_with_an_extension_that_cannot_be_read_or_is_there_twice_issues_nothing() {
    let (root, device) = (Party::new("CN=root", 1), Party::new("CN=device", 2));
    let leaf = Sample::of_device().issued(&root, &device);
    let identifier = |text| ObjectIdentifier::new_unwrap(text);
    for (identifier, value, name) in [
        (KEY_USAGE, "030400060000", "keyUsage"),
        (KEY_USAGE, "0500", "keyUsage"),
        (KEY_USAGE, "", "keyUsage"),
        (KEY_USAGE, "0302010600", "keyUsage"),
        (BASIC_CONSTRAINTS, "30060101ff0201ff", "basicConstraints"),
        (EXTENDED_KEY_USAGE, "0500", "extKeyUsage"),
        (identifier("2.5.29.14"), "0500", "subjectKeyIdentifier"),
        (identifier("2.5.29.35"), "0500", "authorityKeyIdentifier"),
        (SUBJECT_ALT_NAME, "3000", "subjectAltName"),
        (CERTIFICATE_POLICIES, "0500", "certificatePolicies"),
        (POLICY_MAPPINGS, "3000", "policyMappings"),
        (POLICY_CONSTRAINTS, "3000", "policyConstraints"),
        (INHIBIT_ANY_POLICY, "0500", "inhibitAnyPolicy"),
        (NAME_CONSTRAINTS, "3000", "nameConstraints"),
        (identifier("2.5.29.31"), "3000", "cRLDistributionPoints"),
        (
            identifier("2.16.840.1.113730.1.1"),
            "0500",
            "netscape-cert-type",
        ),
    ] {
        let said = format!("cannot be read, or that occurs twice: {name}");
        for critical in [false, true] {
            let mut extensions = vec![IS_CA];
            extensions.retain(|one| one.0 != identifier);
            extensions.push((identifier, critical, value));
            let issuer = root.certified_by(&root, &extensions);
            let found = build_path(&leaf, &[issuer], &[], None);
            assert!(broken(&found).ends_with(&said), "{value}: {found:?}");
        }
    }
    for twice in [
        [SIGNS_CERTIFICATES, AGREES],
        [AGREES, SIGNS_CERTIFICATES],
        [(MASA_URL, false, "0500"), (MASA_URL, false, "0500")],
    ] {
        let issuer = root.certified_by(&root, &[&[IS_CA][..], &twice].concat());
        let found = build_path(&leaf, &[issuer], &[], None);
        assert!(broken(&found).contains("occurs twice"), "{found:?}");
    }
}

#[test]
fn a_path_length_may_be_any_number() {
    let root = Party::new("CN=root", 1);
    let (middle, device) = (Party::new("CN=middle", 3), Party::new("CN=device", 2));
    let below = middle.certified_by(&root, &[IS_CA]);
    let leaf = Sample::of_device().issued(&middle, &device);
    for value in [
        "30060101ff020101",
        "30070101ff02020100",
        "300f0101ff020a00ffffffffffffffffff",
    ] {
        let trusted = root.certified_by(&root, &[(BASIC_CONSTRAINTS, true, value)]);
        let found = build_path(&leaf, &[trusted], std::slice::from_ref(&below), None);
        assert_eq!(length(&found), 3, "{value}");
    }
}

/// A trust anchor is trusted without checks of its extensions, as in OpenSSL (RFC 5280, section
/// 6.1.1, item d).
#[test]
fn a_root_of_the_first_version_is_an_anchor_if_it_is_trusted_and_signed_itself() {
    let (root, device) = (Party::new("CN=root", 1), Party::new("CN=device", 2));
    let other = Party::new("CN=root", 3);
    let old = Sample {
        version: None,
        subject: "CN=root",
        ..Sample::of_device()
    };
    let leaf = Sample::of_device().issued(&root, &device);
    let trusted = old.issued(&root, &root);
    assert_eq!(
        length(&build_path(
            &leaf,
            std::slice::from_ref(&trusted),
            &[],
            None
        )),
        2
    );
    let above = Party::new("CN=above", 4);
    let anchor = above.certified_by(&above, &[IS_CA]);
    for (name, trusted, others) in [
        (
            "not trusted",
            vec![anchor.clone()],
            vec![old.issued(&above, &root)],
        ),
        (
            "trusted, by another",
            vec![old.issued(&above, &root)],
            vec![],
        ),
        (
            "trusted, by another key of its name",
            vec![old.issued(&other, &root)],
            vec![],
        ),
        ("of version 3", vec![root.certified_by(&root, &[])], vec![]),
        (
            "of version 3, for certificates",
            vec![root.certified_by(&root, &[SIGNS_CERTIFICATES])],
            vec![],
        ),
    ] {
        let found = build_path(&leaf, &trusted, &others, None);
        assert!(
            broken(&found).contains("not a CA certificate"),
            "{name}: {found:?}"
        );
    }
}

/// A CA that certified its new key with its old key (RFC 5280, section 3.2, self-issued).
#[test]
fn a_self_issued_ca_leads_on_and_no_path_length_counts_it() {
    let (old, new) = (Party::new("CN=ca", 1), Party::new("CN=ca", 3));
    let device = Party::new("CN=device", 2);
    let trusted = [old.certified_by(&old, &[NO_CA_BELOW])];
    let between = [new.certified_by(&old, &[IS_CA])];
    let leaf = Sample::of_device().issued(&new, &device);
    assert_eq!(length(&build_path(&leaf, &trusted, &between, None)), 3);
}

/// An authorityKeyIdentifier with issuer and serial number identifies one certificate of the
/// issuer.
#[test]
fn an_issuer_is_the_one_that_the_authority_key_identifier_names() {
    let (root, device) = (Party::new("CN=root", 1), Party::new("CN=device", 2));
    let trusted = [root.certified_by(&root, &[IS_CA])];
    let aki = ObjectIdentifier::new_unwrap("2.5.29.35");
    let leaf = |value| {
        Sample::of_device()
            .with((aki, false, value))
            .issued(&root, &device)
    };
    for (value, good) in [
        ("3012821040404040404040404040404040404040", true),
        ("3012821040404040404040404040404040404041", false),
        // Directory names: CN=ROOT as a PrintableString, and CN=toor.
        ("3015a113a411300f310d300b06035504031304524f4f54", true),
        ("3015a113a411300f310d300b06035504031304746f6f72", false),
    ] {
        let found = build_path(&leaf(value), &trusted, &[], None);
        match good {
            true => assert_eq!(length(&found), 2, "{value}"),
            false => assert_eq!(found, PathResult::NoIssuer("CN=root".into()), "{value}"),
        }
    }
}

#[test]
fn a_path_has_up_to_9_certificates() {
    const SUBJECTS: [&str; 10] = [
        "CN=0", "CN=1", "CN=2", "CN=3", "CN=4", "CN=5", "CN=6", "CN=7", "CN=8", "CN=9",
    ];
    let party = |at: usize| Party::new(SUBJECTS[at], at as u8 + 1);
    let certified = |at: usize, by| party(at).certified_by(&party(by), &[IS_CA]);
    for (root, good) in [(8, true), (9, false)] {
        let others: Vec<_> = (1..root).map(|at| certified(at, at + 1)).collect();
        let way = build_path(&certified(0, 1), &[certified(root, root)], &others, None);
        assert_eq!(matches!(way, PathResult::Trusted(_)), good, "{way:?}");
    }
}

#[test]
fn cas_that_certify_each_other_lead_nowhere() {
    let (a, b) = (Party::new("CN=a", 1), Party::new("CN=b", 2));
    let mut others = Vec::new();
    for (holder, issuer) in [(&a, &a), (&a, &b), (&b, &a), (&b, &b)] {
        others.push(holder.certified_by(issuer, &[IS_CA]));
    }
    let leaf = Party::new("CN=leaf", 3).certified_by(&a, &[]);
    let way = build_path(&leaf, &[], &others, None);
    assert!(matches!(way, PathResult::NoIssuer(_)), "{way:?}");
}
