//! The mechanisms (PKCS#11 3.0, chapter 6): which there are, their parameters, and what each does with
//! data.

pub(crate) mod derive;
pub(crate) mod digest;
pub(crate) mod encrypt;
pub(crate) mod generate;
pub(crate) mod key_type;
pub(crate) mod params;
pub(crate) mod sign;
pub(crate) mod unwrap;
