//! A PIN in the configuration that is no longer the PIN of the token.

use cryptoki_sys::*;
use devid_core::config;
use devid_core::identity::{Device, Mode, Provisioning, provision};
use std::os::unix::fs::PermissionsExt;
use std::{fs, process::Command};
use testkit::link::Link;
use testkit::pins::{Bench, USER};
use testkit::raw::Code;

over_our_transport!(
    a_wrong_one_is_tried_once,
    a_file_with_more_than_the_pin_is_not_tried,
);

/// `devid` at each start, which knows nothing of the one before.
fn configured(bench: &Bench) -> config::Config {
    let mut settled = Command::new("devid");
    bench.home.settle(&mut settled);
    let variable = |name: &str| {
        let mut all = settled.get_envs();
        all.find(|(known, _)| *known == name)
            .and_then(|(_, value)| value.map(ToOwned::to_owned))
    };
    config::load(&variable).config.expect("a configuration")
}

fn a_wrong_one_is_tried_once(link: Link) {
    let (bench, _token) = Bench::with_pins(link);
    let file = bench.home.path("pin");
    let write = |pin: &str| {
        fs::write(&file, pin).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let setting = format!(
        "[[token]]\nname = \"devid\"\npin = \"file:{}\"\n",
        file.display()
    );
    bench.home.write("config.toml", setting);
    write("stale stale");
    for _ in 0..3 {
        let status = Device::new(configured(&bench)).status();
        assert_eq!(status.mode, Mode::Error);
        let reason = status.reason.unwrap();
        assert!(reason.contains("not tried again"), "{reason}");
        bench.counts(1);
    }
    write(USER);
    let how = Provisioning::default();
    provision(&configured(&bench), &how).expect("provisioned");
    assert_eq!(Device::new(configured(&bench)).status().mode, Mode::Tpm);
    bench.counts(1);
}

/// The error names the extra content of an editor, and no try is used.
fn a_file_with_more_than_the_pin_is_not_tried(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    token.raw.finalize().unwrap();
    let file = bench.home.path("pin");
    let setting = format!("pin = \"file:{}\"\n", file.display());
    bench.home.write(
        "config.toml",
        format!("[[token]]\nname = \"devid\"\n{setting}"),
    );
    for (content, word) in [
        (format!("{USER}\r\n"), "carriage return"),
        (format!("\u{FEFF}{USER}\n"), "byte order mark"),
        (format!("{USER} \n"), "ends with a blank"),
        (format!("{USER}\n\n"), "more than one newline"),
        (String::new(), "empty"),
        ("x".repeat(65), "longer than 64 bytes"),
    ] {
        bench.home.write("pin", &content);
        token.raw.initialize().unwrap();
        let session = token.read_write();
        let null = std::ptr::null_mut();
        let login = call!(token.raw.table, C_Login(session, CKU_USER, null, 0));
        assert_eq!(login, Code(CKR_ARGUMENTS_BAD), "{content:?}");
        assert_eq!(token.flags() & CKF_PROTECTED_AUTHENTICATION_PATH, 0);
        bench.home.log_says(&["pin file:", word]);
        assert!(!bench.home.log().contains(USER));
        bench.home.write("log", "");
        token.raw.finalize().unwrap();
        bench.counts(0);
    }
    // One newline at the end is not part of the PIN.
    bench.home.write("pin", format!("{USER}\n"));
    token.raw.initialize().unwrap();
    let session = token.read_write();
    let null = std::ptr::null_mut();
    let login = call!(token.raw.table, C_Login(session, CKU_USER, null, 0));
    assert_eq!(login, Code(CKR_OK));
    bench.idev_id_signs(&token.raw, 0);
}
