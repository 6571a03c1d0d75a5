//! OpenSSL with pkcs11-provider, and servers that require a client certificate.

use super::factory::Identity;
use super::folders;
use super::home::Home;
use super::module;
use super::ports::Pair;
use super::programs::{Running, find, poll, program, run, run_with};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The URI of the identity's key.
pub const KEY: &str = "pkcs11:token=idev-id;object=idev-id;type=private";

/// Writes an openssl.cnf for the provider into the home. The file is that of the packages, with the
/// paths of this machine.
pub fn configuration(home: &Home) -> PathBuf {
    let root = folders::root();
    let lock = File::create(folders::scratch().join("provider.lock"));
    let lock = lock.expect("a lock file");
    lock.lock().expect("a lock");
    let provider = run(&mut Command::new(root.join("scripts/pkcs11-provider")))
        .ok()
        .text();
    drop(lock);
    let shipped = fs::read_to_string(root.join("pkcs11-conf/openssl.cnf")).expect("a file");
    let mut text = String::new();
    let mut replaced = 0;
    for line in shipped.lines() {
        let line = match line.split_once(" = ") {
            Some(("#module", _)) => format!("module = {}", provider.trim()),
            Some(("pkcs11-module-path", _)) => {
                format!("pkcs11-module-path = {}", module::library().display())
            }
            _ => {
                writeln!(text, "{line}").expect("a string takes all");
                continue;
            }
        };
        replaced += 1;
        writeln!(text, "{line}").expect("a string takes all");
    }
    assert_eq!(
        replaced, 2,
        "pkcs11-conf/openssl.cnf names the provider and the module"
    );
    home.write("openssl.cnf", text)
}

/// Returns a command for the program `name`, configured with provider and module.
pub fn with_provider(name: &str, home: &Home) -> Command {
    let mut command = program(name);
    command.env("OPENSSL_CONF", configuration(home));
    home.settle(&mut command);
    command
}

/// Configures a provider that ignores CKA_ALLOWED_MECHANISMS.
pub fn without_allowed_mechanisms(home: &Home, command: &mut Command) {
    let shipped = fs::read_to_string(configuration(home)).expect("a file");
    let section = "[pkcs11_sect]\n";
    let quirk = format!("{section}pkcs11-module-quirks = no-allowed-mechanisms\n");
    let text = shipped.replace(section, &quirk);
    assert_ne!(text, shipped);
    command.env("OPENSSL_CONF", home.write("quirky.cnf", text));
}

/// Configures a provider that loads the module at its first use.
pub fn without_early_load(home: &Home, command: &mut Command) {
    let shipped = fs::read_to_string(configuration(home)).expect("a file");
    let text = shipped.replace("pkcs11-module-load-behavior = early\n", "");
    assert_ne!(text, shipped);
    command.env("OPENSSL_CONF", home.write("late.cnf", text));
}

/// Returns a command for `openssl s_client` with key and certificate of the identity with this
/// label. The server's certificate is `server.pem`. The protocol is 1.2 or 1.3.
pub fn openssl_client(
    home: &Home,
    identity: &Identity,
    label: &str,
    server: &Server,
    protocol: &str,
) -> Command {
    let mut client = with_provider("openssl", home);
    client
        .args(["s_client", "-quiet", "-verify_return_error"])
        .args([&format!("-tls{}", protocol.replace('.', "_")), "-CAfile"])
        .arg(home.path("server.pem"))
        .args(["-connect", &server.address(), "-key"])
        .arg(format!("pkcs11:token=idev-id;object={label};type=private"))
        .arg("-cert")
        .arg(identity.certificate())
        .arg("-cert_chain")
        .arg(identity.ca());
    client
}

/// Makes a file for the key with `devid uri2pem`. Returns its path.
pub fn key_file(home: &Home) -> PathBuf {
    let pem = run(Command::new(module::tool()).args(["uri2pem", KEY]))
        .ok()
        .text();
    home.write("key.pem", pem)
}

/// Writes the certificates of the identity and its issuer to a file, in the order of TLS.
pub fn chain_file(home: &Home, identity: &Identity) -> PathBuf {
    join(home, "chain.pem", &[identity.certificate(), identity.ca()])
}

/// Writes the certificates that a server trusts to a file.
pub fn trust_file(home: &Home, identity: &Identity) -> PathBuf {
    join(home, "trusted.pem", &[identity.root(), identity.ca()])
}

fn join(home: &Home, name: &str, files: &[PathBuf]) -> PathBuf {
    let texts: Vec<Vec<u8>> = files
        .iter()
        .map(|file| fs::read(file).expect("a file"))
        .collect();
    home.write(name, texts.concat())
}

/// Makes a key in a file and a certificate for a server: `server.key`, `server.pem`.
pub fn server_identity(home: &Home) {
    server_identity_of(home, &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
}

/// Makes the key and certificate of a server. `kind` is the type of the key as arguments of
/// `openssl req -newkey`.
pub fn server_identity_of(home: &Home, kind: &[&str]) {
    run(program("openssl")
        .args(["req", "-x509", "-nodes", "-newkey"])
        .args(kind)
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
        ])
        .arg(home.path("server.key"))
        .arg("-out")
        .arg(home.path("server.pem")))
    .ok();
}

/// A running server and its port.
pub struct Server {
    pub port: u16,
    running: Running,
    _ports: Pair,
    log: PathBuf,
}

