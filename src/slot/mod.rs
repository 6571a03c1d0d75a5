//! A slot (PKCS#11 3.0, sections 2.4 and 3.2): where a token is looked for, who is logged in to it,
//! and what its sessions keep.
//!
//! The slot looks for its token when it is first asked, never at C_Initialize.

use devid_core::tpm::Secret;
mod current_user;
mod login;
mod pin_tries;
pub(crate) mod session_objects;
pub(crate) mod token;

use crate::error::Error;
use crate::handle::{Mint, ObjectHandle, SlotId};
use crate::mechanism::key_type::KeyType;
use crate::object::Object;
use crate::slot::current_user::CurrentUser;
use crate::slot::pin_tries::PinTries;
use crate::slot::session_objects::SessionObjects;
use crate::slot::token::{Token, TokenObject};
use cryptoki_sys::CKA_PRIVATE;
use devid_core::audit::AuditLog;
use devid_core::config::RandomSource;
use devid_core::store::devid::DevidStore;
use devid_core::store::{
    DecryptRequest, Key, Pins, ScanError, SecretBytes, SecretKey, SignError, Store, StoreStamp,
};
use devid_core::tpm::{Tpm, TpmError};
use log::{Level, error, log, warn};
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A slot that found nothing scans again at most this often: a program that asks all the time must
/// not wait for a dead TPM each time.
const RESCAN_AFTER: Duration = Duration::from_secs(1);

/// The slot of one token.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: SlotId,
    pub(crate) description: &'static str,
    /// Where uses of private keys are written down; `None` if nobody asks for that.
    pub(crate) audit: Option<AuditLog>,
    /// `None` where the configuration is wrong, and the log says how: no token.
    source: Option<TokenSource>,
    /// Held during a scan, for as long as the TPM takes.
    scan: Mutex<LastScan>,
    /// Held for the moment of reading or replacing.
    pub(crate) token: RwLock<Option<Arc<Token>>>,
    /// Objects of sessions, seen by all of them; held for moments.
    pub(crate) session_objects: Mutex<SessionObjects>,
    pub(crate) logged_in: CurrentUser,
    /// What came of the PINs that were tried; held for moments.
    tries: Mutex<PinTries>,
    /// One try of a PIN at a time, for as long as the TPM takes.
    pub(crate) login_turn: Mutex<()>,
}

/// Where the slot's token comes from.
#[derive(Debug)]
pub(crate) struct TokenSource {
    tpm: Arc<Tpm>,
    store: Store,
    random: RandomSource,
}

/// What the last scan tells about the next.
#[derive(Debug, Default, Clone)]
struct LastScan {
    /// The stamp of what was scanned, if the scan gave an answer. It tells what could not be read, and
    /// differs as soon as that can be read.
    seen: Option<StoreStamp>,
    failed: Option<FailedScan>,
}

/// A scan that found nothing.
#[derive(Debug, Clone)]
struct FailedScan {
    ended: Instant,
    /// The store's stamp then. If files could not be read, another scan may find something as soon as
    /// the stamp changes.
    stamp: StoreStamp,
    /// How long no other scan is tried: as long as this one took, and at least [`RESCAN_AFTER`]. After a
    /// TPM that was busy it is [`RESCAN_AFTER`].
    rest: Duration,
    why: ScanError,
}

impl FailedScan {
    /// Whether files are at fault, and not the TPM, whose faults other slots count too.
    fn is_of_files(&self) -> bool {
        matches!(self.why, ScanError::Unread(_))
    }
}

impl TokenSource {
    pub(crate) fn new(tpm: &Arc<Tpm>, store: Store, random: RandomSource) -> Self {
        Self {
            tpm: Arc::clone(tpm),
            store,
            random,
        }
    }

    /// Whether it is the folder of the service whose user this process has.
    pub(crate) fn is_of_own_service(&self) -> bool {
        let folder = self.store.folder();
        folder.is_some_and(DevidStore::is_of_own_service)
    }
}

