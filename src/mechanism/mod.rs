//! Mechanisms (PKCS#11 3.0, chapter 6). [`table`] lists them, [`params`] holds their parameters,
//! and each other file does the work of one kind of operation.

pub(crate) mod cipher;
pub(crate) mod derive;
pub(crate) mod digest;
pub(crate) mod encrypt;
pub(crate) mod key_type;
pub(crate) mod mac;
pub(crate) mod params;
pub(crate) mod sign;
pub(crate) mod table;
pub(crate) mod unwrap;
