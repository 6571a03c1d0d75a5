//! A token (PKCS#11 3.0, section 2.4): the result of one scan. A token is immutable and shared, so
//! threads that read attributes do not wait.

use crate::error::Error;
use crate::handle::{Mint, ObjectHandle};
use crate::mechanism::key_type::KeyType;
use crate::mechanism::table::{Algorithm, MECHANISMS, Mechanism, SignAlgorithm, Sizes};
use crate::object::{Object, ObjectScope, profile};
use cryptoki_sys::*;
use devid_core::store::{Key, ObjectPart, ScanResult, StoredObject, TokenTraits};
use devid_core::tpm::SignatureScheme;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A token with the objects that one scan found.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) label: String,
    pub(crate) serial: String,
    traits: TokenTraits,
    objects: Vec<TokenObject>,
    /// The position of each handle in `objects`, sorted by the handle.
    positions: Vec<(ObjectHandle, usize)>,
}

/// A token object, and the part of the stored object that it shows.
#[derive(Debug, Clone)]
pub(crate) struct TokenObject {
    pub(crate) handle: ObjectHandle,
    pub(crate) object: Arc<Object>,
    /// The stored object and the part. `None`: the object describes the token itself (a profile
    /// object).
    pub(crate) shown: Option<(Arc<StoredObject>, ObjectPart)>,
}

impl Token {
    /// Makes the token of a scan. An object that existed before keeps its handle. An unchanged
    /// object is not made again.
    pub(crate) fn new(
        listing: ScanResult,
        traits: TokenTraits,
        before: Option<&Self>,
        mint: &Mint,
    ) -> Self {
        let known = KnownObjects::new(before);
        let scope = ObjectScope::Token {
            asks_login: traits.asks_login,
            takes_keys: traits.writable,
        };
        let mut objects = Vec::with_capacity(2 * listing.objects.len() + 4);
        for shown in &listing.objects {
            let unchanged = known.unchanged(shown);
            if !unchanged.is_empty() {
                objects.extend(unchanged.iter().copied().cloned());
                continue;
            }
            let made = Object::all(shown, scope).into_iter();
            objects.extend(made.map(|(half, object)| TokenObject {
                handle: known.handle(&object).unwrap_or_else(|| mint.object()),
                object: Arc::new(object),
                shown: Some((Arc::clone(shown), half)),
            }));
        }
        let claimed = profiles(&objects).into_iter().map(profile);
        let claimed = claimed.map(|object| TokenObject {
            handle: known.handle(&object).unwrap_or_else(|| mint.object()),
            object: Arc::new(object),
            shown: None,
        });
        objects.extend(claimed.collect::<Vec<_>>());
        Self::with(listing.label, listing.serial, traits, objects)
    }

    fn with(label: String, serial: String, traits: TokenTraits, objects: Vec<TokenObject>) -> Self {
        let handles = objects.iter().map(|found| found.handle);
        let mut positions: Vec<_> = handles.zip(0..).collect();
        positions.sort_unstable_by_key(|(handle, _)| *handle);
        Self {
            label,
            serial,
            traits,
            objects,
            positions,
        }
    }

    /// Returns the token after a logout. Private objects get new handles, because their old handles
    /// must stay invalid (section 5.6.9).
    pub(crate) fn logged_out(&self, mint: &Mint) -> Self {
        let again = self.objects.iter().map(|found| TokenObject {
            handle: match found.object.has_flag(CKA_PRIVATE) {
                true => mint.object(),
                false => found.handle,
            },
            ..found.clone()
        });
        let (label, serial) = (self.label.clone(), self.serial.clone());
        Self::with(label, serial, self.traits.clone(), again.collect())
    }

    pub(crate) fn objects(&self) -> &[TokenObject] {
        &self.objects
    }

    pub(crate) fn object(&self, handle: ObjectHandle) -> Result<&TokenObject, Error> {
        let positions = &self.positions;
        let first = positions.first().map_or(0, |(first, _)| first.0);
        // The handles of a scan are consecutive, until objects come and go.
        let usual = usize::try_from(handle.0.wrapping_sub(first)).ok();
        let usual = usual.and_then(|at| positions.get(at));
        let position = match usual.filter(|(one, _)| *one == handle) {
            Some((_, position)) => Some(*position),
            None => {
                let place = positions.binary_search_by_key(&handle, |(one, _)| *one);
                place.ok().map(|at| positions[at].1)
            }
        };
        let found = position.and_then(|position| self.objects.get(position));
        found.ok_or(Error::ObjectHandleInvalid)
    }

    /// Returns the handle of the object with this CKA_UNIQUE_ID.
    pub(crate) fn handle_of(&self, unique_id: &str) -> Option<ObjectHandle> {
        let mut objects = self.objects.iter();
        let found = objects.find(|found| found.object.unique_id() == unique_id.as_bytes());
        found.map(|found| found.handle)
    }

