//! The evidence bundle: all that a device shows of one key, as one JSON document
//! (`docs/evidence.schema.json`).
//!
//! Reading a bundle proves nothing: each byte string is what the device says, and is judged later.

use base64ct::{Base64, Encoding};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::ops::Deref;

/// The value of `format`.
pub const FORMAT: &str = "devid-evidence/1";
/// The longest document that is read, in bytes.
pub const LARGEST_BUNDLE: usize = 1 << 20;
/// The longest byte string in a bundle.
pub const LARGEST_FIELD: usize = 64 << 10;
/// The most certificates in one list.
pub const MOST_CERTIFICATES: usize = 32;
/// The longest text in a bundle, in bytes.
pub const LONGEST_TEXT: usize = 1024;
/// A longer nonce is replaced by its SHA-256: a TPM whose longest hash is SHA-256 takes no more
/// qualifying data than a TPMT_HA has room for (Part 2, section 10.4.3).
pub const LONGEST_NONCE: usize = 32;

/// Bytes that the document holds as base64 (RFC 4648, section 4, with padding and without blanks).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bytes(Vec<u8>);

/// What a device shows of one of its keys.
///
/// TPM structures are bare: without the size that a TPM2B has in front.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    format: Format,
    /// What the device says of itself.
    #[serde(default)]
    pub device: Device,
    /// The endorsement key's TPMT_PUBLIC, exactly as the TPM gave it; `None` if it could not be had.
    pub ek_public: Option<Bytes>,
    /// Certificates of endorsement keys, DER. That of `ek_public` may be any of them.
    #[serde(default, deserialize_with = "certificates")]
    pub ek_certificates: Vec<Bytes>,
    /// Certificates of CAs between those and a root, DER, in any order.
    #[serde(default, deserialize_with = "certificates")]
    pub ek_chain: Vec<Bytes>,
    /// The restricted key that signed.
    pub attestation_key: AttestationKey,
    /// The key that is attested.
    pub key: CertifiedKey,
    /// The factory's IDevID key, if it is another than `key`, and the device has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idevid: Option<CertifiedKey>,
    /// The qualifying data of each TPM2_Certify: the verifier's nonce, or its SHA-256 if it is longer
    /// than [`LONGEST_NONCE`]. `None`: nobody gave one, and the bundle is not fresh.
    pub nonce: Option<Bytes>,
    /// A PKCS#10 request (RFC 2986), DER, signed by `key`.
    pub csr: Bytes,
}

/// What a device says of itself; nothing here is proven.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Device {
    /// The TPM's maker, TPM_PT_MANUFACTURER as text.
    #[serde(default, deserialize_with = "text")]
    pub maker: Option<String>,
    /// The TPM's firmware version.
    #[serde(default, deserialize_with = "text")]
    pub firmware: Option<String>,
    /// The device's serial number, as its IDevID certificate names it.
    #[serde(default, deserialize_with = "text")]
    pub serial: Option<String>,
    /// The device's model, as its IDevID certificate names it.
    #[serde(default, deserialize_with = "text")]
    pub model: Option<String>,
}

/// The restricted signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestationKey {
    /// TPMT_PUBLIC, exactly as the TPM gave it.
    pub public: Bytes,
    /// Its certificate, then those of its issuers, DER; empty if it has none.
    #[serde(default, deserialize_with = "certificates")]
    pub certificates: Vec<Bytes>,
}

/// A key, and what the attestation key certifies of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertifiedKey {
    /// What the device calls it.
    #[serde(default, deserialize_with = "text")]
    pub label: Option<String>,
    /// TPMT_PUBLIC, exactly as the TPM gave it.
    pub public: Bytes,
    /// TPMS_ATTEST of TPM2_Certify.
    pub certify: Bytes,
    /// TPMT_SIGNATURE of the attestation key over `certify`.
    pub signature: Bytes,
    /// TPMS_CREATION_DATA, where it was kept; no check needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_data: Option<Bytes>,
    /// The certificate that the key has already, then those of its issuers, DER; empty if it has
    /// none.
    #[serde(default, deserialize_with = "certificates")]
    pub certificates: Vec<Bytes>,
}

/// Why a document is no bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleError(String);

/// Serialises as [`FORMAT`], and takes nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Format;

impl Bundle {
    /// One with what no bundle can lack.
    pub fn new(attestation_key: AttestationKey, key: CertifiedKey, csr: impl Into<Bytes>) -> Self {
        Self {
            format: Format,
            device: Device::default(),
            ek_public: None,
            ek_certificates: Vec::new(),
            ek_chain: Vec::new(),
            attestation_key,
            key,
            idevid: None,
            nonce: None,
            csr: csr.into(),
        }
    }

