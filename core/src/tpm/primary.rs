//! Primary keys without a persistent handle. They are derived when needed, and flushed afterwards.
//!
//! A TPM derives the same primary key from the same template each time. Deriving is slow, so the
//! context of the key is saved. A signature then costs TPM2_ContextLoad, Sign and FlushContext, and
//! no object stays in the few slots of the TPM.

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

/// A primary key that is described by its template and name.
#[derive(Debug)]
pub struct PrimaryKey {
    template: Vec<u8>,
    name: Vec<u8>,
    /// Locked only briefly. A thread that finds the mutex locked derives the key instead.
    context: Mutex<SavedContext>,
}

/// The state of the saved context (TPM2_ContextSave) of a primary key.
#[derive(Debug, Clone, Default)]
enum SavedContext {
    /// No context of the key is saved now.
    #[default]
    Nothing,
    Context(KeyContext),
    /// No context will be saved: the TPM saves none for this key, or a context gave another key.
    Never,
}

/// A saved context, and whether the context has given the right key before.
#[derive(Debug, Clone)]
struct KeyContext {
    /// The TPMS_CONTEXT of the key.
    saved: Vec<u8>,
    /// True if TPM2_ContextLoad of this context has returned the right key at least once.
    proven: bool,
}

/// The result of a template that gave the right key: the public area, the name and the saved
/// context.
type Tried = (PublicArea, Vec<u8>, SavedContext);

impl PrimaryKey {
    /// Returns the template from which the TPM derives the key.
    pub fn template(&self) -> &[u8] {
        &self.template
    }

    /// Returns the TPM name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }
}

impl Tpm {
    /// Tries the factory templates, `likeliest` first, until a template gives this public key.
    ///
    /// Returns `None` if no template gives it. Sends two commands for each candidate, and three for
    /// the right candidate. Each candidate costs a key generation, with the time limit of a
    /// generation.
    pub fn find_primary_key(
        &self,
        public: &PublicKey,
        likeliest: Option<Vec<u8>>,
    ) -> Result<Option<(PublicArea, PrimaryKey)>, TpmError> {
        let candidates = template::devid_candidates(DevIdKind::Identity, public);
        self.derived_by(likeliest.into_iter().chain(candidates), public)
    }

    /// Tries the templates of attestation keys, as [`Tpm::find_primary_key`] does for factory keys.
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
                // The TPM lacks an algorithm, or a hint file is damaged and is not a valid
                // template.
                Err(error) if is_refusal(&error) => info!("the TPM refused the template: {error}"),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Returns the key that a template gives, if the key has this public key. Sends two commands,
    /// or three if it has.
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

    /// Runs commands with a loaded primary key. Sends two more commands, and another two if the
    /// context was lost. The commands may run twice.
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
            // Without a resource manager another program may have flushed the loaded key.
            if is_gone(&answer) {
                handle = key.load(link)?;
                answer = commands(link, AuthHandle::open(handle, &key.name));
            }
            flush(link, handle, &answer);
            answer
        })
    }

    /// Flushes transient objects that a lost answer or a killed process left behind. The flushed
    /// objects are keys of this process, objects below the master key, and objects from factory
    /// templates. A program that is using such an object must load the object again.
    ///
    /// With `roots` the function also flushes endorsement keys and storage root keys. It then
    /// flushes storage keys and attestation keys with this project's templates below a storage root
    /// key, too. A killed provisioning or attestation may leave such objects. Other programs make
    /// such keys too. `roots` is therefore only for a TPM without a free slot for a long time.
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
                    warn!(
                        "transient object 0x{handle:08X} occupies a slot that is needed, \
                         so the object is flushed"
                    );
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

    /// Returns true if this project may flush a transient object. The object must be a key that
    /// this process loads, a factory key, or a key below the master key. `master` is the qualified
    /// name of the master key.
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
        // The session keys of a dead process are recognised by their parent. If the TPM returns no
        // qualified name, they are recognised by their template.
        let Some(there) = link.qualified_name(handle)? else {
            return Ok(template::is_device_key(&area));
        };
        let below = master.and_then(|master| qualified_name_below(master, &name));
        Ok(below.is_some_and(|below| below == there))
    }
}

/// Flushes all loaded auth sessions. The caller has waited about a second for a free slot. Sessions
/// of this project last for one command, so such an old session was left by a killed process. A session of another program cannot be distinguished from such a session and is flushed too.
/// That program must then start a new session.
fn reclaim_sessions(link: &mut Link) -> Result<(), TpmError> {
    for handle in link.sessions()? {
        warn!(
            "auth session 0x{handle:08X} occupies a slot that is needed, so the \
             session is flushed"
        );
        link.flush(handle)?;
    }
    Ok(())
}

/// Returns true if a transient object has this project's template of a storage root key or salt
/// key. Also returns true for a storage key or attestation key with this project's template below a
/// storage root key, and for an endorsement key.
fn is_root_or_below(link: &mut Link, handle: u32) -> Result<bool, TpmError> {
    const HIERARCHIES: [u32; 3] = [handle::OWNER, handle::NULL, handle::ENDORSEMENT];
    let (area, name) = link.read_public(handle)?;
    let is_ours = template::is_storage_root(&area) || template::is_attestation_key(&area);
    if !is_ours && !is_endorsement_key(&area) {
        return Ok(false);
    }
    // If the TPM returns no qualified name, only the template is compared.
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

/// Returns true if the error concerns the template, so that another template may work. Returns
/// false if the error concerns the hierarchy or the TPM.
fn is_refusal(error: &TpmError) -> bool {
    match error {
        TpmError::Response(code) => code.is_definite() && !code.is_of_handle_or_session(),
        other => matches!(other, TpmError::Unsupported(_)),
    }
}

/// Returns true if a context is unusable: the TPM restarted, the link changed, or the TPM keeps no
/// contexts of flushed objects.
fn is_useless(error: &TpmError) -> bool {
    match error {
        TpmError::Response(code) => !code.is_temporary(),
        other => matches!(other, TpmError::Unsupported(_)),
    }
}

impl PrimaryKey {
    /// Loads the key from its saved context, or derives it again. Returns a transient handle, which
    /// the caller must flush. Sends one command, and one more at the first load of a context.
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

    /// Loads the key from its saved context. If the load fails, the error says whether a new
    /// context may help. A new context cannot help if the TPM returned another key.
    fn load_context(
        &self,
        link: &mut Link,
        context: KeyContext,
    ) -> Result<Result<u32, bool>, TpmError> {
        let handle = match link.context_load(&context.saved) {
            Ok(handle) => handle,
            Err(error) if is_useless(&error) => {
                debug!("TPM2_ContextLoad: {error}; the key is derived again");
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
                warn!("TPM2_ContextLoad returned another key; the key is derived for each use");
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

    /// Forgets a saved context, because a signature of its key did not verify. Returns `false` if
    /// there is no context that gave the right key before.
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

/// Saves the context of an object. If the TPM refuses once, the key is derived for this use only.
/// If the TPM never saves contexts, the key is derived for each use.
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

/// Returns the TPMS_CONTEXT of an object, or `None` if the TPM refuses to save the object.
pub(super) fn saved_context(link: &mut Link, handle: u32) -> Result<Option<Vec<u8>>, TpmError> {
    Ok(match saved(link, handle)? {
        SavedContext::Context(context) => Some(context.saved),
        SavedContext::Nothing | SavedContext::Never => None,
    })
}

/// Derives a key from a template. Returns `None` if the template gives another key.
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
