//! OpenSSH with the factory identity. The commands of docs/CLIENTS.md are run without changes.
//! OpenSSH opens read-write sessions only.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use testkit::factory::Identity;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::library;
use testkit::programs::{Running, Said, poll, program, run};
use testkit::ssh::{client_options, sshd};
use testkit::tls::configuration;
use testkit::tpm::Swtpm;

over_our_transport!(
    ssh_logs_in,
    the_makers_authority_does_not_log_in,
    git_signs_a_commit,
    an_agent_needs_no_pin,
);

struct Bench {
    _tpm: Swtpm,
    identity: Identity,
    home: Home,
}

impl Bench {
    fn new(link: Link, factory: &[&str]) -> Self {
        let (tpm, identity) = Swtpm::manufactured_with(factory);
        let home = Home::new(&link.tcti(&tpm.tcti()));
        Self {
            _tpm: tpm,
            identity,
            home,
        }
    }

    /// Commands in the home, with what the page takes for granted.
    fn shell(&self, commands: &str) -> Command {
        let mut shell = program("bash");
        shell
            .args(["-euo", "pipefail", "-c", commands])
            .current_dir(self.home.folder())
            .env("M", library())
            .env("OPENSSL_CONF", configuration(&self.home));
        self.home.settle(&mut shell);
        shell
    }

    #[track_caller]
    fn run(&self, commands: &str) -> Said {
        run(&mut self.shell(commands)).ok()
    }

    /// The line that OpenSSL and ssh-keygen make of a certificate's public key.
    fn line_of(&self, certificate: &Path) -> String {
        let info = program("openssl")
            .args(["x509", "-noout", "-pubkey", "-in"])
            .arg(certificate)
            .output()
            .unwrap();
        let file = self.home.write("public.pem", info.stdout);
        let mut line = program("ssh-keygen");
        line.args(["-i", "-m", "PKCS8", "-f"]).arg(file);
        run(&mut line).ok().text().trim().to_owned()
    }
}

/// The page's block of shell commands that has this text.
#[track_caller]
fn block(text: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CLIENTS.md");
    let page = fs::read_to_string(page).unwrap();
    let blocks = page.split("```sh openssh\n").skip(1);
    let mut found = blocks
        .map(|after| after.split("```").next().unwrap().to_owned())
        .filter(|block| block.contains(text));
    let block = found
        .next()
        .unwrap_or_else(|| panic!("no block with {text:?}"));
    assert_eq!(found.next(), None, "two blocks with {text:?}");
    block
}

const RECIPE: &str = "$3 == \"idev-id\"";

fn ssh_logs_in(link: Link) {
    for factory in [&[][..], &["--template", "h1"]] {
        let bench = Bench::new(link, factory);
        let server = sshd(&bench.home);
        let options = client_options(server.port);
        let said = run(bench.shell(&block(RECIPE)).env("SERVER", options)).ok();
        assert_eq!(said.text(), "hello\n", "{said}");
        let log = server.log();
        assert!(log.contains("Accepted publickey"), "{log}");
    }
}

/// ssh-keygen prints a line for each certificate, also for an issuer's. The filter of the page
/// keeps only the device's key, for every name of the issuer.
fn the_makers_authority_does_not_log_in(link: Link) {
    let bench = Bench::new(link, &[]);
    let all = bench.run("env -u OPENSSL_CONF ssh-keygen -D $M").text();
    let (device, authority) = (
        bench.line_of(&bench.identity.certificate()),
        bench.line_of(&bench.identity.ca()),
    );
    assert!(all.contains(&device) && all.contains(&authority), "{all}");
    let filter = block(RECIPE);
    let filter = filter.lines().find(|line| line.contains(RECIPE)).unwrap();
    bench.run(filter);
    let allowed = fs::read_to_string(bench.home.path("authorized_keys")).unwrap();
    assert_eq!(allowed, format!("{device} idev-id\n"));
    // An authority whose name ends like the label.
    let (_, awk) = filter.split_once('|').unwrap();
    let awk = awk.split('>').next().unwrap();
    let named = bench.home.write(
        "all",
        format!("{authority} /O=Some maker/CN=devices of idev-id\n{authority} /CN=idev-id\n"),
    );
    let left = bench.run(&format!("{awk} {}", named.display())).text();
    assert_eq!(left, "");
}

/// `git commit -S` with the key, by ssh-agent.
fn git_signs_a_commit(link: Link) {
    let bench = Bench::new(link, &[]);
    let _agent = agent(&bench, "anything");
    let said = bench.run(
        "env -u OPENSSL_CONF ssh-keygen -D $M | awk 'NF == 3 && $3 == \"idev-id\"' > key.pub
        echo \"device $(cat key.pub)\" > signers
        export HOME=$PWD SSH_AUTH_SOCK=$PWD/agent
        git init -q work && cd work
        git config user.name device && git config user.email device
        git config gpg.format ssh && git config user.signingkey ../key.pub
        git config gpg.ssh.allowedSignersFile ../signers
        git commit -q --allow-empty -S -m signed
        git verify-commit HEAD 2>&1",
    );
    assert!(said.text().contains("Good \"git\" signature"), "{said}");
}

/// ssh-add always asks for a PIN. Every input, even an empty line, gives access to the key.
fn an_agent_needs_no_pin(link: Link) {
    let bench = Bench::new(link, &[]);
    let _agent = agent(&bench, "");
    let keys = bench.run("SSH_AUTH_SOCK=$PWD/agent ssh-add -L").text();
    assert!(keys.contains(&bench.line_of(&bench.identity.certificate())));
}

/// An agent with the module's keys. `told` is its input for the PIN.
fn agent(bench: &Bench, told: &str) -> Running {
    let socket = bench.home.path("agent");
    let mut agent = program("ssh-agent");
    agent
        .args(["-D", "-P", "/*", "-a"])
        .arg(&socket)
        .stdout(Stdio::null());
    let agent = Running::start("ssh-agent", bench.home.settle(&mut agent));
    let there = poll(Duration::from_secs(60), || {
        UnixStream::connect(&socket).ok()
    });
    there.expect("ssh-agent listens");
    let asked = bench
        .home
        .write("askpass", format!("#!/bin/sh\necho '{told}'\n"));
    run(Command::new("chmod").arg("+x").arg(&asked)).ok();
    let mut add = program("ssh-add");
    add.env("SSH_AUTH_SOCK", &socket)
        .env("SSH_ASKPASS", &asked)
        .env("SSH_ASKPASS_REQUIRE", "force");
    run(add.arg("-s").arg(library())).ok();
    agent
}
