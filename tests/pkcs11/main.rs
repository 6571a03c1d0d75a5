//! Calls of PKCS#11: function tables, slots, sessions, searches, objects and their attributes.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[macro_use]
extern crate testkit;

mod absent_token;
mod answers;
mod certificate_validity;
mod choices;
mod copies;
mod function_tables;
mod objects;
mod scans;
mod session_slot;
mod slots;
mod standard;
mod two_calls;
mod vendor_attributes;
mod write_protected;
