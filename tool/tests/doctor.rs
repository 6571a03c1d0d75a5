//! What the doctor finds, and that each problem has a remedy.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use common::tpm::Swtpm;
use common::{Device, programs};
use serde_json::Value;
use std::fs;

fn problems(findings: &Value) -> Vec<&Value> {
    let all = findings.as_array().unwrap().iter();
    all.filter(|one| one["state"] == "problem").collect()
}

#[test]
fn a_healthy_device_has_no_problem_and_every_handle_a_name() {
    let (mut device, identity) = Device::manufactured();
    device.trust(&identity.ca());
    device.ends(0, &["provision", "--wait", "0"]);
    let attest = device.path("ak.ctx");
    let (ek, ak) = (device.path("ek.ctx"), attest.to_str().unwrap().to_owned());
    let run = |device: &mut Device, name: &str, words: &[&str]| {
        programs::run(device.tpm().tool(name).args(words)).ok();
        programs::run(
            device
                .tpm()
                .tool("tpm2_flushcontext")
                .arg("--transient-object"),
        )
        .ok();
    };
    run(
        &mut device,
        "tpm2_createek",
        &["-c", ek.to_str().unwrap(), "-G", "ecc"],
    );
    run(
        &mut device,
        "tpm2_createprimary",
        &[
            "-C",
            "o",
            "-G",
            "ecc256:ecdsa-sha256:null",
            "-a",
            "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign",
            "-c",
            &ak,
        ],
    );
    run(
        &mut device,
        "tpm2_evictcontrol",
        &["-C", "o", "-c", &ak, "0x81000003"],
    );

    let said = device.ends(0, &["doctor"]).text();
    for words in [
        "0x81000001: storage root key",
        "0x81000003: an attestation key",
        "0x81000080: the master key",
        "0x81000100: key of ours devid",
        "0x81020000: factory identity idev-id",
        "0x01C90200: a device identity's certificate",
        "lockout: 0 of",
        "no resource manager",
        "identity: it is in the TPM",
    ] {
        assert!(said.contains(words), "{words}:\n{said}");
    }
}

#[test]
fn without_tpm_it_says_what_to_do() {
    let device = Device::without_tpm();
    let findings = device.json(&["doctor"]);
    let problems = problems(&findings);
    assert!(
        problems.iter().any(|one| one["about"] == "TPM device"),
        "{findings}"
    );
    assert!(
        problems.iter().all(|one| one["mend"].is_string()),
        "{findings}"
    );
    device.ends(1, &["doctor"]);
}

#[test]
fn a_wrong_configuration_is_the_first_thing_it_says() {
    let device = Device::blank();
    device.home.write("config.toml", "tcit = 1\n");
    let said = device.ends(1, &["doctor"]).text();
    assert!(
        said.contains("config.toml:1: tcit: unknown field"),
        "{said}"
    );
    assert!(said.contains("p11-kit"), "and goes on: {said}");
}

#[test]
fn damaged_files_and_orphans_are_named() {
    let device = Device::blank();
    device.ends(0, &["provision", "--wait", "0"]);
    device.ends(0, &["key", "generate", "web", "--persistent"]);
    device.home.write(
        "state/devid/key-damaged.pem",
        "-----BEGIN TSS2 PRIVATE KEY-----\nAA\n",
    );
    for file in fs::read_dir(device.path("state/devid")).unwrap() {
        let path = file.unwrap().path();
        if fs::read_to_string(&path)
            .unwrap_or_default()
            .contains("Label: web")
        {
            fs::remove_file(path).unwrap();
        }
    }
    let said = device.ends(1, &["doctor"]).text();
    assert!(said.contains("key-damaged.pem"), "{said}");
    assert!(
        said.contains("0x81000101: a key of ours whose file is gone"),
        "{said}"
    );
    assert!(
        said.contains("-> tpm2_evictcontrol -C o -c 0x81000101"),
        "{said}"
    );
}

#[test]
fn an_exchanged_tpm_is_found_out() {
    let device = Device::blank();
    device.ends(0, &["provision", "--wait", "0"]);
    let device = device.move_to(Some(Swtpm::blank()));
    let said = device.ends(1, &["doctor"]).text();
    assert!(said.contains("PROBLEM  master key"), "{said}");
    assert!(said.contains("devid reset --factory --yes"), "{said}");
}
