//! The state between C_Initialize and C_Finalize: the slots and sessions.

use crate::error::Error;
use crate::handle::{Mint, ObjectHandle, SessionHandle, SlotId};
use crate::output::Room;
use crate::session::Session;
use crate::slot::token::Token;
use crate::slot::{Slot, TokenSource};
use crate::snapshot::{Caller, ListKind, Snapshots};
use cryptoki_sys::{
    CK_FLAGS, CK_MECHANISM_INFO, CK_MECHANISM_TYPE, CK_SLOT_ID, CK_STATE, CK_USER_TYPE,
    CKF_RW_SESSION, CKF_SERIAL_SESSION, CKS_RO_PUBLIC_SESSION, CKS_RO_USER_FUNCTIONS,
    CKS_RW_PUBLIC_SESSION, CKS_RW_SO_FUNCTIONS, CKS_RW_USER_FUNCTIONS, CKU_CONTEXT_SPECIFIC,
    CKU_SO, CKU_USER,
};
pub(crate) use devid_core::Held;
use devid_core::config::{self, Config, ConfigError, LogSettings, ShowOwner};
pub(crate) use devid_core::fork;
use devid_core::identity::configured_tpm;
use devid_core::store::devid::DevidStore;
use devid_core::store::idevid::IdevidStore;
use devid_core::store::sessions::SessionStore;
use devid_core::store::{Store, UserType};
pub(crate) use devid_core::tpm::Refusals;
use log::{error, info, warn};
use once_cell::sync::OnceCell;
use parking_lot::Mutex;
use std::sync::Arc;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The state between C_Initialize and C_Finalize.
pub(crate) struct Module {
    /// The slots of the configuration. The cell is empty until the configuration was read.
    slots: OnceCell<Vec<Arc<Slot>>>,
    /// A slot without token. C_GetSlotList lists this slot until the configuration was read.
    vacant: [Arc<Slot>; 1],
    /// The reason why the last attempt to read the configuration failed. Locked briefly.
    unread: Mutex<Option<ConfigError>>,
    is_privileged: bool,
    refusals: Refusals,
    log_to: fn(LogSettings),
    held: &'static Held,
    table: Mutex<Table>,
    snapshots: Snapshots,
    pub(crate) mint: Arc<Mint>,
}

/// The open sessions. A thread locks the table only briefly, never during a TPM command.
#[derive(Default)]
struct Table {
    /// Sorted by the handle.
    sessions: Vec<Arc<Session>>,
}

/// The largest number of open sessions of a token. A program that never closes sessions gets
/// CKR_SESSION_COUNT.
pub(crate) const MOST_SESSIONS: usize = 4096;

const FACTORY: &str = "Factory identity (IEEE 802.1AR IDevID) in the TPM";
const OWN: &str = "The device's own keys, wrapped by the TPM";
const SESSIONS: &str = "Public keys of peers, kept for a session";
/// The slot number of the token for sessions. The number is fixed, so that a new token does not
/// change the numbers of the other slots.
const SESSIONS_ID: SlotId = SlotId(256);
const WITH_PIN: &str = "Factory identity in the TPM, behind a PIN";
const OF_OWNER: &str = "Factory identity, certified by its owner";

impl Module {
    /// Reads the configuration and sets up the log. Opens no other file and sends no TPM command.
    /// If the configuration is wrong, the module has one slot without token. If the configuration
    /// cannot be read now, the next call that needs the slots reads it again.
    ///
    /// `is_privileged`: the process has more rights than its caller, so the environment of the
    /// caller is ignored. `held`: the list of process locks, for forked children.
    pub(crate) fn configured(
        is_privileged: bool,
        mint: Arc<Mint>,
        refusals: Refusals,
        log_to: fn(LogSettings),
        held: &'static Held,
    ) -> Self {
        let module = Self {
            is_privileged,
            slots: OnceCell::new(),
            vacant: [Arc::new(Slot::new(SlotId(0), FACTORY, None))],
            unread: Mutex::default(),
            refusals,
            log_to,
            held,
            table: Mutex::default(),
            snapshots: Snapshots::default(),
            mint,
        };
        module.slots();
        module
    }

