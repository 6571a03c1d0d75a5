//! The token `devid` for a C caller: key pairs, other objects, and the files of the key folder.
//! OpenSSL verifies the signatures.

use super::home::Home;
use super::link::Link;
use super::module::{library, ulong};
use super::openssl::Verifier;
pub use super::own::Own;
use super::own::{P256, P384, P521};
use super::programs::{Running, Said, program, run};
use super::proxy::Proxy;
use super::raw::{Code, Item, Raw};
use super::story::test_name;
use super::tpm::Swtpm;
use cryptoki_sys::*;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};
use tempfile::TempDir;

/// The vendor attributes, beginning with CKA_DEVID_TPM_HANDLE.
pub const TPM_HANDLE: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x4445_0001;
pub const TPM_PUBLIC: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x4445_0003;
pub const PROTECTION: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x4445_0004;
pub const PERSISTENT: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x4445_0005;

/// The values of CKA_DEVID_PROTECTION.
pub const SEALED: CK_ULONG = 2;
pub const IN_FILE: CK_ULONG = 3;

pub const SRK: u32 = 0x8100_0001;
pub const MASTER: u32 = 0x8100_0080;
/// The first persistent handle for keys of this project.
pub const FIRST: u32 = 0x8100_0100;

/// Copies the only file of a key folder, the key `label`, once for each number. The number is the
/// label of the copy. To read many files of one key costs as much as to read many keys.
pub fn copy_key(folder: &Path, label: &str, numbers: std::ops::Range<usize>) {
    let files = fs::read_dir(folder).expect("a folder");
    let files = files.map(|entry| entry.expect("an entry").path());
    let keys = files.filter(|path| path.extension().is_some_and(|end| end == "pem"));
    let [original] = &keys.collect::<Vec<_>>()[..] else {
        panic!("one file");
    };
    let (text, line) = (fs::read_to_string(original), format!("Label: {label}\n"));
    let text = text.expect("text");
    assert!(text.contains(&line), "{text}");
    for number in numbers {
        let text = text.replace(&line, &format!("Label: {number}\n"));
        fs::write(folder.join(format!("copy-{number}.pem")), text).expect("written");
    }
}

/// A TPM without factory identity, a proxy before the TPM, and a home folder.
pub struct Bench {
    pub tpm: Swtpm,
    pub proxy: Proxy,
    pub home: Home,
}

impl Bench {
    pub fn new(link: Link) -> Bench {
        let tpm = Swtpm::blank();
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        Bench { tpm, proxy, home }
    }

    /// Returns the key folder.
    pub fn folder(&self) -> PathBuf {
        folder(&self.home)
    }

    /// Makes the storage root key persistent, with tpm2-tools.
    pub fn make_root(&self) {
        let context = self.home.path("root.ctx");
        let mut create = self.tpm.tool("tpm2_createprimary");
        run(create
            .args([
                "-C",
                "o",
                "-G",
                "ecc256:null:aes128cfb",
                "-g",
                "sha256",
                "-a",
            ])
            .arg("fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt")
            .arg("-c")
            .arg(&context))
        .ok();
        let mut keep = self.tpm.tool("tpm2_evictcontrol");
        keep.args(["-C", "o", "-c"]).arg(&context);
        run(keep.arg(format!("{SRK:#x}"))).ok();
        run(self.tpm.tool("tpm2_flushcontext").arg("-t")).ok();
    }

    /// Sets this authorisation value of the owner hierarchy, and adds it to the configuration.
    pub fn set_owner(&self, value: &str) {
        run(self.tpm.tool("tpm2_changeauth").args(["-c", "o", value])).ok();
        let file = self.home.write("owner", value);
        let settings = format!("[master]\nowner_auth = \"file:{}\"\n", file.display());
        self.home.write("config.toml", settings);
    }

    /// Empties a persistent handle, with this authorisation value of the owner.
    pub fn evict(&self, handle: u32, owner: &str) {
        let mut evict = self.tpm.tool("tpm2_evictcontrol");
        run(evict.args(["-C", "o", "-P", owner, "-c", &format!("{handle:#x}")])).ok();
    }

