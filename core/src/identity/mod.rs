//! The life of a device: what it is, whether that can be verified, and how it comes by an identity
//! of its own (IEEE 802.1AR).

mod ca_certificates;
mod chain;
mod description;
mod device;
mod doctor;
mod endorsement;
mod entry;
mod error;
mod existing;
mod factory;
mod find;
mod free_name;
mod import;
mod issue;
mod key_file;
mod keys;
mod marker;
mod master;
mod nv_copy;
mod observe;
mod orphan;
mod permissions;
mod points;
mod profile;
mod prove;
mod provision;
mod refusal;
mod remedy;
mod reset;
#[cfg(test)]
mod samples;
mod software;
mod state;
mod status;
mod time;
mod trusted_files;
mod untrusted;
mod verify;

pub use description::{CertificateDescription, Description, KeyDescription};
pub use device::{Contents, Device};
pub use doctor::{Finding, Health, doctor};
pub use endorsement::tpm_of;
pub use entry::{EXISTING, Entity, FACTORY, OWN, Placed, SOFTWARE};
pub use error::{Fault, FaultKind};
pub use import::Imported;
pub use issue::Subject;
pub use keys::Keeping;
pub use master::{KeptObject, LostObject, Renewal, renew_master};
pub use points::{Outcome, Point};
pub use profile::{HardwareModule, Meaning, Profile};
pub use provision::{Provisioned, Provisioning, provision};
pub use reset::{prune, reset};
pub use state::{Certified, Existing, Facts, Marker, Plan, Policy, Refusal, TpmKey};
pub use status::{Expiry, MasterKey, Mode, Role, Status, TpmStatus, Whose};
pub use verify::{Report, Verdict, Verification};
