//! Programs that log in to the token `devid` with the commands of docs/PINS.md.

use cryptoki_sys::*;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;
use testkit::link::Link;
use testkit::module::{library, ulong};
use testkit::openssl::Verifier;
use testkit::own::{public_pem, slot_of};
use testkit::pins::{Bench, OFFICER, USER};
use testkit::programs::{Running, Said, poll, program, run, run_with};
use testkit::raw::text;
use testkit::tls::{
    chain_file, handshakes, key_file, openssl_server_with_identity, server_identity_of,
    with_provider,
};

over_our_transport!(
    opensc_sets_the_pins_and_uses_them,
    gnutls_sets_the_pins_and_uses_them,
    openssl_is_told_the_pin,
    openssh_asks_for_the_pin,
    java_opens_a_key_store,
    a_token_with_pin_lets_openssl_verify_peers,
);

const KEY: &str = "pkcs11:token=device%20keys;object=web;type=private";

/// A token with PINs made by pkcs11-tool, and a P-256 key `web` on it.
struct Clients {
    bench: Bench,
    judge: Verifier,
}

impl Clients {
    fn new(link: Link) -> Clients {
        let bench = Bench::new(link);
        let tool = |arguments: &[&str]| bench.pkcs11_tool(arguments).ok();
        let init = [
            "--init-token",
            "--slot-index",
            "1",
            "--label",
            "device keys",
        ];
        tool(&[&init[..], &["--so-pin", OFFICER]].concat());
        let token = ["--token-label", "device keys"];
        let init = ["--login", "--login-type", "so", "--so-pin", OFFICER];
        tool(&[&token[..], &init, &["--init-pin", "--new-pin", USER]].concat());
        let make = [
            "--keypairgen",
            "--key-type",
            "EC:prime256v1",
            "--label",
            "web",
        ];
        tool(&[&token[..], &["--login", "--pin", USER, "--id", "01"], &make].concat());
        // Not by pkcs11-tool: OpenSC 0.23 fails at that by chance.
        let pem = bench.home.write("web.pub", public_key(&bench));
        Clients {
            judge: Verifier::new(&pem),
            bench,
        }
    }

    #[track_caller]
    fn verifies(&self, file: &str) {
        let made = fs::read(self.bench.path(file)).unwrap();
        self.judge.accepts_der("-sha256", b"data", &made).ok();
    }

    /// The factory's identity signs, and so many tries have failed.
    fn end(&self, tries: u32) {
        let token = self.bench.token();
        self.bench.idev_id_signs(&token.raw, tries);
    }

    fn data(&self) -> String {
        self.bench.home.write("data", b"data");
        self.bench.path("data")
    }
}

/// The public half of `web`, which is for all to see.
fn public_key(bench: &Bench) -> String {
    let token = bench.token();
    let session = token.read_only();
    let template = [
        (CKA_CLASS, ulong(CKO_PUBLIC_KEY)),
        (CKA_LABEL, b"web".to_vec()),
    ];
    let found = token.raw.find(session, &template).unwrap();
    let info = token.raw.attribute(session, found[0], CKA_PUBLIC_KEY_INFO);
    token.raw.finalize().unwrap();
    public_pem(&info.unwrap())
}

