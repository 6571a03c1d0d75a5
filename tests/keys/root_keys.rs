//! The trusted storage root key: the first key that was used, or a key in the TPM of a certified
//! endorsement key.

use cryptoki_sys::*;
use std::fs;
use testkit::devid::{Bench, Kind, MASTER, Own, persistent};
use testkit::interposer::{Impostor, number_at};
use testkit::link::Link;
use testkit::programs::run;
use testkit::proxy::command::NV_READ_PUBLIC;
use testkit::raw::Code;

over_our_transport!(
    another_root_key_than_the_first_is_refused_and_can_be_accepted,
    a_certified_endorsement_key_vouches_for_the_root_key,
    a_tpm_without_a_certified_endorsement_key_is_refused,
    an_index_that_cannot_be_read_hides_no_certificate,
);

fn another_root_key_than_the_first_is_refused_and_can_be_accepted(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.signs(own.make(Kind::P256, "first").unwrap().private);
    let record = bench.folder().join(".storage-root");
    assert!(record.exists());
    // The master key is gone with its record, so that the next key needs the root key again.
    let mut evict = bench.tpm.tool("tpm2_evictcontrol");
    run(evict.args(["-C", "o", "-c", &format!("{MASTER:#x}")])).ok();
    for file in fs::read_dir(bench.folder()).unwrap() {
        let path = file.unwrap().path();
        if path != record {
            fs::remove_file(path).unwrap();
        }
    }
    let own = own.anew();
    let book = bench.proxy.book();
    book.interpose(
        Impostor::new(|_| false)
            .knowing(&bench.root_area())
            .between(),
    );
    let refused = own.make(Kind::P256, "second");
    assert_eq!(refused, Err(Code(CKR_TOKEN_NOT_RECOGNIZED)));
    assert!(!persistent(&bench.tpm).contains(&MASTER));
    bench.home.log_says(&["another storage root key", "mv -T"]);
    // The remedy, as the log has it.
    let log = bench.home.log();
    let (_, remedy) = log
        .rsplit_once("Only if you know why the storage root key changed: ")
        .unwrap();
    let (command, _) = remedy.split_once(" (then").unwrap();
    let mut words = command.split(' ');
    let mut accept = testkit::programs::program(words.next().unwrap());
    run(accept.args(words)).ok();
    book.interpose(None);
    own.signs(own.make(Kind::P256, "third").unwrap().private);
    assert!(record.exists());
}

/// An endorsement key on P-256, with or without handle, and its maker's certificate in NV. The root
/// certificate is in the folder `ek` of the home, which the configuration names.
fn endorse(bench: &Bench, persists: bool, purpose: &str) {
    endorse_at("0x01C0000A", bench, persists, purpose);
}

fn endorse_at(index: &str, bench: &Bench, persists: bool, purpose: &str) {
    let file = |name: &str| bench.home.path(name).to_str().unwrap().to_owned();
    let openssl = |arguments: &[&str]| {
        run(testkit::programs::program("openssl").args(arguments)).ok();
    };
    let tool = |name: &str, arguments: &[&str]| {
        run(bench.tpm.tool(name).args(arguments)).ok();
    };
    fs::create_dir(bench.home.path("ek")).unwrap();
    let (root, root_key) = (file("ek/root.pem"), file("ek-root.key"));
    openssl(&[
        "req",
        "-x509",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-days",
        "30",
        "-subj",
        "/CN=TPM maker",
        "-keyout",
        &root_key,
        "-out",
        &root,
    ]);
    let (context, public) = (file("ek.ctx"), file("ek.pem"));
    tool(
        "tpm2_createek",
        &["-G", "ecc", "-c", &context, "-f", "pem", "-u", &public],
    );
    if persists {
        tool(
            "tpm2_evictcontrol",
            &["-C", "o", "-c", &context, "0x81010001"],
        );
    }
    tool("tpm2_flushcontext", &["-t"]);
    let extensions = bench.home.write(
        "ek.ext",
        format!("extendedKeyUsage = {purpose}\nkeyUsage = critical, keyAgreement\n"),
    );
    let certificate = file("ek.der");
    openssl(&[
        "x509",
        "-new",
        "-subj",
        "/CN=EK",
        "-days",
        "30",
        "-force_pubkey",
        &public,
        "-CA",
        &root,
        "-CAkey",
        &root_key,
        "-extfile",
        extensions.to_str().unwrap(),
        "-outform",
        "DER",
        "-out",
        &certificate,
    ]);
    let size = fs::metadata(&certificate).unwrap().len().to_string();
    let attributes = "authread|ownerread|ppread|ownerwrite|no_da";
    tool(
        "tpm2_nvdefine",
        &["-C", "o", "-a", attributes, "-s", &size, index],
    );
    tool("tpm2_nvwrite", &["-C", "o", "-i", &certificate, index]);
    let settings = format!("[master]\nek_roots = \"{}\"\n", file("ek"));
    bench.home.write("config.toml", settings);
}

