//! Pairing of certificates with keys, over canned answers.

use super::*;
use crate::config::{Config, IdentityHint, defaults};
use crate::tpm::fake::{
    FIXED, FakeTpm, GET_CAPABILITY, IDENTITY, READ_PUBLIC, Reply, capability, p256_area, public,
};
use crate::tpm::{ResponseCode, name_of};
use std::time::Duration;

const KEY: u32 = 0x8101_0001;
const OTHER_KEY: u32 = 0x8101_0002;
/// An attestation key: IDENTITY, and restricted.
const ATTESTS: u32 = IDENTITY | 1 << 16;

/// A device, as its end entity.
fn device() -> Certificate {
    let pem = include_bytes!("../../../testdata/leaf.pem");
    Certificate::parse_all(pem).unwrap().remove(0)
}

/// The CA that issued [`device`].
fn issuer() -> Certificate {
    let pem = include_bytes!("../../../testdata/ca.pem");
    Certificate::parse_all(pem).unwrap().remove(0)
}

/// A device whose certificate states a CA.
fn doubtful() -> Certificate {
    let der = include_bytes!("../../../testdata/shapes/ca-true-leaf.der");
    Certificate::from_der(der).unwrap()
}

fn nv(index: u32, certificate: Certificate) -> LocatedCertificate {
    (CertificateLocation::Nv(index), certificate)
}

/// The answer to TPM2_ReadPublic for the key of this certificate, with these attributes.
fn key_of(certificate: &Certificate, attributes: u32) -> Reply {
    let Some(PublicKey::Ec { point, .. }) = certificate.public_key() else {
        panic!("a key on P-256")
    };
    let area = p256_area(attributes, FIXED);
    let before = &area[..area.len() - 2 * (2 + 32)];
    let area = [before, &[0, 32], &point[1..33], &[0, 32], &point[33..]].concat();
    public(&area, &name_of(&area).unwrap())
}

/// The key of no certificate.
fn stranger() -> Reply {
    let area = p256_area(IDENTITY, FIXED);
    public(&area, &name_of(&area).unwrap())
}

fn handles(handles: &[u32]) -> Reply {
    let items: Vec<Vec<u8>> = handles
        .iter()
        .map(|one| one.to_be_bytes().to_vec())
        .collect();
    capability(false, 1, &items)
}

fn hint(handle: Option<u32>, nv: Option<u32>, auth: Option<IdentityAuth>) -> IdentityHint {
    IdentityHint {
        handle,
        nv,
        certificate: None,
        auth,
        allow_last_try: false,
    }
}

struct Bench {
    fake: FakeTpm,
    tpm: Arc<Tpm>,
    store: IdevidStore,
}

impl Bench {
    fn new(hints: Vec<IdentityHint>, replies: impl IntoIterator<Item = Reply>) -> Self {
        let fake = FakeTpm::new(replies);
        let tpm = Arc::new(fake.tpm(Duration::from_secs(20)));
        let config = Config {
            identities: hints,
            run: fake.locks(),
            ..defaults(&|_| None)
        };
        let store = IdevidStore::new(&config, Arc::clone(&tpm));
        Self { fake, tpm, store }
    }

    fn paired(
        &self,
        certificates: Vec<LocatedCertificate>,
    ) -> (Vec<Identity>, Vec<LocatedCertificate>) {
        let paired = self.store.paired(&self.tpm, certificates, Vec::new());
        paired.unwrap()
    }
}

/// Label, handle of the key, position of the hint with a PIN.
fn said(identities: &[Identity]) -> Vec<(&str, Option<u32>, Option<usize>)> {
    let handle = |one: &Identity| one.key.as_ref().and_then(|key| key.handle());
    let mut all = Vec::new();
    for one in identities {
        all.push((one.label.as_str(), handle(one), one.pin));
    }
    all
}

#[test]
fn a_certificate_has_the_key_of_its_handle() {
    let keys = [KEY, OTHER_KEY, handle::IDEVID_KEY];
    let replies = [handles(&keys), stranger(), key_of(&device(), IDENTITY)];
    let bench = Bench::new(Vec::new(), replies);
    let (identities, authorities) = bench.paired(vec![nv(1, issuer()), nv(2, device())]);
    assert_eq!(said(&identities), [("idev-id", Some(KEY), None)]);
    assert_eq!(identities[0].place, "NV index 0x00000002");
    assert!(!identities[0].attests);
    assert_eq!(authorities, [nv(1, issuer())]);
    // The key at 0x81020000 is asked for first; no handle after the last key that is needed.
    let seen = bench.fake.seen();
    assert_eq!(seen, [GET_CAPABILITY, READ_PUBLIC, READ_PUBLIC]);
}

