//! Enrolments whose TPM fails: one command meets one fault. Afterwards the earlier pair or the new pair is
//! in use, whole, and the same call succeeds.
//!
//! `DEVID_FAULTS=N` injects N faults, evenly from all faults at all commands; `all` injects each fault at
//! each command. Without it each kind of command meets one fault.

use super::est::{Est, bench, is_whole};
use crate::device::Device;
use std::collections::BTreeMap;
use std::env;
use testkit::programs::{Said, run};
use testkit::proxy::{Fault, Proxy, answer};

const FAULTS: [Fault; 11] = [
    Fault::Drop,
    Fault::Lost,
    Fault::Half,
    Fault::Garbage,
    Fault::Code(answer::RETRY),
    Fault::Code(answer::FAILURE),
    Fault::Code(answer::OBJECT_MEMORY),
    Fault::Code(answer::LOCKOUT),
    Fault::Code(answer::NV_RATE),
    Fault::Code(0x910),
    Fault::Code(0x98E),
];

/// A fault at a command: its code, and how many commands with this code precede it.
type Place = (u32, u32, Fault);

struct Bench {
    device: Device,
    est: Est,
    proxy: Proxy,
}

impl Bench {
    fn new() -> Bench {
        let (mut device, est) = bench();
        let proxy = Proxy::new(device.tpm());
        Bench { device, est, proxy }
    }

    fn enroll(&self, label: &str, options: &[&str]) -> Said {
        let (url, root) = (self.est.url("good", ""), self.est.certificate("root"));
        let words = ["enroll", label, "--est", &url, "--trust", &root];
        let mut command = self.device.command(&[&words, options].concat());
        run(command.env("DEVID_PKCS11_TCTI", self.proxy.tcti()))
    }

    /// Runs the call with the fault. The call may fail, but not crash.
    fn broken(&mut self, (code, spared, fault): Place, label: &str, options: &[&str]) -> Said {
        self.proxy.book().break_after(code, spared, fault);
        let said = self.enroll(label, options);
        assert!(
            matches!(said.status.code(), Some(0 | 1 | 4)),
            "{code:#x} {spared} {fault:?}: {said}"
        );
        // A call that reads a remembered fact sends some commands less.
        assert!(
            self.proxy.book().all_broken() || spared > 0,
            "{code:#x} {fault:?} did not happen: {said}"
        );
        self.proxy.book().heal();
        said
    }

    /// Runs the call without a fault after the broken call.
    fn succeeds(&mut self, place: Place, broken: &Said, label: &str, options: &[&str]) {
        let said = self.enroll(label, options);
        let code = said.status.code();
        assert_eq!(code, Some(0), "after {place:x?}: {broken}{said}");
        let lockout = self.device.tpm().lockout_counter();
        assert_eq!(lockout, 0, "after {place:x?}");
    }

    /// The places where the call may meet faults, by the commands that it just sent.
    fn places(&self) -> Vec<Place> {
        let (mut seen, mut all) = (BTreeMap::new(), Vec::new());
        let sent = self.proxy.book().take();
        for (code, _) in sent.0 {
            let spared = seen.entry(code).or_insert(0);
            all.extend(FAULTS.map(|fault| (code, *spared, fault)));
            *spared += 1;
        }
        assert!(seen.len() >= 8, "{seen:x?}");
        let first = |n: usize, code: &u32| (*code, 0, FAULTS[n % FAULTS.len()]);
        let wanted = match env::var("DEVID_FAULTS").as_deref() {
            Ok("all") => all.len(),
            Ok(text) => text.parse().expect("DEVID_FAULTS is a number or all"),
            Err(_) => return seen.keys().enumerate().map(|(n, code)| first(n, code)).collect(),
        };
        // A step without a common factor with the number of faults meets each fault in turn.
        let mut step = (all.len() / wanted).max(1);
        while step.is_multiple_of(FAULTS.len()) {
            step += 1;
        }
        let place = |n: usize| all[n * step % all.len()];
        (0..wanted.min(all.len())).map(place).collect()
    }
}

#[test]
fn the_pair_stays_whole() {
    let mut bench = Bench::new();
    assert_eq!(bench.enroll("web", &[]).status.code(), Some(0));
    let renewal = ["--new-key"];
    bench.enroll("web", &renewal).ok();
    bench.proxy.book().take();
    bench.enroll("web", &renewal).ok();
    let places = bench.places();
    for place in &places {
        let said = bench.broken(*place, "web", &renewal);
        let before = is_whole(&bench.device, &bench.est, "web");
        bench.succeeds(*place, &said, "web", &renewal);
        assert_ne!(is_whole(&bench.device, &bench.est, "web"), before);
    }
    println!("a renewal: {} faults", places.len());
}

#[test]
fn a_first_enrolment_ends_whole() {
    let mut bench = Bench::new();
    bench.enroll("first", &[]).ok();
    bench.proxy.book().take();
    bench.enroll("second", &[]).ok();
    let places = bench.places();
    for (n, place) in places.iter().enumerate() {
        let label = format!("web{n}");
        let said = bench.broken(*place, &label, &[]);
        bench.succeeds(*place, &said, &label, &[]);
        is_whole(&bench.device, &bench.est, &label);
        let labelled = bench.device.ends(0, &["list"]).text();
        let keys = labelled.lines().filter(|line| line.contains(&label));
        assert!(keys.count() >= 1, "{labelled}");
    }
    println!("a first enrolment: {} faults", places.len());
}
