//! The life of a device in which both the module and `devid` change objects. Each of them must see
//! the changes of the other.

use cryptoki_sys::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use testkit::factory::{self, Identity};
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{library, tool};
use testkit::own::Own;
use testkit::programs::{Said, program, run, run_with};
use testkit::raw::Code;
use testkit::tls::{
    Server, Site, chain_file, nginx, openssl_server_with_identity, server_identity, trust_file,
    with_provider,
};
use testkit::tpm::Swtpm;

over_our_transport!(
    a_routers_start,
    a_token_that_asks_for_a_pin,
    a_uri_as_programs_print_it,
    what_a_running_program_sees,
);

const PROVISION: &[&str] = &["provision", "--wait", "0"];

fn devid(home: &Home, words: &[&str]) -> Said {
    let mut command = Command::new(tool());
    run(home.settle(command.args(words).stdin(Stdio::null())))
}

#[track_caller]
fn ends(home: &Home, code: i32, words: &[&str]) -> Said {
    let said = devid(home, words);
    assert_eq!(said.status.code(), Some(code), "{said}");
    said
}

/// Programs name a token by all that CK_TOKEN_INFO says of it; `devid` compares that too.
fn a_uri_as_programs_print_it(link: Link) {
    let (tpm, _) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    ends(&home, 0, &["key", "generate", "web"]);
    let mut p11tool = program("p11tool");
    p11tool.arg("--provider").arg(library());
    let listed = run(home.settle(p11tool.args(["--batch", "--list-all", "pkcs11:"]))).ok();
    let listed = listed.text();
    let uris = listed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("URL: "))
        .filter(|uri| uri.contains(";type="));
    let mut labels = Vec::new();
    for uri in uris {
        assert!(
            uri.contains("model=") && uri.contains("manufacturer="),
            "{uri}"
        );
        let label = ends(&home, 0, &["show", uri]).text();
        labels.push(label.lines().next().unwrap_or_default().to_owned());
    }
    for label in ["idev-id", "idev-id-ca-1", "web"] {
        assert!(labels.iter().any(|one| one == label), "{label}: {listed}");
    }
}

/// Shows and verifies the identity, without and with the CA. Then connects by TLS with the key in
/// the TPM, and with a key in a file.
fn a_routers_start(link: Link) {
    let (tpm, identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    assert!(
        ends(&home, 0, &["show", "idev-id"])
            .text()
            .contains("SN-000001")
    );
    ends(&home, 3, &["verify", "idev-id"]);
    let ca = identity.ca();
    ends(
        &home,
        0,
        &["verify", "idev-id", "--ca", ca.to_str().unwrap()],
    );

    let key = home.path("idev-id.key.pem");
    ends(
        &home,
        0,
        &["uri", "idev-id", "--pem", key.to_str().unwrap()],
    );
    let server = strict_server(&home, &identity);
    let page = curl(&home, &server, &chain_file(&home, &identity), &key);
    assert!(page.contains("serialNumber=SN-000001"), "{page}");

    // The other mode: another file names a key in a file, and no program notices.
    let in_file = FileKey::new(&home, &identity);
    let page = curl(&home, &server, &in_file.chain, &in_file.pem);
    assert!(page.contains("serialNumber=SN-file"), "{page}");
    let page = openssl_client(&home, &in_file, &identity);
    assert!(page.contains("SN-file"), "{page}");
}

/// A key in a file of a token that allows it, and a certificate of the factory's CA for it.
struct FileKey {
    uri: &'static str,
    /// The URI as programs take it for a key file.
    pem: PathBuf,
    leaf: PathBuf,
    /// The leaf with its issuer.
    chain: PathBuf,
}

impl FileKey {
    fn new(home: &Home, identity: &Identity) -> Self {
        let uri = "pkcs11:token=files;object=service;type=private";
        home.write(
            "config.toml",
            "[[token]]\nname = \"files\"\nallow_file_keys = true\n",
        );
        let mut make = program("pkcs11-tool");
        make.arg("--module").arg(library());
        make.args([
            "--token-label",
            "files",
            "--keypairgen",
            "--label",
            "service",
        ]);
        make.args(["--key-type", "EC:prime256v1", "--usage-sign"]);
        run(home.settle(&mut make)).ok();
        let mut files = fs::read_dir(home.path("state/files")).unwrap();
        let in_clear = |path: &Path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.contains("-----BEGIN PRIVATE KEY-----")
        };
        assert!(files.any(|file| in_clear(&file.unwrap().path())));

        let request = home.path("file.csr");
        let mut openssl = with_provider("openssl", home);
        openssl.args(["req", "-new", "-subj", "/CN=file", "-key", uri, "-out"]);
        run(openssl.arg(&request)).ok();
        let (ca, leaf) = (identity.ca(), home.path("file.pem"));
        certify(ca.parent().unwrap(), &request, &leaf);
        let chain = [fs::read(&leaf).unwrap(), fs::read(&ca).unwrap()].concat();
        let pem = ends(home, 0, &["uri2pem", uri]).text();
        Self {
            uri,
            pem: home.write("file.key.pem", pem),
            leaf,
            chain: home.write("file-chain.pem", chain),
        }
    }
}

