//! TPM 2.0: the commands that this project uses, as Rust types, and their errors.
//!
//! A `Link` sends commands over one transport. The rest of the crate uses [`Tpm`]. [`Tpm`] opens a
//! link at its first command, repeats commands and reconnects. The modules from the bottom up are
//! `transport`, `structures`, `command`, [`Tpm`], and the kinds of keys. Section numbers are those
//! of the TPM 2.0 Library Specification, level 1.59.

mod algorithms;
mod ancestry;
#[cfg(test)]
mod answers_tests;
#[cfg(feature = "evidence")]
mod attestation;
mod below_owner;
#[cfg(test)]
mod capability_tests;
mod client;
mod command;
mod connections;
#[cfg(feature = "evidence")]
mod credential;
mod endorsement;
mod error;
mod exchange;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(feature = "evidence")]
mod hmac_challenge;
mod import;
mod lockout;
#[cfg(feature = "manufacture")]
mod manufacture;
mod numbers;
mod nv;
#[cfg(feature = "evidence")]
mod owner_primary;
mod persistent;
mod primary;
#[cfg(test)]
mod primary_tests;
mod process_lock;
mod protected;
mod root;
mod salt;
mod speed;
mod storage;
mod structures;
mod transport;
mod unloadable;
mod wrapped;

pub use algorithms::{Algorithms, Capabilities, KeyKind, KnownAlgorithms};
#[cfg(feature = "evidence")]
pub use attestation::AttestationKey;
#[cfg(feature = "evidence")]
pub(crate) use attestation::{is_certified_by_value, no_certification};
pub use client::Tpm;
pub(crate) use command::Link;
pub use command::kdf::Secret;
pub use command::kdf::random_secret;
pub(crate) use command::kdf::{encrypt_oaep, random_scalar};
#[cfg(feature = "evidence")]
pub use command::policy::Certification;
pub use command::session::AuthValue;
use command::session::Salt;
pub use command::{Auth, AuthHandle, SaltKey, SensitiveCreate};
use command::{flush, is_gone};
#[cfg(feature = "evidence")]
pub(crate) use credential::make_credential;
pub use endorsement::EndorsementKey;
pub(crate) use error::CLEARED_OR_EXCHANGED;
pub use error::TpmError;
pub use exchange::Refusals;
#[cfg(feature = "evidence")]
pub(crate) use hmac_challenge::{HmacKey, HmacOutcome};
pub use lockout::Lockout;
#[cfg(feature = "manufacture")]
pub use manufacture::{NvHierarchy, NvProgress};
pub(crate) use numbers::handle;
pub(crate) use numbers::handle::SRK;
use numbers::{algorithm, command_code};
pub use nv::NvContent;
pub use persistent::PersistentKey;
pub use primary::PrimaryKey;
pub use root::{EndorsementVerifier, RecordError, StorageRoot, StorageRootRecord};
pub use speed::{Operation, OperationTiming, Speed};
pub use storage::{KeyAlgorithm, KeyPurpose, StorageKey};
#[cfg(feature = "evidence")]
pub(crate) use structures::attest::{ATTEST_CERTIFY, Attest, TPM_GENERATED};
#[cfg(feature = "manufacture")]
pub use structures::policy::DevIdKind;
pub(crate) use structures::sized;
#[cfg(feature = "manufacture")]
pub use structures::template::UniqueLabel;
pub(crate) use structures::template::is_device_key;
pub use structures::template::template_name;
pub use structures::{
    Hash, KeyScheme, NvPublic, Property, PublicArea, ResponseCode, Signature, SignatureScheme,
    other_kind,
};
pub(crate) use structures::{name_of, qualified_name_below};
use structures::{policy, public, template};
pub(crate) use transport::is_tcti_alias;
#[cfg(fuzzing)]
pub use transport::memory;
pub use transport::{CommandClass, Limit, Limits, Tcti, TctiError, TimeoutMemory};
pub use unloadable::{Obstacle, Parent, Unloadable};
pub use wrapped::WrappedKey;