    /// Puts an RSA key of another program into the handle of the storage root key.
    pub fn replace_root(&self, owner: &str) {
        let context = self.home.path("other.ctx");
        let context = context.to_str().expect("text");
        self.evict(SRK, owner);
        let mut create = self.tpm.tool("tpm2_createprimary");
        run(create.args(["-C", "o", "-P", owner, "-G", "rsa2048", "-c", context])).ok();
        let mut keep = self.tpm.tool("tpm2_evictcontrol");
        keep.args(["-C", "o", "-P", owner, "-c", context]);
        run(keep.arg(format!("{SRK:#x}"))).ok();
        run(self.tpm.tool("tpm2_flushcontext").arg("-t")).ok();
    }

    /// Returns the TPMT_PUBLIC of the storage root key.
    pub fn root_area(&self) -> Vec<u8> {
        self.area_at(SRK)
    }

    /// Reads the TPMT_PUBLIC in a persistent handle from the TPM.
    pub fn area_at(&self, handle: u32) -> Vec<u8> {
        let file = self.home.path("area");
        let mut read = self.tpm.tool("tpm2_readpublic");
        read.args(["-c", &format!("{handle:#x}"), "-f", "tss", "-o"]);
        run(read.arg(&file)).ok();
        fs::read(file).unwrap()[2..].to_vec()
    }

    /// Runs a program. `option` is its option for the path of the module.
    pub fn program(&self, name: &str, option: &str, arguments: &[&str]) -> Said {
        let mut command = program(name);
        command.arg(option).arg(library()).args(arguments);
        run(self.home.settle(&mut command))
    }

    #[track_caller]
    pub fn pkcs11_tool(&self, arguments: &[&str]) -> Said {
        let arguments = [&["--token-label", "devid"], arguments].concat();
        self.program("pkcs11-tool", "--module", &arguments).ok()
    }
}

/// Returns the key folder of the token `devid`.
pub fn folder(home: &Home) -> PathBuf {
    home.path("state/devid")
}

/// Returns the persistent handles in ascending order.
pub fn persistent(tpm: &Swtpm) -> Vec<u32> {
    let listed = run(tpm.tool("tpm2_getcap").arg("handles-persistent"));
    let number = |line: &str| {
        let digits = line.trim_start_matches("- 0x");
        u32::from_str_radix(digits, 16).expect("a handle")
    };
    listed.ok().text().lines().map(number).collect()
}

/// The type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    P256,
    P384,
    P521,
    Rsa(CK_ULONG),
}

impl Kind {
    pub const ALL: [Kind; 5] = [
        Kind::P256,
        Kind::P384,
        Kind::P521,
        Kind::Rsa(2048),
        Kind::Rsa(3072),
    ];

    fn generator(self) -> (CK_MECHANISM_TYPE, Item) {
        let curve = |oid: &[u8]| (CKM_EC_KEY_PAIR_GEN, (CKA_EC_PARAMS, oid.to_vec()));
        match self {
            Kind::P256 => curve(&P256),
            Kind::P384 => curve(&P384),
            Kind::P521 => curve(&P521),
            Kind::Rsa(bits) => (CKM_RSA_PKCS_KEY_PAIR_GEN, (CKA_MODULUS_BITS, ulong(bits))),
        }
    }
}

/// Returns a template item with the value CK_TRUE.
pub fn yes(kind: CK_ATTRIBUTE_TYPE) -> Item {
    (kind, vec![CK_TRUE])
}

pub fn label(text: &str) -> Item {
    (CKA_LABEL, text.as_bytes().to_vec())
}

impl Own {
    /// Opens the token in a process that has the environment of [`Home::settle`] already.
    #[track_caller]
    pub fn here() -> Own {
        let raw = Raw::load(&library());
        raw.initialize().expect("C_Initialize");
        Own::with(raw, "devid")
    }

    /// Loads the module again. The module then knows nothing, as in a new program.
    #[track_caller]
    pub fn anew(self) -> Own {
        self.raw.finalize().expect("C_Finalize");
        self.raw.initialize().expect("C_Initialize");
        Own::with(self.0.raw, "devid")
    }

