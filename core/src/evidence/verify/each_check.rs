//! Tests with a case for each check of `devid ca verify`. In each case exactly one check fails.

use super::Evidence;
use super::samples::*;
use crate::evidence::bundle::{Bundle, Device};
use crate::evidence::challenge::Activation;
use crate::key::Curve;
use crate::oid::EXTENDED_KEY_USAGE;
use crate::tpm::{Hash, SignatureScheme, handle};
use crate::x509::samples::Party;
use std::collections::BTreeSet;

const P256: Kind = Kind::Ec(Curve::P256);
const NONCE: [u8; 32] = [7; 32];

/// How the device in a test case differs from a correct device. Some variants change the finished
/// bundle, or what the answered challenge proves.
#[derive(Clone, Copy)]
enum Change {
    Parts(fn(&mut Parts)),
    /// A certificate proves the attestation key. The device answered no challenge.
    Certificate(fn(&mut Parts)),
    Bundle(fn(&mut Bundle)),
    Activation(fn(&mut Activation)),
    /// The device's answer to the challenge is wrong.
    WrongAnswer,
}

use Change::{Certificate, Parts as Differs};

/// For each check, a change of the device that makes only this check fail.
const CASES: &[(&str, Change)] = &[
    (
        "ek-certificate",
        Change::Bundle(|it| it.ek_certificates.clear()),
    ),
    // The attribute restricted is clear. No TPM accepts such a key as an endorsement key.
    ("ek-key", Differs(|it| it.ek_attributes &= !0x1_0000)),
    (
        "ek-purpose",
        Differs(|it| it.ek_extensions.retain(|one| one.0 != EXTENDED_KEY_USAGE)),
    ),
    (
        "ek-chain",
        Differs(|it| it.ek_issuer = Party::new("CN=other", 9)),
    ),
    (
        "ak-kind",
        Differs(|it| {
            it.ak_scheme = SignatureScheme::Ecdsa(Hash::Sha1);
            it.signed_by = it.ak_scheme;
        }),
    ),
    ("ak-attributes", Differs(|it| it.ak_attributes = KEY)),
    ("activation", Change::WrongAnswer),
    (
        "activation-ak",
        Change::Activation(|it| it.attestation_key_name = vec![0, 11, 7].into()),
    ),
    (
        "activation-ek",
        Change::Activation(|it| {
            it.endorsement_key = private(P256, 66).public().info_der().into();
        }),
    ),
    ("ak-certificate", Certificate(|it| it.ak_certificate = None)),
    (
        "ak-key",
        Certificate(|it| it.ak_certified = Some(private(P256, 66).public().clone())),
    ),
    (
        "ak-purpose",
        Certificate(|it| it.ak_certificate = Some(leaf("CN=ak", None))),
    ),
    ("ak-name", Certificate(|it| it.hierarchy = handle::NULL)),
    (
        "ak-chain",
        Certificate(|it| {
            let expired = leaf("CN=ak", Some(AK_PURPOSE)).until("250101000000Z");
            it.ak_certificate = Some(expired);
        }),
    ),
    (
        "key-kind",
        Differs(|it| it.key_name_hash = Some(Hash::Sha1)),
    ),
    ("key-attributes", Differs(|it| it.key_attributes &= !2)),
    ("certify-magic", Differs(|it| it.magic ^= 1)),
    ("certify-type", Differs(|it| it.statement = 0x801A)),
    (
        "certify-name",
        Differs(|it| {
            it.certified = Some(it.key_area());
            it.key = private(P256, 66);
            it.csr_key = it.key.public().clone();
            it.csr_signer = it.key.clone();
        }),
    ),
    (
        "certify-scheme",
        Differs(|it| it.signed_by = SignatureScheme::Ecdsa(Hash::Sha384)),
    ),
    (
        "certify-signature",
        Differs(|it| it.signer = private(P256, 66)),
    ),
    ("nonce", Differs(|it| it.nonce = Some(vec![8; 32]))),
    (
        "csr-signature",
        Differs(|it| it.csr_signer = private(P256, 66)),
    ),
    (
        "csr-key",
        Differs(|it| {
            it.csr_signer = private(P256, 66);
            it.csr_key = it.csr_signer.public().clone();
        }),
    ),
    (
        "csr-names",
        Differs(|it| it.csr_subject = "serialNumber=7,CN=X-1"),
    ),
    ("idevid", Differs(|it| it.idevid_nonce = Some(vec![8; 32]))),
    (
        "device",
        Differs(|it| {
            it.factory = Some(leaf("serialNumber=7,CN=X-1", None));
            it.device = Device {
                serial: Some("8".into()),
                ..Device::default()
            };
        }),
    ),
];

fn judged_with(change: Change) -> Evidence {
    let mut parts = parts(P256);
    match change {
        Differs(change) => change(&mut parts),
        Certificate(change) => {
            parts.ak_certificate = Some(leaf("CN=ak", Some(AK_PURPOSE)));
            change(&mut parts);
        }
        _ => {}
    }
    let (mut bundle, mut activation) = (parts.bundle(), parts.activation());
    let answer = match change {
        Certificate(_) => None,
        Change::WrongAnswer => Some(Err("the answer is wrong".into())),
        Change::Bundle(change) => {
            change(&mut bundle);
            Some(Ok(activation))
        }
        Change::Activation(change) => {
            change(&mut activation);
            Some(Ok(activation))
        }
        Differs(_) => Some(Ok(activation)),
    };
    judged_by(&bundle, answer, &NONCE)
}

#[test]
fn each_check_fails_alone() {
    for (name, change) in CASES {
        assert_eq!(failed(&judged_with(*change)), [*name]);
    }
}

/// Fails if a check has no case, or if docs/CA.md does not describe it.
#[test]
fn no_check_is_without_a_case_and_a_description() {
    let whole = [Differs(|_| {}), Certificate(|_| {})];
    for change in whole {
        assert_eq!(failed(&judged_with(change)), [""; 0]);
    }
    let all = whole
        .into_iter()
        .chain(CASES.iter().map(|(_, change)| *change));
    let reports = all.map(|change| judged_with(change).report);
    let made: BTreeSet<&str> = reports
        .flat_map(|report| report.checks)
        .map(|check| check.name)
        .collect();
    let cases: BTreeSet<&str> = CASES.iter().map(|(name, _)| *name).collect();
    assert_eq!(made, cases);
    assert_eq!(CASES.len(), cases.len(), "a check has two cases");

    let page = include_str!("../../../../docs/CA.md");
    let (_, rest) = page.split_once("| checks | what must be true |").unwrap();
    let (table, _) = rest.split_once("\n\n").unwrap();
    let described: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix('|')?.split('|').next())
        .flat_map(|names| names.split('`').skip(1).step_by(2))
        .collect();
    assert_eq!(described, cases);
}
