//! Runs the commands of docs/ENROLMENT.md.

use super::est::{bench, is_whole};
use crate::device::programs;
use std::fs;
use std::path::Path;

#[test]
fn the_commands_of_the_page() {
    let (device, est) = bench();
    let tool = Path::new(env!("CARGO_BIN_EXE_devid")).parent().unwrap();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ENROLMENT.md");
    let text = fs::read_to_string(page).unwrap();
    let (_, rest) = text.split_once("```sh enrolment\n").expect("the block");
    let (block, _) = rest.split_once("\n```").expect("its end");
    let url = est.url("good", "").replace("/.well-known/est", "");
    fs::copy(est.certificate("root"), device.path("est-ca.pem")).unwrap();
    assert_eq!(block.lines().count(), 6, "{block}");
    let mut certificates = Vec::new();
    for line in block.lines() {
        let mut shell = programs::program("sh");
        let path = format!("{}:{}", tool.display(), std::env::var("PATH").unwrap());
        shell
            .args(["-ec", &line.replace("https://est.example:8443", &url)])
            .current_dir(device.home.folder())
            .env("PATH", path);
        programs::run(device.home.settle(&mut shell)).ok();
        certificates.push(is_whole(&device, &est, "web"));
    }
    let [first, same, second, back, .., last] = &certificates[..] else {
        panic!("{certificates:?}");
    };
    assert_eq!((first, back, last), (same, first, first));
    assert_ne!(second, first);
    let written = fs::read_to_string(device.path("web.pem")).unwrap();
    assert!(
        written.matches("BEGIN CERTIFICATE").count() > 1,
        "{written}"
    );
}
