//! The device's answer to a CA's challenge (Part 1, section 24: credential protection).

use super::challenge::{Challenge, Response};
use super::collect::leaving_nothing;
use super::endorsement::Endorsement;
use crate::identity::{Device, IdentityError};
use crate::key::{PublicKey, hex};
use crate::tpm::{AttestationKey, EndorsementKey, Secret, TpmError};

/// The bytes that tpm2_makecredential writes before the two structures: a magic number and a
/// version.
const TOOLS_HEADER: [u8; 8] = [0xBA, 0xDC, 0xC0, 0xDE, 0, 0, 0, 1];

/// Answers a challenge: the TPM that has both keys opens the secret.
///
/// # Errors
///
/// The challenge is for another attestation key, or the TPM does not open it.
pub fn activate(device: &Device, challenge: &Challenge) -> Result<Response, IdentityError> {
    leaving_nothing(device, || activated(device, challenge))
}

fn activated(device: &Device, challenge: &Challenge) -> Result<Response, IdentityError> {
    let inventory = device.inventory();
    let key = AttestationKey::called(device, &inventory, &challenge.attestation_key_name)?;
    let unfit = || {
        IdentityError::refused(
            "the kind of the challenge's endorsement key is not supported; RSA, P-256, P-384 and \
             P-521 are",
        )
    };
    let public = PublicKey::from_info_der(&challenge.endorsement_key).ok_or_else(unfit)?;
    let endorsement = device.tpm.endorsement_key_of(&public, None)?;
    let endorsement = endorsement.ok_or_else(|| {
        IdentityError::refused(format!(
            "the challenge is for another endorsement key ({public}) than this TPM has: it was made for \
             another device"
        ))
    })?;
    let secret = opened(
        device,
        &key,
        &endorsement,
        &challenge.credential,
        &challenge.secret,
    )?;
    Ok(Response {
        id: challenge.id.clone(),
        secret: secret.as_slice().into(),
    })
}

/// The most bytes of a TPMS_ID_OBJECT: two digests, each with its size, and the secret's size.
const LONGEST_CREDENTIAL: usize = 2 + 64 + 2 + 64;
/// The most bytes of a TPM2B_ENCRYPTED_SECRET's content: those for RSA-4096.
const LONGEST_SECRET: usize = 512;

/// True if tpm2_makecredential wrote this document.
pub fn is_of_tools(document: &[u8]) -> bool {
    document.starts_with(&TOOLS_HEADER)
}

/// Answers a document that tpm2_makecredential wrote for the attestation key and an endorsement key
/// of this device. Returns the secret, unchanged.
///
/// # Errors
///
/// Those of [`activate`].
pub fn activate_of_tools(device: &Device, document: &[u8]) -> Result<Secret, IdentityError> {
    let none = || IdentityError::refused("this challenge is not from tpm2_makecredential");
    let rest = document.strip_prefix(&TOOLS_HEADER).ok_or_else(none)?;
    let cut = || {
        IdentityError::refused(
            "the challenge is cut off: copy the whole file of tpm2_makecredential",
        )
    };
    let (credential, rest) = tpm2b(rest).ok_or_else(cut)?;
    let (secret, []) = tpm2b(rest).ok_or_else(cut)? else {
        return Err(IdentityError::refused(
            "the challenge has further bytes at its end: tpm2_makecredential wrote none",
        ));
    };
    leaving_nothing(device, || {
        let (key, _) = AttestationKey::of_device(device, &device.inventory())?;
        let endorsement = Endorsement::of(&device.tpm, Vec::new())?.key;
        let endorsement =
            endorsement.ok_or_else(|| IdentityError::failed("the TPM has no endorsement key"))?;
        opened(device, &key, &endorsement, credential, secret)
    })
}

/// The content of a TPM2B, and the bytes that follow.
fn tpm2b(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*size)))
}

fn opened(
    device: &Device,
    key: &AttestationKey,
    endorsement: &EndorsementKey,
    credential: &[u8],
    secret: &[u8],
) -> Result<Secret, IdentityError> {
    let unopened = |why: &str| {
        IdentityError::refused(format!(
            "the TPM does not open the challenge ({why}): it was made for another attestation key \
             or another endorsement key than these (TPM name {}, {}), or its bytes were changed. \
             Make new evidence with devid attest, and have the CA make a challenge for that \
             evidence",
            hex(key.name()),
            endorsement.public()
        ))
    };
    if credential.len() > LONGEST_CREDENTIAL {
        return Err(unopened("the credential is too long"));
    }
    // Some TPMs fail completely if the number is too large.
    let is_rsa = matches!(endorsement.public(), PublicKey::Rsa { .. });
    if is_rsa && !endorsement.public().has_below_modulus(secret) || secret.len() > LONGEST_SECRET {
        return Err(unopened("the secret is not below the modulus"));
    }
    let _try = key.lock_try(&device.tpm)?;
    let opened = device
        .tpm
        .activate_credential(key, endorsement, credential, secret);
    opened.map_err(|error| match error {
        // Some TPMs report a failure if RSA's padding is wrong, but they go on working.
        TpmError::Response(code)
            if code.is_parameter()
                || code.is_out_of_order() && device.tpm.random(&mut [0]).is_ok() =>
        {
            unopened(&code.to_string())
        }
        other => IdentityError::from(other).while_doing("TPM2_ActivateCredential"),
    })
}
