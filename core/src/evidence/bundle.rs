//! The evidence bundle: everything that a device shows about a key, as one JSON document
//! (`docs/evidence.schema.json`).
//!
//! A bundle that can be parsed proves nothing. Each byte string is a claim of the device, which the
//! CA verifies later.

use super::json::{self, Bytes, DocumentError, text};
use crate::file;
use crate::identity::IdentityError;
use crate::key::from_hex;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The format of a [`Bundle`].
pub const BUNDLE_FORMAT: &str = "devid-evidence/1";
/// The largest number of certificates in a list of a bundle.
pub const MOST_CERTIFICATES: usize = 32;
/// The length of the longest nonce in bytes. A longer nonce is replaced by its SHA-256. A TPM whose
/// longest hash is SHA-256 accepts only as much qualifying data as a TPMT_HA holds (TPM 2.0 Part 2,
/// section 10.4.3).
pub const LONGEST_NONCE: usize = 32;

/// The evidence that a device shows about one of its keys.
///
/// TPM structures have no size field, unlike in a TPM2B.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// The maker, the firmware and the names that the device claims.
    #[serde(default)]
    pub device: Device,
    /// The TPMT_PUBLIC of the endorsement key, exactly as the TPM returned it. `None` if the TPM
    /// has no usable endorsement key.
    pub ek_public: Option<Bytes>,
    /// The certificates of endorsement keys in DER, in any order. The certificate of `ek_public`
    /// need not be the first.
    #[serde(default, deserialize_with = "certificates")]
    pub ek_certificates: Vec<Bytes>,
    /// The CA certificates between the endorsement certificates and a root, in DER, in any order.
    #[serde(default, deserialize_with = "certificates")]
    pub ek_chain: Vec<Bytes>,
    /// The restricted key that signed the evidence.
    pub attestation_key: AttestationKey,
    /// The key that the evidence is about.
    pub key: CertifiedKey,
    /// The IDevID key of the factory, if the device has one and it is not `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idevid: Option<CertifiedKey>,
    /// The qualifying data of each TPM2_Certify. This is the nonce of the verifier, or its SHA-256
    /// if the nonce is longer than [`LONGEST_NONCE`]. `None` if there was no nonce; the bundle is
    /// then not fresh.
    pub nonce: Option<Bytes>,
    /// A certificate request (PKCS#10, RFC 2986) in DER, signed by `key`.
    pub csr: Bytes,
}

/// What the device states about itself. Nothing in it is proven.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Device {
    /// The manufacturer of the TPM: TPM_PT_MANUFACTURER as text.
    #[serde(default, deserialize_with = "text")]
    pub maker: Option<String>,
    /// The version of the TPM's firmware.
    #[serde(default, deserialize_with = "text")]
    pub firmware: Option<String>,
    /// The serial number of the device, from its IDevID certificate.
    #[serde(default, deserialize_with = "text")]
    pub serial: Option<String>,
    /// The model of the device, from its IDevID certificate.
    #[serde(default, deserialize_with = "text")]
    pub model: Option<String>,
}

/// The attestation key, and its certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestationKey {
    /// The TPMT_PUBLIC of the attestation key, exactly as the TPM returned it.
    pub public: Bytes,
    /// The certificate of the key, then the certificates of its issuers, in DER. Empty if the key
    /// has no certificate.
    #[serde(default, deserialize_with = "certificates")]
    pub certificates: Vec<Bytes>,
}

/// A key, and the statement of TPM2_Certify about this key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertifiedKey {
    /// The label of the key on the device.
    #[serde(default, deserialize_with = "text")]
    pub label: Option<String>,
    /// The TPMT_PUBLIC of the key, exactly as the TPM returned it.
    pub public: Bytes,
    /// The TPMS_ATTEST that TPM2_Certify returned.
    pub certify: Bytes,
    /// The TPMT_SIGNATURE of the attestation key over `certify`.
    pub signature: Bytes,
    /// The TPMS_CREATION_DATA, if the device stored it. No check needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_data: Option<Bytes>,
    /// A certificate that the key already has, then the certificates of its issuers, in DER. Empty
    /// if the key has no certificate.
    #[serde(default, deserialize_with = "certificates")]
    pub certificates: Vec<Bytes>,
}

