use super::*;
use crate::oid::{
    AUTHORITY_KEY_ID, BASIC_CONSTRAINTS, EXTENDED_KEY_USAGE, INHIBIT_ANY_POLICY, NAME_CONSTRAINTS,
    POLICY_CONSTRAINTS, POLICY_MAPPINGS, SUBJECT_KEY_ID,
};
use crate::x509::path::{PathResult, build_path};
use crate::x509::samples::{
    AGREES, IS_CA, IS_NO_CA, IS_SOMEBODY, MODULE, POLICY, PURPOSE, Party, SIGNS, Sample, in_year,
};
use x509_cert::der::asn1::ObjectIdentifier;

fn issued(sample: &Sample) -> Certificate {
    sample.issued(&Party::new("CN=ca", 1), &Party::new("CN=device", 2))
}

fn outcome(certificate: &Certificate, name: &str) -> Outcome {
    let points = profile_checks(certificate);
    points.iter().find(|one| one.name == name).unwrap().outcome
}

#[test]
fn every_point_of_a_good_certificate_passes_and_tells_what_it_is() {
    let good = issued(&Sample::of_device());
    for point in profile_checks(&good) {
        assert_eq!(point.outcome, Outcome::Passed, "{point}");
        assert!(!point.text.contains("wants"), "{point}");
    }
    assert_eq!(first_failure(&good, Some(in_year(2025))), None);
}

#[test]
fn each_fault_is_found_at_its_own_point_and_nowhere_else() {
    use Outcome::{Failed, Noted};
    let good = Sample::of_device;
    let serial = |serial: &[u8]| Sample {
        serial: serial.to_vec(),
        ..good()
    };
    let critical = |(identifier, _, value)| (identifier, true, value);
    let cases = [
        (
            "version",
            Noted,
            Sample {
                version: Some(1),
                ..good()
            },
        ),
        ("serial number", Noted, serial(&[7])),
        ("serial number", Noted, serial(&[0x40; 21])),
        ("serial number", Noted, serial(&[0x80; 16])),
        (
            "subject",
            Noted,
            Sample {
                subject: "CN=X-1",
                ..good()
            },
        ),
        ("basic constraints", Failed, good().with(IS_CA)),
        (
            "basic constraints",
            Failed,
            // A certificate with unreadable basicConstraints may be a CA certificate.
            good().with((BASIC_CONSTRAINTS, true, "0500")),
        ),
        ("key usage", Failed, good().with(AGREES)),
        ("key usage", Noted, good().without(KEY_USAGE)),
        ("key usage", Noted, good().with((SIGNS.0, false, SIGNS.2))),
        (
            "authority key identifier",
            Noted,
            good().without(AUTHORITY_KEY_ID),
        ),
        (
            "hardware module name",
            Noted,
            good().without(SUBJECT_ALT_NAME),
        ),
        (
            "form of the end",
            Noted,
            Sample {
                until: (0x18, "20300101000000Z"),
                ..good()
            },
        ),
        ("critical extensions", Noted, good().with(critical(POLICY))),
        ("critical extensions", Noted, good().with(critical(MODULE))),
    ];
    for (name, expected, sample) in cases {
        let certificate = issued(&sample);
        for point in profile_checks(&certificate) {
            let here = match point.name == name {
                true => expected,
                false => Outcome::Passed,
            };
            assert_eq!(point.outcome, here, "{name}: {point}");
        }
        assert_eq!(
            first_failure(&certificate, None).is_some(),
            expected == Failed
        );
    }
}

#[test]
fn what_the_standard_allows_is_no_fault() {
    let good = Sample::of_device;
    let nameless = Sample {
        subject: "",
        ..good().with((MODULE.0, true, MODULE.2))
    };
    for sample in [
        good().with(IS_NO_CA),
        good().without(EXTENDED_KEY_USAGE),
        good().with(PURPOSE),
    ] {
        for point in profile_checks(&issued(&sample)) {
            assert_eq!(point.outcome, Outcome::Passed, "{point}");
        }
    }
    // If the subject is empty, the subjectAltName must be critical.
    assert_eq!(
        outcome(&issued(&nameless), "critical extensions"),
        Outcome::Passed
    );
}

#[test]
fn nobody_issued_a_certificate_without_issuer() {
    let holder = Party::new("CN=device", 2);
    let nobody = Sample::of_device().issued(&Party::new("", 1), &holder);
    assert_eq!(outcome(&nobody, "issuer"), Outcome::Failed);
}

#[test]
fn validity_is_judged_by_a_clock_that_can_be_believed() {
    let short = issued(&Sample::of_device().until("261231235959Z"));
    let outcome = |now| validity_check(&short, now).outcome;
    assert_eq!(outcome(Ok(in_year(2023))), Outcome::Failed);
    assert_eq!(outcome(Ok(in_year(2026))), Outcome::Passed);
    assert_eq!(outcome(Ok(in_year(2027))), Outcome::Failed);
    assert_eq!(outcome(Err(in_year(2026))), Outcome::Skipped);
    assert!(
        first_failure(&short, Some(in_year(2027)))
            .unwrap()
            .contains("was valid until")
    );
    assert_eq!(first_failure(&short, None), None);
    let endless = issued(&Sample::of_device());
    assert_eq!(
        validity_check(&endless, Ok(in_year(9999))).text,
        "without end"
    );
}

