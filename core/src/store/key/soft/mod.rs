//! Keys that are used in memory: encrypted on the disk under what the TPM has sealed, or in clear.
//!
//! The TPM keeps such a key from being used on another device; it does not keep it from whoever
//! takes over this one while the key is open. Only keys on elliptic curves: there is no
//! implementation of RSA in this generation of crates that is known not to leak through its timing
//! (RUSTSEC-2023-0071).

use crate::key::{Curve, PublicKey, private_key_info, private_key_info_of};
use crate::store::SignError;
use crate::store::folder::{ClearKey, Material, Tss2Key, Tss2Kind};
use crate::tpm::{AuthValue, Parent, Secret, Tpm, TpmError, WrappedKey};
use getrandom::SysRng;
use log::debug;
use parking_lot::Mutex;
use pkcs8::pkcs5::pbes2;
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use region::LockGuard;
use rsa::rand_core::TryRng;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroize;

/// The key that encrypts is random, so that nothing is gained by making its use slow.
const ITERATIONS: u32 = 1000;
/// Bytes of that key.
const KEY: usize = 32;

/// A private key on a curve, used in memory.
pub(in crate::store) struct SoftKey {
    public: PublicKey,
    curve: Curve,
    source: Source,
    /// Opened at its first use, and closed at a logout.
    opened: Mutex<Option<Arc<Locked>>>,
}

/// Where the private key is.
enum Source {
    Sealed {
        seal: WrappedKey,
        encrypted: Vec<u8>,
    },
    Clear(ClearKey),
}

impl SoftKey {
    /// From what a file holds. `None` for what is no such key.
    pub(super) fn of(public: &PublicKey, material: &Material) -> Option<Self> {
        let source = match material {
            Material::Wrapped(_) => return None,
            Material::Sealed { seal, encrypted } => Source::Sealed {
                seal: WrappedKey::new(
                    Parent::Persistent(seal.parent),
                    seal.public.clone(),
                    seal.private.clone(),
                ),
                encrypted: encrypted.clone(),
            },
            Material::Clear(key) => Source::Clear(key.clone()),
        };
        let PublicKey::Ec { curve, .. } = public else {
            return None;
        };
        Some(Self {
            public: public.clone(),
            curve: *curve,
            source,
            opened: Mutex::default(),
        })
    }

    /// Seals a scalar: `seal` has the TPM seal a key, and gives what it made of it.
    pub(in crate::store) fn sealed<E: From<TpmError>>(
        curve: Curve,
        scalar: &Secret,
        seal: impl FnOnce(&Secret) -> Result<WrappedKey, E>,
    ) -> Result<Material, E> {
        let unfit = |what: &str| TpmError::Unsupported(what.to_owned());
        let mut key = Secret::new(vec![0; KEY]);
        SysRng
            .try_fill_bytes(&mut key)
            .map_err(|error| unfit(&error.to_string()))?;
        let info =
            private_key_info_of(curve, scalar).ok_or_else(|| unfit("no scalar of its curve"))?;
        let encrypted = encrypted(&info, &key).ok_or_else(|| unfit("PBES2"))?;
        let sealed = seal(&key)?;
        let Parent::Persistent(parent) = *sealed.parent() else {
            return Err(unfit("sealed under no persistent key").into());
        };
        Ok(Material::Sealed {
            seal: Tss2Key {
                kind: Tss2Kind::Sealed,
                ..Tss2Key::loadable(parent, sealed.area().to_vec(), sealed.private().to_vec())
            },
            encrypted,
        })
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Whether the TPM has sealed it.
    pub(super) fn is_sealed(&self) -> bool {
        matches!(self.source, Source::Sealed { .. })
    }

    /// What a file is to hold; `has_value`: the seal has an authorisation value.
    pub(super) fn material(&self, has_value: bool) -> Material {
        match &self.source {
            Source::Clear(key) => Material::Clear(key.clone()),
            Source::Sealed { seal, encrypted } => Material::Sealed {
                seal: Tss2Key {
                    kind: Tss2Kind::Sealed,
                    empty_auth: Some(!has_value),
                    ..Tss2Key::loadable(
                        match seal.parent() {
                            Parent::Persistent(parent) => *parent,
                            Parent::Owner { .. } => 0x4000_0001,
                        },
                        seal.area().to_vec(),
                        seal.private().to_vec(),
                    )
                },
                encrypted: encrypted.clone(),
            },
        }
    }

    /// r ‖ s over a digest (FIPS 186-5, section 6.4, with the nonce of RFC 6979).
    pub(super) fn sign(
        &self,
        tpm: &Tpm,
        value: &AuthValue,
        digest: &[u8],
    ) -> Result<Vec<u8>, SignError> {
        let opened = self.open(tpm, value)?;
        let unfit = || SignError::DigestLength(digest.len());
        let counted = &digest[..digest.len().min(self.curve.width())];
        let digest = crate::key::pad_left(counted, self.curve.width()).ok_or_else(unfit)?;
        macro_rules! through {
            ($curve:ident) => {{
                use $curve::ecdsa::signature::hazmat::PrehashSigner;
                use $curve::ecdsa::{Signature, SigningKey};
                let key = SigningKey::from_slice(opened.bytes()).map_err(|_| self.damaged())?;
                let signature: Signature = key.sign_prehash(&digest).map_err(|_| unfit())?;
                signature.to_bytes().to_vec()
            }};
        }
        Ok(match self.curve {
            Curve::P256 => through!(p256),
            Curve::P384 => through!(p384),
            Curve::P521 => through!(p521),
        })
    }

    /// The x coordinate of the point that both sides have (SEC 1, section 3.3.1).
    pub(super) fn agree(
        &self,
        tpm: &Tpm,
        value: &AuthValue,
        point: &[u8],
    ) -> Result<Secret, SignError> {
        let opened = self.open(tpm, value)?;
        macro_rules! through {
            ($curve:ident) => {{
                let own =
                    $curve::SecretKey::from_slice(opened.bytes()).map_err(|_| self.damaged())?;
                let theirs =
                    $curve::PublicKey::from_sec1_bytes(point).map_err(|_| SignError::Ciphertext)?;
                Secret::new(own.diffie_hellman(&theirs).raw_secret_bytes().to_vec())
            }};
        }
        Ok(match self.curve {
            Curve::P256 => through!(p256),
            Curve::P384 => through!(p384),
            Curve::P521 => through!(p521),
        })
    }

    /// Forgets the opened key.
    pub(super) fn close(&self) {
        if let Some(mut opened) = self.opened.try_lock() {
            *opened = None;
        }
    }

    fn open(&self, tpm: &Tpm, value: &AuthValue) -> Result<Arc<Locked>, SignError> {
        let known = self.opened.try_lock().and_then(|opened| opened.clone());
        if let Some(opened) = known {
            return Ok(opened);
        }
        let info = match &self.source {
            Source::Clear(ClearKey(info)) => info.clone(),
            Source::Sealed { seal, encrypted } => {
                let key = tpm.unseal(seal, value)?;
                decrypted(encrypted, &key).ok_or_else(|| self.damaged())?
            }
        };
        let (curve, scalar) = private_key_info(&info).map_err(|_| self.damaged())?;
        // Whoever exchanged one part of the file for another's is not to have his key used.
        if curve != self.curve || curve.public_of(&scalar).as_ref() != Some(&self.public) {
            return Err(self.damaged());
        }
        let opened = Arc::new(Locked::new(&scalar));
        if let Some(mut place) = self.opened.try_lock() {
            *place = Some(Arc::clone(&opened));
        }
        Ok(opened)
    }

    fn damaged(&self) -> SignError {
        SignError::Refused("its file holds another private key than it says")
    }
}

impl fmt::Debug for SoftKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SoftKey({})", self.public)
    }
}

