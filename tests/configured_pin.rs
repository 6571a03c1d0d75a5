//! A PIN in the configuration that is not the token's any more.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[macro_use]
mod common;

use common::pins::{Bench, USER};
use common::story::Link;
use devid_core::config;
use devid_core::identity::{Device, Mode, Provisioning, provision};
use std::os::unix::fs::PermissionsExt;
use std::{fs, process::Command};

over_our_link!(a_wrong_one_is_tried_once,);

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
