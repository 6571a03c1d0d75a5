//! Tests that each check fails alone, and that no incomplete or changed bundle is accepted.

use super::samples::*;
use super::{
    Checks, Expected, ExpectedNonce, attestation_key, certify, check_request, endorsement, verify,
};
use crate::evidence::bundle::Device;
use crate::evidence::challenge::Activation;
use crate::evidence::{Bundle, Bytes};
use crate::key::Curve;
use crate::oid::EXTENDED_KEY_USAGE;
use crate::tpm::{Hash, PublicArea, SignatureScheme, handle};
use crate::x509::received_request::Request;
use crate::x509::samples::{Extension, PURPOSE, Party, in_year};

const P256: Kind = Kind::Ec(Curve::P256);
#[cfg(feature = "soft-rsa")]
const KINDS: &[Kind] = &[
    P256,
    Kind::Ec(Curve::P384),
    Kind::Ec(Curve::P521),
    Kind::Rsa,
];
#[cfg(not(feature = "soft-rsa"))]
const KINDS: &[Kind] = &[P256, Kind::Ec(Curve::P384), Kind::Ec(Curve::P521)];
/// The certificate policy tcg-cap-verifiedTPMRestricted.
const RESTRICTED: Extension = (
    crate::oid::CERTIFICATE_POLICIES,
    false,
    "300a300806066781050b0103",
);

/// Returns the names of the checks that fail after a change of a correct device.
fn fails(change: impl Fn(&mut Parts)) -> Vec<&'static str> {
    let mut parts = parts(P256);
    change(&mut parts);
    failed(&judged(&parts.bundle(), Some(parts.activation())))
}

/// Returns the names of the checks that fail after a change of a device whose attestation key has a
/// certificate.
fn fails_by_certificate(change: impl Fn(&mut Parts)) -> Vec<&'static str> {
    let mut parts = parts(P256);
    parts.ak_certificate = Some(leaf("serialNumber=7,CN=X-1", Some(AK_PURPOSE)));
    change(&mut parts);
    failed(&judged(&parts.bundle(), None))
}

#[test]
fn a_device_as_it_must_be() {
    for &kind in KINDS {
        let parts = parts(kind);
        let evidence = judged(&parts.bundle(), Some(parts.activation()));
        assert_eq!(failed(&evidence), [""; 0], "{kind:?}");
        let report = evidence.report;
        let tpm = report.tpm.unwrap();
        assert_eq!(tpm.manufacturer.as_deref(), Some("id:494E5443"));
        assert_eq!(report.device.serial, None);
        assert_eq!(report.key.label.as_deref(), Some("web"));
        assert_eq!(report.key.algorithm, Some(parts.key.public().to_string()));
    }
    assert_eq!(fails_by_certificate(|_| {}), [""; 0]);
    assert_eq!(
        fails_by_certificate(|parts| {
            parts.ak_certificate = Some(leaf("CN=ak", Some(RESTRICTED)));
        }),
        [""; 0]
    );
}

#[test]
fn keys_that_are_not_in_this_tpm() {
    let other = private(P256, 66);
    // A software key replaces the TPM's key, so the TPM's statement is about another key.
    assert_eq!(
        fails(|parts| {
            let of_tpm = parts.key_area();
            parts.key = other.clone();
            parts.csr_key = other.public().clone();
            parts.csr_signer = other.clone();
            parts.certified = Some(of_tpm);
        }),
        ["certify-name"]
    );
    // Another attestation key signed the statement of TPM2_Certify.
    assert_eq!(
        fails(|parts| parts.signer = other.clone()),
        ["certify-signature"]
    );
    for (attributes, why) in [
        (KEY & !2, "fixedTPM is clear: it can be duplicated"),
        (KEY & !0x10, "fixedParent is clear"),
        (KEY & !0x20, "it was made outside and imported"),
        (AK, "it signs only what the TPM made"),
    ] {
        let failed = fails(|parts| parts.key_attributes = attributes);
        assert_eq!(failed, ["key-attributes"], "{why}");
    }
}

