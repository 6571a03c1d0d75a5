//! OpenSSH: the key as a public key, and signatures through an agent.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[macro_use]
mod common;

use common::factory::Identity;
use common::home::Home;
use common::module::library;
use common::programs::{Running, output, program, run, run_with};
use common::story::{Link, await_some};
use common::tpm::Swtpm;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

over_both_links!(ssh_keygen_reads_the_key, ssh_keygen_signs);

struct Bench {
    _tpm: Swtpm,
    identity: Identity,
    home: Home,
}

impl Bench {
    fn new(link: Link) -> Bench {
        let (tpm, identity) = Swtpm::manufactured();
        let home = Home::new(&link.tcti(&tpm.tcti()));
        Bench {
            _tpm: tpm,
            identity,
            home,
        }
    }
}

fn ssh_keygen_reads_the_key(link: Link) {
    let bench = Bench::new(link);
    let key = ssh_key(&bench);
    let factory = bench.identity.public_key();
    let expected = output(
        "ssh-keygen",
        ["-i", "-m", "PKCS8", "-f", factory.to_str().unwrap()],
    );
    let expected = String::from_utf8(expected).unwrap();
    let both = |line: &str| {
        line.split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(both(&key), both(&expected));
}

/// The first public key that ssh-keygen prints.
fn ssh_key(bench: &Bench) -> String {
    let mut keys = program("ssh-keygen");
    keys.arg("-D").arg(library());
    let keys = run(bench.home.settle(&mut keys)).ok().text();
    keys.lines()
        .find(|line| line.starts_with("ecdsa-sha2-nistp256 "))
        .expect(&keys)
        .to_owned()
}

/// ssh-agent would do the same for a login.
fn ssh_keygen_signs(link: Link) {
    let bench = Bench::new(link);
    let socket = bench.home.path("agent");
    let mut agent = program("ssh-agent");
    agent.arg("-D").arg("-P").arg("*").arg("-a").arg(&socket);
    agent.stdout(Stdio::null()).stderr(Stdio::null());
    let _agent = Running::start_gently("ssh-agent", bench.home.settle(&mut agent));
    await_some("ssh-agent", Duration::from_secs(10), || {
        UnixStream::connect(&socket).ok()
    });
    let mut add = program("ssh-add");
    add.arg("-s").arg(library()).env("SSH_AUTH_SOCK", &socket);
    add.env("SSH_ASKPASS", "/bin/true")
        .env("SSH_ASKPASS_REQUIRE", "force");
    run(bench.home.settle(&mut add)).ok();
    let key = bench.home.write("key.pub", ssh_key(&bench) + "\n");
    let data = bench.home.write("data", "signed by a TPM\n");
    let mut sign = program("ssh-keygen");
    sign.args(["-Y", "sign", "-n", "test", "-f"])
        .arg(&key)
        .arg(&data);
    run(sign.env("SSH_AUTH_SOCK", &socket)).ok();
    let allowed = bench
        .home
        .write("allowed", format!("device {}\n", ssh_key(&bench)));
    let mut verify = program("ssh-keygen");
    verify
        .args(["-Y", "verify", "-n", "test", "-I", "device", "-f"])
        .arg(allowed)
        .arg("-s");
    verify.arg(bench.home.path("data.sig"));
    run_with(&mut verify, b"signed by a TPM\n").ok();
}
