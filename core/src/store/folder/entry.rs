//! Types for the content of a file in the key folder.

use super::Tss2Key;
use crate::key::{PrivateKeyInfo, PublicKey, SecretKeyType};
use crate::x509::{Certificate, Date};

/// An object of the key folder, or a key pair, with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The file name without `.pem`. It is unique in the key folder and never changes.
    pub name: String,
    /// The content of the object's file.
    pub content: EntryContent,
}

/// The content of an object's file in the key folder.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "each entry is stored in its own Arc"
)]
pub enum EntryContent {
    /// A key pair. One file holds both keys, so that they appear together.
    Pair(KeyPair),
    /// A secret key.
    SecretKey(SecretKeyFile),
    /// A public key without a private key.
    Public(PublicKey, ObjectAttributes),
    /// A certificate.
    Certificate(Certificate, ObjectAttributes),
    /// A data object of an application.
    Data(Data),
}

/// A private key in one of the forms of a file, and its public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The private key, in the form that the file stores.
    pub material: KeyMaterial,
    /// The public key of the pair.
    pub public: PublicKey,
    /// The persistent handle that holds the key, if any.
    pub handle: Option<u32>,
    /// The authorisation that a use of the key needs, on a token with a PIN.
    pub auth: KeyAuth,
    /// The origin of the key pair: generated in the TPM or imported.
    pub origin: KeyOrigin,
    /// The attributes of the private key object.
    pub private: ObjectAttributes,
    /// The attributes of the public key object. `None` if the public key object was destroyed
    /// alone.
    pub shown_public: Option<ObjectAttributes>,
}

/// The authorisation that a use of a key needs, on a token with a PIN.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum KeyAuth {
    /// The file has no line `Auth`, as in the files of other programs. The authorisation value is
    /// empty, and only logged-in users see the key.
    #[default]
    Unsaid,
    /// A use of the key needs no PIN, because the creator of the key requested that.
    Open,
    /// The authorisation value is derived from this salt and the secret of the token.
    Salt(Vec<u8>),
}

impl KeyAuth {
    /// Returns the salt from which the authorisation value is derived, if any.
    pub fn salt(&self) -> Option<&[u8]> {
        match self {
            Self::Salt(salt) => Some(salt),
            Self::Unsaid | Self::Open => None,
        }
    }
}

/// A private key, in one of the forms that a file stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyMaterial {
    /// The key is wrapped by a storage key of the TPM. Only the TPM uses it.
    Wrapped(Tss2Key),
    /// The key is encrypted under a random key, which the TPM has sealed. The module uses the key
    /// in memory.
    Sealed {
        /// The random AES key, sealed by the TPM, under which `encrypted` is encrypted.
        seal: Tss2Key,
        /// The encrypted private key: EncryptedPrivateKeyInfo in DER (RFC 5958, section 3).
        encrypted: Vec<u8>,
    },
    /// The key is not encrypted: every user who can read the file has the key.
    Clear(PrivateKeyInfo),
}

impl KeyMaterial {
    /// Returns the handle of the TPM key that loads or unseals the key. Returns `None` for a key
    /// that is not encrypted.
    pub fn parent(&self) -> Option<u32> {
        match self {
            Self::Wrapped(key) | Self::Sealed { seal: key, .. } => Some(key.parent),
            Self::Clear(_) => None,
        }
    }

    /// Returns the wrapped key, if the TPM itself uses the key.
    pub fn wrapped(&self) -> Option<&Tss2Key> {
        match self {
            Self::Wrapped(key) => Some(key),
            Self::Sealed { .. } | Self::Clear(_) => None,
        }
    }
}

/// A secret key that is encrypted under a random key, which the TPM has sealed. The module uses the
/// secret key in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretKeyFile {
    /// The type of the secret key.
    pub key_type: SecretKeyType,
    /// The random AES key, sealed by the TPM, under which `encrypted` is encrypted.
    pub seal: Tss2Key,
    /// The encrypted secret key: nonce, ciphertext and tag of AES-256-GCM.
    pub encrypted: Vec<u8>,
    /// See [`KeyPair::auth`].
    pub auth: KeyAuth,
    /// The origin of the secret key: generated or imported.
    pub origin: KeyOrigin,
    /// The value of CKA_SENSITIVE. The value of the key can never be read, even if this is false.
    pub sensitive: bool,
    /// The attributes of the secret key object.
    pub description: ObjectAttributes,
}

