//! Keys without a handle: derived from a template whenever they are needed, and gone again.
//!
//! A TPM gives the same primary key for the same template. Deriving is slow, so its context is
//! saved: a signature then costs TPM2_ContextLoad, Sign and FlushContext, and nothing of ours stays
//! in the few slots that a TPM has for objects.

use super::exchange::{Exchange, Subject};
use super::wrapped::{flush, is_gone};
use super::{
    Link, PublicArea, ResponseCode, SRK, Tpm, TpmError, Used, qualified_name_below, template,
};
use crate::key::PublicKey;
use log::{debug, warn};
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// How long candidates are tried.
const PATIENCE: Duration = Duration::from_secs(30);

/// A key by its template and name.
#[derive(Debug)]
pub struct DerivedKey {
    template: Vec<u8>,
    name: Vec<u8>,
    /// Held for moments only; whoever finds it held does without.
    context: Mutex<Option<Vec<u8>>>,
}

/// A template that gave the right key: its area, its name and its saved context.
type Tried = (PublicArea, Vec<u8>, Vec<u8>);

impl DerivedKey {
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
    /// `None` if none does. Two commands for each candidate, three for the right one.
    pub fn derive(
        &self,
        public: &PublicKey,
        likeliest: Option<Vec<u8>>,
    ) -> Result<Option<(PublicArea, DerivedKey)>, TpmError> {
        let deadline = Instant::now() + PATIENCE;
        for template in likeliest.into_iter().chain(template::candidates(public)) {
            if Instant::now() >= deadline {
                return Err(TpmError::Timeout(PATIENCE));
            }
            let hierarchy = Subject::open(b"endorsement", "the endorsement hierarchy");
            let tried = Exchange::new("CreatePrimary")
                .loading()
                .with(hierarchy)
                .run(self, |link| try_template(link, &template, public));
            match tried {
                Ok(None) => {}
                Ok(Some((area, name, context))) => {
                    let context = Mutex::new(Some(context));
                    return Ok(Some((
                        area,
                        DerivedKey {
                            template,
                            name,
                            context,
                        },
                    )));
                }
                // This TPM lacks an algorithm; or a damaged hint, no structure at all.
                Err(error) if is_refusal(&error) => debug!("template refused: {error}"),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Runs commands with a derived key: two commands more, and another two where its context was
    /// lost. They may run twice.
    pub(crate) fn with_derived<R>(
        &self,
        what: &str,
        key: &DerivedKey,
        mut commands: impl FnMut(&mut Link, Used) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        let subject = Subject::open(&key.name, "the derived key");
        let exchange = Exchange::new(what).loading().with(subject);
        exchange.run(self, |link| {
            let mut handle = key.load(link)?;
            let mut answer = commands(link, Used::open(handle, &key.name));
            // On a TPM that all share, somebody may flush what is not his.
            if is_gone(&answer) {
                handle = key.load(link)?;
                answer = commands(link, Used::open(handle, &key.name));
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
        const TRANSIENT: u32 = 0x8000_0000;
        let master = match self.master.map(|master| link.qualified_name(master)) {
            Some(Err(error)) if error.is_transport_fault() => return Err(error),
            other => other.and_then(Result::ok),
        };
        for handle in link.handles(TRANSIENT)? {
            let ours = match self.is_ours(link, handle, master.as_deref()) {
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

    fn is_ours(
        &self,
        link: &mut Link,
        handle: u32,
        master: Option<&[u8]>,
    ) -> Result<bool, TpmError> {
        let (area, name) = link.read_public(handle)?;
        if self.is_own(&name) || template::may_be_ours(&area) {
            return Ok(true);
        }
        // Session keys of a process that is gone are known to nobody, but by what wraps them.
        let below = master.and_then(|master| qualified_name_below(master, &name));
        Ok(below.is_some() && below == Some(link.qualified_name(handle)?))
    }
}

/// Flushes loaded HMAC sessions. A session of ours lasts for one command, so one that has kept a slot
/// for long was left by a process that was killed. Nothing tells it from another program's, which
/// begins a new one.
fn reclaim_sessions(link: &mut Link) -> Result<(), TpmError> {
    /// TPM_HT_LOADED_SESSION, and the type of HMAC sessions.
    const LOADED: u32 = 0x0200_0000;
    let loaded = link.handles(LOADED)?;
    for handle in loaded.into_iter().filter(|handle| handle >> 24 == 2) {
        warn!("session 0x{handle:08X} was left over, flushed");
        link.flush(handle)?;
    }
    Ok(())
}

/// Whether a transient object is a storage root key as ours, one as our salt keys, or a storage key as
/// ours below a storage root key.
fn is_root_or_below(link: &mut Link, handle: u32) -> Result<bool, TpmError> {
    /// TPM_RH_OWNER, TPM_RH_NULL.
    const HIERARCHIES: [u32; 2] = [0x4000_0001, 0x4000_0007];
    let (area, name) = link.read_public(handle)?;
    if !template::is_storage_root(&area) {
        return Ok(false);
    }
    let there = Some(link.qualified_name(handle)?);
    let below = |one: u32| qualified_name_below(&one.to_be_bytes(), &name);
    if HIERARCHIES.into_iter().any(|one| below(one) == there) {
        return Ok(true);
    }
    match link.qualified_name(SRK) {
        Ok(root) => Ok(there == qualified_name_below(&root, &name)),
        Err(TpmError::Response(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_refusal(error: &TpmError) -> bool {
    match error {
        TpmError::Response(code) => code.is_parameter(),
        other => matches!(other, TpmError::Unsupported(_)),
    }
}

impl DerivedKey {
    pub(super) fn load(&self, link: &mut Link) -> Result<u32, TpmError> {
        let saved = self.context.try_lock().and_then(|context| context.clone());
        if let Some(saved) = saved {
            match link.context_load(&saved) {
                // The TPM was started anew, or this is another link: derive again.
                Err(error) if is_refusal(&error) => {}
                other => return other,
            }
        }
        let (handle, _, name) = link.create_primary(Used::endorsement(), &self.template)?;
        if name != self.name {
            link.flush(handle)?;
            return Err(TpmError::SeedChanged);
        }
        match link.context_save(handle) {
            Ok(saved) => {
                if let Some(mut context) = self.context.try_lock() {
                    *context = Some(saved);
                }
            }
            Err(error) if error.is_transport_fault() => return Err(error),
            Err(error) => debug!("TPM2_ContextSave: {error}"),
        }
        Ok(handle)
    }
}

/// `None` if the template gives another key.
fn try_template(
    link: &mut Link,
    template: &[u8],
    public: &PublicKey,
) -> Result<Option<Tried>, TpmError> {
    let (handle, area, name) = link.create_primary(Used::endorsement(), template)?;
    let context = match PublicArea::parse(&area) {
        Some(area) if area.key == *public => Some((area, link.context_save(handle))),
        _ => None,
    };
    link.flush(handle)?;
    context
        .map(|(area, context)| Ok((area, name, context?)))
        .transpose()
}