/// The key by its URI; what a server shows that insists on a certificate.
fn openssl_client(home: &Home, key: &FileKey, identity: &Identity) -> String {
    let server = openssl_server_with_identity(home, identity);
    let mut client = with_provider("openssl", home);
    client.args(["s_client", "-quiet", "-verify_return_error", "-connect"]);
    client.arg(server.address()).arg("-CAfile");
    client.arg(home.path("server.pem")).arg("-cert");
    client.arg(&key.leaf).arg("-cert_chain").arg(identity.ca());
    client.args(["-key", key.uri]);
    let page = run_with(&mut client, b"GET / HTTP/1.0\r\n\r\n");
    page.ok().text()
}

/// An nginx that lets nobody in without a certificate of this factory.
fn strict_server(home: &Home, identity: &Identity) -> Server {
    server_identity(home);
    let trusted = trust_file(home, identity);
    let site = Site {
        workers: 1,
        certificate: home.path("server.pem"),
        key: home.path("server.key"),
        lines: format!(
            "ssl_client_certificate {};\nssl_verify_client on;\nssl_verify_depth 2;\n",
            trusted.display()
        ),
        top: String::new(),
    };
    nginx(home, &site, |_| {})
}

fn curl(home: &Home, server: &Server, certificate: &Path, key: &Path) -> String {
    let mut curl = with_provider("curl", home);
    curl.args([
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "30",
        "--cacert",
    ]);
    curl.arg(home.path("server.pem"));
    curl.arg("--cert").arg(certificate).arg("--key").arg(key);
    run(curl.arg(format!("https://{}/", server.address())))
        .ok()
        .text()
}

fn certify(folder: &Path, request: &Path, certificate: &Path) {
    let mut authority = Command::new(factory::script().with_file_name("authority"));
    authority.args(["--serial", "SN-file", "--dir"]).arg(folder);
    run(authority
        .arg("--request")
        .arg(request)
        .arg("--out")
        .arg(certificate))
    .ok();
}

