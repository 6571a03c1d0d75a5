//! The content of a file in the key folder, in plain types.

use super::Tss2Key;
use crate::key::{PrivateKeyInfo, PublicKey, SecretKeyType};
use crate::x509::{Certificate, Date};

/// An object of the folder, or a pair of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The file name without `.pem`: unique in the folder and constant.
    pub name: String,
    /// The content of the file.
    pub content: EntryContent,
}

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "each entry lies behind an Arc of its own"
)]
pub enum EntryContent {
    /// A key pair in one file, so that both halves appear together.
    Pair(KeyPair),
    /// A secret key.
    SecretKey(SecretKeyFile),
    /// A public key without a private key.
    Public(PublicKey, ObjectAttributes),
    /// One certificate.
    Certificate(Certificate, ObjectAttributes),
    /// Data of an application.
    Data(Data),
}

/// A private key wrapped by the TPM, and its public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The private key in the form of the file.
    pub material: KeyMaterial,
    /// Its public key.
    pub public: PublicKey,
    /// The persistent handle, if the key is in one.
    pub handle: Option<u32>,
    /// The authorisation of the key on a token with a PIN.
    pub auth: KeyAuth,
    /// The origin of the key.
    pub origin: KeyOrigin,
    /// The attributes of the private half.
    pub private: ObjectAttributes,
    /// The attributes of the public half; `None` if it was destroyed separately.
    pub shown_public: Option<ObjectAttributes>,
}

/// The authorisation of a key on a token with a PIN.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum KeyAuth {
    /// The file does not say. The authorisation value is empty, and only logged-in users see the
    /// key. This is the case for files of other programs.
    #[default]
    Unsaid,
    /// None, as the maker of the key requested.
    Open,
    /// A value derived from this salt and the secret of the token.
    Salt(Vec<u8>),
}

impl KeyAuth {
    /// The salt from which the authorisation value is derived.
    pub fn salt(&self) -> Option<&[u8]> {
        match self {
            Self::Salt(salt) => Some(salt),
            Self::Unsaid | Self::Open => None,
        }
    }
}

/// A private key in one of the forms of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyMaterial {
    /// Wrapped by a key of the TPM: only the TPM uses it.
    Wrapped(Tss2Key),
    /// Encrypted under a random key that the TPM has sealed; used in memory.
    Sealed {
        /// The sealed key.
        seal: Tss2Key,
        /// EncryptedPrivateKeyInfo, DER (RFC 5958, section 3).
        encrypted: Vec<u8>,
    },
    /// In clear: every reader of the file has the key.
    Clear(PrivateKeyInfo),
}

impl KeyMaterial {
    /// The handle of the TPM key that is needed to use it.
    pub fn parent(&self) -> Option<u32> {
        match self {
            Self::Wrapped(key) | Self::Sealed { seal: key, .. } => Some(key.parent),
            Self::Clear(_) => None,
        }
    }

    /// The wrapped key, if the TPM itself uses it.
    pub fn wrapped(&self) -> Option<&Tss2Key> {
        match self {
            Self::Wrapped(key) => Some(key),
            Self::Sealed { .. } | Self::Clear(_) => None,
        }
    }
}

/// A secret key, encrypted under a random key that the TPM has sealed; used in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretKeyFile {
    /// Its type.
    pub key_type: SecretKeyType,
    /// The sealed key.
    pub seal: Tss2Key,
    /// Encrypted under the sealed key: nonce, ciphertext and tag of AES-256-GCM.
    pub encrypted: Vec<u8>,
    /// See [`KeyPair::auth`].
    pub auth: KeyAuth,
    /// The origin of the key.
    pub origin: KeyOrigin,
    /// The value of CKA_SENSITIVE. The key cannot be read in any case.
    pub sensitive: bool,
    /// Its attributes.
    pub description: ObjectAttributes,
}

impl EntryContent {
    /// The handle of the TPM key that is needed to use a private or secret key.
    pub fn parent(&self) -> Option<u32> {
        match self {
            Self::Pair(pair) => pair.material.parent(),
            Self::SecretKey(key) => Some(key.seal.parent),
            Self::Public(..) | Self::Certificate(..) | Self::Data(_) => None,
        }
    }

    /// Its attributes; for a pair those of the private half.
    pub fn description(&self) -> &ObjectAttributes {
        match self {
            Self::Pair(pair) => &pair.private,
            Self::SecretKey(key) => &key.description,
            Self::Public(_, description) | Self::Certificate(_, description) => description,
            Self::Data(data) => &data.description,
        }
    }
}

