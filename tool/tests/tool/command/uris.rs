//! PKCS#11 URIs (RFC 7512) as arguments: the accepted URIs, the refused URIs, and the objects that
//! they name.

use crate::device::Device;

/// Right by RFC 7512, section 2.3. Vendor attributes (`x-...`) may be repeated.
const RIGHT: &[&str] = &[
    "pkcs11:token=idev-id;type=private",
    "pkcs11:id=%01%aF?pin-source=file:/run/pin&module-path=/usr/lib/m.so",
    "pkcs11:token=idev-id;x-site=7;x-site=8",
    "pkcs11:token=idev-id;x-acme_1=a%20b?x-acme=1&pin-value=12|3/4?",
    "pkcs11:token=idev-id;library-version=3.2;slot-id=7",
    "pkcs11:token=;object=a%2Fb:[]@!$'()*+,=&",
    "pkcs11:model=TPM%202.0;manufacturer=devid-pkcs11;serial=0;library-description=x;type=secret-key",
];

/// Wrong URIs, each with a part of its error message.
const WRONG: &[(&str, &str)] = &[
    ("pkcs11:token=a%zz", "%"),
    ("pkcs11:token=a%+1", "%"),
    ("pkcs11:token=a%4", "%"),
    ("pkcs11:token=a%", "%"),
    ("pkcs11:token=a?pin-source=%q0", "%"),
    ("pkcs11:token=a;x-acme=%q0", "%"),
    ("pkcs11:token=a;token=b", "token: "),
    ("pkcs11:token=a;object=b;token=a", "token: "),
    ("pkcs11:id=%01;id=%02", "id: "),
    ("pkcs11:token=a?pin-value=1&pin-value=1", "pin-value: "),
    ("pkcs11:token=a?pin-value=1&pin-source=/p", "pin-source"),
    ("pkcs11:token=a;tokne=b", "tokne"),
    ("pkcs11:token=a;x-=b", "x-"),
    ("pkcs11:token=a;x-a.b=c", "x-a.b"),
    ("pkcs11:token=a;", "NAME=VALUE"),
    ("pkcs11:token=a;;object=b", "NAME=VALUE"),
    ("pkcs11:token", "NAME=VALUE"),
    ("pkcs11:token=a?pin=1", "pin"),
    ("pkcs11:token=a?token=b", "token"),
    ("pkcs11:pin-value=1", "pin-value"),
    ("pkcs11:token=a b", "%20"),
    ("pkcs11:token=a\nb", "%0A"),
    ("pkcs11:token=b\u{FC}ro", "%C3%BC"),
    ("pkcs11:token=a#b", "%23"),
    ("pkcs11:token=%FF", "UTF-8"),
    ("pkcs11:token=a;type=privat", "private"),
    ("pkcs11:token=a;slot-id=one", "slot-id"),
    ("pkcs11:token=a;slot-id=+1", "slot-id"),
    ("pkcs11:token=a;library-version=3.", "library-version"),
    ("pkcs11:", "the URI has no attributes"),
    ("pkcs11:?pin-value=1", "the URI has no attributes"),
    ("idev-id", "pkcs11:"),
];

#[test]
fn a_uri_is_taken_or_refused_by_rfc_7512() {
    let device = Device::without_tpm();
    for uri in RIGHT {
        let pem = device.ends(0, &["uri2pem", uri]).text();
        assert!(pem.starts_with("-----BEGIN PKCS#11 PROVIDER URI"), "{uri}");
    }
    for (uri, part) in WRONG {
        let said = device.ends(2, &["uri2pem", uri]);
        assert!(said.err.contains(part), "{uri}: {said}");
        assert_eq!(said.text(), "", "{uri}");
    }
    for (uri, part) in WRONG.iter().filter(|(uri, _)| uri.starts_with("pkcs11:")) {
        let said = device.ends(2, &["show", uri]);
        assert!(said.err.contains(part), "{uri}: {said}");
    }
}

/// Every verb that takes a name takes a URI, and means the object that a program would find by it.
#[test]
fn a_uri_names_an_object_to_every_verb() {
    let (device, identity) = Device::manufactured();
    let ca = identity.ca().to_str().unwrap().to_owned();
    for label in ["web", "mail"] {
        device.ends(0, &["key", "generate", label]);
    }
    for (name, class) in [
        ("idev-id", "private"),
        ("idev-id", "public"),
        ("idev-id", "cert"),
        ("idev-id-ca-1", "cert"),
        ("web", "private"),
        ("mail", "public"),
    ] {
        let uri = device.ends(0, &["uri", name, "--type", class]).text();
        let (uri, shown) = (uri.trim(), device.json(&["show", name]));
        assert_eq!(device.json(&["show", uri]), shown, "{uri}");
        // Additional attributes of a program do not change the selected object.
        let longer = format!(
            "{uri};x-acme=1;slot-id=5;manufacturer=devid-pkcs11;model=TPM%202.0?pin-value=1&x-acme=2"
        );
        assert_eq!(device.json(&["show", &longer]), shown, "{longer}");
        // Each part counts.
        for (part, other) in [
            ("token=", "token=other-"),
            ("id=%", "id=%00%"),
            ("object=", "object=other-"),
            (";type=", ";serial=1;type="),
            (";type=", ";manufacturer=SoftHSM%20project;type="),
            (";type=", ";model=SoftHSM%20v2;type="),
        ] {
            let other = uri.replacen(part, other, 1);
            let said = device.ends(5, &["show", &other]);
            assert!(said.err.contains("not found"), "{other}: {said}");
        }
    }
    let serial = &device.json(&["list"])["tokens"];
    let is_own = |one: &&serde_json::Value| one["token"] == "devid";
    let own = serial.as_array().unwrap().iter().find(is_own).unwrap();
    let by_serial = format!(
        "pkcs11:serial={};object=web",
        own["serial"].as_str().unwrap()
    );
    assert_eq!(device.json(&["show", &by_serial])["label"], "web");

    device.ends(
        0,
        &["verify", "pkcs11:token=idev-id;object=idev-id", "--ca", &ca],
    );
    device.ends(0, &["csr", "pkcs11:token=devid;object=web"]);
    let uri = device.ends(0, &["uri", "pkcs11:object=web"]).text();
    assert_eq!(uri, device.ends(0, &["uri", "web"]).text());

    // A class that the object does not have.
    for missing in [
        "pkcs11:token=devid;object=web;type=cert",
        "pkcs11:token=devid;object=web;type=secret-key",
        "pkcs11:token=idev-id;object=idev-id-ca-1;type=private",
    ] {
        device.ends(5, &["show", missing]);
    }
    // A URI for several keys selects none of them.
    let said = device.ends(2, &["key", "delete", "pkcs11:token=devid", "--yes"]);
    assert!(said.err.contains(" keys have this name"), "{said}");
    device.ends(0, &["key", "delete", "pkcs11:object=mail", "--yes"]);
    device.ends(5, &["show", "mail"]);
    device.ends(0, &["show", "pkcs11:token=devid"]);
}
