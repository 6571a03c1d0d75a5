//! Primary keys without a handle: derived from a template when needed, and flushed afterwards.
//!
//! A TPM derives the same primary key from the same template. Deriving is slow, so the context is
//! saved. A signature then costs TPM2_ContextLoad, Sign and FlushContext, and no object stays in
//! the few slots of the TPM.

use super::exchange::{AuthSubject, Exchange};
use super::policy::DevIdKind;
use super::structures::endorsement::is_endorsement_key;
use super::{
    AuthHandle, Link, PublicArea, ResponseCode, SRK, Tpm, TpmError, handle, qualified_name_below,
    template,
};
use super::{flush, is_gone};
use crate::key::PublicKey;
use log::{debug, info, warn};
use parking_lot::Mutex;

/// A key by its template and name.
#[derive(Debug)]
pub struct PrimaryKey {
    template: Vec<u8>,
    name: Vec<u8>,
    /// Locked only briefly; a thread that finds it locked derives the key instead.
    context: Mutex<SavedContext>,
}

/// The saved state of a key for its next use.
#[derive(Debug, Clone, Default)]
enum SavedContext {
    /// No context is saved now.
    #[default]
    Nothing,
    Context(KeyContext),
    /// No context will be saved: the TPM saves none for this key, or a context gave another key.
    Never,
}

/// A saved context, and whether it was proven.
#[derive(Debug, Clone)]
struct KeyContext {
    /// TPMS_CONTEXT.
    saved: Vec<u8>,
    /// True if TPM2_ContextLoad returned the right key once.
    proven: bool,
}

/// A template that gave the right key: its area, its name and its saved context.
type Tried = (PublicArea, Vec<u8>, SavedContext);

impl PrimaryKey {
    /// The template from which the TPM derives the key.
    pub fn template(&self) -> &[u8] {
        &self.template
    }

    /// The TPM name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }
}

impl Tpm {
    /// Tries the factory templates, `likeliest` first, until one gives this public key.
    ///
    /// `None` if no template fits. Two commands for each candidate, three for the right one. Each
    /// candidate costs a key generation, with the time limit of a generation.
    pub fn find_primary_key(
        &self,
        public: &PublicKey,
        likeliest: Option<Vec<u8>>,
    ) -> Result<Option<(PublicArea, PrimaryKey)>, TpmError> {
        let candidates = template::devid_candidates(DevIdKind::Identity, public);
        self.derived_by(likeliest.into_iter().chain(candidates), public)
    }

    /// Tries the templates of attestation keys in the same way.
    #[cfg(feature = "evidence")]
    pub(crate) fn find_attestation_primary(
        &self,
        public: &PublicKey,
    ) -> Result<Option<(PublicArea, PrimaryKey)>, TpmError> {
        let candidates = template::devid_candidates(DevIdKind::Attestation, public);
        self.derived_by(candidates.into_iter(), public)
    }

