//! A token (PKCS#11 3.0, section 2.4): the objects that one look found, immutable and shared, so
//! that whoever reads attributes waits for nobody.

use crate::error::Error;
use crate::handle::{Mint, ObjectHandle};
use crate::mechanism::digest::Digest;
use crate::mechanism::generate::Generator;
use crate::mechanism::key_type::KeyType;
use crate::mechanism::sign::Mechanism;
use crate::mechanism::unwrap::Wrapping;
use crate::object::{Object, Place, profile};
use cryptoki_sys::*;
use devid_core::store::{Key, ObjectPart, ScanResult, StoredObject, TokenTraits};
use devid_core::tpm::{Hash, SignatureScheme};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A token: what one look found.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) label: String,
    pub(crate) serial: String,
    traits: TokenTraits,
    objects: Vec<Found>,
    places: HashMap<ObjectHandle, usize>,
}

/// An object of the token, and which part of what the store shows it is.
#[derive(Debug, Clone)]
pub(crate) struct Found {
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
        let known = Known::of(before);
        let place = Place::Token {
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
            let made = Object::all(shown, place).into_iter();
            objects.extend(made.map(|(half, object)| Found {
                handle: known.handle(&object).unwrap_or_else(|| mint.object()),
                object: Arc::new(object),
                shown: Some((Arc::clone(shown), half)),
            }));
        }
        let claimed = profiles(&objects).into_iter().map(profile);
        let claimed = claimed.map(|object| Found {
            handle: known.handle(&object).unwrap_or_else(|| mint.object()),
            object: Arc::new(object),
            shown: None,
        });
        objects.extend(claimed.collect::<Vec<_>>());
        Self::with(listing.label, listing.serial, traits, objects)
    }

    fn with(label: String, serial: String, traits: TokenTraits, objects: Vec<Found>) -> Self {
        let places = objects.iter().enumerate();
        let places = places.map(|(place, found)| (found.handle, place)).collect();
        Self {
            label,
            serial,
            traits,
            objects,
            places,
        }
    }

    /// The same token after a logout: its private objects have new handles, since the old ones stay
    /// invalid for good (section 5.6.9).
    pub(crate) fn logged_out(&self, mint: &Mint) -> Self {
        let again = self.objects.iter().map(|found| Found {
            handle: match found.object.is(CKA_PRIVATE) {
                true => mint.object(),
                false => found.handle,
            },
            ..found.clone()
        });
        let (label, serial) = (self.label.clone(), self.serial.clone());
        Self::with(label, serial, self.traits.clone(), again.collect())
    }

    pub(crate) fn objects(&self) -> &[Found] {
        &self.objects
    }

    pub(crate) fn object(&self, handle: ObjectHandle) -> Result<&Found, Error> {
        let place = self.places.get(&handle);
        place
            .and_then(|place| self.objects.get(*place))
            .ok_or(Error::ObjectHandleInvalid)
    }

    /// The handle of the object with this CKA_UNIQUE_ID.
    pub(crate) fn handle_of(&self, unique_id: &str) -> Option<ObjectHandle> {
        let mut objects = self.objects.iter();
        let found = objects.find(|found| found.object.unique_id == unique_id);
        found.map(|found| found.handle)
    }

    /// Whether keys can be made here whose TPM signs by this mechanism.
    fn makes_keys_for(&self, mechanism: Mechanism) -> bool {
        let told = self.traits.algorithms.or_any();
        let signs = |scheme| {
            told.sign(scheme) && (self.traits.pss || !matches!(scheme, SignatureScheme::Rsapss(_)))
        };
        self.traits.writable && mechanism.suits_signer(signs)
    }

    /// Whether keys of this type can be made here.
    fn makes(&self, key_type: KeyType) -> bool {
        let told = self.traits.algorithms.or_any();
        self.traits.writable
            && match key_type {
                KeyType::Ec => told.has_ecc(),
                KeyType::Rsa => told.has_rsa(),
            }
    }

    /// The mechanisms that make keys here.
    fn generators(&self) -> impl Iterator<Item = Generator> {
        let all = Generator::ALL.into_iter();
        all.filter(|one| self.makes(one.key_type()))
    }

    /// What every key of a mechanism's type can do: a client that sees it in the list asks it of
    /// any of them. Where keys can be made, what those will do counts too, and a file that somebody
    /// puts there takes nothing away from them: a key of one scheme says so itself.
    fn mechanisms(&self) -> Vec<Mechanism> {
        let counts = |key: &&Key| !self.traits.writable || key.signs_by_any_scheme();
        let refuses = |key: &Key, mechanism: Mechanism| {
            mechanism.is_of_type(key.public()) && !mechanism.suits(key)
        };
        let all = Mechanism::ALL.into_iter();
        if self.traits.for_sessions {
            return all.filter(|one| one.is_padded()).collect();
        }
        let does_one = |one: &Mechanism| self.keys().any(|key| one.suits(key));
        let wanted = all.filter(|one| match one.is_padded() {
            true if self.traits.writable => self.makes_keys_for(*one),
            _ => does_one(one),
        });
        let wanted = wanted.filter(|one| {
            !one.is_padded() || !self.keys().filter(counts).any(|key| refuses(key, *one))
        });
        wanted.collect()
    }

    /// The types of which there are keys that decrypt or agree on secrets, or can be made. Not every
    /// key of the type does: it says so itself, and clients look.
    fn opening(&self) -> impl Iterator<Item = KeyType> {
        let opens = |one: &KeyType| {
            let mut keys = self.keys();
            keys.any(|key| KeyType::of(key.public()) == *one && key.decrypts())
        };
        let types = KeyType::ALL.into_iter();
        let made = |one: &KeyType| {
            let agrees = self.traits.algorithms.or_any().agrees();
            self.makes(*one) && (*one == KeyType::Rsa || agrees)
        };
        types.filter(move |one| made(one) || opens(one))
    }

    /// The mechanisms by which keys come here wrapped, each with what C_GetMechanismInfo tells.
    fn wrappings(&self) -> Vec<(CK_MECHANISM_TYPE, CK_MECHANISM_INFO)> {
        if !self.traits.writable {
            return Vec::new();
        }
        let info = |sizes: (CK_ULONG, CK_ULONG), flags| CK_MECHANISM_INFO {
            ulMinKeySize: sizes.0,
            ulMaxKeySize: sizes.1,
            flags: CKF_UNWRAP | flags,
        };
        let (smallest, largest) = self.key_sizes(KeyType::Rsa);
        // Of AES keys sizes are in bytes (section 6.16).
        let (rsa, aes) = (
            info((smallest.into(), largest.into()), CKF_HW),
            info((16, 32), 0),
        );
        let rsa = Wrapping::RSA.map(|kind| (kind, rsa));
        let rsa = rsa.into_iter().filter(|_| self.makes(KeyType::Rsa));
        let aes = Wrapping::AES.map(|kind| (kind, aes));
        rsa.chain(aes).collect()
    }

    /// All that C_GetMechanismList lists.
    pub(crate) fn mechanism_kinds(&self) -> Vec<CK_MECHANISM_TYPE> {
        let generators = self.generators().map(Generator::kind);
        let mechanisms = self.mechanisms().into_iter().map(Mechanism::kind);
        let mut kinds: Vec<_> = generators.chain(mechanisms).collect();
        for kind in self.opening().flat_map(KeyType::opening_mechanisms) {
            // CKM_RSA_PKCS signs, too.
            if !kinds.contains(kind) {
                kinds.push(*kind);
            }
        }
        kinds.extend(self.wrappings().iter().map(|(kind, _)| *kind));
        kinds.extend(Digest::ALL.map(Digest::kind));
        kinds
    }

    /// What C_GetMechanismInfo tells.
    pub(crate) fn mechanism_info(
        &self,
        kind: CK_MECHANISM_TYPE,
    ) -> Result<CK_MECHANISM_INFO, Error> {
        if let Some(generator) = self.generators().find(|one| one.kind() == kind) {
            return Ok(generator.info());
        }
        if Digest::ALL.map(Digest::kind).contains(&kind) {
            return Ok(Digest::INFO);
        }
        if let Some((_, info)) = self.wrappings().into_iter().find(|(one, _)| *one == kind) {
            return Ok(info);
        }
        let signs = self.mechanisms().into_iter().find(|one| one.kind() == kind);
        let signs = signs.map(Mechanism::key_type);
        let opens = self
            .opening()
            .find(|one| one.opening_mechanisms().contains(&kind));
        let key_type = signs.or(opens).ok_or(Error::MechanismInvalid)?;
        let (smallest, largest) = self.key_sizes(key_type);
        let signing = match self.traits.for_sessions {
            true => CKF_VERIFY,
            false => signs.map_or(0, |_| CKF_HW | CKF_SIGN | CKF_VERIFY),
        };
        let opening = opens.map_or(0, |opens| CKF_HW | opens.opening_flags());
        Ok(CK_MECHANISM_INFO {
            ulMinKeySize: smallest.into(),
            ulMaxKeySize: largest.into(),
            flags: signing | opening | key_type.mechanism_flags(),
        })
    }

    /// Whether the mechanism stands in the list, whatever its parameter.
    pub(crate) fn lists(&self, mechanism: Mechanism) -> bool {
        self.mechanisms()
            .iter()
            .any(|one| one.kind() == mechanism.kind())
    }

    /// The smallest and the largest key, in bits, of a type.
    fn key_sizes(&self, key_type: KeyType) -> (u32, u32) {
        let keys = self
            .keys()
            .filter(|key| KeyType::of(key.public()) == key_type);
        // Public keys that a session brings are of the sizes of those that are made elsewhere.
        let elsewhere = Generator::ALL
            .into_iter()
            .filter(|_| self.traits.for_sessions);
        let made = self
            .generators()
            .chain(elsewhere)
            .filter(|one| one.key_type() == key_type)
            .flat_map(|one| <[u32; 2]>::from(one.key_sizes()));
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
struct Known<'a> {
    by_name: HashMap<&'a str, &'a Found>,
    /// By the address of what the store shows: it is alive, so nothing else has the address.
    by_shown: HashMap<usize, Vec<&'a Found>>,
}

impl<'a> Known<'a> {
    fn of(token: Option<&'a Token>) -> Self {
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

    fn unchanged(&self, shown: &Arc<StoredObject>) -> &[&'a Found] {
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
fn profiles(objects: &[Found]) -> Vec<CK_PROFILE_ID> {
    let mut claimed = vec![CKP_BASELINE_PROVIDER, CKP_EXTENDED_PROVIDER];
    // The test of an authentication token signs with CKM_SHA256_RSA_PKCS.
    let rsa = Mechanism::RsaPkcsOver(Hash::Sha256);
    let mut keys = objects.iter().filter_map(|found| found.object.private());
    if keys.any(|key| rsa.suits(key)) {
        claimed.push(CKP_AUTHENTICATION_TOKEN);
    }
    let certificate = CKO_CERTIFICATE.to_ne_bytes();
    let of_class = |found: &&Found| found.object.attribute(CKA_CLASS) == Ok(&certificate);
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
