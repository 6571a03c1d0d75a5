//! Checks the statement of TPM2_Certify that the attestation key signed about another key (TPM 2.0
//! Part 3, section 18.2).

use super::attestation_key::attributes;
use super::{Checks, ExpectedNonce, Outcome, kind};
use crate::evidence::bundle::{Bundle, CertifiedKey, qualifying_data};
use crate::signature::{SignRequest, has_longest_salt, verify};
use crate::tpm::{
    ATTEST_CERTIFY, Attest, KeyScheme, PublicArea, Signature, SignatureScheme, TPM_GENERATED,
    name_of,
};
use subtle::ConstantTimeEq;
use tpm2_protocol::data::TpmaObject;

/// The required attributes of an attested key. The TPM created the key, the key cannot leave the
/// TPM, and it also signs data from outside the TPM.
const ATTRIBUTES: [(TpmaObject, bool, &str); 4] = [
    (TpmaObject::FIXED_TPM, true, "fixedTPM"),
    (TpmaObject::FIXED_PARENT, true, "fixedParent"),
    (
        TpmaObject::SENSITIVE_DATA_ORIGIN,
        true,
        "sensitiveDataOrigin",
    ),
    (TpmaObject::RESTRICTED, false, "restricted"),
];

const NO_ATTEST: &str = "this is not a TPMS_ATTEST of TPM2_Certify";
const NO_SIGNATURE: &str = "this is not a TPMT_SIGNATURE of ECDSA, RSASSA or RSAPSS";

pub(super) fn check(
    checks: &mut Checks,
    key: &CertifiedKey,
    area: Option<&PublicArea>,
    signer: Option<&PublicArea>,
) {
    checks.add("key-kind", kind(area).map(|area| area.key.to_string()));
    checks.add("key-attributes", attributes(area, &ATTRIBUTES));
    checks.add("certify-magic", magic(key));
    checks.add("certify-type", statement(key));
    checks.add("certify-name", name(key));
    checks.add("certify-scheme", scheme(key, signer));
    checks.add("certify-signature", signature(key, signer));
}

/// Returns the first check of the TPM2_Certify statement that fails, if any.
pub(crate) fn first_failure(
    key: &CertifiedKey,
    area: Option<&PublicArea>,
    signer: Option<&PublicArea>,
) -> Option<String> {
    let mut checks = Checks::default();
    check(&mut checks, key, area, signer);
    let failed = checks.0.into_iter().find(|check| !check.ok);
    failed.map(|check| format!("{}: {}", check.name, check.detail))
}

/// Checks that the statement contains the expected nonce, which shows that the evidence is fresh.
pub(super) fn nonce(bundle: &Bundle, expected: &ExpectedNonce) -> Outcome {
    let attest = Attest::read(&bundle.key.certify).ok_or(NO_ATTEST)?;
    let said = bundle.nonce.as_deref().unwrap_or_default();
    if said != attest.extra_data {
        return Err("the nonce in the bundle is not the nonce that the TPM signed".into());
    }
    match (expected, said.is_empty()) {
        (ExpectedNonce::Any, true) => Ok("no nonce, so the evidence is not fresh; the options \
                                          permit that"
            .into()),
        (ExpectedNonce::Any, false) => Ok("a nonce, which the options do not require".into()),
        (ExpectedNonce::Given(..), true) => {
            Err("the bundle has no nonce, so it is not fresh".into())
        }
        (ExpectedNonce::Given(wanted, may_be_used), false) => {
            match bool::from(qualifying_data(wanted).ct_eq(said)) {
                true => may_be_used.clone().map(|()| "the expected nonce".into()),
                false => Err("the bundle has another nonce than the expected one".into()),
            }
        }
    }
}

fn magic(key: &CertifiedKey) -> Outcome {
    match Attest::read(&key.certify).ok_or(NO_ATTEST)?.magic {
        TPM_GENERATED => Ok("a TPM created the statement (TPM_GENERATED_VALUE)".into()),
        other => Err(format!("0x{other:08X}: no TPM created the statement")),
    }
}

fn statement(key: &CertifiedKey) -> Outcome {
    match Attest::read(&key.certify).ok_or(NO_ATTEST)?.kind {
        ATTEST_CERTIFY => Ok("TPM_ST_ATTEST_CERTIFY".into()),
        other => Err(format!(
            "0x{other:04X}: the statement does not certify a key"
        )),
    }
}

/// Compares the name in the statement with the name of the public area. The name is computed over
/// the bytes that the device sent, so another encoding of the key has another name.
fn name(key: &CertifiedKey) -> Outcome {
    let attest = Attest::read(&key.certify).ok_or(NO_ATTEST)?;
    match name_of(&key.public) {
        Some(name) if name == attest.name => Ok("the name of this public area".into()),
        _ => Err("the TPM certified another key".into()),
    }
}

fn scheme(key: &CertifiedKey, signer: Option<&PublicArea>) -> Outcome {
    let (by, _) = Signature::read(&key.signature).ok_or(NO_SIGNATURE)?;
    match signer.map(|signer| signer.scheme) {
        Some(KeyScheme::Fixed(scheme)) if scheme == by => Ok(scheme.to_string()),
        _ => Err(format!("{by}, but the attestation key has another scheme")),
    }
}

fn signature(key: &CertifiedKey, signer: Option<&PublicArea>) -> Outcome {
    let (by, signature) = Signature::read(&key.signature).ok_or(NO_SIGNATURE)?;
    let signer = signer.ok_or("this version does not support the type of the attestation key")?;
    let fixed = signature.fixed(signer.key.signature_width());
    let fixed = fixed.map_err(|_| "the signature is longer than the attestation key")?;
    let digest = by.hash().digest(&[&key.certify]);
    let is_right = match by {
        // Only the TPM decides the length of the salt, so both lengths are accepted.
        SignatureScheme::Rsapss(hash) => {
            verify(&signer.key, SignRequest::Pss(hash, &digest), &fixed)
                || has_longest_salt(&signer.key, hash, &digest, &fixed)
        }
        by => verify(&signer.key, SignRequest::of(by, &digest), &fixed),
    };
    match is_right {
        true => Ok("the attestation key made the signature".into()),
        false => Err("the attestation key did not make the signature".into()),
    }
}
