use super::super::installation::MARK;
use super::*;
use crate::identity::doctor::Health;
use std::fs;
use std::process::Command;
use tempfile::TempDir;

/// A test system on which the module and OpenSSL's provider are installed but not configured.
struct System {
    folder: TempDir,
    paths: InstallPaths,
}

impl System {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["lib/pkcs11", "lib/ossl-modules", "modules", "etc"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(
            at("lib/pkcs11").join(LIBRARY),
            [b"\x7fELF\0", MARK].concat(),
        )
        .unwrap();
        fs::write(at("lib/pkcs11/other.so"), "\x7fELF").unwrap();
        fs::write(at("lib/ossl-modules/pkcs11.so"), "\x7fELF").unwrap();
        let paths = InstallPaths {
            modules: vec![at("lib/pkcs11")],
            p11_kit_conf: at("etc/pkcs11.conf"),
            p11_kit: vec![at("etc/modules"), at("modules")],
            providers: vec![at("lib/ossl-modules")],
            openssl: at("openssl.cnf"),
            openssl_of_ours: Some(at("etc/openssl.cnf")),
        };
        Self { folder, paths }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns a configuration file that this project ships, with the paths of the test system.
    fn shipped(&self, name: &str) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pkcs11-conf");
        let text = fs::read_to_string(root.join(name)).unwrap();
        let installed = format!("/usr/lib/x86_64-linux-gnu/pkcs11/{LIBRARY}");
        let module = self.at("lib/pkcs11").join(LIBRARY);
        text.replace(&installed, module.to_str().unwrap())
    }

    fn finding(&self, about: &str) -> Finding {
        let mut findings = Vec::new();
        self.paths.look(&mut findings);
        let mut all = findings.into_iter();
        all.find(|one| one.about == about).unwrap()
    }

    /// Runs the command of a remedy, and checks that the finding disappears.
    #[track_caller]
    fn remedy(&self, about: &str) {
        let command = self.finding(about).command.expect("a command");
        run(&command);
        let after = self.finding(about);
        assert_eq!(after.state, Health::Ok, "{after:?}");
    }
}

fn run(command: &str) {
    let done = Command::new("sh").args(["-ec", command]).status();
    assert!(done.unwrap().success(), "{command}");
}

#[test]
fn p11_kit_is_told_of_the_module_that_is_there() {
    let system = System::new();
    assert_eq!(system.finding("p11-kit").id, "p11-kit.none");
    // If the name of the new file is in use, the existing file is not changed.
    fs::create_dir(system.at("etc/modules")).unwrap();
    let taken = system.at("etc/modules/devid-pkcs11.module");
    let others = format!("module: {}\n", system.at("lib/pkcs11/other.so").display());
    fs::write(&taken, &others).unwrap();
    system.remedy("p11-kit");
    assert_eq!(fs::read_to_string(&taken).unwrap(), others);
    fs::remove_dir_all(system.at("etc/modules")).unwrap();
    system.remedy("p11-kit");

    let file = system.at("modules/devid-pkcs11.module");
    fs::remove_dir_all(system.at("etc/modules")).unwrap();
    fs::write(&file, system.shipped("devid-pkcs11.module")).unwrap();
    assert_eq!(system.finding("p11-kit").state, Health::Ok, "a bare name");
    for wrong in ["/nonexistent/libdevid_pkcs11.so", "other.so"] {
        // The file has the name of this module, but is another module. The name tells which module
        // the file was meant to be.
        let wrong = match wrong {
            "other.so" => {
                let path = system.at("libdevid_pkcs11.so");
                fs::write(&path, "\x7fELF").unwrap();
                path.display().to_string()
            }
            other => other.to_owned(),
        };
        fs::write(&file, format!("# comment\n module: {wrong}\n")).unwrap();
        let found = system.finding("p11-kit");
        assert_eq!((found.id, found.state), ("p11-kit.wrong", Health::Problem));
        assert!(found.text.contains(&wrong), "{found:?}");
        system.remedy("p11-kit");
    }
    // The administrator's file of the same name has precedence.
    fs::create_dir(system.at("etc/modules")).unwrap();
    let above = system.at("etc/modules/devid-pkcs11.module");
    fs::write(&above, "module: /nonexistent/libdevid_pkcs11.so\n").unwrap();
    assert_eq!(system.finding("p11-kit").id, "p11-kit.wrong");
}

