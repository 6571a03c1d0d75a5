//! A slot (PKCS#11 3.0, sections 2.4 and 3.2): the source of its token, the current user, and the
//! session objects.
//!
//! The slot scans for its token at the first call that needs the token, never at C_Initialize.

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

/// The shortest time between two scans that find no token. A program that asks repeatedly must not
/// wait each time for a TPM that does not answer.
const RESCAN_AFTER: Duration = Duration::from_secs(1);

/// The slot of one token.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: SlotId,
    pub(crate) description: &'static str,
    /// The audit log for uses of private keys. `None`: the audit log is not configured.
    pub(crate) audit: Option<AuditLog>,
    /// The source of the token. `None`: the configuration is wrong. The slot has no token, and the
    /// log has the reason.
    source: Option<TokenSource>,
    /// A thread locks this mutex during a scan, for as long as the TPM takes.
    scan: Mutex<LastScan>,
    /// The token of the last scan. A thread locks this value only briefly, to read or replace the
    /// pointer.
    pub(crate) token: RwLock<Option<Arc<Token>>>,
    /// The session objects of all sessions. Locked only briefly.
    pub(crate) session_objects: Mutex<SessionObjects>,
    pub(crate) logged_in: CurrentUser,
    /// Whether earlier PINs were right. A thread locks this mutex only briefly.
    tries: Mutex<PinTries>,
    /// Held while a thread tries a PIN, for as long as the TPM takes. Other threads wait.
    pub(crate) login_turn: Mutex<()>,
}

/// The source of the slot's token.
#[derive(Debug)]
pub(crate) struct TokenSource {
    tpm: Arc<Tpm>,
    store: Store,
    random: RandomSource,
}

/// The results of the last scan that decide whether the next call scans again.
#[derive(Debug, Default, Clone)]
struct LastScan {
    /// The stamp of the store if the scan succeeded. The stamp lists files that could not be read,
    /// and changes when these files can be read.
    seen: Option<StoreStamp>,
    failed: Option<FailedScan>,
}

/// A scan that found no token.
#[derive(Debug, Clone)]
struct FailedScan {
    ended: Instant,
    /// The stamp of the store at the end of that scan. If files could not be read, a changed stamp
    /// allows the next scan.
    stamp: StoreStamp,
    /// The time until the next scan: the duration of this scan, but at least [`RESCAN_AFTER`]. If
    /// the TPM was busy, the time is [`RESCAN_AFTER`].
    rest: Duration,
    why: ScanError,
}

impl FailedScan {
    /// Returns true if files caused the failure. A failure of the TPM would also affect other
    /// slots.
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

    /// Returns true if the source is the key folder of a service, and this process runs as the user
    /// of that service.
    pub(crate) fn is_of_own_service(&self) -> bool {
        let folder = self.store.folder();
        folder.is_some_and(DevidStore::is_of_own_service)
    }
}

impl Slot {
    /// Makes a slot. Sends no TPM command.
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

    /// Adds an audit log of each use of a private key, if `audit` is true.
    pub(crate) fn auditing(self, audit: bool) -> Self {
        Self {
            audit: audit.then(AuditLog::default),
            ..self
        }
    }

    /// Returns the slot for a forked child, with the child's own connection to the TPM. The token
    /// of the parent is kept.
    ///
    /// If another thread of the parent had a part of the state locked at the fork, the child starts
    /// with an empty part.
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
            // The forked child counts its own audit lines, from zero.
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

    /// Returns the client of the TPM. Fails if the configuration is wrong.
    pub(crate) fn tpm(&self) -> Result<&Arc<Tpm>, Error> {
        Ok(&self.source()?.tpm)
    }

    /// Returns a session object, or an object of the last scan. Fails if the user cannot see the
    /// object now.
    pub(crate) fn object(&self, handle: ObjectHandle) -> Result<Arc<Object>, Error> {
        let of_token = match &*self.token.read() {
            Some(known) => known.object(handle).map(|found| Arc::clone(&found.object)),
            None => return Err(Error::DeviceRemoved),
        };
        let found = match of_token {
            Ok(found) => found,
            Err(unknown) => self.session_objects.lock().object(handle).ok_or(unknown)?,
        };
        match found.has_flag(CKA_PRIVATE) && self.hides_private() {
            true => Err(Error::ObjectHandleInvalid),
            false => Ok(found),
        }
    }