    /// Reads the configuration and returns the slots. Returns `Err` if the configuration cannot be
    /// read now.
    fn read_configuration(&self) -> Result<Vec<Arc<Slot>>, ()> {
        let loaded = config::load(&config::environment(self.is_privileged));
        match &loaded.config {
            Ok(config) => {
                (self.log_to)(loaded.log);
                if self.is_privileged {
                    info!(
                        "this process has more rights than its caller: environment variables are ignored"
                    );
                }
                info!("initialised, version {}, {}", VERSION, config.tcti);
                config.warnings().for_each(|warning| warn!("{warning}"));
                let slots = slots(config, self.refusals.clone(), self.held).into_iter();
                let slots = slots.map(|slot| slot.auditing(config.audit));
                Ok(slots.map(Arc::new).collect())
            }
            Err(fault) if fault.is_unread() => {
                let mut unread = self.unread.lock();
                if unread.as_ref() != Some(fault) {
                    (self.log_to)(loaded.log);
                    error!(
                        "the module shows no token until the configuration can be read: {fault}"
                    );
                    *unread = Some(fault.clone());
                }
                Err(())
            }
            Err(fault) => {
                (self.log_to)(loaded.log);
                error!("the module shows no token until the configuration is corrected: {fault}");
                Ok(self.vacant.to_vec())
            }
        }
    }

    /// Returns the module for a forked child that has not called C_Initialize: the state of the
    /// parent with new connections. Sends nothing to the TPM. Takes no lock that another thread of
    /// the parent may have held.
    pub(crate) fn for_child(&self, mint: Arc<Mint>, refusals: &Refusals) -> Self {
        let known = self.slots.get().map(Vec::as_slice);
        let tpm = known.into_iter().flatten().find_map(|slot| slot.tpm().ok());
        let tpm = tpm.map(|tpm| Arc::new(tpm.for_child(refusals.clone())));
        let for_child = |slot: &Arc<Slot>| Arc::new(slot.for_child(tpm.as_ref()));
        let inherited = known.map(|known| known.iter().map(for_child).collect::<Vec<_>>());
        let slots = inherited.as_deref().unwrap_or_default();
        let mut table = Table::default();
        if let Some(inherited) = self.table.try_lock() {
            for session in &inherited.sessions {
                let slot = slots.iter().find(|slot| slot.id == session.slot.id);
                if let Some(session) = slot.and_then(|slot| session.for_child(Arc::clone(slot))) {
                    table.insert(Arc::new(session));
                }
            }
        }
        Self {
            slots: inherited.map_or_else(OnceCell::new, OnceCell::with_value),
            vacant: [Arc::new(Slot::new(SlotId(0), FACTORY, None))],
            unread: Mutex::default(),
            is_privileged: self.is_privileged,
            refusals: refusals.clone(),
            log_to: self.log_to,
            held: self.held,
            table: Mutex::new(table),
            snapshots: self.snapshots.for_child(),
            mint,
        }
    }

    /// Ends the module for C_Finalize, and logs out the users of all tokens.
    pub(crate) fn finalize(&self) {
        for slot in self.slots.get().into_iter().flatten() {
            slot.logout(&self.mint);
            if let Some(audit) = &slot.audit {
                audit.finish();
            }
        }
    }

    pub(crate) fn slots(&self) -> &[Arc<Slot>] {
        let slots = self.slots.get_or_try_init(|| self.read_configuration());
        slots.map_or(&self.vacant, Vec::as_slice)
    }

    pub(crate) fn slot(&self, id: SlotId) -> Result<&Arc<Slot>, Error> {
        self.slots()
            .iter()
            .find(|slot| slot.id == id)
            .ok_or(Error::SlotIdInvalid)
    }

    /// Returns the token of a slot. Scans the slot if necessary. The token for sessions is present
    /// only if another token is present.
    pub(crate) fn token(&self, slot: &Slot) -> Result<Arc<Token>, Error> {
        let has_token =
            |slot: &Arc<Slot>| !slot.is_for_sessions() && slot.token(&self.mint).is_ok();
        match slot.is_for_sessions() && !self.slots().iter().any(has_token) {
            true => Err(Error::TokenNotPresent),
            false => slot.token(&self.mint),
        }
    }

    /// Returns the slots that have a token. `room` is the size of the caller's buffer.
    pub(crate) fn slots_with_token(&self, caller: Caller, room: Room) -> Vec<CK_SLOT_ID> {
        let has_token = |slot: &&Arc<Slot>| self.token(slot).is_ok();
        self.snapshots.answer(ListKind::Present, caller, room, || {
            let present = self.slots().iter().filter(has_token);
            present.map(|slot| slot.id.0).collect()
        })
    }

    /// Returns the mechanisms of a slot's token. `room` is the size of the caller's buffer.
    pub(crate) fn mechanisms(
        &self,
        slot: &Slot,
        token: &Token,
        caller: Caller,
        room: Room,
    ) -> Vec<CK_MECHANISM_TYPE> {
        let list = ListKind::Mechanisms(slot.id);
        self.snapshots.answer(list, caller, room, || {
            slot.learn_mechanisms();
            token.mechanisms()
        })
    }

    /// Returns the information on a mechanism of a slot's token.
    pub(crate) fn mechanism_info(
        &self,
        slot: &Slot,
        kind: CK_MECHANISM_TYPE,
    ) -> Result<CK_MECHANISM_INFO, Error> {
        let token = self.token(slot)?;
        slot.learn_mechanisms();
        for key_type in token.made_by(kind) {
            slot.learn_key_sizes(key_type);
        }
        token.mechanism_info(kind)
    }

