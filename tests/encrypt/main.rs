//! Encryption, key agreement, and the import of wrapped keys.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[macro_use]
extern crate testkit;

mod command_counts;
mod decrypt;
mod derive;
mod operations;
mod secret_attacks;
mod secret_keys;
mod secret_rules;
mod unwrap;
mod unwrap_refused;
mod unwrap_visible;
