//! `scripts/install`: the installed files, the changes by a second run and by an upgrade, and the
//! files that stay after an uninstallation.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use testkit::module::{library, tool};
use testkit::pages::block;
use testkit::programs::{Said, program, run};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder and of those in it.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files
}

/// A folder that stands for the root of a device.
struct Target {
    folder: TempDir,
}

impl Target {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        Self { folder }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// `scripts/install` with what was built for the tests.
    fn install(&self, options: &[&str]) -> Said {
        let built = tool().parent().unwrap().to_owned();
        assert_eq!(library().parent().unwrap(), built);
        let mut install = program(root().join("scripts/install").to_str().unwrap());
        install.arg("--destdir").arg(self.folder.path());
        install.arg("--built").arg(built).args(options);
        run(&mut install)
    }

    /// All files, by path, with their content and mode.
    fn files(&self) -> BTreeMap<PathBuf, (Vec<u8>, u32)> {
        let described = |path: PathBuf| {
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
            let name = path.strip_prefix(self.folder.path()).unwrap().to_owned();
            (name, (fs::read(&path).unwrap(), mode))
        };
        files_below(self.folder.path())
            .into_iter()
            .map(described)
            .collect()
    }

    fn module(&self) -> PathBuf {
        let files = self.files();
        let mut modules = files
            .keys()
            .filter(|path| path.ends_with("pkcs11/libdevid_pkcs11.so"));
        let module = Path::new("/").join(modules.next().expect("the module"));
        assert_eq!(modules.next(), None);
        module
    }
}

#[test]
fn all_that_a_device_needs_is_installed() {
    let target = Target::new();
    target.install(&[]).ok();
    let files = target.files();
    for name in [
        "usr/bin/devid",
        "usr/include/devid_pkcs11.h",
        "usr/share/man/man1/devid.1",
        "usr/share/man/man1/devid-key-generate.1",
        "usr/share/man/man5/devid-pkcs11.conf.5",
        "usr/share/man/man7/devid-pkcs11.7",
        "usr/share/bash-completion/completions/devid",
        "usr/share/fish/vendor_completions.d/devid.fish",
        "usr/lib/systemd/system/devid-provision.service",
        "usr/lib/systemd/system/devid-renew.service",
        "usr/lib/systemd/system/devid-renew.timer",
        "usr/lib/udev/rules.d/60-devid-pkcs11.rules",
        "usr/lib/sysusers.d/devid-pkcs11.conf",
        "usr/lib/tmpfiles.d/devid-pkcs11.conf",
        "etc/devid-pkcs11/config.toml",
        "etc/devid-pkcs11/openssl.cnf",
        "usr/share/doc/libdevid-pkcs11/README.md",
        "usr/share/doc/libdevid-pkcs11/docs/CLIENTS.md",
        "usr/share/doc/libdevid-pkcs11/examples/router.toml",
    ] {
        assert!(files.contains_key(Path::new(name)), "{name}");
    }
    // Every shipped file is installed.
    for path in files_below(&root().join("pkcs11-conf")) {
        let name = path.file_name().unwrap();
        assert!(
            files.keys().any(|file| file.file_name() == Some(name)),
            "{name:?}"
        );
    }
    let module = target.module();
    let cnf = target.read("etc/devid-pkcs11/openssl.cnf");
    assert!(
        cnf.contains(&format!("pkcs11-module-path = {}\n", module.display())),
        "{cnf}"
    );
    assert!(cnf.contains("[default_sect]\nactivate = 1\n"), "{cnf}");
    // Whom the folders of the configuration belong to says whose files are believed.
    for (name, (_, mode)) in &files {
        assert_eq!(mode & 0o7022, 0, "{}: {mode:o}", name.display());
    }
    for folder in ["config.d", "chain", "trust"] {
        assert!(
            target.path("etc/devid-pkcs11").join(folder).is_dir(),
            "{folder}"
        );
    }
    // p11-kit and OpenSSL's own configuration do not know the module.
    let told =
        |path: &&PathBuf| path.starts_with("usr/share/p11-kit") || path.starts_with("etc/ssl");
    assert_eq!(files.keys().find(told), None);
}