    pub(crate) fn session(&self, handle: SessionHandle) -> Result<Arc<Session>, Error> {
        let table = self.table.lock();
        match table.place(handle) {
            Ok(at) => Ok(Arc::clone(&table.sessions[at])),
            Err(_) => Err(Error::SessionHandleInvalid),
        }
    }

    pub(crate) fn open_session(&self, id: SlotId, flags: CK_FLAGS) -> Result<SessionHandle, Error> {
        let slot = self.slot(id)?;
        if flags & CKF_SERIAL_SESSION == 0 {
            return Err(Error::SessionParallelNotSupported);
        }
        self.token(slot)?;
        let is_read_write = flags & CKF_RW_SESSION != 0;
        let handle = self.mint.session();
        let session = Arc::new(Session::new(handle, Arc::clone(slot), is_read_write));
        // The lock is held until the end of this function, so that the security officer cannot log
        // in during it.
        let mut table = self.table.lock();
        if !is_read_write && slot.has_security_officer() {
            return Err(Error::SessionReadWriteSoExists);
        }
        if table.sessions_of(id).count() >= MOST_SESSIONS {
            return Err(Error::SessionCount);
        }
        let room = table.sessions.try_reserve(1);
        room.map_err(|_| Error::HostMemory)?;
        table.insert(session);
        Ok(handle)
    }

    pub(crate) fn close_session(&self, handle: SessionHandle) -> Result<(), Error> {
        let mut table = self.table.lock();
        let closed = table
            .place(handle)
            .map_err(|_| Error::SessionHandleInvalid)?;
        let closed = table.sessions.remove(closed);
        closed
            .slot
            .session_objects
            .lock()
            .remove_of_session(Some(handle));
        if table.sessions_of(closed.slot.id).next().is_none() {
            closed.slot.logout(&self.mint);
        }
        Ok(())
    }

    pub(crate) fn close_all_sessions(&self, id: SlotId) -> Result<(), Error> {
        let slot = self.slot(id)?;
        let mut table = self.table.lock();
        table.sessions.retain(|session| session.slot.id != id);
        slot.logout(&self.mint);
        // Session objects are removed after the sessions. A thread that makes an object at this
        // time finds no session.
        slot.session_objects.lock().remove_of_session(None);
        Ok(())
    }

    /// Calls `call`, which makes objects for a session, and returns their handles. If another
    /// thread closed the session during the call, the new session objects are removed.
    pub(crate) fn create<H: AsRef<[ObjectHandle]>>(
        &self,
        handle: SessionHandle,
        call: impl FnOnce(&Session, &Mint) -> Result<H, Error>,
    ) -> Result<H, Error> {
        let session = self.session(handle)?;
        let made = call(&session, &self.mint)?;
        if let Err(closed) = self.session(handle) {
            let mut session_objects = session.slot.session_objects.lock();
            for object in made.as_ref() {
                session_objects.remove(*object);
            }
            return Err(closed);
        }
        Ok(made)
    }

    /// Returns the number of all sessions of a slot, and the number of read-write sessions.
    pub(crate) fn session_counts(&self, id: SlotId) -> (usize, usize) {
        let table = self.table.lock();
        let read_write = table
            .sessions_of(id)
            .filter(|session| session.is_read_write);
        (table.sessions_of(id).count(), read_write.count())
    }

    pub(crate) fn session_state(&self, session: &Session) -> CK_STATE {
        if session.slot.has_security_officer() {
            return CKS_RW_SO_FUNCTIONS;
        }
        // NSS asks its user for a PIN if a token with CKF_LOGIN_REQUIRED has a public session.
        let has_user = session.slot.has_user() || session.slot.is_for_sessions();
        match (session.is_read_write, has_user) {
            (false, false) => CKS_RO_PUBLIC_SESSION,
            (false, true) => CKS_RO_USER_FUNCTIONS,
            (true, false) => CKS_RW_PUBLIC_SESSION,
            (true, true) => CKS_RW_USER_FUNCTIONS,
        }
    }