/// The origin of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyOrigin {
    /// The TPM made it at our request.
    Generated,
    /// The key was imported.
    Imported,
    /// The file does not say; an administrator stored it.
    #[default]
    Unknown,
}

/// Attributes of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectAttributes {
    /// The label; by default the file name without `.pem`.
    pub label: String,
    /// The identifier; `None` for the default, [`PublicKey::id`] of the key.
    pub id: Option<Vec<u8>>,
    /// A Name, DER; may be empty.
    pub subject: Vec<u8>,
    /// The first day of use.
    pub start: Option<Date>,
    /// The last day of use.
    pub end: Option<Date>,
    /// True if only logged-in users see the object.
    pub private: bool,
    /// True if the user must authenticate before each use of the key.
    pub always_authenticate: bool,
    /// True if its attributes can be changed.
    pub modifiable: bool,
    /// True if it can be copied.
    pub copyable: bool,
    /// True if it can be destroyed.
    pub destroyable: bool,
    /// The permitted uses of the key; `None` for all uses of its kind.
    pub usage: Option<Usage>,
    /// The permitted mechanisms of the key, as opaque numbers; empty for all mechanisms of its
    /// kind.
    pub mechanisms: Vec<u64>,
    /// For a certificate: the hash of the subject's public key as its writer stated it; may be
    /// empty.
    pub subject_key_hash: Vec<u8>,
    /// For a certificate: the hash of the issuer's public key as its writer stated it; may be
    /// empty.
    pub issuer_key_hash: Vec<u8>,
}

impl ObjectAttributes {
    /// Default attributes with this label.
    pub fn labelled(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            id: None,
            subject: Vec::new(),
            start: None,
            end: None,
            private: false,
            always_authenticate: false,
            modifiable: true,
            copyable: true,
            destroyable: true,
            usage: None,
            mechanisms: Vec::new(),
            subject_key_hash: Vec::new(),
            issuer_key_hash: Vec::new(),
        }
    }
}

/// A use of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Use {
    Sign,
    SignRecover,
    Decrypt,
    Unwrap,
    Derive,
    Verify,
    VerifyRecover,
    Encrypt,
    Wrap,
}

impl Use {
    /// All uses, in the order of a file.
    pub const ALL: [Self; 9] = [
        Self::Sign,
        Self::SignRecover,
        Self::Decrypt,
        Self::Unwrap,
        Self::Derive,
        Self::Verify,
        Self::VerifyRecover,
        Self::Encrypt,
        Self::Wrap,
    ];
}

/// A set of uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage(u16);

impl Usage {
    /// No use at all.
    pub const NONE: Self = Self(0);

    /// True if the set contains this use.
    pub fn has(self, one: Use) -> bool {
        self.0 & Self::bit(one) != 0
    }

    /// The set with this use added.
    #[must_use]
    pub fn with(self, one: Use) -> Self {
        Self(self.0 | Self::bit(one))
    }

    /// The set without this use.
    #[must_use]
    pub fn without(self, one: Use) -> Self {
        Self(self.0 & !Self::bit(one))
    }

    /// In the order of [`Use::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Use> {
        Use::ALL.into_iter().filter(move |&one| self.has(one))
    }

    fn bit(one: Use) -> u16 {
        1 << one as u16
    }
}

impl FromIterator<Use> for Usage {
    fn from_iter<I: IntoIterator<Item = Use>>(uses: I) -> Self {
        uses.into_iter().fold(Self::NONE, Self::with)
    }
}

/// A data object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// Its attributes.
    pub description: ObjectAttributes,
    /// The application that owns the data.
    pub application: String,
    /// The type of the data: an OBJECT IDENTIFIER, DER; may be empty.
    pub object_id: Vec<u8>,
    /// The data.
    pub value: Vec<u8>,
}

/// The changeable part of an object.
#[derive(Debug)]
pub enum Editable<'a> {
    /// All of a data object.
    Data(&'a mut Data),
    /// The attributes of any other object.
    Attributes(&'a mut ObjectAttributes),
}

impl Editable<'_> {
    /// The attributes in both cases.
    pub fn description(&mut self) -> &mut ObjectAttributes {
        match self {
            Self::Data(data) => &mut data.description,
            Self::Attributes(description) => description,
        }
    }
}