impl Slot {
    /// Sends nothing to the TPM.
    pub(crate) fn new(id: SlotId, description: &'static str, source: Option<TokenSource>) -> Self {
        Self {
            id,
            description,
            audit: None,
            source,
            scan: Mutex::default(),
            token: RwLock::default(),
            session_objects: Mutex::default(),
            logged_in: CurrentUser::default(),
            tries: Mutex::default(),
            login_turn: Mutex::default(),
        }
    }

    /// The slot, which writes down each use of a private key if `audit` says so.
    pub(crate) fn auditing(self, audit: bool) -> Self {
        Self {
            audit: audit.then(AuditLog::default),
            ..self
        }
    }

    /// The slot in a forked child, over its own way to the TPM, and the token as the parent knew it.
    ///
    /// What another thread of the parent held locked when it forked is made anew.
    pub(crate) fn for_child(&self, tpm: Option<&Arc<Tpm>>) -> Self {
        let source = self.source.as_ref().zip(tpm);
        let source = source.map(|(source, tpm)| TokenSource {
            tpm: Arc::clone(tpm),
            store: source.store.for_child(tpm),
            random: source.random,
        });
        let token = self.token.try_read().and_then(|token| token.clone());
        let kept = self.session_objects.try_lock().map(|kept| kept.clone());
        let last = self.scan.try_lock().map(|last| last.clone());
        Self {
            id: self.id,
            description: self.description,
            // What the parent counted is the parent's.
            audit: self.audit.as_ref().map(|_| AuditLog::default()),
            source,
            scan: Mutex::new(last.unwrap_or_default()),
            token: RwLock::new(token),
            session_objects: Mutex::new(kept.unwrap_or_default()),
            logged_in: self.logged_in.for_child(),
            tries: Mutex::new(
                self.tries
                    .try_lock()
                    .map(|tries| *tries)
                    .unwrap_or_default(),
            ),
            login_turn: Mutex::default(),
        }
    }

    /// The way to the TPM; none where the configuration is wrong.
    pub(crate) fn tpm(&self) -> Result<&Arc<Tpm>, Error> {
        Ok(&self.source()?.tpm)
    }

    /// An object of the token as last found, or of a session; none that the user does not see now.
    pub(crate) fn object(&self, handle: ObjectHandle) -> Result<Arc<Object>, Error> {
        let known = self.known_token().ok_or(Error::DeviceRemoved)?;
        let found = match known.object(handle) {
            Ok(found) => Arc::clone(&found.object),
            Err(unknown) => self.session_objects.lock().object(handle).ok_or(unknown)?,
        };
        match found.has_flag(CKA_PRIVATE) && self.hides_private() {
            true => Err(Error::ObjectHandleInvalid),
            false => Ok(found),
        }
    }

    /// Those of the handles whose objects are still there and seen by the user.
    pub(crate) fn retain_seen(&self, handles: &mut VecDeque<ObjectHandle>) {
        // A token that asks for no login hides nothing.
        if !self.asks_login() {
            return;
        }
        let has_user = self.has_user();
        let known = self.known_token();
        let of_sessions = self.session_objects.lock();
        handles.retain(|handle| {
            let of_token = known.as_ref().and_then(|token| token.object(*handle).ok());
            let object = of_token.map(|found| Arc::clone(&found.object));
            let object = object.or_else(|| of_sessions.object(*handle));
            object.is_some_and(|object| has_user || !object.has_flag(CKA_PRIVATE))
        });
    }

    /// An object of the token, with what the store calls it.
    pub(crate) fn token_object(&self, handle: ObjectHandle) -> Result<TokenObject, Error> {
        let known = self.known_token().ok_or(Error::DeviceRemoved)?;
        let found = known.object(handle)?;
        match found.object.has_flag(CKA_PRIVATE) && self.hides_private() {
            true => Err(Error::ObjectHandleInvalid),
            false => Ok(found.clone()),
        }
    }

    /// Whether private objects are hidden now, since nobody has logged in as the user.
    pub(crate) fn hides_private(&self) -> bool {
        !self.has_user() && self.asks_login()
    }

