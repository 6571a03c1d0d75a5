//! Attestation: TPM2_Certify by an attestation key, and TPM2_ActivateCredential. With
//! TPM2_ActivateCredential a CA verifies that an attestation key and an endorsement key are in the
//! same TPM (Part 1, sections 24 and 31).

use super::command::policy::{Certification, by_endorsement};
use super::exchange::Exchange;
use super::owner_primary::OwnerPrimary;
use super::policy::{AuthRole, AuthWay, auth_way};
use super::public::counts_wrong_auth;
use super::{
    Auth, AuthHandle, AuthValue, EndorsementKey, Hash, KeyAlgorithm, KeyScheme, Link,
    PersistentKey, PrimaryKey, PublicArea, SaltKey, Secret, SensitiveCreate, Signature,
    SignatureScheme, Tpm, TpmError, WrappedKey, command_code, flush, handle, name_of, template,
};
use crate::file::Lock;
use crate::key::Curve;
use log::debug;

/// A restricted signing key. The key signs only data that the TPM itself made.
#[derive(Debug)]
pub struct AttestationKey {
    source: AttestationKeySource,
    area: Vec<u8>,
    name: Vec<u8>,
}

#[derive(Debug)]
enum AttestationKeySource {
    Handle(u32),
    Derived(PrimaryKey),
    Wrapped(WrappedKey),
    OfOwner(OwnerPrimary),
}

/// The state of the TPM before some commands. After a transport fault, [`Tpm::sweep`] compares this
/// state to find objects that these commands left behind.
pub(crate) struct TpmTrace {
    faults: u64,
    /// Loaded sessions. `None` behind a resource manager, which flushes the sessions of a closed
    /// connection itself.
    sessions: Option<Vec<u32>>,
    /// Loaded transient objects. `None` if no hash sequence begins, or behind a resource manager.
    objects: Option<Vec<u32>>,
}

impl AttestationKey {
    /// Creates the value for a key in a persistent handle. Returns `None` if the key is not an
    /// attestation key, or if its authorisation value or policy is unknown. `is_open`: the
    /// configuration says that the authorisation value is empty.
    pub(crate) fn resident(key: &PersistentKey, area: &[u8], is_open: bool) -> Option<Self> {
        Self::of(AttestationKeySource::Handle(key.handle()), area, is_open)
    }

    /// Creates the value for a primary key that is derived from a template.
    pub(crate) fn derived(key: PrimaryKey, area: &PublicArea) -> Option<Self> {
        Self::of(AttestationKeySource::Derived(key), area.as_bytes(), false)
    }

    /// Creates the value for a wrapped key from a file, with the empty authorisation value.
    pub(crate) fn wrapped(key: WrappedKey) -> Option<Self> {
        let area = key.area().to_vec();
        Self::of(AttestationKeySource::Wrapped(key), &area, false)
    }

    /// Returns true if the template is that of [`Tpm::create_owner_attestation_key`], and the
    /// public area is that of an attestation key.
    pub(crate) fn is_template_of_owner(template: &[u8], area: &[u8]) -> bool {
        super::owner_primary::is_template(template)
            && PublicArea::parse(area).is_some_and(|area| area.attests())
    }

    /// Creates the value for an attestation key of this project in the owner hierarchy. The
    /// hierarchy has the empty authorisation value.
    pub(crate) fn of_owner(key: OwnerPrimary) -> Option<Self> {
        let area = key.area().to_vec();
        Self::of(AttestationKeySource::OfOwner(key), &area, false)
    }

    fn of(source: AttestationKeySource, area: &[u8], is_open: bool) -> Option<Self> {
        let attests = PublicArea::parse(area).is_some_and(|area| area.attests());
        let is_usable = match auth_way(area, AuthRole::User) {
            AuthWay::Policy(_) => true,
            // The empty value may be wrong. The value is tried only if the TPM does not count wrong
            // values for this key.
            AuthWay::Value => is_open || !counts_wrong_auth(area),
            AuthWay::UnknownPolicy => false,
        };
        (attests && is_usable).then_some(())?;
        Some(Self {
            source,
            name: name_of(area)?,
            area: area.to_vec(),
        })
    }