/// A running program sees a renewed certificate and a new identity at its next search. Removed
/// objects are gone.
fn what_a_running_program_sees(link: Link) {
    let tpm = Swtpm::blank();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    ends(&home, 0, PROVISION);
    let own = Own::new(&home);
    let class =
        |object| CK_ULONG::from_le_bytes(own.attribute(object, CKA_CLASS).try_into().unwrap());
    let of = |wanted: CK_ULONG| {
        let all = own.labelled("devid");
        let found: Vec<_> = all
            .into_iter()
            .filter(|one| class(*one) == wanted)
            .collect();
        assert_eq!(found.len(), 1, "of each class one");
        found[0]
    };
    let (key, certificate) = (of(CKO_PRIVATE_KEY), of(CKO_CERTIFICATE));
    own.sign(CKM_ECDSA, key, &[7; 32]).expect("a signature");
    assert_eq!(own.destroy(key), Err(Code(CKR_ACTION_PROHIBITED)));

    let (request, leaf) = (home.path("devid.csr"), home.path("devid.pem"));
    ends(
        &home,
        0,
        &["csr", "devid", "--out", request.to_str().unwrap()],
    );
    certify(home.folder(), &request, &leaf);
    ends(&home, 0, &["import-cert", leaf.to_str().unwrap()]);
    assert_eq!(of(CKO_PRIVATE_KEY), key, "the key is the same");
    assert_ne!(of(CKO_CERTIFICATE), certificate);
    let gone = own.raw.attribute(own.session, certificate, CKA_VALUE);
    assert_eq!(gone, Err(Code(CKR_OBJECT_HANDLE_INVALID)));

    ends(&home, 0, &["reset", "--factory", "--yes", "--wait", "0"]);
    let new = of(CKO_PRIVATE_KEY);
    assert_ne!(new, key);
    let gone = own.raw.attribute(own.session, key, CKA_ID);
    assert_eq!(gone, Err(Code(CKR_OBJECT_HANDLE_INVALID)));
    let signature = own.sign(CKM_ECDSA, new, &[7; 32]).expect("a signature");
    own.verifier(&home, new)
        .accepts_digest(&[7; 32], &signature)
        .ok();
}

/// The PIN comes from the configuration, and where it does not, that is said.
fn a_token_that_asks_for_a_pin(link: Link) {
    let tpm = Swtpm::blank();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let pkcs11_tool = |words: &[&str]| {
        let mut command = program("pkcs11-tool");
        command.arg("--module").arg(library()).args(words);
        run(home.settle(&mut command)).ok()
    };
    let officer = ["--token-label", "devid", "--so-pin", "officer"];
    pkcs11_tool(&[&["--init-token", "--label", "device keys"][..], &officer].concat());
    let officer = ["--token-label", "device keys", "--so-pin", "officer"];
    let user = [
        "--init-pin",
        "--pin",
        "secret",
        "--login",
        "--login-type",
        "so",
    ];
    pkcs11_tool(&[&user[..], &officer].concat());

    let said = ends(&home, 1, PROVISION);
    assert!(said.err.contains("[[token]]"), "{said}");
    let pin = home.write("pin", "secret\n");
    home.write(
        "config.toml",
        format!(
            "[[token]]\nname = \"devid\"\npin = \"file:{}\"\n",
            pin.display()
        ),
    );
    ends(&home, 0, PROVISION);
    ends(&home, 0, &["status"]);
    ends(&home, 3, &["verify", "devid"]);
    ends(&home, 0, &["key", "generate", "web"]);
    ends(&home, 0, &["csr", "web"]);
    ends(&home, 0, PROVISION);
    // Programs look for the token by the label that it has now.
    let uri = ends(&home, 0, &["uri", "web"]).text();
    assert!(
        uri.starts_with("pkcs11:token=device%20keys;object=web;id=%"),
        "{uri}"
    );

    // Its officer cannot take the identity away either.
    let before = ends(&home, 0, &["show", "devid"]).text();
    let mut again = program("pkcs11-tool");
    again
        .arg("--module")
        .arg(library())
        .args(["--init-token", "--label", "devid"]);
    let said = run(home.settle(again.args(officer)));
    // CKR_ACTION_PROHIBITED
    assert!(
        !said.status.success() && said.err.contains("(0x1b)"),
        "{said}"
    );
    home.log_says(&["cannot be destroyed", "devid reset --factory"]);
    assert_eq!(ends(&home, 0, &["show", "devid"]).text(), before);
    ends(&home, 3, &["verify", "devid"]);
    ends(&home, 0, &["csr", "web"]);

    // A reset takes the PINs away with what they were for.
    ends(&home, 0, &["reset", "--factory", "--yes", "--wait", "0"]);
    home.write("config.toml", "");
    ends(
        &home,
        0,
        &[
            "verify",
            "devid",
            "--ca",
            own_certificate(&home).to_str().unwrap(),
        ],
    );
}

fn own_certificate(home: &Home) -> std::path::PathBuf {
    let entries = fs::read_dir(home.path("state/devid")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    let is_certificate =
        |path: &std::path::PathBuf| path.to_str().unwrap().contains("certificate-");
    paths.find(is_certificate).expect("a certificate")
}
