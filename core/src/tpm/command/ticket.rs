//! Digests that the TPM made itself, with the ticket that a restricted key requires (Part 1,
//! section 25.6; Part 3, sections 15.4 and 17).

use super::Link;
use super::commands::algorithm;
use super::execute::CommandAuth;
use crate::tpm::{AuthHandle, Hash, TpmError};
use log::debug;
use tpm2_protocol::basic::TpmHandle;
use tpm2_protocol::data::{Tpm2bAuth, Tpm2bDigest, Tpm2bMaxBuffer, TpmRh, TpmSt, TpmtTkHashcheck};
use tpm2_protocol::frame::{
    TpmHashCommand, TpmHashResponse, TpmHashSequenceStartCommand, TpmHashSequenceStartResponse,
    TpmSequenceCompleteCommand, TpmSequenceCompleteResponse, TpmSequenceUpdateCommand,
    TpmSequenceUpdateResponse,
};

/// The number of bytes in one piece. Every TPM accepts a piece of this size (TPM_PT_INPUT_BUFFER).
const PIECE: usize = 1024;

/// The ticket of the TPM (TPMT_TK_HASHCHECK). The ticket shows that the TPM made a digest. The
/// hashed data do not look like a statement of the TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tpm) struct HashTicket(pub(super) TpmtTkHashcheck);

impl HashTicket {
    /// Returns the NULL ticket, for a digest from outside the TPM. Only an unrestricted key accepts
    /// it.
    pub(super) fn none() -> Self {
        Self(TpmtTkHashcheck {
            tag: TpmSt::HashCheck,
            hierarchy: TpmRh::Null,
            digest: Tpm2bDigest::default(),
        })
    }

    /// Returns true if a restricted key signs the digest of this ticket (not the NULL ticket).
    pub(in crate::tpm) fn is_given(&self) -> bool {
        self.0.hierarchy != TpmRh::Null
    }
}

fn piece(data: &[u8]) -> Result<Tpm2bMaxBuffer, TpmError> {
    Tpm2bMaxBuffer::try_from(data)
        .map_err(|error| TpmError::Unsupported(format!("parameter: {error}")))
}

impl Link {
    /// Lets the TPM hash data. Returns the digest and its ticket. Sends one command for up to 1024
    /// bytes. For more data it sends one command for each piece and one more. The hash sequence
    /// occupies a slot for objects.
    ///
    /// # Errors
    ///
    /// [`TpmError::WrongAnswer`] if the digest is not that of the data.
    pub(in crate::tpm) fn hashed(
        &mut self,
        hash: Hash,
        data: &[u8],
    ) -> Result<(Vec<u8>, HashTicket), TpmError> {
        let (digest, ticket) = match data.len() {
            0..=PIECE => {
                let command = TpmHashCommand {
                    handles: [],
                    data: piece(data)?,
                    hash_alg: algorithm(hash),
                    hierarchy: TpmRh::Endorsement,
                };
                let answer: TpmHashResponse = self.call(&command)?;
                (answer.out_hash.to_vec(), answer.validation)
            }
            _ => self.hashed_in_pieces(hash, data)?,
        };
        match digest == hash.digest(&[data]) {
            true => Ok((digest, HashTicket(ticket))),
            false => Err(TpmError::WrongAnswer(
                "the TPM returned the digest of other data".into(),
            )),
        }
    }

    fn hashed_in_pieces(
        &mut self,
        hash: Hash,
        data: &[u8],
    ) -> Result<(Vec<u8>, TpmtTkHashcheck), TpmError> {
        let start = TpmHashSequenceStartCommand {
            handles: [],
            auth: Tpm2bAuth::default(),
            hash_alg: algorithm(hash),
        };
        let started: TpmHashSequenceStartResponse = self.call(&start)?;
        let sequence = started.handles[0].value();
        let hashed = self.finished(sequence, data);
        // The last command of a hash sequence removes the sequence from the TPM.
        if let Err(error) = &hashed
            && !error.is_silence()
            && let Err(error) = self.flush(sequence)
        {
            debug!("TPM2_FlushContext of a hash sequence: {error}");
        }
        hashed
    }

    fn finished(
        &mut self,
        sequence: u32,
        data: &[u8],
    ) -> Result<(Vec<u8>, TpmtTkHashcheck), TpmError> {
        // A hash sequence has no name (Part 1, section 16).
        let by = || CommandAuth::new(AuthHandle::open(sequence, &[]));
        let last = (data.len() - 1) / PIECE * PIECE;
        for part in data[..last].chunks(PIECE) {
            let update = TpmSequenceUpdateCommand {
                handles: [TpmHandle::new(sequence)],
                buffer: piece(part)?,
            };
            let _: TpmSequenceUpdateResponse = self.call_by(&update, by())?;
        }
        let complete = TpmSequenceCompleteCommand {
            handles: [TpmHandle::new(sequence)],
            buffer: piece(&data[last..])?,
            hierarchy: TpmRh::Endorsement,
        };
        let answer: TpmSequenceCompleteResponse = self.call_by(&complete, by())?;
        Ok((answer.result.to_vec(), answer.validation))
    }
}
