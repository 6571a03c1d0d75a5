//! Evidence that a key is in the TPM of a device. The device collects the evidence, and a CA
//! verifies it.

mod activate;
mod attestation_key;
pub mod bundle;
mod ca;
pub mod challenge;
mod collect;
mod csr_attestation;
mod endorsement;
mod forms;
mod hmac_challenge;
mod issue;
pub mod json;
mod state;
pub mod tcg_csr;
pub mod verify;
pub mod webauthn;

pub use activate::{activate, activate_of_tools, is_of_tools};
pub use attestation_key::Audience;
pub use bundle::{BUNDLE_FORMAT, Bundle, nonce_of};
pub use ca::{Ca, EvidencePolicy, LIFETIME};
pub use challenge::{CHALLENGE_FORMAT, Challenge, RESPONSE_FORMAT, Response};
pub use collect::{Collection, collect, leaving_nothing};
#[cfg(feature = "manufacture")]
pub(crate) use collect::{certified_by, of_new_device};
#[cfg(feature = "manufacture")]
pub(crate) use endorsement::Endorsement;
#[cfg(feature = "manufacture")]
pub(crate) use forms::in_form_signed;
pub use forms::{EvidenceForm, ForeignEvidence, acme_nonce, in_form};
pub use hmac_challenge::{HmacAnswer, HmacChallenge, InvalidChallenge};
pub use issue::{Issuance, Issued, WhatToCertify};
pub use json::{Bytes, DocumentError};
pub use verify::{AttestedKey, EvidenceCheck, EvidenceReport, ProvenDevice, TpmNames};