#[test]
fn p11_kit_is_told_by_wish_and_stays_so() {
    let target = Target::new();
    target.install(&["--p11-kit"]).ok();
    let path = "usr/share/p11-kit/modules/devid-pkcs11.module";
    let registration = target.read(path);
    let module = target.module();
    assert!(
        registration.contains(&format!("module: {}\n", module.display())),
        "{registration}"
    );
    assert!(registration.contains("\ncritical: no\n"), "{registration}");
    target.install(&[]).ok();
    assert_eq!(target.read(path), registration);
    target.install(&["--uninstall"]).ok();
    assert!(!target.path(path).exists());
}

#[test]
fn a_second_run_changes_nothing() {
    let target = Target::new();
    target.install(&[]).ok();
    let before = target.files();
    let said = target.install(&[]).ok().text();
    assert!(said.starts_with("0 files installed, "), "{said}");
    assert!(target.files() == before);
}

#[test]
fn an_upgrade_renews_what_nobody_edited() {
    let target = Target::new();
    target.install(&[]).ok();
    let list = "usr/share/devid-pkcs11/installed";
    let (config, cnf) = (
        "etc/devid-pkcs11/config.toml",
        "etc/devid-pkcs11/openssl.cnf",
    );
    // As if an older version had put there another file, a page that is no more, and older settings.
    fs::write(target.path("usr/bin/devid"), "old").unwrap();
    fs::write(target.path("usr/share/man/man1/devid-old.1"), "old").unwrap();
    fs::write(target.path(cnf), "old\n").unwrap();
    let sum = program("sha256sum").arg(target.path(cnf)).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap()[..64].to_owned();
    let mut lines: Vec<String> = target.read(list).lines().map(str::to_owned).collect();
    lines.retain(|line| !line.ends_with(&format!("/{cnf}")));
    lines.push(format!("{sum}  /{cnf}"));
    lines.push(format!("{sum}  /usr/share/man/man1/devid-old.1"));
    fs::write(target.path(list), lines.join("\n") + "\n").unwrap();
    // Somebody edited this one.
    fs::write(target.path(config), "timeout_ms = 1000\n").unwrap();
    let said = target.install(&[]).ok().text();
    assert_eq!(
        fs::read(target.path("usr/bin/devid")).unwrap().get(..4),
        Some(&b"\x7fELF"[..])
    );
    assert!(!target.path("usr/share/man/man1/devid-old.1").exists());
    assert!(target.read(cnf).contains("pkcs11-module-path"));
    assert_eq!(target.read(config), "timeout_ms = 1000\n");
    assert!(
        said.contains("kept /etc/devid-pkcs11/config.toml"),
        "{said}"
    );
    // Nor does a further run forget that.
    target.install(&[]).ok();
    assert_eq!(target.read(config), "timeout_ms = 1000\n");
    let said = target.install(&["--uninstall"]).ok().text();
    assert_eq!(target.read(config), "timeout_ms = 1000\n", "{said}");
    assert!(!target.path(cnf).exists(), "{said}");
}

#[test]
fn an_uninstallation_leaves_keys_and_what_others_made() {
    let target = Target::new();
    target.install(&["--p11-kit"]).ok();
    let keys = target.path("var/lib/devid-pkcs11/devid");
    fs::create_dir_all(&keys).unwrap();
    fs::write(keys.join("web.pem"), "a key").unwrap();
    fs::write(
        target.path("etc/devid-pkcs11/trust/ca.pem"),
        "a certificate",
    )
    .unwrap();
    let said = target.install(&["--uninstall"]).ok().text();
    let left: Vec<_> = target.files().into_keys().collect();
    let expected = [
        "etc/devid-pkcs11/trust/ca.pem",
        "var/lib/devid-pkcs11/devid/web.pem",
    ];
    assert_eq!(left, expected.map(PathBuf::from), "{said}");
    assert!(
        said.contains("1 files below") && said.contains("/var/lib/devid-pkcs11"),
        "{said}"
    );
    // There is nothing to be removed a second time, and the keys stay.
    let again = target.install(&["--uninstall"]);
    assert!(
        !again.status.success() && again.err.contains("nothing was installed"),
        "{again}"
    );
    assert!(keys.join("web.pem").exists());
}

