//! The module in a root file system that has only the C library: no libtss2, no libcrypto, no
//! configuration. A container with only the TPM's device, and a confined systemd service, are like
//! this.

use rustix::process::geteuid;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::folders;
use testkit::fronts::Device;
use testkit::home::Home;
use testkit::host::compiled;
use testkit::module::library;
use testkit::openssl::Verifier;
use testkit::pages::block;
use testkit::programs::{output, program, run};
use testkit::tls::configuration;
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

/// True if this user can have its own root.
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

/// Another user, whose only right is the group of the device's node. Nothing can be written, and
/// only the device exists. `--device /dev/tpmrm0 --group-add` and `DynamicUser=` with
/// `DeviceAllow=` do this.
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

/// Copies programs and libraries of this machine to the folder, each to its path.
fn copy_to(folder: &Path, files: &[PathBuf]) {
    for file in files {
        let there = folder.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(there.parent().unwrap()).unwrap();
        fs::copy(file, there).unwrap();
    }
}

/// `docker run` as far as the page uses it: another root, a user of the image, the device and the volume.
const DOCKER: &str = r#"
docker() {
    local device='' group='' volume=''
    [ "$1" = run ] && shift
    while :; do
        case $1 in
            --device) device=$2 && shift 2 ;;
            --group-add) group=$2 && shift 2 ;;
            --volume) volume=$2 && shift 2 ;;
            --*) echo "the stand-in for docker does not know $1" >&2 && return 1 ;;
            *) break ;;
        esac
    done
    [ "$1" = IMAGE ] && shift
    [ "${volume##*:}" = ro ] && volume=${volume%:ro}
    mkdir -p "$ROOT/dev" "$ROOT${volume%/*}" && touch "$ROOT/dev/tpmrm0" "$ROOT${volume#*:}"
    mount --bind "$ROOT" "$ROOT" && mount --bind "$device" "$ROOT/dev/tpmrm0"
    mount --bind "${volume%%:*}" "$ROOT${volume#*:}" && mount -o remount,bind,ro "$ROOT"
    cd "$ROOT"
    env -i PATH=/usr/bin setpriv --reuid 61234 --regid 61234 --groups "$group" --bounding-set=-all --inh-caps=-all \
        --no-new-privs unshare --user --root="$ROOT" "$@"
}
"#;

#[test]
fn the_page_s_container_shows_the_identity() {
    if !geteuid().is_root() {
        println!("skipped: only root may give a node to a group");
        return;
    }
    let (tpm, _identity) = Swtpm::manufactured();
    let root = Root::new(&tpm);
    let image = root.home.path("image");
    let opensc = PathBuf::from("/usr/bin/pkcs11-tool");
    copy_to(&image, &needed(&[&opensc, &library()]));
    copy_to(&image, &[opensc]);
    let device = Device::new(&tpm);
    let commands = block("docs/INSTALL.md", "container").replace("/dev/tpmrm0", "$NODE");
    let mut inside = root.shell(&format!(
        "chown 0:54321 $NODE && chmod 660 $NODE\n{DOCKER}\n{commands}"
    ));
    inside
        .env("ROOT", &image)
        .env("NODE", device.path())
        .env("M", library());
    let said = run(&mut inside).ok();
    assert!(said.text().contains("Private Key Object"), "{said}");
}

/// The replacement for a directive of the page's unit: an option of setpriv, or another step of the
/// test.
fn stand_in(directive: &str) -> &'static str {
    match directive {
        "DynamicUser=yes" => "--reuid 61234 --regid 61234",
        "SupplementaryGroups=tss" => "--groups 54321",
        "NoNewPrivileges=yes" => "--no-new-privs",
        "CapabilityBoundingSet=" => "--bounding-set=-all --inh-caps=-all",
        // No other node is in the root, it cannot be written, and has no /home and no /tmp.
        "DevicePolicy=closed" | "DeviceAllow=/dev/tpmrm0 rw" => "",
        "ProtectSystem=strict" | "ProtectHome=yes" | "PrivateTmp=yes" => "",
        // The environment of the command below.
        "Environment=OPENSSL_CONF=/etc/devid-pkcs11/openssl.cnf" => "",
        // The trace of the calls is compared with them.
        "SystemCallFilter=@system-service" | "MemoryDenyWriteExecute=yes" => "",
        _ => panic!("the test knows no stand-in for {directive}"),
    }
}

