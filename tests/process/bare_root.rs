//! The module in a root that holds the C library and nothing else: no libtss2, no libcrypto, no configuration; as in a
//! container that is given the TPM's device alone, and as in a service that systemd locks in.

use rustix::process::geteuid;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::fronts::Device;
use testkit::home::Home;
use testkit::host::compiled;
use testkit::module::library;
use testkit::programs::{output, program, run};
use testkit::tpm::Swtpm;

/// The libraries that these files need, as the loader finds them.
fn needed(files: &[&Path]) -> Vec<PathBuf> {
    let listed = String::from_utf8(output("ldd", files)).unwrap();
    let path = |line: &str| {
        let found = line.split_whitespace().find(|word| word.starts_with('/'));
        found.map(|path| PathBuf::from(path.trim_end_matches(':')))
    };
    let mut all: Vec<PathBuf> = listed.lines().filter_map(path).collect();
    all.sort();
    all.dedup();
    all.retain(|path| !files.contains(&path.as_path()));
    all
}

/// Whether this user may have a root of its own.
fn may_change_root() -> bool {
    geteuid().is_root() || {
        let tried = run(program("unshare").args(["--user", "--map-root-user", "true"]));
        tried.status.success()
    }
}

/// The C library and a host that signs, `/costs`, with the module, `/module.so`.
struct Root {
    home: Home,
    folder: PathBuf,
}

impl Root {
    fn new(tpm: &Swtpm) -> Self {
        let home = Home::new(&tpm.tcti());
        let host = compiled(&home, "costs");
        let folder = home.path("root");
        for file in needed(&[&host, &library()]) {
            let name = file.display().to_string();
            assert!(!name.contains("tss2") && !name.contains("crypto"), "{name}");
            let there = folder.join(file.strip_prefix("/").unwrap());
            fs::create_dir_all(there.parent().unwrap()).unwrap();
            fs::copy(file, there).unwrap();
        }
        fs::copy(&host, folder.join("costs")).unwrap();
        fs::copy(library(), folder.join("module.so")).unwrap();
        // A user who is not of this machine is to read it.
        for above in folder
            .ancestors()
            .take_while(|above| above.starts_with("/tmp"))
        {
            let mode = fs::metadata(above).unwrap().permissions().mode();
            fs::set_permissions(above, fs::Permissions::from_mode(mode | 0o011)).ok();
        }
        Self { home, folder }
    }

    /// A shell as root of a mount namespace; `$ROOT` is the folder.
    fn shell(&self, commands: &str) -> Command {
        let mut inside = program("unshare");
        if !geteuid().is_root() {
            inside.args(["--user", "--map-root-user"]);
        }
        inside
            .args(["--mount", "sh", "-euc", commands])
            .env("ROOT", &self.folder);
        inside
    }
}

#[test]
fn it_signs_without_libtss2() {
    if !may_change_root() {
        println!("skipped: this user may not change the root folder");
        return;
    }
    let (tpm, _identity) = Swtpm::manufactured();
    let root = Root::new(&tpm);
    let mut inside = root.shell("chroot $ROOT /costs /module.so 3");
    run(inside.env("DEVID_PKCS11_TCTI", tpm.tcti())).ok();
}

/// Another user, without any right but the group of the device's node; nothing can be written, and nothing is there
/// but the device. So do `--device /dev/tpmrm0 --group-add` and `DynamicUser=` with `DeviceAllow=`.
const LOCKED_IN: &str = "
    mkdir -p $ROOT/dev && touch $ROOT/dev/tpmrm0
    chown 0:54321 $NODE && chmod 660 $NODE
    mount --bind $ROOT $ROOT && mount --bind $NODE $ROOT/dev/tpmrm0 && mount -o remount,bind,ro $ROOT
    cd $ROOT
    exec env -i setpriv --reuid 61234 --regid 61234 --groups $GROUPS_OF_IT --bounding-set=-all --inh-caps=-all \\
        --no-new-privs unshare --user --root=$ROOT /costs /module.so 3";

#[test]
fn the_device_alone_is_enough() {
    if !geteuid().is_root() {
        println!("skipped: only root may give a node to a group");
        return;
    }
    let (tpm, _identity) = Swtpm::manufactured();
    let root = Root::new(&tpm);
    let device = Device::new(&tpm);
    let as_member_of = |groups: &str| {
        let mut inside = root.shell(LOCKED_IN);
        inside
            .env("NODE", device.path())
            .env("GROUPS_OF_IT", groups);
        run(&mut inside)
    };
    as_member_of("54321").ok();
    // The test would see a module that finds another way.
    let refused = as_member_of("54322");
    assert!(!refused.status.success(), "{refused}");
    assert!(root.home.path("root/dev/tpmrm0").exists());
}