/// An extension may be absent, readable, or unreadable. These are three different cases.
#[test]
fn what_cannot_be_read_fails_at_its_point_and_is_not_taken_for_absent() {
    let cases: &[(&str, ObjectIdentifier, &[&str])] = &[
        (
            "key usage",
            KEY_USAGE,
            &[
                "030400800000",
                "0500",
                "",
                "0302078000",
                "030100",
                "0301",
                "04020780",
                "03020980",
                "030107",
                "23040302 0780",
                "03020000",
                "020180",
            ],
        ),
        (
            "basic constraints",
            BASIC_CONSTRAINTS,
            &[
                "0500",
                "",
                "300000",
                "30060101ff0201ff",
                "30040102ffff",
                "3002010100",
                "30020100",
                "30030101ff00",
                "31030101ff",
                "3006020100020100",
                "30070101ff02020001",
            ],
        ),
        (
            "authority key identifier",
            AUTHORITY_KEY_ID,
            &[
                "0500",
                "",
                "300580030102 0300",
                "30028200",
                "3002a100",
                "30028900",
                "30038201",
                "300482000000",
            ],
        ),
        (
            "hardware module name",
            SUBJECT_ALT_NAME,
            &[
                "0500",
                "",
                "3000",
                "3004820268",
                "3002a000",
                "30028900",
                "300482026869 00",
                "3004a402 0500",
            ],
        ),
        (
            "other extensions",
            EXTENDED_KEY_USAGE,
            &["0500", "", "3000", "300306012a00", "3003020101"],
        ),
        (
            "other extensions",
            CERTIFICATE_POLICIES,
            &[
                "0500",
                "",
                "3000",
                "3006300406022a0300",
                "300306012a",
                "300c300406022a03300406022a03",
            ],
        ),
        (
            "other extensions",
            POLICY_MAPPINGS,
            &["0500", "", "3000", "3006300406022a03"],
        ),
        (
            "other extensions",
            POLICY_CONSTRAINTS,
            &["0500", "", "3000", "30038001ff", "3003a00100"],
        ),
        (
            "other extensions",
            INHIBIT_ANY_POLICY,
            &["0500", "", "0200", "0201ff", "02010000"],
        ),
        (
            "other extensions",
            NAME_CONSTRAINTS,
            &[
                "0500",
                "",
                "3000",
                "3002a000",
                "300ba109300782026869800101",
                "3006a10430028200 00",
            ],
        ),
        (
            "other extensions",
            SUBJECT_KEY_ID,
            &["0500", "", "04010000"],
        ),
    ];
    for (name, identifier, values) in cases {
        for value in *values {
            let sample = Sample::of_device().with((*identifier, false, value));
            is_unreadable(&issued(&sample), name, value);
        }
        // extKeyUsage occurs twice, each time with a valid value.
        let good = Sample::of_device()
            .with(IS_NO_CA)
            .with(PURPOSE)
            .with(IS_SOMEBODY);
        let first = good
            .extensions
            .iter()
            .find(|one| one.0 == *identifier)
            .copied();
        if let Some(first) = first {
            let mut twice = good;
            twice.extensions.push(first);
            is_unreadable(&issued(&twice), name, "twice");
        }
    }
    let mut twice = Sample::of_device();
    let unknown = (ObjectIdentifier::new_unwrap("1.2.3"), false, "0500");
    twice.extensions.extend([unknown, unknown]);
    is_unreadable(&issued(&twice), "other extensions", "unknown, twice");
}

#[track_caller]
fn is_unreadable(certificate: &Certificate, name: &str, what: &str) {
    let points = profile_checks(certificate);
    let wrong: Vec<_> = points
        .iter()
        .filter(|one| one.outcome == Outcome::Failed)
        .collect();
    let [one] = wrong[..] else {
        panic!("{name}, {what}: {wrong:?}");
    };
    assert_eq!(one.name, name, "{what}");
    assert!(one.text.contains("cannot be read"), "{what}: {one}");
    assert_eq!(Profile::of(certificate).unreadable.len(), 1, "{what}");
    let way = build_path(certificate, std::slice::from_ref(certificate), &[], None);
    let PathResult::Invalid(why) = way else {
        panic!("{name}, {what}: {way:?}");
    };
    assert!(why.contains("cannot be read"), "{what}: {why}");
}

#[test]
fn odd_values_that_can_be_read_are_read() {
    let points = |extension| {
        let good = issued(&Sample::of_device().with(extension));
        profile_checks(&good)
    };
    for (extension, name, said) in [
        (
            (BASIC_CONSTRAINTS, true, "3003010100"),
            "basic constraints",
            "CA:FALSE",
        ),
        (
            (KEY_USAGE, true, "0303070080"),
            "key usage",
            "digitalSignature is missing",
        ),
        (
            (KEY_USAGE, true, "03020080"),
            "key usage",
            "digitalSignature",
        ),
        (
            (KEY_USAGE, true, "030307 8080"),
            "key usage",
            "digitalSignature, decipherOnly",
        ),
        (
            (AUTHORITY_KEY_ID, false, "3000"),
            "authority key identifier",
            "none; 802.1AR requires one",
        ),
        // GeneralNames that are rarely used: an x400Address, and a DNS name with a byte over 127.
        (
            (SUBJECT_ALT_NAME, false, "3002a300"),
            "hardware module name",
            "none",
        ),
        (
            (SUBJECT_ALT_NAME, false, "3004820268ff"),
            "hardware module name",
            "none",
        ),
    ] {
        let points = points(extension);
        let point = points.iter().find(|one| one.name == name).unwrap();
        assert_eq!(point.text, said);
    }
}
