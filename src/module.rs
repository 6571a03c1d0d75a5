//! The module between C_Initialize and C_Finalize: its slots, its sessions, who is logged in.

use crate::attribute::Template;
use crate::error::Error;
use crate::handle::{Mint, ObjectHandle, SessionHandle, SlotId};
use crate::session::Session;
use crate::token::Slot;
use cryptoki_sys::{
    CK_FLAGS, CK_STATE, CK_USER_TYPE, CKF_RW_SESSION, CKF_SERIAL_SESSION, CKS_RO_PUBLIC_SESSION,
    CKS_RO_USER_FUNCTIONS, CKU_CONTEXT_SPECIFIC, CKU_SO, CKU_USER,
};
use devid_core::config::{self, LogSettings};
pub(crate) use devid_core::tpm::Refusals;
use log::{error, info};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// All that lives between C_Initialize and C_Finalize.
pub(crate) struct Module {
    slots: Vec<Arc<Slot>>,
    table: Mutex<Table>,
    pub(crate) mint: Arc<Mint>,
}

/// Held for moments only, never over a TPM command.
#[derive(Default)]
struct Table {
    sessions: HashMap<SessionHandle, Arc<Session>>,
    /// Tokens with a user logged in; ends with the token's last session (section 5.6.8).
    logged_in: HashSet<SlotId>,
}

impl Module {
    /// Reads the configuration, and says how to log from now on. Opens nothing else and asks no
    /// TPM; where the configuration is wrong, the slot has no token.
    pub(crate) fn configured(
        mint: Arc<Mint>,
        refusals: Refusals,
        log_to: impl FnOnce(LogSettings),
    ) -> Self {
        let loaded = config::load(&config::environment);
        log_to(loaded.log);
        match &loaded.config {
            Ok(config) => info!("initialised, version {}, {}", VERSION, config.tcti),
            Err(fault) => error!("no token is shown until the configuration is mended: {fault}"),
        }
        let slot = Slot::new(SlotId(0), loaded.config.as_ref().ok(), refusals);
        Self {
            slots: vec![Arc::new(slot)],
            table: Mutex::default(),
            mint,
        }
    }

    /// The module in a forked child that has not called C_Initialize: what the parent knew, over
    /// connections of its own. Sends nothing, and takes no lock that might never be released.
    pub(crate) fn for_child(&self, mint: Arc<Mint>, refusals: &Refusals) -> Self {
        let slots: Vec<_> = self
            .slots
            .iter()
            .map(|slot| Arc::new(slot.for_child(refusals.clone())))
            .collect();
        let mut table = Table::default();
        if let Some(inherited) = self.table.try_lock() {
            table.logged_in = inherited.logged_in.clone();
            for session in inherited.sessions.values() {
                let slot = slots.iter().find(|slot| slot.id == session.slot.id);
                if let Some(session) = slot.and_then(|slot| session.for_child(Arc::clone(slot))) {
                    table.sessions.insert(session.handle, Arc::new(session));
                }
            }
        }
        Self {
            slots,
            table: Mutex::new(table),
            mint,
        }
    }

    pub(crate) fn slots(&self) -> &[Arc<Slot>] {
        &self.slots
    }

    pub(crate) fn slot(&self, id: SlotId) -> Result<&Arc<Slot>, Error> {
        self.slots
            .iter()
            .find(|slot| slot.id == id)
            .ok_or(Error::SlotIdInvalid)
    }

    pub(crate) fn session(&self, handle: SessionHandle) -> Result<Arc<Session>, Error> {
        self.table
            .lock()
            .sessions
            .get(&handle)
            .cloned()
            .ok_or(Error::SessionHandleInvalid)
    }

    pub(crate) fn open_session(&self, id: SlotId, flags: CK_FLAGS) -> Result<SessionHandle, Error> {
        let slot = self.slot(id)?;
        if flags & CKF_SERIAL_SESSION == 0 {
            return Err(Error::SessionParallelNotSupported);
        }
        slot.token(&self.mint)?;
        if flags & CKF_RW_SESSION != 0 {
            return Err(Error::TokenWriteProtected);
        }
        let handle = self.mint.session();
        let session = Arc::new(Session::new(handle, Arc::clone(slot)));
        self.table.lock().sessions.insert(handle, session);
        Ok(handle)
    }

    pub(crate) fn close_session(&self, handle: SessionHandle) -> Result<(), Error> {
        let mut table = self.table.lock();
        let closed = table
            .sessions
            .remove(&handle)
            .ok_or(Error::SessionHandleInvalid)?;
        closed.slot.forget_session(Some(handle));
        if table.count(closed.slot.id) == 0 {
            table.logged_in.remove(&closed.slot.id);
        }
        Ok(())
    }

    pub(crate) fn close_all_sessions(&self, id: SlotId) -> Result<(), Error> {
        let slot = self.slot(id)?;
        let mut table = self.table.lock();
        table.sessions.retain(|_, session| session.slot.id != id);
        table.logged_in.remove(&id);
        // After the sessions: an object made meanwhile sees that its session is gone.
        slot.forget_session(None);
        Ok(())
    }

    /// Makes an object of a session, unless that is closed meanwhile by another thread.
    pub(crate) fn create_object(
        &self,
        handle: SessionHandle,
        template: &Template,
    ) -> Result<ObjectHandle, Error> {
        let session = self.session(handle)?;
        let object = session.create(template, &self.mint)?;
        if let Err(closed) = self.session(handle) {
            session.slot.forget(object);
            return Err(closed);
        }
        Ok(object)
    }

    pub(crate) fn session_count(&self, id: SlotId) -> usize {
        self.table.lock().count(id)
    }

    pub(crate) fn session_state(&self, session: &Session) -> CK_STATE {
        match self.table.lock().logged_in.contains(&session.slot.id) {
            true => CKS_RO_USER_FUNCTIONS,
            false => CKS_RO_PUBLIC_SESSION,
        }
    }

    /// The token has no PIN: any is taken, and none goes to the TPM, where a wrong one would count
    /// towards its lockout.
    pub(crate) fn login(&self, handle: SessionHandle, user: CK_USER_TYPE) -> Result<(), Error> {
        let mut table = self.table.lock();
        let slot = table.slot_of(handle)?;
        match user {
            CKU_USER if table.logged_in.insert(slot) => Ok(()),
            CKU_USER => Err(Error::UserAlreadyLoggedIn),
            // The security officer wants read-write sessions only, and this one is not.
            CKU_SO => Err(Error::SessionReadOnlyExists),
            // No key here asks for a login of its own.
            CKU_CONTEXT_SPECIFIC => Err(Error::OperationNotInitialized),
            _ => Err(Error::UserTypeInvalid),
        }
    }

    pub(crate) fn logout(&self, handle: SessionHandle) -> Result<(), Error> {
        let mut table = self.table.lock();
        let slot = table.slot_of(handle)?;
        match table.logged_in.remove(&slot) {
            true => Ok(()),
            false => Err(Error::UserNotLoggedIn),
        }
    }
}

impl Table {
    fn slot_of(&self, handle: SessionHandle) -> Result<SlotId, Error> {
        let session = self.sessions.get(&handle);
        session
            .map(|session| session.slot.id)
            .ok_or(Error::SessionHandleInvalid)
    }

    fn count(&self, id: SlotId) -> usize {
        self.sessions
            .values()
            .filter(|session| session.slot.id == id)
            .count()
    }
}
