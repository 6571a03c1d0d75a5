//! What a file of the key folder holds, in plain types.

use super::Tss2Key;
use crate::key::{PrivateKeyInfo, PublicKey, SecretKeyType};
use crate::x509::{Certificate, Date};

/// An object of the folder, or a pair of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The file's name without `.pem`: unique in the folder, and it stays the same.
    pub name: String,
    /// What the file holds.
    pub content: EntryContent,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "each entry lies behind an Arc of its own"
)]
pub enum EntryContent {
    /// A key pair in one file, so that both halves appear or neither.
    Pair(KeyPair),
    /// A secret key.
    SecretKey(SecretKeyFile),
    /// A public key without private one.
    Public(PublicKey, ObjectAttributes),
    /// One certificate.
    Certificate(Certificate, ObjectAttributes),
    /// Bytes of an application.
    Data(Data),
}

/// A private key wrapped by the TPM, and the public key that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The key as the file holds it.
    pub material: KeyMaterial,
    /// The public key that belongs to it.
    pub public: PublicKey,
    /// Where the TPM holds the key as well, if it was made persistent.
    pub handle: Option<u32>,
    /// What opens the key on a token with a PIN.
    pub auth: KeyAuth,
    /// Where the key comes from.
    pub origin: KeyOrigin,
    /// The attributes of the private half.
    pub private: ObjectAttributes,
    /// The attributes of the public half; `None` if it was destroyed on its own.
    pub shown_public: Option<ObjectAttributes>,
}

/// What opens a key on a token with a PIN.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum KeyAuth {
    /// The file does not say: the authorisation value is empty, and the key is shown to users only who have
    /// logged in. So it is with a file of another program.
    #[default]
    Unsaid,
    /// Nothing, as whoever made the key wanted it.
    Open,
    /// An authorisation value that derives from this, and from the token's secret.
    Salt(Vec<u8>),
}

impl KeyAuth {
    /// What the authorisation value derives from, beside the token's secret.
    pub fn salt(&self) -> Option<&[u8]> {
        match self {
            Self::Salt(salt) => Some(salt),
            Self::Unsaid | Self::Open => None,
        }
    }
}

/// A private key, in one of the forms in which a file may hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyMaterial {
    /// Wrapped by a key of the TPM: only the TPM ever uses it.
    Wrapped(Tss2Key),
    /// Encrypted under a random key, which the TPM has sealed: used in memory.
    Sealed {
        /// The sealed key.
        seal: Tss2Key,
        /// EncryptedPrivateKeyInfo, DER (RFC 5958, section 3).
        encrypted: Vec<u8>,
    },
    /// In clear: whoever reads the file has the key.
    Clear(PrivateKeyInfo),
}

impl KeyMaterial {
    /// The handle of the TPM's key without which it cannot be used.
    pub fn parent(&self) -> Option<u32> {
        match self {
            Self::Wrapped(key) | Self::Sealed { seal: key, .. } => Some(key.parent),
            Self::Clear(_) => None,
        }
    }

    /// What the TPM itself uses.
    pub fn wrapped(&self) -> Option<&Tss2Key> {
        match self {
            Self::Wrapped(key) => Some(key),
            Self::Sealed { .. } | Self::Clear(_) => None,
        }
    }
}

/// A secret key, encrypted under a random key that the TPM has sealed: used in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretKeyFile {
    /// Its type.
    pub key_type: SecretKeyType,
    /// The sealed key.
    pub seal: Tss2Key,
    /// What is encrypted under the sealed key: nonce, ciphertext and tag of AES-256-GCM.
    pub encrypted: Vec<u8>,
    /// As [`KeyPair::auth`].
    pub auth: KeyAuth,
    /// Where the key comes from.
    pub origin: KeyOrigin,
    /// True if it says that it is sensitive. Nobody reads it in any case.
    pub sensitive: bool,
    /// Its attributes.
    pub description: ObjectAttributes,
}

impl EntryContent {
    /// The handle of the TPM's key without which a private or secret key cannot be used.
    pub fn parent(&self) -> Option<u32> {
        match self {
            Self::Pair(pair) => pair.material.parent(),
            Self::SecretKey(key) => Some(key.seal.parent),
            Self::Public(..) | Self::Certificate(..) | Self::Data(_) => None,
        }
    }

    /// Its attributes; of a pair those of the private half.
    pub fn description(&self) -> &ObjectAttributes {
        match self {
            Self::Pair(pair) => &pair.private,
            Self::SecretKey(key) => &key.description,
            Self::Public(_, description) | Self::Certificate(_, description) => description,
            Self::Data(data) => &data.description,
        }
    }
}

/// Where a key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyOrigin {
    /// The TPM made it, at our request.
    Generated,
    /// It was outside of the TPM, and given to us.
    Imported,
    /// The file does not say; an administrator put it there.
    #[default]
    Unknown,
}

/// Attributes of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectAttributes {
    /// The label; of a file that names none, the file's name without `.pem`.
    pub label: String,
    /// The identifier; `None` for the default, which is [`PublicKey::id`] of the key.
    pub id: Option<Vec<u8>>,
    /// A Name, DER; may be empty.
    pub subject: Vec<u8>,
    /// The first day on which the object is to be used.
    pub start: Option<Date>,
    /// The last one.
    pub end: Option<Date>,
    /// True if it is shown to users only who have logged in.
    pub private: bool,
    /// True if the user proves to be there before each use of the key.
    pub always_authenticate: bool,
    /// True if its attributes can be changed.
    pub modifiable: bool,
    /// True if it can be copied.
    pub copyable: bool,
    /// True if it can be destroyed.
    pub destroyable: bool,
    /// What the key may be used for; `None` for all that its kind can do.
    pub usage: Option<Usage>,
    /// The mechanisms that the key may be used with, as numbers that mean nothing here; empty for
    /// all that its kind can do.
    pub mechanisms: Vec<u64>,
    /// Of a certificate: the hash of the subject's public key, as whoever wrote it says; may be empty.
    pub subject_key_hash: Vec<u8>,
    /// Of a certificate: the hash of the issuer's public key, likewise.
    pub issuer_key_hash: Vec<u8>,
}

impl ObjectAttributes {
    /// The defaults under this label.
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

/// One use that a key can have.
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
    /// All of them, in the order in which a file names them.
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

    /// True if this use is among them.
    pub fn has(self, one: Use) -> bool {
        self.0 & Self::bit(one) != 0
    }

    /// With this use, too.
    #[must_use]
    pub fn with(self, one: Use) -> Self {
        Self(self.0 | Self::bit(one))
    }

    /// Without this use.
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
    /// The application that it belongs to.
    pub application: String,
    /// What kind of data it is: an OBJECT IDENTIFIER, DER; may be empty.
    pub object_id: Vec<u8>,
    /// The data.
    pub value: Vec<u8>,
}

/// What can change of an object.
#[derive(Debug)]
pub enum Editable<'a> {
    /// All of a data object.
    Data(&'a mut Data),
    /// The attributes of any other.
    Attributes(&'a mut ObjectAttributes),
}

impl Editable<'_> {
    /// The attributes of either.
    pub fn description(&mut self) -> &mut ObjectAttributes {
        match self {
            Self::Data(data) => &mut data.description,
            Self::Attributes(description) => description,
        }
    }
}
