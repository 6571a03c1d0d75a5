//! Tests of the certificates that a CA issues for verified bundles.

use super::*;
use crate::evidence::ca::{Ca, EvidencePolicy, LIFETIME};
use crate::evidence::verify::samples::{AK_PURPOSE, Kind, Parts, leaf, parts, root_certificate};
use crate::oid::{AUTHORITY_KEY_ID, SUBJECT_ALT_NAME};
use crate::x509::Profile;
use crate::x509::path::is_signed_by;
use crate::x509::samples::{IS_CA, IS_NO_CA, Party, SIGNS_CERTIFICATES};
use std::fs::write;
use tempfile::TempDir;

/// A CA with its files in a folder, and a device whose attestation key has a certificate.
struct Fixture {
    folder: TempDir,
    parts: Parts,
}

fn party() -> Party {
    Party::new("CN=issuer", 5)
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path().join("roots.pem"), root_certificate().pem()).unwrap();
        let ca = party().certified_by(&party(), &[IS_CA, SIGNS_CERTIFICATES]);
        write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        write(folder.path().join("ca.key"), key_pem(5)).unwrap();
        let mut parts = parts(Kind::Ec(Curve::P256));
        parts.ak_certificate = Some(leaf("CN=ak", Some(AK_PURPOSE)));
        Self { folder, parts }
    }

    fn issuance(&self, what: WhatToCertify) -> Issuance {
        Issuance {
            ca_certificate: self.folder.path().join("ca.pem"),
            ca_key: self.folder.path().join("ca.key"),
            days: 30,
            what,
        }
    }

    fn ca(&self) -> Ca {
        Ca {
            state: self.folder.path().join("state.json"),
        }
    }

    fn issue(&self, issuance: &Issuance) -> Result<Option<Issued>, IdentityError> {
        let roots = self.folder.path().join("roots.pem");
        let policy = EvidencePolicy {
            roots: &roots,
            nonce: Some(&[7; 32]),
            allow_no_nonce: false,
            response: None,
        };
        let bundle = self.parts.bundle();
        let (report, issued) = self.ca().issue(&bundle, policy, issuance)?;
        assert_eq!(report.verified, issued.is_some());
        Ok(issued)
    }
}

fn key_pem(number: u8) -> String {
    let key = PrivateKeyInfo::from_scalar(Curve::P256, &[number; 32]).unwrap();
    crate::pem::render("PRIVATE KEY", key.der()).unwrap()
}

#[test]
fn a_device_key_is_certified_once() {
    let fixture = Fixture::new();
    let issuance = fixture.issuance(WhatToCertify::AttestedKey(None));
    let issued = fixture.issue(&issuance).unwrap().unwrap();
    let certificate = &issued.certificate;
    assert_eq!(is_signed_by(certificate, &issued.chain[0]), Ok(true));
    assert_eq!(
        certificate.public_key().as_ref(),
        Some(fixture.parts.key.public())
    );
    assert_eq!(certificate.subject(), "CN=web");
    assert_eq!(certificate.issuer_der(), issued.chain[0].subject_der());
    let authority = certificate.authority_key_id().unwrap().unwrap();
    assert_eq!(authority.key, Some(party().public().id().as_bytes()));
    let policies = certificate.policies().unwrap().unwrap();
    let policies: Vec<_> = policies.iter().map(|policy| policy.to_string()).collect();
    assert_eq!(policies, ["2.23.133.11.1.1", "2.23.133.11.1.2"]);
    assert!(!certificate.is_ca());
    assert_eq!(
        certificate.basic_constraints().unwrap().map(|it| it.ca),
        Some(false)
    );
    let (from, until) = (
        certificate.not_before().unwrap().unix_seconds(),
        certificate.not_after().unwrap().unix_seconds(),
    );
    assert_eq!(
        until - from,
        31 * 24 * 60 * 60,
        "a day before, and 30 after"
    );
    assert_eq!(issued.pem().matches("BEGIN CERTIFICATE").count(), 2);
    // A bundle whose nonce was used before gets no certificate.
    assert_eq!(fixture.issue(&issuance), Ok(None));
}

#[test]
fn names_are_those_of_the_factory_or_those_that_were_said() {
    let mut fixture = Fixture::new();
    let mut factory = leaf("serialNumber=7,CN=X-1", None);
    factory.extensions.push(crate::x509::samples::MODULE);
    fixture.parts.factory = Some(factory);
    let issuance = fixture.issuance(WhatToCertify::AttestedKey(None));
    let certificate = fixture.issue(&issuance).unwrap().unwrap().certificate;
    let profile = Profile::of(&certificate);
    assert_eq!(profile.device_serial.as_deref(), Some("7"));
    assert_eq!(profile.hardware_module.unwrap().serial, "7");

    let fixture = Fixture::new();
    let said = WhatToCertify::AttestedKey(Some("CN=node,O=Example".into()));
    let certificate = fixture
        .issue(&fixture.issuance(said))
        .unwrap()
        .unwrap()
        .certificate;
    assert_eq!(certificate.subject(), "CN=node,O=Example");
    let fixture = Fixture::new();
    let wrong = fixture.issuance(WhatToCertify::AttestedKey(Some("no name".into())));
    assert!(fixture.issue(&wrong).is_err());
    // A wrong argument fails before the nonce is used.
    let right = fixture.issuance(WhatToCertify::AttestedKey(None));
    assert!(fixture.issue(&right).unwrap().is_some());
}

