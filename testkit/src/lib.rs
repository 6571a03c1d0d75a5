//! Helpers of the tests: a TPM for each test, a factory, the module under test, and real programs.
//! A proxy counts commands and injects faults.
//!
//! The module has one state and one environment for a whole process. Therefore each test of the
//! module runs in its own process: see [`story`].
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::expect_used,
    clippy::len_without_is_empty,
    clippy::macro_metavars_in_unsafe,
    clippy::new_without_default,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

#[macro_use]
pub mod raw;
pub mod budgets;
pub mod ciphers;
pub mod der;
pub mod devid;
pub mod digests;
pub mod endorsed;
pub mod factory;
pub mod folders;
pub mod foreign;
pub mod fork;
pub mod fronts;
pub mod home;
pub mod host;
pub mod interposer;
pub mod journal;
pub mod link;
pub mod maker;
pub mod managers;
pub mod memory;
pub mod module;
pub mod mutation;
pub mod network;
pub mod openssl;
pub mod own;
pub mod pages;
pub mod pins;
pub mod ports;
pub mod programs;
pub mod proxy;
pub mod seccomp;
mod signature_answers;
pub mod signing;
pub mod softhsm;
pub mod ssh;
pub mod story;
pub mod tls;
pub mod tpm;
#[macro_use]
pub mod trouble;
pub mod wrapping;

/// The number of profile objects of a token with one EC identity: baseline provider, extended
/// provider, public certificates token.
pub const PROFILES: usize = 3;

/// Makes two tests of each story: `ours::NAME` over the module's own transport, and `tctildr::NAME`
/// over libtss2. A build without the feature `tss` lacks `tctildr`. A story may have attributes, as
/// in `#[ignore = "why"] NAME`.
#[macro_export]
macro_rules! over_both_transports {
    ($($(#[$mark:meta])* $story:ident),+ $(,)?) => {
        mod ours {
            $(#[test] $(#[$mark])*
            fn $story() {
                let name = concat!(module_path!(), "::", stringify!($story));
                $crate::story::tell(name, || super::$story($crate::link::Link::Ours));
            })+
        }
        #[cfg(feature = "tss")]
        mod tctildr {
            $(#[test] $(#[$mark])*
            fn $story() {
                let name = concat!(module_path!(), "::", stringify!($story));
                $crate::story::tell(name, || super::$story($crate::link::Link::Tctildr));
            })+
        }
    };
}

/// Makes one test of each story, `once::NAME`, for stories in which the transport does not matter.
#[macro_export]
macro_rules! once {
    ($($(#[$mark:meta])* $story:ident),+ $(,)?) => {
        mod once {
            $(#[test] $(#[$mark])*
            fn $story() {
                let name = concat!(module_path!(), "::", stringify!($story));
                $crate::story::tell(name, super::$story);
            })+
        }
    };
}

/// Makes one test of each story, `our_transport::NAME`.
#[macro_export]
macro_rules! over_our_transport {
    ($($(#[$mark:meta])* $story:ident),+ $(,)?) => {
        mod our_transport {
            $(#[test] $(#[$mark])*
            fn $story() {
                let name = concat!(module_path!(), "::", stringify!($story));
                $crate::story::tell(name, || super::$story($crate::link::Link::Ours));
            })+
        }
    };
}
