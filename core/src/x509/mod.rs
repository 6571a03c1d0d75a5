//! X.509: certificates, certification paths, profiles and CRLs (RFC 5280; IEEE 802.1AR).

pub(crate) mod algorithms;
mod certificate;
#[cfg(feature = "evidence")]
pub(crate) mod certify;
pub(crate) mod checks;
pub(crate) mod clock;
pub(crate) mod comparison;
pub(crate) mod crl;
mod csr_attributes;
mod decode;
pub(crate) mod device;
pub(crate) mod extension;
pub(crate) mod extensions;
pub(crate) mod files;
mod forms;
pub(crate) mod general_names;
pub(crate) mod issue;
pub(crate) mod names;
mod parts;
pub(crate) mod path;
mod pkcs7;
pub(crate) mod profile;
mod reading;
#[cfg(feature = "evidence")]
pub(crate) mod received_request;
pub(crate) mod request;
mod requested_names;
#[cfg(test)]
pub(crate) mod samples;
mod subject_template;
mod time;

pub use certificate::Certificate;
pub use checks::{Check, Outcome};
pub use clock::clock_is_wrong;
pub use csr_attributes::CsrAttributes;
pub use decode::{NoCertificate, Unreadable};
pub use issue::{IssueError, Subject};
pub use pkcs7::certificates_of_answer;
pub use profile::{HardwareModule, Meaning, Profile};
pub use reading::ParsedCertificates;
pub(crate) use reading::is_certificate_label;
pub use request::{RequestContent, request_pem};
pub use subject_template::{SubjectTemplate, SubjectVariable};
pub use time::{Date, Time};