impl Bundle {
    /// Parses a bundle in JSON. Skips unknown fields. Each known field must occur once, have the
    /// right type, and not exceed its limit.
    ///
    /// # Errors
    ///
    /// Fails if the document is wrong. The error names the line and the column.
    pub fn from_json(document: &[u8]) -> Result<Self, DocumentError> {
        json::read(document, BUNDLE_FORMAT)
    }

    /// Parses a bundle from a file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or for the reasons of [`Self::from_json`].
    pub fn from_file(path: &Path) -> Result<Self, IdentityError> {
        json::read_file(path, BUNDLE_FORMAT)
    }

    /// Returns the bundle as a JSON document, with a line feed at its end.
    ///
    /// # Errors
    ///
    /// Fails if the document would be longer than [`json::LARGEST_DOCUMENT`].
    pub fn to_json(&self) -> Result<String, DocumentError> {
        json::write(self, BUNDLE_FORMAT)
    }
}

/// Reads the nonce of a command-line argument. The argument is hexadecimal digits or a file. A file
/// with hexadecimal digits gives the bytes that the digits stand for. Another file gives all its
/// bytes.
///
/// # Errors
///
/// Fails if the file cannot be read, or is empty.
pub fn nonce_of(argument: &str) -> Result<Vec<u8>, IdentityError> {
    if let Some(nonce) = from_hex(argument).filter(|nonce| !nonce.is_empty()) {
        return Ok(nonce);
    }
    let path = Path::new(argument);
    let bytes = file::read(path, json::LARGEST_FIELD as u64).map_err(|error| {
        let what = "this is neither hexadecimal digits nor a file that can be read";
        IdentityError::failed(format!("{argument}: {what} ({error})"))
    })?;
    let digits = str::from_utf8(&bytes).ok();
    match digits.and_then(|digits| from_hex(digits.trim())) {
        Some(nonce) if !nonce.is_empty() => Ok(nonce),
        _ if bytes.trim_ascii().is_empty() => Err(IdentityError::failed(format!(
            "{argument}: the file holds no nonce"
        ))),
        _ => Ok(bytes),
    }
}

/// Returns the qualifying data for a nonce: the nonce itself, or its SHA-256 if the nonce is longer
/// than [`LONGEST_NONCE`].
pub fn qualifying_data(nonce: &[u8]) -> Vec<u8> {
    match nonce.len() > LONGEST_NONCE {
        true => crate::tpm::Hash::Sha256.digest(&[nonce]),
        false => nonce.to_vec(),
    }
}

