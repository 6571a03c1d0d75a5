//! JSON documents of attestation. The field `format` of each document names its format.

use crate::file;
use crate::identity::IdentityError;
use base64ct::{Base64, Encoding};
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::ops::Deref;
use std::path::Path;

/// The largest size of a JSON document in bytes.
pub const LARGEST_DOCUMENT: usize = 1 << 20;
/// The largest size of a byte string in a document.
pub const LARGEST_FIELD: usize = 64 << 10;
/// The largest size of a text in a document, in bytes.
pub const LONGEST_TEXT: usize = 1024;

/// Bytes in base64 in a JSON document (RFC 4648, section 4, with padding and without spaces). The
/// length is from one byte to [`LARGEST_FIELD`].
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Bytes(Vec<u8>);

/// The reason why bytes are not a JSON document of the expected format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentError {
    format: &'static str,
    why: String,
}

/// A JSON document with its field `format`.
#[derive(Serialize)]
struct Named<'a, T> {
    format: &'static str,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Deserialize)]
struct Name {
    format: String,
}

/// Parses a JSON document of the given format. Skips unknown fields. Each known field must occur
/// once and have the right type.
pub(super) fn read<T: DeserializeOwned>(
    document: &[u8],
    format: &'static str,
) -> Result<T, DocumentError> {
    let error = |why: String| DocumentError { format, why };
    if document.len() > LARGEST_DOCUMENT {
        return Err(error(format!(
            "{} bytes, but a document has at most {LARGEST_DOCUMENT}",
            document.len()
        )));
    }
    let name: Name = serde_json::from_slice(document).map_err(|why| error(why.to_string()))?;
    if name.format != format {
        return Err(error(format!("its format is {:?}", name.format)));
    }
    serde_json::from_slice(document).map_err(|why| error(why.to_string()))
}

/// Parses a JSON document from a file.
pub(super) fn read_file<T: DeserializeOwned>(
    path: &Path,
    format: &'static str,
) -> Result<T, IdentityError> {
    let bytes = file::read(path, LARGEST_DOCUMENT as u64).map_err(IdentityError::file(path))?;
    let at = |why| IdentityError::failed(format!("{}: {why}", path.display()));
    read(&bytes, format).map_err(at)
}

/// Returns the JSON document, with a line feed at its end.
pub(super) fn write<T: Serialize>(body: &T, format: &'static str) -> Result<String, DocumentError> {
    let error = |why: String| DocumentError { format, why };
    let text = serde_json::to_string_pretty(&Named { format, body });
    let text = text.map_err(|why| error(why.to_string()))? + "\n";
    match text.len() <= LARGEST_DOCUMENT {
        true => Ok(text),
        false => Err(error(format!("longer than {LARGEST_DOCUMENT} bytes"))),
    }
}

/// Parses a JSON string of at most [`LONGEST_TEXT`] bytes.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    match text.as_ref().is_some_and(|text| text.len() > LONGEST_TEXT) {
        true => Err(D::Error::custom(format!(
            "the text is longer than {LONGEST_TEXT} bytes"
        ))),
        false => Ok(text),
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
        let bytes = bytes.map_err(|_| D::Error::custom("not base64 (RFC 4648, section 4)"))?;
        match bytes.len() {
            0 => Err(D::Error::custom(
                "empty, but a byte string has at least one byte",
            )),
            1..=LARGEST_FIELD => Ok(Self(bytes)),
            more => Err(D::Error::custom(format!(
                "{more} bytes, but a byte string has at most {LARGEST_FIELD}"
            ))),
        }
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {} document: {}", self.format, self.why)
    }
}

impl std::error::Error for DocumentError {}
