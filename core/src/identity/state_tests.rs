//! A test for each row of the table, and for what must hold in all of them.

use super::*;

const ALLOWED: Policy = Policy {
    own: true,
    fallback: Fallback::Software,
    leave_software: LeaveSoftware::OnNewCertificate,
};
const STRICT: Policy = Policy {
    own: true,
    fallback: Fallback::None,
    leave_software: LeaveSoftware::Never,
};
/// A device as it comes, with a TPM.
const NEW: Facts = Facts {
    reset: false,
    tpm: true,
    tpm_is_there: true,
    existing: Existing::None,
    certificate: Certified::None,
    key: TpmKey::None,
    software: false,
    marker: Marker::None,
};
const IN_TPM: Facts = Facts {
    certificate: Certified::TpmKey,
    key: TpmKey::Held,
    marker: Marker::ThisKey,
    ..NEW
};
const IN_SOFTWARE: Facts = Facts {
    tpm: false,
    tpm_is_there: false,
    certificate: Certified::SoftwareKey,
    software: true,
    ..NEW
};

fn refused(why: Refusal) -> Plan {
    Plan::Refuse(why)
}

#[test]
fn row_1_all_is_there() {
    assert_eq!(IN_TPM.plan(STRICT), Plan::Keep);
    // The marker may be lost, or lie: the key is what counts.
    for marker in [Marker::None, Marker::OtherKey] {
        assert_eq!(Facts { marker, ..IN_TPM }.plan(STRICT), Plan::Keep);
    }
}

#[test]
fn row_2_the_certificate_is_lost() {
    for key in [TpmKey::Held, TpmKey::Displaced] {
        let facts = Facts {
            certificate: Certified::None,
            key,
            ..IN_TPM
        };
        assert_eq!(facts.plan(STRICT), Plan::Certify);
    }
}

#[test]
fn row_3_nothing_is_there() {
    assert_eq!(NEW.plan(STRICT), Plan::Generate);
}

#[test]
fn row_3_only_the_keys_file_is_lost() {
    let marked = Facts {
        marker: Marker::OtherKeyHeld,
        ..NEW
    };
    // The marker is lost too; and whatever else is left over.
    let orphaned = Facts {
        key: TpmKey::Orphaned,
        ..NEW
    };
    let certified = Facts {
        certificate: Certified::Neither,
        ..orphaned
    };
    for facts in [marked, orphaned, certified] {
        assert_eq!(facts.plan(ALLOWED), refused(Refusal::FileLost));
    }
}

#[test]
fn row_3_the_marker_names_a_key_that_is_nowhere() {
    let named = Facts {
        marker: Marker::OtherKey,
        ..NEW
    };
    assert_eq!(named.plan(ALLOWED), refused(Refusal::KeyLost));
    // One that names none may be anybody's.
    let nameless = Facts {
        marker: Marker::Nameless,
        ..NEW
    };
    assert_eq!(nameless.plan(STRICT), Plan::Generate);
}

#[test]
fn row_4_the_handle_is_empty() {
    let displaced = Facts {
        key: TpmKey::Displaced,
        ..IN_TPM
    };
    assert_eq!(displaced.plan(STRICT), Plan::Persist);
    let lost = Facts {
        key: TpmKey::Lost,
        ..IN_TPM
    };
    assert_eq!(lost.plan(ALLOWED), refused(Refusal::KeyLost));
}

#[test]
fn row_5_the_certificate_is_for_another_key() {
    for key in [TpmKey::Held, TpmKey::None, TpmKey::Lost] {
        let facts = Facts {
            certificate: Certified::Neither,
            key,
            ..IN_TPM
        };
        assert_eq!(facts.plan(ALLOWED), refused(Refusal::Mismatch));
    }
}

#[test]
fn row_6_a_software_identity_stays_whatever_the_tpm_does() {
    for tpm in [false, true] {
        let facts = Facts { tpm, ..IN_SOFTWARE };
        assert_eq!(facts.plan(ALLOWED), Plan::KeepSoftware);
    }
}

