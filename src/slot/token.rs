//! A token (PKCS#11 3.0, section 2.4): the objects that one look found, immutable and shared, so
//! that whoever reads attributes waits for nobody.

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

/// A token: what one look found.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) label: String,
    pub(crate) serial: String,
    traits: TokenTraits,
    objects: Vec<TokenObject>,
    positions: HashMap<ObjectHandle, usize>,
}

/// An object of the token, and which part of what the store shows it is.
#[derive(Debug, Clone)]
pub(crate) struct TokenObject {
    pub(crate) handle: ObjectHandle,
    pub(crate) object: Arc<Object>,
    /// `None` for what only says something of the token.
    pub(crate) shown: Option<(Arc<StoredObject>, ObjectPart)>,
}

impl Token {
    /// What is shown now. An object that was there before keeps its handle; and one that the store
    /// shows unchanged is taken over as it is.
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
        let positions = objects.iter().enumerate();
        let positions = positions
            .map(|(position, found)| (found.handle, position))
            .collect();
        Self {
            label,
            serial,
            traits,
            objects,
            positions,
        }
    }

    /// The same token after a logout: its private objects have new handles, since the old ones stay
    /// invalid for good (section 5.6.9).
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
        let position = self.positions.get(&handle);
        position
            .and_then(|position| self.objects.get(*position))
            .ok_or(Error::ObjectHandleInvalid)
    }

    /// The handle of the object with this CKA_UNIQUE_ID.
    pub(crate) fn handle_of(&self, unique_id: &str) -> Option<ObjectHandle> {
        let mut objects = self.objects.iter();
        let found = objects.find(|found| found.object.unique_id == unique_id);
        found.map(|found| found.handle)
    }

    /// All that C_GetMechanismList lists.
    pub(crate) fn mechanisms(&self) -> Vec<CK_MECHANISM_TYPE> {
        let mut kinds = Vec::new();
        for row in MECHANISMS.iter().filter(|row| self.offers(row)) {
            // CKM_RSA_PKCS has two rows.
            if !kinds.contains(&row.kind) {
                kinds.push(row.kind);
            }
        }
        kinds
    }

    /// What C_GetMechanismInfo tells: the rows of the mechanism taken together.
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
                // Public keys only verify, and in software.
                (true, Algorithm::Sign(_)) => flags & !(CKF_HW | CKF_SIGN),
                _ => flags,
            },
        })
    }

    /// Whether the token has this mechanism for this kind of operation, whatever the parameter.
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

    /// Whether keys of this type can be made here.
    fn makes(&self, key_type: KeyType) -> bool {
        let told = self.traits.algorithms.or_any();
        self.traits.writable
            && match key_type {
                KeyType::Ec => told.has_ecc(),
                KeyType::Rsa => told.has_rsa(),
                KeyType::Aes | KeyType::GenericSecret => false,
            }
    }

    /// Whether every key of the mechanism's type can sign by it: a client that sees it in the list asks it
    /// of any of them. Where keys can be made, the mechanism must be one of the keys that will be made.
    /// There a key of one scheme only takes nothing away from the list: its CKA_ALLOWED_MECHANISMS tells.
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

    /// Whether keys can be made here whose TPM signs by this mechanism.
    fn makes_keys_for(&self, row: &Mechanism) -> bool {
        let told = self.traits.algorithms.or_any();
        let signs = |scheme| {
            told.sign(scheme) && (self.traits.pss || !matches!(scheme, SignatureScheme::Rsapss(_)))
        };
        self.traits.writable && row.signs_by(signs)
    }

    /// Whether a key of this type decrypts or agrees on secrets, or can be made to. Not every key of the
    /// type does: its attributes tell, and clients look there.
    fn decrypts(&self, key_type: KeyType) -> bool {
        let agrees = self.traits.algorithms.or_any().agrees();
        let mut keys = self.keys();
        (self.makes(key_type) && (key_type == KeyType::Rsa || agrees))
            || keys.any(|key| KeyType::from_public(key.public()) == key_type && key.decrypts())
    }

    /// The types of keys that are made in the TPM and that this mechanism is for.
    pub(crate) fn made_by(&self, kind: CK_MECHANISM_TYPE) -> Vec<KeyType> {
        let rows = MECHANISMS.iter().filter(|row| row.kind == kind);
        let types = rows.filter_map(|row| row.key_type);
        types
            .filter(|one| self.traits.makes_keys_in_tpm && self.makes(*one))
            .collect()
    }

    /// The largest key of this type that is made here, if the TPM has told.
    fn largest_made(&self, key_type: Option<KeyType>) -> Option<u32> {
        let kind = key_type.filter(|_| self.traits.makes_keys_in_tpm)?;
        self.traits.algorithms.largest(kind.kind_in_tpm()?)
    }

    /// The smallest and the largest key of a mechanism.
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
        // Public keys of a session are as long as keys that are made elsewhere.
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

/// What was found before, by what it is asked for.
struct KnownObjects<'a> {
    by_name: HashMap<&'a str, &'a TokenObject>,
    /// By the address of what the store shows: it is alive, so nothing else has the address.
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
            .map(|found| (&*found.object.unique_id, found));
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
        let known = self.by_name.get(&*object.unique_id)?;
        object.is_same(&known.object).then_some(known.handle)
    }
}

fn address(shown: &Arc<StoredObject>) -> usize {
    Arc::as_ptr(shown).addr()
}

/// The profiles whose calls and objects are all there (PKCS#11 Profiles 3.0).
fn profiles(objects: &[TokenObject]) -> Vec<CK_PROFILE_ID> {
    let mut claimed = vec![CKP_BASELINE_PROVIDER, CKP_EXTENDED_PROVIDER];
    // The test of an authentication token signs with CKM_SHA256_RSA_PKCS.
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