    /// Makes a token key pair with a typical template. Returns the handles of the public and of the
    /// private key.
    pub fn make(&self, kind: Kind, name: &str) -> Result<Pair, Code> {
        self.make_with(kind, &[label(name), yes(CKA_TOKEN)], &[])
    }

    /// Makes a token key pair that is also in a persistent handle.
    pub fn make_persistent(&self, kind: Kind, name: &str) -> Result<Pair, Code> {
        self.make_with(kind, &[label(name), yes(CKA_TOKEN)], &[yes(PERSISTENT)])
    }

    /// Makes a key pair. `both` is added to both templates, `private` only to the private key's
    /// template.
    pub fn make_with(&self, kind: Kind, both: &[Item], private: &[Item]) -> Result<Pair, Code> {
        let (mechanism, numbers) = kind.generator();
        let of_public = [both, &[yes(CKA_VERIFY), numbers]].concat();
        let of_private = [both, &[yes(CKA_SIGN)], private].concat();
        let (public, private) = self.generate(mechanism, &of_public, &of_private)?;
        Ok(Pair { public, private })
    }

    /// Creates a data object on the token.
    pub fn create_data(&self, name: &str, value: &[u8]) -> Result<CK_OBJECT_HANDLE, Code> {
        self.create(&[
            (CKA_CLASS, ulong(CKO_DATA)),
            yes(CKA_TOKEN),
            label(name),
            (CKA_VALUE, value.to_vec()),
        ])
    }

    /// Returns all private keys.
    #[track_caller]
    pub fn keys(&self) -> Vec<CK_OBJECT_HANDLE> {
        self.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))])
    }

    /// Returns the only private key with this label.
    #[track_caller]
    pub fn key_called(&self, name: &str) -> CK_OBJECT_HANDLE {
        let found = self.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY)), label(name)]);
        assert_eq!(found.len(), 1, "keys with the label {name:?}");
        found[0]
    }

    #[track_caller]
    pub fn label(&self, object: CK_OBJECT_HANDLE) -> String {
        String::from_utf8(self.attribute(object, CKA_LABEL)).expect("a label is text")
    }

    /// Returns the labels of all objects of a class, sorted.
    #[track_caller]
    pub fn labels(&self, class: CK_OBJECT_CLASS) -> Vec<String> {
        let found = self.find(&[(CKA_CLASS, ulong(class))]);
        let mut all: Vec<_> = found.iter().map(|object| self.label(*object)).collect();
        all.sort();
        all
    }

    /// Signs `data`, hashed by SHA-256. The signature is r ‖ s, or RSASSA-PKCS1-v1_5.
    pub fn sign_data(&self, key: CK_OBJECT_HANDLE, data: &[u8]) -> Result<Vec<u8>, Code> {
        let kind = self.raw.attribute(self.session, key, CKA_KEY_TYPE)?;
        let mechanism = match kind == ulong(CKK_EC) {
            true => CKM_ECDSA_SHA256,
            false => CKM_SHA256_RSA_PKCS,
        };
        self.sign(mechanism, key, data)
    }

    /// Checks that the key signs, and that OpenSSL accepts the signature with the public key of the
    /// token.
    #[track_caller]
    pub fn signs(&self, key: CK_OBJECT_HANDLE) {
        let data = format!("signed by object {key}");
        let signature = self.sign_data(key, data.as_bytes());
        let signature = signature.unwrap_or_else(|code| panic!("a signature: {code:?}"));
        self.judge(key).accepts(data.as_bytes(), &signature).ok();
    }

    /// Returns a verifier for the signatures of this key.
    #[track_caller]
    pub fn judge(&self, key: CK_OBJECT_HANDLE) -> Judge {
        let is_ec = self.attribute(key, CKA_KEY_TYPE) == ulong(CKK_EC);
        Judge::new(&self.attribute(key, CKA_PUBLIC_KEY_INFO), is_ec)
    }
}

/// The handles of a key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    pub public: CK_OBJECT_HANDLE,
    pub private: CK_OBJECT_HANDLE,
}

/// Verifies signatures with OpenSSL and a public key.
pub struct Judge {
    verifier: Verifier,
    is_ec: bool,
    _folder: TempDir,
}