#[test]
fn an_attestation_key_is_certified_by_its_tpm() {
    let mut fixture = Fixture::new();
    let of_service = WhatToCertify::ServiceAttestationKey("mail".into());
    let why = fixture.issue(&fixture.issuance(of_service)).unwrap_err();
    assert!(why.text.contains("--response"), "{}", why.text);
    let by_certificate = fixture.issuance(WhatToCertify::AttestationKey(None));
    let why = fixture.issue(&by_certificate).unwrap_err();
    assert!(why.text.contains("--response"), "{}", why.text);
    // The failed calls did not use the nonce.
    let device_key = fixture.issuance(WhatToCertify::AttestedKey(None));
    assert!(fixture.issue(&device_key).unwrap().is_some());

    fixture.parts.ak_certificate = None;
    let key = crate::evidence::verify::samples::judged(
        &fixture.parts.bundle(),
        Some(fixture.parts.activation()),
    );
    let certify = |identifier: Option<&str>| {
        let what = WhatToCertify::AttestationKey(identifier.map(Into::into));
        let issuance = fixture.issuance(what);
        let issuer = Issuer::read(&issuance).unwrap();
        issuer.issue(&key, &issuance, None).unwrap().certificate
    };
    let certificate = certify(None);
    assert_eq!(
        certificate.public_key().as_ref(),
        Some(fixture.parts.ak.public())
    );
    assert_eq!(certificate.subject(), "");
    let purposes = certificate.purposes().unwrap().unwrap();
    assert_eq!(purposes, [crate::oid::TCG_KP_AIK_CERTIFICATE]);
    let names = certificate.extension(SUBJECT_ALT_NAME).unwrap().unwrap();
    assert!(names.critical);
    assert!(certificate.alternative_names().unwrap().is_some());
    let tpm = crate::evidence::verify::TpmNames::of(&certificate);
    assert_eq!(tpm.manufacturer.as_deref(), Some("id:494E5443"));
    assert_eq!(tpm.model.as_deref(), Some("SOFT"));
    let has = |certificate: &Certificate, text: &str| {
        let names = certificate.extension(SUBJECT_ALT_NAME).unwrap().unwrap();
        names
            .value
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    let digest = Certificate::from_der(&fixture.parts.bundle().ek_certificates[0]).unwrap();
    assert!(has(&certificate, &crate::key::hex(&digest.sha256())));
    assert!(has(&certify(Some("SN-7")), "SN-7"));
    assert!(certificate.extension(AUTHORITY_KEY_ID).unwrap().is_some());
}

#[test]
fn a_ca_that_can_certify_nothing() {
    let fixture = Fixture::new();
    let issuance = fixture.issuance(WhatToCertify::AttestedKey(None));
    let refused = |said: &str| {
        let why = fixture.issue(&issuance).unwrap_err().text;
        assert!(why.contains(said), "{why}, not {said}");
    };
    let certificate = |extensions: &[_]| {
        let issued = party().certified_by(&party(), extensions);
        write(&issuance.ca_certificate, issued.pem()).unwrap();
    };
    certificate(&[IS_NO_CA]);
    refused("not a CA certificate (CA:TRUE)");
    certificate(&[IS_CA, crate::x509::samples::SIGNS]);
    refused("may not sign certificates");
    certificate(&[IS_CA, SIGNS_CERTIFICATES]);
    write(&issuance.ca_key, key_pem(6)).unwrap();
    refused("the key does not belong to the first certificate");
    let encrypted = key_pem(5).replace(
        "KEY-----\n",
        "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n",
    );
    write(&issuance.ca_key, encrypted).unwrap();
    refused("its private key is encrypted");
    std::fs::remove_file(&issuance.ca_key).unwrap();
    refused("ca.key");
    // None of the failed calls used the nonce.
    write(&issuance.ca_key, key_pem(5)).unwrap();
    assert!(fixture.issue(&issuance).unwrap().is_some());
}

#[test]
fn nonces_of_the_ca_itself() {
    let mut fixture = Fixture::new();
    let ca = fixture.ca();
    fixture.parts.nonce = Some(ca.nonce(LIFETIME).unwrap());
    let roots = fixture.folder.path().join("roots.pem");
    let policy = EvidencePolicy {
        roots: &roots,
        nonce: None,
        allow_no_nonce: false,
        response: None,
    };
    let bundle = fixture.parts.bundle();
    assert!(ca.verify(&bundle, policy).unwrap().verified);
    let again = ca.verify(&bundle, policy).unwrap();
    assert!(again.summary.contains("already used"), "{}", again.summary);
    // With `allow_no_nonce`, old evidence is accepted, unless its nonce was used before.
    let any = EvidencePolicy {
        allow_no_nonce: true,
        ..policy
    };
    assert!(!ca.verify(&bundle, any).unwrap().verified);
    fixture.parts.nonce = None;
    assert!(ca.verify(&fixture.parts.bundle(), any).unwrap().verified);
    assert!(!ca.verify(&fixture.parts.bundle(), policy).unwrap().verified);
    // The argument `roots` may be a folder.
    let folder = fixture.folder.path().join("roots");
    std::fs::create_dir(&folder).unwrap();
    let of_folder = EvidencePolicy {
        roots: &folder,
        ..any
    };
    let why = ca.verify(&fixture.parts.bundle(), of_folder).unwrap_err();
    assert!(why.text.contains("holds no certificate"), "{}", why.text);
    write(folder.join("root.crt"), root_certificate().pem()).unwrap();
    assert!(
        ca.verify(&fixture.parts.bundle(), of_folder)
            .unwrap()
            .verified
    );
}
