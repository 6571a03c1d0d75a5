use crate::oid::{INHIBIT_ANY_POLICY, POLICY_CONSTRAINTS, POLICY_MAPPINGS};
use crate::x509::path::{PathResult, build_path};
use crate::x509::samples::{
    ANY_POLICY as ANY, Extension, IS_CA, POLICY_3, POLICY_4, Party, Sample,
};

const EXPLICIT: Extension = (POLICY_CONSTRAINTS, true, "3003800100");
const EXPLICIT_BELOW: Extension = (POLICY_CONSTRAINTS, true, "3003800101");
const NO_MAPPING: Extension = (POLICY_CONSTRAINTS, true, "3006800100810100");
const NO_ANY: Extension = (INHIBIT_ANY_POLICY, true, "020100");
const NO_ANY_BELOW: Extension = (INHIBIT_ANY_POLICY, true, "020101");
/// A policyMappings extension that maps 1.2.3 to 1.2.4 for the certificates below it.
const MAPS: Extension = (POLICY_MAPPINGS, true, "300a300806022a0306022a04");

/// Validates a path of three certificates (root, CA, leaf), each with the given extensions.
fn ends(root: &[Extension], ca: &[Extension], leaf: &[Extension]) -> Result<(), String> {
    let (top, middle) = (Party::new("CN=root", 1), Party::new("CN=ca", 3));
    let device = Party::new("CN=device", 2);
    let root = top.certified_by(&top, &[&[IS_CA], root].concat());
    let ca = middle.certified_by(&top, &[&[IS_CA], ca].concat());
    let sample = Sample {
        extensions: leaf.to_vec(),
        ..Sample::of_device()
    };
    match build_path(&sample.issued(&middle, &device), &[root], &[ca], None) {
        PathResult::Trusted(_) => Ok(()),
        PathResult::Invalid(why) => Err(why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn policies_alone_never_fail_a_path() {
    let critical = |one: Extension| (one.0, true, one.2);
    for (root, ca, leaf) in [
        (&[][..], &[critical(POLICY_3)][..], &[][..]),
        (&[], &[critical(POLICY_3)], &[critical(POLICY_4)]),
        (&[critical(POLICY_3)], &[critical(POLICY_4)], &[]),
        (&[], &[POLICY_3, MAPS], &[POLICY_3]),
        (&[], &[ANY, NO_ANY], &[ANY]),
        (&[], &[NO_ANY], &[]),
    ] {
        assert_eq!(ends(root, ca, leaf), Ok(()), "{root:?} {ca:?} {leaf:?}");
    }
}

#[test]
fn a_required_policy_must_be_valid_all_along() {
    for (root, ca, leaf, good) in [
        (&[][..], &[EXPLICIT][..], &[][..], false),
        (&[], &[EXPLICIT], &[POLICY_3], false),
        (&[], &[EXPLICIT, POLICY_3], &[], false),
        (&[], &[EXPLICIT, POLICY_3], &[POLICY_4], false),
        (&[], &[EXPLICIT, POLICY_3], &[POLICY_3], true),
        (&[], &[EXPLICIT, POLICY_3], &[ANY], true),
        (&[], &[EXPLICIT, ANY], &[POLICY_3], true),
        // requireExplicitPolicy of the CA begins one certificate below the CA, at the leaf.
        (&[], &[EXPLICIT_BELOW], &[], false),
        (&[], &[EXPLICIT_BELOW, POLICY_3], &[POLICY_3], true),
        // The trusted certificate has requireExplicitPolicy.
        (&[EXPLICIT], &[POLICY_3], &[POLICY_3], true),
        (&[EXPLICIT], &[POLICY_3], &[], false),
        (&[EXPLICIT, POLICY_3], &[POLICY_4], &[POLICY_4], false),
        (&[EXPLICIT, POLICY_3], &[POLICY_3], &[POLICY_3], true),
        // The leaf has requireExplicitPolicy.
        (&[], &[POLICY_3], &[EXPLICIT], false),
        (&[], &[POLICY_3], &[EXPLICIT, POLICY_3], true),
    ] {
        let found = ends(root, ca, leaf);
        assert_eq!(found.is_ok(), good, "{root:?} {ca:?} {leaf:?}: {found:?}");
        if let Err(why) = found {
            assert!(why.contains("requires a policy"), "{why}");
        }
    }
}

#[test]
fn any_policy_and_mappings_hold_as_long_as_nobody_inhibits_them() {
    for (root, ca, leaf, good) in [
        (
            &[][..],
            &[EXPLICIT, POLICY_3, NO_ANY][..],
            &[ANY][..],
            false,
        ),
        (&[], &[EXPLICIT, POLICY_3, NO_ANY_BELOW], &[ANY], true),
        (&[NO_ANY], &[EXPLICIT, ANY], &[POLICY_3], false),
        (&[NO_ANY_BELOW], &[EXPLICIT, ANY], &[POLICY_3], true),
        (&[], &[EXPLICIT, POLICY_3, MAPS], &[POLICY_4], true),
        (&[], &[EXPLICIT, POLICY_3, MAPS], &[POLICY_3], false),
        (&[], &[EXPLICIT, POLICY_4, MAPS], &[POLICY_4], true),
        (&[], &[EXPLICIT, ANY, MAPS], &[POLICY_4], true),
        (&[NO_MAPPING], &[POLICY_3, MAPS], &[POLICY_4], false),
        (&[NO_MAPPING], &[POLICY_3, MAPS], &[POLICY_3], false),
        (&[NO_MAPPING], &[POLICY_4, MAPS], &[POLICY_4], true),
    ] {
        let found = ends(root, ca, leaf);
        assert_eq!(found.is_ok(), good, "{root:?} {ca:?} {leaf:?}: {found:?}");
    }
}

#[test]
fn a_mapping_of_any_policy_fails() {
    for value in [
        "300c300a0604551d200006022a03",
        "300c300a06022a030604551d2000",
    ] {
        for critical in [false, true] {
            let maps = (POLICY_MAPPINGS, critical, value);
            for (root, ca) in [(&[][..], &[ANY, maps][..]), (&[maps], &[])] {
                let why = ends(root, ca, &[]).unwrap_err();
                assert!(why.contains("maps anyPolicy"), "{why}");
            }
        }
    }
}

/// Only a self-issued CA may state anyPolicy below inhibitAnyPolicy, and no counter counts that CA.
#[test]
fn a_self_issued_ca_is_not_counted() {
    const EXPLICIT_BELOW_2: Extension = (POLICY_CONSTRAINTS, true, "3003800102");
    let ends = |name, root: &[Extension], ca: &[Extension], leaf: &[Extension]| {
        let (top, middle) = (Party::new("CN=root", 1), Party::new(name, 3));
        let root = top.certified_by(&top, &[&[IS_CA], root].concat());
        let ca = middle.certified_by(&top, &[&[IS_CA], ca].concat());
        let sample = Sample {
            extensions: leaf.to_vec(),
            ..Sample::of_device()
        };
        let device = sample.issued(&middle, &Party::new("CN=device", 2));
        matches!(
            build_path(&device, &[root], &[ca], None),
            PathResult::Trusted(_)
        )
    };
    for (name, self_issued) in [("CN=root", true), ("CN=ca", false)] {
        assert_eq!(ends(name, &[EXPLICIT_BELOW_2], &[], &[]), self_issued);
        let root = [NO_ANY, POLICY_3];
        let ca = [ANY, EXPLICIT];
        assert_eq!(ends(name, &root, &ca, &[POLICY_3]), self_issued);
    }
}