#[test]
fn another_prefix_is_named_everywhere() {
    let target = Target::new();
    let provider = "/opt/ossl/pkcs11.so";
    let options = [
        "--prefix",
        "/opt/devid/",
        "--libdir",
        "lib",
        "--provider",
        provider,
    ];
    target.install(&options).ok();
    let module = "/opt/devid/lib/pkcs11/libdevid_pkcs11.so";
    assert_eq!(target.module(), Path::new(module));
    let unit = target.read("/opt/devid/lib/systemd/system/devid-provision.service");
    assert!(
        unit.contains("ExecStart=/opt/devid/bin/devid provision"),
        "{unit}"
    );
    let cnf = target.read("/etc/devid-pkcs11/openssl.cnf");
    assert!(
        cnf.contains(&format!("pkcs11-module-path = {module}\n")),
        "{cnf}"
    );
    assert!(cnf.contains(&format!("\nmodule = {provider}\n")), "{cnf}");
    assert!(!target.path("usr").exists());
}

#[test]
fn what_is_asked_for_wrongly_installs_nothing() {
    let target = Target::new();
    for (options, word) in [
        (&["--prefix"][..], "value"),
        (&["--prefix", ""], "value"),
        (&["--prefix", "opt"], "absolute"),
        (&["--prefix", "/a b"], "blank"),
        (&["--provider", "/a,b"], "comma"),
        (&["--unistall"], "unknown"),
        (&["--built", "/nonexistent"], "cargo build --release"),
    ] {
        let said = target.install(options);
        assert!(!said.status.success(), "{options:?}");
        assert!(said.err.contains(word), "{options:?}: {said}");
        assert!(target.files().is_empty(), "{options:?}");
    }
}

/// The commands of the page, on a folder instead of the device, with the build of the tests.
#[test]
fn the_commands_of_the_pages_install() {
    let target = Target::new();
    let tool = tool();
    let built = tool.parent().unwrap();
    let here = format!("--built {}", built.display());
    let run_page = |commands: &str| {
        let mut shell = program("sh");
        shell.args(["-euc", commands]).current_dir(root());
        run(&mut shell).ok()
    };
    let (before, source) = ("cargo build --release\n", block("README.md", "source"));
    let install = source.strip_prefix(before).expect("the build comes first");
    let folder = target.path("from-source");
    let installed = format!("scripts/install --destdir {} {here}", folder.display());
    run_page(&install.replace("sudo scripts/install", &installed));
    assert!(folder.join("usr/bin/devid").is_file());

    let packaging = block("docs/INSTALL.md", "packaging");
    let image = target.path("image");
    let of_image = |line: &&str| line.starts_with("scripts/install");
    let lines: Vec<_> = packaging.lines().filter(of_image).collect();
    let line = |line: &str| {
        let line = line.replace("/tmp/image", image.to_str().unwrap());
        run_page(&format!("{line} {here}"))
    };
    line(lines[0]);
    assert!(image.join("usr/share/p11-kit/modules").is_dir());
    line(lines[1]);
    assert!(!image.join("usr/bin/devid").exists());
    // scripts/test-packages runs the others.
    let others = packaging.lines().filter(|line| !of_image(line));
    for (line, kind) in others.zip(["deb", "rpm"]) {
        assert!(
            line.starts_with(&format!("scripts/package {kind}")),
            "{line}"
        );
    }
    assert_eq!(lines.len(), 2);
}
