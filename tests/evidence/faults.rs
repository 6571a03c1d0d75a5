//! If the connection is lost at any command, no object or session stays in the TPM.

use crate::activate::challenge;
use crate::device::Device;
use crate::structures::{certified, name};
use std::collections::BTreeSet;
use testkit::programs::run;
use testkit::proxy::{Fault, Proxy, Seen};

/// A device whose tool reaches the TPM through a proxy.
struct Proxied {
    device: Device,
    proxy: Proxy,
}

impl Proxied {
    fn new(device: Device) -> Proxied {
        let proxy = Proxy::new(&device.tpm);
        Proxied { device, proxy }
    }

    fn devid(&self, words: &[&str]) -> testkit::programs::Said {
        let mut command = self.device.command(words);
        run(command.env("DEVID_PKCS11_TCTI", self.proxy.tcti()))
    }

    /// The commands of a run that succeeds.
    fn commands(&self, words: &[&str]) -> Seen {
        self.proxy.book().take();
        self.devid(words).ok();
        self.proxy.book().take()
    }

    /// Breaks each kind of command once, in each way. The tool continues over a new connection, or
    /// gives the reason. No object is left.
    fn leaves_nothing(&self, words: &[&str]) {
        let kinds: BTreeSet<u32> = self
            .commands(words)
            .0
            .iter()
            .map(|(code, _)| *code)
            .collect();
        self.device.is_clean();
        for code in kinds {
            for fault in [Fault::Lost, Fault::Drop, Fault::Garbage] {
                self.proxy.book().break_next(code, fault);
                let said = self.devid(words);
                assert!(self.proxy.book().all_broken(), "{code:#x} {fault:?}");
                self.proxy.book().heal();
                assert!(
                    matches!(said.status.code(), Some(0 | 1 | 4)),
                    "{code:#x} {fault:?}: {said}"
                );
                assert_eq!(
                    self.device.tpm.transients(),
                    0,
                    "{code:#x} {fault:?}: {said}"
                );
                assert_eq!(self.device.tpm.sessions(), 0, "{code:#x} {fault:?}: {said}");
            }
        }
    }
}

#[test]
fn evidence_of_an_own_key_leaves_nothing_after_a_lost_connection() {
    let device = Device::new();
    device.generate("web", &[]);
    device.attest(&["web", "--nonce", "01"]);
    device.tpm.without_endorsement_handles();
    Proxied::new(device).leaves_nothing(&["attest", "web", "--nonce", "01"]);
}

#[test]
fn evidence_of_a_factory_key_leaves_nothing_after_a_lost_connection() {
    let kind = ["--no-persist"];
    let device = Device::with_factory(&kind, &kind);
    Proxied::new(device).leaves_nothing(&["attest", "idev-id", "--nonce", "01"]);
}

#[test]
fn an_activation_leaves_nothing_after_a_lost_connection() {
    let device = Device::with_factory(&[], &["--no-persist"]);
    let key = name(&device.attest(&["idev-id"]).bytes("attestationKey/public"));
    let challenge = challenge(&device, "0x81010016", &key);
    device.home.write("challenge", challenge.to_string());
    device.tpm.without_endorsement_handles();
    let file = device.word("challenge");
    Proxied::new(device).leaves_nothing(&["activate", &file]);
}

#[test]
fn an_hmac_challenge_leaves_nothing_after_a_lost_connection() {
    let device = Device::with_factory(&[], &["--no-persist"]);
    let message = crate::enrollz::challenge(&device, "0x81010016", &[]);
    device.home.write("request", message.to_string());
    device.tpm.without_endorsement_handles();
    let file = device.word("request");
    Proxied::new(device).leaves_nothing(&["challenge", &file]);
}

/// By pieces, so that a hash sequence is loaded.
#[test]
fn a_signature_by_a_ticket_leaves_nothing_after_a_lost_connection() {
    let device = Device::with_factory(&[], &["--no-persist"]);
    device.home.write("data", [7; 3000]);
    let file = device.word("data");
    Proxied::new(device).leaves_nothing(&["sign", "iak", &file, "--raw"]);
}

/// The first use of a key that counts wrong values after the TPM's start is answered RETRY once.
#[test]
fn a_tpm_that_asks_for_the_command_again_gets_it() {
    const RETRY: u32 = 0x922;
    let device = Device::with_factory(&[], &[]);
    let proxied = Proxied::new(device);
    let kinds: BTreeSet<u32> = proxied
        .commands(&["attest", "idev-id", "--nonce", "01"])
        .0
        .iter()
        .map(|(code, _)| *code)
        .collect();
    for code in kinds {
        proxied.proxy.book().break_next(code, Fault::Code(RETRY));
        let said = proxied.devid(&["attest", "idev-id", "--nonce", "01"]).ok();
        let bundle = crate::device::Bundle::read(&said.out);
        certified(&bundle, "key");
        proxied.proxy.book().heal();
        proxied.device.is_clean();
    }
}

/// The cost of evidence, for docs/EVIDENCE.md.
#[test]
fn evidence_costs_as_many_commands_as_the_page_says() {
    let device = Device::new();
    device.generate("web", &[]);
    device.attest(&["web", "--nonce", "01"]);
    let own = Proxied::new(device);
    let seen = own.commands(&["attest", "web", "--nonce", "01"]);
    assert_eq!(seen.total(), 29, "{seen:?}");
    let factory = Proxied::new(Device::with_factory(&[], &[]));
    let seen = factory.commands(&["attest", "idev-id", "--nonce", "01"]);
    assert_eq!(seen.total(), 38, "{seen:?}");
}
