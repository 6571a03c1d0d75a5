//! Runs the commands of docs/SZTP.md with a bootstrap server. The server identifies the device by
//! its factory identity, and certifies the key of its request.

use std::fs;
use std::process::Command;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::tool;
use testkit::pages::block;
use testkit::programs::{program, run};
use testkit::tls::{Server, configuration, server_identity, trust_file};
use testkit::tpm::Swtpm;

over_our_transport!(the_commands_of_the_page);

/// get-bootstrapping-data: it writes who asked, and what it issues.
const BOOTSTRAP: &str = r#"
import base64, http.server, json, ssl, subprocess, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        assert self.path == "/restconf/operations/ietf-sztp-bootstrap-server:get-bootstrapping-data", self.path
        assert self.headers["Content-Type"] == "application/yang-data+json"
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = body["ietf-sztp-bootstrap-server:input"]
        with open("peer", "w") as file:
            json.dump(self.connection.getpeercert(), file)
        with open("asked.csr", "wb") as file:
            file.write(base64.b64decode(asked["ietf-sztp-csr:p10-csr"], validate=True))
        openssl = lambda *words: subprocess.run(["openssl", *words], check=True)
        openssl("req", "-inform", "DER", "-in", "asked.csr", "-verify", "-noout")
        openssl("x509", "-req", "-inform", "DER", "-in", "asked.csr", "-CA", "owner-ca.pem", "-CAkey", "owner-ca.key",
                "-days", "9", "-out", "issued.pem")
        openssl("crl2pkcs7", "-nocrl", "-certfile", "issued.pem", "-certfile", "owner-ca.pem", "-outform", "DER",
                "-out", "lan.p7")
        with open("lan.p7", "rb") as file:
            conveyed = base64.b64encode(file.read()).decode()
        answer = json.dumps({"ietf-sztp-bootstrap-server:output": {"conveyed-information": conveyed}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/yang-data+json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=sys.argv[2])
context.verify_mode = ssl.CERT_REQUIRED
context.load_cert_chain("server.pem", "server.key")
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

fn the_commands_of_the_page(link: Link) {
    let (tpm, identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let cnf = configuration(&home);
    server_identity(&home);
    fs::copy(home.path("server.pem"), home.path("bootstrap-ca.pem")).unwrap();
    let mut authority = program("openssl");
    authority.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ]);
    authority.args([
        "-nodes",
        "-days",
        "9",
        "-subj",
        "/CN=owner",
        "-keyout",
        "owner-ca.key",
    ]);
    run(authority
        .args(["-out", "owner-ca.pem"])
        .current_dir(home.folder()))
    .ok();
    let trusted = trust_file(&home, &identity);
    let server = Server::start(&home, |port| {
        let mut server = program("python3");
        server
            .args(["-c", BOOTSTRAP, &port.to_string()])
            .arg(&trusted);
        server.current_dir(home.folder());
        server
    });
    let shell = |name: &str| -> Command {
        let commands = block("docs/SZTP.md", name);
        let here = commands.replace("/etc/devid-pkcs11/openssl.cnf", cnf.to_str().unwrap());
        let mut shell = program("bash");
        shell
            .args(["-euo", "pipefail", "-c", &here])
            .current_dir(home.folder());
        let path = std::env::var_os("PATH").unwrap();
        let ours = tool().parent().unwrap().to_owned();
        let all = [ours].into_iter().chain(std::env::split_paths(&path));
        shell.env("PATH", std::env::join_paths(all).unwrap());
        shell
            .env("URL", format!("https://{}", server.address()))
            .env("no_proxy", "*");
        home.settle(&mut shell);
        shell
    };
    run(&mut shell("sztp-request")).ok();
    // The device was known by its factory's serial number, and what came is what the server sent.
    let peer = fs::read_to_string(home.path("peer")).unwrap();
    assert!(peer.contains("SN-000001"), "{peer}");
    let output = fs::read_to_string(home.path("output.json")).unwrap();
    assert!(output.contains("conveyed-information"), "{output}");
    run(&mut shell("sztp-answer")).ok();
    assert_eq!((tpm.transients(), tpm.lockout_counter()), (0, 0));
}
