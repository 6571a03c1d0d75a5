//! The identities of a device: their verification, and the provisioning of the identity `devid`
//! (IEEE 802.1AR).

#[cfg(feature = "evidence")]
mod attesting;
mod awaited;
mod ca_certificates;
mod certify;
mod chain;
mod check;
mod description;
mod device;
mod doctor;
mod endorsement;
mod enrolment;
mod entry;
mod error;
mod existing;
mod expiry;
mod export;
mod factory;
mod find;
mod free_name;
mod import;
mod key_file;
mod keys;
mod marker;
mod master;
mod naming;
mod nv_copy;
mod observe;
mod orphan;
mod output_file;
mod owner;
mod permissions;
mod prove;
mod provision;
mod public_folder;
mod refusal;
mod remedy;
mod requests;
mod reset;
mod service_token;
#[cfg(feature = "evidence")]
mod sign;
mod signer;
mod software;
mod speed;
mod state;
mod status;
mod succession;
mod take_over;
mod tls_identity;
mod tree;
mod trusted_files;
mod untrusted;
mod verify;

pub use check::{Attention, CertificateState, CheckedCertificate, StatusCheck};
pub use description::{
    CertificateDescription, EntryDescription, KeyDescription, describe_certificates,
};
pub use device::{Device, Inventory};
pub use doctor::{Finding, Health, doctor};
pub use endorsement::configured_tpm;
pub use enrolment::{Enrolled, EnrolmentRecord, EnrolmentRules, EnrolmentTurn, RenewalNeed};
pub use entry::{CertificateEntry, EXISTING, FACTORY, OWN, SOFTWARE, TokenEntry};
pub use error::{IdentityError, IdentityErrorKind};
pub use expiry::Expiry;
pub use export::Exported;
pub use import::Imported;
pub use keys::KeyStorage;
pub use master::{KeptObject, LostObject, Renewal, renew_master};
pub use output_file::{FileKind, OutputFile};
pub use owner::{OwnerCertificate, OwnerFile, OwnerImported};
#[cfg(feature = "manufacture")]
pub(crate) use prove::{PossessionProof, prove};
pub use provision::{Provisioned, Provisioning, RequestTarget, provision};
pub use reset::{prune, reset};
pub use service_token::{ServiceToken, add_service_token, remove_service_token};
#[cfg(feature = "evidence")]
pub use sign::SignedMessage;
#[cfg(feature = "manufacture")]
pub(crate) use signer::Signer;
pub use speed::{MeasuredOperation, SpeedReport};
pub use state::{Certified, ExistingState, Facts, Marker, Plan, Policy, Refusal, TpmKey};
pub(crate) use status::maker_and_firmware;
pub use status::{
    EnrolmentStatus, IdentitySource, MasterKey, Mode, RoleStatus, Status, TpmStatus, by_label,
};
pub use take_over::TakenObject;
pub use tls_identity::TlsIdentity;
pub use tree::{CertificateBranch, DeviceTree, ObjectBranch, TokenBranch, TpmBranch};
pub use verify::{Report, Verdict, Verification};
