//! The keys of the device's own: in a folder, wrapped by a master key of the TPM, some in
//! persistent handles as well; and the certificates and data beside them.

use super::folder::{Content, Description, Folder, FolderError, Origin};
use super::{Half, Key, KeyStore, Listing, LookError, Stamp};
use crate::config::{Config, Master};
use crate::key::Curve;
use crate::tpm::{Secret, Tpm, TpmError};
use std::fmt;
use std::sync::Arc;

/// The key folder of one token, and the master key that its keys are wrapped by.
#[derive(Debug)]
pub struct DevidStore {
    tpm: Arc<Tpm>,
    folder: Folder,
    master: Master,
}

/// What kind of key is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// On this curve.
    Ec(Curve),
    /// RSA with a modulus of so many bits, the exponent 65537.
    Rsa(u32),
}

/// A private key that comes from outside; wiped when it goes.
pub enum PrivateKey {
    /// The scalar, big-endian, as wide as the curve's order.
    Ec(Curve, Secret),
    /// One prime factor of the modulus, big-endian; the exponent is 65537.
    Rsa {
        /// The modulus, big-endian.
        modulus: Vec<u8>,
        /// One of its two factors.
        prime: Secret,
    },
}

/// Why the store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// The TPM, or the way to it.
    Tpm(TpmError),
    /// The folder, or one of its files.
    Folder(FolderError),
    /// The TPM does not hold the master key by which this folder's keys are wrapped: it was
    /// cleared, or is another one.
    OtherTpm(String),
    /// The TPM or this store cannot make or take such a key.
    Unsupported(String),
    /// The private key does not fit together, or not with what is said of it.
    BadKey(String),
    /// The object was destroyed meanwhile.
    Gone,
}

/// What a key is to do in the TPM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUsage {
    /// It signs.
    pub signs: bool,
    /// RSA: it decrypts. EC: it agrees on secrets.
    pub decrypts: bool,
}

impl DevidStore {
    /// Nothing is read and nothing is sent yet.
    pub fn new(config: &Config, tpm: Arc<Tpm>) -> Self {
        Self {
            tpm,
            folder: Folder::new(config.state.join("devid")),
            master: config.master.clone(),
        }
    }

    /// A new key of the TPM's own making, not kept yet: it is gone when the last `Arc` of it is.
    /// `signs` and `decrypts` are what the TPM will let it do; decrypting is key agreement for EC.
    ///
    /// Makes the master key if there is none and the folder has no keys. One command if there is.
    pub fn generate(&self, algorithm: Algorithm, usage: KeyUsage) -> Result<Arc<Key>, StoreError> {
        Err(StoreError::Unsupported("to come".into()))
    }

    /// A key from outside, wrapped so that it is never in clear on the bus; not kept yet.
    pub fn import(&self, private: &PrivateKey, usage: KeyUsage) -> Result<Arc<Key>, StoreError> {
        Err(StoreError::Unsupported("to come".into()))
    }

    /// Keeps a key that [`DevidStore::generate`] or [`DevidStore::import`] gave; in a persistent
    /// handle too, if that is asked for. The name of the new object.
    pub fn keep(
        &self,
        key: &Key,
        origin: Origin,
        private: Description,
        public: Option<Description>,
        persistent: bool,
    ) -> Result<String, StoreError> {
        Err(StoreError::Unsupported("to come".into()))
    }

    /// Adds an object that is no pair. Its name.
    pub fn add(&self, content: Content) -> Result<String, StoreError> {
        Err(StoreError::Unsupported("to come".into()))
    }

    /// Changes the attributes of an object, as it is on the disk at that moment.
    pub fn describe<E>(
        &self,
        name: &str,
        half: Half,
        change: impl FnOnce(&mut Description) -> Result<(), E>,
    ) -> Result<Result<(), E>, StoreError> {
        Err(StoreError::Unsupported("to come".into()))
    }

    /// Destroys an object: evicts it too if it is in a persistent handle. Of a pair the other half
    /// stays.
    pub fn destroy(&self, name: &str, half: Half) -> Result<(), StoreError> {
        Err(StoreError::Unsupported("to come".into()))
    }
}

impl KeyStore for DevidStore {
    fn stamp(&self) -> Stamp {
        Stamp::Devid
    }

    fn look(&self) -> Result<Listing, LookError> {
        Ok(Listing {
            label: "devid".into(),
            serial: "0000000000000000".into(),
            objects: Vec::new(),
        })
    }

    fn for_child(&self, tpm: &Arc<Tpm>) -> Box<dyn KeyStore> {
        Box::new(Self {
            tpm: Arc::clone(tpm),
            folder: self.folder.clone(),
            master: self.master.clone(),
        })
    }

    fn own(&self) -> Option<&DevidStore> {
        Some(self)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
