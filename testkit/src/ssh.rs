//! The server of OpenSSH.

use super::home::Home;
use super::programs::{program, run};
use super::tls::Server;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Starts a server that accepts the keys of `authorized_keys`.
pub fn sshd(home: &Home) -> Server {
    // SAFETY: The call has no preconditions. It returns the user id.
    if unsafe { libc::geteuid() } == 0 {
        fs::create_dir_all("/run/sshd").expect("the folder that sshd needs");
    }
    let host = home.path("host");
    run(program("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&host))
    .ok();
    fs::set_permissions(&host, PermissionsExt::from_mode(0o600)).unwrap();
    Server::start(home, |port| {
        let keys = home.path("authorized_keys");
        let text = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n",
            host.display(),
            keys.display()
        );
        let mut sshd = program("sshd");
        sshd.args(["-D", "-e", "-f"])
            .arg(home.write("sshd_config", text));
        sshd
    })
}

/// Returns the options and the host for ssh, for a user whose only key is in the module.
pub fn client_options(port: u16) -> String {
    let port = port.to_string();
    [
        "-F none",
        "-p",
        &port,
        "-o BatchMode=yes",
        "-o IdentityAgent=none",
        "-o StrictHostKeyChecking=no",
        "-o UserKnownHostsFile=known",
        "127.0.0.1",
    ]
    .join(" ")
}