/// The calls of a set of systemd's, with those of the sets in it.
fn calls_of(set: &str, calls: &mut BTreeSet<String>) {
    let listed = output("systemd-analyze", ["syscall-filter", set]);
    for line in String::from_utf8(listed).unwrap().lines().skip(1) {
        match line.trim() {
            inner if inner.starts_with('@') => calls_of(inner, calls),
            call => drop(calls.insert(call.to_owned())),
        }
    }
}

const AS_SERVICE: &str = "
    chown 0:54321 $NODE && chmod 660 $NODE
    mount --bind $ROOT $ROOT && mount --bind $NODE $ROOT/dev/tpmrm0 && mount -o remount,bind,ro $ROOT
    cd $ROOT
    exec env -i OPENSSL_CONF=/etc/devid-pkcs11/openssl.cnf setpriv $OPTIONS unshare --user --root=$ROOT \\
        /usr/bin/openssl dgst -sha256 -sign 'pkcs11:token=idev-id;object=idev-id;type=private' /etc/message";

#[test]
fn the_page_s_service_signs_by_openssl() {
    if !geteuid().is_root() {
        println!("skipped: only root may give a node to a group");
        return;
    }
    let unit = block("docs/INSTALL.md", "service");
    let example =
        fs::read_to_string(folders::root().join("pkcs11-conf/examples/service-unit.conf"));
    assert!(example.unwrap().ends_with(&unit), "the example is another");
    let options: Vec<_> = unit.lines().skip(1).map(stand_in).collect();

    let (tpm, identity) = Swtpm::manufactured();
    let root = Root::new(&tpm);
    let (cnf, folder) = (configuration(&root.home), root.home.path("service"));
    let text = fs::read_to_string(&cnf).unwrap();
    let provider = text.lines().find_map(|line| line.strip_prefix("module = "));
    let provider = PathBuf::from(provider.expect("the provider's line"));
    let files = [PathBuf::from("/usr/bin/openssl"), provider, library()];
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    copy_to(&folder, &needed(&paths));
    copy_to(&folder, &files);
    for name in ["dev", "etc/devid-pkcs11"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    fs::copy(cnf, folder.join("etc/devid-pkcs11/openssl.cnf")).unwrap();
    fs::write(folder.join("dev/tpmrm0"), "").unwrap();
    fs::write(folder.join("etc/message"), "hello").unwrap();

    let device = Device::new(&tpm);
    let trace = root.home.path("trace");
    let inside = root.shell(AS_SERVICE);
    let mut traced = program("strace");
    traced.args(["-qq", "-o"]).arg(&trace);
    traced.arg(inside.get_program()).args(inside.get_args());
    traced
        .env("ROOT", &folder)
        .env("NODE", device.path())
        .env("OPTIONS", options.join(" "));
    let signed = traced.output().unwrap();
    assert!(signed.status.success(), "{signed:?}");
    let judge = Verifier::new(&identity.public_key());
    judge.accepts_der("-sha256", b"hello", &signed.stdout).ok();

    let mut allowed = BTreeSet::new();
    calls_of("@system-service", &mut allowed);
    let trace = fs::read_to_string(trace).unwrap();
    let (_, of_openssl) = trace.split_once("execve(\"/usr/bin/openssl\"").unwrap();
    for line in of_openssl
        .lines()
        .skip(1)
        .filter(|line| !line.starts_with('+'))
    {
        let call = line.split('(').next().unwrap();
        assert!(allowed.contains(call), "{line}");
        let makes_code =
            line.contains("PROT_EXEC") && (call == "mprotect" || line.contains("PROT_WRITE"));
        assert!(!makes_code, "{line}");
    }
}
