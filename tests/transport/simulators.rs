//! TPMs behind the protocol of the TPM 2.0 reference simulator (TCTI `mssim:`).
//!
//! `DEVID_FWTPM_SERVER` names wolfTPM's server, and `DEVID_TPM_SIMULATOR` names the server of
//! `tests/transport/simulator`.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use testkit::ports::Pair;
use testkit::programs::{Running, poll, run};
use testkit::tpm;

/// A running TPM that was started up; the process ends with this value.
pub struct Simulator {
    ports: Pair,
    _folder: TempDir,
    _running: Running,
}

impl Simulator {
    /// wolfTPM's fwTPM.
    pub fn fwtpm() -> Simulator {
        let simulator = Simulator::start("DEVID_FWTPM_SERVER", |command, ports| {
            command.args(["--port", &ports.first.to_string()]);
            command.args(["--platform-port", &(ports.first + 1).to_string()]);
        });
        run(tpm::tool("tpm2_startup", &simulator.tcti()).arg("-c")).ok();
        simulator
    }

    /// Microsoft's reference implementation.
    pub fn reference() -> Simulator {
        Simulator::start("DEVID_TPM_SIMULATOR", |command, ports| {
            command.arg(ports.first.to_string());
        })
    }

    fn start(variable: &str, places: impl Fn(&mut Command, &Pair)) -> Simulator {
        let server = std::env::var_os(variable);
        let server = server.unwrap_or_else(|| panic!("{variable} names no program"));
        for _ in 0..5 {
            let (ports, folder) = (Pair::claim(), TempDir::new().expect("a temporary folder"));
            let log = File::create(folder.path().join("log")).expect("a log file");
            let mut command = Command::new(&server);
            places(&mut command, &ports);
            command.current_dir(folder.path());
            command.stdout(log.try_clone().expect("dup")).stderr(log);
            let mut running = Running::start("the TPM simulator", &mut command);
            let answered = poll(Duration::from_secs(60), || {
                match TcpStream::connect(("127.0.0.1", ports.first)) {
                    _ if !running.is_running() => Some(false),
                    answer => answer.is_ok().then_some(true),
                }
            });
            if answered == Some(true) {
                return Simulator {
                    ports,
                    _folder: folder,
                    _running: running,
                };
            } // else a stranger took the port first
        }
        panic!("the TPM simulator did not start");
    }

    /// Sends a command with sessions, and gives the answer to it.
    pub fn sends(&self, code: u32, parts: &[&[u8]]) -> Vec<u8> {
        let body = parts.concat();
        let size = u32::try_from(10 + body.len()).unwrap().to_be_bytes();
        let command = [&[0x80, 2][..], &size, &code.to_be_bytes(), &body].concat();
        self.sends_bytes(&command)
    }

    /// As the simulator's protocol has it: TPM_SEND_COMMAND, locality, size, command.
    pub fn sends_bytes(&self, command: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports.first)).expect("a connection");
        let size = u32::try_from(command.len()).unwrap().to_be_bytes();
        stream
            .write_all(&[&[0, 0, 0, 8, 0][..], &size, command].concat())
            .expect("sent");
        let mut size = [0; 4];
        stream.read_exact(&mut size).expect("a size");
        let mut answer = vec![0; u32::from_be_bytes(size) as usize];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer[6..10], [0; 4], "{command:02x?}");
        answer
    }

    pub fn tcti(&self) -> String {
        format!("mssim:host=127.0.0.1,port={}", self.ports.first)
    }
}
