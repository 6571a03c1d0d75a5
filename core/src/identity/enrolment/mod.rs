//! Enrolment: a server issues certificates for keys of the device. This module stores the state of
//! an enrolment, and checks the answer of a server. The tool implements the network protocols.

mod accept;
mod due;
mod record;

pub use accept::{Enrolled, EnrolmentRules};
pub use due::RenewalNeed;
pub use record::{EnrolmentRecord, EnrolmentTurn};