fn opensc_sets_the_pins_and_uses_them(link: Link) {
    let clients = Clients::new(link);
    let bench = &clients.bench;
    let token = ["--token-label", "device keys"];
    let tool = |arguments: &[&str]| bench.pkcs11_tool(&[&token[..], arguments].concat());
    let listed = bench.pkcs11_tool(&["--list-slots"]).ok().text();
    assert!(listed.contains("login required"), "{listed}");
    let hidden = tool(&["--list-objects", "--type", "privkey"]).ok().text();
    assert!(!hidden.contains("web"), "{hidden}");
    tool(&[
        "--login",
        "--pin",
        USER,
        "--change-pin",
        "--new-pin",
        "new PIN",
    ])
    .ok();
    let out = bench.path("signature");
    let data = clients.data();
    let sign = |pin: &str| {
        let login = ["--login", "--pin", pin, "--id", "01", "--sign"];
        let how = [
            "--mechanism",
            "ECDSA-SHA256",
            "--signature-format",
            "openssl",
        ];
        let files = ["--input-file", &data, "--output-file", &out];
        tool(&[&login[..], &how, &files].concat())
    };
    let refused = sign(USER).all();
    assert!(refused.contains("CKR_PIN_INCORRECT"), "{refused}");
    sign("new PIN").ok();
    clients.verifies("signature");
    let listed = bench.pkcs11_tool(&["--list-slots"]).ok().text();
    assert!(listed.contains("user PIN count low"), "{listed}");
    clients.end(1);
}

fn gnutls_sets_the_pins_and_uses_them(link: Link) {
    let bench = Bench::new(link);
    let tool = |pins: &[(&str, &str)], arguments: &[&str]| {
        let mut command = program("p11tool");
        command.arg("--provider").arg(library()).args(arguments);
        command.envs(pins.iter().copied());
        run(bench.home.settle(&mut command))
    };
    let officer = ("GNUTLS_SO_PIN", OFFICER);
    let user = ("GNUTLS_PIN", USER);
    let empty = "pkcs11:token=devid";
    let label = ["--initialize", "--label", "device keys"];
    let init = [&["--batch", "--set-so-pin", OFFICER][..], &label, &[empty]].concat();
    tool(&[officer], &init).ok();
    let url = "pkcs11:token=device%20keys";
    let init = ["--batch", "--initialize-pin", "--set-pin", USER, url];
    tool(&[officer, user], &init).ok();
    let make = [
        "--batch",
        "--login",
        "--generate-privkey",
        "ecdsa",
        "--curve",
        "secp256r1",
    ];
    tool(&[user], &[&make[..], &["--label", "web", url]].concat()).ok();
    let listed = tool(&[], &["--batch", "--list-all", url]).ok().text();
    assert!(!listed.contains("type=private"), "{listed}");
    let listed = tool(&[user], &["--batch", "--login", "--list-privkeys", url])
        .ok()
        .text();
    assert!(listed.contains("object=web;type=private"), "{listed}");
    // Signs, and verifies what it has signed.
    tool(&[user], &["--batch", "--login", "--test-sign", KEY]).ok();
    // A PIN in the URL.
    let with_pin = format!("{KEY};pin-value=open%20sesame");
    tool(&[], &["--batch", "--login", "--test-sign", &with_pin]).ok();
    let token = bench.token();
    bench.idev_id_signs(&token.raw, 0);
}

fn openssl_is_told_the_pin(link: Link) {
    let clients = Clients::new(link);
    let bench = &clients.bench;
    let (data, out) = (clients.data(), bench.path("signature"));
    let pin = bench.home.write("pin", USER);
    let sign = |command: &mut Command, key: &str| {
        fs::remove_file(&out).ok();
        let said = run(command.args(["dgst", "-sha256", "-sign", key, "-out", &out, &data]));
        if said.status.success() {
            clients.verifies("signature");
        }
        said
    };
    let openssl = || with_provider("openssl", &bench.home);
    sign(&mut openssl(), &format!("{KEY}?pin-value=open%20sesame")).ok();
    sign(
        &mut openssl(),
        &format!("{KEY}?pin-source=file:{}", pin.display()),
    )
    .ok();
    // In openssl.cnf.
    let mut configured = openssl();
    knowing_the_pin(bench, &mut configured);
    sign(&mut configured, KEY).ok();
    // Asked for: on the standard input where there is no terminal.
    let mut asked = openssl();
    let arguments = [
        "dgst", "-sha256", "-sign", KEY, "-passin", "stdin", "-out", &out, &data,
    ];
    fs::remove_file(&out).unwrap();
    run_with(asked.args(arguments), format!("{USER}\n").as_bytes()).ok();
    clients.verifies("signature");
    bench.counts(0);
    // A wrong one fails, and is not tried again and again.
    let refused = sign(&mut openssl(), &format!("{KEY}?pin-value=wrong"));
    assert!(!refused.status.success(), "{refused}");
    clients.end(1);
}

