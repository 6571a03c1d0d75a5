//! Tests that challenges and nonces can be used once, and expire.

use super::*;
use crate::evidence::verify::samples::{Kind, parts};
use crate::key::Curve;

const NOW: u64 = 1_800_000_000;

struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("state.json")
    }

    fn at(&self, now: u64) -> CaState {
        CaState::open(&self.path(), now).unwrap()
    }

    /// Creates a challenge and returns the right answer to it.
    fn challenged(&self) -> Response {
        let mut state = self.at(NOW);
        let bundle = parts(Kind::Ec(Curve::P256)).bundle();
        let challenge = state.challenge(&bundle, 60).unwrap();
        let secret = vec![5; 32];
        state.content.challenges[0].secret_sha256 = Hash::Sha256.digest(&[&secret]).into();
        state.save().unwrap();
        Response {
            id: challenge.id,
            secret: secret.into(),
        }
    }
}

#[test]
fn an_answer_counts_once() {
    let fixture = Fixture::new();
    let response = fixture.challenged();
    let activation = fixture.at(NOW + 1).activation(&response).unwrap();
    assert_eq!(activation, parts(Kind::Ec(Curve::P256)).activation());
    let mut wrong = response.clone();
    wrong.secret = vec![6; 32].into();
    assert_eq!(
        fixture.at(NOW).activation(&wrong).unwrap_err(),
        "the answer is wrong"
    );
    wrong.secret = vec![5; 31].into();
    assert!(fixture.at(NOW).activation(&wrong).is_err());
    let mut other = response.clone();
    other.id = vec![1; 16].into();
    let why = fixture.at(NOW).activation(&other).unwrap_err();
    assert!(why.contains("has no challenge with this number"), "{why}");

    fixture.at(NOW + 2).use_up(None, Some(&response)).unwrap();
    let why = fixture.at(NOW + 3).activation(&response).unwrap_err();
    assert!(why.contains("already answered"), "{why}");
}

#[test]
fn an_answer_comes_too_late() {
    let fixture = Fixture::new();
    let response = fixture.challenged();
    assert!(fixture.at(NOW + 59).activation(&response).is_ok());
    let why = fixture.at(NOW + 60).activation(&response).unwrap_err();
    assert!(why.contains("expired"), "{why}");
    // The next write to the file removes expired entries.
    fixture.at(NOW + 60).nonce(10).unwrap();
    assert!(fixture.at(NOW).content.challenges.is_empty());
}

#[test]
fn a_nonce_counts_once() {
    let fixture = Fixture::new();
    let nonce = fixture.at(NOW).nonce(60).unwrap();
    assert_eq!(nonce.len(), 32);
    assert_eq!(fixture.at(NOW).issued(&nonce), Some(nonce.clone()));
    assert_eq!(fixture.at(NOW).may_be_used(&nonce, true), Ok(()));
    let late = fixture.at(NOW + 60).may_be_used(&nonce, true).unwrap_err();
    assert!(late.contains("expired"), "{late}");
    fixture.at(NOW).use_up(Some(&nonce), None).unwrap();
    let again = fixture.at(NOW).may_be_used(&nonce, true).unwrap_err();
    assert!(again.contains("already used"), "{again}");

    let foreign = [7; 20];
    assert_eq!(fixture.at(NOW).may_be_used(&foreign, false), Ok(()));
    assert!(fixture.at(NOW).may_be_used(&foreign, true).is_err());
    fixture.at(NOW).use_up(Some(&foreign), None).unwrap();
    let again = fixture
        .at(NOW + 1000)
        .may_be_used(&foreign, false)
        .unwrap_err();
    assert!(again.contains("already used"), "{again}");
}

#[test]
fn nobody_else_reads_it_and_no_secret_is_in_it() {
    let fixture = Fixture::new();
    fixture.challenged();
    let path = fixture.path();
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains(&serde_json::to_string(&Bytes::from(vec![5; 32])).unwrap()));
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    let why = CaState::open(&path, NOW).unwrap_err();
    assert_eq!(why.kind, IdentityErrorKind::Refused);
    assert!(why.text.contains("chmod 600"), "{}", why.text);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&path, "{}").unwrap();
    assert!(CaState::open(&path, NOW).is_err());
}

#[test]
fn bundles_that_nobody_can_challenge() {
    let good = parts(Kind::Ec(Curve::P256)).bundle();
    let challenge = |change: fn(&mut Bundle)| {
        let mut bundle = good.clone();
        change(&mut bundle);
        let fixture = Fixture::new();
        let made = fixture.at(NOW).challenge(&bundle, 60);
        assert_eq!(fixture.path().exists(), made.is_ok());
        made.map(|made| made.secret.len()).map_err(|why| why.text)
    };
    assert_eq!(challenge(|_| {}), Ok(68));
    assert_eq!(challenge(|it| it.ek_certificates.clear()), Ok(68));
    assert_eq!(challenge(|it| it.ek_public = None), Ok(68));
    for (change, said) in [
        (
            (|it| {
                it.ek_public = None;
                it.ek_certificates.clear();
            }) as fn(&mut Bundle),
            "has no endorsement certificate",
        ),
        (
            |it| it.ek_public = Some(it.key.public.clone()),
            "the bundle has no certificate for its endorsement key",
        ),
        (
            |it| {
                it.ek_public = Some(it.key.public.clone());
                it.ek_certificates.clear();
            },
            "not a restricted decryption key",
        ),
        (
            |it| it.ek_public = Some(vec![1].into()),
            "does not support the public area",
        ),
        (
            |it| it.attestation_key.public = vec![1].into(),
            "attestation key",
        ),
        (|it| it.ek_certificates[0] = vec![1].into(), ""),
    ] {
        let why = challenge(change).unwrap_err();
        assert!(why.contains(said), "{why}");
    }
}
