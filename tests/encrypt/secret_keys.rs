//! Secret keys: the calls of Azure's aziot-keyd. OpenSSL judges a ciphertext and a code.

use cryptoki_sys::*;
use std::fs;
use testkit::host::host;
use testkit::link::Link;
use testkit::own::folder;
use testkit::pins::{Bench, USER};
use testkit::programs::{output, run};
use testkit::raw::Item;

over_our_transport!(what_aziot_keyd_asks, what_aziot_keyd_asks_behind_a_pin);

const KEY: &str = "3031323334353637383961626364656630313233343536373839616263646566";

fn judged(bench: &Bench, said: &str) {
    let message = bench.home.path("message");
    fs::write(&message, "message").unwrap();
    let message = message.to_str().unwrap();
    let hmac = output(
        "openssl",
        [
            "dgst",
            "-sha256",
            "-mac",
            "HMAC",
            "-macopt",
            &format!("hexkey:{KEY}"),
            message,
        ],
    );
    let hmac = String::from_utf8(hmac).unwrap();
    let (_, code) = hmac.trim().rsplit_once(' ').unwrap();
    assert!(said.contains(&format!("code {code}\n")), "{said}");
    let zeros = "0".repeat(32);
    let cipher = output(
        "openssl",
        [
            "enc",
            "-aes-256-cbc",
            "-K",
            KEY,
            "-iv",
            &zeros,
            "-in",
            message,
        ],
    );
    let cipher: String = cipher.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(said.contains(&format!("cipher {cipher}\n")), "{said}");
}

fn what_aziot_keyd_asks(link: Link) {
    let bench = Bench::new(link);
    let said = run(&mut host(&bench.home, "aziot", &["devid"])).ok().text();
    judged(&bench, &said);
    // One of each twice; the second AES key took the place of the first.
    assert_eq!(folder(&bench.home).len(), 4);
}

fn what_aziot_keyd_asks_behind_a_pin(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let label = token.raw.token_info(token.slot).unwrap().label;
    let label = String::from_utf8_lossy(&label).trim_end().to_owned();
    let said = run(&mut host(&bench.home, "aziot", &[&label, USER]))
        .ok()
        .text();
    judged(&bench, &said);
    // Seen and used by the user alone.
    let session = token.read_write();
    let class: Item = (CKA_CLASS, CKO_SECRET_KEY.to_ne_bytes().to_vec());
    assert_eq!(
        token
            .raw
            .find(session, std::slice::from_ref(&class))
            .unwrap(),
        []
    );
    token.login(session, USER).unwrap();
    assert_eq!(token.raw.find(session, &[class]).unwrap().len(), 4);
}
