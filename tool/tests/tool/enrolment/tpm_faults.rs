//! A renewal with TPM faults. Each type of command that the renewal sends gets a fault, one fault
//! in each run. After the run the old key and certificate or the new key and certificate are in
//! use, completely. A second run of the command succeeds.
//!
//! `DEVID_FAULTS=all` tries each fault at each type of command. By default each type of command
//! gets one fault.

use super::est::{bench, is_whole};
use crate::device::Device;
use std::collections::BTreeSet;
use testkit::programs::run;
use testkit::proxy::{Fault, Proxy, answer};

const FAULTS: [Fault; 10] = [
    Fault::Drop,
    Fault::Lost,
    Fault::Half,
    Fault::Garbage,
    Fault::Code(answer::RETRY),
    Fault::Code(answer::FAILURE),
    Fault::Code(answer::OBJECT_MEMORY),
    Fault::Code(answer::LOCKOUT),
    Fault::Code(0x910),
    Fault::Code(0x98E),
];

#[test]
fn the_pair_stays_whole() {
    let (mut device, est) = bench();
    assert_eq!(est.enroll(&device, "web", "", &[]).status.code(), Some(0));
    let (url, root) = (est.url("good", ""), est.certificate("root"));
    let words = [
        "enroll",
        "web",
        "--est",
        &url,
        "--trust",
        &root,
        "--new-key",
    ];
    let proxy = Proxy::new(device.tpm());
    let enroll = |device: &Device| {
        let mut command = device.command(&words);
        run(command.env("DEVID_PKCS11_TCTI", proxy.tcti()))
    };
    enroll(&device).ok();
    let seen = proxy.book().take();
    let kinds: BTreeSet<u32> = seen.0.iter().map(|(code, _)| *code).collect();
    let all = std::env::var("DEVID_FAULTS").is_ok_and(|said| said == "all");
    let mut injected = 0;
    for (n, code) in kinds.iter().enumerate() {
        let chosen = match all {
            true => &FAULTS[..],
            false => &FAULTS[n % FAULTS.len()..][..1],
        };
        for fault in chosen {
            injected += 1;
            proxy.book().break_next(*code, *fault);
            let said = enroll(&device);
            assert!(proxy.book().all_broken(), "{code:#x} {fault:?}: {said}");
            proxy.book().heal();
            assert!(
                matches!(said.status.code(), Some(0 | 1 | 4)),
                "{code:#x} {fault:?}: {said}"
            );
            let before = is_whole(&device, &est, "web");
            let again = enroll(&device);
            assert_eq!(
                again.status.code(),
                Some(0),
                "after {code:#x} {fault:?}: {said}{again}"
            );
            assert_ne!(is_whole(&device, &est, "web"), before);
            assert_eq!(
                device.tpm().lockout_counter(),
                0,
                "after {code:#x} {fault:?}"
            );
        }
    }
    println!(
        "a renewal: {injected} faults at {} kinds of commands",
        kinds.len()
    );
    assert!(injected >= kinds.len() && kinds.len() >= 8, "{kinds:x?}");
}
