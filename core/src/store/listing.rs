//! What a store shows, in plain types.

use super::folder::{Data, KeyOrigin, ObjectAttributes, RefusedFile};
use super::{Key, SecretKey, StoreStamp};
use crate::key::PublicKey;
use crate::tpm::Capabilities;
use crate::x509::Certificate;
use std::sync::Arc;

/// All objects of a store as one look found them.
#[derive(Debug, Clone)]
pub struct ScanResult {
    /// The token's label.
    pub label: String,
    /// 16 hexadecimal digits that name the token.
    pub serial: String,
    /// In the order in which they are to be shown. One that did not change since the last look is
    /// the same `Arc` again, as long as nothing else is known of what the TPM can do.
    pub objects: Vec<Arc<StoredObject>>,
    /// Files of a key folder that give no object, by name.
    pub refused: Vec<RefusedFile>,
    /// The first file that could not be read now and may hold an object, and why.
    pub unread: Option<String>,
    /// What was looked at; see [`Store::stamp`](super::Store::stamp).
    pub stamp: StoreStamp,
}

/// An object, or a key pair.
#[derive(Debug)]
pub struct StoredObject {
    /// Unique in its store, and the same whenever the object is found.
    pub name: String,
    /// What it is.
    pub kind: ObjectKind,
}

impl StoredObject {
    /// The same object, to be shown anew if what it says depends on what its TPM can do: that is known
    /// to be this now.
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
        /// What signs.
        key: Arc<Key>,
        /// Where it comes from.
        origin: KeyOrigin,
        /// The attributes of the private half.
        private: ObjectAttributes,
        /// The attributes of the public half; `None` if it was destroyed on its own.
        public: Option<ObjectAttributes>,
    },
    /// A secret key, where it comes from, and its attributes.
    SecretKey(Arc<SecretKey>, KeyOrigin, ObjectAttributes),
    /// A public key alone.
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

/// Which of the objects in a [`StoredObject`] is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectPart {
    /// The private key of a pair.
    Private,
    /// The public key of a pair.
    Public,
    /// What is no pair.
    Whole,
}
