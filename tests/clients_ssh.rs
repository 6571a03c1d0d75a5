//! OpenSSH and slot 0: it opens read-write sessions only, which a write-protected token refuses.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[macro_use]
mod common;

use common::home::Home;
use common::link::Link;
use common::module::library;
use common::programs::{program, run};
use common::tpm::Swtpm;

over_our_transport!(openssh_asks_for_a_read_write_session);

/// What the README says of OpenSSH holds, and OpenSSH survives it.
fn openssh_asks_for_a_read_write_session(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let mut keys = program("ssh-keygen");
    keys.arg("-D").arg(library());
    let said = run(home.settle(&mut keys));
    let write_protected = format!("C_OpenSession failed: {}", 0xE2);
    assert!(said.all().contains(&write_protected), "{}", said.all());
}
