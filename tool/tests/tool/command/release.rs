//! The commands of docs/RELEASE.md: a signing key in the TPM, and the verification of a release.

use crate::device::Device;
use crate::device::programs::{self, Said};
use std::fs;
use std::path::Path;
use testkit::pages::block;

/// Runs a block of the page in the device's home.
fn page(device: &Device, name: &str) -> Said {
    let tool = Path::new(env!("CARGO_BIN_EXE_devid")).parent().unwrap();
    let path = format!("{}:{}", tool.display(), std::env::var("PATH").unwrap());
    let mut shell = programs::program("sh");
    shell
        .args(["-ec", &block("docs/RELEASE.md", name)])
        .current_dir(device.home.folder())
        .env("PATH", path);
    programs::run(device.home.settle(&mut shell))
}

/// Makes a CA in the device's home: CA.pem and CA.key.
fn make_ca(device: &Device) {
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 \
        -subj '/CN=Example CA' -keyout CA.key -out CA.pem";
    let mut shell = programs::program("sh");
    programs::run(
        shell
            .args(["-ec", script])
            .current_dir(device.home.folder()),
    )
    .ok();
}

#[test]
fn a_changed_release_is_refused() {
    let device = Device::blank();
    make_ca(&device);
    page(&device, "release-key").ok();
    let files = ["devid.deb", "devid.cdx.json"];
    for name in files {
        device.home.write(name, name.repeat(100));
    }
    let mut sums = programs::program("sha256sum");
    let sums = programs::run(sums.args(files).current_dir(device.home.folder())).ok();
    let sums = device.home.write("SHA256SUMS", sums.text());
    let signature = device.path("SHA256SUMS.p7s");
    let sign = ["sign", "--cms", "--detached", "release-key"];
    let places = [sums.to_str().unwrap(), "--out", signature.to_str().unwrap()];
    device.ends(0, &[&sign[..], &places].concat());
    let verified = page(&device, "release-verify").ok();
    assert_eq!(verified.text().matches(": OK").count(), 2, "{verified}");

    device.home.write("devid.deb", "another package");
    let refused = page(&device, "release-verify");
    assert!(!refused.status.success(), "{refused}");
    assert!(refused.text().contains("devid.deb: FAILED"), "{refused}");

    let other = fs::read_to_string(&sums).unwrap().replacen('a', "b", 1);
    device.home.write("SHA256SUMS", other);
    let refused = page(&device, "release-verify");
    assert!(!refused.status.success(), "{refused}");
    assert!(
        refused.err.contains("CMS Verification failure"),
        "{refused}"
    );
    assert!(!refused.text().contains("OK"), "{refused}");
}