    /// Whether the token's private objects are for users who have logged in. On a token with a key folder
    /// each answer costs system calls, since another process may set a PIN.
    pub(crate) fn asks_login(&self) -> bool {
        let source = self.source.as_ref();
        source.is_some_and(|source| source.store.pins() != Pins::None)
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.folder().is_ok()
    }

    /// Whether the token is for objects of sessions alone.
    pub(crate) fn is_for_sessions(&self) -> bool {
        let source = self.source.as_ref();
        source.is_some_and(|source| source.store.is_for_sessions())
    }

    /// The store, if it takes objects.
    pub(crate) fn folder(&self) -> Result<&DevidStore, Error> {
        let folder = self.source()?.store.folder();
        folder.ok_or(Error::TokenWriteProtected)
    }

    /// The token as last found, without a scan.
    pub(crate) fn known_token(&self) -> Option<Arc<Token>> {
        self.token.read().clone()
    }

    /// The token, scanned again if something changed since the last scan.
    pub(crate) fn token(&self, mint: &Mint) -> Result<Arc<Token>, Error> {
        let source = self.source()?;
        let known = self.known_token();
        let mut last = match &known {
            // A scan of a folder is short, and whoever has changed it wants to see that.
            Some(token) if !self.is_writable() => match self.scan.try_lock() {
                Some(last) => last,
                // Another thread scans: the known token is good enough meanwhile.
                None => return Ok(Arc::clone(token)),
            },
            _ => self.scan.lock(),
        };
        let stamp = source.store.stamp();
        let wait = last.failed.as_ref().is_some_and(|failure| {
            let can_be_read = failure.stamp != stamp && failure.is_of_files();
            !can_be_read && failure.ended.elapsed() < failure.rest
        });
        if !wait && last.seen.as_ref() != Some(&stamp) {
            *last = self.scan(source, &last, mint);
        }
        self.known_token().ok_or(Error::TokenNotPresent)
    }

    /// The token after a change by this module, scanned whether its stamp changed or not.
    pub(crate) fn rescan(&self, mint: &Mint) -> Result<Arc<Token>, Error> {
        let source = self.source()?;
        let mut last = self.scan.lock();
        *last = self.scan(source, &last, mint);
        match &last.failed {
            Some(failure) => Err(failure.why.clone().into()),
            None => self.known_token().ok_or(Error::TokenNotPresent),
        }
    }

    fn scan(&self, source: &TokenSource, last: &LastScan, mint: &Mint) -> LastScan {
        let tcti = source.tpm.tcti();
        let began = Instant::now();
        match source.store.scan() {
            Ok(listing) => {
                // Held, so that no logout comes between what was before and what takes its place.
                let mut place = self.token.write();
                let stamp = listing.stamp.clone();
                let token = Token::new(listing, source.store.traits(), place.as_deref(), mint);
                let count = |token: &Token| token.objects().len();
                let level = match place.as_deref().map(count) == Some(count(&token)) {
                    true => Level::Debug,
                    false => Level::Info,
                };
                let (label, count) = (&token.label, count(&token));
                log!(level, "token {label} with {count} objects at {tcti}");
                *place = Some(Arc::new(token));
                LastScan {
                    seen: Some(stamp),
                    failed: None,
                }
            }
            Err(why) => {
                match &why {
                    // The TPM or the folder is out of reach, not what is known of it already.
                    ScanError::Tpm(_) | ScanError::Folder(_) | ScanError::Unread(_) => {}
                    ScanError::NoIdentity(_) => *self.token.write() = None,
                }
                // Said once, not each second; of a file the store has said it.
                let said = matches!(why, ScanError::Unread(_));
                let mut last = last.failed.iter();
                if !said && last.all(|failure| failure.why != why) {
                    error!("slot {}: no token from {tcti}: {why}", self.id.0);
                }
                LastScan {
                    seen: None,
                    failed: Some(FailedScan {
                        ended: Instant::now(),
                        stamp: source.store.stamp(),
                        rest: match why {
                            // It answers again as soon as another process's key is made.
                            ScanError::Tpm(TpmError::Busy(_)) => RESCAN_AFTER,
                            _ => RESCAN_AFTER.max(began.elapsed()),
                        },
                        why,
                    }),
                }
            }
        }
    }