#[test]
fn a_key_without_handle_is_derived_when_it_is_needed() {
    let bench = Bench::new(Vec::new(), [handles(&[KEY]), stranger()]);
    let (identities, _) = bench.paired(vec![nv(1, issuer()), nv(2, device())]);
    assert_eq!(said(&identities), [("idev-id", None, None)]);
    assert!(identities[0].key.is_some());
    assert_eq!(bench.fake.seen(), [GET_CAPABILITY, READ_PUBLIC]);
}

#[test]
fn the_key_at_0x81020000_names_the_token() {
    let keys = [KEY, handle::IDEVID_KEY];
    let replies = [
        handles(&keys),
        key_of(&doubtful(), IDENTITY),
        key_of(&device(), IDENTITY),
    ];
    let bench = Bench::new(Vec::new(), replies);
    let (identities, authorities) = bench.paired(vec![nv(1, device()), nv(9, doubtful())]);
    let first = ("idev-id", Some(handle::IDEVID_KEY), None);
    assert_eq!(
        said(&identities),
        [first, ("idev-id-p256", Some(KEY), None)]
    );
    assert!(authorities.is_empty());
}

#[test]
fn identities_are_ordered_by_the_index_of_their_certificates() {
    for (device_at, doubtful_at) in [(1, 9), (9, 1)] {
        let replies = [
            handles(&[KEY, OTHER_KEY]),
            key_of(&device(), IDENTITY),
            key_of(&doubtful(), IDENTITY),
        ];
        let bench = Bench::new(Vec::new(), replies);
        let (identities, _) =
            bench.paired(vec![nv(device_at, device()), nv(doubtful_at, doubtful())]);
        let handles: Vec<_> = said(&identities).iter().map(|one| one.1).collect();
        let mut wanted = [Some(KEY), Some(OTHER_KEY)];
        if device_at > doubtful_at {
            wanted.reverse();
        }
        assert_eq!(handles, wanted);
    }
}

#[test]
fn an_attestation_key_is_no_identity() {
    let replies = [
        handles(&[KEY, OTHER_KEY]),
        key_of(&device(), ATTESTS),
        key_of(&doubtful(), IDENTITY),
    ];
    let bench = Bench::new(Vec::new(), replies);
    let (identities, _) = bench.paired(vec![nv(1, device()), nv(2, doubtful())]);
    let first = ("idev-id", Some(OTHER_KEY), None);
    assert_eq!(said(&identities), [first, ("iak", None, None)]);
    assert!(!identities[0].attests && identities[1].attests);
}

/// A certificate that states a CA is an identity only if its key is in the TPM.
#[test]
fn a_doubtful_certificate_without_key_is_a_cas() {
    let bench = Bench::new(Vec::new(), [handles(&[KEY]), key_of(&device(), IDENTITY)]);
    let (identities, authorities) = bench.paired(vec![nv(1, device()), nv(2, doubtful())]);
    assert_eq!(said(&identities), [("idev-id", Some(KEY), None)]);
    assert_eq!(authorities, [nv(2, doubtful())]);
}

/// The only certificate states a CA. If it names a device, the TPM derives its key at once.
#[test]
fn the_key_of_the_only_certificate_is_derived() {
    let pair = |certificate, code| {
        let replies = [handles(&[])].into_iter();
        let bench = Bench::new(
            Vec::new(),
            replies.chain((0..16).map(|_| Reply::Code(code))),
        );
        let certificates = vec![nv(1, certificate)];
        let paired = bench.store.paired(&bench.tpm, certificates, Vec::new());
        (paired, bench.fake.seen())
    };
    // TPM_RC_INITIALIZE concerns the whole TPM, TPM_RC_BAD_AUTH only the hierarchy of the key.
    let (paired, seen) = pair(doubtful(), 0x100);
    assert!(matches!(paired, Err(ScanError::Tpm(_))), "{paired:?}");
    assert!(seen.len() > 1);
    let (paired, seen) = pair(doubtful(), 0x9A2);
    let (identities, authorities) = paired.unwrap();
    assert!(identities.is_empty() && seen.len() > 1);
    assert_eq!(authorities, [nv(1, doubtful())]);
    let (paired, seen) = pair(issuer(), 0x100);
    assert_eq!(paired.unwrap().1, [nv(1, issuer())]);
    assert_eq!(seen, [GET_CAPABILITY]);
}

#[test]
fn a_login_opens_the_key_of_its_own_token() {
    let pin = || Some(IdentityAuth::Pin);
    let hints = vec![
        hint(Some(KEY), None, pin()),
        hint(Some(OTHER_KEY), None, pin()),
    ];
    let config = Config {
        identities: hints,
        ..defaults(&|_| None)
    };
    let tpm = Arc::new(FakeTpm::new([]).tpm(Duration::from_secs(20)));
    let stores = IdevidStore::with_pin(&config, &tpm);
    assert_eq!(stores.len(), 2);
    for (own, store) in stores.iter().enumerate() {
        for hint in [0, 1] {
            let (access, pin) = store.access(Some(hint));
            assert_eq!(matches!(access, Access::Login(_)), hint == own);
            assert_eq!(pin, Some(hint));
        }
        assert!(matches!(store.access(None), (Access::Open, None)));
    }
}