    /// Removes the handles of objects that no longer exist, or that the user cannot see.
    pub(crate) fn retain_seen(&self, handles: &mut VecDeque<ObjectHandle>) {
        // A token without login hides no object, so its handles need no check.
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

    /// Returns a token object, with its name in the store.
    pub(crate) fn token_object(&self, handle: ObjectHandle) -> Result<TokenObject, Error> {
        let known = self.known_token().ok_or(Error::DeviceRemoved)?;
        let found = known.object(handle)?;
        match found.object.has_flag(CKA_PRIVATE) && self.hides_private() {
            true => Err(Error::ObjectHandleInvalid),
            false => Ok(found.clone()),
        }
    }

    /// Returns true if private objects are hidden, because the user is not logged in.
    pub(crate) fn hides_private(&self) -> bool {
        !self.has_user() && self.asks_login()
    }

    /// Returns true if only a logged-in user sees private objects. On a token with a key folder
    /// each call reads files, because another process may set a PIN.
    pub(crate) fn asks_login(&self) -> bool {
        let source = self.source.as_ref();
        source.is_some_and(|source| source.store.pins() != Pins::None)
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.folder().is_ok()
    }

    /// Returns true if the token is the token for sessions, which has session objects only.
    pub(crate) fn is_for_sessions(&self) -> bool {
        let source = self.source.as_ref();
        source.is_some_and(|source| source.store.is_for_sessions())
    }

    /// Returns the key folder's store. Fails if the token takes no new objects.
    pub(crate) fn folder(&self) -> Result<&DevidStore, Error> {
        let folder = self.source()?.store.folder();
        folder.ok_or(Error::TokenWriteProtected)
    }

    /// Returns the token of the last scan. Does not start a new scan.
    pub(crate) fn known_token(&self) -> Option<Arc<Token>> {
        self.token.read().clone()
    }

    /// Returns the token. Scans again if the store's stamp changed since the last scan.
    pub(crate) fn token(&self, mint: &Mint) -> Result<Arc<Token>, Error> {
        let source = self.source()?;
        let known = self.known_token();
        let mut last = match &known {
            // The scan of a key folder is short, so the thread waits for it. A caller that changed
            // the folder expects to see the change.
            Some(token) if !self.is_writable() => match self.scan.try_lock() {
                Some(last) => last,
                // Another thread scans now. This thread returns the token of the last scan.
                None => return Ok(Arc::clone(token)),
            },
            _ => self.scan.lock(),
        };
        // The first scan needs no stamp.
        let is_due = (last.seen.is_none() && last.failed.is_none()) || {
            let stamp = source.store.stamp();
            let wait = last.failed.as_ref().is_some_and(|failure| {
                let can_be_read = failure.stamp != stamp && failure.is_of_files();
                !can_be_read && failure.ended.elapsed() < failure.rest
            });
            !wait && last.seen.as_ref() != Some(&stamp)
        };
        if is_due {
            *last = self.scan(source, &last, mint);
        }
        self.known_token().ok_or(Error::TokenNotPresent)
    }

    /// Scans again after a change by this module, and returns the token. Scans even if the stamp is
    /// unchanged.
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
                // The lock is held, so that no logout happens between reading and replacing the
                // token.
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
                    // The TPM or the folder cannot be read now. The slot keeps the objects of the
                    // last scan.
                    ScanError::Tpm(_) | ScanError::Folder(_) | ScanError::Unread(_) => {}
                    ScanError::NoIdentity(_) => *self.token.write() = None,
                }
                // The same reason is logged only once. The store has already logged each file that
                // it could not read.
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
                            // The TPM answers again as soon as it has made the key of another
                            // process.
                            ScanError::Tpm(TpmError::Busy(_)) => RESCAN_AFTER,
                            _ => RESCAN_AFTER.max(began.elapsed()),
                        },
                        why,
                    }),
                }
            }
        }
    }

    /// Asks the TPM once for its algorithms, if the token makes keys in the TPM. Until the TPM
    /// answers, the module assumes that the TPM has all algorithms.
    pub(crate) fn learn_mechanisms(&self) {
        if let Some(source) = &self.source
            && source.store.folder().is_some()
        {
            source.tpm.algorithms_or_any();
        }
    }

    /// Asks the TPM once for its largest key of this type, if the token makes keys in the TPM.
    pub(crate) fn learn_key_sizes(&self, key_type: KeyType) {
        if let (Some(source), Some(kind)) = (&self.source, key_type.kind_in_tpm()) {
            source.tpm.learn_largest(kind);
        }
    }

    /// Prepares a key for its first signature.
    pub(crate) fn prepare(&self, key: &Key) -> Result<(), Error> {
        key.prepare(self.tpm()?).map_err(|error| {
            warn!("{error}");
            error.into()
        })
    }

    /// Decrypts a ciphertext. Every error of the ciphertext has the same log line.
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

    /// Decrypts the AES key that stands before a wrapped key. Returns `None` for every error of the
    /// ciphertext. The error is not logged yet, because the caller first checks all of the wrapped
    /// data.
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

    /// Returns the bytes of a secret key. The TPM may have to unseal the key first.
    pub(crate) fn open_secret_key(&self, key: &SecretKey) -> Result<SecretBytes, Error> {
        key.open(self.tpm()?).map_err(|error| {
            warn!("secret key: {error}");
            error.into()
        })
    }

    /// Computes the shared secret of this private key and the other side's public point.
    pub(crate) fn agree(&self, key: &Key, point: &[u8]) -> Result<Secret, Error> {
        key.agree(self.tpm()?, point).map_err(|error| {
            warn!("key agreement: {error}");
            match error {
                SignError::Ciphertext => Error::MechanismParamInvalid,
                other => other.into(),
            }
        })
    }

    /// Fills `bytes` with random bytes, from the kernel or from the TPM as configured.
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

    /// Returns the user's PIN from the source that the configuration names.
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
