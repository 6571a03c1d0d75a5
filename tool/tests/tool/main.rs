//! Stories of the command line tool `devid`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub
)]

mod device;

/// An identity of the device's own: made, kept, lost, reset.
mod identity {
    mod clouds;
    mod eve;
    mod handles;
    mod images;
    mod kills;
    mod life;
    mod losses;
    mod own;
    mod owner;
    mod refused;
    mod root_replaced;
    mod router;
    mod ssr;
    mod taken_over;
}

/// Requests, chains, revocation, verification.
mod certificates {
    mod chains;
    mod exchange;
    mod messages;
    mod requests;
    mod revoked;
    mod shapes;
    mod verify;
}

/// Certificates from servers, and their renewal.
mod enrolment {
    mod alike;
    pub mod est;
    mod faults;
    mod fields;
    mod forgotten;
    mod kills;
    mod neighbours;
    mod page;
    mod rekey;
    mod renewal;
    mod services;
    mod tpm_faults;
    mod turns;
    mod unlinkable;
}

/// Findings of `devid doctor`, and their remedies.
mod doctor {
    mod copied;
    mod damaged;
    mod findings;
    mod left_out;
    mod lockout;
    mod planted;
    mod remedies;
}

/// The master key of the token `devid`.
mod master {
    mod kills;
    mod renewal;
    mod seen;
    mod successions;
}

/// The command line: input, output, settings, packages.
mod command {
    mod audit;
    mod bench;
    mod common;
    mod files;
    mod input;
    mod json;
    mod many;
    mod names;
    mod outputs;
    mod packaging;
    mod release;
    mod settings;
    mod silent;
    mod slow;
    mod status;
    mod suggestions;
    mod tokens;
    mod tree;
    mod uris;
}
