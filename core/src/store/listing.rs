//! Types for the result of a scan.

use super::folder::{Data, KeyOrigin, ObjectAttributes, RefusedFile};
use super::{Key, SecretKey, StoreStamp};
use crate::key::PublicKey;
use crate::tpm::Capabilities;
use crate::x509::Certificate;
use std::sync::Arc;

/// All objects of a store from one scan.
#[derive(Debug, Clone)]
pub struct ScanResult {
    /// The label of the token.
    pub label: String,
    /// The serial number of the token: 16 hexadecimal digits.
    pub serial: String,
    /// The objects in the order in which they are listed. An object that did not change since the
    /// last scan has the `Arc` of that scan, unless the known abilities of the TPM changed.
    pub objects: Vec<Arc<StoredObject>>,
    /// The files of a key folder that hold no valid object, sorted by name.
    pub refused: Vec<RefusedFile>,
    /// The error of the first file that cannot be read at present, but may hold an object.
    pub unread: Option<String>,
    /// The state on which the scan depends (files and TPM). See
    /// [`Store::stamp`](super::Store::stamp).
    pub stamp: StoreStamp,
}

/// An object, or a key pair.
#[derive(Debug)]
pub struct StoredObject {
    /// The name of the object, which is unique in its store and never changes.
    pub name: String,
    /// The object and its kind.
    pub kind: ObjectKind,
}

impl StoredObject {
    /// Returns the object for these abilities of the TPM. Returns a new value if the object depends
    /// on the abilities.
    pub(super) fn anew(self: &Arc<Self>, can: Capabilities) -> Arc<Self> {
        let ObjectKind::Pair {
            key,
            origin,
            private,
            public,
        } = &self.kind
        else {
            return Arc::clone(self);
        };
        if !can.pss {
            key.give_up_pss();
        }
        Arc::new(Self {
            name: self.name.clone(),
            kind: ObjectKind::Pair {
                key: Arc::clone(key),
                origin: *origin,
                private: private.clone(),
                public: public.clone(),
            },
        })
    }
}

/// The kinds of objects that a token stores.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "each object is stored in its own Arc"
)]
pub enum ObjectKind {
    /// A private key, and its public key if the token shows the public key.
    Pair {
        /// The private key.
        key: Arc<Key>,
        /// The origin of the key pair: generated or imported.
        origin: KeyOrigin,
        /// The attributes of the private key object.
        private: ObjectAttributes,
        /// The attributes of the public key object. `None` if the public key object was destroyed
        /// alone.
        public: Option<ObjectAttributes>,
    },
    /// A secret key, its origin, and its attributes.
    SecretKey(Arc<SecretKey>, KeyOrigin, ObjectAttributes),
    /// A public key without a private key.
    Public(PublicKey, ObjectAttributes),
    /// A certificate.
    Certificate(Certificate, ObjectAttributes),
    /// A data object of an application.
    Data(Data),
}

impl ObjectKind {
    /// Returns true if the object is a certificate.
    pub fn is_certificate(&self) -> bool {
        matches!(self, Self::Certificate(..))
    }
}

/// A part of a [`StoredObject`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectPart {
    /// The private key of a key pair.
    Private,
    /// The public key of a key pair.
    Public,
    /// An object that is not a key pair.
    Whole,
}
