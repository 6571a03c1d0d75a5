//! Checks the attestation key: its attributes, and the proof that it is in a TPM.

use super::endorsement::ek_public;
use super::{Checks, Expected, Outcome, certificates, chain, kind};
use crate::evidence::bundle::Bundle;
use crate::evidence::challenge::Activation;
use crate::key::PublicKey;
use crate::oid::{TCG_CAP_VERIFIED_TPM_RESTRICTED, TCG_KP_AIK_CERTIFICATE};
use crate::tpm::{Attest, Hash, KeyScheme, PublicArea, handle, name_of, qualified_name_below};
use crate::x509::Certificate;
use tpm2_protocol::data::TpmaObject;

/// The attributes of an attestation key. A restricted key signs only data that its TPM created.
const ATTRIBUTES: [(TpmaObject, bool, &str); 6] = [
    (TpmaObject::FIXED_TPM, true, "fixedTPM"),
    (TpmaObject::FIXED_PARENT, true, "fixedParent"),
    (
        TpmaObject::SENSITIVE_DATA_ORIGIN,
        true,
        "sensitiveDataOrigin",
    ),
    (TpmaObject::RESTRICTED, true, "restricted"),
    (TpmaObject::SIGN_ENCRYPT, true, "sign"),
    (TpmaObject::DECRYPT, false, "decrypt"),
];

pub(super) fn check(
    checks: &mut Checks,
    bundle: &Bundle,
    area: Option<&PublicArea>,
    expected: &Expected,
) {
    checks.add("ak-kind", scheme(area));
    checks.add("ak-attributes", attributes(area, &ATTRIBUTES));
    match &expected.activation {
        Some(Ok(activation)) => {
            checks.add(
                "activation",
                Ok("the TPM of the endorsement key answered".into()),
            );
            checks.add("activation-ak", activated(bundle, activation));
            let key = PublicKey::from_info_der(&activation.endorsement_key);
            // Without an endorsement certificate there is nothing to compare. The check
            // ek-certificate reports its absence.
            if let Ok(certificate) = super::endorsement::select(bundle, key.as_ref()) {
                checks.add(
                    "activation-ek",
                    challenged(bundle, activation, certificate.public_key(), key),
                );
            }
        }
        Some(Err(why)) => checks.add("activation", Err(why.clone())),
        None => by_certificate(checks, bundle, area, expected),
    }
}

/// Checks that each listed TPMA_OBJECT attribute is set or clear, as the list requires.
pub(super) fn attributes(
    area: Option<&PublicArea>,
    wanted: &[(TpmaObject, bool, &str)],
) -> Outcome {
    let area = area.ok_or("this version does not support its public area")?;
    let has = area.attributes();
    let is_wrong = |(bit, set, _): &&(TpmaObject, bool, &str)| (has & bit.bits() != 0) != *set;
    let wrong: Vec<String> = wanted
        .iter()
        .filter(is_wrong)
        .map(|(_, set, name)| match set {
            true => format!("{name} is not set"),
            false => format!("{name} is set"),
        })
        .collect();
    match wrong.is_empty() {
        true => Ok(format!("0x{has:08X}")),
        false => Err(wrong.join(", ")),
    }
}

fn scheme(area: Option<&PublicArea>) -> Outcome {
    let area = kind(area)?;
    match area.scheme {
        KeyScheme::Any => Err(
            "its scheme is not fixed, but the scheme of an attestation key must be fixed".into(),
        ),
        KeyScheme::Fixed(scheme) if scheme.hash() == Hash::Sha1 => {
            Err(format!("its scheme {scheme} is not secure"))
        }
        KeyScheme::Fixed(scheme) => Ok(format!("{}, {scheme}", area.key)),
    }
}

fn activated(bundle: &Bundle, activation: &Activation) -> Outcome {
    match name_of(&bundle.attestation_key.public) {
        Some(name) if name[..] == activation.attestation_key_name[..] => {
            Ok("the challenge was for this attestation key".into())
        }
        _ => Err("the challenge was for another attestation key".into()),
    }
}

/// Checks that the challenge was for the endorsement key in the endorsement certificate and in the
/// bundle. `key` is the endorsement key of the challenge.
fn challenged(
    bundle: &Bundle,
    activation: &Activation,
    certified: Option<PublicKey>,
    key: Option<PublicKey>,
) -> Outcome {
    let public = ek_public(bundle)?.map(|area| area.key);
    let is_other = public.is_some() && public != key;
    let area = bundle
        .ek_public
        .as_ref()
        .map(|area| Hash::Sha256.digest(&[area]).into());
    let other_area = activation.ek_public_sha256 != area;
    match key.is_none() || certified != key || is_other || other_area {
        true => Err("the challenge was for another endorsement key".into()),
        false => Ok("the challenge was for the certified endorsement key".into()),
    }
}

