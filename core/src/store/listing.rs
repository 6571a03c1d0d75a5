//! The result of a scan, in plain types.

use super::folder::{Data, KeyOrigin, ObjectAttributes, RefusedFile};
use super::{Key, SecretKey, StoreStamp};
use crate::key::PublicKey;
use crate::tpm::Capabilities;
use crate::x509::Certificate;
use std::sync::Arc;

/// All objects of a store from one scan.
#[derive(Debug, Clone)]
pub struct ScanResult {
    /// The token's label.
    pub label: String,
    /// 16 hexadecimal digits that name the token.
    pub serial: String,
    /// The objects in display order. An object that did not change since the last scan is the same
    /// `Arc`, unless the known abilities of the TPM changed.
    pub objects: Vec<Arc<StoredObject>>,
    /// Files of a key folder that give no object, by name.
    pub refused: Vec<RefusedFile>,
    /// The error of the first file that could not be read now and may hold an object.
    pub unread: Option<String>,
    /// The state on which the scan depended; see [`Store::stamp`](super::Store::stamp).
    pub stamp: StoreStamp,
}

/// An object, or a key pair.
#[derive(Debug)]
pub struct StoredObject {
    /// Unique in its store, and constant.
    pub name: String,
    /// The object itself.
    pub kind: ObjectKind,
}

impl StoredObject {
    /// The same object for these abilities of the TPM. A new value if the object depends on them.
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

/// The kinds of objects.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "each lies behind an Arc of its own"
)]
pub enum ObjectKind {
    /// A private key, and the public key beside it if that is shown.
    Pair {
        /// The private key.
        key: Arc<Key>,
        /// The origin.
        origin: KeyOrigin,
        /// The attributes of the private half.
        private: ObjectAttributes,
        /// The attributes of the public half; `None` if it was destroyed separately.
        public: Option<ObjectAttributes>,
    },
    /// A secret key, its origin, and its attributes.
    SecretKey(Arc<SecretKey>, KeyOrigin, ObjectAttributes),
    /// A public key without a pair.
    Public(PublicKey, ObjectAttributes),
    /// A certificate.
    Certificate(Certificate, ObjectAttributes),
    /// Data of an application.
    Data(Data),
}

impl ObjectKind {
    /// True if it is a certificate.
    pub fn is_certificate(&self) -> bool {
        matches!(self, Self::Certificate(..))
    }
}

/// A part of a [`StoredObject`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectPart {
    /// The private key of a pair.
    Private,
    /// The public key of a pair.
    Public,
    /// An object that is not a pair.
    Whole,
}
