//! Typical mistakes in files that the tool reads, and the messages about them.

use crate::device::Device;
use crate::device::mending::{assert_gone, found};

const SECRET: &str = "not-a-real-pin";

#[test]
fn no_output_shows_a_secret_of_a_wrong_line() {
    let device = Device::without_tpm();
    for line in [
        "pin: \"not-a-real-pin\"",
        "pin \"not-a-real-pin\"",
        "pin =\n\"not-a-real-pin\"",
        "\"not-a-real-pin\"",
        "pin = not-a-real-pin",
        "pin = \"not-a-real-pin\"",
        "pin = { value = \"not-a-real-pin\" }",
        "\"not-a-real-pin\" = \"pin\"",
    ] {
        let text = format!("[[token]]\nname = \"devid\"\n{line}\n");
        device.home.write("config.toml", text);
        for words in [
            &["status"][..],
            &["status", "--json"],
            &["doctor"],
            &["doctor", "--json"],
            &["list"],
            &["list", "--json"],
            &["show", "devid"],
            &["provision", "--wait", "0"],
        ] {
            let said = device.devid(words);
            assert!(!said.status.success(), "{words:?}: {said}");
            let all = said.all();
            assert!(!all.contains(SECRET), "{words:?}: {said}");
            assert!(all.contains("config.toml:3: "), "{words:?}: {said}");
        }
        assert!(!device.home.log().contains(SECRET));
    }
}

/// The doctor and whoever asks for the identity name the file.
#[test]
fn a_named_certificate_that_is_not_there_is_named() {
    let device = Device::blank();
    let missing = include_str!("../../../../core/testdata/config/certificate-missing.toml");
    device.home.write("config.toml", missing);
    let finding = found(&device, "configuration.certificate");
    assert_eq!(finding["state"], "problem");
    let text = finding["text"].as_str().unwrap();
    assert!(
        text.contains("/nonexistent/idevid.pem under [[identity]]: No such file"),
        "{text}"
    );
    let said = device.devid(&["show", "idev-id"]);
    assert!(!said.status.success());
    assert!(
        said.all()
            .contains("/nonexistent/idevid.pem under [[identity]]: No such file"),
        "{said}"
    );

    let path = device.home.write("idevid.pem", "-----BEGIN CERT");
    let named = |path: &str| format!("[[identity]]\ncertificate = \"{path}\"\n");
    device
        .home
        .write("config.toml", named(path.to_str().unwrap()));
    found(&device, "configuration.certificate");
    device.home.write("config.toml", "");
    assert_gone(&device, "configuration.certificate");
}

#[test]
fn a_pin_file_that_is_refused_is_a_finding() {
    let device = Device::blank();
    let path = device.home.write("pin", "not-a-real-pin\r\n");
    let text = format!(
        "[[token]]\nname = \"devid\"\npin = \"file:{}\"\n",
        path.display()
    );
    device.home.write("config.toml", text);
    let finding = found(&device, "configuration.secret");
    let text = finding["text"].as_str().unwrap();
    assert!(
        text.contains("carriage return") && !text.contains(SECRET),
        "{text}"
    );
    device.home.write("pin", "not-a-real-pin\n");
    assert_gone(&device, "configuration.secret");
}
