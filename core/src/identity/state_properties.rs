//! Tests of properties that hold for every combination of facts and settings in the table of
//! `state.rs`.

use super::tests::{ALLOWED, NEW, refused};
use super::*;

/// Returns every possible combination of facts and policy.
fn all() -> Vec<(Facts, Policy)> {
    let mut all = Vec::new();
    let truths = [false, true];
    let keys = [
        TpmKey::None,
        TpmKey::Orphaned,
        TpmKey::Filed,
        TpmKey::Held,
        TpmKey::Displaced,
        TpmKey::Lost,
    ];
    let certificates = [
        Certified::None,
        Certified::TpmKey,
        Certified::SoftwareKey,
        Certified::Neither,
    ];
    let markers = [
        Marker::None,
        Marker::Nameless,
        Marker::ThisKey,
        Marker::OtherKey,
        Marker::OtherKeyHeld,
    ];
    let existings = [
        ExistingState::None,
        ExistingState::Usable,
        ExistingState::Unusable,
    ];
    let tpms = [(false, false), (false, true), (true, true)];
    let files = [(false, false), (true, false), (false, true)];
    for ((reset, (tpm, tpm_is_there), software), (unread, untrusted)) in truths
        .iter()
        .flat_map(|a| tpms.map(|b| (*a, b)))
        .flat_map(|(a, b)| truths.map(|c| (a, b, c)))
        .flat_map(|a| files.map(|b| (a, b)))
    {
        for (key, certificate) in keys.iter().flat_map(|a| certificates.map(|b| (*a, b))) {
            for (marker, existing) in markers.iter().flat_map(|a| existings.map(|b| (*a, b))) {
                let facts = Facts {
                    reset,
                    tpm,
                    tpm_is_there,
                    existing,
                    certificate,
                    key,
                    software,
                    marker,
                    unread,
                    untrusted,
                };
                if !can_be(facts) {
                    continue;
                }
                for fallback in [Fallback::None, Fallback::Software] {
                    for leave_software in [LeaveSoftware::Never, LeaveSoftware::OnNewCertificate] {
                        for own in [
                            OwnIdentity::Unset,
                            OwnIdentity::Wanted,
                            OwnIdentity::Unwanted,
                        ] {
                            let policy = Policy {
                                own,
                                fallback,
                                leave_software,
                            };
                            all.push((facts, policy));
                        }
                    }
                }
            }
        }
    }
    all
}

fn can_be(facts: Facts) -> bool {
    let asked = !matches!(facts.key, TpmKey::None | TpmKey::Filed);
    let has_file = !matches!(facts.key, TpmKey::None | TpmKey::Orphaned);
    let key_is_judged = match facts.key {
        TpmKey::None => true,
        _ => asked == facts.tpm,
    };
    key_is_judged
        && (facts.certificate != Certified::TpmKey || has_file)
        && (facts.certificate != Certified::SoftwareKey || facts.software)
        && (facts.marker != Marker::ThisKey || has_file)
        && (facts.marker != Marker::OtherKeyHeld || facts.tpm)
}

/// Returns the facts after each partial step of a plan.
fn steps(facts: Facts, plan: Plan) -> Vec<Facts> {
    let mut now = facts;
    let mut steps = Vec::new();
    let mut step = |change: &dyn Fn(&mut Facts)| {
        change(&mut now);
        steps.push(now);
    };
    let in_tpm: [&dyn Fn(&mut Facts); 3] = [
        &|facts| facts.certificate = Certified::TpmKey,
        &|facts| facts.marker = Marker::ThisKey,
        &|facts| facts.software = false,
    ];
    match plan {
        Plan::Generate => {
            step(&|facts| facts.key = TpmKey::Displaced);
            step(&|facts| facts.key = TpmKey::Held);
            in_tpm.into_iter().for_each(&mut step);
        }
        Plan::Keep | Plan::Persist | Plan::Certify => {
            step(&|facts| facts.key = TpmKey::Held);
            in_tpm.into_iter().for_each(&mut step);
        }
        Plan::CertifySoftware => step(&|facts| facts.certificate = Certified::SoftwareKey),
        Plan::MakeSoftware => {
            step(&|facts| facts.software = true);
            step(&|facts| facts.certificate = Certified::SoftwareKey);
        }
        Plan::Reset => {
            // The reset removes the certificate before the key, so that an interruption never
            // leaves a certificate without key. It removes the request for the reset last.
            step(&|facts| facts.certificate = Certified::None);
            step(&|facts| facts.key = TpmKey::None);
            step(&|facts| facts.unread = false);
            step(&|facts| facts.software = false);
            step(&|facts| facts.marker = Marker::None);
            step(&|facts| facts.reset = false);
        }
        Plan::KeepSoftware | Plan::UseExisting | Plan::UseFactory | Plan::Refuse(_) => {}
    }
    steps
}

fn end(mut facts: Facts, policy: Policy) -> (Facts, Plan) {
    for _ in 0..4 {
        let plan = facts.plan(policy);
        match steps(facts, plan).last() {
            Some(after) if *after != facts => facts = *after,
            _ => return (facts, plan),
        }
    }
    panic!("{facts:?} does not come to rest");
}

#[test]
fn there_are_many_combinations() {
    assert!(all().len() > 1000, "{}", all().len());
}

#[test]
fn whatever_was_done_is_not_done_again() {
    for (facts, policy) in all() {
        let (rest, plan) = end(facts, policy);
        assert_eq!(rest.plan(policy), plan);
        let quiet = matches!(
            plan,
            Plan::Keep
                | Plan::KeepSoftware
                | Plan::UseExisting
                | Plan::UseFactory
                | Plan::Refuse(_)
        );
        assert!(quiet, "{facts:?} {policy:?} ends in {plan:?}");
    }
}

