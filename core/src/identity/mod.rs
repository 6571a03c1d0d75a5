//! The life of a device: what it is, whether that can be verified, and how it comes by an identity
//! of its own (IEEE 802.1AR).

mod authorities;
mod device;
mod doctor;
mod endorsement;
mod existing;
mod factory;
mod fault;
mod import;
mod key_file;
mod keys;
mod marker;
mod master;
mod mend;
mod naming;
mod nv;
mod observe;
mod orphan;
mod prove;
mod provision;
mod refusal;
mod reset;
mod rights;
mod signer;
mod software;
mod state;
mod status;
mod untrusted;
mod verify;

pub use device::{
    CertificateDescription, Contents, Description, Device, EXISTING, Entity, FACTORY,
    KeyDescription, OWN, Placed, SOFTWARE,
};
pub use doctor::{Finding, Health, doctor};
pub use endorsement::tpm_of;
pub use fault::{Fault, FaultKind};
pub use import::Imported;
pub use keys::Keeping;
pub use master::{KeptObject, LostObject, Renewal, renew_master};
pub use provision::{Provisioned, Provisioning, provision};
pub use reset::{prune, reset};
pub use state::{Certified, Existing, Facts, Marker, Plan, Policy, Refusal, TpmKey};
pub use status::{Expiry, MasterKey, Mode, Role, Status, TpmStatus, Whose};
pub use verify::{Report, Verdict, Verification};