    /// Returns the TPMT_PUBLIC of the attestation key as the TPM returned it.
    pub fn area(&self) -> &[u8] {
        &self.area
    }

    /// Returns the TPM name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Returns the scheme by which the key signs.
    pub(crate) fn scheme(&self) -> Option<SignatureScheme> {
        match PublicArea::parse(&self.area)?.scheme {
            KeyScheme::Fixed(scheme) => Some(scheme),
            KeyScheme::Any => None,
        }
    }

    /// Takes the lock for one try of the authorisation value, if a wrong value would count towards
    /// lockout.
    pub(crate) fn lock_try(&self, tpm: &Tpm) -> Result<Option<Lock>, TpmError> {
        let roles = [
            AuthRole::User,
            AuthRole::Admin(command_code::ACTIVATE_CREDENTIAL),
        ];
        let is_shown = |role| auth_way(&self.area, role) == AuthWay::Value;
        match roles.into_iter().any(is_shown) && counts_wrong_auth(&self.area) {
            true => tpm.lock_pin_try(false),
            false => Ok(None),
        }
    }

    /// Loads the key if it has no persistent handle. Returns the handle, and true if the caller
    /// must flush the handle.
    pub(super) fn load(&self, link: &mut Link) -> Result<(u32, bool), TpmError> {
        match &self.source {
            AttestationKeySource::Handle(handle) => {
                let (_, name) = link.read_public(*handle)?;
                match name == self.name {
                    true => Ok((*handle, false)),
                    false => Err(TpmError::KeyReplaced(*handle)),
                }
            }
            AttestationKeySource::Derived(key) => {
                let handle = key.load(link).map_err(by_endorsement)?;
                Ok((handle, true))
            }
            AttestationKeySource::Wrapped(key) => Ok((key.load(link)?, true)),
            AttestationKeySource::OfOwner(key) => Ok((key.load(link)?, true)),
        }
    }
}

/// Returns the reason why a key with this TPMT_PUBLIC cannot be certified; `None` if it can be
/// certified. Sends no TPM command.
pub(crate) fn no_certification(area: &PublicArea) -> Option<&'static str> {
    match auth_way(area.as_bytes(), AuthRole::Admin(command_code::CERTIFY)) {
        AuthWay::UnknownPolicy => Some(
            "it can be certified only by a policy, and its policy is not a policy of the TCG \
             (adminWithPolicy \
             is set; authPolicy is neither that of IDevID keys nor that of IAKs)",
        ),
        AuthWay::Value | AuthWay::Policy(_) => None,
    }
}

/// Returns true if TPM2_Certify of a key with this TPMT_PUBLIC proves the authorisation value of
/// the key.
pub(crate) fn is_certified_by_value(area: &PublicArea) -> bool {
    auth_way(area.as_bytes(), AuthRole::Admin(command_code::CERTIFY)) == AuthWay::Value
}

impl Link {
    /// Runs TPM2_Certify by an attestation key, for a loaded key with this TPMT_PUBLIC. Sends up to
    /// eleven commands: one for TPM2_Certify, two to load and flush the attestation key, and up to
    /// four for each of two policy sessions.
    pub(crate) fn certify_by(
        &mut self,
        key: AuthHandle,
        area: &[u8],
        signer: &AttestationKey,
        qualifying: &[u8],
    ) -> Result<Certification, TpmError> {
        let (handle, is_passing) = signer.load(self)?;
        let certified = self.by_role(
            key,
            auth_way(area, AuthRole::Admin(command_code::CERTIFY)),
            None,
            |link, key| {
                let used = AuthHandle::open(handle, &signer.name);
                let way = auth_way(&signer.area, AuthRole::User);
                link.by_role(used, way, None, |link, used| {
                    link.certify(key, used, qualifying).map_err(of_second)
                })
            },
        );
        if is_passing {
            flush(self, handle, &certified);
        }
        certified
    }

