//! OpenConfig's cases of initial install, rotation and re-attestation (attestz-1.1, attestz-1.2,
//! attestz-1.3), if they concern the device's keys and certificates. tpm2-tools make a quote
//! (TPM2_Quote) with the IAK in its handle. The owner verifies the quote with the oIAK certificate.

use super::{Bench, labels};
use std::fs;
use std::path::{Path, PathBuf};
use testkit::link::Link;
use testkit::openssl::{Verifier, certificate_der};
use testkit::programs::{program, run, run_with};
use testkit::tls::{Server, demands_certificates, with_provider};

over_our_transport!(
    enrollz_1_3_a_client_with_an_invalid_certificate,
    attestz_1_1_1_enrolment_and_attestation,
    attestz_1_1_4_certificates_of_another_card,
    attestz_1_1_5_a_restart_between_enrolment_and_attestation,
    attestz_1_1_8_a_new_card_has_nothing_of_another,
    attestz_1_1_9_either_card_attests,
    attestz_1_2_1_a_rotation_without_own_certificate,
    attestz_1_2_2_a_rotation_with_own_certificate,
    attestz_1_3_1_attestation_with_own_certificate,
    attestz_1_3_2_a_restart_keeps_the_pcrs,
);

/// What the TPM quotes of PCRs for this nonce, verified by the certificate: the digest of the PCRs.
#[track_caller]
fn quoted(bench: &Bench, nonce: &str, certificate: &Path) -> Vec<u8> {
    let mut quote = bench.tpm.tool("tpm2_quote");
    quote.args(["-c", "0x81020001", "-l", "sha256:0,1,7", "-q", nonce]);
    quote.args(["-f", "plain", "-m", "quote.msg", "-s", "quote.sig"]);
    run(quote.current_dir(bench.home.folder())).ok();
    let [message, signature] =
        ["quote.msg", "quote.sig"].map(|name| fs::read(bench.path(name)).unwrap());
    let mut public = program("openssl");
    let public = run(public
        .args(["x509", "-noout", "-pubkey", "-in"])
        .arg(certificate))
    .ok();
    let judge = Verifier::new(&bench.home.write("quote.pub", public.out));
    judge.accepts_der("-sha256", &message, &signature).ok();
    let digits: String = message.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(digits.contains(nonce), "{digits}");
    message[message.len() - 32..].to_vec()
}

fn attestz_1_1_1_enrolment_and_attestation(link: Link) {
    let bench = Bench::new(link);
    // What GetIakCert answers.
    for (label, key) in [("iak", 1), ("idev-id", 0)] {
        let told = bench.ends(0, &["export", label, "--cert"]).out;
        let exported = bench.home.write("exported.pem", told);
        let factorys = certificate_der(&bench.keys[key].certificate());
        assert_eq!(certificate_der(&exported), factorys);
    }
    let [_, oiak] = bench.import_both();
    bench.show("token");
    assert_eq!(labels(&bench.shown("oidevid")), ["oidevid", "oiak"]);
    bench.signs("oidevid");
    quoted(&bench, "00112233", &oiak);
}

/// A service of the device, with the owner's certificate for the factory's key, lets in no client without a
/// certificate, and none of another CA.
fn enrollz_1_3_a_client_with_an_invalid_certificate(link: Link) {
    let bench = Bench::new(link);
    let [oidevid, _] = bench.import_both();
    bench.show("token");
    let own = ["owner/ca.pem", "owner/root.pem"].map(|name| fs::read(bench.path(name)).unwrap());
    let trusted = bench.home.write("trusted.pem", own.concat());
    let server = Server::start(&bench.home, |port| {
        let mut server = with_provider("openssl", &bench.home);
        demands_certificates(&mut server, &trusted, port);
        server.args(["-key", "pkcs11:token=oidevid;object=oidevid;type=private"]);
        server.arg("-cert").arg(&oidevid);
        server
    });
    let authority = |name: &str| {
        let [key, certificate] = ["key", "pem"].map(|end| bench.path(&format!("{name}.{end}")));
        let mut make = program("openssl");
        make.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]);
        make.args(["-nodes", "-days", "2", "-subj", "/CN=client", "-keyout"]);
        make.arg(&key).arg("-out").arg(&certificate);
        (make, key, certificate)
    };
    let (mut stranger, strange_key, strange) = authority("stranger");
    run(&mut stranger).ok();
    let (mut owner, key, certificate) = authority("owners");
    owner.arg("-CA").arg(bench.path("owner/ca.pem"));
    run(owner.arg("-CAkey").arg(bench.path("owner/ca.key"))).ok();
    let asked = |pair: Option<(&Path, &Path)>| {
        let mut client = program("openssl");
        client.args([
            "s_client",
            "-quiet",
            "-verify_return_error",
            "-connect",
            &server.address(),
        ]);
        client.arg("-CAfile").arg(&trusted);
        if let Some((key, certificate)) = pair {
            client.arg("-key").arg(key).arg("-cert").arg(certificate);
        }
        run_with(&mut client, b"GET / HTTP/1.0\r\n\r\n").text()
    };
    for pair in [None, Some((&*strange_key, &*strange))] {
        let page = asked(pair);
        assert!(!page.contains("200 ok"), "{page}");
    }
    let page = asked(Some((&key, &certificate)));
    assert!(
        page.contains("200 ok") && page.contains("Client certificate"),
        "{page}"
    );
}

