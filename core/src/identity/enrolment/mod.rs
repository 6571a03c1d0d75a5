//! Enrolment: certificates that a server issues for keys of the device. What goes over the network is
//! elsewhere; here stands what is kept meanwhile, and what an answer must prove before it counts.

mod accept;
mod due;
mod record;

pub use accept::{Enrolled, EnrolmentRules};
pub use due::RenewalNeed;
pub use record::{EnrolmentRecord, EnrolmentTurn};
