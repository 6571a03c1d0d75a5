//! Enrolment: certificates that a server issues for keys of the device. This module keeps the state
//! of an enrolment, and checks a server's answer. The network protocols are elsewhere.

mod accept;
mod due;
mod record;

pub use accept::{Enrolled, EnrolmentRules};
pub use due::RenewalNeed;
pub use record::{EnrolmentRecord, EnrolmentTurn};