fn attestz_1_1_4_certificates_of_another_card(link: Link) {
    let (bench, other) = (Bench::new(link), another(link));
    let [oidevid, oiak] = bench.import_both();
    let theirs = other.both();
    for (own, strange) in [(&oidevid, &theirs[1]), (&oiak, &theirs[0])] {
        bench.refuses(&[own, strange], &["no factory key of this device"]);
    }
    bench.refuses(
        &[&theirs[0], &theirs[1]],
        &["no factory key of this device"],
    );
}

/// A card with a TPM of its own: its keys are others.
fn another(link: Link) -> Bench {
    Bench::with(link, "--serial SN-8 --template h3")
}

fn attestz_1_1_5_a_restart_between_enrolment_and_attestation(link: Link) {
    let mut bench = Bench::new(link);
    let [_, oiak] = bench.import_both();
    bench.tpm.shut_down();
    bench.tpm.restart();
    quoted(&bench, "00112233", &oiak);
    bench.show("instead");
    bench.signs("idev-id");
}

/// The file of another card brings nothing: no certificate is for a key of this one.
fn attestz_1_1_8_a_new_card_has_nothing_of_another(link: Link) {
    let (bench, new) = (Bench::new(link), another(link));
    bench.import_both();
    let before = new.shown("idev-id");
    fs::create_dir_all(new.path("state-owner")).unwrap();
    let file = "state-owner/certificates.pem";
    fs::copy(bench.path(file), new.path(file)).unwrap();
    for how in ["token", "instead"] {
        new.show(how);
        assert!(!new.tokens().contains(&"oidevid".to_owned()), "{how}");
        assert_eq!(new.shown("idev-id"), before, "{how}");
    }
    let [_, oiak] = new.import_both();
    new.show("token");
    assert_eq!(labels(&new.shown("oidevid")), ["oidevid", "oiak"]);
    quoted(&new, "00112233", &oiak);
}

fn attestz_1_1_9_either_card_attests(link: Link) {
    for bench in [Bench::new(link), another(link)] {
        let [_, oiak] = bench.import_both();
        bench.show("token");
        assert_eq!(labels(&bench.shown("oidevid")), ["oidevid", "oiak"]);
        quoted(&bench, "00112233", &oiak);
    }
}

/// New certificates for both keys, in one call.
fn rotated(bench: &Bench) -> [PathBuf; 2] {
    let names = ["next-oidevid", "next-oiak"];
    let next = [0, 1].map(|n| bench.certified(names[n], &bench.keys[n].public_key()));
    let said = bench.import(&[&next[0], &next[1]]);
    assert!(said.text().contains("in place of"), "{said}");
    next
}

fn attestz_1_2_1_a_rotation_without_own_certificate(link: Link) {
    let bench = Bench::new(link);
    let old = bench.import_both();
    bench.show("instead");
    let [oidevid, oiak] = rotated(&bench);
    let shown = bench.shown("idev-id");
    assert_eq!(shown[0].der, certificate_der(&oidevid));
    assert_eq!(shown[1].der, certificate_der(&oiak));
    assert_ne!(shown[0].der, certificate_der(&old[0]));
    bench.signs("idev-id");
    quoted(&bench, "00112233", &oiak);
}

/// A key of the device's own with a certificate, for TLS.
fn with_own_certificate(bench: &Bench) -> Vec<u8> {
    bench.ends(0, &["key", "generate", "tls"]);
    let request = bench.path("tls.csr");
    bench.ends(0, &["csr", "tls", "--out", request.to_str().unwrap()]);
    let leaf = bench.path("tls.pem");
    let mut sign = program("openssl");
    sign.args(["x509", "-req", "-days", "30", "-in"])
        .arg(&request);
    sign.arg("-CA").arg(bench.path("owner/ca.pem"));
    sign.arg("-CAkey").arg(bench.path("owner/ca.key"));
    run(sign.arg("-out").arg(&leaf)).ok();
    bench.ends(0, &["import-cert", leaf.to_str().unwrap()]);
    bench.ends(0, &["export", "tls", "--cert"]).out
}

fn attestz_1_2_2_a_rotation_with_own_certificate(link: Link) {
    let bench = Bench::new(link);
    bench.import_both();
    let own = with_own_certificate(&bench);
    let [_, oiak] = rotated(&bench);
    assert_eq!(bench.ends(0, &["export", "tls", "--cert"]).out, own);
    quoted(&bench, "00112233", &oiak);
}

fn attestz_1_3_1_attestation_with_own_certificate(link: Link) {
    let bench = Bench::new(link);
    let [_, oiak] = bench.import_both();
    let own = with_own_certificate(&bench);
    for nonce in ["00112233", "44556677"] {
        quoted(&bench, nonce, &oiak);
    }
    assert_eq!(bench.ends(0, &["export", "tls", "--cert"]).out, own);
}

fn attestz_1_3_2_a_restart_keeps_the_pcrs(link: Link) {
    let mut bench = Bench::new(link);
    let [_, oiak] = bench.import_both();
    let before = quoted(&bench, "00112233", &oiak);
    bench.tpm.shut_down();
    bench.tpm.restart();
    assert_eq!(quoted(&bench, "44556677", &oiak), before);
}
