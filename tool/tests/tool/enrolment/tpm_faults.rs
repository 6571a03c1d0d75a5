//! Enrolments with TPM faults, one fault in each run: the first enrolment of a service, and a renewal
//! with a new key. A renewal leaves the old key and certificate or the new key and certificate in
//! use, completely. After each fault a second run of the command succeeds. An object stays in the
//! TPM only if the fault hid its fate, or if the TPM did not flush the object. All runs of a story
//! use one TPM with three slots for objects, so the slots of such objects must be given back.
//!
//! By default each type of command gets one fault. `DEVID_FAULTS=N` injects N faults into each
//! story, evenly chosen from all faults at all commands. `DEVID_FAULTS=all` injects all of them.

use super::est::{bench, is_whole};
use crate::device::Device;
use crate::device::est::Est;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use testkit::programs::{Said, run};
use testkit::proxy::{Fault, Proxy, answer};

const FAULTS: [Fault; 11] = [
    Fault::Drop,
    Fault::Lost,
    Fault::Half,
    Fault::Garbage,
    Fault::Stall,
    Fault::Code(answer::RETRY),
    Fault::Code(answer::FAILURE),
    Fault::Code(answer::OBJECT_MEMORY),
    Fault::Code(answer::LOCKOUT),
    Fault::Code(REFERENCE_H0),
    Fault::Code(0x98E),
];

const FLUSH_CONTEXT: u32 = 0x165;
/// TPM_RC_REFERENCE_H0: the first handle is not loaded.
const REFERENCE_H0: u32 = 0x910;

/// Limits for the answer of a stalled TPM.
const LIMITS: &str = "timeout_ms = 1000\ngeneration_timeout_ms = 3000\n";

/// A device behind a proxy, and its EST server.
struct Stage {
    device: Device,
    est: Est,
    proxy: Proxy,
}

/// A fault at a command: its code, and how many commands with this code go before.
#[derive(Clone, Copy, Debug)]
struct Place {
    code: u32,
    spared: u32,
    fault: Fault,
}

impl Stage {
    fn new() -> Stage {
        let (mut device, est) = bench();
        let proxy = Proxy::new(device.tpm());
        Stage { device, est, proxy }
    }

    fn enroll(&self, label: &str, more: &[&str]) -> Said {
        let (url, root) = (self.est.url("good", ""), self.est.certificate("root"));
        let mut words = vec!["enroll", label, "--est", &url, "--trust", &root];
        words.extend(more);
        let mut command = self.device.command(&words);
        run(command.env("DEVID_PKCS11_TCTI", self.proxy.tcti()))
    }

    /// Returns the commands of a run without a fault.
    fn record(&self, label: &str, more: &[&str]) -> Vec<u32> {
        self.proxy.book().take();
        self.enroll(label, more).ok();
        let seen = self.proxy.book().take();
        seen.0.iter().map(|(code, _)| *code).collect()
    }

    /// Runs the command with a fault, and a second time without. A certificate that `renews` is
    /// whole between the runs, and the second run renews it. Returns false if the first run did not
    /// reach the place of the fault.
    fn survives(&self, place: Place, label: &str, more: &[&str], renews: bool) -> bool {
        let Place {
            code,
            spared,
            fault,
        } = place;
        let book = self.proxy.book();
        book.break_after(code, spared, fault);
        let settings = |text| self.device.home.write("config.toml", text);
        settings(if fault == Fault::Stall { LIMITS } else { "" });
        let tpm = self.device.tpm.as_ref().expect("a TPM");
        let before = tpm.transients();
        let said = self.enroll(label, more);
        let reached = book.all_broken();
        book.heal();
        settings("");
        let ends: &[i32] = match fault {
            Fault::Code(answer::RETRY) => &[0],
            _ => &[0, 1, 4],
        };
        let end = said.status.code().unwrap_or(-1);
        assert!(ends.contains(&end), "{place:x?}: {said}");
        let between = renews.then(|| is_whole(&self.device, &self.est, label));
        let again = self.enroll(label, more);
        assert!(again.status.success(), "after {place:x?}: {said}{again}");
        let now = is_whole(&self.device, &self.est, label);
        assert_ne!(Some(now), between, "after {place:x?}: {said}{again}");
        assert_eq!(tpm.lockout_counter(), 0, "after {place:x?}");
        // After a lost connection, and for a handle that is not loaded, the module cannot know
        // whether its object still exists.
        let is_known = matches!(fault, Fault::Code(answer) if answer != REFERENCE_H0);
        let may_stay = !is_known || code == FLUSH_CONTEXT;
        let (left, most) = (tpm.transients(), before + usize::from(may_stay));
        assert!(
            left <= most,
            "{left} objects after {place:x?}: {said}{again}"
        );
        reached
    }
}

/// Returns the faults to inject into a run that sends these commands.
fn places(commands: &[u32]) -> Vec<Place> {
    let mut seen = BTreeMap::new();
    let mut all = Vec::new();
    for code in commands {
        let spared = seen.entry(*code).or_insert(0);
        all.extend(FAULTS.map(|fault| Place {
            code: *code,
            spared: *spared,
            fault,
        }));
        *spared += 1;
    }
    match env::var("DEVID_FAULTS").as_deref() {
        Ok("all") => all,
        Ok(text) => {
            let wanted: usize = text.parse().expect("DEVID_FAULTS is a number or all");
            let wanted = wanted.min(all.len());
            (0..wanted).map(|n| all[n * all.len() / wanted]).collect()
        }
        Err(_) => {
            let kinds: BTreeSet<u32> = commands.iter().copied().collect();
            let place = |(n, code): (usize, u32)| Place {
                code,
                spared: 0,
                fault: FAULTS[n % FAULTS.len()],
            };
            kinds.into_iter().enumerate().map(place).collect()
        }
    }
}

/// Prints how many faults happened. A TPM asks for another try when it likes, so a run can send
/// fewer commands than the recorded run.
fn report(story: &str, commands: &[u32], reached: usize, tried: usize) {
    println!(
        "{story}: {reached} of {tried} faults at {} commands happened, and all were survived",
        commands.len()
    );
    assert!(commands.len() >= 8, "{story}: {commands:x?}");
    assert!(reached * 10 >= tried * 9, "{story}: {reached} of {tried}");
}

#[test]
fn a_first_enrolment_ends_after_the_fault() {
    let stage = Stage::new();
    // The first key of the device also needs a master key.
    stage.enroll("first", &[]).ok();
    let commands = stage.record("recorded", &[]);
    let places = places(&commands);
    let reached = places.iter().enumerate().filter(|(n, place)| {
        let label = format!("service-{n}");
        stage.survives(**place, &label, &[], false)
    });
    report(
        "a first enrolment",
        &commands,
        reached.count(),
        places.len(),
    );
}

#[test]
fn the_pair_stays_whole() {
    const NEW: &[&str] = &["--new-key"];
    let stage = Stage::new();
    stage.enroll("web", &[]).ok();
    let commands = stage.record("web", NEW);
    let places = places(&commands);
    let survives = |place: &&Place| stage.survives(**place, "web", NEW, true);
    let reached = places.iter().filter(survives);
    report("a renewal", &commands, reached.count(), places.len());
}
