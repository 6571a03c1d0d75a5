//! Unusual hosts: C programs whose threads are cancelled, whose signals interrupt a call, and that
//! load the module twice.

use cryptoki_sys::CKR_CRYPTOKI_ALREADY_INITIALIZED;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use testkit::home::Home;
use testkit::host::host;
use testkit::link::Link;
use testkit::pins;
use testkit::programs::{Running, run};
use testkit::proxy::{Fault, Proxy, command};
use testkit::tpm::Swtpm;

over_both_transports!(calls_with_a_cancellation_pending, unloaded_without_an_end);
once!(
    what_hosts_do_all_day,
    mistakes_of_a_host,
    threads_cancelled_anywhere,
    counts_and_lengths_that_cannot_be_meant
);
// libtss2 waits for ever.
over_our_transport!(
    a_thread_cancelled_while_the_tpm_stalls,
    signals_while_the_tpm_stalls,
    stacks_of_threads,
);

/// A host that gets its commands by lines, and reports by lines.
struct Talking {
    running: Running,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Talking {
    fn start(command: &mut Command) -> Talking {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::start("host", command);
        let child = running.child();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let from = BufReader::new(from);
        Talking { running, to, from }
    }

    fn tell(&mut self) {
        self.to.write_all(b"\n").expect("the host reads");
    }

    #[track_caller]
    fn says(&mut self, wanted: &str) {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("text");
        assert_eq!(line.trim_end(), wanted);
    }

    #[track_caller]
    fn ends_well(mut self) {
        let status = self.running.wait(Duration::from_secs(60)).expect("it ends");
        assert!(status.success(), "{status}");
    }
}

fn calls_with_a_cancellation_pending(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    run(&mut host(&home, "cancelled", &["pending"])).ok();
}

fn a_thread_cancelled_while_the_tpm_stalls(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(&link.tcti(&proxy.tcti()));
    for kind in ["deferred", "asynchronous"] {
        let mut host = Talking::start(&mut host(&home, "cancelled", &["waiting", kind]));
        host.says("ready");
        proxy.book().break_next(command::SIGN, Fault::Stall);
        host.tell();
        proxy.book().await_stall();
        host.tell();
        host.says("cancelled");
        proxy.book().release();
        host.ends_well();
    }
}

fn threads_cancelled_anywhere() {
    let home = Home::new("swtpm:port=1");
    run(&mut host(&home, "cancelled", &["anywhere"])).ok();
}

fn what_hosts_do_all_day() {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    run(&mut host(&home, "everyday", &[])).ok();
}

fn mistakes_of_a_host() {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    run(&mut host(&home, "mistakes", &[])).ok();
}

fn counts_and_lengths_that_cannot_be_meant() {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&tpm.tcti());
    run(&mut host(&home, "huge", &[])).ok();
}

/// Bytes of stack that a call may take, with what glibc puts on a thread's stack (docs/LIMITS.md). The build of
/// this test is without optimisation.
const STACK: usize = 256 << 10;

fn stacks_of_threads(link: Link) {
    let (bench, token) = pins::Bench::with_pins(link);
    token.raw.finalize().unwrap();
    let said = run(&mut host(&bench.home, "stacks", &[pins::USER]))
        .ok()
        .text();
    println!("\n{said}");
    let most = said
        .lines()
        .map(|line| line.split(' ').next().unwrap().parse::<usize>().unwrap());
    assert!(most.max().unwrap() <= STACK, "{said}");
}

/// The module is not notified and stays in memory, so it continues.
fn unloaded_without_an_end(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let said = run(&mut host(&home, "reloaded", &[])).ok().text();
    let already = format!("{CKR_CRYPTOKI_ALREADY_INITIALIZED:x} 1 1");
    assert_eq!(said.trim(), already);
}

fn signals_while_the_tpm_stalls(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(&link.tcti(&proxy.tcti()));
    let mut host = Talking::start(&mut host(&home, "interrupted", &[]));
    host.says("ready");
    proxy.book().break_next(command::SIGN, Fault::Stall);
    host.tell();
    proxy.book().await_stall();
    host.says("interrupted");
    proxy.book().release();
    host.ends_well();
}