    pub(crate) fn login(
        &self,
        handle: SessionHandle,
        user: CK_USER_TYPE,
        pin: Option<&[u8]>,
    ) -> Result<(), Error> {
        let session = self.session(handle)?;
        let who = match user {
            CKU_USER => UserType::User,
            CKU_SO => UserType::SecurityOfficer,
            CKU_CONTEXT_SPECIFIC => return session.prove_user(pin, &self.mint),
            _ => return Err(Error::UserTypeInvalid),
        };
        // The security officer can log in only if all sessions are read-write sessions.
        if who == UserType::SecurityOfficer && self.table.lock().has_read_only(session.slot.id) {
            return Err(Error::SessionReadOnlyExists);
        }
        // The TPM may need a long time to check the PIN. Another thread may close the session
        // during that time.
        session.slot.login(who, pin, || {
            let table = self.table.lock();
            if table.place(handle).is_err() {
                return Err(Error::SessionHandleInvalid);
            }
            if who == UserType::SecurityOfficer && table.has_read_only(session.slot.id) {
                return Err(Error::SessionReadOnlyExists);
            }
            session.slot.logged_in.set(who);
            Ok(())
        })
    }

    /// Implements C_InitToken.
    pub(crate) fn init_token(&self, id: SlotId, pin: &[u8], label: &[u8]) -> Result<(), Error> {
        let slot = self.slot(id)?;
        slot.folder()?;
        if self.session_counts(id).0 != 0 {
            return Err(Error::SessionExists);
        }
        let label = str::from_utf8(label.trim_ascii_end())
            .map_err(|_| Error::ArgumentsBad("the label is not UTF-8"))?;
        slot.init_token(pin, label, &self.mint)
    }

    pub(crate) fn logout(&self, handle: SessionHandle) -> Result<(), Error> {
        // The lock is held until the end of this function, so that no login happens during it.
        let table = self.table.lock();
        let session = table.place(handle).map(|at| &table.sessions[at]);
        let slot = &session.map_err(|_| Error::SessionHandleInvalid)?.slot;
        if !slot.logout(&self.mint) {
            return Err(Error::UserNotLoggedIn);
        }
        if slot.asks_login() {
            table
                .sessions_of(slot.id)
                .for_each(|one| one.forget_private_operations());
        }
        Ok(())
    }
}

/// Makes the slots with one connection to the TPM. The order of the slots: the factory identity,
/// the device's own keys, further key folders, identities with a PIN, the certificates of the
/// owner.
///
/// The token for sessions comes directly after the first key folder. A client that searches for a
/// token with login then finds the token for sessions first.
/// The user of a service sees only the token of that service and the token for sessions.
fn slots(config: &Config, refusals: Refusals, held: &'static Held) -> Vec<Slot> {
    let tpm = Arc::new(configured_tpm(config, refusals).noting_locks(held));
    let random = config.random;
    let factory = TokenSource::new(
        &tpm,
        Store::Factory(IdevidStore::shown(config, Arc::clone(&tpm))),
        random,
    );
    let mut sources = vec![(FACTORY, factory)];
    let own = DevidStore::all(config, &tpm);
    let service = own.iter().find(|store| store.is_of_own_service());
    let service = service.map(|store| store.name().to_owned());
    let own = own.into_iter();
    sources.extend(own.map(|store| (OWN, TokenSource::new(&tpm, Store::Folder(store), random))));
    let with_pin = IdevidStore::shown_with_pin(config, &tpm).into_iter();
    sources.extend(with_pin.map(|store| {
        (
            WITH_PIN,
            TokenSource::new(&tpm, Store::Factory(store), random),
        )
    }));
    if config.owner.show == ShowOwner::Token {
        let store = Store::Factory(IdevidStore::of_owner(config, Arc::clone(&tpm)));
        sources.push((OF_OWNER, TokenSource::new(&tpm, store, random)));
    }
    let numbered = (0..).zip(sources);
    let is_seen = |source: &TokenSource| service.is_none() || source.is_of_own_service();
    let mut slots: Vec<_> = numbered
        .filter(|(_, (_, source))| is_seen(source))
        .map(|(id, (description, source))| Slot::new(SlotId(id), description, Some(source)))
        .collect();
    if config.session_slot {
        let source = TokenSource::new(&tpm, Store::Sessions(SessionStore { service }), random);
        let after_devid = slots.len().min(2);
        slots.insert(after_devid, Slot::new(SESSIONS_ID, SESSIONS, Some(source)));
    }
    slots
}

impl Table {
    /// Returns the position of a session, or the position where it would be inserted.
    fn place(&self, handle: SessionHandle) -> Result<usize, usize> {
        let sessions = &self.sessions;
        sessions.binary_search_by(|session| session.handle.0.cmp(&handle.0))
    }

    fn insert(&mut self, session: Arc<Session>) {
        // No handle occurs twice in a process, so the place is always free.
        let (Ok(at) | Err(at)) = self.place(session.handle);
        self.sessions.insert(at, session);
    }

    fn has_read_only(&self, id: SlotId) -> bool {
        self.sessions_of(id).any(|session| !session.is_read_write)
    }

    fn sessions_of(&self, id: SlotId) -> impl Iterator<Item = &Arc<Session>> {
        let sessions = self.sessions.iter();
        sessions.filter(move |session| session.slot.id == id)
    }
}