    /// Reads a document. Unknown fields are skipped; known ones must be there once, of their type
    /// and within their bounds.
    ///
    /// # Errors
    ///
    /// What is wrong, with line and column.
    pub fn from_json(document: &[u8]) -> Result<Self, BundleError> {
        if document.len() > LARGEST_BUNDLE {
            return Err(BundleError(format!(
                "{} bytes; a bundle has {LARGEST_BUNDLE} at most",
                document.len()
            )));
        }
        serde_json::from_slice(document).map_err(|why| BundleError(why.to_string()))
    }

    /// The document, with a line feed at its end.
    ///
    /// # Errors
    ///
    /// It would be longer than [`LARGEST_BUNDLE`].
    pub fn to_json(&self) -> Result<String, BundleError> {
        let text =
            serde_json::to_string_pretty(self).map_err(|why| BundleError(why.to_string()))?;
        match text.len() < LARGEST_BUNDLE {
            true => Ok(text + "\n"),
            false => Err(BundleError("longer than a bundle may be".into())),
        }
    }
}

/// The qualifying data for a nonce: itself, or its SHA-256 if it is longer than [`LONGEST_NONCE`].
pub fn qualifying_data(nonce: &[u8]) -> Vec<u8> {
    match nonce.len() > LONGEST_NONCE {
        true => crate::tpm::Hash::Sha256.digest(&[nonce]),
        false => nonce.to_vec(),
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::key::hex(self))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Base64::encode_string(self))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = Base64::decode_vec(&text);
        let bytes = bytes.map_err(|_| D::Error::custom("no base64 (RFC 4648, section 4)"))?;
        match bytes.len() {
            0 => Err(D::Error::custom(
                "empty; a byte string has one byte at least",
            )),
            1..=LARGEST_FIELD => Ok(Self(bytes)),
            more => Err(D::Error::custom(format!(
                "{more} bytes; a byte string has {LARGEST_FIELD} at most"
            ))),
        }
    }
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(FORMAT)
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            FORMAT => Ok(Self),
            other => Err(D::Error::custom(format!(
                "the format {other:?} is not known; {FORMAT:?} is"
            ))),
        }
    }
}

fn certificates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Bytes>, D::Error> {
    let list = Vec::<Bytes>::deserialize(deserializer)?;
    match list.len() > MOST_CERTIFICATES {
        true => Err(D::Error::custom(format!(
            "{} certificates; a list has {MOST_CERTIFICATES} at most",
            list.len()
        ))),
        false => Ok(list),
    }
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    match text.as_ref().is_some_and(|text| text.len() > LONGEST_TEXT) {
        true => Err(D::Error::custom(format!(
            "a text has {LONGEST_TEXT} bytes at most"
        ))),
        false => Ok(text),
    }
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no evidence bundle: {}", self.0)
    }
}

impl std::error::Error for BundleError {}

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
        let mut bundle = Bundle::new(attestation_key, certified(7), vec![0x30, 0]);
        bundle.device.serial = Some("SN1".into());
        bundle.ek_public = Some(vec![1, 2, 3].into());
        bundle.ek_certificates = vec![vec![4].into(), vec![5].into()];
        bundle.idevid = Some(certified(8));
        bundle.nonce = Some(vec![0xFF; 32].into());
        bundle
    }

    fn document() -> Value {
        serde_json::to_value(sample()).unwrap()
    }

    fn read(document: &Value) -> Result<Bundle, BundleError> {
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
            ("/format", json!("devid-evidence/2"), "is not known"),
            ("/format", json!(1), "invalid type"),
            ("/csr", json!(null), "invalid type"),
            ("/csr", json!(""), "empty"),
            ("/csr", json!("MA"), "no base64"),
            ("/csr", json!("MA==\n"), "no base64"),
            ("/csr", json!("MA-_"), "no base64"),
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
        let twice = document()
            .to_string()
            .replacen('{', "{\"csr\":\"MAA=\",", 1);
        let why = Bundle::from_json(twice.as_bytes()).unwrap_err();
        assert!(why.to_string().contains("duplicate field `csr`"), "{why}");
    }

    #[test]
    fn documents_without_bounds_are_refused() {
        let large = vec![b' '; LARGEST_BUNDLE + 1];
        assert!(Bundle::from_json(&large).is_err());
        let deep = [b'['; 10_000];
        assert!(Bundle::from_json(&deep).is_err());
        let text = sample().to_json().unwrap();
        for end in 0..text.len() - 2 {
            assert!(Bundle::from_json(&text.as_bytes()[..end]).is_err());
        }
    }

    #[test]
    fn a_long_nonce_is_hashed() {
        assert_eq!(qualifying_data(&[7; 32]), [7; 32]);
        assert_eq!(qualifying_data(&[7; 33]).len(), 32);
        assert_ne!(qualifying_data(&[7; 33]), [7; 32]);
        assert_eq!(qualifying_data(&[]), [0; 0]);
    }
}