/// p11-kit 0.24 treats these files in the same way: it skips no file, and a single invalid line
/// stops it.
#[test]
fn a_line_that_stops_p11_kit_is_named() {
    let system = System::new();
    let broken = include_str!("../../../testdata/p11-kit/broken.module");
    let good = system.shipped("devid-pkcs11.module");
    let file = system.at("modules/devid-pkcs11.module");
    let stops = |file: &str, line: &str, word: &str| {
        let found = system.finding("p11-kit");
        assert_eq!(
            (found.id, found.state),
            ("p11-kit.unreadable", Health::Problem),
            "{found:?}"
        );
        let place = format!("{}{line}: ", system.at(file).display());
        assert!(found.text.starts_with(&place), "{found:?}");
        assert!(found.text.contains(word), "{found:?}");
        assert!(
            found.text.contains("does not start in any program"),
            "{found:?}"
        );
    };
    // The `.module` file that this project ships, with the path of the module on the test system.
    let installed = format!("/usr/lib/x86_64-linux-gnu/pkcs11/{LIBRARY}");
    let module = system.at("lib/pkcs11").join(LIBRARY);
    let broken = broken.replace(&installed, module.to_str().unwrap());
    fs::write(&file, broken).unwrap();
    stops("modules/devid-pkcs11.module", ":1", "equals sign");
    // If other users can redirect the path of the module, no remedy has a command with this path.
    let modules = system.at("modules");
    let mode = |bits| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(bits);
        fs::set_permissions(&modules, mode).unwrap();
    };
    mode(0o777);
    assert_eq!(system.finding("p11-kit").command, None);
    mode(0o755);
    system.remedy("p11-kit");

    for (text, line, word) in [
        ("junk\n", ":1", "no colon"),
        (
            "# module = x\n\nmodule: x\ntrust-policy no\n",
            ":4",
            "no colon",
        ),
        ("module: x\n[section]\n", ":2", "section"),
        ("module: x\n[a]: b\n", ":2", "section"),
        ("module: x\n; a comment\n", ":2", "no colon"),
        ("-----BEGIN CERTIFICATE-----\n", ":1", "no colon"),
        ("module: x\n-----BEGIN A: B-----\n", ":2", "no colon"),
    ] {
        // The invalid line is in the file of any module, or in the configuration file of p11-kit.
        for name in [
            "modules/other.module",
            "modules/.old.module",
            "modules/notes~",
            "etc/pkcs11.conf",
        ] {
            fs::write(&file, &good).unwrap();
            fs::write(system.at(name), text).unwrap();
            stops(name, line, word);
            fs::remove_file(system.at(name)).unwrap();
            assert_eq!(system.finding("p11-kit").state, Health::Ok);
        }
    }
    // p11-kit also reads a file that another file overrides, and a symbolic link without target.
    fs::create_dir(system.at("etc/modules")).unwrap();
    fs::write(&file, "module = x\n").unwrap();
    fs::write(system.at("etc/modules/devid-pkcs11.module"), &good).unwrap();
    stops("modules/devid-pkcs11.module", ":1", "equals sign");
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/nonexistent", &file).unwrap();
    stops("modules/devid-pkcs11.module", "", "not found");
    fs::remove_file(&file).unwrap();
    // p11-kit accepts a folder with the name of a `.module` file, and the following contents of the
    // file.
    fs::create_dir(&file).unwrap();
    for text in [
        "\u{FEFF}x: y\r\n",
        "  # comment\n\t\nmodule :x\n",
        "",
        "x: = y\n",
        "#",
    ] {
        fs::write(system.at("modules/other.module"), text).unwrap();
        assert_eq!(system.finding("p11-kit").state, Health::Ok, "{text:?}");
    }
}

#[test]
fn the_programs_that_p11_kit_gives_the_module_are_named() {
    let system = System::new();
    let good = system.shipped("devid-pkcs11.module");
    let file = system.at("modules/devid-pkcs11.module");
    for (more, words) in [
        (
            "enable-in: p11-kit-proxy, firefox\n",
            "used only in p11-kit-proxy, firefox (enable-in)",
        ),
        (
            "enable-in: firefox\ndisable-in: curl\n",
            "used only in firefox (enable-in)",
        ),
        ("enable-in:\n", "in no program"),
        (
            "disable-in: firefox curl\n",
            "not used in firefox, curl (disable-in)",
        ),
    ] {
        fs::write(&file, format!("{good}{more}")).unwrap();
        let found = system.finding("p11-kit");
        assert_eq!((found.id, found.state), ("p11-kit.limited", Health::Note));
        assert!(found.text.contains(words), "{found:?}");
    }
    fs::write(&file, format!("{good}disable-in:\n")).unwrap();
    assert_eq!(system.finding("p11-kit").state, Health::Ok);
    // Files of the same name configure one module.
    fs::write(&file, &good).unwrap();
    fs::create_dir(system.at("etc/modules")).unwrap();
    let above = system.at("etc/modules/devid-pkcs11.module");
    fs::write(&above, "disable-in: firefox\n").unwrap();
    let found = system.finding("p11-kit");
    assert_eq!(found.id, "p11-kit.limited");
    assert!(found.text.starts_with(file.to_str().unwrap()), "{found:?}");
}

