//! Runs the commands of docs/MANUFACTURE.md without changes.

use super::Line;
use std::fs;
use testkit::folders;
use testkit::module::manufacture;
use testkit::programs::{program, run};

#[test]
fn the_page() {
    let page = fs::read_to_string(folders::root().join("docs/MANUFACTURE.md")).unwrap();
    let (_, rest) = page.split_once("```bash manufacture\n").expect("the block");
    let (block, _) = rest.split_once("\n```").expect("its end");
    let line = Line::new();
    let mut shell = program("bash");
    shell
        .args(["-euo", "pipefail", "-c", block])
        .current_dir(line.home.folder());
    let path = std::env::var_os("PATH").unwrap();
    let ours = manufacture().parent().unwrap().to_owned();
    let all = [ours].into_iter().chain(std::env::split_paths(&path));
    shell.env("PATH", std::env::join_paths(all).unwrap());
    let said = run(line.home.settle(&mut shell)).ok();
    assert!(!said.text().contains("WRONG"), "{said}");
    assert!(!said.all().contains("warning: IEEE 802.1AR"), "{said}");
    let records = fs::read_to_string(line.path("records.jsonl")).unwrap();
    assert_eq!(records.lines().count(), 1);
    assert!(records.contains("SN-000042"), "{records}");
    let ca = line.path("ca.pem");
    let verified = line.devid(&["verify", "idev-id", "--ca", ca.to_str().unwrap()]);
    assert_eq!(verified.status.code(), Some(0), "{verified}");
}
