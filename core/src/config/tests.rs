//! Tests of configuration files and their errors.

use super::*;
use crate::tpm::CommandClass;
use std::collections::HashMap;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self(folder)
    }

    fn load(&self, variables: &[(&str, &str)]) -> LoadedConfig {
        let mut all: HashMap<String, OsString> = variables
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        let file = self.0.path().join("config.toml");
        all.entry("DEVID_PKCS11_CONFIG".into())
            .or_insert(file.into());
        load(&|name| all.get(name).cloned())
    }

    fn fault(&self) -> String {
        self.load(&[]).config.unwrap_err().to_string()
    }
}

#[test]
fn every_setting_arrives() {
    let folder = Folder::new(&[(
        "config.toml",
        "tcti = \"swtpm:port=9\"\ntimeout_ms = 500\ngeneration_timeout_ms = 900\n\
         random = \"tpm\"\n\
         [log]\nlevel = \"debug\"\ntarget = \"file:/x/y\"\n\
         [[identity]]\nhandle = 0x81010005\nnv = 0x01C00100\ncertificate = \"/c.pem\"\n",
    )]);
    let loaded = folder.load(&[]);
    let config = loaded.config.unwrap();
    assert_eq!(config.tcti, "swtpm:port=9".parse().unwrap());
    assert_eq!(config.limits, limits(500, 900));
    assert_eq!(config.random, RandomSource::Tpm);
    assert_eq!(config.identities[0].handle, Some(0x8101_0005));
    assert_eq!(config.identities[0].nv, Some(0x01C0_0100));
    assert_eq!(loaded.log.level, LevelFilter::Debug);
    assert_eq!(loaded.log.target, LogTarget::File("/x/y".into()));
    assert_eq!(config.chain, folder.0.path().join("chain"));
    assert_eq!(config.trust, folder.0.path().join("trust"));
}

fn limits(ordinary: u64, generation: u64) -> Limits {
    let [ordinary, generation] = [ordinary, generation].map(Duration::from_millis);
    Limits::new(ordinary, generation)
}

/// The default limits are 30 s for ordinary commands and 5 minutes for key generations. The limit
/// for key generations is never smaller than that for ordinary commands.
#[test]
fn time_limits_by_class() {
    for (text, of_both) in [
        ("", (30_000, 300_000)),
        ("timeout_ms = 1000\n", (1000, 300_000)),
        ("generation_timeout_ms = 60000\n", (30_000, 60_000)),
        ("timeout_ms = 600000\n", (600_000, 600_000)),
        ("generation_timeout_ms = 1\n", (30_000, 30_000)),
    ] {
        let config = Folder::new(&[("config.toml", text)]).load(&[]).config;
        let found = config.unwrap().limits;
        let of = |class| found.for_class(class).time;
        let (ordinary, generation) = (of(CommandClass::Ordinary), of(CommandClass::Generation));
        let expected = [of_both.0, of_both.1].map(Duration::from_millis);
        assert_eq!([ordinary, generation], expected, "{text}");
    }
}

#[test]
fn drop_ins_and_environment_go_before_the_file() {
    let folder = Folder::new(&[
        ("config.toml", "tcti = \"swtpm:port=1\"\ntimeout_ms = 1\n"),
        (
            "config.d/10.toml",
            "timeout_ms = 2\ngeneration_timeout_ms = 600000\n[[identity]]\nhandle = 0x81000001\n",
        ),
        (
            "config.d/20.toml",
            "timeout_ms = 3\n[[identity]]\nnv = 0x01000001\n",
        ),
        ("config.d/30.conf", "not read"),
    ]);
    let loaded = folder.load(&[
        ("DEVID_PKCS11_TCTI", "mssim:port=7"),
        ("DEVID_PKCS11_LOG", "info,file:/l"),
        ("DEVID_PKCS11_RUN", "/r"),
    ]);
    let config = loaded.config.unwrap();
    assert_eq!(config.tcti, "mssim:port=7".parse().unwrap());
    assert_eq!(config.limits, limits(3, 600_000));
    assert_eq!(config.identities.len(), 2);
    assert_eq!(config.generation, Path::new("/r/generation"));
    assert_eq!(loaded.log.level, LevelFilter::Info);
}

#[test]
fn what_is_said_of_a_token_later_leaves_the_rest() {
    let folder = Folder::new(&[
        (
            "config.toml",
            "[[token]]\nname = \"devid\"\npath = \"/d\"\n\
             [[token]]\nname = \"web\"\nallow_file_keys = true\n",
        ),
        (
            "config.d/10.toml",
            "[[token]]\nname = \"devid\"\nallow_last_try = true\n\
             [[token]]\nname = \"web\"\npath = \"/w\"\n",
        ),
    ]);
    let tokens = folder.load(&[]).config.unwrap().tokens;
    let [devid, web] = &tokens[..] else {
        panic!("{tokens:?}");
    };
    assert_eq!(devid.path.as_deref(), Some(Path::new("/d")));
    assert!(devid.allow_last_try && !devid.allow_file_keys);
    assert_eq!(web.path.as_deref(), Some(Path::new("/w")));
    assert!(web.allow_file_keys && !web.allow_last_try);
    let same = "[[token]]\nname = \"a\"\npath = \"/p\"\n\
                [[token]]\nname = \"b\"\npath = \"/p\"\n";
    let fault = Folder::new(&[("config.toml", same)]).fault();
    assert!(
        fault.ends_with("config.toml:4: [[token]] path: a and b have the same path"),
        "{fault}"
    );
}

