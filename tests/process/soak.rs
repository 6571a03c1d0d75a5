//! A long run with each kind of key. Memory, descriptors, and the objects and sessions of the TPM stay as
//! they are, also for a process that is logged in and idle. `scripts/torture soak` runs the story.

use cryptoki_sys::*;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use testkit::devid::{IN_FILE, Judge, Kind, PERSISTENT, PROTECTION, SEALED, label, yes};
use testkit::home::Home;
use testkit::host::compiled;
use testkit::module::{library, ulong};
use testkit::own::{Own, slot_of};
use testkit::pins::{OFFICER, Token, USER};
use testkit::programs::{Running, poll, run};
use testkit::raw::Raw;
use testkit::tpm::Swtpm;

once!(
    #[ignore = "takes half an hour: scripts/torture soak"]
    each_kind_of_key
);

/// Bytes of the heap, kB of resident memory: the most that a host may gain after a tenth of its signatures. The
/// C library counts what it keeps for the next allocation.
const HEAP: usize = 4096;
const RESIDENT: usize = 1024;
/// A TPM has three slots for objects.
const SLOTS: usize = 3;
const WITH_PIN: &str = "with PIN";
const SAMPLES: Duration = Duration::from_secs(20);

/// What the run is to do, from the environment.
struct Plan {
    module: PathBuf,
    signatures: usize,
    /// The shortest time: fast keys sign with pauses.
    seconds: u64,
    /// The longest time.
    limit: u64,
}

impl Plan {
    fn read() -> Plan {
        let number = |name: &str, usual: u64| {
            env::var(name).map_or(usual, |text| text.parse().expect("a number"))
        };
        Plan {
            module: env::var_os("SOAK_MODULE").map_or_else(library, PathBuf::from),
            signatures: number("SOAK_SIGNATURES", 100_000) as usize,
            seconds: number("SOAK_SECONDS", 1800),
            limit: number("SOAK_LIMIT", 7200),
        }
    }
}

/// A report of a host.
struct Report {
    number: usize,
    heap: usize,
    resident: usize,
    descriptors: usize,
    signature: Vec<u8>,
}

impl Report {
    fn parse(line: &str) -> Report {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse().expect(line);
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        Report {
            number: number(0),
            heap: number(1),
            resident: number(2),
            descriptors: number(3),
            signature: words[4].as_bytes().chunks(2).map(byte).collect(),
        }
    }
}

/// A process with one key.
struct Host {
    name: String,
    running: Running,
    to: Option<ChildStdin>,
    reports: Arc<Mutex<Vec<Report>>>,
    judge: Arc<Judge>,
}

impl Host {
    fn start(plan: &Plan, ground: &Ground, key: &Key, count: usize) -> Host {
        let pace = plan.seconds as f64 * 1e3 / plan.signatures as f64;
        let mut command = Command::new(&ground.program);
        command
            .arg(&plan.module)
            .args([key.token, key.pin, key.label]);
        command.args([count.to_string(), pace.to_string()]);
        ground.home.settle(&mut command);
        // The trace of a home would be gigabytes.
        let log = format!("warn,file:{}", ground.home.path("log").display());
        command.env("DEVID_PKCS11_LOG", log);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let idle = if count == 0 { ", idle" } else { "" };
        let name = format!("{} {}{idle}", ground.name, key.kind);
        let mut running = Running::start(&name, &mut command);
        let (to, from) = (running.child().stdin.take(), running.child().stdout.take());
        let reports = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&reports);
        thread::spawn(move || {
            for line in BufReader::new(from.unwrap()).lines().map_while(Result::ok) {
                into.lock().unwrap().push(Report::parse(&line));
            }
        });
        Host {
            name,
            running,
            to,
            reports,
            judge: Arc::clone(&key.judge),
        }
    }

    fn signed(&self) -> usize {
        let reports = self.reports.lock().unwrap();
        reports.last().map_or(0, |last| last.number)
    }

    fn reports(&self) -> usize {
        self.reports.lock().unwrap().len()
    }

    /// An idle process signs.
    #[track_caller]
    fn sign_once(&mut self) {
        let reports = self.reports();
        let to = self.to.as_mut().expect("not ended");
        to.write_all(b"\n").expect("it reads");
        let more = || (self.reports() > reports).then_some(());
        poll(Duration::from_secs(120), more).expect("the idle process signs");
    }

    /// Ends the process; the number of signatures that OpenSSL accepted.
    #[track_caller]
    fn end(&mut self) -> usize {
        drop(self.to.take());
        let status = self.running.wait(Duration::from_secs(60));
        assert!(status.expect("it ends").success(), "{}", self.name);
        let reports = self.reports.lock().unwrap();
        for report in reports.iter() {
            let text = report.number.to_string();
            self.judge.accepts(text.as_bytes(), &report.signature).ok();
        }
        reports.len()
    }

    /// The row of the table, and whether the host gained anything.
    fn row(&self, judged: usize) -> (String, bool) {
        let reports = self.reports.lock().unwrap();
        let last = &reports[reports.len() - 1];
        let is_warm = |report: &&Report| report.number * 10 >= last.number;
        // An idle host has read its standard input before its second report.
        let spared = usize::from(last.number == 0);
        let first = reports.iter().skip(spared).find(is_warm).expect("a report");
        let grew = last.heap > first.heap + HEAP
            || last.resident > first.resident + RESIDENT
            || last.descriptors != first.descriptors;
        let row = format!(
            "| {} | {} | {judged} | {} / {} | {} / {} | {} / {} |",
            self.name,
            last.number,
            first.heap,
            last.heap,
            first.resident,
            last.resident,
            first.descriptors,
            last.descriptors
        );
        (row, grew)
    }
}

