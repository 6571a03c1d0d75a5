//! A device with a key of each kind, a program that runs, and what programs see.

use cryptoki_sys::*;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use testkit::devid::{IN_FILE, Judge, Kind, PERSISTENT, PROTECTION, SEALED, label, yes};
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{library, loaded, tool, ulong};
use testkit::own::{Own, slot_of};
use testkit::pins::{OFFICER, Token, USER};
use testkit::programs::{Said, run};
use testkit::proxy::{Book, Proxy};
use testkit::raw::{Code, Raw, text};
use testkit::story::await_some;
use testkit::tpm::Swtpm;

/// Kind, token, PIN and label of each key.
pub const KEYS: [(&str, &str, Option<&str>, &str); 7] = [
    ("the factory's", "idev-id", None, "idev-id"),
    ("the device's own identity", "devid", None, "devid"),
    ("wrapped", "devid", None, "wrapped"),
    ("persistent", "devid", None, "persistent"),
    ("sealed", "devid", None, "sealed"),
    ("with PIN", "pinned", Some(USER), "pinned"),
    ("in a file", "files", None, "file"),
];

const TOKENS: &str =
    "[[token]]\nname = \"pinned\"\n[[token]]\nname = \"files\"\nallow_file_keys = true\n";

pub struct Stage {
    pub tpm: Swtpm,
    pub proxy: Option<Proxy>,
    pub home: Home,
    /// The program that runs since before the change.
    pub running: Vec<Session>,
    /// The TPM and the disk that a clone was made of.
    pub original: Option<(Swtpm, Home)>,
}

impl Stage {
    pub fn new(link: Link) -> Stage {
        let (tpm, _identity) = Swtpm::manufactured();
        Stage::with(&link.tcti(&tpm.tcti()), tpm, None, "")
    }

    /// With a proxy before the TPM.
    pub fn behind_proxy(link: Link, settings: &str) -> Stage {
        let (tpm, _identity) = Swtpm::manufactured();
        let proxy = Proxy::new(&tpm);
        Stage::with(&link.tcti(&proxy.tcti()), tpm, Some(proxy), settings)
    }

    fn with(tcti: &str, tpm: Swtpm, proxy: Option<Proxy>, settings: &str) -> Stage {
        let home = Home::new(tcti);
        home.write("config.toml", format!("{settings}{TOKENS}"));
        devid(&home, &["provision", "--wait", "0"]).ok();
        make_keys(&home);
        let raw = loaded(&home);
        raw.initialize().expect("C_Initialize");
        Stage {
            running: sessions(&raw),
            tpm,
            proxy,
            home,
            original: None,
        }
    }

    /// Findings of the doctor that are not "ok", as it prints them, with the paths of an installed device.
    pub fn findings(&self) -> Vec<String> {
        let said = self.as_on_a_device(&devid(&self.home, &["doctor"]).text());
        let mut all: Vec<String> = Vec::new();
        for line in said.lines() {
            match all.last_mut().filter(|_| line.starts_with("   ")) {
                Some(finding) => writeln!(finding, "{line}").unwrap(),
                None => all.push(format!("{line}\n")),
            }
        }
        all.retain(|one| !one.starts_with("ok "));
        all
    }

    fn as_on_a_device(&self, text: &str) -> String {
        let home = self.home.folder().display().to_string();
        let tcti = self.tpm.tcti();
        let mut text = text
            .replace(&format!("{home}/state"), "/var/lib/devid-pkcs11")
            .replace(&format!("{home}/run"), "/run/devid-pkcs11")
            .replace(&home, "/etc/devid-pkcs11")
            .replace(&tcti, "swtpm:host=127.0.0.1,port=2321");
        if let Some(proxy) = &self.proxy {
            text = text.replace(&proxy.tcti(), "swtpm:host=127.0.0.1,port=2321");
        }
        without_names(&without_port(&text))
    }

    /// The TPM's count of failed tries, if it answers.
    pub fn tries(&self) -> Option<u32> {
        self.tpm.place().connect().ok()?;
        Some(self.tpm.lockout_counter())
    }

    /// The proxy's.
    pub fn book(&self) -> &Book {
        self.proxy.as_ref().expect("a proxy").book()
    }

    /// The running program fails while the TPM is away, and so does not rely on what it knew of it.
    pub fn is_used_without_tpm(&self) {
        let seen = seen_by(&self.running, self.home.folder());
        assert!(
            seen.0.iter().any(|one| one == "CKR_DEVICE_REMOVED"),
            "{seen:?}"
        );
    }