impl Judge {
    /// Creates a verifier for a SubjectPublicKeyInfo in DER.
    pub fn new(info: &[u8], is_ec: bool) -> Judge {
        let folder = TempDir::new().expect("a temporary folder");
        let file = folder.path().join("public.der");
        fs::write(&file, info).expect("a file");
        Judge {
            verifier: Verifier::new(&file),
            is_ec,
            _folder: folder,
        }
    }

    /// Verifies a signature by [`Own::sign_data`].
    pub fn accepts(&self, data: &[u8], signature: &[u8]) -> Said {
        match self.is_ec {
            true => self.verifier.accepts_message("-sha256", data, signature),
            false => self.accepts_der(data, signature),
        }
    }

    /// Verifies a signature in DER.
    pub fn accepts_der(&self, data: &[u8], signature: &[u8]) -> Said {
        self.verifier.accepts_der("-sha256", data, signature)
    }
}

/// The files of a folder, including hidden ones.
#[derive(Clone, PartialEq, Eq)]
pub struct Inspection(BTreeMap<String, Vec<u8>>);

impl Inspection {
    pub fn of(folder: &Path) -> Inspection {
        let entries = fs::read_dir(folder).into_iter().flatten();
        let file = |entry: std::io::Result<fs::DirEntry>| {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            Some((name, fs::read(entry.path()).ok()?))
        };
        Inspection(entries.filter_map(file).collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Returns the changes up to `after`, as in `git status`: `A`, `D` or `M` and the name.
    pub fn to(&self, after: &Inspection) -> Vec<String> {
        let mut said = Vec::new();
        for (name, content) in &self.0 {
            match after.0.get(name) {
                None => said.push(format!("D {name}")),
                Some(now) if now != content => said.push(format!("M {name}")),
                Some(_) => {}
            }
        }
        let added = after.0.keys().filter(|name| !self.0.contains_key(*name));
        said.extend(added.map(|name| format!("A {name}")));
        said
    }

    /// Returns the text lines above PEM blocks that were added (`+`) and removed (`-`).
    pub fn lines_to(&self, after: &Inspection) -> Vec<String> {
        let lines = |of: &Inspection| -> Vec<String> {
            let text = of.0.values().map(|bytes| String::from_utf8_lossy(bytes));
            let all: Vec<String> = text.map(|text| text.into_owned()).collect();
            let of_attributes = |line: &&str| line.contains(": ");
            let each = all.iter().flat_map(|text| text.lines());
            each.filter(of_attributes).map(str::to_owned).collect()
        };
        let (old, new) = (lines(self), lines(after));
        let gone = old.iter().filter(|line| !new.contains(line));
        let came = new.iter().filter(|line| !old.contains(line));
        let gone = gone.map(|line| format!("- {line}"));
        gone.chain(came.map(|line| format!("+ {line}"))).collect()
    }
}

/// The environment variable with the task of the other process.
const PART: &str = "DEVID_TEST_PART";
const READY: &str = "ready";

/// Starts this test binary again for the ignored test `name` (its module path, which begins with
/// the crate). Returns after the process has called [`say_ready`].
pub fn other_process(name: &str, home: &Home, part: &str) -> Running {
    let mut command = Command::new(env::current_exe().expect("this program has a path"));
    command.args([
        "--exact",
        test_name(name),
        "--ignored",
        "--nocapture",
        "--quiet",
    ]);
    command.env(PART, part).stdout(Stdio::piped());
    let mut running = Running::start(name, home.settle(&mut command));
    let out = running.child().stdout.as_mut().expect("piped");
    let mut lines = BufReader::new(out).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == READY), "{name} did not begin");
    running
}

/// Returns the task of this process, if [`other_process`] started the process.
pub fn part() -> Option<String> {
    env::var(PART).ok()
}

/// Tells the process that called [`other_process`] that this process is ready.
pub fn say_ready() {
    let mut out = std::io::stdout();
    out.write_all(format!("\n{READY}\n").as_bytes())
        .and_then(|()| out.flush())
        .expect("somebody listens");
}

/// Returns a random number below `limit`.
pub fn random(limit: u64) -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: `bytes` is valid for writing its length.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    assert_eq!(got, 8, "getrandom");
    u64::from_ne_bytes(bytes) % limit
}