#[test]
fn attestation_keys_that_prove_nothing() {
    for (attributes, why) in [
        (KEY, "unrestricted"),
        (AK & !2, "fixedTPM is clear"),
        (AK & !0x10, "fixedParent is clear"),
        (AK & !0x20, "imported"),
        (AK & !0x4_0000, "it does not sign"),
        (AK | 0x2_0000, "it decrypts"),
    ] {
        let failed = fails(|parts| parts.ak_attributes = attributes);
        assert_eq!(failed, ["ak-attributes"], "{why}");
    }
    let sha1 = SignatureScheme::Ecdsa(Hash::Sha1);
    assert_eq!(
        fails(|parts| (parts.ak_scheme, parts.signed_by) = (sha1, sha1)),
        ["ak-kind"]
    );
    let sha384 = SignatureScheme::Ecdsa(Hash::Sha384);
    assert_eq!(fails(|parts| parts.signed_by = sha384), ["certify-scheme"]);
}

#[test]
fn statements_that_certify_nothing() {
    assert_eq!(fails(|parts| parts.magic = 0xFF54_4348), ["certify-magic"]);
    // The statement has the type TPM_ST_ATTEST_CREATION instead of TPM_ST_ATTEST_CERTIFY.
    assert_eq!(fails(|parts| parts.statement = 0x801A), ["certify-type"]);
}

/// The attribute sensitiveDataOrigin proves the origin of a key, and is a part of the certified
/// name.
#[test]
fn creation_data_is_taken_and_not_looked_at() {
    let parts = parts(P256);
    let mut bundle = parts.bundle();
    bundle.key.creation_data = Some(vec![1].into());
    let evidence = judged(&bundle, Some(parts.activation()));
    assert_eq!(failed(&evidence), [""; 0]);
}

#[test]
fn a_nonce_counts_and_its_absence_too() {
    assert_eq!(fails(|parts| parts.nonce = Some(vec![8; 32])), ["nonce"]);
    assert_eq!(
        fails(|parts| parts.extra_data = Some(vec![8; 32])),
        ["nonce"]
    );
    assert_eq!(fails(|parts| parts.nonce = None), ["nonce"]);

    let mut parts = parts(P256);
    let replayed = |parts: &Parts, nonce| {
        let expected = Expected {
            roots: &[root_certificate()],
            nonce,
            activation: Some(Ok(parts.activation())),
            now: in_year(2026),
        };
        failed(&verify(&parts.bundle(), &expected))
    };
    let used = ExpectedNonce::Given(&[7; 32], Err("used before".into()));
    assert_eq!(replayed(&parts, used), ["nonce"]);
    assert_eq!(replayed(&parts, ExpectedNonce::Any), [""; 0]);
    parts.nonce = None;
    assert_eq!(replayed(&parts, ExpectedNonce::Any), [""; 0]);
    parts.extra_data = Some(vec![9]);
    assert_eq!(replayed(&parts, ExpectedNonce::Any), ["nonce"]);

    parts.extra_data = None;
    parts.nonce = Some(vec![7; 100]);
    let activation = || Some(Ok(parts.activation()));
    let long = judged_by(&parts.bundle(), activation(), &[7; 100]);
    assert_eq!(failed(&long), [""; 0]);
    let cut = judged_by(&parts.bundle(), activation(), &[7; 99]);
    assert_eq!(failed(&cut), ["nonce"]);
}

#[test]
fn requests_of_others() {
    let other = private(P256, 66);
    assert_eq!(
        fails(|parts| {
            parts.csr_key = other.public().clone();
            parts.csr_signer = other.clone();
        }),
        ["csr-key"]
    );
    assert_eq!(
        fails(|parts| parts.csr_signer = other.clone()),
        ["csr-signature"]
    );
    assert_eq!(
        fails(|parts| parts.csr_subject = "serialNumber=7,CN=X-1"),
        ["csr-names"]
    );
}

#[test]
fn endorsement_keys_of_others() {
    let other = private(P256, 66);
    assert_eq!(
        fails(|parts| parts.ek_issuer = Party::new("CN=other", 9)),
        ["ek-chain"]
    );
    // The issuer of the endorsement certificate has the name of the manufacturer's CA, but another
    // key.
    assert_eq!(
        fails(|parts| parts.ek_issuer = Party::new("CN=maker", 9)),
        ["ek-chain"]
    );
    for purpose in [None, Some(PURPOSE), Some(AK_PURPOSE)] {
        let failed = fails(|parts| {
            parts
                .ek_extensions
                .retain(|one| one.0 != EXTENDED_KEY_USAGE);
            parts.ek_extensions.extend(purpose);
        });
        assert_eq!(failed, ["ek-purpose"], "{purpose:?}");
    }
    let mut parts = parts(P256);
    parts.ek_certified = Some(other.public().clone());
    let mut bundle = parts.bundle();
    let activation = parts.activation();
    let wrong = failed(&judged(&bundle, Some(activation.clone())));
    assert_eq!(wrong, ["ek-key", "activation-ek"]);
    bundle.ek_certificates.clear();
    let wrong = failed(&judged(&bundle, Some(activation)));
    assert_eq!(wrong, ["ek-certificate"]);
}

