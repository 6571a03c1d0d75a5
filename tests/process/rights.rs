//! Hosts and tools with more rights than their caller, which ignore environment variables, and
//! hosts without the necessary rights.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions, set_permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::home::Home;
use testkit::host::{compiled, host, preloaded};
use testkit::module::{library, tool};
use testkit::programs::{output, run};
use testkit::tpm::Swtpm;

once!(
    file_capabilities,
    setuid,
    setgid,
    a_variable_that_is_empty_is_not_set,
    a_variable_that_is_not_text,
    a_device_that_a_control_group_forbids,
    a_device_that_its_mode_closes,
);

const NOBODY: u32 = 65534;
/// Whoever the program belongs to, where that is neither root nor the caller.
const OWNER: u32 = 65533;

/// The module and a home that every user may read.
struct Bench {
    tpm: Swtpm,
    home: Home,
    module: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        let (tpm, _identity) = Swtpm::manufactured();
        let home = Home::new(&tpm.tcti());
        let module = home.path("module.so");
        fs::copy(library(), &module).unwrap();
        mode(home.folder(), 0o755);
        Bench { tpm, home, module }
    }

    /// A program run by an ordinary user, who names a log.
    fn run(&self, program: &Path, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        self.home.settle(command.args(arguments));
        let mut log = OsString::from("trace,file:");
        log.push(self.log());
        command.env("DEVID_PKCS11_LOG", log);
        let said = run(command.uid(NOBODY).gid(NOBODY));
        said.all()
    }

    fn log(&self) -> PathBuf {
        self.home.path("run/log")
    }

    fn host(&self) -> String {
        self.run(&self.home.path("slots"), &[self.module.to_str().unwrap()])
    }

    /// Tool and host obey the environment as they are, and not once `raise` gave them rights.
    #[track_caller]
    fn ignored_after(&self, raise: impl Fn(&Path)) {
        let host = compiled(&self.home, "slots");
        let devid = self.home.path("devid");
        fs::copy(tool(), &devid).unwrap();
        for name in ["run", "state"] {
            chown(self.home.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        assert_eq!(self.host().trim(), "3 3");
        assert!(self.log().exists());
        let listed = self.run(&devid, &["list"]);
        assert!(listed.contains("idev-id"), "{listed}");
        fs::remove_file(self.log()).unwrap();
        raise(&host);
        raise(&devid);
        self.host();
        let listed = self.run(&devid, &["list"]);
        assert!(!listed.contains("idev-id"), "{listed}");
        assert!(!self.log().exists(), "the log that the caller named");
    }
}

fn mode(path: &Path, mode: u32) {
    set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Only root can give a program rights.
fn is_root() -> bool {
    // SAFETY: a plain system call.
    unsafe { libc::geteuid() == 0 }
}

fn file_capabilities() {
    if is_root() {
        Bench::new().ignored_after(|program| {
            output(
                "setcap",
                ["cap_net_bind_service=ep", program.to_str().unwrap()],
            );
        });
    }
}

fn setuid() {
    if is_root() {
        Bench::new().ignored_after(|program| {
            chown(program, Some(OWNER), None).unwrap();
            mode(program, 0o4755);
        });
    }
}

fn setgid() {
    if is_root() {
        Bench::new().ignored_after(|program| {
            chown(program, None, Some(OWNER)).unwrap();
            mode(program, 0o2755);
        });
    }
}

fn a_variable_that_is_empty_is_not_set() {
    let bench = Bench::new();
    let host = compiled(&bench.home, "slots");
    let (tcti, state) = (bench.tpm.tcti(), bench.home.path("state"));
    let config = format!("tcti = {tcti:?}\nstate = {state:?}\n");
    bench.home.write("config.toml", config);
    for empty in ["LOG", "TCTI", "RUN", "STATE"] {
        let mut command = Command::new(&host);
        bench.home.settle(command.arg(&bench.module));
        command.env(format!("DEVID_PKCS11_{empty}"), "");
        assert_eq!(run(&mut command).ok().text().trim(), "3 3", "{empty}");
    }
    let mut command = Command::new(&host);
    let without = run(command.arg(&bench.module)).ok().text();
    let names = bench.home.variables().into_iter().map(|(name, _)| name);
    let all_empty = run(command.envs(names.map(|name| (name, "")))).ok().text();
    assert_eq!(all_empty, without, "as if nothing was set");
}

/// A path may be any bytes; where text is expected, the log names the variable.
fn a_variable_that_is_not_text() {
    let bench = Bench::new();
    let host = compiled(&bench.home, "slots");
    let odd = OsStr::from_bytes(b"\xFF");
    let elsewhere = bench.home.folder().join(odd);
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("config.toml"), "").unwrap();
    for (name, value, slots) in [
        ("CONFIG", elsewhere.join("config.toml").as_os_str(), "3 3"),
        ("RUN", elsewhere.as_os_str(), "3 3"),
        ("STATE", elsewhere.as_os_str(), "3 3"),
        ("TCTI", odd, "1 0"),
    ] {
        let mut command = Command::new(&host);
        bench.home.settle(command.arg(&bench.module));
        command.env(format!("DEVID_PKCS11_{name}"), value);
        assert_eq!(run(&mut command).ok().text().trim(), slots, "{name}");
    }
    bench.home.log_says(&["DEVID_PKCS11_TCTI", "not UTF-8"]);
}

/// A home whose TPM is said to be a device, which is a file of this mode here.
fn with_device(mode_of_it: u32) -> (Home, PathBuf) {
    let home = Home::new("");
    let device = home.write("tpmrm0", "");
    mode(&device, mode_of_it);
    mode(&home.write("log", ""), 0o666);
    mode(home.folder(), 0o755);
    let home = home.with_tcti(&format!("device:{}", device.display()));
    (home, device)
}

/// EPERM: neither group nor mode is at fault, and no remedy says so.
fn a_device_that_a_control_group_forbids() {
    let (home, device) = with_device(0o666);
    let forbidding = preloaded(&home.path(""), "forbidden");
    let forbid = |command: &mut Command| {
        command.env("LD_PRELOAD", &forbidding);
        run(command.env("FORBIDDEN", &device))
    };
    forbid(&mut host(&home, "slots", &[])).ok();
    home.log_says(&[device.to_str().unwrap(), "not permitted", "DeviceAllow="]);
    assert!(!home.log().contains("group (usually tss)"));
    let mut doctor = Command::new(tool());
    let said = forbid(home.settle(doctor.args(["--json", "doctor"]))).text();
    for words in ["tpm.node-forbidden", "DeviceAllow=", "--device"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    for words in ["tpm.node-closed", "chgrp", "usermod"] {
        assert!(!said.contains(words), "{words}: {said}");
    }
}

/// EACCES: the group is what helps.
fn a_device_that_its_mode_closes() {
    let (home, device) = with_device(0o600);
    let host = compiled(&home, "slots");
    let module = home.path("module.so");
    fs::copy(library(), &module).unwrap();
    let mut command = Command::new(host);
    home.settle(command.arg(&module));
    if is_root() {
        run(command.uid(NOBODY).gid(NOBODY)).ok();
        home.log_says(&[device.to_str().unwrap(), "permission denied", "group"]);
        assert!(!home.log().contains("DeviceAllow="));
    }
}