    /// Runs a command with a handle. The public area of the object decides the authorisation: value
    /// or policy.
    pub(super) fn by_role<R>(
        &mut self,
        used: AuthHandle,
        way: AuthWay,
        salt: Option<(&SaltKey, u32)>,
        command: impl FnOnce(&mut Self, AuthHandle) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        match way {
            AuthWay::Value => command(self, used),
            AuthWay::Policy(steps) => self.with_policy(&steps, salt, |link, session| {
                command(
                    link,
                    AuthHandle::new(used.handle, used.name, Auth::Policy(session)),
                )
            }),
            AuthWay::UnknownPolicy => Err(TpmError::Unsupported(
                "the key can be used only by a policy, and its policy is not a policy of the TCG"
                    .into(),
            )),
        }
    }

    fn activate(
        &mut self,
        key: &AttestationKey,
        endorsement: &EndorsementKey,
        blob: &[u8],
        secret: &[u8],
    ) -> Result<Secret, TpmError> {
        let loaded = self.with_salt_key(endorsement.salt_key());
        let (salt_key, ek, ek_is_passing) = loaded.map_err(by_endorsement)?;
        let here = SaltKey::in_handle(ek, &salt_key.public, salt_key.hash, &salt_key.name);
        let activated = key.load(self).and_then(|(ak, ak_is_passing)| {
            // The session is salted, so that the secret is encrypted on the bus.
            let used = AuthHandle::new(ak, &key.name, Auth::Value(&[], Some(&here)));
            let role = AuthRole::Admin(command_code::ACTIVATE_CREDENTIAL);
            let way = auth_way(&key.area, role);
            let activated = self.by_role(used, way, Some((&here, ek)), |link, used| {
                let ek = AuthHandle::open(ek, &here.name);
                let way = auth_way(endorsement.area(), AuthRole::User);
                link.by_role(ek, way, None, |link, ek| {
                    link.activate_credential(used, ek, blob, secret)
                })
            });
            if ak_is_passing {
                flush(self, ak, &activated);
            }
            activated
        });
        if ek_is_passing {
            flush(self, ek, &activated);
        }
        activated
    }
}

/// The kinds of attestation keys that this project makes, in the order of preference.
pub(super) const KINDS: [(KeyAlgorithm, SignatureScheme); 2] = [
    (
        KeyAlgorithm::Ec(Curve::P256),
        SignatureScheme::Ecdsa(Hash::Sha256),
    ),
    (
        KeyAlgorithm::Rsa(2048),
        SignatureScheme::Rsassa(Hash::Sha256),
    ),
];

/// Calls `make` for P-256 and then for RSA-2048. Returns the first result of a kind that the TPM
/// has.
pub(super) fn first_kind<R>(
    make: impl Fn(KeyAlgorithm, SignatureScheme) -> Option<Result<R, TpmError>>,
) -> Result<R, TpmError> {
    let mut refused = TpmError::Unsupported("no attestation key can be made".into());
    for (algorithm, scheme) in KINDS {
        match make(algorithm, scheme) {
            None => {}
            Some(Err(TpmError::Response(code))) if code.is_unsupported_value() => {
                debug!("{algorithm:?}: the TPM answered {code}");
                refused = code.into();
            }
            Some(made) => return made,
        }
    }
    Err(refused)
}

/// Changes a wrong authorisation of the second handle into an error about the attestation key.
fn of_second(error: TpmError) -> TpmError {
    match error {
        TpmError::Response(code) if code.is_wrong_auth() && code.is_of_second_session() => {
            TpmError::Unsupported(
                "the attestation key has an authorisation value that is not empty, so it cannot \
                 attest"
                    .into(),
            )
        }
        other => other,
    }
}

impl Tpm {
    /// Makes a new attestation key below the storage root key. Makes the storage root key if it is
    /// missing. The new key is on P-256, or RSA-2048 if the TPM lacks P-256. Sends two commands,
    /// and more if the storage root key is made.
    pub(crate) fn create_attestation_key(&self, owner: &AuthValue) -> Result<WrappedKey, TpmError> {
        let root = self.believed_root(owner)?;
        first_kind(|algorithm, scheme| {
            let template = template::attestation_key(algorithm, scheme)?;
            Some(self.create_below(&root, SensitiveCreate::default(), &template))
        })
    }