fn encrypted(info: &Secret, key: &Secret) -> Option<Vec<u8>> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    SysRng.try_fill_bytes(&mut salt).ok()?;
    SysRng.try_fill_bytes(&mut iv).ok()?;
    let parameters =
        pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(ITERATIONS, &salt, iv).ok()?;
    let info = PrivateKeyInfoRef::try_from(&info[..]).ok()?;
    let encrypted = info.encrypt_with_params(parameters, password(key)).ok()?;
    Some(encrypted.as_bytes().to_vec())
}

fn decrypted(encrypted: &[u8], key: &Secret) -> Option<Secret> {
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(encrypted).ok()?;
    let info = encrypted.decrypt(password(key)).ok()?;
    Some(Secret::new(info.as_bytes().to_vec()))
}

/// The key in hexadecimal digits: any program that reads PBES2 can be given it.
fn password(key: &Secret) -> Secret {
    let digits = key.iter().flat_map(|byte| {
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0') as u8;
        [digit(byte >> 4), digit(byte & 15)]
    });
    Secret::new(digits.collect())
}

/// Bytes that are not swapped out, and wiped when they go. A page of their own: pages are locked and
/// unlocked as a whole.
struct Locked {
    pages: Vec<u8>,
    start: usize,
    length: usize,
    _guard: Option<LockGuard>,
}

impl Locked {
    fn new(secret: &[u8]) -> Self {
        let page = region::page::size();
        let pages = vec![0; 2 * page];
        let start = (page - pages.as_ptr().addr() % page) % page;
        let guard = region::lock(pages[start..].as_ptr(), page);
        let guard = guard
            .inspect_err(|error| debug!("an opened key may be swapped out: {error}"))
            .ok();
        let mut locked = Self {
            pages,
            start,
            length: secret.len(),
            _guard: guard,
        };
        locked.pages[start..start + secret.len()].copy_from_slice(secret);
        locked
    }

    fn bytes(&self) -> &[u8] {
        &self.pages[self.start..self.start + self.length]
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.pages.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encrypted_opens_with_its_key_and_no_other() {
        for curve in Curve::ALL {
            let mut scalar = vec![3; curve.width()];
            scalar[0] = 0;
            let info = private_key_info_of(curve, &scalar).unwrap();
            let (right, wrong) = (Secret::new(vec![1; KEY]), Secret::new(vec![2; KEY]));
            let hidden = encrypted(&info, &right).unwrap();
            assert_eq!(decrypted(&hidden, &right).as_ref(), Some(&info));
            assert_ne!(decrypted(&hidden, &wrong).as_ref(), Some(&info));
            let (same, again) = private_key_info(&info).unwrap();
            assert_eq!((same, &again[..]), (curve, &scalar[..]));
        }
    }

    #[test]
    fn locked_bytes_lie_in_a_page_of_their_own() {
        let (one, two) = (Locked::new(&[1; 66]), Locked::new(&[2; 32]));
        let page = |locked: &Locked| locked.bytes().as_ptr().addr() / region::page::size();
        assert_ne!(page(&one), page(&two));
        assert_eq!((one.bytes(), two.bytes()), (&[1; 66][..], &[2; 32][..]));
    }
}
