//! Findings of the doctor on a device, its view of handles and NV indices, and its remedies for TPM
//! and environment.

use crate::device::link::Link;
use crate::device::mending::{assert_gone, assert_harmless, findings, found, mend, named, run};
use crate::device::{Device, programs};
use crate::device::{tpm::Swtpm, tpm2};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const PROVISION: &[&str] = &["provision", "--wait", "0"];

/// A key that only attests, at this handle.
fn attestation_key(device: &mut Device, handle: &str) {
    let ak = device.path("ak.ctx").display().to_string();
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign";
    let kind = ["-C", "o", "-G", "ecc256:ecdsa-sha256:null"];
    let words = [&kind[..], &["-a", attributes, "-c", &ak]].concat();
    tpm2(device, "tpm2_createprimary", &words);
    tpm2(device, "tpm2_evictcontrol", &["-C", "o", "-c", &ak, handle]);
    tpm2(device, "tpm2_flushcontext", &["--transient-object"]);
}

/// Puts bytes into an NV index as a factory would.
fn index(device: &mut Device, index: &str, content: &[u8]) {
    let path = device.home.write("content", content);
    let size = content.len().to_string();
    let attributes = "ownerwrite|ownerread|authread|no_da";
    let define = ["-C", "o", "-s", &size, "-a", attributes, index];
    tpm2(device, "tpm2_nvdefine", &define);
    let write = ["-C", "o", "-i", path.to_str().unwrap(), index];
    tpm2(device, "tpm2_nvwrite", &write);
}

#[test]
fn a_healthy_device_has_no_problem_and_every_place_is_what_it_was_taken_for() {
    let (mut device, identity) = Device::manufactured();
    device.trust(&identity.ca());
    device
        .home
        .write("config.toml", "[provision]\nnv_index = 0x01500000\n");
    device.ends(0, PROVISION);
    attestation_key(&mut device, "0x81000003");
    let ek = device.path("ek.ctx").display().to_string();
    tpm2(&mut device, "tpm2_createek", &["-c", &ek, "-G", "ecc"]);
    tpm2(
        &mut device,
        "tpm2_evictcontrol",
        &["-C", "o", "-c", &ek, "0x81010001"],
    );
    tpm2(&mut device, "tpm2_flushcontext", &["--transient-object"]);
    let noise: Vec<u8> = (0..=255).collect();
    index(&mut device, "0x01C90300", &noise);
    index(&mut device, "0x01C90010", &[0; 34]);
    index(&mut device, "0x01C00002", &noise);

    let said = device.ends(0, &["doctor"]).text();
    for words in [
        "0x81000001: storage root key",
        "0x81000003: an attestation key",
        "0x81000080: the master key",
        "0x81000100: key devid of this device",
        "0x81010001: endorsement key",
        "0x81020000: factory identity idev-id",
        "0x01500000: the copy of the own certificate",
        "0x01C90010: too small to hold a certificate; this index is reserved for the policy",
        "0x01C90200: certificate idev-id",
        "note     NV index: 0x01C90300: in the range for certificates of identities, but without",
        "0x01C00002: not read; this index is reserved for the certificate",
        "lockout: the TPM counts 0 of",
        "it supports Sha1, Sha256, Sha384, Sha512, P256, P384, P521, RSA-2048, RSA-3072",
        "persistent handles are in use, and",
        "no resource manager",
        "identity: the own identity is in the TPM",
    ] {
        assert!(said.contains(words), "{words}:\n{said}");
    }
    assert!(!said.contains("RSA-4096"), "swtpm has none:\n{said}");
    assert_eq!(found(&device, "handle.own")["object"], "0x81000100");
    assert_harmless(&device);
}

/// Only the memory of the folder tells which key is its master key.
#[test]
fn a_key_is_not_taken_for_ours_by_its_number() {
    let mut device = Device::blank();
    let ek = device.path("parent.ctx").display().to_string();
    tpm2(&mut device, "tpm2_createprimary", &["-C", "o", "-c", &ek]);
    for handle in ["0x81000080", "0x81020000"] {
        tpm2(
            &mut device,
            "tpm2_evictcontrol",
            &["-C", "o", "-c", &ek, handle],
        );
    }
    tpm2(&mut device, "tpm2_flushcontext", &["--transient-object"]);
    let unknown = found(&device, "handle.master-unknown");
    assert_eq!(unknown["state"], "note", "{unknown}");
    let foreign = found(&device, "handle.foreign");
    assert_eq!(foreign["object"], "0x81020000", "{foreign}");
}

