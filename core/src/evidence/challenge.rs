//! The challenge of a CA, and the answer of a device. A right answer proves that an attestation key
//! is in the TPM of an endorsement key (TPM 2.0 Part 1, section 24: credential protection).

use super::bundle::Bundle;
use super::json::{self, Bytes, DocumentError};
use super::verify::{ek_public, select};
use crate::identity::IdentityError;
use crate::tpm::{Hash, TpmError, make_credential, name_of, random_secret};
use serde::{Deserialize, Serialize};
use std::path::Path;
use zeroize::Zeroizing;

/// The format of a [`Challenge`].
pub const CHALLENGE_FORMAT: &str = "devid-challenge/1";
/// The format of a [`Response`].
pub const RESPONSE_FORMAT: &str = "devid-response/1";

/// A secret for one TPM. TPM2_ActivateCredential decrypts the secret only in this TPM, and only if
/// the TPM has the named key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Challenge {
    /// Random bytes that identify the challenge. The response contains them too.
    pub id: Bytes,
    /// The TPM name of the attestation key.
    pub attestation_key_name: Bytes,
    /// The SubjectPublicKeyInfo of the endorsement key, in DER.
    pub endorsement_key: Bytes,
    /// The TPMS_ID_OBJECT, which is the content of the TPM2B_ID_OBJECT.
    pub credential: Bytes,
    /// The content of the TPM2B_ENCRYPTED_SECRET.
    pub secret: Bytes,
}

/// The secret that a device decrypted from a challenge of a CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// The `id` of the challenge that the device answers.
    pub id: Bytes,
    /// The secret that TPM2_ActivateCredential returned.
    pub secret: Bytes,
}

/// What a right answer to a challenge proves: the attestation key with this name is in the TPM of
/// this endorsement key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Activation {
    /// The TPM name of the attestation key.
    pub attestation_key_name: Bytes,
    /// The SubjectPublicKeyInfo of the endorsement key, in DER.
    pub endorsement_key: Bytes,
    /// The SHA-256 of the endorsement key's TPMT_PUBLIC, if the bundle had that structure.
    pub ek_public_sha256: Option<Bytes>,
}

/// The length of the secret in bytes. It is no longer than a digest of any endorsement key's
/// nameAlg.
const SECRET: usize = 32;
const ID: usize = 16;

/// A new challenge, its secret in clear, and what a right answer will prove.
pub(super) struct Made {
    pub(super) challenge: Challenge,
    pub(super) secret: Zeroizing<Vec<u8>>,
    pub(super) activation: Activation,
}

/// Creates a challenge for the TPM that a bundle describes. The bundle is not verified yet.
///
/// # Errors
///
/// Fails if the bundle names no endorsement key that can decrypt a credential, or no attestation
/// key.
pub(super) fn make(bundle: &Bundle) -> Result<Made, String> {
    let area = ek_public(bundle)?;
    let key = match (&area, bundle.ek_certificates.is_empty()) {
        (Some(area), true) => area.key.clone(),
        (_, _) => {
            let key = select(bundle, None)?.public_key();
            key.ok_or("the endorsement certificate has a key of a type that is not supported")?
        }
    };
    if area.as_ref().is_some_and(|area| area.key != key) {
        return Err("the bundle has no certificate for its endorsement key".into());
    }
    let name = name_of(&bundle.attestation_key.public);
    let name = name.ok_or("the attestation key's public area is not supported")?;
    let text = |error: TpmError| error.to_string();
    let secret = random_secret(SECRET).map_err(text)?;
    let id = random_secret(ID).map_err(text)?;
    let credential = make_credential(&key, area.as_ref(), &name, &secret).map_err(text)?;
    let activation = Activation {
        attestation_key_name: name.into(),
        endorsement_key: key.info_der().into(),
        ek_public_sha256: bundle
            .ek_public
            .as_ref()
            .map(|area| Hash::Sha256.digest(&[area]).into()),
    };
    Ok(Made {
        challenge: Challenge {
            id: id.to_vec().into(),
            attestation_key_name: activation.attestation_key_name.clone(),
            endorsement_key: activation.endorsement_key.clone(),
            credential: credential.id_object.into(),
            secret: credential.encrypted_secret.into(),
        },
        secret,
        activation,
    })
}

impl Challenge {
    /// Parses a challenge in JSON. Skips unknown fields.
    ///
    /// # Errors
    ///
    /// Fails if the document is wrong. The error names the line and the column.
    pub fn from_json(document: &[u8]) -> Result<Self, DocumentError> {
        json::read(document, CHALLENGE_FORMAT)
    }

    /// Parses a challenge from a file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or for the reasons of [`Self::from_json`].
    pub fn from_file(path: &Path) -> Result<Self, IdentityError> {
        json::read_file(path, CHALLENGE_FORMAT)
    }

    /// Returns the challenge as a JSON document, with a line feed at its end.
    ///
    /// # Errors
    ///
    /// Fails if the document would be too long.
    pub fn to_json(&self) -> Result<String, DocumentError> {
        json::write(self, CHALLENGE_FORMAT)
    }
}

impl Response {
    /// Parses a response in JSON. Skips unknown fields.
    ///
    /// # Errors
    ///
    /// Fails if the document is wrong. The error names the line and the column.
    pub fn from_json(document: &[u8]) -> Result<Self, DocumentError> {
        json::read(document, RESPONSE_FORMAT)
    }

    /// Parses a response from a file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or for the reasons of [`Self::from_json`].
    pub fn from_file(path: &Path) -> Result<Self, IdentityError> {
        json::read_file(path, RESPONSE_FORMAT)
    }

    /// Returns the response as a JSON document, with a line feed at its end.
    ///
    /// # Errors
    ///
    /// Fails if the document would be too long.
    pub fn to_json(&self) -> Result<String, DocumentError> {
        json::write(self, RESPONSE_FORMAT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenge_and_response_go_there_and_back() {
        let challenge = Challenge {
            id: vec![1; 16].into(),
            attestation_key_name: vec![2; 34].into(),
            endorsement_key: vec![0x30, 0].into(),
            credential: vec![3; 68].into(),
            secret: vec![4; 256].into(),
        };
        let text = challenge.to_json().unwrap();
        assert_eq!(Challenge::from_json(text.as_bytes()), Ok(challenge));
        let response = Response {
            id: vec![1; 16].into(),
            secret: vec![5; 32].into(),
        };
        let text = response.to_json().unwrap();
        assert_eq!(Response::from_json(text.as_bytes()), Ok(response));
        let why = Challenge::from_json(text.as_bytes()).unwrap_err();
        assert_eq!(
            why.to_string(),
            "no devid-challenge/1 document: its format is \"devid-response/1\""
        );
    }
}