    /// Asks the TPM which mechanisms it has, where keys can be made in it; once. While nobody can tell,
    /// all are supposed.
    pub(crate) fn learn_mechanisms(&self) {
        if let Some(source) = &self.source
            && source.store.folder().is_some()
        {
            source.tpm.algorithms_or_any();
        }
    }

    /// Asks the TPM for the largest key of this type that it makes, where keys are made in it; once.
    pub(crate) fn learn_key_sizes(&self, key_type: KeyType) {
        if let (Some(source), Some(kind)) = (&self.source, key_type.kind_in_tpm()) {
            source.tpm.learn_largest(kind);
        }
    }

    /// Makes sure that a key is there to sign.
    pub(crate) fn prepare(&self, key: &Key) -> Result<(), Error> {
        key.prepare(self.tpm()?).map_err(|error| {
            warn!("{error}");
            error.into()
        })
    }

    /// What is hidden in a ciphertext. Every fault of it has the same line in the log.
    pub(crate) fn decrypt(
        &self,
        key: &Key,
        request: DecryptRequest,
        ciphertext: &[u8],
    ) -> Result<Secret, Error> {
        key.decrypt(self.tpm()?, request, ciphertext)
            .map_err(|error| {
                warn!("decryption: {error}");
                error.into()
            })
    }

    /// The key in front of a wrapped one; `None` for every fault of the ciphertext, which is nothing to be said before all of it was looked at.
    pub(crate) fn transport_key(
        &self,
        key: &Key,
        request: DecryptRequest,
        ciphertext: &[u8],
    ) -> Result<Option<Secret>, Error> {
        match key.decrypt(self.tpm()?, request, ciphertext) {
            Ok(plain) => Ok(Some(plain)),
            Err(SignError::Ciphertext) => Ok(None),
            Err(error) => {
                warn!("unwrapping: {error}");
                Err(error.into())
            }
        }
    }

    /// The bytes of a secret key.
    pub(crate) fn open_secret_key(&self, key: &SecretKey) -> Result<SecretBytes, Error> {
        key.open(self.tpm()?).map_err(|error| {
            warn!("secret key: {error}");
            error.into()
        })
    }

    /// The secret that the key shares with whoever has this point.
    pub(crate) fn agree(&self, key: &Key, point: &[u8]) -> Result<Secret, Error> {
        key.agree(self.tpm()?, point).map_err(|error| {
            warn!("key agreement: {error}");
            match error {
                SignError::Ciphertext => Error::MechanismParamInvalid,
                other => other.into(),
            }
        })
    }

    /// Fills `bytes` with random ones, from the kernel or the TPM as configured.
    pub(crate) fn random(&self, bytes: &mut [u8]) -> Result<(), Error> {
        let source = self.source()?;
        match source.random {
            RandomSource::Kernel => kernel_random(bytes),
            RandomSource::Tpm => Ok(source.tpm.random(bytes)?),
        }
    }

    pub(crate) fn store(&self) -> Result<&Store, Error> {
        Ok(&self.source()?.store)
    }

    /// The user's PIN, if the configuration says where it is.
    pub(crate) fn configured_pin(&self) -> Result<Secret, Error> {
        let none = || Error::ArgumentsBad("pPin is NULL");
        let folder = self.store()?.folder().ok_or_else(none)?;
        folder.configured_pin().ok_or_else(none)
    }

    fn source(&self) -> Result<&TokenSource, Error> {
        self.source.as_ref().ok_or(Error::TokenNotPresent)
    }
}

fn kernel_random(bytes: &mut [u8]) -> Result<(), Error> {
    devid_core::random(bytes).map_err(|error| {
        error!("no random bytes: {error}");
        Error::RandomFailed
    })
}