#[test]
fn without_tpm_it_says_what_to_do() {
    let device = Device::without_tpm();
    assert_eq!(found(&device, "tpm.none")["state"], "problem");
    for one in findings(&device) {
        assert!(
            one["state"] != "problem" || one["mend"].is_string(),
            "{one}"
        );
    }
    let end = device.ends(1, &["doctor"]);
    assert!(
        end.err.contains(" problems; the remedies are above"),
        "{end}"
    );

    let none = found(&device, "identity.no-tpm");
    assert!(
        none["mend"]
            .as_str()
            .unwrap()
            .contains("fallback = \"software\"")
    );
    let software = "[provision]\nfallback = \"software\"\n";
    device.home.write("config.toml", software);
    assert_gone(&device, "identity.no-tpm");
    mend(&device, "identity.none");
    assert_eq!(found(&device, "identity")["state"], "note");
}

#[test]
fn with_a_wrong_configuration_it_looks_on() {
    let device = Device::blank();
    device.home.write("config.toml", "tcit = 1\n");
    let end = device.ends(1, &["doctor"]);
    let said = end.text();
    assert!(
        said.contains("config.toml:1: tcit: there is no such setting; did you mean tcti?"),
        "{said}"
    );
    for words in [
        "p11-kit",
        "lockout: the TPM counts 0 of",
        "state folder",
        "OpenSSL",
    ] {
        assert!(said.contains(words), "and goes on: {words}: {said}");
    }
    assert!(
        end.err.contains("1 problem; the remedies are above"),
        "{end}"
    );
    // devid would do nothing now, and the identity may be elsewhere.
    let none = found(&device, "identity.none");
    assert!(
        none["state"] == "note" && none["command"].is_null(),
        "{none}"
    );

    device.home.write("config.toml", "");
    assert_eq!(found(&device, "configuration")["state"], "ok");
}

#[test]
fn lockout_is_a_problem_and_its_end_is_not() {
    let mut device = Device::blank();
    let key = device.path("pin.ctx").display().to_string();
    tpm2(
        &mut device,
        "tpm2_createprimary",
        &["-C", "o", "-p", "right", "-c", &key],
    );
    let wrong = |device: &mut Device| {
        let mut create = device.tpm().tool("tpm2_create");
        let said = programs::run(create.args(["-C", &key, "-P", "wrong"]));
        assert!(
            said.err.contains("0x98E") || said.err.contains("0x921"),
            "{said}"
        );
        tpm2(device, "tpm2_flushcontext", &["--transient-object"]);
    };
    tpm2(&mut device, "tpm2_flushcontext", &["--transient-object"]);
    wrong(&mut device);
    assert_eq!(found(&device, "tpm.lockout-counts")["state"], "note");
    while named(&device, "tpm.lockout-locked").is_empty() {
        wrong(&mut device);
    }
    device.ends(1, &["doctor"]);
    assert_eq!(found(&device, "tpm.lockout-locked")["state"], "problem");
    mend(&device, "tpm.lockout-locked");
    assert_eq!(found(&device, "tpm.lockout")["state"], "ok");
}

#[test]
fn an_owner_that_asks_is_found_before_a_key_is_made() {
    let mut device = Device::blank();
    tpm2(&mut device, "tpm2_changeauth", &["-c", "o", "secret"]);
    assert_eq!(found(&device, "tpm.owner-asks")["state"], "problem");
    device.ends(1, PROVISION);
    let file = device.home.write("owner", "secret");
    let setting = format!("[master]\nowner_auth = \"file:{}\"\n", file.display());
    device.home.write("config.toml", setting);
    assert_gone(&device, "tpm.owner-asks");
    device.ends(0, PROVISION);
    fs::remove_file(file).unwrap();
    assert_eq!(found(&device, "tpm.owner-unreadable")["state"], "problem");
}

#[test]
fn after_a_clear_the_factory_identity_comes_back_as_it_says() {
    let (mut device, identity) = Device::manufactured();
    tpm2(&mut device, "tpm2_clear", &["-c", "p"]);
    let lost = found(&device, "factory.none");
    let words = lost["mend"].as_str().unwrap();
    for said in ["certificate = ", "[[identity]]"] {
        assert!(words.contains(said), "{lost}");
    }
    assert_eq!(lost["command"], "devid persist idev-id");
    let setting = format!("[[identity]]\ncertificate = {:?}\n", identity.certificate());
    device.home.write("config.toml", setting);
    assert_gone(&device, "factory.none");
    run(&device, "devid persist idev-id");
    assert_eq!(found(&device, "handle.factory")["object"], "0x81020000");
}