const EK_CERTIFICATE: &str = "2.23.133.8.1";

fn a_certified_endorsement_key_vouches_for_the_root_key(link: Link) {
    for persists in [true, false] {
        let bench = Bench::new(link);
        endorse(&bench, persists, EK_CERTIFICATE);
        bench.make_root();
        let own = Own::new(&bench.home);
        let book = bench.proxy.book();
        book.interpose(
            Impostor::new(|_| false)
                .knowing(&bench.root_area())
                .between(),
        );
        let refused = own.make(Kind::P256, "key");
        assert_eq!(refused, Err(Code(CKR_TOKEN_NOT_RECOGNIZED)), "{persists}");
        bench.home.log_says(&[
            "0x81000001",
            "endorsement key is certified",
            "does not have",
        ]);
        assert!(!bench.folder().join(".storage-root").exists());
        book.interpose(None);
        own.signs(own.make(Kind::P256, "key").unwrap().private);
        assert!(bench.folder().join(".storage-root").exists());
        assert_eq!(bench.tpm.transients(), 0);
        own.raw.finalize().unwrap();
    }
}

fn a_tpm_without_a_certified_endorsement_key_is_refused(link: Link) {
    // No index at all; a certificate that is for something else; one of another maker.
    for case in ["none", "purpose", "maker"] {
        let bench = Bench::new(link);
        let purpose = if case == "purpose" {
            "clientAuth"
        } else {
            EK_CERTIFICATE
        };
        endorse(&bench, true, purpose);
        let reason = match case {
            "none" => {
                run(bench
                    .tpm
                    .tool("tpm2_nvundefine")
                    .args(["-C", "o", "0x01C0000A"]))
                .ok();
                "no NV index"
            }
            "purpose" => "not for an endorsement key",
            _ => {
                testkit::own::outside(&bench.home, "other", &testkit::own::P256_KEY);
                fs::copy(bench.home.path("other.pem"), bench.home.path("ek/root.pem")).unwrap();
                "does not hold the certificate of the issuer"
            }
        };
        let own = Own::new(&bench.home);
        let refused = own.make(Kind::P256, "key");
        assert_eq!(refused, Err(Code(CKR_TOKEN_NOT_RECOGNIZED)), "{case}");
        bench.home.log_says(&["ek_roots", reason]);
        assert!(!persistent(&bench.tpm).contains(&MASTER), "{case}");
        own.raw.finalize().unwrap();
    }
}

/// An index before it was defined and never written; or the TPM answers nothing of use about it.
fn an_index_that_cannot_be_read_hides_no_certificate(link: Link) {
    for is_defined in [true, false] {
        let bench = Bench::new(link);
        endorse_at("0x01C00014", &bench, true, EK_CERTIFICATE);
        let attributes = "authread|ownerread|ppread|ownerwrite|no_da";
        let define = ["-C", "o", "-a", attributes, "-s", "64", "0x01C0000A"];
        match is_defined {
            true => drop(run(bench.tpm.tool("tpm2_nvdefine").args(define)).ok()),
            false => bench
                .proxy
                .book()
                .interpose(Some(Box::new(|command, execute| {
                    let asks = number_at(command, 6) == NV_READ_PUBLIC;
                    match asks && number_at(command, 10) == 0x01C0_000A {
                        // TPM_RC_AUTH_UNAVAILABLE.
                        true => vec![0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x2F],
                        false => execute(command),
                    }
                }))),
        }
        let own = Own::new(&bench.home);
        own.signs(own.make(Kind::P256, "key").unwrap().private);
        own.raw.finalize().unwrap();
    }
}
