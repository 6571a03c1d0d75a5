use super::*;
use crate::identity::{EnrolmentStatus, IdentitySource, MasterKey};
use std::time::Duration;

const DAY: i64 = 86_400;
const SOON: RenewWithin = RenewWithin::Left(Duration::from_secs(14 * DAY as u64));

fn role(label: &str, expiry: Expiry) -> RoleStatus {
    RoleStatus {
        token: "devid".into(),
        role: "service",
        label: label.into(),
        key: Some("p256, key-1.pem".into()),
        algorithm: Some("p256".into()),
        lost: false,
        id: "01".into(),
        certificate: Some("CN=web".into()),
        expiry: Some(expiry),
        validity: Some((0, 90 * DAY)),
    }
}

fn left(seconds_left: i64) -> Expiry {
    Expiry::At {
        not_after: "2026-07-11T00:00:01Z".into(),
        days_left: 0,
        seconds_left,
    }
}

fn status(roles: Vec<RoleStatus>) -> Status {
    Status {
        mode: Mode::Tpm,
        identity: Some(IdentitySource::Own),
        reason: None,
        tpm_is_out_of_reach: false,
        marker: None,
        roles,
        missing: Vec::new(),
        unread: Vec::new(),
        enrolments: Vec::new(),
        master: MasterKey {
            handle: "0x81000100".into(),
            held: Some(true),
            needed: true,
            remedy: None,
            command: None,
        },
        tpm: None,
        tcti: String::new(),
    }
}

#[test]
fn a_certificate_has_one_state() {
    let times = || (String::from("a"), String::from("b"));
    let (not_before, not_after) = times();
    let lost = RoleStatus {
        lost: true,
        ..role("lost", left(30 * DAY))
    };
    let without_key = RoleStatus {
        key: None,
        ..role("alone", left(-1))
    };
    for (role, state) in [
        (role("web", left(14 * DAY + 1)), Some("valid")),
        (role("web", left(14 * DAY)), Some("expiring")),
        (role("web", left(1)), Some("expiring")),
        (role("web", left(0)), Some("over")),
        (role("web", left(-1)), Some("over")),
        (role("web", Expiry::Never), Some("valid")),
        (
            role(
                "web",
                Expiry::NotYet {
                    not_before,
                    not_after: not_after.clone(),
                },
            ),
            Some("not-yet"),
        ),
        (
            role(
                "web",
                Expiry::ClockWrong {
                    not_after: not_after.clone(),
                },
            ),
            Some("clock-wrong"),
        ),
        (
            role("web", Expiry::Unreadable { not_after }),
            Some("unreadable"),
        ),
        (lost, Some("key-lost")),
        (without_key, None),
    ] {
        let found = CertificateState::of(&role, SOON);
        assert_eq!(found.map(CertificateState::name), state, "{role:?}");
        let json = found.map(|state| toml::Value::try_from(state).unwrap());
        assert_eq!(json, state.map(Into::into), "serde says the same name");
    }
    // The certificate is valid for 90 days. A third of that time is 30 days.
    let third = RenewWithin::Part(1, 3);
    for (seconds, state) in [(30 * DAY, "expiring"), (30 * DAY + 1, "valid")] {
        let found = CertificateState::of(&role("web", left(seconds)), third);
        assert_eq!(found.map(CertificateState::name), Some(state));
    }
}

#[test]
fn the_worst_counts() {
    let check = |status: &Status| status.check(SOON);
    let whole = status(vec![role("web", left(30 * DAY))]);
    assert_eq!(check(&whole).attention, Attention::None);
    assert_eq!(check(&whole).findings, [] as [&str; 0]);
    let soon = status(vec![role("web", left(30 * DAY)), role("b", left(DAY))]);
    assert_eq!(check(&soon).attention, Attention::Soon);
    assert_eq!(check(&soon).findings.len(), 1);
    let over = status(vec![role("web", left(0)), role("b", left(DAY))]);
    assert_eq!(check(&over).attention, Attention::Now);
    assert_eq!(check(&over).findings.len(), 2);
    let failing = Status {
        enrolments: vec![EnrolmentStatus {
            label: "web".into(),
            server: "https://est".into(),
            fault: Some("401".into()),
            failures: 3,
            next_try: 300,
        }],
        ..whole.clone()
    };
    assert_eq!(check(&failing).attention, Attention::Soon);
    for now in [
        Status {
            missing: vec!["web".into()],
            ..whole.clone()
        },
        Status {
            unread: vec!["token devid: cannot be read".into()],
            ..whole.clone()
        },
        Status {
            marker: Some("no".into()),
            ..whole.clone()
        },
        Status {
            mode: Mode::Error,
            reason: Some("none".into()),
            ..whole.clone()
        },
    ] {
        assert_eq!(check(&now).attention, Attention::Now);
    }
    let silent = Status {
        mode: Mode::Error,
        reason: Some("the TPM does not answer".into()),
        tpm_is_out_of_reach: true,
        ..over
    };
    assert_eq!(check(&silent).attention, Attention::Tpm);
}
