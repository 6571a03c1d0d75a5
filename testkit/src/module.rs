//! The files under test: library and tools of this build. They are built first if their sources are
//! newer, because cargo builds no cdylib for integration tests.

use super::folders;
use super::home::Home;
use super::programs;
use super::raw::{Code, Raw, text};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki_sys::{CK_OBJECT_HANDLE, CK_SESSION_HANDLE, CK_SLOT_ID, CK_ULONG};
use cryptoki_sys::{CKA_CLASS, CKF_SERIAL_SESSION, CKO_PRIVATE_KEY};
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Returns the path of the module, `libdevid_pkcs11.so`.
pub fn library() -> PathBuf {
    fresh("libdevid_pkcs11.so", "libdevid_pkcs11.d", &ALL, &features())
}

/// Returns the path of the module for tests of another package, which has these features. That
/// package itself is not built again.
pub fn library_alone(features: &[(&str, bool)]) -> PathBuf {
    let module = ["devid-pkcs11"];
    fresh("libdevid_pkcs11.so", "libdevid_pkcs11.d", &module, features)
}

/// Returns the path of the tool, `devid`.
pub fn tool() -> PathBuf {
    fresh("devid", "devid.d", &ALL, &features())
}

/// Returns the path of the manufacturer's tool, `devid-manufacture`.
pub fn manufacture() -> PathBuf {
    fresh(
        "devid-manufacture",
        "devid-manufacture.d",
        &ALL,
        &features(),
    )
}

/// The packages that build these files.
const ALL: [&str; 3] = ["devid-pkcs11", "devid", "devid-manufacture"];
/// The time limit of a build on a busy machine.
const BUILD: Duration = Duration::from_secs(1200);

fn features() -> [(&'static str, bool); 2] {
    [
        ("soft-rsa", cfg!(feature = "soft-rsa")),
        ("tss", cfg!(feature = "tss")),
    ]
}

fn fresh(name: &str, sources: &str, packages: &[&str], features: &[(&str, bool)]) -> PathBuf {
    let folder = folders::results();
    let (file, sources) = (folder.join(name), folder.join(sources));
    if is_fresh(&file, &sources) {
        return file;
    }
    let lock = File::create(folders::scratch().join("build.lock"));
    let lock = lock.expect("a lock file");
    lock.lock().expect("a lock");
    if !is_fresh(&file, &sources) {
        let profile = match folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(profile) => profile,
        };
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--profile", profile]);
        for package in packages {
            build.args(["-p", package]);
        }
        // With `--target`, cargo puts the results one folder deeper.
        let target = env!("DEVID_BUILT_FOR");
        let mut above = folder.parent().expect("in a target folder");
        if above.ends_with(target) {
            build.args(["--target", target]);
            above = above.parent().expect("in a target folder");
        }
        build.arg("--target-dir").arg(above);
        build.arg("--no-default-features");
        for (feature, wanted) in features {
            build.args(wanted.then_some(["--features", feature]).iter().flatten());
        }
        build.current_dir(folders::root());
        programs::run_within(BUILD, &mut build, &[]).ok();
        assert!(file.is_file(), "cargo build made no {}", file.display());
    }
    file
}

/// Returns true if `file` is newer than each source in cargo's dependency file.
fn is_fresh(file: &Path, sources: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
    let (Some(built), Ok(list)) = (time(file), fs::read_to_string(sources)) else {
        return false;
    };
    let list = list
        .split_once(": ")
        .map_or("", |(_, list)| list)
        .trim_end();
    let manifests = [
        "Cargo.toml",
        "Cargo.lock",
        "core/Cargo.toml",
        "tool/Cargo.toml",
        "manufacture/Cargo.toml",
    ];
    let manifests = manifests.map(|name| folders::root().join(name));
    let older = |path: &Path| time(path).is_some_and(|changed: SystemTime| changed <= built);
    list.split(' ').map(Path::new).all(older) && manifests.iter().all(|path| older(path))
}

/// Loads and initialises the module in this process, through the crate `cryptoki`.
pub fn initialised(home: &Home) -> Pkcs11 {
    home.enter();
    let module = Pkcs11::new(library()).expect("the module can be loaded");
    let args = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
    module.initialize(args).expect("C_Initialize");
    module
}

/// The initialised module in this process, through its function table, with slot 0 and a session.
pub struct Opened {
    pub raw: Raw,
    pub slot: CK_SLOT_ID,
    pub session: CK_SESSION_HANDLE,
}

impl Opened {
    /// Opens a session. Fails if slot 0 has no token.
    #[track_caller]
    pub fn new(home: &Home) -> Opened {
        let raw = loaded(home);
        raw.initialize().expect("C_Initialize");
        let slots = raw.slots(true).expect("C_GetSlotList");
        assert!(!slots.is_empty(), "no slot has a token");
        let slot = slots[0];
        let info = raw.token_info(slot).expect("C_GetTokenInfo");
        assert_eq!(text(&info.label), "idev-id");
        let session = raw.open(slot, CKF_SERIAL_SESSION).expect("C_OpenSession");
        Opened { raw, slot, session }
    }

    /// Returns the private key.
    #[track_caller]
    pub fn key(&self) -> CK_OBJECT_HANDLE {
        let found = self
            .raw
            .find(self.session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
        let found = found.expect("a search");
        assert_eq!(found.len(), 1, "one private key");
        found[0]
    }

    /// Makes one signature with `mechanism`.
    pub fn sign(
        &self,
        mechanism: CK_ULONG,
        key: CK_OBJECT_HANDLE,
        data: &[u8],
    ) -> Result<Vec<u8>, Code> {
        self.raw.sign_init(self.session, mechanism, key)?;
        self.raw.sign(self.session, data)
    }
}

/// Returns the slot of the factory identity: the first slot, if the identity is shown.
#[track_caller]
pub fn identity(raw: &Raw) -> Option<CK_SLOT_ID> {
    let present = raw.slots(true).expect("C_GetSlotList");
    let all = raw.slots(false).expect("C_GetSlotList");
    all.first().copied().filter(|slot| present.contains(slot))
}

/// Loads the module in this process, through its function table, without initialising it.
pub fn loaded(home: &Home) -> Raw {
    home.enter();
    Raw::load(&library())
}

/// Returns a CK_ULONG as the value of an attribute.
pub fn ulong(value: CK_ULONG) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}
