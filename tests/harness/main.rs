//! Tests of the helpers and scripts that the other tests use.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[macro_use]
extern crate testkit;

mod helpers;
mod install;
mod live_install;
mod promises;
mod scripts;
