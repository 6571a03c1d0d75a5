//! A TPM that takes commands and never answers. `devid` sends one command, and then no more.

use crate::device::Device;
use crate::device::programs::{Running, poll};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const SETTINGS: &str = "timeout_ms = 300\n";
const PATIENCE: Duration = Duration::from_secs(60);

/// A silent TPM, and who came to it.
struct Silence {
    address: SocketAddr,
    clients: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Silence {
    /// The connections since the last call. Clients are taken in their order, so one of our own shows
    /// that all before it were counted.
    fn connections(&self) -> usize {
        let last = TcpStream::connect(self.address).unwrap();
        let last = last.local_addr().unwrap();
        let taken = poll(PATIENCE, || {
            let mut clients = self.clients.lock().unwrap();
            let place = clients.iter().position(|client| *client == last)?;
            Some(clients.drain(..=place).count() - 1)
        });
        taken.expect("our own connection")
    }
}

/// A device whose TPM is silent.
fn silent() -> (Device, Silence) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let clients = Arc::<Mutex<Vec<SocketAddr>>>::default();
    let seen = Arc::clone(&clients);
    thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((stream, client)) = listener.accept() {
            held.push(stream);
            seen.lock().unwrap().push(client);
        }
    });
    let device = Device::without_tpm();
    let tcti = format!("swtpm:host=127.0.0.1,port={}", address.port());
    let home = device.home.with_tcti(&tcti);
    home.write("config.toml", SETTINGS);
    (Device { tpm: None, home }, Silence { address, clients })
}

#[test]
fn each_run_asks_once() {
    let (device, silence) = silent();
    let runs: [(i32, &[&str]); 6] = [
        (4, &["status"]),
        (1, &["doctor"]),
        (4, &["list"]),
        (4, &["provision", "--wait", "0"]),
        (4, &["key", "generate", "web"]),
        (4, &["reset", "--factory", "--yes", "--wait", "0"]),
    ];
    for (code, words) in runs {
        device.ends(code, words);
        assert_eq!(silence.connections(), 1, "{words:?}");
    }
}

/// Also where it would go on without a TPM: one that is silent is there.
#[test]
fn a_software_identity_is_not_made_over_one_silence() {
    let (device, silence) = silent();
    let settings = format!("{SETTINGS}[provision]\nfallback = \"software\"\n");
    device.home.write("config.toml", settings);
    device.ends(4, &["provision", "--wait", "0"]);
    assert_eq!(silence.connections(), 1);
}

/// A run that must wait asks again until then.
#[test]
fn a_wait_asks_again() {
    let (device, silence) = silent();
    let mut waiting = device.command(&["provision", "--wait", "600"]);
    let _running = Running::start("devid provision", &mut waiting);
    let asked = || (silence.clients.lock().unwrap().len() > 1).then_some(());
    poll(PATIENCE, asked).expect("a second question");
}