    /// Returns the mechanisms for C_GetMechanismList.
    pub(crate) fn mechanisms(&self) -> Vec<CK_MECHANISM_TYPE> {
        let mut kinds = Vec::new();
        for row in MECHANISMS.iter().filter(|row| self.offers(row)) {
            // CKM_RSA_PKCS has two rows in the table of mechanisms, but is listed once.
            if !kinds.contains(&row.kind) {
                kinds.push(row.kind);
            }
        }
        kinds
    }

    /// Returns the answer of C_GetMechanismInfo, which combines all rows of the mechanism.
    pub(crate) fn mechanism_info(
        &self,
        kind: CK_MECHANISM_TYPE,
    ) -> Result<CK_MECHANISM_INFO, Error> {
        let rows = MECHANISMS.iter().filter(|row| row.kind == kind);
        let mut rows = rows.filter(|row| self.offers(row));
        let first = rows.next().ok_or(Error::MechanismInvalid)?;
        let (smallest, largest) = self.key_sizes(first);
        let flags = rows.fold(first.flags, |flags, row| flags | row.flags);
        Ok(CK_MECHANISM_INFO {
            ulMinKeySize: smallest.into(),
            ulMaxKeySize: largest.into(),
            flags: match (self.traits.for_sessions, first.algorithm) {
                // The token for sessions has public keys only. These keys verify in software.
                (true, Algorithm::Sign(_)) => flags & !(CKF_HW | CKF_SIGN),
                _ => flags,
            },
        })
    }

    /// Returns true if the token has this mechanism for the row's kind of operation, with at least
    /// one parameter.
    pub(crate) fn offers(&self, row: &Mechanism) -> bool {
        match (row.algorithm, row.key_type) {
            (Algorithm::GenerateKeyPair, Some(key_type)) => self.makes(key_type),
            (Algorithm::Sign(algorithm), _) => self.signs_by(row, algorithm),
            (Algorithm::Encrypt(_) | Algorithm::Derive, Some(key_type)) => self.decrypts(key_type),
            (Algorithm::Unwrap(_), Some(key_type @ (KeyType::Ec | KeyType::Rsa))) => {
                self.makes(key_type)
            }
            (Algorithm::Unwrap(_), Some(KeyType::Aes | KeyType::GenericSecret))
            | (Algorithm::GenerateKey | Algorithm::Cipher(_) | Algorithm::Mac, Some(_)) => {
                self.traits.writable
            }
            (Algorithm::Digest, _) => true,
            (_, None) => false,
        }
    }

    /// Returns true if this token can make keys of this type.
    fn makes(&self, key_type: KeyType) -> bool {
        let told = self.traits.algorithms.or_any();
        self.traits.writable
            && match key_type {
                KeyType::Ec => told.has_ecc(),
                KeyType::Rsa => told.has_rsa(),
                KeyType::Aes | KeyType::GenericSecret => false,
            }
    }

    /// Returns true if every key of the mechanism's type can sign by the mechanism. A client may
    /// use any key with a listed mechanism. If the token makes keys, its new keys must be able to
    /// use the mechanism too. On such a token a key with a fixed scheme does not count, because its
    /// CKA_ALLOWED_MECHANISMS shows the limit.
    fn signs_by(&self, row: &Mechanism, algorithm: SignAlgorithm) -> bool {
        if self.traits.for_sessions {
            return algorithm.is_padded();
        }
        let is_wanted = match algorithm.is_padded() && self.traits.writable {
            true => self.makes_keys_for(row),
            false => self.keys().any(|key| row.signs_with(key)),
        };
        let counts = |key: &&Key| !self.traits.writable || key.signs_by_any_scheme();
        let refuses = |key: &Key| row.takes_key(key.public()) && !row.signs_with(key);
        is_wanted && (!algorithm.is_padded() || !self.keys().filter(counts).any(refuses))
    }

    /// Returns true if this token can make keys that sign by this mechanism in the TPM.
    fn makes_keys_for(&self, row: &Mechanism) -> bool {
        let told = self.traits.algorithms.or_any();
        let signs = |scheme| {
            told.sign(scheme) && (self.traits.pss || !matches!(scheme, SignatureScheme::Rsapss(_)))
        };
        self.traits.writable && row.signs_by(signs)
    }

    /// Returns true if the token has or can make a key of this type that decrypts or agrees on
    /// secrets. The attributes of each key show whether it can.
    fn decrypts(&self, key_type: KeyType) -> bool {
        let agrees = self.traits.algorithms.or_any().agrees();
        let mut keys = self.keys();
        (self.makes(key_type) && (key_type == KeyType::Rsa || agrees))
            || keys.any(|key| KeyType::from_public(key.public()) == key_type && key.decrypts())
    }

