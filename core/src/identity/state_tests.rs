//! Tests of the table in `state.rs`, with at least one test for each row.

use super::*;

pub(super) const ALLOWED: Policy = Policy {
    own: OwnIdentity::Wanted,
    fallback: Fallback::Software,
    leave_software: LeaveSoftware::OnNewCertificate,
};
const STRICT: Policy = Policy {
    own: OwnIdentity::Wanted,
    fallback: Fallback::None,
    leave_software: LeaveSoftware::Never,
};
/// A new device with a TPM.
pub(super) const NEW: Facts = Facts {
    reset: false,
    tpm: true,
    tpm_is_there: true,
    existing: ExistingState::None,
    certificate: Certified::None,
    key: TpmKey::None,
    software: false,
    marker: Marker::None,
    unread: false,
    untrusted: false,
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

pub(super) fn refused(why: Refusal) -> Plan {
    Plan::Refuse(why)
}

#[test]
fn row_1_all_is_there() {
    assert_eq!(IN_TPM.plan(STRICT), Plan::Keep);
    // The marker file may be missing or wrong, because only the key decides.
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
    // The result does not change without a marker file, or with other remaining objects.
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
    // A marker file that names no key may belong to any program.
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
    // The move to the TPM has begun: the key exists, but no marker file names it.
    for (tpm, key) in [
        (true, TpmKey::Held),
        (true, TpmKey::Displaced),
        (false, TpmKey::Filed),
    ] {
        let begun = Facts { tpm, key, ..facts };
        assert_eq!(begun.plan(STRICT), Plan::CertifySoftware);
    }
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
    // A marker file shows that the device had an identity.
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
fn a_reset_without_tpm_needs_files_that_can_be_read() {
    let unread = Facts {
        reset: true,
        unread: true,
        ..IN_SOFTWARE
    };
    assert_eq!(unread.plan(ALLOWED), refused(Refusal::Unreadable));
    let silent = Facts {
        tpm_is_there: true,
        ..unread
    };
    assert_eq!(silent.plan(ALLOWED), refused(Refusal::ResetNeedsTpm));
}

#[test]
fn a_tpm_that_answers_is_there() {
    for there in [false, true] {
        let facts = Facts {
            tpm_is_there: there,
            ..IN_SOFTWARE
        };
        assert!(facts.with_tpm(true).tpm_is_there);
        assert_eq!(facts.with_tpm(false).tpm_is_there, there);
    }
}

#[test]
fn somebody_elses_identity_is_used_or_nothing_is_done() {
    let facts = Facts {
        existing: ExistingState::Usable,
        ..NEW
    };
    assert_eq!(facts.plan(ALLOWED), Plan::UseExisting);
    let facts = Facts {
        existing: ExistingState::Unusable,
        ..NEW
    };
    assert_eq!(facts.plan(ALLOWED), refused(Refusal::ExistingUnusable));
}

#[test]
fn row_12_a_file_is_there_and_gives_no_object() {
    let unread = Facts {
        unread: true,
        ..NEW
    };
    let keys = [TpmKey::None, TpmKey::Orphaned];
    let markers = [Marker::None, Marker::Nameless, Marker::OtherKey];
    for (key, marker) in keys.iter().flat_map(|a| markers.map(|b| (*a, b))) {
        let facts = Facts {
            key,
            marker,
            ..unread
        };
        assert_eq!(facts.plan(ALLOWED), refused(Refusal::Unreadable));
    }
    // The file that was not read may hold the certificate `devid`.
    let held = Facts {
        key: TpmKey::Held,
        ..unread
    };
    assert_eq!(held.plan(STRICT), refused(Refusal::Unreadable));
    let late = unread.with_tpm(false);
    let absent = Facts {
        tpm_is_there: false,
        ..late
    };
    assert_eq!(late.plan(ALLOWED), refused(Refusal::TpmSilent));
    assert_eq!(absent.plan(ALLOWED), refused(Refusal::Unreadable));
    // If the identity is complete, a file that was not read does not matter.
    for whole in [IN_TPM, IN_SOFTWARE] {
        let beside = Facts {
            unread: true,
            ..whole
        };
        assert_eq!(beside.plan(ALLOWED), whole.plan(ALLOWED));
    }
}

#[test]
fn nobody_asked_for_an_identity_of_its_own() {
    for policy in [ALLOWED, STRICT] {
        let unset = Policy {
            own: OwnIdentity::Unset,
            ..policy
        };
        assert_eq!(NEW.plan(unset), Plan::UseFactory);
        let silent = NEW.with_tpm(false).plan(unset);
        assert_eq!(silent, refused(Refusal::TpmSilent));
        // A marker file or other trace of an earlier identity still matters.
        let marked = Facts {
            marker: Marker::Nameless,
            ..NEW
        };
        assert_eq!(marked.plan(unset), Plan::Generate);
        let uncertified = Facts {
            certificate: Certified::None,
            ..IN_TPM
        };
        for facts in [IN_TPM, IN_SOFTWARE, uncertified] {
            assert_eq!(facts.plan(unset), facts.plan(policy));
        }
        let asked = Facts { reset: true, ..NEW };
        assert_eq!(asked.plan(unset), Plan::Reset);
    }
    // If the kernel has no TPM, `fallback` permits a software identity.
    let bare = Facts {
        tpm: false,
        tpm_is_there: false,
        ..NEW
    };
    let plan = |policy| {
        let own = OwnIdentity::Unset;
        bare.plan(Policy { own, ..policy })
    };
    assert_eq!(plan(ALLOWED), Plan::MakeSoftware);
    assert_eq!(plan(STRICT), refused(Refusal::NoTpm));
}
