//! Digests that the TPM made itself, with the ticket that a restricted key asks for (Part 1, section
//! 25.6; Part 3, sections 15.4 and 17).

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

/// Bytes of one piece: each TPM takes as many (TPM_PT_INPUT_BUFFER).
const PIECE: usize = 1024;

/// That the TPM made a digest, and of nothing that looks like a statement of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tpm) struct HashTicket(pub(super) TpmtTkHashcheck);

impl HashTicket {
    /// The NULL ticket: the digest was made outside, as an unrestricted key allows.
    pub(super) fn none() -> Self {
        Self(TpmtTkHashcheck {
            tag: TpmSt::HashCheck,
            hierarchy: TpmRh::Null,
            digest: Tpm2bDigest::default(),
        })
    }

    /// Whether a restricted key signs by it.
    pub(in crate::tpm) fn is_given(&self) -> bool {
        self.0.hierarchy != TpmRh::Null
    }
}

fn piece(data: &[u8]) -> Result<Tpm2bMaxBuffer, TpmError> {
    Tpm2bMaxBuffer::try_from(data)
        .map_err(|error| TpmError::Unsupported(format!("parameter: {error}")))
}

impl Link {
    /// Has the TPM hash data: the digest and its ticket. One command up to 1024 bytes, else one for each
    /// piece and one more; a sequence takes a slot for objects meanwhile.
    ///
    /// # Errors
    ///
    /// [`TpmError::WrongAnswer`] for a digest that is not that of the data.
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
            false => Err(TpmError::WrongAnswer("a digest of other data".into())),
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
        // The last command of a sequence takes it out of the TPM.
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
        // A sequence has no name (Part 1, section 16).
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
