//! `devid bench`: its measurements, and the objects that it must not change.

use crate::device::link::Link;
use crate::device::programs::Running;
use crate::device::proxy::{Fault, Proxy, answer, command};
use crate::device::tpm::Swtpm;
use crate::device::{Device, home::Home, programs, tpm2};
use std::collections::BTreeSet;
use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
const CONTEXT_SAVE: u32 = 0x162;
const TPM_RH_NULL: [u8; 4] = [0x40, 0, 0, 7];
/// All that it may send; none of these writes to the TPM.
const COMMANDS: [u32; 11] = [
    command::GET_CAPABILITY,
    command::TEST_PARMS,
    command::CREATE_PRIMARY,
    CONTEXT_SAVE,
    command::CONTEXT_LOAD,
    command::CREATE,
    command::LOAD,
    command::SIGN,
    command::START_AUTH_SESSION,
    command::UNSEAL,
    command::FLUSH_CONTEXT,
];

/// A device whose TPM stands behind a proxy.
fn device(link: Link) -> (Device, Proxy) {
    let tpm = Swtpm::blank();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(&link.tcti(&proxy.tcti()));
    let tpm = Some(tpm);
    (Device { tpm, home }, proxy)
}

/// Handles of objects and sessions in the TPM.
fn loaded(device: &mut Device) -> String {
    let lists = ["handles-transient", "handles-loaded-session"];
    lists
        .map(|list| tpm2(device, "tpm2_getcap", &[list]).text())
        .concat()
}

/// A wrong value that counts.
fn count_a_wrong_try(device: &mut Device) {
    let key = device.path("pin.ctx").display().to_string();
    let primary = ["-C", "o", "-p", "right", "-c", &key];
    tpm2(device, "tpm2_createprimary", &primary);
    tpm2(device, "tpm2_flushcontext", &["--transient-object"]);
    let mut create = device.tpm().tool("tpm2_create");
    let said = programs::run(create.args(["-C", &key, "-P", "wrong"]));
    assert!(!said.status.success(), "{said}");
    tpm2(device, "tpm2_flushcontext", &["--transient-object"]);
}

#[test]
fn nothing_is_written_and_nothing_counts() {
    for link in [Link::Ours, Link::Tctildr] {
        let (mut device, proxy) = device(link);
        device.ends(0, &["provision", "--wait", "0"]);
        count_a_wrong_try(&mut device);
        let counter = device.tpm().lockout_counter();
        assert_eq!(counter, 1);
        let persistent = tpm2(&mut device, "tpm2_getcap", &["handles-persistent"]).text();
        proxy.book().take();
        proxy.book().keep();

        let report = device.json(&["bench"]);

        let sent: BTreeSet<u32> = proxy
            .book()
            .take()
            .0
            .iter()
            .map(|(code, _)| *code)
            .collect();
        assert_eq!(sent, BTreeSet::from(COMMANDS));
        let wire = proxy.book().wire();
        let primaries = wire
            .iter()
            .filter(|one| one[6..10] == command::CREATE_PRIMARY.to_be_bytes());
        for primary in primaries {
            assert_eq!(
                primary[10..14],
                TPM_RH_NULL,
                "no seed of the owner's is used"
            );
        }
        assert_eq!(loaded(&mut device), "");
        assert_eq!(
            tpm2(&mut device, "tpm2_getcap", &["handles-persistent"]).text(),
            persistent
        );
        assert_eq!(device.tpm().lockout_counter(), counter);

        let operations = report["operations"].as_array().unwrap();
        let named: Vec<_> = operations
            .iter()
            .map(|one| {
                (
                    one["name"].as_str().unwrap(),
                    one["key"].as_str().unwrap_or_default(),
                )
            })
            .collect();
        let of_a_key = |key| ["generate", "sign", "load-and-sign"].map(|name| (name, key));
        let wanted = [
            &of_a_key("P-256")[..],
            &of_a_key("RSA-2048"),
            &[("unseal", ""), ("login", "")],
        ];
        assert_eq!(named, wanted.concat());
        for one in operations {
            let [least, median, most] =
                ["min_ms", "median_ms", "max_ms"].map(|name| one[name].as_f64().unwrap());
            assert!(0.0 < least && least <= median && median <= most, "{one}");
        }
        let advice = report["advice"].as_str().unwrap();
        assert!(advice.contains("keys fit this TPM"), "{advice}");
        let table = device.ends(0, &["bench"]).text();
        assert!(table.contains("RSA-2048: load, sign, flush"), "{table}");
        assert!(
            table.trim_end().ends_with('.'),
            "the advice comes last: {table}"
        );
    }
}

