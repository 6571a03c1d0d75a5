use super::*;
use crate::identity::OWN;
use crate::store::folder::KeyOrigin;
use crate::tpm::{CommandClass, Limits, Refusals, Tcti, TpmError};
use crate::x509::samples::{IS_CA, Party, Sample};
use std::time::Duration;

fn entry(certificate: Certificate) -> TokenEntry {
    TokenEntry {
        token: OWN.into(),
        token_label: OWN.into(),
        label: OWN.into(),
        file: String::new(),
        id: Vec::new(),
        key: None,
        secret: None,
        software: None,
        public: certificate.public_key(),
        origin: KeyOrigin::Generated,
        certificates: vec![crate::identity::CertificateEntry {
            certificate,
            label: OWN.into(),
            id: Vec::new(),
            place: String::new(),
            file: String::new(),
        }],
        attests: false,
        protected: false,
    }
}

fn leaf() -> Certificate {
    Sample::of_device().issued(&Party::new("CN=ca", 1), &Party::new("CN=device", 2))
}

fn report(key: Check, way: &PathResult, points: Vec<Check>) -> Report {
    Report::of(&entry(leaf()), key, way, points, Path::new("/trust"))
}

/// Tests all results of the key check with all results of the path search, each with and without
/// another failed check.
#[test]
fn verified_is_only_what_signed_and_leads_to_trust_and_has_no_fault() {
    let key = |outcome| Check {
        outcome,
        ..Check::passed(KEY, "as it is".into())
    };
    let ways = [
        PathResult::Trusted(vec![leaf()]),
        PathResult::NoIssuer("CN=ca".into()),
        PathResult::SelfSigned,
        PathResult::Invalid("it is".into()),
    ];
    for outcome in [
        Outcome::Passed,
        Outcome::Noted,
        Outcome::Skipped,
        Outcome::Failed,
    ] {
        for way in &ways {
            for wrong in [false, true] {
                let point = match wrong {
                    true => Check::failed("other", "wrong".into()),
                    false => Check::passed("other", "right".into()),
                };
                let signed = matches!(outcome, Outcome::Passed | Outcome::Noted);
                let broken = matches!(way, PathResult::Invalid(_));
                let expected = match way {
                    _ if wrong || broken || outcome == Outcome::Failed => Verdict::Failed,
                    _ if !signed => Verdict::NotProven,
                    PathResult::Trusted(_) => Verdict::Verified,
                    _ => Verdict::CannotBeVerified,
                };
                let report = report(key(outcome), way, vec![point]);
                assert_eq!(report.verdict, expected, "{outcome:?} {way:?} {wrong}");
                let says_verified = report.summary.contains(": verified");
                assert_eq!(says_verified, expected == Verdict::Verified);
            }
        }
    }
}

#[test]
fn a_clock_that_is_wrong_is_said_in_the_summary_too() {
    let way = PathResult::Trusted(Vec::new());
    let built = crate::x509::samples::in_year(2026);
    let signed = || Check::passed(KEY, "signed".into());
    let wrong = report(
        signed(),
        &way,
        vec![super::validity_check(&leaf(), Err(built))],
    );
    assert_eq!(wrong.verdict, Verdict::Verified);
    assert!(
        wrong.summary.contains("but its validity"),
        "{}",
        wrong.summary
    );
    assert!(!wrong.validity_checked);
    let right = report(
        signed(),
        &way,
        vec![super::validity_check(&leaf(), Ok(built))],
    );
    assert_eq!(right.summary, "devid: verified; revocation not checked");
    assert!(right.validity_checked);
}

#[test]
fn what_is_self_signed_is_told_what_to_do_about_it() {
    let report = report(
        Check::passed(KEY, String::new()),
        &PathResult::SelfSigned,
        Vec::new(),
    );
    for words in [
        "self-signed",
        "devid csr devid",
        "devid import-cert",
        "/trust",
    ] {
        assert!(report.summary.contains(words), "{}", report.summary);
    }
}

#[test]
fn each_proof_is_what_it_says() {
    let file = Path::new("/key.pem");
    let outcome = |proof, file| proof_check(proof, file).map(|point| point.outcome);
    let none = |error| PossessionProof::NoSignature(error);
    assert_eq!(outcome(PossessionProof::Proven, None), Ok(Outcome::Passed));
    assert_eq!(
        outcome(PossessionProof::Proven, Some(file)),
        Ok(Outcome::Noted)
    );
    assert_eq!(
        outcome(PossessionProof::OtherKey, None),
        Ok(Outcome::Failed)
    );
    assert_eq!(
        outcome(PossessionProof::OtherKey, Some(file)),
        Ok(Outcome::Failed)
    );
    assert_eq!(
        outcome(none(SignError::NotLoggedIn), None),
        Ok(Outcome::Skipped)
    );
    assert_eq!(
        outcome(none(SignError::NotInThisTpm), None),
        Ok(Outcome::Failed)
    );
    let silent = none(SignError::Tpm(TpmError::Timeout(
        no_time().for_class(CommandClass::Ordinary),
    )));
    assert_eq!(
        outcome(silent, None).unwrap_err().kind,
        IdentityErrorKind::Tpm
    );
}

fn no_time() -> Limits {
    Limits::new(Duration::ZERO, Duration::ZERO)
}

/// A key in memory uses no TPM, so only its signature matters.
#[test]
fn only_the_certified_keys_own_signature_proves_it() {
    use p256::pkcs8::{EncodePrivateKey, LineEnding};
    let folder = tempfile::tempdir().unwrap();
    let tcti: Tcti = "device:/nonexistent".parse().unwrap();
    let tpm = crate::tpm::Tpm::new(tcti, no_time(), folder.path(), Refusals::default());
    let secret = p256::SecretKey::from_slice(&[2; 32]).unwrap();
    let pem = secret.to_pkcs8_pem(LineEnding::LF).unwrap();
    let info = crate::key::PrivateKeyInfo::from_pem(format!("Label: devid\n{}", *pem).as_bytes());
    let key = Key::in_clear(info.unwrap()).unwrap();
    let (device, ca) = (Party::new("CN=device", 2), Party::new("CN=ca", 1));
    assert_eq!(prove(&tpm, &key, &device.public()), PossessionProof::Proven);
    assert_eq!(prove(&tpm, &key, &ca.public()), PossessionProof::OtherKey);
    assert!(ca.certified_by(&ca, &[IS_CA]).is_ca());
}