/// With the PIN in openssl.cnf.
fn knowing_the_pin(bench: &Bench, command: &mut Command) {
    let pin = bench.home.write("pin", USER);
    let shipped = fs::read_to_string(bench.path("openssl.cnf")).unwrap();
    let section = "[pkcs11_sect]\n";
    let pin = pin.display();
    let setting = format!("{section}pkcs11-module-token-pin = file:{pin}\n");
    let text = shipped.replace(section, &setting);
    assert_ne!(text, shipped);
    command.env("OPENSSL_CONF", bench.home.write("with-pin.cnf", text));
}

/// ssh-agent holds the PIN and the key; ssh-keygen has it sign, and verifies.
fn openssh_asks_for_the_pin(link: Link) {
    let clients = Clients::new(link);
    let bench = &clients.bench;
    let mut keys = program("ssh-keygen");
    let said = run(bench.home.settle(keys.arg("-D").arg(library())));
    let line = said.text();
    let line = line.lines().find(|line| line.ends_with(" web"));
    let public = bench
        .home
        .write("web.ssh", line.unwrap_or_else(|| panic!("{said}")));
    let socket = bench.path("agent");
    let mut agent = program("ssh-agent");
    agent
        .args(["-D", "-a", &socket, "-P", "/*"])
        .stdout(Stdio::null());
    let _agent = Running::start("ssh-agent", bench.home.settle(&mut agent));
    // The socket is there before the agent listens: a caller that comes between is refused.
    let there = poll(Duration::from_secs(60), || {
        UnixStream::connect(&socket).ok()
    });
    there.expect("ssh-agent listens");
    let asks = |pin: &str| {
        let script = format!("#!/bin/sh\necho '{pin}'\n");
        let script = bench.home.write("askpass", script);
        run(Command::new("chmod").arg("+x").arg(&script)).ok();
        let mut add = program("ssh-add");
        add.env("SSH_AUTH_SOCK", &socket)
            .env("SSH_ASKPASS", &script)
            .env("SSH_ASKPASS_REQUIRE", "force");
        run(add.arg("-s").arg(library()))
    };
    let agent = |option: &str| {
        let mut add = program("ssh-add");
        run(add.env("SSH_AUTH_SOCK", &socket).args([option]))
    };
    // The factory's key needs no PIN and comes all the same, so the agent takes the module.
    asks("wrong").ok();
    bench.counts(1);
    let keys = agent("-L").ok().text();
    let known = fs::read_to_string(&public).unwrap();
    let known = known.split(' ').nth(1).unwrap();
    assert!(!keys.contains(known), "{keys}");
    let mut leave = program("ssh-add");
    run(leave.env("SSH_AUTH_SOCK", &socket).arg("-e").arg(library())).ok();
    asks(USER).ok();
    let keys = agent("-L").ok().text();
    assert!(keys.contains(known), "{keys}");
    clients.data();
    let mut sign = program("ssh-keygen");
    sign.env("SSH_AUTH_SOCK", &socket)
        .args(["-Y", "sign", "-n", "file", "-f"]);
    run(sign.arg(&public).arg(bench.path("data"))).ok();
    let signers = format!("web {}", fs::read_to_string(&public).unwrap());
    let signers = bench.home.write("signers", signers);
    let mut verify = program("ssh-keygen");
    verify
        .args(["-Y", "verify", "-n", "file", "-I", "web", "-f"])
        .arg(signers);
    let verify = verify.args(["-s", &bench.path("data.sig")]);
    run_with(verify, b"data").ok();
    clients.end(1);
}