#[test]
fn row_7_a_new_certificate_may_move_to_the_tpm() {
    let facts = Facts {
        tpm: true,
        certificate: Certified::None,
        ..IN_SOFTWARE
    };
    assert_eq!(facts.plan(ALLOWED), Plan::Generate);
    assert_eq!(facts.plan(STRICT), Plan::CertifySoftware);
    let late = Facts {
        tpm: false,
        ..facts
    };
    assert_eq!(late.plan(ALLOWED), Plan::CertifySoftware);
}

#[test]
fn row_8_there_is_no_tpm() {
    let silent = Facts { tpm: false, ..NEW };
    assert_eq!(silent.plan(ALLOWED), refused(Refusal::TpmSilent));
    let facts = Facts {
        tpm_is_there: false,
        ..silent
    };
    assert_eq!(facts.plan(ALLOWED), Plan::MakeSoftware);
    assert_eq!(facts.plan(STRICT), refused(Refusal::NoTpm));
    // Somebody remembers that there was one.
    for marker in [Marker::ThisKey, Marker::OtherKey, Marker::Nameless] {
        let facts = Facts { marker, ..facts };
        assert_eq!(facts.plan(ALLOWED), refused(Refusal::TpmGone));
    }
}

#[test]
fn row_9_the_tpm_is_late() {
    for certificate in [Certified::TpmKey, Certified::None] {
        let facts = Facts {
            tpm: false,
            key: TpmKey::Filed,
            certificate,
            ..IN_TPM
        };
        assert_eq!(facts.plan(ALLOWED), refused(Refusal::TpmGone));
    }
}

#[test]
fn rows_10_and_11_a_reset_is_asked_for() {
    let reset = |facts: Facts| Facts {
        reset: true,
        ..facts
    };
    assert_eq!(reset(IN_TPM).plan(STRICT), Plan::Reset);
    assert_eq!(reset(IN_SOFTWARE).plan(ALLOWED), Plan::Reset);
    assert_eq!(
        reset(IN_SOFTWARE).plan(STRICT),
        refused(Refusal::ResetNeedsTpm)
    );
    assert_eq!(
        reset(IN_TPM.with_tpm(false)).plan(ALLOWED),
        refused(Refusal::ResetNeedsTpm)
    );
}

#[test]
fn somebody_elses_identity_is_used_or_nothing_is_done() {
    let facts = Facts {
        existing: Existing::Usable,
        ..NEW
    };
    assert_eq!(facts.plan(ALLOWED), Plan::UseExisting);
    let facts = Facts {
        existing: Existing::Unusable,
        ..NEW
    };
    assert_eq!(facts.plan(ALLOWED), refused(Refusal::ExistingUnusable));
}

/// Every combination that can be.
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
    let existings = [Existing::None, Existing::Usable, Existing::Unusable];
    let tpms = [(false, false), (false, true), (true, true)];
    for (reset, (tpm, tpm_is_there), software) in truths
        .iter()
        .flat_map(|a| tpms.map(|b| (*a, b)))
        .flat_map(|(a, b)| truths.map(|c| (a, b, c)))
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
                };
                if !can_be(facts) {
                    continue;
                }
                for fallback in [Fallback::None, Fallback::Software] {
                    for leave_software in [LeaveSoftware::Never, LeaveSoftware::OnNewCertificate] {
                        for own in truths {
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

/// What a plan does, step by step: the facts after each.
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
            // The certificate before the key, so that none is left without; the request last.
            step(&|facts| facts.certificate = Certified::None);
            step(&|facts| facts.key = TpmKey::None);
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
        if !facts.tpm && was_in_tpm && facts.existing == Existing::None {
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
        let wanted = policy.own && facts.existing == Existing::None;
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
        if !policy.own && !facts.reset {
            assert_eq!(end(facts, policy).0, facts);
        }
    }
    let without = Policy {
        own: false,
        ..ALLOWED
    };
    assert_eq!(NEW.plan(without), Plan::UseFactory);
    assert_eq!(NEW.with_tpm(false).plan(without), Plan::UseFactory);
    let asked = Facts { reset: true, ..NEW };
    assert_eq!(asked.plan(without), Plan::Reset);
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
