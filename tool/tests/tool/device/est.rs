//! `tests/est/server.py`: a strict EST server with faults.

use super::Device;
use super::factory::Identity;
use super::programs::{Running, Said};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A server with a CA of its own.
pub struct Est {
    folder: PathBuf,
    ports: Value,
    _running: Running,
}

impl Est {
    /// In a folder of the device, for clients of this factory.
    pub fn start(device: &Device, factory: &Identity) -> Est {
        Est::start_at(device, factory, &["--bind", "127.0.0.1"])
    }

    /// The same with these options.
    pub fn start_at(device: &Device, factory: &Identity, options: &[&str]) -> Est {
        let folder = device.path("est");
        fs::create_dir(&folder).unwrap();
        let clients = [factory.root(), factory.ca()].map(|path| fs::read(path).unwrap());
        let clients = device.home.write("clients.pem", clients.concat());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/est/server.py");
        let mut command = Command::new("python3");
        command.arg(script).arg("--dir").arg(&folder);
        command.arg("--clients").arg(clients);
        command.args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::start("EST server", &mut command);
        let mut line = String::new();
        let out = running.child().stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let ports = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Est {
            folder,
            ports,
            _running: running,
        }
    }

    /// The URL of the server with this kind of TLS and this fault.
    pub fn url(&self, kind: &str, fault: &str) -> String {
        let port = self.ports[kind].as_u64().unwrap();
        let label = if fault.is_empty() {
            String::new()
        } else {
            format!("/{fault}")
        };
        format!("https://localhost:{port}/.well-known/est{label}")
    }

    /// A certificate of its CAs: `root`, `ca`, `stranger`, `expired`.
    pub fn certificate(&self, name: &str) -> String {
        let path = self.folder.join(format!("{name}.pem"));
        path.to_str().unwrap().to_owned()
    }

    /// The requests to the server, and its answers.
    pub fn requests(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.folder.join("requests")).unwrap_or_default();
        log.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The operations that were asked for, and the statuses.
    pub fn operations(&self) -> Vec<(String, Option<u64>)> {
        let operation = |line: &Value| {
            let path = line["path"].as_str().unwrap();
            let name = path.trim_end_matches('/').rsplit('/').next().unwrap();
            (name.to_owned(), line["status"].as_u64())
        };
        self.requests().iter().map(operation).collect()
    }

    /// `devid enroll LABEL` here, with these further words.
    pub fn enroll(&self, device: &Device, label: &str, fault: &str, words: &[&str]) -> Said {
        let (url, root) = (self.url("good", fault), self.certificate("root"));
        let all = [
            "enroll",
            label,
            "--est",
            &url,
            "--trust",
            &root,
            "--timeout",
            "20",
        ];
        device.devid(&[&all[..], words].concat())
    }
}
