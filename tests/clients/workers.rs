//! An nginx with four workers that sign with the factory's key. It is reloaded, a worker is killed, and the TPM is
//! restarted. `scripts/torture forks` makes more handshakes.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::Duration;
use testkit::factory::Identity;
use testkit::folders;
use testkit::home::Home;
use testkit::link::Link;
use testkit::programs::{Running, program};
use testkit::story::await_some;
use testkit::tls::{Server, Site, chain_file, configuration, key_file, nginx};
use testkit::tpm::Swtpm;

over_our_transport!(a_reload_a_killed_worker_and_a_restarted_tpm);

const WORKERS: u32 = 4;

/// A client that makes handshakes, one after another.
struct Client {
    _running: Running,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// What became of some handshakes.
#[derive(Debug)]
struct Handshakes {
    made: usize,
    failed: usize,
    workers: BTreeSet<u32>,
    line: String,
}

impl Client {
    fn start(server: &Server, identity: &Identity) -> Client {
        let mut python = program("python3");
        python.arg(folders::root().join("tests/clients/python/workers.py"));
        python.arg(server.port.to_string()).arg(identity.root());
        python.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::start("client", &mut python);
        let child = running.child();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Client {
            _running: running,
            to,
            from: BufReader::new(from),
        }
    }

    fn ask(&mut self, count: usize) {
        writeln!(self.to, "{count}").expect("the client reads");
    }

    fn told(&mut self) -> Handshakes {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("text");
        let words: Vec<&str> = line.split_whitespace().collect();
        let workers = words[3..]
            .iter()
            .map(|word| word.parse().expect("a process id"));
        Handshakes {
            made: words[0].parse().expect("a number"),
            failed: words[1].parse().expect("a number"),
            workers: workers.collect(),
            line: line.clone(),
        }
    }

    /// All of these handshakes succeed; the workers that answered.
    #[track_caller]
    fn makes(&mut self, count: usize) -> BTreeSet<u32> {
        self.ask(count);
        self.all_made(count)
    }

    #[track_caller]
    fn all_made(&mut self, count: usize) -> BTreeSet<u32> {
        let told = self.told();
        assert_eq!((told.made, told.failed), (count, 0), "{}", told.line);
        told.workers
    }
}

fn signal(id: u32, signal: libc::c_int) {
    let id = libc::pid_t::try_from(id).expect("a process id fits");
    // SAFETY: the process is the server's, which runs.
    assert_eq!(unsafe { libc::kill(id, signal) }, 0, "kill");
}

fn a_reload_a_killed_worker_and_a_restarted_tpm(link: Link) {
    let all: usize =
        env::var("DEVID_HANDSHAKES").map_or(80, |text| text.parse().expect("a number"));
    let (mut tpm, identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let conf = configuration(&home);
    let mut top = String::from("env OPENSSL_CONF;\n");
    for (name, _) in home.variables() {
        top += &format!("env {name};\n");
    }
    let site = Site {
        workers: WORKERS,
        certificate: chain_file(&home, &identity),
        key: key_file(&home),
        lines: String::new(),
        top,
    };
    let mut server = nginx(&home, &site, |command| {
        command.env("OPENSSL_CONF", &conf);
        home.settle(command);
        command.env(
            "DEVID_PKCS11_LOG",
            format!("warn,file:{}", home.path("log").display()),
        );
    });
    let mut client = Client::start(&server, &identity);
    let part = all / 4;
    let first = client.makes(part);
    assert!(first.len() > 1, "several workers have signed: {first:?}");

    // Reloaded while handshakes are made: the old workers end what they began.
    client.ask(part);
    let master = fs::read_to_string(home.path("web/nginx.pid")).unwrap();
    signal(master.trim().parse().unwrap(), libc::SIGHUP);
    client.all_made(part);
    let reloaded = await_some("new workers", Duration::from_secs(60), || {
        let now = client.makes(8);
        now.is_disjoint(&first).then_some(now)
    });
    assert!(!server.log().contains("[crit]"), "{}", server.log());
    assert!(!server.log().contains("[alert]"), "{}", server.log());

    // A worker that is killed between two handshakes.
    let victim = *reloaded.first().unwrap();
    signal(victim, libc::SIGKILL);
    let after = client.makes(part);
    assert!(!after.contains(&victim));

    // Without TPM no handshake is made; with the TPM all are, and no worker is another.
    tpm.shut_down();
    client.ask(4);
    let away = client.told();
    assert_eq!((away.made, away.failed), (0, 4), "{}", away.line);
    tpm.restart();
    let back = client.makes(part);
    assert!(server.is_running());
    assert_eq!(tpm.lockout_counter(), 0);
    assert_eq!(tpm.transients(), 0);
    println!(
        "\n{} handshakes, 4 of them without TPM; workers: {first:?} {after:?} {back:?}",
        4 * part + 4
    );
}