    /// Waits until the running program finds the factory key. After a failed scan the module scans
    /// again only when a pause is over.
    pub fn await_factory_key(&self) {
        await_some("the factory key", Duration::from_secs(60), || {
            self.running[0].lists_key().then_some(())
        });
    }

    /// A line of the page, with the exit code that it says.
    #[track_caller]
    pub fn run_line(&self, line: &str) {
        let code = line
            .split_once("# -> ")
            .map_or(0, |(_, code)| code[..1].parse().expect("an exit code"));
        let home = self.home.folder().display().to_string();
        let here = line
            .replace("/var/lib/devid-pkcs11", &format!("{home}/state"))
            .replace("/run/devid-pkcs11", &format!("{home}/run"))
            .replace("/etc/devid-pkcs11", &home);
        let tool = tool();
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", tool.parent().unwrap().display());
        let mut shell = Command::new("sh");
        shell.args(["-ec", &here]).env("PATH", path);
        shell
            .env("TPM2TOOLS_TCTI", self.tpm.tcti())
            .stdin(Stdio::null());
        let said = run(self.home.settle(&mut shell));
        assert_eq!(said.status.code(), Some(code), "{line}\n{said}");
    }

    /// Disk and TPM of a clone take the place of the original ones, which are kept.
    pub fn becomes_clone(&mut self) {
        self.tpm.shut_down();
        let copy = Swtpm::with_state_of(&self.tpm);
        self.tpm.restart();
        let home = Home::new(&copy.tcti());
        let mut cp = Command::new("cp");
        cp.arg("-a")
            .arg(self.home.folder().join("."))
            .arg(home.folder());
        run(&mut cp).ok();
        let tpm = std::mem::replace(&mut self.tpm, copy);
        self.original = Some((tpm, std::mem::replace(&mut self.home, home)));
    }
}

/// An error of a connection names the port a second time.
fn without_port(text: &str) -> String {
    let (first, rest) = match text.split_once(": host=127.0.0.1,port=") {
        Some(both) => both,
        None => return text.to_owned(),
    };
    let rest = rest.trim_start_matches(|one: char| one.is_ascii_digit());
    format!("{first}: host=127.0.0.1,port=2321{}", without_port(rest))
}

/// Replaces numbers that differ from device to device.
fn without_names(text: &str) -> String {
    let mut out = String::new();
    let mut digits = String::new();
    for one in text.chars().chain(['\0']) {
        if one.is_ascii_hexdigit() {
            digits.push(one);
            continue;
        }
        match digits.len() {
            16.. => out.push('…'),
            _ => out += &digits,
        }
        digits.clear();
        if one != '\0' {
            out.push(one);
        }
    }
    out
}

pub fn devid(home: &Home, words: &[&str]) -> Said {
    let mut command = Command::new(tool());
    run(home.settle(command.args(words).stdin(Stdio::null())))
}

/// Makes the keys that `devid provision` does not make, and keeps the public keys of all.
fn make_keys(home: &Home) {
    let raw = loaded(home);
    raw.initialize().expect("C_Initialize");
    let officer = Token {
        slot: slot_of(&raw, "pinned"),
        raw: raw.clone(),
    };
    officer.init(OFFICER, "pinned").expect("C_InitToken");
    let session = officer.read_write();
    let login = raw.login(session, CKU_SO, OFFICER.as_bytes());
    login.expect("C_Login of the officer");
    officer.init_pin(session, USER).expect("C_InitPIN");
    raw.close(session).expect("C_CloseSession");
    fs::create_dir(home.path("public")).expect("a folder");
    for (kind, token, pin, name) in KEYS {
        let own = Own::with(raw.clone(), token);
        if let Some(pin) = pin {
            let login = raw.login(own.session, CKU_USER, pin.as_bytes());
            login.expect("C_Login");
        }
        let both = [label(name), yes(CKA_TOKEN)];
        let more = match kind {
            "persistent" => vec![yes(PERSISTENT)],
            "sealed" => vec![(PROTECTION, ulong(SEALED))],
            "with PIN" => vec![yes(CKA_PRIVATE)],
            "in a file" => vec![(PROTECTION, ulong(IN_FILE))],
            _ => vec![],
        };
        let key = match name {
            "idev-id" | "devid" => own.key_called(name),
            _ => {
                own.make_with(Kind::P256, &both, &more)
                    .expect("C_GenerateKeyPair")
                    .private
            }
        };
        let public = own.attribute(key, CKA_PUBLIC_KEY_INFO);
        home.write(&format!("public/{name}"), public);
    }
    raw.finalize().expect("C_Finalize");
}