/// A key, and how a host reaches it.
struct Key {
    kind: &'static str,
    token: &'static str,
    pin: &'static str,
    label: &'static str,
    judge: Arc<Judge>,
}

/// A device with keys of one algorithm.
struct Ground {
    name: &'static str,
    tpm: Swtpm,
    home: Home,
    program: PathBuf,
    keys: Vec<Key>,
    /// Transient objects and sessions of the TPM: now and then, the most.
    most: [usize; 2],
}

impl Ground {
    fn new(
        plan: &Plan,
        name: &'static str,
        factory: &[&str],
        algorithm: Kind,
        kinds: &[&str],
    ) -> Ground {
        let (tpm, _identity) = Swtpm::manufactured_with(factory);
        let home = Home::new(&tpm.tcti());
        let files = home.path("files");
        let settings = format!(
            "[[token]]\nname = \"pinned\"\n[[token]]\nname = \"files\"\npath = \"{}\"\n\
             allow_file_keys = true\n",
            files.display()
        );
        home.write("config.toml", settings);
        home.write("log", "");
        let keys = make_keys(plan, &home, algorithm, kinds);
        let program = compiled(&home, "soak");
        Ground {
            name,
            tpm,
            home,
            program,
            keys,
            most: [0; 2],
        }
    }

    /// Transient objects, and sessions.
    fn held(&self) -> [usize; 2] {
        let lines = |what: &str| {
            let listed = run(self.tpm.tool("tpm2_getcap").arg(what));
            listed.ok().text().lines().count()
        };
        let sessions = lines("handles-loaded-session") + lines("handles-saved-session");
        [lines("handles-transient"), sessions]
    }

    fn sample(&mut self) {
        let held = self.held();
        for (most, now) in self.most.iter_mut().zip(held) {
            *most = now.max(*most);
        }
    }
}

/// A key of each of these kinds.
fn make_keys(plan: &Plan, home: &Home, algorithm: Kind, kinds: &[&str]) -> Vec<Key> {
    let mut keys = Vec::new();
    home.enter();
    let raw = Raw::load(&plan.module);
    raw.initialize().expect("C_Initialize");
    let officer = Token {
        slot: slot_of(&raw, "pinned"),
        raw,
    };
    officer.init(OFFICER, "pinned").expect("C_InitToken");
    let session = officer.read_write();
    let login = officer.raw.login(session, CKU_SO, OFFICER.as_bytes());
    login.expect("C_Login of the officer");
    officer.init_pin(session, USER).expect("C_InitPIN");
    officer.raw.close(session).expect("C_CloseSession");
    let mut raw = officer.raw;
    let protection = |value| vec![(PROTECTION, ulong(value))];
    for (kind, token, pin, name, more) in [
        ("factory", "idev-id", "-", "idev-id", vec![]),
        ("wrapped", "devid", "-", "wrapped", vec![]),
        (
            "persistent",
            "devid",
            "-",
            "persistent",
            vec![yes(PERSISTENT)],
        ),
        ("sealed", "devid", "-", "sealed", protection(SEALED)),
        (WITH_PIN, "pinned", USER, "pinned", vec![yes(CKA_PRIVATE)]),
        ("file", "files", "-", "file", protection(IN_FILE)),
    ] {
        if !kinds.contains(&kind) {
            continue;
        }
        let own = Own::with(raw, token);
        if pin != "-" {
            let login = own.raw.login(own.session, CKU_USER, pin.as_bytes());
            login.expect("C_Login");
        }
        let key = match kind {
            "factory" => own.key(),
            _ => {
                let made = own.make_with(algorithm, &[label(name), yes(CKA_TOKEN)], &more);
                made.expect("C_GenerateKeyPair").private
            }
        };
        let judge = Arc::new(own.judge(key));
        keys.push(Key {
            kind,
            token,
            pin,
            label: name,
            judge,
        });
        raw = own.0.raw;
    }
    raw.finalize().expect("C_Finalize");
    keys
}