    fn derived_by(
        &self,
        candidates: impl Iterator<Item = Vec<u8>>,
        public: &PublicKey,
    ) -> Result<Option<(PublicArea, PrimaryKey)>, TpmError> {
        for template in candidates {
            match self.derived(template, Some(public)) {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                // The TPM lacks an algorithm, or a damaged hint is not a valid structure.
                Err(error) if is_refusal(&error) => info!("template refused: {error}"),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The key that a template gives, if its public key is this one. Two commands, three for the
    /// right one.
    pub(super) fn derived(
        &self,
        template: Vec<u8>,
        public: Option<&PublicKey>,
    ) -> Result<Option<(PublicArea, PrimaryKey)>, TpmError> {
        let hierarchy = AuthSubject::open(b"endorsement", "the endorsement hierarchy");
        let tried = Exchange::authorised("CreatePrimary", hierarchy, None)
            .needing_object_slot()
            .run(self, |link| try_template(link, &template, public))?;
        Ok(tried.map(|(area, name, context)| {
            let context = Mutex::new(context);
            let key = PrimaryKey {
                template,
                name,
                context,
            };
            (area, key)
        }))
    }

    /// Runs commands with a primary key: two more commands, and another two if its context was
    /// lost. The commands may run twice.
    pub(crate) fn with_primary<R>(
        &self,
        what: &str,
        key: &PrimaryKey,
        mut commands: impl FnMut(&mut Link, AuthHandle) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        let subject = AuthSubject::open(&key.name, "the derived key");
        let exchange = Exchange::authorised(what, subject, None).needing_object_slot();
        exchange.run(self, |link| {
            let mut handle = key.load(link)?;
            let mut answer = commands(link, AuthHandle::open(handle, &key.name));
            // Without a resource manager another program may flush our object.
            if is_gone(&answer) {
                handle = key.load(link)?;
                answer = commands(link, AuthHandle::open(handle, &key.name));
            }
            flush(link, handle, &answer);
            answer
        })
    }

    /// Flushes transient objects that are keys of ours, lie below the master key, or come from
    /// factory templates. A lost answer or a killed process left them behind. A program that is
    /// using such an object must load it again.
    ///
    /// With `roots` it also flushes storage root keys, storage keys and attestation keys like ours
    /// below one, and endorsement keys. A killed provisioning or attestation may leave them. Other programs make such keys too, so this is for the
    /// case that no slot became free for long.
    ///
    /// If `code` reports missing session slots, sessions that have existed for long are flushed
    /// too.
    pub(super) fn reclaim(
        &self,
        link: &mut Link,
        code: ResponseCode,
        roots: bool,
    ) -> Result<(), TpmError> {
        let master = match self.master.map(|master| link.qualified_name(master)) {
            Some(Err(error)) if error.is_transport_fault() => return Err(error),
            other => other.and_then(Result::ok).flatten(),
        };
        for handle in link.handles(handle::TRANSIENT)? {
            let ours = match self.may_flush(link, handle, master.as_deref()) {
                Ok(false) if roots => is_root_or_below(link, handle),
                judged => judged,
            };
            match ours {
                Ok(true) => {
                    warn!("transient 0x{handle:08X} was left over, flushed");
                    link.flush(handle)?;
                }
                Ok(false) | Err(TpmError::Response(_) | TpmError::Unsupported(_)) => {}
                Err(error) => return Err(error),
            }
        }
        match roots && code.is_out_of_sessions() {
            true => reclaim_sessions(link),
            false => Ok(()),
        }
    }

    /// True if a transient object is ours. Our objects are keys that this process loads, factory
    /// keys, and keys below the master key of this qualified name.
    pub(super) fn may_flush(
        &self,
        link: &mut Link,
        handle: u32,
        master: Option<&[u8]>,
    ) -> Result<bool, TpmError> {
        let (area, name) = link.read_public(handle)?;
        if self.is_flushable(&name) || template::is_devid_template(&area) {
            return Ok(true);
        }
        // Session keys of a dead process are recognised only by their parent, or by their template
        // if the TPM returns no qualified name.
        let Some(there) = link.qualified_name(handle)? else {
            return Ok(template::is_device_key(&area));
        };
        let below = master.and_then(|master| qualified_name_below(master, &name));
        Ok(below.is_some_and(|below| below == there))
    }
}

/// Flushes loaded auth sessions. Our sessions last for one command, so an old session was left by a
/// killed process. A session of another program cannot be told from it; that program must then
/// start a new one.
fn reclaim_sessions(link: &mut Link) -> Result<(), TpmError> {
    for handle in link.sessions()? {
        warn!("session 0x{handle:08X} was left over, flushed");
        link.flush(handle)?;
    }
    Ok(())
}

/// True if a transient object has the template of our storage root key or salt key. True also for a
/// storage key or attestation key with our template below a storage root key, and for an
/// endorsement key.
fn is_root_or_below(link: &mut Link, handle: u32) -> Result<bool, TpmError> {
    const HIERARCHIES: [u32; 3] = [handle::OWNER, handle::NULL, handle::ENDORSEMENT];
    let (area, name) = link.read_public(handle)?;
    let is_ours = template::is_storage_root(&area) || template::is_attestation_key(&area);
    if !is_ours && !is_endorsement_key(&area) {
        return Ok(false);
    }
    // If the TPM returns no qualified name, the template decides.
    let Some(there) = link.qualified_name(handle)? else {
        return Ok(true);
    };
    let below = |one: u32| qualified_name_below(&one.to_be_bytes(), &name);
    if HIERARCHIES
        .into_iter()
        .any(|one| below(one).as_ref() == Some(&there))
    {
        return Ok(true);
    }
    match link.qualified_name(SRK) {
        Ok(root) => {
            let below = root.and_then(|root| qualified_name_below(&root, &name));
            Ok(below == Some(there))
        }
        Err(TpmError::Response(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// True if the template is at fault, so that another template may work. False if the hierarchy or
/// the TPM is at fault.
fn is_refusal(error: &TpmError) -> bool {
    match error {
        TpmError::Response(code) => code.is_definite() && !code.is_of_handle_or_session(),
        other => matches!(other, TpmError::Unsupported(_)),
    }
}

/// True if a context is unusable: the TPM restarted, the link changed, or the TPM keeps no contexts
/// of flushed objects.
fn is_useless(error: &TpmError) -> bool {
    match error {
        TpmError::Response(code) => !code.is_temporary(),
        other => matches!(other, TpmError::Unsupported(_)),
    }
}

impl PrimaryKey {
    /// Loads the key from its saved context, or derives it again. Returns a transient handle, which
    /// the caller flushes. One command, and one more at the first load of a context.
    pub(super) fn load(&self, link: &mut Link) -> Result<u32, TpmError> {
        let kept = self.context.try_lock().map(|kept| kept.clone());
        let mut saves = !matches!(kept, Some(SavedContext::Never));
        if let Some(SavedContext::Context(context)) = kept {
            match self.load_context(link, context)? {
                Ok(handle) => return Ok(handle),
                Err(saves_again) => saves = saves_again,
            }
        }
        let (handle, _, name) = link.create_primary(AuthHandle::endorsement(), &self.template)?;
        if name != self.name {
            link.flush(handle)?;
            return Err(TpmError::SeedChanged);
        }
        let kept = match saves {
            true => saved(link, handle)?,
            false => SavedContext::Never,
        };
        if let Some(mut place) = self.context.try_lock() {
            *place = kept;
        }
        Ok(handle)
    }

    /// Loads the key from its saved context. If this fails, tells if a new context may help; it
    /// cannot if the TPM returned another key.
    fn load_context(
        &self,
        link: &mut Link,
        context: KeyContext,
    ) -> Result<Result<u32, bool>, TpmError> {
        let handle = match link.context_load(&context.saved) {
            Ok(handle) => handle,
            Err(error) if is_useless(&error) => {
                debug!("TPM2_ContextLoad: {error}; the key is derived anew");
                return Ok(Err(true));
            }
            Err(error) => return Err(error),
        };
        if context.proven {
            return Ok(Ok(handle));
        }
        match link.read_public(handle) {
            Ok((_, name)) if name == self.name => {
                if let Some(mut place) = self.context.try_lock() {
                    let proven = true;
                    *place = SavedContext::Context(KeyContext { proven, ..context });
                }
                Ok(Ok(handle))
            }
            Ok(_) => {
                warn!("TPM2_ContextLoad gave another key back; the key is derived for each use");
                link.flush(handle)?;
                Ok(Err(false))
            }
            Err(error) if is_useless(&error) => {
                flush(link, handle, &Ok(()));
                Ok(Err(true))
            }
            Err(error) => Err(error),
        }
    }

    /// Forgets a proven context, because a signature did not verify. Returns `false` if there is
    /// none.
    pub(crate) fn forget_context(&self) -> bool {
        let Some(mut place) = self.context.try_lock() else {
            return false;
        };
        let SavedContext::Context(context) = &*place else {
            return false;
        };
        let was_proven = context.proven;
        *place = SavedContext::Nothing;
        was_proven
    }
}

/// Saves the context of an object. If the TPM refuses, the key is derived for this use only, or
/// always if the TPM never saves contexts.
fn saved(link: &mut Link, handle: u32) -> Result<SavedContext, TpmError> {
    let kept = match link.context_save(handle) {
        Ok(saved) => {
            return Ok(SavedContext::Context(KeyContext {
                saved,
                proven: false,
            }));
        }
        Err(TpmError::Response(code)) if !code.is_definite() => {
            debug!("TPM2_ContextSave: {code}");
            SavedContext::Nothing
        }
        Err(error @ (TpmError::Response(_) | TpmError::Unsupported(_))) => {
            debug!("TPM2_ContextSave: {error}; the key is derived for each use");
            SavedContext::Never
        }
        Err(error) => return Err(error),
    };
    Ok(kept)
}

/// TPMS_CONTEXT of an object; `None` if the TPM refuses to save it.
pub(super) fn saved_context(link: &mut Link, handle: u32) -> Result<Option<Vec<u8>>, TpmError> {
    Ok(match saved(link, handle)? {
        SavedContext::Context(context) => Some(context.saved),
        SavedContext::Nothing | SavedContext::Never => None,
    })
}

/// `None` if the template gives another key.
fn try_template(
    link: &mut Link,
    template: &[u8],
    public: Option<&PublicKey>,
) -> Result<Option<Tried>, TpmError> {
    let (handle, area, name) = link.create_primary(AuthHandle::endorsement(), template)?;
    let context = match PublicArea::parse(&area) {
        Some(area) if public.is_none_or(|public| area.key == *public) => {
            Some((area, saved(link, handle)))
        }
        _ => None,
    };
    link.flush(handle)?;
    context
        .map(|(area, context)| Ok((area, name, context?)))
        .transpose()
}
