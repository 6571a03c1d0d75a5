//! Keys without a handle: derived from a template whenever they are needed, and gone again.
//!
//! A TPM gives the same primary key for the same template. Deriving is slow, so its context is
//! saved: a signature then costs TPM2_ContextLoad, Sign and FlushContext, and nothing of ours stays
//! in the few slots that a TPM has for objects.

use super::exchange::{AuthSubject, Exchange};
use super::policy::DevIdKind;
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
    /// Held for moments only; whoever finds it held does without.
    context: Mutex<SavedContext>,
}

/// What is kept of a key for its next use.
#[derive(Debug, Clone, Default)]
enum SavedContext {
    /// Nothing yet, or no more.
    #[default]
    Nothing,
    Context(KeyContext),
    /// Nothing for good: the TPM saves no contexts of it, or gave another key back.
    Never,
}

/// A saved context, and what is known of it.
#[derive(Debug, Clone)]
struct KeyContext {
    /// TPMS_CONTEXT.
    saved: Vec<u8>,
    /// True if TPM2_ContextLoad was seen to give the key back.
    proven: bool,
}

/// A template that gave the right key: its area, its name and its saved context.
type Tried = (PublicArea, Vec<u8>, SavedContext);

impl PrimaryKey {
    /// The template that the TPM derives the key from.
    pub fn template(&self) -> &[u8] {
        &self.template
    }

    /// The TPM name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }
}

impl Tpm {
    /// Tries the templates of factories, `likeliest` before all, until one gives this public key.
    ///
    /// `None` if none does. Two commands for each candidate, three for the right one. Each candidate is
    /// a key generation, and has the whole limit of one.
    pub fn find_primary_key(
        &self,
        public: &PublicKey,
        likeliest: Option<Vec<u8>>,
    ) -> Result<Option<(PublicArea, PrimaryKey)>, TpmError> {
        let candidates = template::devid_candidates(DevIdKind::Identity, public);
        self.derived_by(likeliest.into_iter().chain(candidates), public)
    }

    /// The same with the templates of attestation keys.
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
                // This TPM lacks an algorithm; or a damaged hint, no structure at all.
                Err(error) if is_refusal(&error) => info!("template refused: {error}"),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The key that a template gives, if it is this one. Two commands, and three for the right one.
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

    /// Runs commands with a derived key: two commands more, and another two where its context was
    /// lost. They may run twice.
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
            // On a TPM that all share, somebody may flush what is not his.
            if is_gone(&answer) {
                handle = key.load(link)?;
                answer = commands(link, AuthHandle::open(handle, &key.name));
            }
            flush(link, handle, &answer);
            answer
        })
    }

    /// Flushes the transient objects that are keys of ours, lie below the master key, or come from a
    /// factory's templates: left by an exchange whose answer was lost, or by a process that was
    /// killed. Somebody who is just using his own loads it again.
    ///
    /// With `roots` also storage root keys, and storage keys as ours below one: what a provisioning
    /// left that was killed before the master key had its handle. Others make such keys too and
    /// load them again, so that is for when nobody else gave up a slot for long.
    ///
    /// Where `code` says that slots for sessions are lacking, those that others did not give up for
    /// long are flushed too.
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

    /// True if a transient object is one of ours: a key that this process loads, a factory's key, or what lies
    /// below the master key of this qualified name.
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
        // Session keys of a process that is gone are known to nobody, but by what wraps them; or, where
        // the TPM does not tell that, by their template.
        let Some(there) = link.qualified_name(handle)? else {
            return Ok(template::is_device_key(&area));
        };
        let below = master.and_then(|master| qualified_name_below(master, &name));
        Ok(below.is_some_and(|below| below == there))
    }
}

/// Flushes loaded auth sessions. A session of ours lasts for one command, so one that has kept a slot
/// for long was left by a process that was killed. Nothing tells it from another program's, which
/// begins a new one.
fn reclaim_sessions(link: &mut Link) -> Result<(), TpmError> {
    for handle in link.sessions()? {
        warn!("session 0x{handle:08X} was left over, flushed");
        link.flush(handle)?;
    }
    Ok(())
}

/// True if a transient object is a storage root key as ours, one as our salt keys, or a storage key as
/// ours below a storage root key.
fn is_root_or_below(link: &mut Link, handle: u32) -> Result<bool, TpmError> {
    const HIERARCHIES: [u32; 2] = [handle::OWNER, handle::NULL];
    let (area, name) = link.read_public(handle)?;
    if !template::is_storage_root(&area) {
        return Ok(false);
    }
    // Where the TPM does not tell what it lies below, the template decides.
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

/// True if the template is at fault, so that another one may do: not the hierarchy, nor the TPM.
fn is_refusal(error: &TpmError) -> bool {
    match error {
        TpmError::Response(code) => code.is_definite() && !code.is_of_handle_or_session(),
        other => matches!(other, TpmError::Unsupported(_)),
    }
}

/// True if a context is of no use, whatever the reason: the TPM was started anew, this is another link,
/// or the TPM keeps no contexts of flushed objects.
fn is_useless(error: &TpmError) -> bool {
    match error {
        TpmError::Response(code) => !code.is_temporary(),
        other => matches!(other, TpmError::Unsupported(_)),
    }
}

impl PrimaryKey {
    /// A transient handle; to be flushed. From the saved context, or derived anew: one command, and
    /// one more where a context is loaded for the first time.
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

    /// The key from its saved context. Else whether another context may be of use: not if the TPM gave
    /// another key back.
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

    /// Forgets a context that gave the key back before: a signature was not the key's. `false` if there
    /// is none.
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

/// The context of what is in a handle, or that a TPM does not give it: the key is derived for this use
/// then, and for each if the TPM never gives it.
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

/// TPMS_CONTEXT of what is in a handle; `None` from a TPM that does not give it.
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