#[test]
fn damaged_files_are_named_and_orphans_are_left_alone() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    device.ends(0, &["key", "generate", "web", "--persistent"]);
    let damaged = "-----BEGIN TSS2 PRIVATE KEY-----\nAA\n";
    device.home.write("state/devid/key-damaged.pem", damaged);
    let mut web = None;
    for file in fs::read_dir(device.path("state/devid")).unwrap() {
        let path = file.unwrap().path();
        let text = fs::read_to_string(&path).unwrap_or_default();
        if text.contains("Label: web") {
            web = Some((path.clone(), text));
            fs::remove_file(path).unwrap();
        }
    }
    let object = found(&device, "keys.file")["object"].clone();
    assert!(
        object.as_str().unwrap().ends_with("key-damaged.pem"),
        "{object}"
    );
    // The file may hold an identity, so the doctor does not advise to move it away. Its mode is
    // correct.
    let finding = found(&device, "keys.file");
    assert!(finding["command"].is_null(), "{finding}");
    let mend = finding["mend"].as_str().unwrap();
    assert!(mend.contains("restore the file from a backup"), "{finding}");
    fs::remove_file(device.path("state/devid/key-damaged.pem")).unwrap();
    assert_gone(&device, "keys.file");

    let orphan = found(&device, "handle.orphan");
    assert_eq!(orphan["object"], "0x81000101");
    assert_harmless(&device);
    let (path, text) = web.unwrap();
    fs::write(path, text).unwrap();
    assert_gone(&device, "handle.orphan");
    device.ends(0, &["csr", "web"]);
}

/// Keys made by hand, before the folders had their group.
#[test]
fn a_key_folder_that_its_group_cannot_read_is_given_to_it() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let state = device.path("state");
    // A group that is there on every system, and not root's.
    let given = programs::run(programs::program("chgrp").arg("1").arg(&state));
    if !given.status.success() {
        return; // only root may give files to groups
    }
    assert_eq!(found(&device, "keys.group")["state"], "problem");
    mend(&device, "keys.group");
    device.ends(0, &["key", "generate", "web"]);
    for file in fs::read_dir(device.path("state/devid")).unwrap() {
        let file = file.unwrap();
        let about = file.metadata().unwrap();
        assert_eq!(about.gid(), 1, "{file:?}");
    }
    // As tmpfiles.d makes it: what is made there by hand belongs to the group, too.
    fs::remove_dir_all(device.path("state/devid")).unwrap();
    assert_eq!(
        state.metadata().unwrap().permissions().mode() & 0o2000,
        0o2000
    );
    device.ends(0, &["key", "generate", "web"]);
    assert_gone(&device, "keys.group");
}

#[test]
fn trust_is_put_where_it_is_looked_for() {
    let (device, identity) = Device::manufactured();
    fs::copy(identity.ca(), device.path("CA.pem")).unwrap();
    mend(&device, "trust.none");
    device.ends(0, &["verify", "idev-id"]);
}

/// The module as OpenSSL finds it: by what its configuration says, not by a file that is there.
#[test]
fn openssls_configuration_is_read() {
    let device = Device::without_tpm();
    let said = |text: &str| {
        let file = device.home.write("openssl.cnf", text);
        let mut doctor = device.command(&["doctor", "--json"]);
        let said = programs::run(doctor.env("OPENSSL_CONF", file));
        let all: serde_json::Value = serde_json::from_slice(&said.out).unwrap();
        let mut all = all.as_array().unwrap().iter();
        all.find(|one| one["about"] == "OpenSSL").unwrap().clone()
    };
    assert_eq!(said("")["id"], "openssl.none");
    let wrong = "openssl_conf = i\n[i]\nproviders = p\n[p]\npkcs11 = s\n[s]\n\
                 pkcs11-module-path = /nonexistent.so\n";
    assert_eq!(said(wrong)["id"], "openssl.wrong");
}

#[test]
fn a_tpm_that_is_gone_for_now_changes_nothing() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let device = device.move_to(None);
    let gone = found(&device, "identity.tpm-gone");
    assert!(gone["command"].is_null(), "{gone}");
    assert_harmless(&device);
    // A reset that waits for it can be taken back.
    device.ends(4, &["reset", "--factory", "--yes", "--wait", "0"]);
    mend(&device, "identity.reset-waits");
    found(&device, "identity.tpm-gone");
    let device = device.move_to(Some(Swtpm::blank()));
    device.home.write("state/factory-reset", "");
    mend(&device, "identity.reset-asked");
}

/// Both transports give the same findings about the TPM.
#[test]
fn through_libtss2_the_tpm_is_the_same() {
    let device = Device::blank();
    let tell = |device: &Device| {
        let mut doctor = device.command(&["doctor", "--json"]);
        let said = programs::run(doctor.env("TSS2_LOG", "all+none"));
        let all: Vec<serde_json::Value> = serde_json::from_slice(&said.out).unwrap();
        let ids = ["tpm", "tpm.abilities", "tpm.room", "tpm.lockout"];
        let about_it = all
            .into_iter()
            .filter(|one| ids.iter().any(|id| one["id"] == *id));
        about_it
            .map(|one| one["text"].to_string())
            .collect::<Vec<_>>()
    };
    let direct = tell(&device);
    assert_eq!(direct.len(), 4, "{direct:#?}");
    let Device { tpm, home } = device;
    let tcti = tpm.as_ref().unwrap().tcti();
    let home = home.with_tcti(&Link::Tctildr.tcti(&tcti));
    assert_eq!(tell(&Device { tpm, home }), direct);
}