fn certificates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Bytes>, D::Error> {
    let list = Vec::<Bytes>::deserialize(deserializer)?;
    match list.len() > MOST_CERTIFICATES {
        true => Err(D::Error::custom(format!(
            "{} certificates; a list may have at most {MOST_CERTIFICATES}",
            list.len()
        ))),
        false => Ok(list),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn sample() -> Bundle {
        let certified = |what: u8| CertifiedKey {
            label: Some("web".into()),
            public: vec![what, 1].into(),
            certify: vec![what, 2].into(),
            signature: vec![what, 3].into(),
            creation_data: None,
            certificates: vec![vec![what, 4].into()],
        };
        let attestation_key = AttestationKey {
            public: vec![9].into(),
            certificates: Vec::new(),
        };
        Bundle {
            device: Device {
                serial: Some("SN1".into()),
                ..Device::default()
            },
            ek_public: Some(vec![1, 2, 3].into()),
            ek_certificates: vec![vec![4].into(), vec![5].into()],
            ek_chain: Vec::new(),
            attestation_key,
            key: certified(7),
            idevid: Some(certified(8)),
            nonce: Some(vec![0xFF; 32].into()),
            csr: vec![0x30, 0].into(),
        }
    }

    fn document() -> Value {
        serde_json::from_str(&sample().to_json().unwrap()).unwrap()
    }

    fn read(document: &Value) -> Result<Bundle, DocumentError> {
        Bundle::from_json(document.to_string().as_bytes())
    }

    #[test]
    fn a_bundle_goes_there_and_back() {
        let text = sample().to_json().unwrap();
        assert_eq!(Bundle::from_json(text.as_bytes()), Ok(sample()));
        assert!(text.starts_with("{\n  \"format\": \"devid-evidence/1\""));
        assert!(text.ends_with("}\n"));
    }

    #[test]
    fn unknown_fields_are_skipped_and_what_can_be_absent_may_be() {
        let mut document = document();
        document["later"] = json!({ "anything": [1] });
        document["key"]["later"] = json!(null);
        assert_eq!(read(&document), Ok(sample()));
        let lacks = ["device", "ekChain", "ekCertificates", "idevid"];
        let mut fields = document.as_object().unwrap().clone();
        for field in lacks {
            fields.remove(field);
        }
        fields["nonce"] = json!(null);
        fields["ekPublic"] = json!(null);
        let bare = read(&Value::Object(fields)).unwrap();
        assert_eq!(
            (bare.nonce, bare.ek_public, bare.idevid),
            (None, None, None)
        );
    }

    #[test]
    fn known_fields_are_read_strictly() {
        for (path, value, said) in [
            ("/format", json!(1), "invalid type"),
            ("/csr", json!(null), "invalid type"),
            ("/csr", json!(""), "empty"),
            ("/csr", json!("MA"), "not base64"),
            ("/csr", json!("MA==\n"), "not base64"),
            ("/csr", json!("MA-_"), "not base64"),
            ("/csr", json!("A".repeat(88_000)), "66000 bytes"),
            ("/nonce", json!(""), "empty"),
            ("/key/certify", json!(["MAA="]), "invalid type"),
            ("/ekCertificates", json!(null), "invalid type"),
            ("/ekChain", json!(vec!["MAA="; 33]), "33 certificates"),
            ("/device/serial", json!(7), "invalid type"),
            ("/device/model", json!("x".repeat(1025)), "1024 bytes"),
        ] {
            let mut document = document();
            document
                .as_object_mut()
                .unwrap()
                .entry("ekChain")
                .or_insert(json!([]));
            *document.pointer_mut(path).unwrap() = value;
            let why = read(&document).unwrap_err().to_string();
            assert!(why.contains(said), "{path}: {why}, not {said}");
            assert!(why.contains("line 1 column"), "{path}: {why}");
        }
        for field in ["format", "attestationKey", "key", "csr"] {
            let mut fields = document().as_object().unwrap().clone();
            fields.remove(field);
            let why = read(&Value::Object(fields)).unwrap_err().to_string();
            assert!(why.contains(&format!("missing field `{field}`")), "{why}");
        }
        let mut later = document();
        later["format"] = json!("devid-evidence/2");
        let why = read(&later).unwrap_err().to_string();
        assert!(why.ends_with("its format is \"devid-evidence/2\""), "{why}");
        let twice = document()
            .to_string()
            .replacen('{', "{\"csr\":\"MAA=\",", 1);
        let why = Bundle::from_json(twice.as_bytes()).unwrap_err();
        assert!(why.to_string().contains("duplicate field `csr`"), "{why}");
    }

    #[test]
    fn documents_without_bounds_are_refused() {
        let large = vec![b' '; json::LARGEST_DOCUMENT + 1];
        assert!(Bundle::from_json(&large).is_err());
        let deep = [b'['; 10_000];
        assert!(Bundle::from_json(&deep).is_err());
        let text = sample().to_json().unwrap();
        for end in 0..text.len() - 2 {
            assert!(Bundle::from_json(&text.as_bytes()[..end]).is_err());
        }
    }

    #[test]
    fn nonces_are_digits_or_files() {
        assert_eq!(nonce_of("00fF"), Ok(vec![0, 0xFF]));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nonce");
        let of = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            nonce_of(path.to_str().unwrap())
        };
        assert_eq!(of(b"00ff\n"), Ok(vec![0, 0xFF]));
        assert_eq!(of(b"\x00\xFF\n"), Ok(vec![0, 0xFF, b'\n']));
        assert_eq!(of(b"00f"), Ok(b"00f".to_vec()));
        assert!(
            of(b" \n")
                .unwrap_err()
                .text
                .contains("the file holds no nonce")
        );
        assert!(
            nonce_of("/nowhere/nonce")
                .unwrap_err()
                .text
                .contains("nor a file")
        );
        assert!(nonce_of("").is_err());
    }

    #[test]
    fn a_long_nonce_is_hashed() {
        assert_eq!(qualifying_data(&[7; 32]), [7; 32]);
        assert_eq!(qualifying_data(&[7; 33]).len(), 32);
        assert_ne!(qualifying_data(&[7; 33]), [7; 32]);
        assert_eq!(qualifying_data(&[]), [0; 0]);
    }
}