#[test]
fn only_an_rsa_key_needs_the_algorithms_of_the_tpm() {
    // TPM_ALG_RSASSA, without attributes.
    let algorithms = capability(false, 0, &[vec![0, 0x14, 0, 0, 0, 0]]);
    let bench = Bench::new(Vec::new(), [algorithms]);
    abilities(&bench.tpm, &device().public_key().unwrap()).unwrap();
    assert!(bench.fake.seen().is_empty());
    let modulus = vec![0xFF; 256];
    let exponent = vec![1, 0, 1];
    let found = abilities(&bench.tpm, &PublicKey::Rsa { modulus, exponent }).unwrap();
    assert!(found.algorithms.known().is_some());
    assert_eq!(bench.fake.seen(), [GET_CAPABILITY]);
}

/// The issuer of another certificate is a CA, even if no certificate of an end entity is in the TPM.
#[test]
fn no_handle_is_read_for_a_ca() {
    let bench = Bench::new(Vec::new(), [handles(&[KEY]), key_of(&device(), IDENTITY)]);
    let chain = vec![nv(3, device())];
    let paired = bench.store.paired(&bench.tpm, vec![nv(1, issuer())], chain);
    let (identities, authorities) = paired.unwrap();
    assert!(identities.is_empty());
    assert_eq!(authorities, [nv(1, issuer()), nv(3, device())]);
    assert!(bench.fake.seen().is_empty());
}

#[test]
fn hinted_handles_come_first_and_then_those_of_identities() {
    let keys = [0x8100_0001, KEY, handle::IDEVID_KEY, 0x81F0_0000];
    let hints = vec![
        hint(Some(0x81F0_0000), None, None),
        hint(None, Some(1), None),
    ];
    let bench = Bench::new(hints, [handles(&keys)]);
    let found = bench.store.handles(&bench.tpm).unwrap();
    let order = [0x81F0_0000, handle::IDEVID_KEY, 0x8100_0001, KEY];
    assert_eq!(found, order);
}

#[test]
fn a_handle_that_cannot_be_read_hides_no_other() {
    // TPM_RC_HANDLE of the first handle; TPM_RC_INITIALIZE concerns the whole TPM.
    let replies = [
        handles(&[KEY, OTHER_KEY]),
        Reply::Code(0x18B),
        key_of(&device(), IDENTITY),
    ];
    let bench = Bench::new(Vec::new(), replies);
    let (identities, _) = bench.paired(vec![nv(1, device())]);
    assert_eq!(said(&identities), [("idev-id", Some(OTHER_KEY), None)]);
    let bench = Bench::new(Vec::new(), [handles(&[KEY]), Reply::Code(0x100)]);
    let paired = bench
        .store
        .paired(&bench.tpm, vec![nv(1, device())], Vec::new());
    assert!(matches!(paired, Err(ScanError::Tpm(_))), "{paired:?}");
}

#[test]
fn a_pin_belongs_to_the_hint_that_names_handle_or_certificate() {
    let pin = || Some(IdentityAuth::Pin);
    let cases = [
        (vec![hint(Some(KEY), None, pin())], Some(0)),
        (vec![hint(Some(OTHER_KEY), None, pin())], None),
        (vec![hint(None, Some(1), pin())], Some(0)),
        (vec![hint(None, Some(7), pin())], None),
        (vec![hint(Some(OTHER_KEY), Some(1), pin())], None),
        (
            vec![hint(Some(KEY), None, None), hint(None, Some(1), pin())],
            Some(1),
        ),
    ];
    for (hints, wanted) in cases {
        let replies = [handles(&[KEY]), key_of(&device(), IDENTITY)];
        let bench = Bench::new(hints.clone(), replies);
        let (identities, _) = bench.paired(vec![nv(1, device())]);
        assert_eq!(
            said(&identities),
            [("idev-id", Some(KEY), wanted)],
            "{hints:?}"
        );
    }
}

#[test]
fn only_final_answers_about_a_key_concern_this_key() {
    let code = |code| TpmError::Response(ResponseCode(code));
    for error in [
        code(0x18B),
        TpmError::SeedChanged,
        TpmError::NeedsAuth("x".into()),
    ] {
        assert!(is_of_this_key(&error), "{error:?}");
    }
    for error in [code(0x100), code(0x922), TpmError::Unreachable("x".into())] {
        assert!(!is_of_this_key(&error), "{error:?}");
    }
}