    /// Returns the types of keys that the token makes in the TPM for this mechanism.
    pub(crate) fn made_by(&self, kind: CK_MECHANISM_TYPE) -> Vec<KeyType> {
        let rows = MECHANISMS.iter().filter(|row| row.kind == kind);
        let types = rows.filter_map(|row| row.key_type);
        types
            .filter(|one| self.traits.makes_keys_in_tpm && self.makes(*one))
            .collect()
    }

    /// Returns the size in bits of the largest key of this type that the token makes. Returns
    /// `None` if the TPM has not reported its limit.
    fn largest_made(&self, key_type: Option<KeyType>) -> Option<u32> {
        let kind = key_type.filter(|_| self.traits.makes_keys_in_tpm)?;
        self.traits.algorithms.largest(kind.kind_in_tpm()?)
    }

    /// Returns the smallest and the largest key size of a mechanism.
    fn key_sizes(&self, row: &Mechanism) -> (u32, u32) {
        let fixed = |row: &Mechanism| match row.sizes {
            Sizes::Range(smallest, largest) => {
                let made = self.largest_made(row.key_type).unwrap_or(largest);
                Some((smallest, largest.min(made)))
            }
            Sizes::OfToken => None,
        };
        if let Some(sizes) = fixed(row) {
            return sizes;
        }
        let keys = self.keys().filter(|key| row.takes_key(key.public()));
        // A public key of a session may belong to a key pair that another token made.
        let makes = |one: &&Mechanism| {
            one.algorithm == Algorithm::GenerateKeyPair
                && one.key_type == row.key_type
                && (self.traits.for_sessions || self.offers(one))
        };
        let made = MECHANISMS.iter().filter(makes).filter_map(fixed);
        let made = made.flat_map(<[u32; 2]>::from);
        let sizes: Vec<u32> = keys.map(|key| key.public().bits()).chain(made).collect();
        let smallest = sizes.iter().min().copied().unwrap_or_default();
        (smallest, sizes.iter().max().copied().unwrap_or_default())
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        let keys = self
            .objects
            .iter()
            .filter_map(|found| found.object.private());
        keys.map(|key| &**key)
    }
}

/// The objects of the last scan, found by their name in the store or by the stored object.
struct KnownObjects<'a> {
    by_name: HashMap<&'a [u8], &'a TokenObject>,
    /// The objects by the address of their stored object. Each stored object is alive, so no other
    /// object has its address.
    by_shown: HashMap<usize, Vec<&'a TokenObject>>,
}

impl<'a> KnownObjects<'a> {
    fn new(token: Option<&'a Token>) -> Self {
        let objects = token.map_or(&[][..], Token::objects);
        let mut by_shown: HashMap<_, Vec<_>> = HashMap::with_capacity(objects.len());
        for found in objects {
            if let Some((shown, _)) = &found.shown {
                by_shown.entry(address(shown)).or_default().push(found);
            }
        }
        let by_name = objects
            .iter()
            .map(|found| (found.object.unique_id(), found));
        Self {
            by_name: by_name.collect(),
            by_shown,
        }
    }

    fn unchanged(&self, shown: &Arc<StoredObject>) -> &[&'a TokenObject] {
        let known = self.by_shown.get(&address(shown));
        known.map_or(&[], Vec::as_slice)
    }

    fn handle(&self, object: &Object) -> Option<ObjectHandle> {
        let known = self.by_name.get(object.unique_id())?;
        object.is_same(&known.object).then_some(known.handle)
    }
}

fn address(shown: &Arc<StoredObject>) -> usize {
    Arc::as_ptr(shown).addr()
}

/// Returns the profiles that the token fulfils completely (PKCS#11 Profiles 3.0).
fn profiles(objects: &[TokenObject]) -> Vec<CK_PROFILE_ID> {
    let mut claimed = vec![CKP_BASELINE_PROVIDER, CKP_EXTENDED_PROVIDER];
    // The standard's test for the profile Authentication Token signs with CKM_SHA256_RSA_PKCS.
    let rsa = Mechanism::find(CKM_SHA256_RSA_PKCS, CKF_SIGN);
    let mut keys = objects.iter().filter_map(|found| found.object.private());
    if keys.any(|key| rsa.as_ref().is_ok_and(|rsa| rsa.signs_with(key))) {
        claimed.push(CKP_AUTHENTICATION_TOKEN);
    }
    let certificate = CKO_CERTIFICATE.to_ne_bytes();
    let of_class = |found: &&TokenObject| found.object.attribute(CKA_CLASS) == Ok(&certificate);
    let ids = objects.iter().filter(of_class);
    let ids: HashSet<_> = ids
        .filter_map(|found| found.object.attribute(CKA_ID).ok())
        .collect();
    let mut keys = objects
        .iter()
        .filter(|found| found.object.private().is_some());
    let certified = |id: Result<&[u8], Error>| id.is_ok_and(|id| ids.contains(id));
    if keys.any(|found| certified(found.object.attribute(CKA_ID))) {
        claimed.push(CKP_PUBLIC_CERTIFICATES_TOKEN);
    }
    claimed
}
