//! The client of Enrolment over Secure Transport (EST, RFC 7030).
//!
//! `url`, `http` and `tls` are the transport. `trust` decides whether the server is trusted,
//! `protocol` implements EST, and `enrolment` does the work of `devid enroll`.

mod credentials;
mod enrolment;
mod http;
mod protocol;
mod tls;
mod trust;
mod url;

pub(crate) use credentials::Credentials;
pub(crate) use enrolment::{Enrolment, Outcome, ServerTrust, note_failure};
pub(crate) use trust::fingerprint;
pub(crate) use url::EstUrl;