/// keytool is Java's own client for its key stores. It lists the key by its certificate. It makes a
/// request with SHA256withECDSA, which OpenSSL and Java verify.
fn java_opens_a_key_store(link: Link) {
    let clients = Clients::new(link);
    let bench = &clients.bench;
    // A key store has no key without a certificate.
    let certificate = bench.path("web.crt");
    let uri = format!("{KEY}?pin-value=open%20sesame");
    let mut make = with_provider("openssl", &bench.home);
    make.args([
        "req", "-new", "-x509", "-subj", "/CN=web", "-key", &uri, "-outform", "DER",
    ]);
    run(make.args(["-out", &certificate])).ok();
    let write = [
        "--write-object",
        &certificate,
        "--type",
        "cert",
        "--id",
        "01",
        "--label",
        "web",
    ];
    let token = ["--token-label", "device keys", "--login", "--pin", USER];
    bench.pkcs11_tool(&[&token[..], &write].concat()).ok();

    let slot = {
        let token = bench.token();
        let slot = slot_of(&token.raw, "device keys");
        assert_eq!(
            text(&token.raw.token_info(slot).unwrap().label),
            "device keys"
        );
        token.raw.finalize().unwrap();
        slot
    };
    let provider = format!("name=devid\nlibrary={}\nslot={slot}\n", library().display());
    let provider = bench.home.write("java.cfg", provider);
    let keytool = |arguments: &[&str]| -> Said {
        let mut command = program("keytool");
        command.args([
            "-J-Duser.language=en",
            "-keystore",
            "NONE",
            "-storetype",
            "PKCS11",
        ]);
        command.args([
            "-providerClass",
            "sun.security.pkcs11.SunPKCS11",
            "-providerArg",
        ]);
        command
            .arg(&provider)
            .args(["-storepass", USER])
            .args(arguments);
        run(bench.home.settle(&mut command))
    };
    let listed = keytool(&["-list"]).ok().text();
    assert!(listed.contains("web, PrivateKeyEntry"), "{listed}");
    let request = bench.path("web.csr");
    let how = [
        "-certreq",
        "-alias",
        "web",
        "-sigalg",
        "SHA256withECDSA",
        "-file",
        &request,
    ];
    keytool(&how).ok();
    let verify = ["req", "-in", &request, "-noout", "-verify", "-pubkey"];
    let said = run(program("openssl").args(verify)).ok();
    let public = |text: &str| text.split_whitespace().collect::<String>();
    let own = fs::read_to_string(bench.path("web.pub")).unwrap();
    // Later releases of OpenSSL say there, too, that the signature is right.
    let shown = said.text();
    let (_, shown) = shown.split_at(shown.find("-----BEGIN").unwrap());
    assert_eq!(public(shown), public(&own));
    run(program("keytool").args(["-printcertreq", "-file", &request])).ok();
    clients.end(0);
}

/// pkcs11-provider's issue 769: for the peer's ECDSA key the provider looks for a token that
/// requires a login. Now there is such a token.
fn a_token_with_pin_lets_openssl_verify_peers(link: Link) {
    let bench = Bench::new(link);
    bench.token().become_one_with_pins();
    let (home, identity) = (&bench.home, &bench.identity);
    server_identity_of(home, &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let server = openssl_server_with_identity(home, identity);
    let mut time = with_provider("openssl", home);
    knowing_the_pin(&bench, &mut time);
    let address = server.address();
    time.args(["s_time", "-new", "-verify", "3", "-connect", &address]);
    time.arg("-cert").arg(chain_file(home, identity));
    time.arg("-key").arg(key_file(home));
    time.arg("-CAfile").arg(home.path("server.pem"));
    // The first handshake works without such a token too.
    handshakes(&mut time, 2);
    bench.counts(0);
}