impl EntryContent {
    /// Returns the handle of the TPM key that loads or unseals a private or secret key.
    pub fn parent(&self) -> Option<u32> {
        match self {
            Self::Pair(pair) => pair.material.parent(),
            Self::SecretKey(key) => Some(key.seal.parent),
            Self::Public(..) | Self::Certificate(..) | Self::Data(_) => None,
        }
    }

    /// Returns the attributes of the object. For a key pair, returns the attributes of the private
    /// key.
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
    /// The TPM created the key at the request of this project.
    Generated,
    /// The key was imported.
    Imported,
    /// The file has no line `Origin`. An administrator or another program stored the file.
    #[default]
    Unknown,
}

/// The attributes that a file stores for one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectAttributes {
    /// The label of the object (CKA_LABEL). The default is the file name without `.pem`.
    pub label: String,
    /// The identifier (CKA_ID). `None` stands for the default, the [`PublicKey::id`] of the key.
    pub id: Option<Vec<u8>>,
    /// The subject (CKA_SUBJECT): a Name in DER; may be empty.
    pub subject: Vec<u8>,
    /// The first day of use (CKA_START_DATE).
    pub start: Option<Date>,
    /// The last day of use (CKA_END_DATE).
    pub end: Option<Date>,
    /// True if only logged-in users see the object (CKA_PRIVATE).
    pub private: bool,
    /// True if the user must authenticate before each use of the key (CKA_ALWAYS_AUTHENTICATE).
    pub always_authenticate: bool,
    /// True if the attributes of the object can be changed (CKA_MODIFIABLE).
    pub modifiable: bool,
    /// True if the object can be copied (CKA_COPYABLE).
    pub copyable: bool,
    /// True if the object can be destroyed (CKA_DESTROYABLE).
    pub destroyable: bool,
    /// The permitted uses of the key. `None` permits all uses of its key type.
    pub usage: Option<Usage>,
    /// The permitted mechanisms of the key (CKA_ALLOWED_MECHANISMS), as numbers. Empty permits all
    /// mechanisms of its key type.
    pub mechanisms: Vec<u64>,
    /// For a certificate: the hash of the subject's public key, as the caller of C_CreateObject
    /// gave it. May be empty.
    pub subject_key_hash: Vec<u8>,
    /// For a certificate: the hash of the issuer's public key, as the caller of C_CreateObject gave
    /// it. May be empty.
    pub issuer_key_hash: Vec<u8>,
}

impl ObjectAttributes {
    /// Returns the default attributes with this label.
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

/// A use of a key, for example signing (CKA_SIGN).
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
    /// All uses, in the order in which a file lists them.
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

/// A set of permitted uses of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage(u16);

impl Usage {
    /// The empty set: no use of the key is permitted.
    pub const NONE: Self = Self(0);

    /// Returns true if the set contains this use of a key.
    pub fn has(self, one: Use) -> bool {
        self.0 & Self::bit(one) != 0
    }

    /// Returns the set with this use of a key added.
    #[must_use]
    pub fn with(self, one: Use) -> Self {
        Self(self.0 | Self::bit(one))
    }

    /// Returns the set without this use of a key.
    #[must_use]
    pub fn without(self, one: Use) -> Self {
        Self(self.0 & !Self::bit(one))
    }

    /// Iterates over the uses of the set, in the order of [`Use::ALL`].
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
    /// The attributes of the data object.
    pub description: ObjectAttributes,
    /// The application that owns the data.
    pub application: String,
    /// The type of the data (CKA_OBJECT_ID): an OBJECT IDENTIFIER in DER; may be empty.
    pub object_id: Vec<u8>,
    /// The data themselves (CKA_VALUE).
    pub value: Vec<u8>,
}

/// The part of an object that C_SetAttributeValue may change.
#[derive(Debug)]
pub enum Editable<'a> {
    /// All values of a data object.
    Data(&'a mut Data),
    /// The attributes of an object that is not a data object.
    Attributes(&'a mut ObjectAttributes),
}

impl Editable<'_> {
    /// Returns the attributes of the object.
    pub fn description(&mut self) -> &mut ObjectAttributes {
        match self {
            Self::Data(data) => &mut data.description,
            Self::Attributes(description) => description,
        }
    }
}
