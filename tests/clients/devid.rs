//! Scripts that call `devid`.

use std::io::{Read, pipe};
use std::process::{Command, Stdio};
use std::time::Duration;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::tool;
use testkit::programs::{Running, run};
use testkit::tpm::Swtpm;

over_our_transport!(a_reader_that_has_gone,);

/// As in `devid list | head -n 0`.
fn a_reader_that_has_gone(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let list = || {
        let mut list = Command::new(tool());
        home.settle(list.arg("list").stdin(Stdio::null()));
        list
    };
    assert!(
        !run(&mut list()).ok().out.is_empty(),
        "there is much to say"
    );

    let (reader, writer) = pipe().unwrap();
    let (mut complaints, stderr) = pipe().unwrap();
    drop(reader);
    let mut command = list();
    command.stdout(writer).stderr(stderr);
    let mut running = Running::start("devid list", &mut command);
    drop(command); // it holds the other ends
    let ended = running.wait(Duration::from_secs(60)).expect("it ends");
    let mut said = String::new();
    complaints.read_to_string(&mut said).unwrap();
    assert_eq!(said, "", "{ended}");
    assert_ne!(ended.code(), Some(101), "a panic");
}
