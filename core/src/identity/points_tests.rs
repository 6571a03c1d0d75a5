use super::*;
use crate::identity::profile::{BASIC_CONSTRAINTS, EXTENDED_KEY_USAGE};
use crate::identity::samples::{
    AGREES, AUTHORITY_KEY_ID, IS_CA, IS_NO_CA, MODULE, POLICY, PURPOSE, Party, SIGNS, Sample,
    in_year,
};

fn issued(sample: &Sample) -> Certificate {
    sample.issued(&Party::new("CN=ca", 1), &Party::new("CN=device", 2))
}

fn outcome(certificate: &Certificate, name: &str) -> Outcome {
    let points = profile_points(certificate);
    points.iter().find(|one| one.name == name).unwrap().outcome
}

#[test]
fn every_point_of_a_good_certificate_passes_and_tells_what_it_is() {
    let good = issued(&Sample::of_device());
    for point in profile_points(&good) {
        assert_eq!(point.outcome, Outcome::Passed, "{point}");
        assert!(!point.text.contains("wants"), "{point}");
    }
    assert_eq!(unfit(&good, Some(in_year(2025))), None);
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
            // What cannot be read may say anything.
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
        for point in profile_points(&certificate) {
            let here = match point.name == name {
                true => expected,
                false => Outcome::Passed,
            };
            assert_eq!(point.outcome, here, "{name}: {point}");
        }
        assert_eq!(unfit(&certificate, None).is_some(), expected == Failed);
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
        for point in profile_points(&issued(&sample)) {
            assert_eq!(point.outcome, Outcome::Passed, "{point}");
        }
    }
    // Where the subject is empty, the other name must be critical.
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
    let outcome = |now| validity_point(&short, now).outcome;
    assert_eq!(outcome(Ok(in_year(2023))), Outcome::Failed);
    assert_eq!(outcome(Ok(in_year(2026))), Outcome::Passed);
    assert_eq!(outcome(Ok(in_year(2027))), Outcome::Failed);
    assert_eq!(outcome(Err(in_year(2026))), Outcome::Skipped);
    assert!(
        unfit(&short, Some(in_year(2027)))
            .unwrap()
            .contains("was valid until")
    );
    assert_eq!(unfit(&short, None), None);
    let endless = issued(&Sample::of_device());
    assert_eq!(
        validity_point(&endless, Ok(in_year(9999))).text,
        "without end"
    );
}