#[test]
fn a_challenge_binds_both_keys() {
    let parts = parts(P256);
    let bundle = parts.bundle();
    let other = private(P256, 66);
    let mut activation = parts.activation();
    activation.endorsement_key = other.public().info_der().into();
    assert_eq!(
        failed(&judged(&bundle, Some(activation))),
        ["activation-ek"]
    );
    let mut activation = parts.activation();
    activation.attestation_key_name = vec![0, 11, 7].into();
    assert_eq!(
        failed(&judged(&bundle, Some(activation))),
        ["activation-ak"]
    );
    let mut activation = parts.activation();
    activation.ek_public_sha256 = None;
    assert_eq!(
        failed(&judged(&bundle, Some(activation))),
        ["activation-ek"]
    );
    let wrong = judged_by(&bundle, Some(Err("the answer is wrong".into())), &[7; 32]);
    assert_eq!(failed(&wrong), ["activation"]);
    let unbound = judged(&bundle, None);
    assert_eq!(failed(&unbound), ["ak-certificate"]);
    let said = &unbound.report.summary;
    assert!(
        said.contains("nothing proves that the attestation key is in a certified TPM"),
        "{said}"
    );
}

#[test]
fn certificates_of_attestation_keys() {
    let other = private(P256, 66);
    for purpose in [None, Some(PURPOSE), Some(EK_PURPOSE)] {
        let failed = fails_by_certificate(|parts| {
            parts.ak_certificate = Some(leaf("CN=ak", purpose));
        });
        assert_eq!(failed, ["ak-purpose"], "{purpose:?}");
    }
    assert_eq!(
        fails_by_certificate(|parts| parts.ak_certified = Some(other.public().clone())),
        ["ak-key"]
    );
    assert_eq!(
        fails_by_certificate(|parts| parts.hierarchy = handle::NULL),
        ["ak-name"]
    );
    for hierarchy in [handle::OWNER, handle::PLATFORM] {
        assert_eq!(
            fails_by_certificate(|parts| parts.hierarchy = hierarchy),
            [""; 0]
        );
    }
    let expired = leaf("CN=ak", Some(AK_PURPOSE)).until("250101000000Z");
    assert_eq!(
        fails_by_certificate(|parts| parts.ak_certificate = Some(expired.clone())),
        ["ak-chain"]
    );
}

#[test]
fn a_device_is_who_its_certificates_say() {
    let device = |serial: &str, model: &str| Device {
        serial: Some(serial.into()),
        model: Some(model.into()),
        ..Device::default()
    };
    let named = |parts: &mut Parts| {
        parts.factory = Some(leaf("serialNumber=7,CN=X-1", None));
        parts.csr_subject = "serialNumber=7,CN=X-1";
        parts.device = device("7", "X-1");
    };
    let mut whole = parts(P256);
    named(&mut whole);
    let evidence = judged(&whole.bundle(), Some(whole.activation()));
    assert_eq!(failed(&evidence), [""; 0]);
    assert_eq!(evidence.report.device.serial.as_deref(), Some("7"));
    assert_eq!(evidence.report.device.model.as_deref(), Some("X-1"));
    assert!(evidence.identity.is_some());

    for (serial, model) in [("8", "X-1"), ("7", "X-2")] {
        let failed = fails(|parts| {
            named(parts);
            parts.device = device(serial, model);
        });
        assert_eq!(failed, ["device"], "{serial} {model}");
    }
    assert_eq!(
        fails(|parts| {
            named(parts);
            parts.csr_subject = "serialNumber=8,CN=X-1";
        }),
        ["csr-names"]
    );
    // Two certificates of the bundle name different devices.
    assert_eq!(
        fails(|parts| {
            named(parts);
            parts.ak_certificate = Some(leaf("serialNumber=8,CN=X-1", Some(AK_PURPOSE)));
        }),
        ["device"]
    );
    // If no certificate proves the names that the device claims, no check fails. The report then
    // names no device.
    let mut parts = parts(P256);
    parts.device = device("9", "X-9");
    let evidence = judged(&parts.bundle(), Some(parts.activation()));
    assert_eq!(failed(&evidence), [""; 0]);
    assert_eq!(evidence.report.device.serial, None);
}