/// A program's session for one key, or the call that failed.
pub struct Session {
    name: &'static str,
    raw: Raw,
    reached: Result<Reached, String>,
}

#[derive(Clone, Copy)]
struct Reached {
    session: CK_SESSION_HANDLE,
    key: CK_OBJECT_HANDLE,
}

/// Opens a session for each key, logs in, and looks for it.
fn sessions(raw: &Raw) -> Vec<Session> {
    let session =
        |(_, token, pin, name): (&'static str, &str, Option<&str>, &'static str)| Session {
            name,
            raw: raw.clone(),
            reached: reach(raw, token, pin, name),
        };
    KEYS.into_iter().map(session).collect()
}

fn reach(raw: &Raw, token: &str, pin: Option<&str>, name: &str) -> Result<Reached, String> {
    let failed = |call: &'static str| move |code: Code| format!("{call}: {code:?}");
    let slots = raw.slots(true).map_err(failed("C_GetSlotList"))?;
    let is = |slot: &CK_SLOT_ID| {
        raw.token_info(*slot)
            .is_ok_and(|info| text(&info.label) == token)
    };
    let slot = slots.into_iter().find(is).ok_or("no token")?;
    let session = raw
        .open(slot, CKF_SERIAL_SESSION)
        .map_err(failed("C_OpenSession"))?;
    if let Some(pin) = pin {
        let login = raw.login(session, CKU_USER, pin.as_bytes());
        login.map_err(failed("C_Login"))?;
    }
    let found = find(raw, session, name).map_err(failed("C_FindObjectsInit"))?;
    let key = *found.first().ok_or("not listed")?;
    Ok(Reached { session, key })
}

fn find(raw: &Raw, session: CK_SESSION_HANDLE, name: &str) -> Result<Vec<CK_OBJECT_HANDLE>, Code> {
    raw.find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY)), label(name)])
}

impl Session {
    /// Returns true if a search finds the key.
    fn lists_key(&self) -> bool {
        self.reached.as_ref().is_ok_and(|reached| {
            find(&self.raw, reached.session, self.name).is_ok_and(|found| !found.is_empty())
        })
    }

    /// What becomes of a signature: "signs", or the code and whether the key is still listed.
    fn try_key(&self, public: &Path) -> String {
        let Reached { session, key } = match &self.reached {
            Ok(reached) => *reached,
            Err(why) => return why.clone(),
        };
        let listed = find(&self.raw, session, self.name);
        let begun = self.raw.sign_init(session, CKM_ECDSA_SHA256, key);
        let signature = begun.and_then(|()| self.raw.sign(session, b"data"));
        let listed = match listed {
            Ok(found) if !found.is_empty() => "",
            Ok(_) => ", not listed",
            Err(_) => ", search fails",
        };
        match signature {
            Ok(signature) => {
                let info = fs::read(public.join(self.name)).expect("a public key");
                let judged = Judge::new(&info, true).accepts(b"data", &signature);
                let by = if judged.status.success() {
                    ""
                } else {
                    " by a new key"
                };
                if !by.is_empty() {
                    let info = self.raw.attribute(session, key, CKA_PUBLIC_KEY_INFO);
                    let now = Judge::new(&info.expect("a public key"), true);
                    now.accepts(b"data", &signature).ok();
                }
                format!("signs{by}{listed}")
            }
            Err(code) => format!("{code:?}{listed}"),
        }
    }
}

/// What a program sees of each key, in the order of [`KEYS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen(pub Vec<String>);

impl Seen {
    pub fn all_sign(&self) -> bool {
        self.0.iter().all(|one| one == "signs")
    }
}

/// A program's tries with each key.
pub fn seen_by(program: &[Session], home: &Path) -> Seen {
    let public = home.join("public");
    Seen(program.iter().map(|one| one.try_key(&public)).collect())
}

/// In a process with the environment of a home: a program that starts.
pub fn started() -> Vec<Session> {
    let raw = Raw::load(&library());
    raw.initialize().expect("C_Initialize");
    sessions(&raw)
}