#[test]
fn killed_after_any_step_it_ends_the_same() {
    for (facts, policy) in all() {
        let whole = end(facts, policy);
        for cut in steps(facts, facts.plan(policy)) {
            assert_eq!(
                end(cut, policy),
                whole,
                "{facts:?} {policy:?} cut at {cut:?}"
            );
        }
    }
}

#[test]
fn a_certificate_that_does_not_match_is_never_overwritten() {
    for (facts, policy) in all() {
        if facts.certificate == Certified::Neither && !facts.reset {
            let unchanged = end(facts, policy).0;
            assert_eq!(unchanged, facts, "{policy:?}");
        }
    }
}

#[test]
fn a_late_tpm_costs_no_identity() {
    for (facts, policy) in all() {
        let was_in_tpm = facts.certificate == Certified::TpmKey
            || (facts.marker != Marker::None && facts.certificate != Certified::SoftwareKey);
        if !facts.tpm && was_in_tpm && facts.existing == ExistingState::None {
            let unchanged = end(facts, policy).0;
            assert_eq!(unchanged, facts, "{policy:?}");
        }
    }
}

#[test]
fn a_key_that_is_lost_costs_no_identity() {
    for (facts, policy) in all() {
        let was_in_tpm = facts.key == TpmKey::Orphaned
            || (facts.key == TpmKey::None
                && [Marker::OtherKey, Marker::OtherKeyHeld].contains(&facts.marker));
        let lost = was_in_tpm && facts.certificate != Certified::SoftwareKey;
        let wanted = policy.own != OwnIdentity::Unwanted && facts.existing == ExistingState::None;
        if facts.tpm && lost && wanted && !facts.reset {
            let (unchanged, plan) = end(facts, policy);
            assert_eq!(unchanged, facts, "{policy:?}");
            assert!(matches!(plan, Plan::Refuse(_)), "{facts:?}: {plan:?}");
        }
    }
}

#[test]
fn a_software_identity_is_made_only_where_no_tpm_was() {
    for (facts, policy) in all() {
        if matches!(
            facts.plan(policy),
            Plan::MakeSoftware | Plan::CertifySoftware
        ) {
            assert_eq!(facts.marker, Marker::None);
            assert_eq!(facts.certificate, Certified::None);
        }
        if facts.plan(policy) == Plan::MakeSoftware {
            assert_eq!((facts.marker, facts.key), (Marker::None, TpmKey::None));
            assert!(!facts.software && !facts.tpm && !facts.tpm_is_there);
        }
    }
}

#[test]
fn who_wants_no_identity_of_its_own_gets_none_and_loses_none() {
    for (facts, policy) in all() {
        if policy.own == OwnIdentity::Unwanted && !facts.reset {
            assert_eq!(end(facts, policy).0, facts);
        }
    }
    let without = Policy {
        own: OwnIdentity::Unwanted,
        ..ALLOWED
    };
    assert_eq!(NEW.plan(without), Plan::UseFactory);
    assert_eq!(NEW.with_tpm(false).plan(without), Plan::UseFactory);
    let asked = Facts { reset: true, ..NEW };
    assert_eq!(asked.plan(without), Plan::Reset);
}

/// An explicit request for an identity matters only on devices that never had an identity.
#[test]
fn who_was_not_asked_differs_only_where_nothing_ever_was() {
    let mut differ = 0;
    for (facts, policy) in all() {
        if policy.own != OwnIdentity::Unset {
            continue;
        }
        let wanted = Policy {
            own: OwnIdentity::Wanted,
            ..policy
        };
        let (plan, asked) = (facts.plan(policy), facts.plan(wanted));
        if plan == asked {
            continue;
        }
        differ += 1;
        assert_eq!(plan, Plan::UseFactory, "{facts:?} {policy:?}");
        assert_eq!(end(facts, policy).0, facts, "{policy:?}");
        let traces = (facts.key, facts.certificate, facts.marker, facts.software);
        let none = (TpmKey::None, Certified::None, Marker::None, false);
        assert_eq!(traces, none, "{policy:?}");
        assert!(facts.tpm && !facts.reset && !facts.unread && !facts.untrusted);
        assert_eq!(facts.existing, ExistingState::None);
    }
    // The facts are equal under each setting for software identities, so the count is the same.
    assert_eq!(differ, 4);
}

#[test]
fn nothing_that_was_certified_is_given_up_without_being_asked() {
    for (facts, policy) in all() {
        let certified = [Certified::TpmKey, Certified::SoftwareKey].contains(&facts.certificate);
        if certified && !facts.reset {
            assert_eq!(end(facts, policy).0.certificate, facts.certificate);
        }
    }
}

#[test]
fn what_was_not_read_is_not_replaced() {
    for (facts, policy) in all() {
        if !facts.unread || facts.reset {
            continue;
        }
        let (rest, plan) = end(facts, policy);
        let made = [Plan::Generate, Plan::MakeSoftware, Plan::Certify];
        assert!(!made.contains(&facts.plan(policy)), "{facts:?}");
        let missing = matches!(facts.key, TpmKey::None | TpmKey::Orphaned) && !facts.software;
        if missing {
            assert_eq!(rest, facts, "{plan:?}");
        }
    }
}

#[test]
fn where_others_may_write_nothing_is_done() {
    for (facts, policy) in all() {
        if facts.untrusted {
            let (rest, plan) = end(facts, policy);
            assert_eq!(rest, facts, "{plan:?}");
            let factory = policy.own == OwnIdentity::Unwanted;
            let used = !facts.reset && (facts.existing != ExistingState::None || factory);
            assert_eq!(plan == refused(Refusal::Untrusted), !used, "{facts:?}");
        }
    }
}
