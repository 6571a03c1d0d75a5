//! The device for the stories of this folder: a TPM with certified endorsement keys, a home folder,
//! and the tool.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use testkit::endorsed::{Maker, P384, RSA};
use testkit::home::Home;
use testkit::module::tool;
use testkit::programs::{Said, run};
use testkit::tpm::Swtpm;

/// A template for endorsement keys (TCG, EK Credential Profile for TPM 2.0, annex B).
pub struct Template {
    pub name: &'static str,
    /// The NV index of its certificate.
    pub certificate: u32,
    algorithm: &'static str,
    hash: &'static str,
    policy: &'static str,
}

/// PolicyA with SHA-256, of the low range; tpm2_createek makes keys of it.
const LOW: &str = "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa";

/// Templates that swtpm makes. L-1 and H-3 have certificates from swtpm's own tools.
pub const TEMPLATES: [Template; 6] = [
    Template::new("L-1", RSA, "rsa", "sha256", LOW),
    Template::new("L-2", 0x01C0_000A, "ecc", "sha256", LOW),
    Template::new("H-1", 0x01C0_0012, "rsa2048:aes128cfb", "sha256", HIGH_256),
    Template::new("H-2", 0x01C0_0014, "ecc256:aes128cfb", "sha256", HIGH_256),
    Template::new("H-3", P384, "ecc384:aes256cfb", "sha384", ""),
    Template::new("H-4", 0x01C0_0018, "ecc521:aes256cfb", "sha512", HIGH_512),
];

/// PolicyB of the high range.
const HIGH_256: &str = "ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0";
const HIGH_512: &str = "b8221ca69e8550a4914de3faa6a18c072cc01208073a928d5d66d59ef79e49a4\
                        29c41a6b269571d57edb25fbdb1838425608b413cd616a5f6db5b6071af99bea";

impl Template {
    const fn new(
        name: &'static str,
        certificate: u32,
        algorithm: &'static str,
        hash: &'static str,
        policy: &'static str,
    ) -> Template {
        Template {
            name,
            certificate,
            algorithm,
            hash,
            policy,
        }
    }
}

/// A device.
pub struct Device {
    pub tpm: Swtpm,
    pub maker: Maker,
    pub home: Home,
}

impl Device {
    pub fn new() -> Device {
        Device::of(Swtpm::endorsed(1))
    }

    /// A device of another maker, with another TPM.
    pub fn other() -> Device {
        Device::of(Swtpm::endorsed(2))
    }

    fn of((tpm, maker): (Swtpm, Maker)) -> Device {
        let home = Home::new(&tpm.tcti());
        Device { tpm, maker, home }
    }

    /// With a factory identity, of these options for scripts/factory, and with an attestation key of these.
    pub fn with_factory(identity: &[&str], attestation: &[&str]) -> Device {
        let device = Device::new();
        let mut options = identity.to_vec();
        device.manufacture(&options);
        options = [&["--iak"], attestation].concat();
        device.manufacture(&options);
        device
    }

    /// A device with one certified endorsement key, which has this template of the TCG.
    pub fn endorsed_by(template: &Template) -> Device {
        let device = Device::new();
        for index in [RSA, P384] {
            if index != template.certificate {
                device.tpm.without_certificate(index);
            }
        }
        if [RSA, P384].contains(&template.certificate) {
            return device;
        }
        device.tpm.without_endorsement_handles();
        if template.policy == LOW {
            device.tpm2("tpm2_createek", &["-c", "ek.ctx", "-G", template.algorithm]);
        } else {
            device.home.write("policy", from_hex(template.policy));
            let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|adminwithpolicy|\
                              restricted|decrypt";
            let mut create = vec!["-C", "e", "-G", template.algorithm, "-g", template.hash];
            create.extend(["-a", attributes, "-L", "policy", "-c", "ek.ctx"]);
            device.tpm2("tpm2_createprimary", &create);
        }
        device.tpm2(
            "tpm2_readpublic",
            &["-c", "ek.ctx", "-f", "der", "-o", "ek.der"],
        );
        device.tpm2("tpm2_flushcontext", &["-t"]);
        device.home.write(
            "ek.ext",
            "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=2.23.133.8.1\n",
        );
        let mut issue = testkit::programs::program("openssl");
        issue.args([
            "x509", "-new", "-subj", "/CN=TPM", "-days", "9", "-outform", "DER",
        ]);
        issue.arg("-force_pubkey").arg(device.path("ek.der"));
        issue.arg("-CA").arg(device.maker.issuer());
        issue.arg("-CAkey").arg(device.maker.issuer_key());
        issue.arg("-extfile").arg(device.path("ek.ext"));
        run(issue.arg("-out").arg(device.path("ek.cer"))).ok();
        let certificate = fs::read(device.path("ek.cer")).unwrap();
        device.put_certificate(template.certificate, &certificate);
        device
    }

