//! Endorsement keys and their certificates, in each way in which a TPM can store them.

use crate::device::Device;
use std::fs;
use testkit::endorsed::{P384, RSA};
use testkit::programs::{program, run};

/// The TPMT_PUBLIC in this handle, as tpm2-tools read it.
fn area(device: &Device, handle: &str) -> Vec<u8> {
    device.tpm2(
        "tpm2_readpublic",
        &["-c", handle, "-f", "tss", "-o", "ek.pub"],
    );
    fs::read(device.path("ek.pub")).unwrap()[2..].to_vec()
}

/// OpenSSL verifies a certificate of the bundle up to the maker's root.
fn is_the_makers(device: &Device, certificate: &[u8]) {
    fs::write(device.path("ek.der"), certificate).unwrap();
    let mut convert = program("openssl");
    convert
        .args(["x509", "-inform", "DER", "-in"])
        .arg(device.path("ek.der"));
    run(convert.arg("-out").arg(device.path("ek.pem"))).ok();
    let mut verify = program("openssl");
    verify.args(["verify", "-ignore_critical", "-partial_chain", "-CAfile"]);
    verify.arg(device.maker.issuer()).arg(device.path("ek.pem"));
    run(&mut verify).ok();
}

/// In handles and derived, of the low range (RSA-2048) and of the high one (P-384): the same key.
#[test]
fn the_key_of_a_certificate_is_found_in_its_handle_or_derived() {
    for (index, lacks, handle) in [(RSA, P384, "0x81010001"), (P384, RSA, "0x81010016")] {
        let device = Device::new();
        device.generate("web", &[]);
        device.tpm.without_certificate(lacks);
        let expected = area(&device, handle);
        let found = device.attest(&["web", "--nonce", "01"]);
        assert_eq!(found.bytes("ekPublic"), expected, "{index:#x}");
        assert_eq!(found.count("ekCertificates"), 1);
        is_the_makers(&device, &found.bytes("ekCertificates/0"));
        device.tpm.without_endorsement_handles();
        let derived = device.attest(&["web", "--nonce", "01"]);
        assert_eq!(derived.bytes("ekPublic"), expected, "{index:#x}");
        device.is_clean();
    }
}

/// A TPM without certificates has an endorsement key all the same, and takes certificates from files.
#[test]
fn a_tpm_without_certificates_takes_those_of_the_maker() {
    let device = Device::new();
    device.generate("web", &[]);
    let certified = device.attest(&["web", "--nonce", "01"]);
    for index in [RSA, P384] {
        device.tpm.without_certificate(index);
    }
    let bare = device.attest(&["web", "--nonce", "01"]);
    assert_eq!(bare.count("ekCertificates"), 0);
    assert_eq!(bare.bytes("ekPublic"), area(&device, "0x81010001"));
    device.tpm.without_endorsement_handles();
    let derived = device.attest(&["web", "--nonce", "01"]);
    // Template L-2: P-256 is derived fast.
    assert_eq!(derived.bytes("ekPublic")[..4], [0, 0x23, 0, 0x0B]);
    fs::write(device.path("ek.cer"), certified.bytes("ekCertificates/1")).unwrap();
    let given = [
        "web",
        "--nonce",
        "01",
        "--ek-cert",
        &device.word("ek.cer"),
        "--ek-cert",
        device.maker.issuer().to_str().unwrap(),
    ]
    .map(str::to_owned);
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let told = device.attest(&given);
    assert_eq!(
        told.bytes("ekCertificates/0"),
        certified.bytes("ekCertificates/1")
    );
    assert_eq!(
        (told.count("ekCertificates"), told.count("ekChain")),
        (1, 1)
    );
    assert_eq!(
        told.bytes("ekPublic")[..4],
        [0, 0x23, 0, 0x0C],
        "the key of that certificate"
    );
    device.home.write("none.pem", "no certificate");
    let none = device.word("none.pem");
    device.refuses(1, &["attest", "web", "--ek-cert", &none], &["none.pem"]);
}

/// The chain is one sequence over its indices, and a certificate may be divided between two
/// indices. Headers and data after a certificate are removed.
#[test]
fn the_chain_is_read_over_all_its_indices() {
    let device = Device::new();
    device.generate("web", &[]);
    let plain = device.attest(&["web", "--nonce", "01"]);
    let ders = [device.maker.issuer(), device.maker.root()]
        .map(|path| testkit::openssl::certificate_der(&path));
    let chain = ders.concat();
    let (first, second) = chain.split_at(ders[0].len() + 100);
    let put = |index: &str, content: &[u8]| {
        fs::write(device.path("content"), content).unwrap();
        let size = content.len().to_string();
        let attributes = "ownerread|authread|ownerwrite|no_da";
        device.tpm2(
            "tpm2_nvdefine",
            &["-C", "o", "-s", &size, "-a", attributes, index],
        );
        for (at, piece) in content.chunks(512).enumerate() {
            fs::write(device.path("piece"), piece).unwrap();
            let offset = (at * 512).to_string();
            device.tpm2(
                "tpm2_nvwrite",
                &["-C", "o", "-i", "piece", "--offset", &offset, index],
            );
        }
    };
    put("0x1c00100", first);
    put("0x1c00101", &[second, &[0xFF; 40]].concat());
    let leaf = plain.bytes("ekCertificates/0");
    // TCG_PCCLIENT_STORED_CERT: tag, kind, size.
    let stored = [
        &[0x10, 0x01, 0][..],
        &(leaf.len() as u16).to_be_bytes(),
        &leaf,
        &[0; 90],
    ]
    .concat();
    device.tpm.without_certificate(RSA);
    device.put_certificate(RSA, &stored);
    let bundle = device.attest(&["web", "--nonce", "01"]);
    assert_eq!(bundle.bytes("ekCertificates/0"), leaf);
    assert_eq!(bundle.count("ekChain"), 2);
    for (at, der) in ders.iter().enumerate() {
        assert_eq!(bundle.bytes(&format!("ekChain/{at}")), *der);
    }
}

/// The owner may have set a value for the endorsement hierarchy. The value is not guessed.
#[test]
fn an_endorsement_hierarchy_with_a_value_is_told() {
    let device = Device::with_factory(&[], &[]);
    device.tpm2("tpm2_changeauth", &["-c", "endorsement", "secret"]);
    let words = ["endorsement hierarchy has an authorisation value"];
    device.refuses(1, &["attest", "idev-id", "--nonce", "01"], &words);
    device.is_clean();
    // The key is certified by no policy here; but the TPM derives no endorsement key.
    let own = Device::new();
    own.generate("web", &[]);
    own.tpm.without_endorsement_handles();
    own.tpm2("tpm2_changeauth", &["-c", "endorsement", "secret"]);
    own.refuses(1, &["attest", "web", "--nonce", "01"], &words);
    own.is_clean();
}
