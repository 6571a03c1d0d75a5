use super::*;
use crate::identity::samples::{
    AGREES, IS_ANOTHER, IS_CA, IS_NO_CA, IS_SOMEBODY, NAMES, NO_CA_BELOW, POLICY, PURPOSE, Party,
    SIGNS_CERTIFICATES, Sample, in_year,
};

fn one(pem: &[u8]) -> Certificate {
    Certificate::parse_all(pem).unwrap().remove(0)
}

fn leaf() -> Certificate {
    one(include_bytes!("../../testdata/leaf.pem"))
}

fn ca() -> Certificate {
    one(include_bytes!("../../testdata/ca.pem"))
}

fn root() -> Certificate {
    one(include_bytes!("../../testdata/root.pem"))
}

#[track_caller]
fn broken(way: &Way) -> &str {
    match way {
        Way::Broken(why) => why,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn length(way: &Way) -> usize {
    match way {
        Way::Trusted(subjects) => subjects.len(),
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
        assert_eq!(length(&way(&leaf(), &trusted, &others, now)), steps);
    }
}

#[test]
fn without_its_issuer_a_certificate_is_neither_good_nor_bad() {
    let issuer = ca().subject();
    assert_eq!(way(&leaf(), &[], &[], None), Way::Open(issuer.clone()));
    let known = way(&leaf(), &[], &[ca()], None);
    assert!(
        matches!(&known, Way::Open(whose) if *whose != issuer),
        "{known:?}"
    );
}

#[test]
fn a_self_signed_certificate_is_told_from_one_whose_issuer_is_missing() {
    let device = Party::new("serialNumber=7,CN=X-1", 2);
    let own = Sample::of_device().issued(&device, &device);
    assert_eq!(way(&own, &[], &[], None), Way::SelfSigned);
    assert_eq!(length(&way(&own, std::slice::from_ref(&own), &[], None)), 1);
    // It bears its issuer's name, and that signed it.
    let other = Sample::of_device().issued(&Party::new(device.name, 3), &device);
    assert!(matches!(way(&other, &[], &[], None), Way::Open(_)));
}

#[test]
fn a_signature_that_is_wrong_is_not_only_missing() {
    let mut der = leaf().der().to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    let damaged = Certificate::from_der(&der).unwrap();
    let found = way(&damaged, &[ca()], &[], None);
    assert!(broken(&found).contains("signature"), "{found:?}");
    assert_eq!(is_signed_by(&leaf(), &root()), Ok(false));
}

#[test]
fn an_expired_issuer_ends_the_way() {
    let found = way(&leaf(), &[ca()], &[], Some(in_year(2020)));
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
    assert_eq!(length(&way(&leaf, &trusted, &[], Some(in_year(2025)))), 2);
    let found = way(&leaf, &trusted, &[], Some(in_year(2026)));
    assert!(broken(&found).contains("was valid until"), "{found:?}");
    assert_eq!(length(&way(&leaf, &trusted, &[], None)), 2, "no clock");
}

/// What an issuer's certificate says decides whether it is one.
#[test]
fn an_issuer_must_be_allowed_to_issue() {
    let (root, device) = (Party::new("CN=root", 1), Party::new("CN=device", 2));
    let leaf = Sample::of_device().issued(&root, &device);
    let critical_policy = (POLICY.0, true, POLICY.2);
    for (extensions, said) in [
        (&[][..], "not a CA's"),
        (&[IS_NO_CA], "not a CA's"),
        (&[IS_CA, AGREES], "may not sign certificates"),
        (&[IS_CA, NAMES], "2.5.29.30"),
        (&[IS_CA, critical_policy], "2.5.29.32"),
    ] {
        let issuer = root.certified_by(&root, extensions);
        let found = way(&leaf, &[issuer], &[], None);
        assert!(broken(&found).contains(said), "{said}: {found:?}");
    }
    for extensions in [&[IS_CA][..], &[IS_CA, SIGNS_CERTIFICATES, POLICY, PURPOSE]] {
        let issuer = root.certified_by(&root, extensions);
        assert_eq!(length(&way(&leaf, &[issuer], &[], None)), 2);
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
        let found = way(&leaf, &[trusted], std::slice::from_ref(&below), None);
        match good {
            true => assert_eq!(length(&found), 3),
            false => assert!(broken(&found).contains("only 0 CAs below"), "{found:?}"),
        }
    }
    // Its own leaves are no CAs.
    let trusted = root.certified_by(&root, &[NO_CA_BELOW]);
    let direct = Sample::of_device().issued(&root, &device);
    assert_eq!(length(&way(&direct, &[trusted], &[], None)), 2);
}

#[test]
fn a_leaf_with_an_unknown_critical_extension_is_refused_and_with_a_policy_not() {
    let (root, device) = (Party::new("CN=root", 1), Party::new("CN=device", 2));
    let trusted = [root.certified_by(&root, &[IS_CA])];
    let leaf = |extension| Sample::of_device().with(extension).issued(&root, &device);
    let found = way(&leaf(NAMES), &trusted, &[], None);
    assert!(broken(&found).contains("2.5.29.30"), "{found:?}");
    // Even if somebody trusts it as it is.
    let named = leaf(NAMES);
    broken(&way(&named, std::slice::from_ref(&named), &[], None));
    let policy = (POLICY.0, true, POLICY.2);
    assert_eq!(length(&way(&leaf(policy), &trusted, &[], None)), 2);
}

/// A CA that got a new key under its old name.
#[test]
fn an_issuer_is_chosen_by_its_key_and_not_by_its_name_alone() {
    let (old, new) = (Party::new("CN=ca", 1), Party::new("CN=ca", 3));
    let device = Party::new("CN=device", 2);
    let trusted = [&old, &new].map(|ca| ca.certified_by(ca, &[IS_CA]));
    for ca in [&old, &new] {
        let leaf = Sample::of_device().issued(ca, &device);
        assert_eq!(length(&way(&leaf, &trusted, &[], None)), 2);
    }
    // Where both say whose key it is, the other CA is no issuer, and the right one is missing.
    let leaf = Sample::of_device().issued(&old, &device);
    let other = new.certified_by(&new, &[IS_CA, IS_ANOTHER]);
    assert_eq!(way(&leaf, &[other], &[], None), Way::Open("CN=ca".into()));
    let liar = new.certified_by(&new, &[IS_CA, IS_SOMEBODY]);
    let found = way(&leaf, &[liar], &[], None);
    assert!(broken(&found).contains("signature"), "{found:?}");
}