#[test]
fn a_fault_names_file_line_and_key() {
    for (text, line, words) in [
        (
            "timeout_ms = 5\ntcit = \"x\"\n",
            2,
            "tcit: there is no such setting; did you mean tcti?",
        ),
        (
            "\n\ntimeout_ms = \"soon\"\n",
            3,
            "timeout_ms: expected milliseconds",
        ),
        ("tcti = \"usb:\"\n", 1, "tcti: \"usb:\" names no TPM"),
        (
            "[log]\nlevel = \"loud\"\n",
            2,
            "level: \"loud\" is not a log level",
        ),
        (
            "[log]\ntarget = \"stderr\"\n",
            2,
            "target: \"stderr\" is not a log target",
        ),
        ("random = \"dice\"\n", 1, "random: \"dice\": expected"),
        (
            "[[identity]]\nhandle = 0x80000000\n",
            2,
            "handle: 0x80000000: expected a handle",
        ),
        (
            "timeout_ms = 0\n",
            1,
            "timeout_ms: 0: expected milliseconds",
        ),
        ("[wall]\n", 1, "wall: there is no such setting"),
        (
            "[master]\nek_roots = \"roots\"\n",
            2,
            "ek_roots: roots: expected an absolute path",
        ),
        (
            "verify_signatures = \"yes\"\n",
            1,
            "verify_signatures: expected true or false, without quotes",
        ),
        (
            "[provision]\nmarker = \"tpm_in_use\"\n",
            2,
            "marker: tpm_in_use: expected an absolute path",
        ),
        (
            "[provision]\nexisting = { certificate = \"/c.pem\", key = \"k.pem\" }\n",
            2,
            "existing: key: k.pem: expected an absolute path",
        ),
        (
            "[provision]\nfallback = \"yes\"\n",
            2,
            "fallback: \"yes\": expected",
        ),
        (
            "[master]\nhandle = 0x81000001\n",
            2,
            "handle: 0x81000001 is reserved for the storage root key",
        ),
        (
            "[master]\nhandle = 0x81020000\n",
            2,
            "handle: 0x81020000: expected a handle",
        ),
        (
            "tcti = \"device\"\ntcti = \"device\"\n",
            2,
            "tcti: the setting occurs twice",
        ),
    ] {
        let folder = Folder::new(&[("config.toml", text)]);
        let fault = folder.fault();
        assert!(
            fault.contains(&format!("config.toml:{line}: ")),
            "{text:?}: {fault}"
        );
        assert!(fault.contains(words), "{text:?}: {fault}");
    }
}

#[test]
fn a_fault_is_logged_though_nobody_asked_for_a_log() {
    let folder = Folder::new(&[("config.toml", "tcit = 1\n")]);
    assert_eq!(folder.load(&[]).log, LogSettings::ERRORS);
    assert_eq!(
        Folder::new(&[("config.toml", "")]).load(&[]).log,
        LogSettings::OFF
    );
    let quiet = folder.load(&[("DEVID_PKCS11_LOG", "off")]);
    assert_eq!(quiet.log.level, LevelFilter::Off);
}

#[test]
fn a_fault_elsewhere_leaves_the_log_its_settings() {
    let text = "tcit = 1\n[log]\nlevel = \"debug\"\ntarget = \"file:/x\"\n";
    let loaded = Folder::new(&[("config.toml", text)]).load(&[]);
    assert!(loaded.config.is_err());
    assert_eq!(loaded.log.target, LogTarget::File("/x".into()));
}

#[test]
fn a_named_file_must_be_there() {
    let folder = Folder::new(&[]);
    assert!(
        folder.fault().contains("config.toml: No such file"),
        "{}",
        folder.fault()
    );
    let none = load(&|name| (name == "DEVID_PKCS11_RUN").then(|| "/r".into()));
    // Without a variable the default file is used. This file may be missing.
    assert!(none.config.is_ok() || Path::new(FILE).exists());
}

#[test]
fn a_wrong_variable_names_itself() {
    let folder = Folder::new(&[("config.toml", "")]);
    let fault = folder
        .load(&[("DEVID_PKCS11_TCTI", "usb:")])
        .config
        .unwrap_err()
        .to_string();
    assert!(
        fault.starts_with("environment DEVID_PKCS11_TCTI: "),
        "{fault}"
    );
}