type Field = fn(&mut Bundle) -> &mut Bytes;
type Judge = fn(&mut Checks, &Bundle, &Expected);

/// Returns the byte strings of a bundle that must not change. Each has the check that must fail
/// after a change.
fn fields() -> [(&'static str, Field, Judge); 8] {
    let of_ek: Judge = |checks, bundle, expected| {
        endorsement::check(checks, bundle, expected);
    };
    let of_ak: Judge = |checks, bundle, expected| {
        let area = PublicArea::parse(&bundle.attestation_key.public);
        attestation_key::check(checks, bundle, area.as_ref(), expected);
    };
    let of_both: Judge = |checks, bundle, expected| {
        let area = PublicArea::parse(&bundle.attestation_key.public);
        endorsement::check(checks, bundle, expected);
        attestation_key::check(checks, bundle, area.as_ref(), expected);
    };
    let of_certify: Judge = |checks, bundle, _| {
        let signer = PublicArea::parse(&bundle.attestation_key.public);
        let area = PublicArea::parse(&bundle.key.public);
        certify::check(checks, &bundle.key, area.as_ref(), signer.as_ref());
    };
    let of_request: Judge = |checks, bundle, _| {
        let key = PublicArea::parse(&bundle.key.public).map(|area| area.key);
        check_request(checks, &Request::from_der(&bundle.csr), key.as_ref());
    };
    [
        ("ekPublic", |it| it.ek_public.as_mut().unwrap(), of_both),
        ("ekCertificates", |it| &mut it.ek_certificates[0], of_ek),
        ("ekChain", |it| &mut it.ek_chain[0], of_ek),
        (
            "attestationKey.public",
            |it| &mut it.attestation_key.public,
            of_ak,
        ),
        ("key.public", |it| &mut it.key.public, of_certify),
        ("key.certify", |it| &mut it.key.certify, of_certify),
        ("key.signature", |it| &mut it.key.signature, of_certify),
        ("csr", |it| &mut it.csr, of_request),
    ]
}

/// For each byte string: truncates it to each possible length, and changes a bit of each byte. The
/// check must then fail.
fn is_as_it_must_be(
    good: &Bundle,
    activation: Option<Activation>,
    (name, field, judge): (&str, Field, Judge),
) {
    let roots = [root_certificate()];
    let expected = Expected {
        roots: &roots,
        nonce: ExpectedNonce::Given(&[7; 32], Ok(())),
        activation: activation.map(Ok),
        now: in_year(2026),
    };
    let passes = |bytes: Vec<u8>| {
        let mut changed = good.clone();
        *field(&mut changed) = bytes.into();
        let mut checks = Checks::default();
        judge(&mut checks, &changed, &expected);
        checks.0.iter().all(|check| check.ok)
    };
    let whole = field(&mut good.clone()).to_vec();
    assert!(passes(whole.clone()), "{name}");
    assert!(!passes([&whole[..], &[0]].concat()), "{name}: longer");
    for at in 0..whole.len() {
        assert!(!passes(whole[..at].to_vec()), "{name}: {at} bytes");
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        assert!(!passes(bytes), "{name}: byte {at}");
    }
}

#[test]
fn nothing_that_is_cut_or_changed_is_believed() {
    let parts = parts(P256);
    for field in fields() {
        is_as_it_must_be(&parts.bundle(), Some(parts.activation()), field);
    }
}

/// Repeats the test above for an attestation key with a certificate instead of an answered
/// challenge. In this case the endorsement key does not matter.
#[test]
fn nothing_that_is_cut_or_changed_is_believed_of_a_certified_attestation_key() {
    let mut parts = parts(P256);
    parts.ak_certificate = Some(leaf("CN=ak", Some(AK_PURPOSE)));
    let [.., ak, _, _, _, _] = fields();
    let certificate: Field = |it| &mut it.attestation_key.certificates[0];
    for field in [ak, ("certificate", certificate, ak.2)] {
        is_as_it_must_be(&parts.bundle(), None, field);
    }
}
