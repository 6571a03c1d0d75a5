//! The work of a CA: it makes nonces and challenges, verifies evidence, and certifies keys. The CA
//! needs no TPM.

use super::bundle::{Bundle, qualifying_data};
use super::challenge::{Challenge, Response};
use super::issue::{self, Issuance, Issued};
use super::state::CaState;
use super::verify::{Evidence, EvidenceReport, Expected, ExpectedNonce, verify};
use crate::file;
use crate::identity::IdentityError;
use crate::x509::Certificate;
use crate::x509::clock::now;
use crate::x509::files::{self, LARGEST};
use log::warn;
use std::path::{Path, PathBuf};
use x509_cert::der::DateTime;

/// The default lifetime of a challenge or a nonce, in seconds.
pub const LIFETIME: u64 = 60 * 60;

/// A CA, by the file that stores its open challenges and nonces.
#[derive(Debug, Clone)]
pub struct Ca {
    /// The path of the file that stores open challenges and nonces.
    pub state: PathBuf,
}

/// What a bundle must satisfy: trusted certificates, nonce, and challenge.
#[derive(Debug, Clone, Copy)]
pub struct EvidencePolicy<'a> {
    /// A file with trusted certificates, or a folder of such files.
    pub roots: &'a Path,
    /// The nonce that the device received. `None` accepts every nonce that [`Ca::nonce`] made.
    pub nonce: Option<&'a [u8]>,
    /// True to accept a bundle without a nonce of this CA, even if the bundle is old.
    pub allow_no_nonce: bool,
    /// The device's answer to a challenge of this CA, if there is one.
    pub response: Option<&'a Response>,
}

impl Ca {
    /// Creates a random nonce of 32 bytes for a device. The nonce is valid for `lifetime` seconds,
    /// and can be used once.
    pub fn nonce(&self, lifetime: u64) -> Result<Vec<u8>, IdentityError> {
        let (_, seconds) = time()?;
        CaState::open(&self.state, seconds)?.nonce(lifetime)
    }

    /// Creates a challenge for the TPM that a bundle describes. The challenge is valid for
    /// `lifetime` seconds, and can be used once. The bundle is not verified yet.
    ///
    /// # Errors
    ///
    /// Fails if the bundle names no key that could answer, or for the reasons of [`Self::nonce`].
    pub fn challenge(&self, bundle: &Bundle, lifetime: u64) -> Result<Challenge, IdentityError> {
        let (_, seconds) = time()?;
        CaState::open(&self.state, seconds)?.challenge(bundle, lifetime)
    }

    /// Verifies a bundle. If all checks pass, marks the nonce of the bundle and the answered
    /// challenge as used.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read or written, or if the clock is wrong. A check that fails is
    /// no error: the report contains its result.
    pub fn verify(
        &self,
        bundle: &Bundle,
        policy: EvidencePolicy,
    ) -> Result<EvidenceReport, IdentityError> {
        let mut judged = self.judge(bundle, policy)?;
        judged.use_up(policy)?;
        Ok(judged.evidence.report)
    }

    /// Verifies a bundle, and certifies its key if all checks pass.
    ///
    /// # Errors
    ///
    /// Fails for the reasons of [`Self::verify`]. Also fails if the certificate and the key of the
    /// CA do not belong together, or cannot certify.
    pub fn issue(
        &self,
        bundle: &Bundle,
        policy: EvidencePolicy,
        issuance: &Issuance,
    ) -> Result<(EvidenceReport, Option<Issued>), IdentityError> {
        let issuer = issue::Issuer::read(issuance)?;
        let subject = issue::subject(issuance)?;
        let mut judged = self.judge(bundle, policy)?;
        if !judged.evidence.report.verified {
            return Ok((judged.evidence.report, None));
        }
        let issued = issuer.issue(&judged.evidence, issuance, subject)?;
        judged.use_up(policy)?;
        Ok((judged.evidence.report, Some(issued)))
    }

    fn judge(&self, bundle: &Bundle, policy: EvidencePolicy) -> Result<Judged, IdentityError> {
        let (now, seconds) = time()?;
        let roots = roots(policy.roots)?;
        let state = CaState::open(&self.state, seconds)?;
        if policy.response.is_some() && !state.exists() {
            return Err(IdentityError::failed(format!(
                "{}: this file with the CA's challenges does not exist; use --state to name the \
                 file that devid ca challenge wrote",
                self.state.display()
            )));
        }
        let said = bundle.nonce.as_deref().unwrap_or_default();
        let nonce = policy.nonce.map(qualifying_data);
        let nonce = nonce.or_else(|| state.issued(said));
        let expected = Expected {
            roots: &roots,
            nonce: match &nonce {
                Some(nonce) => ExpectedNonce::Given(nonce, state.may_be_used(nonce, false)),
                None if policy.allow_no_nonce => ExpectedNonce::Any,
                None => ExpectedNonce::Given(said, state.may_be_used(said, true)),
            },
            activation: policy.response.map(|response| state.activation(response)),
            now,
        };
        let evidence = verify(bundle, &expected);
        Ok(Judged {
            evidence,
            state,
            nonce,
        })
    }
}

/// The result of verifying a bundle. While this value lives, the CA's file of nonces stays locked.
struct Judged {
    evidence: Evidence,
    state: CaState,
    nonce: Option<Vec<u8>>,
}

impl Judged {
    /// Marks the nonce of the bundle and the answered challenge as used, if all checks pass.
    fn use_up(&mut self, policy: EvidencePolicy) -> Result<(), IdentityError> {
        let nonce = self.nonce.as_deref();
        if self.evidence.report.verified && (policy.response.is_some() || nonce.is_some()) {
            self.state.use_up(nonce, policy.response)?;
        }
        Ok(())
    }
}

fn time() -> Result<(DateTime, u64), IdentityError> {
    let now = now().map_err(|built| {
        IdentityError::failed(format!(
            "the clock is before {built}, when this program was built; set the clock, because \
             nonces and challenges would not expire"
        ))
    })?;
    Ok((now, now.unix_duration().as_secs()))
}

/// Returns the trusted certificates in a file, or in all certificate files of a folder.
fn roots(path: &Path) -> Result<Vec<Certificate>, IdentityError> {
    let none =
        |why: &dyn std::fmt::Display| IdentityError::failed(format!("{}: {why}", path.display()));
    if !path.is_dir() {
        let bytes = file::read(path, LARGEST).map_err(IdentityError::file(path))?;
        return Certificate::parse_all(&bytes).map_err(|why| none(&why));
    }
    let mut found = Vec::new();
    for file in files::in_folder(path).map_err(IdentityError::file(path))? {
        for what in file.left_out() {
            warn!("{what}");
        }
        found.extend(file.certificates.unwrap_or_default());
    }
    match found.is_empty() {
        true => Err(none(
            &"the folder holds no certificate (.pem, .crt, .cer, .der)",
        )),
        false => Ok(found),
    }
}