impl Server {
    /// Starts the server from `command`, which receives a port. Waits until the server listens.
    pub fn start(home: &Home, command: impl Fn(u16) -> Command) -> Server {
        let log = home.path("server.log");
        for _ in 0..5 {
            let ports = Pair::claim();
            let out = File::create(&log).expect("a file");
            let mut command = command(ports.first);
            command.stdout(out.try_clone().expect("dup")).stderr(out);
            let mut running = Running::start_gently("server", &mut command);
            let up = poll(Duration::from_secs(60), || match running.is_running() {
                false => Some(false),
                true => TcpStream::connect(("127.0.0.1", ports.first))
                    .ok()
                    .map(|_| true),
            });
            if up == Some(true) && running.is_running() {
                return Server {
                    port: ports.first,
                    running,
                    _ports: ports,
                    log,
                };
            }
        }
        panic!(
            "no server:\n{}",
            fs::read_to_string(&log).unwrap_or_default()
        );
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn is_running(&mut self) -> bool {
        self.running.is_running()
    }
}

/// Starts `openssl s_server`, which requires a certificate and sends a page about the connection.
pub fn openssl_server(home: &Home, identity: &Identity) -> Server {
    server_identity(home);
    openssl_server_with_identity(home, identity)
}

/// Starts the server with the key that [`server_identity`] made before.
pub fn openssl_server_with_identity(home: &Home, identity: &Identity) -> Server {
    openssl_server_with(home, identity, &[])
}

/// Starts the server with these additional options.
pub fn openssl_server_with(home: &Home, identity: &Identity, options: &[&str]) -> Server {
    openssl_server_that_trusts(home, &trust_file(home, identity), options)
}

/// Starts the server for clients whose certificates lead to a certificate in this file.
pub fn openssl_server_that_trusts(home: &Home, trusted: &Path, options: &[&str]) -> Server {
    Server::start(home, |port| {
        let mut server = program("openssl");
        demands_certificates(&mut server, trusted, port)
            .arg("-key")
            .arg(home.path("server.key"))
            .arg("-cert")
            .arg(home.path("server.pem"))
            .args(options);
        server
    })
}

/// Adds the options of an openssl server at `port`. Its clients must have a certificate that leads
/// to a certificate in the file `trusted`.
pub fn demands_certificates<'a>(
    openssl: &'a mut Command,
    trusted: &Path,
    port: u16,
) -> &'a mut Command {
    openssl.args([
        "s_server",
        "-www",
        "-Verify",
        "1",
        "-verify_return_error",
        "-CAfile",
    ]);
    openssl
        .arg(trusted)
        .args(["-accept", &format!("127.0.0.1:{port}")])
}

/// The settings of an nginx, in addition to TLS.
pub struct Site {
    pub workers: u32,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The lines of the server block.
    pub lines: String,
    /// The lines at the top of the file.
    pub top: String,
}

/// Starts an nginx that answers with the client's name, the worker's process id and the protocol.
pub fn nginx(home: &Home, site: &Site, settle: impl Fn(&mut Command)) -> Server {
    fs::create_dir_all(home.path("web")).expect("a folder");
    Server::start(home, |port| {
        let mut text = format!(
            "daemon off;\nworker_processes {};\n{}",
            site.workers, site.top
        );
        let web = home.path("web");
        // SAFETY: The call has no preconditions. It returns the user id.
        if unsafe { libc::geteuid() } == 0 {
            text += "user root;\n"; // otherwise workers could not read the home
        }
        write!(
            text,
            "pid {}/nginx.pid;\nerror_log stderr info;\n",
            web.display()
        )
        .unwrap();
        text += "events {}\nhttp {\naccess_log off;\n";
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(text, "{kind}_temp_path {};", web.display()).unwrap();
        }
        writeln!(text, "server {{\nlisten 127.0.0.1:{port} ssl reuseport;").unwrap();
        writeln!(text, "ssl_certificate {};", site.certificate.display()).unwrap();
        writeln!(text, "ssl_certificate_key {};", site.key.display()).unwrap();
        text +=
            "ssl_session_cache off;\nssl_session_tickets off;\nssl_protocols TLSv1.2 TLSv1.3;\n";
        text += &site.lines;
        text += "location / { return 200 \"$ssl_client_s_dn|$pid|$ssl_protocol|\\n\"; }\n}\n}\n";
        let mut command = Command::new(find("nginx"));
        command
            .arg("-e")
            .arg("stderr")
            .arg("-c")
            .arg(home.write("nginx.conf", text));
        command.arg("-p").arg(&web);
        settle(&mut command);
        command
    })
}

/// Makes one request with `openssl s_client` without client certificate. Returns the response.
pub fn plain_request(server: &Server, trusted: &Path, protocol: &str) -> String {
    let mut client = program("openssl");
    client.args([
        "s_client",
        "-quiet",
        "-verify_return_error",
        "-connect",
        &server.address(),
    ]);
    client.arg(protocol).arg("-CAfile").arg(trusted);
    run_with(&mut client, b"GET / HTTP/1.0\r\n\r\n").ok().text()
}

/// Runs `openssl s_time` until it makes at least this number of handshakes. On a busy machine it
/// runs again for a longer time. A failed handshake ends it.
#[track_caller]
pub fn handshakes(s_time: &mut Command, least: u32) {
    let mut last = String::new();
    for seconds in ["1", "4", "16", "60"] {
        let said = run(s_time.args(["-time", seconds])).ok().all();
        let line = said.lines().find(|line| line.contains(" connections in "));
        let (count, _) = line.expect(&said).split_once(' ').expect(&said);
        if count.parse::<u32>().expect(&said) >= least {
            return;
        }
        last = said;
    }
    panic!("fewer than {least} handshakes: {last}");
}