/// Checks an attestation key without a challenge. A certificate must prove that the key is an
/// attestation key. The IAK of a factory has such a certificate.
fn by_certificate(
    checks: &mut Checks,
    bundle: &Bundle,
    area: Option<&PublicArea>,
    expected: &Expected,
) {
    let leaf = match bundle.attestation_key.certificates.first() {
        Some(leaf) => Certificate::from_der(leaf).map_err(|why| why.to_string()),
        None => Err(
            "nothing proves that the attestation key is in a certified TPM: it has no certificate, \
             and no challenge was answered (devid ca challenge makes one)"
                .into(),
        ),
    };
    let leaf = match leaf {
        Ok(leaf) => leaf,
        Err(why) => return checks.add("ak-certificate", Err(why)),
    };
    checks.add("ak-certificate", Ok(leaf.subject()));
    checks.add(
        "ak-key",
        match (leaf.public_key(), area) {
            (Some(certified), Some(area)) if certified == area.key => {
                Ok("the public area has the key of the certificate".into())
            }
            _ => Err("the public area has another key than the certificate".into()),
        },
    );
    checks.add("ak-purpose", purpose(&leaf));
    checks.add("ak-name", qualified_name(bundle));
    checks.add("ak-chain", way(bundle, &leaf, expected));
}

/// Checks the chain from the certificate of the attestation key to a trusted certificate.
pub(super) fn way(bundle: &Bundle, leaf: &Certificate, expected: &Expected) -> Outcome {
    let others = [
        &bundle.attestation_key.certificates[..],
        &bundle.ek_chain[..],
    ];
    chain(leaf, &certificates(&others.concat()), expected)
}

/// Checks that a certificate's purposes or policies mark its key as an attestation key.
pub(super) fn purpose(leaf: &Certificate) -> Outcome {
    let purposes = leaf.purposes();
    let purposes = purposes.map_err(|why| format!("its extKeyUsage {why}"))?;
    let policies = leaf.policies();
    let policies = policies.map_err(|why| format!("its certificatePolicies {why}"))?;
    if leaf.is_ca() {
        return Err("the certificate is a CA certificate".into());
    }
    if purposes.is_some_and(|all| all.contains(&TCG_KP_AIK_CERTIFICATE)) {
        return Ok("tcg-kp-AIKCertificate".into());
    }
    match policies.is_some_and(|all| all.contains(&TCG_CAP_VERIFIED_TPM_RESTRICTED)) {
        true => Ok("tcg-cap-verifiedTPMRestricted".into()),
        false => Err(
            "the certificate is not for an attestation key (neither tcg-kp-AIKCertificate nor \
             tcg-cap-verifiedTPMRestricted)"
                .into(),
        ),
    }
}

/// Returns true if a primary key of the owner hierarchy signed the statement of TPM2_Certify.
pub(super) fn is_in_owner_hierarchy(bundle: &Bundle) -> bool {
    let attest = Attest::read(&bundle.key.certify);
    let name = name_of(&bundle.attestation_key.public);
    let qualified = name.and_then(|name| qualified_name_below(&handle::OWNER.to_be_bytes(), &name));
    qualified.is_some_and(|name| attest.is_some_and(|attest| attest.qualified_signer == name))
}

/// Checks the qualified name of the signer. A certificate contains the key, but not its attributes.
/// The TPM signed the attributes as a part of the signer's qualified name. This qualified name must
/// be that of a primary key of a hierarchy (TPM 2.0 Part 1, section 16).
fn qualified_name(bundle: &Bundle) -> Outcome {
    let unread = "the statement is not a TPMS_ATTEST of TPM2_Certify";
    let attest = Attest::read(&bundle.key.certify).ok_or(unread)?;
    let name = name_of(&bundle.attestation_key.public);
    let name = name.ok_or("this version does not support the hash in its public area")?;
    let hierarchies = [
        (handle::ENDORSEMENT, "endorsement"),
        (handle::OWNER, "owner"),
        (handle::PLATFORM, "platform"),
    ];
    let found = hierarchies.iter().find(|(hierarchy, _)| {
        let qualified = qualified_name_below(&hierarchy.to_be_bytes(), &name);
        qualified.as_deref() == Some(attest.qualified_signer)
    });
    match found {
        Some((_, which)) => Ok(format!("the key is a primary key of the {which} hierarchy")),
        None => Err(
            "the signer is not a primary key with this public area; other keys need a challenge \
             (devid ca challenge)"
                .into(),
        ),
    }
}