    /// Decrypts the secret that a CA encrypted for this endorsement key and attestation key. Only
    /// the TPM that has both keys can decrypt it. `blob` and `secret` are the contents of
    /// TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET. Sends up to fourteen commands.
    pub(crate) fn activate_credential(
        &self,
        key: &AttestationKey,
        endorsement: &EndorsementKey,
        blob: &[u8],
        secret: &[u8],
    ) -> Result<Secret, TpmError> {
        let activating = Exchange::new("ActivateCredential").needing_object_slot();
        activating.run(self, |link| link.activate(key, endorsement, blob, secret))
    }

    /// Returns the signature of an attestation key over data that the TPM hashes. Returns `None` if
    /// the TPM gives no ticket. The TPM gives no ticket for fewer than four bytes. The TPM also
    /// gives no ticket for data that begin with TPM_GENERATED_VALUE, as its own statements do.
    /// Sends up to ten commands, and more for data of more than 1024 bytes.
    pub(crate) fn sign_hashed(
        &self,
        key: &AttestationKey,
        scheme: SignatureScheme,
        data: &[u8],
    ) -> Result<Option<Signature>, TpmError> {
        let signing = Exchange::new("Sign by a ticket").needing_object_slot();
        signing.run(self, |link| {
            let (digest, ticket) = link.hashed(scheme.hash(), data)?;
            if !ticket.is_given() {
                return Ok(None);
            }
            let (handle, is_passing) = key.load(link)?;
            let used = AuthHandle::open(handle, &key.name);
            let signed = link.by_role(
                used,
                auth_way(&key.area, AuthRole::User),
                None,
                |link, used| link.sign_by_ticket(used, scheme, &digest, &ticket),
            );
            if is_passing {
                flush(link, handle, &signed);
            }
            signed.map(Some)
        })
    }

    /// Reads which sessions are loaded in the TPM, and the count of transport faults.
    pub(crate) fn trace(&self) -> Result<TpmTrace, TpmError> {
        let sessions = match self.tcti().is_managed() {
            true => None,
            false => {
                Some(Exchange::new("GetCapability(sessions)").run(self, |link| link.sessions())?)
            }
        };
        Ok(TpmTrace {
            faults: self.faults(),
            sessions,
            objects: None,
        })
    }

    /// Records the loaded sessions and objects, for commands that begin a hash sequence. A hash
    /// sequence has no name, so only such a record can show that a sequence is new.
    pub(crate) fn trace_with_sequences(&self) -> Result<TpmTrace, TpmError> {
        let trace = self.trace()?;
        let objects = match trace.sessions {
            None => None,
            Some(_) => Some(self.handles(handle::TRANSIENT)?),
        };
        Ok(TpmTrace { objects, ..trace })
    }

    /// After a transport fault, flushes this project's keys and sessions that appeared since
    /// `trace`. Their handles were in an answer that was lost.
    pub(crate) fn sweep(&self, trace: &TpmTrace) {
        let Some(before) = &trace.sessions else {
            return;
        };
        if trace.faults == self.faults() {
            return;
        }
        let sweeping = Exchange::new("FlushContext").needing_object_slot();
        let swept = sweeping.run(self, |link| {
            for handle in link.handles(handle::TRANSIENT)? {
                let is_new = || {
                    let before = trace.objects.as_ref();
                    before.is_some_and(|before| !before.contains(&handle))
                };
                let is_ours = match self.may_flush(link, handle, None) {
                    Ok(is_ours) => is_ours,
                    Err(TpmError::Response(code)) => code.is_of_sequence() && is_new(),
                    Err(_) => false,
                };
                if is_ours {
                    link.flush(handle)?;
                }
            }
            for session in link.sessions()? {
                if !before.contains(&session) {
                    link.flush(session)?;
                }
            }
            Ok(())
        });
        if let Err(error) = swept {
            debug!("objects that may remain in the TPM were not flushed: {error}");
        }
    }
}