#[test]
fn openssl_is_judged_by_what_its_file_says() {
    let system = System::new();
    let found = system.finding("OpenSSL");
    assert_eq!((found.id, found.state), ("openssl.none", Health::Note));
    fs::write(
        &system.paths.openssl,
        "[provider_sect]\npkcs11 = pkcs11_sect\n",
    )
    .unwrap();
    assert_eq!(system.finding("OpenSSL").id, "openssl.none");

    // There are two remedies: the shipped file, which programs select, or the system-wide file.
    let shipped = system.shipped("openssl.cnf");
    fs::write(system.at("etc/openssl.cnf"), &shipped).unwrap();
    let found = system.finding("OpenSSL");
    assert_eq!(found.id, "openssl");
    assert!(found.text.contains("OPENSSL_CONF="), "{found:?}");
    fs::write(&system.paths.openssl, &shipped).unwrap();
    let found = system.finding("OpenSSL");
    assert!(!found.text.contains("OPENSSL_CONF="), "{found:?}");
}

#[test]
fn each_fault_of_openssls_file_is_found_and_mended() {
    let system = System::new();
    let shipped = system.shipped("openssl.cnf");
    let write = |text: &str| fs::write(&system.paths.openssl, text).unwrap();
    let module = system.at("lib/pkcs11").join(LIBRARY);
    let other = system.at("lib/pkcs11/other.so");

    let stale = system.at(LIBRARY);
    fs::write(&stale, "\x7fELF").unwrap();
    for wrong in ["/nonexistent.so", stale.to_str().unwrap()] {
        write(&shipped.replace(module.to_str().unwrap(), wrong));
        assert_eq!(system.finding("OpenSSL").id, "openssl.wrong");
        system.remedy("OpenSSL");
    }
    // The module of another program and its section are not changed.
    write(&shipped.replace(module.to_str().unwrap(), other.to_str().unwrap()));
    let found = system.finding("OpenSSL");
    assert_eq!((found.id, &found.command), ("openssl.none", &None));
    let theirs = format!(
        "[a]\npkcs11-module-path = {}\nactivate = 0\n",
        other.display()
    );
    let beside = shipped.replace("[provider_sect]", "[provider_sect]\na = a");
    assert_ne!(beside, shipped);
    write(&format!("{beside}{theirs}"));
    assert_eq!(system.finding("OpenSSL").state, Health::Ok);
    for wrong in [
        beside.replace(module.to_str().unwrap(), "/nonexistent.so"),
        beside.replace("activate = 1", "activate = 0"),
    ] {
        write(&format!("{wrong}{theirs}"));
        let command = system.finding("OpenSSL").command.expect("a command");
        run(&command);
        let after = fs::read_to_string(&system.paths.openssl).unwrap();
        assert!(after.ends_with(&theirs), "{command}: {after}");
    }
    let (before, after) = shipped
        .split_once("encode-provider-uri-to-pem = true\n")
        .unwrap();
    write(&format!(
        "{before}x = 1\n{}",
        after.replace("activate = 1\n", "")
    ));
    assert!(system.finding("OpenSSL").text.contains("activate"));
    system.remedy("OpenSSL");

    // If `activate` has a value that means no, the remedy replaces the value and adds no line.
    let lines = shipped.lines().count();
    let file = system.at("etc/more.cnf");
    for said in [
        "activate = 0",
        "activate=no",
        "  activate =",
        "\tactivate = OFF",
    ] {
        let inactive = shipped.replace("true\nactivate = 1", &format!("true\n{said}"));
        assert_ne!(inactive, shipped);
        for included in [false, true] {
            match included {
                false => write(&inactive),
                true => {
                    fs::write(&file, &inactive).unwrap();
                    write(&format!(".include {}\n", file.display()));
                }
            }
            let found = system.finding("OpenSSL");
            assert_eq!(found.id, "openssl.wrong", "{said}: {found:?}");
            system.remedy("OpenSSL");
            let path = match included {
                false => &system.paths.openssl,
                true => &file,
            };
            let after = fs::read_to_string(path).unwrap();
            assert_eq!(after.lines().count(), lines, "{said}: {after}");
        }
    }
    fs::write(&file, shipped.replace("true\nactivate = 1\n", "true\n")).unwrap();
    write(&format!(".include {}\n", file.display()));
    let command = system.finding("OpenSSL").command.expect("a command");
    assert!(command.contains("more.cnf"), "{command}");
    system.remedy("OpenSSL");
    // The line continues on the next line. sed(1) would see only its first part.
    write(&shipped.replace("true\nactivate = 1", "true\nactivate = \\\n0"));
    assert_eq!(system.finding("OpenSSL").command, None);

    write(&shipped.replace("default = default_sect\n", ""));
    assert!(system.finding("OpenSSL").text.contains("default"));
    write(&shipped.replace("#module = /path/to/", "module = /nonexistent/"));
    assert!(
        system
            .finding("OpenSSL")
            .text
            .contains("/nonexistent/pkcs11.so")
    );
    fs::remove_file(system.at("lib/ossl-modules/pkcs11.so")).unwrap();
    write(&shipped);
    assert!(
        system
            .finding("OpenSSL")
            .text
            .contains("provider pkcs11.so")
    );
    write(&format!(
        ".include {}\n",
        system.at("etc/openssl.cnf").display()
    ));
    fs::write(system.at("etc/openssl.cnf"), &shipped).unwrap();
    assert!(
        system
            .finding("OpenSSL")
            .text
            .contains("provider pkcs11.so")
    );
}