fn each_kind_of_key() {
    let plan = Plan::read();
    let (p256, rsa) = (Kind::P256, Kind::Rsa(2048));
    let mut grounds = Vec::new();
    // Each key that needs the TPM has one of its own, so that eight TPMs work at once.
    for kinds in [
        &["factory"][..],
        &["wrapped", "sealed", "file"],
        &["persistent"],
        &[WITH_PIN],
    ] {
        grounds.push(Ground::new(&plan, "P-256", &[], p256, kinds));
        grounds.push(Ground::new(
            &plan,
            "RSA-2048",
            &["--template", "h1"],
            rsa,
            kinds,
        ));
    }
    let before: Vec<_> = grounds.iter().map(Ground::held).collect();
    let begun = Instant::now();
    let mut idle = Vec::new();
    let mut busy = Vec::new();
    for ground in &grounds {
        let pinned = ground.keys.iter().find(|key| key.kind == WITH_PIN);
        idle.extend(pinned.map(|key| Host::start(&plan, ground, key, 0)));
        let host = |key| Host::start(&plan, ground, key, plan.signatures);
        busy.extend(ground.keys.iter().map(host));
    }
    idle.iter_mut().for_each(Host::sign_once);
    let mut told = Instant::now();
    while busy.iter().any(|host| host.signed() < plan.signatures) {
        if begun.elapsed().as_secs() > plan.limit {
            busy.iter().for_each(|host| host.running.ask_to_end());
            break;
        }
        for host in &mut busy {
            assert!(host.running.is_running(), "{} ended", host.name);
        }
        thread::sleep(Duration::from_secs(1).min(SAMPLES));
        if told.elapsed() >= SAMPLES {
            told = Instant::now();
            grounds.iter_mut().for_each(Ground::sample);
        }
    }
    let lasted = begun.elapsed();
    idle.iter_mut().for_each(Host::sign_once);
    let mut text = String::from(
        "\n| key | signatures | verified by OpenSSL | heap, bytes: first / last | resident, kB | descriptors |\n\
         |---|---|---|---|---|---|\n",
    );
    let mut faults = Vec::new();
    for host in busy.iter_mut().chain(&mut idle) {
        let judged = host.end();
        let (row, grew) = host.row(judged);
        text += &format!("{row}\n");
        if grew {
            faults.push(format!("{} grew", host.name));
        }
    }
    for host in &busy {
        if host.signed() < plan.signatures {
            faults.push(format!("{}: only {} signatures", host.name, host.signed()));
        }
    }
    for (ground, before) in grounds.iter().zip(before) {
        let kinds: Vec<_> = ground.keys.iter().map(|key| key.kind).collect();
        let name = format!("{} {}", ground.name, kinds.join(", "));
        let after = ground.held();
        text += &format!(
            "{name}: transient objects and sessions of the TPM: {before:?} before, {:?} at most, {after:?} after; \
             lockout counter {}\n",
            ground.most,
            ground.tpm.lockout_counter()
        );
        if after != before || ground.most[0] > SLOTS || ground.tpm.lockout_counter() != 0 {
            faults.push(format!("{name}: the TPM keeps something"));
        }
        let log = ground.home.log();
        faults.extend(warnings(&log).map(|line| format!("{name}: {line}")));
    }
    println!("{text}after {lasted:?}");
    assert!(faults.is_empty(), "{faults:#?}");
}

/// What the module complained about.
fn warnings(log: &str) -> impl Iterator<Item = &str> {
    let serious = |line: &&str| line.contains(" WARN: ") || line.contains(" ERROR: ");
    log.lines().filter(serious)
}