/// Each operation costs as many commands as its row says.
#[test]
fn the_rows_tell_their_commands() {
    let (device, proxy) = device(Link::Ours);
    let report = device.json(&["bench"]);
    let seen = proxy.book().take();
    let rounds = |name: &str| -> u64 {
        let operations = report["operations"].as_array().unwrap().iter();
        let of = operations.filter(|one| one["name"] == name);
        of.map(|one| one["rounds"].as_u64().unwrap()).sum()
    };
    let sent = |code| seen.of(code) as u64;
    assert_eq!(
        sent(command::SIGN),
        rounds("sign") + rounds("load-and-sign")
    );
    assert_eq!(sent(command::UNSEAL), rounds("unseal") + rounds("login"));
    // The sealed data are made in an auth session, too.
    assert_eq!(
        sent(command::START_AUTH_SESSION),
        rounds("unseal") + rounds("login") + 1
    );
    assert_eq!(sent(command::CREATE), rounds("generate") + 1);
}

/// A signal while the TPM is at work.
#[test]
fn a_signal_ends_it_and_everything_is_flushed() {
    for (signal, code) in [
        (libc::SIGINT, command::CREATE),
        (libc::SIGTERM, command::SIGN),
        (libc::SIGHUP, command::UNSEAL),
    ] {
        let (mut device, proxy) = device(Link::Ours);
        proxy.book().break_next(code, Fault::Stall);
        let mut bench = device.command(&["bench", "--json"]);
        bench.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::start("devid bench", &mut bench);
        proxy.book().await_stall();
        let id = libc::pid_t::try_from(running.id()).unwrap();
        // SAFETY: the child is ours and not yet waited for, so the id is still its own.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
        proxy.book().release();
        let ended = running.wait(PATIENCE).expect("it ends");
        assert_eq!(ended.code(), Some(1));
        let mut said = String::new();
        let child = running.child();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert!(said.contains("a signal ended the measurement"), "{said}");
        assert_eq!(loaded(&mut device), "");
        assert_eq!(
            proxy.book().take().of(code),
            1,
            "the command at work was the last of its kind"
        );
    }
}

#[test]
fn a_fault_leaves_nothing_loaded() {
    for (code, fault) in [
        (command::SIGN, Fault::Code(answer::FAILURE)),
        (command::LOAD, Fault::Code(answer::LOCKOUT)),
        (command::CREATE, Fault::Code(answer::FAILURE)),
        (command::UNSEAL, Fault::Code(0x98E)),
        (command::LOAD, Fault::Lost),
        (command::CREATE_PRIMARY, Fault::Lost),
        (command::CONTEXT_LOAD, Fault::Lost),
        (command::UNSEAL, Fault::Lost),
        (command::SIGN, Fault::Drop),
    ] {
        let (mut device, proxy) = device(Link::Ours);
        proxy.book().break_next(code, fault);
        let said = device.devid(&["bench"]);
        let repeated = matches!(fault, Fault::Lost | Fault::Drop);
        assert_eq!(
            said.status.success(),
            repeated,
            "{code:#x} {fault:?}: {said}"
        );
        assert!(proxy.book().all_broken());
        assert_eq!(loaded(&mut device), "", "{code:#x} {fault:?}: {said}");
    }
}

/// A TPM without room for objects at first, as others leave it.
#[test]
fn a_crowded_tpm_is_waited_for() {
    let (device, proxy) = device(Link::Ours);
    proxy
        .book()
        .break_times(command::LOAD, Fault::Code(answer::OBJECT_MEMORY), 2);
    device.ends(0, &["bench"]);
}

#[test]
fn without_a_tpm_it_says_so() {
    Device::without_tpm().ends(4, &["bench"]);
}
