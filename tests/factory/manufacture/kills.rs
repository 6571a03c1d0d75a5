//! `devid-manufacture` is killed at each TPM command, before and after the TPM executes the
//! command. Then the device has no identity or a complete identity, and the next run completes the
//! identity.

use super::{Line, der, install};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex};

/// When the process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The TPM never sees the command.
    Before,
    /// The TPM executed it, and the answer comes too late.
    After,
}

/// Runs the words and kills them at the `nth` TPM command; whether they came that far.
fn is_killed(line: &Line, words: &[&str], nth: usize, moment: Moment) -> bool {
    let child = Arc::new((Mutex::new(None::<i32>), Condvar::new()));
    let (known, mut count) = (Arc::clone(&child), 0);
    line.proxy
        .book()
        .interpose(Some(Box::new(move |command, execute| {
            count += 1;
            if count != nth {
                return execute(command);
            }
            let answer = match moment {
                Moment::Before => Vec::new(),
                Moment::After => execute(command),
            };
            let id = known.0.lock().unwrap();
            let id = known.1.wait_while(id, |id| id.is_none()).unwrap();
            // SAFETY: the child is not waited for before it ends, so the id is its own.
            unsafe { libc::kill(id.unwrap(), libc::SIGKILL) };
            answer
        })));
    let mut command = line.command(words);
    let mut running = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    *child.0.lock().unwrap() = Some(i32::try_from(running.id()).unwrap());
    child.1.notify_all();
    let status = running.wait().unwrap();
    line.proxy.book().interpose(None);
    match status.signal() {
        Some(signal) => assert_eq!(signal, libc::SIGKILL),
        None => assert_eq!(status.code(), Some(0), "{words:?} at {nth}"),
    }
    status.signal().is_some()
}

/// No identity, or the whole of it.
#[track_caller]
fn assert_old_or_new(line: &Line, cut: &str) {
    let shown = line.devid(&["show", "idev-id"]);
    match shown.status.code() {
        Some(5) => {}
        Some(0) => {
            assert_eq!(
                line.nv("0x01C90200"),
                der(&line.path("idevid.pem")),
                "{cut}"
            );
            assert_eq!(line.nv("0x01C90100"), der(&line.path("iak.pem")), "{cut}");
        }
        _ => panic!("{cut}: {shown}"),
    }
}

#[test]
fn at_each_command_of_install() {
    let line = Line::with_keys(&["--template", "h2"]);
    for moment in [Moment::Before, Moment::After] {
        let mut cuts = 0;
        while is_killed(&line, &install("owner"), cuts + 1, moment) {
            cuts += 1;
            let cut = format!("command {cuts}, {moment:?}");
            assert_old_or_new(&line, &cut);
            line.ends(0, &install("owner"));
            line.ends(0, &["verify", "--ca", "ca/ca.pem"]);
            assert_eq!(
                line.nv("0x01C90200"),
                der(&line.path("idevid.pem")),
                "{cut}"
            );
            for index in ["0x01C90100", "0x01C90200", "0x01C90201"] {
                line.tool("tpm2_nvundefine", &["-C", "o", index]).ok();
            }
        }
        assert!(cuts > 20, "{cuts} commands are too few");
        for index in ["0x01C90100", "0x01C90200", "0x01C90201"] {
            line.tool("tpm2_nvundefine", &["-C", "o", index]).ok();
        }
    }
}

#[test]
fn at_each_command_of_keys() {
    let line = Line::new();
    line.ends(0, &["keys"]);
    let name = |line: &Line| {
        let area = line.tool("tpm2_readpublic", &["-c", "0x81020000"]).ok();
        area.text().lines().next().unwrap().to_owned()
    };
    let first = name(&line);
    for moment in [Moment::Before, Moment::After] {
        let mut cuts = 0;
        loop {
            for handle in ["0x81020000", "0x81020001"] {
                line.tool("tpm2_evictcontrol", &["-C", "o", "-c", handle])
                    .ok();
            }
            if !is_killed(&line, &["keys"], cuts + 1, moment) {
                break;
            }
            cuts += 1;
            line.ends(0, &["keys"]);
            assert_eq!(name(&line), first, "command {cuts}, {moment:?}");
            line.tool("tpm2_flushcontext", &["-t"]).ok();
        }
        assert!(cuts > 10, "{cuts} commands are too few");
    }
}
