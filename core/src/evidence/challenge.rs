//! The challenge by which a CA learns that an attestation key is in the TPM of an endorsement key,
//! and what the device answers (Part 1, section 24: credential protection).

use super::json::{self, Bytes, DocumentError};
use serde::{Deserialize, Serialize};

/// The format of a [`Challenge`].
pub const CHALLENGE_FORMAT: &str = "devid-challenge/1";
/// The format of a [`Response`].
pub const RESPONSE_FORMAT: &str = "devid-response/1";

/// A secret that TPM2_ActivateCredential shows in one TPM only, and only if that has the named key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Challenge {
    /// Random bytes that tell it from other challenges; the response names them.
    pub id: Bytes,
    /// The attestation key's TPM name.
    pub attestation_key_name: Bytes,
    /// SubjectPublicKeyInfo of the endorsement key, DER.
    pub endorsement_key: Bytes,
    /// TPMS_ID_OBJECT: the content of the TPM2B_ID_OBJECT.
    pub credential: Bytes,
    /// The content of the TPM2B_ENCRYPTED_SECRET.
    pub secret: Bytes,
}

/// What the device answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// That of the challenge.
    pub id: Bytes,
    /// What TPM2_ActivateCredential showed.
    pub secret: Bytes,
}

impl Challenge {
    /// Reads a document. Unknown fields are skipped.
    ///
    /// # Errors
    ///
    /// What is wrong, with line and column.
    pub fn from_json(document: &[u8]) -> Result<Self, DocumentError> {
        json::read(document, CHALLENGE_FORMAT)
    }

    /// The document, with a line feed at its end.
    ///
    /// # Errors
    ///
    /// It would be too long.
    pub fn to_json(&self) -> Result<String, DocumentError> {
        json::write(self, CHALLENGE_FORMAT)
    }
}

impl Response {
    /// Reads a document. Unknown fields are skipped.
    ///
    /// # Errors
    ///
    /// What is wrong, with line and column.
    pub fn from_json(document: &[u8]) -> Result<Self, DocumentError> {
        json::read(document, RESPONSE_FORMAT)
    }

    /// The document, with a line feed at its end.
    ///
    /// # Errors
    ///
    /// It would be too long.
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
