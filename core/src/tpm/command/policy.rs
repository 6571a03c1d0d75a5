//! Policy sessions (Part 1, section 19.7; Part 3, section 23). Assertions in such a session
//! authorise the use of a key, instead of a value.

use super::Link;
use super::execute::CommandAuth;
use super::response_reader::ResponseReader;
use super::session::{AuthSession, ENCRYPT};
use crate::tpm::policy::PolicySteps;
use crate::tpm::{AuthHandle, SaltKey, Secret, TpmError, handle};
use log::debug;
use tpm2_protocol::basic::{TpmHandle, TpmInt32};
use tpm2_protocol::data::{
    Tpm2bData, Tpm2bDigest, Tpm2bEncryptedSecret, Tpm2bIdObject, Tpm2bNonce, TpmAlgId, TpmCc,
    TpmSe, TpmlDigest, TpmtSigScheme, TpmuSigScheme,
};
use tpm2_protocol::frame::*;

/// A policy session for one command, which also ends the session.
pub struct PolicySession(pub(super) AuthSession);

/// The result of TPM2_Certify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certification {
    /// The TPMS_ATTEST that the TPM signed, unchanged.
    pub attest: Vec<u8>,
    /// The TPMT_SIGNATURE over `attest`.
    pub signature: Vec<u8>,
}

fn unfit(error: tpm2_protocol::TpmError) -> TpmError {
    TpmError::Unsupported(format!("parameter: {error}"))
}

impl Link {
    /// Runs a command in a policy session with these assertions. Sends two commands before it, and
    /// one for each further assertion. The session ends in any case.
    ///
    /// `salt` is the key that decrypts the salt of the session, and the handle of that key. With a
    /// salt, HMACs protect command and response, and parameters can be encrypted.
    ///
    /// # Errors
    ///
    /// [`TpmError::EndorsementAuth`] if the endorsement hierarchy has an authorisation value.
    pub(in crate::tpm) fn with_policy<R>(
        &mut self,
        steps: &PolicySteps,
        salt: Option<(&SaltKey, u32)>,
        command: impl FnOnce(&mut Self, &PolicySession) -> Result<R, TpmError>,
    ) -> Result<R, TpmError> {
        let (salt_key, salted_to) = match salt {
            Some((key, handle)) => (Some(key), handle),
            None => (None, handle::NULL),
        };
        let session = self.start_session(TpmSe::Policy, steps.hash, salt_key, salted_to, &[])?;
        let session = PolicySession(session);
        let answer = self
            .take(steps, session.0.handle)
            .and_then(|()| command(self, &session));
        // The flush is safe even if the answer was lost. No other program can have received this
        // session handle in the meantime.
        if let Err(error) = &answer
            && !error.is_silence()
            && let Err(error) = self.flush(session.0.handle)
        {
            debug!("TPM2_FlushContext of a policy session: {error}");
        }
        answer
    }

    fn take(&mut self, steps: &PolicySteps, session: u32) -> Result<(), TpmError> {
        self.policy_secret(session)?;
        if let Some(command) = steps.command {
            let command = TpmPolicyCommandCodeCommand {
                handles: [TpmHandle::new(session)],
                code: TpmCc::try_from(command).map_err(unfit)?,
            };
            let _: TpmPolicyCommandCodeResponse = self.call(&command)?;
        }
        if !steps.branches.is_empty() {
            let mut branches = TpmlDigest::new();
            for branch in &steps.branches {
                let branch = Tpm2bDigest::try_from(&branch[..]).map_err(unfit)?;
                branches.try_push(branch).map_err(unfit)?;
            }
            let command = TpmPolicyOrCommand {
                handles: [TpmHandle::new(session)],
                p_hash_list: branches,
            };
            let _: TpmPolicyOrResponse = self.call(&command)?;
        }
        Ok(())
    }

    /// TPM2_PolicySecret of the endorsement hierarchy, with its empty authorisation value.
    fn policy_secret(&mut self, session: u32) -> Result<(), TpmError> {
        let entity = AuthHandle::endorsement();
        let command = TpmPolicySecretCommand {
            handles: [TpmHandle::new(entity.handle), TpmHandle::new(session)],
            nonce_tpm: Tpm2bNonce::default(),
            cp_hash_a: Tpm2bDigest::default(),
            policy_ref: Tpm2bNonce::default(),
            expiration: TpmInt32::new(0),
        };
        let told = self.execute(&command, None, Some(CommandAuth::new(entity)), 0);
        told.map(drop).map_err(by_endorsement)
    }

    /// TPM2_Certify of `key` by `signer`: returns the statement and its signature. `qualifying`
    /// becomes the extraData of the TPMS_ATTEST. The signature has the scheme of the signer.
    pub(in crate::tpm) fn certify(
        &mut self,
        key: AuthHandle,
        signer: AuthHandle,
        qualifying: &[u8],
    ) -> Result<Certification, TpmError> {
        let command = TpmCertifyCommand {
            handles: [TpmHandle::new(key.handle), TpmHandle::new(signer.handle)],
            qualifying_data: Tpm2bData::try_from(qualifying).map_err(unfit)?,
            in_scheme: TpmtSigScheme {
                scheme: TpmAlgId::Null,
                details: TpmuSigScheme::Null,
            },
        };
        let by = CommandAuth {
            also: &[signer],
            ..CommandAuth::new(key)
        };
        let answer = self.execute(&command, None, Some(by), 0)?;
        let mut reading = ResponseReader::new(&answer.parameters);
        Ok(Certification {
            attest: reading.tpm2b()?.to_vec(),
            signature: reading.rest().to_vec(),
        })
    }

    /// TPM2_ActivateCredential: returns the secret that was encrypted for the name of `key` and for
    /// the endorsement key. `blob` and `secret` are the contents of TPM2B_ID_OBJECT and
    /// TPM2B_ENCRYPTED_SECRET. In a salted session the response is encrypted.
    pub(in crate::tpm) fn activate_credential(
        &mut self,
        key: AuthHandle,
        endorsement: AuthHandle,
        blob: &[u8],
        secret: &[u8],
    ) -> Result<Secret, TpmError> {
        let command = TpmActivateCredentialCommand {
            handles: [
                TpmHandle::new(key.handle),
                TpmHandle::new(endorsement.handle),
            ],
            credential_blob: Tpm2bIdObject::try_from(blob).map_err(unfit)?,
            secret: Tpm2bEncryptedSecret::try_from(secret).map_err(unfit)?,
        };
        let by = CommandAuth {
            also: &[endorsement],
            attributes: ENCRYPT,
            ..CommandAuth::new(key)
        };
        let answer = self.execute(&command, None, Some(by), 0)?;
        let mut reading = ResponseReader::new(&answer.parameters);
        Ok(Secret::new(reading.tpm2b()?.to_vec()))
    }
}

/// Changes a wrong authorisation into [`TpmError::EndorsementAuth`], because the endorsement
/// hierarchy refused the value, not the key. The TPM never counts such a try (Part 1, section
/// 19.8).
pub(in crate::tpm) fn by_endorsement(error: TpmError) -> TpmError {
    match error {
        TpmError::Response(code) if code.is_wrong_auth() => TpmError::EndorsementAuth,
        other => other,
    }
}
