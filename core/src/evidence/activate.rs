//! Decrypts the secret in a CA's challenge on the device (TPM2_ActivateCredential; TPM 2.0 Part 1,
//! section 24: credential protection).

use super::challenge::{Challenge, Response};
use super::collect::leaving_nothing;
use super::endorsement::Endorsement;
use crate::identity::{Device, IdentityError};
use crate::key::{PublicKey, hex};
use crate::tpm::{AttestationKey, EndorsementKey, Secret, TpmError};

/// The bytes that tpm2_makecredential writes before its two structures: a magic number and a
/// version.
const TOOLS_HEADER: [u8; 8] = [0xBA, 0xDC, 0xC0, 0xDE, 0, 0, 0, 1];

/// Answers a challenge of a CA. Only the TPM that has both the endorsement key and the attestation
/// key can decrypt the secret.
///
/// # Errors
///
/// Fails if the challenge is for another attestation key, or if the TPM does not decrypt the
/// secret.
pub fn activate(device: &Device, challenge: &Challenge) -> Result<Response, IdentityError> {
    leaving_nothing(device, || activated(device, challenge))
}

fn activated(device: &Device, challenge: &Challenge) -> Result<Response, IdentityError> {
    let inventory = device.inventory();
    let key = AttestationKey::called(device, &inventory, &challenge.attestation_key_name)?;
    let unfit = || {
        IdentityError::refused(
            "the challenge is for an endorsement key of a type that is not supported; RSA, P-256, \
             P-384 and P-521 are supported",
        )
    };
    let public = PublicKey::from_info_der(&challenge.endorsement_key).ok_or_else(unfit)?;
    let endorsement = device.tpm.endorsement_key_of(&public, None)?;
    let endorsement = endorsement.ok_or_else(|| {
        IdentityError::refused(format!(
            "the challenge is for the endorsement key {public}, which this TPM does not have: it \
             was made for another device"
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

/// The largest size of a TPMS_ID_OBJECT in bytes: the integrity HMAC and the encrypted secret, each
/// with a size field of 2 bytes and at most 64 bytes of content.
const LONGEST_CREDENTIAL: usize = 2 + 64 + 2 + 64;
/// The largest size of a TPM2B_ENCRYPTED_SECRET's content in bytes. RSA-4096 needs this size.
const LONGEST_SECRET: usize = 512;

/// Returns true if tpm2_makecredential wrote the challenge `document`.
pub fn is_of_tools(document: &[u8]) -> bool {
    document.starts_with(&TOOLS_HEADER)
}

/// Answers a challenge that tpm2_makecredential wrote for the attestation key and an endorsement
/// key of this device. Returns the secret unchanged.
///
/// # Errors
///
/// Fails for the reasons of [`activate`].
pub fn activate_of_tools(device: &Device, document: &[u8]) -> Result<Secret, IdentityError> {
    let none = || IdentityError::refused("this challenge was not written by tpm2_makecredential");
    let rest = document.strip_prefix(&TOOLS_HEADER).ok_or_else(none)?;
    let cut = || {
        IdentityError::refused(
            "the challenge is incomplete; copy the whole file that tpm2_makecredential wrote",
        )
    };
    let (credential, rest) = tpm2b(rest).ok_or_else(cut)?;
    let (secret, []) = tpm2b(rest).ok_or_else(cut)? else {
        return Err(IdentityError::refused(
            "the challenge has additional bytes at its end, which tpm2_makecredential did not write",
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

/// Splits bytes into the content of the TPM2B at their beginning, and the bytes after this TPM2B.
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
            "the TPM does not decrypt the challenge ({why}): it was made for another attestation \
             key or endorsement key than these (TPM name {}, {}), or its bytes were changed. Make \
             new evidence with devid attest, and ask the CA for a challenge for that evidence",
            hex(key.name()),
            endorsement.public()
        ))
    };
    if credential.len() > LONGEST_CREDENTIAL {
        return Err(unopened("the credential is too long"));
    }
    // Some TPMs enter failure mode if the encrypted secret, as a number, is not less than the RSA
    // modulus.
    let is_rsa = matches!(endorsement.public(), PublicKey::Rsa { .. });
    if is_rsa && !endorsement.public().has_below_modulus(secret) || secret.len() > LONGEST_SECRET {
        return Err(unopened("the secret is not less than the modulus"));
    }
    let _try = key.lock_try(&device.tpm)?;
    let opened = device
        .tpm
        .activate_credential(key, endorsement, credential, secret);
    opened.map_err(|error| match error {
        // Some TPMs return TPM_RC_FAILURE if the RSA padding is wrong, although they continue to
        // work.
        TpmError::Response(code)
            if code.is_parameter()
                || code.is_out_of_order() && device.tpm.random(&mut [0]).is_ok() =>
        {
            unopened(&code.to_string())
        }
        other => IdentityError::from(other).while_doing("TPM2_ActivateCredential"),
    })
}