    /// Fills the maker's NV index for a certificate, which is free.
    pub fn put_certificate(&self, index: u32, content: &[u8]) {
        let attributes = "ppread|ppwrite|authread|ownerread|no_da|platformcreate|writedefine";
        let (size, index) = (content.len().to_string(), format!("{index:#x}"));
        let define = ["-C", "p", "-s", &size, "-a", attributes, &index];
        self.tpm2("tpm2_nvdefine", &define);
        for (at, piece) in content.chunks(512).enumerate() {
            fs::write(self.path("piece"), piece).unwrap();
            let offset = (at * 512).to_string();
            let write = ["-C", "p", "-i", "piece", "--offset", &offset, &index];
            self.tpm2("tpm2_nvwrite", &write);
        }
    }

    /// Runs scripts/factory.
    pub fn manufacture(&self, options: &[&str]) -> testkit::factory::Identity {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        testkit::factory::run(&self.tpm.tcti(), &self.home.path("factory"), &options)
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(tool());
        self.home.settle(command.args(words).stdin(Stdio::null()));
        command
    }

    pub fn devid(&self, words: &[&str]) -> Said {
        run(&mut self.command(words))
    }

    /// Runs the command, which must end with this code.
    #[track_caller]
    pub fn ends(&self, code: i32, words: &[&str]) -> Said {
        let said = self.devid(words);
        assert_eq!(said.status.code(), Some(code), "{said}");
        said
    }

    /// Runs the command, which must be refused with all of these words.
    #[track_caller]
    pub fn refuses(&self, code: i32, words: &[&str], said: &[&str]) -> Said {
        let answer = self.ends(code, words);
        let text = answer.err.clone();
        for word in said {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
        answer
    }

    /// Evidence of a key.
    #[track_caller]
    pub fn attest(&self, words: &[&str]) -> Bundle {
        let said = self.ends(0, &[&["attest"], words].concat());
        Bundle::read(&said.out)
    }

    #[track_caller]
    pub fn generate(&self, label: &str, options: &[&str]) {
        self.ends(0, &[&["key", "generate", label], options].concat());
    }

    /// Runs a program of tpm2-tools in the home.
    #[track_caller]
    pub fn tpm2(&self, name: &str, words: &[&str]) -> Said {
        let mut tool = self.tpm.tool(name);
        run(tool.args(words).current_dir(self.home.folder())).ok()
    }

    /// No object of ours is loaded, and no try was counted.
    #[track_caller]
    pub fn is_clean(&self) {
        assert_eq!(self.tpm.transients(), 0, "transient objects");
        assert_eq!(self.tpm.sessions(), 0, "loaded sessions");
        assert_eq!(self.tpm.lockout_counter(), 0, "failed tries");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path(name)
    }

    /// The path as a word.
    pub fn word(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

/// An evidence bundle.
pub struct Bundle {
    pub json: Value,
    folder: tempfile::TempDir,
}

impl Bundle {
    #[track_caller]
    pub fn read(document: &[u8]) -> Bundle {
        let json: Value = serde_json::from_slice(document).expect("JSON");
        assert_eq!(json["format"], "devid-evidence/1");
        Bundle {
            json,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    #[track_caller]
    pub fn of_file(path: &Path) -> Bundle {
        Bundle::read(&fs::read(path).unwrap())
    }

    /// The byte string at a path with slashes.
    #[track_caller]
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        let value = self.json.pointer(&format!("/{path}"));
        let text = value.and_then(Value::as_str);
        from_base64(text.unwrap_or_else(|| panic!("no {path}")))
    }

    pub fn count(&self, path: &str) -> usize {
        let list = self.json.pointer(&format!("/{path}"));
        list.and_then(Value::as_array).map_or(0, Vec::len)
    }

    /// A file with these bytes.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn from_hex(digits: &str) -> Vec<u8> {
    let pairs = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| str::from_utf8(pair).unwrap());
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

/// RFC 4648, section 4.
pub fn from_base64(text: &str) -> Vec<u8> {
    let mut decode = testkit::programs::program("openssl");
    decode.args(["base64", "-d", "-A"]);
    testkit::programs::run_with(&mut decode, text.as_bytes())
        .ok()
        .out
}

pub fn to_base64(bytes: &[u8]) -> String {
    let mut encode = testkit::programs::program("openssl");
    encode.args(["base64", "-A"]);
    let said = testkit::programs::run_with(&mut encode, bytes).ok();
    said.text().trim().to_owned()
}
