//! The token `devid` with PINs, on a device with a factory identity. The factory identity must
//! still sign.

use super::factory::Identity;
use super::home::Home;
use super::link::Link;
use super::module::{library, loaded, ulong};
use super::openssl::Verifier;
use super::own::{NO, P256, YES, generate, public_pem, slot_of};
use super::programs::{Said, output, program, run};
use super::proxy::Proxy;
use super::raw::{Code, Item, Raw};
use super::tpm::Swtpm;
use cryptoki_sys::*;
use std::fs;
use std::path::{Path, PathBuf};

pub const OFFICER: &str = "the officer's own";
pub const USER: &str = "open sesame";
pub const LABEL: &str = "device keys";

/// The token flags that warn about wrong PINs (CKF_USER_PIN_COUNT_LOW and others).
pub const CARE: CK_FLAGS = CKF_USER_PIN_COUNT_LOW
    | CKF_USER_PIN_FINAL_TRY
    | CKF_USER_PIN_LOCKED
    | CKF_SO_PIN_COUNT_LOW
    | CKF_SO_PIN_FINAL_TRY
    | CKF_SO_PIN_LOCKED;

pub struct Bench {
    pub tpm: Swtpm,
    pub identity: Identity,
    pub proxy: Proxy,
    pub home: Home,
}

impl Bench {
    pub fn new(link: Link) -> Bench {
        let (tpm, identity) = Swtpm::manufactured();
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        Bench {
            tpm,
            identity,
            proxy,
            home,
        }
    }

    /// Creates a bench, and a token that has both PINs already.
    pub fn with_pins(link: Link) -> (Bench, Token) {
        let bench = Bench::new(link);
        let token = bench.token();
        token.become_one_with_pins();
        (bench, token)
    }

    /// Loads the module without opening a session.
    pub fn token(&self) -> Token {
        let raw = loaded(&self.home);
        raw.initialize().expect("C_Initialize");
        // The token is in the slot after the factory's slot, whatever its label.
        let slot = raw.slots(true).expect("C_GetSlotList")[1];
        Token { raw, slot }
    }

    #[track_caller]
    pub fn counts(&self, tries: u32) {
        assert_eq!(self.tpm.lockout_counter(), tries, "failed tries");
    }

    /// Checks that the factory identity signs, that OpenSSL verifies the signature, and that the
    /// TPM counts this number of failed tries.
    #[track_caller]
    pub fn idev_id_signs(&self, raw: &Raw, tries: u32) {
        self.counts(tries);
        let session = raw.open(slot_of(raw, "idev-id"), CKF_SERIAL_SESSION);
        let session = session.expect("C_OpenSession");
        let key = raw.find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
        raw.sign_init(session, CKM_ECDSA_SHA256, key.unwrap()[0])
            .expect("C_SignInit");
        let signature = raw.sign(session, b"data").expect("idev-id signs");
        let judge = Verifier::new(&self.identity.public_key());
        judge.accepts_message("-sha256", b"data", &signature).ok();
        raw.close(session).expect("C_CloseSession");
    }

    pub fn program(&self, name: &str, arguments: &[&str]) -> Said {
        let mut command = program(name);
        run(self.home.settle(command.args(arguments)))
    }

    pub fn pkcs11_tool(&self, arguments: &[&str]) -> Said {
        let library = library();
        let module = ["--module", library.to_str().unwrap()];
        self.program("pkcs11-tool", &[&module, arguments].concat())
    }

    pub fn p11tool(&self, arguments: &[&str]) -> Said {
        let library = library();
        let module = ["--provider", library.to_str().unwrap(), "--batch"];
        self.program("p11tool", &[&module, arguments].concat())
    }

    /// Returns true if the persistent handle is in use.
    pub fn holds(&self, handle: u32) -> bool {
        let listed = run(self.tpm.tool("tpm2_getcap").arg("handles-persistent"));
        let handle = format!("0x{handle:X}");
        listed
            .ok()
            .text()
            .to_uppercase()
            .contains(&handle.to_uppercase())
    }

    pub fn path(&self, name: &str) -> String {
        self.home.path(name).to_str().unwrap().to_owned()
    }
}

/// The module in this process, and the slot of its token.
pub struct Token {
    pub raw: Raw,
    pub slot: CK_SLOT_ID,
}

impl Token {
    pub fn init(&self, pin: &str, label: &str) -> Result<(), Code> {
        let mut pin = pin.as_bytes().to_vec();
        let length = pin.len() as CK_ULONG;
        let mut label = format!("{label:<32}").into_bytes();
        let (pin, label) = (pin.as_mut_ptr(), label.as_mut_ptr());
        call!(self.raw.table, C_InitToken(self.slot, pin, length, label)).result()
    }

    pub fn init_pin(&self, session: CK_SESSION_HANDLE, pin: &str) -> Result<(), Code> {
        let mut pin = pin.as_bytes().to_vec();
        let length = pin.len() as CK_ULONG;
        call!(self.raw.table, C_InitPIN(session, pin.as_mut_ptr(), length)).result()
    }

    pub fn set_pin(&self, session: CK_SESSION_HANDLE, old: &str, new: &str) -> Result<(), Code> {
        let (mut old, mut new) = (old.as_bytes().to_vec(), new.as_bytes().to_vec());
        let (old_length, new_length) = (old.len() as CK_ULONG, new.len() as CK_ULONG);
        let (old, new) = (old.as_mut_ptr(), new.as_mut_ptr());
        call!(
            self.raw.table,
            C_SetPIN(session, old, old_length, new, new_length)
        )
        .result()
    }

    /// Calls C_InitToken; the security officer then sets the user's PIN. Leaves no session open.
    #[track_caller]
    pub fn become_one_with_pins(&self) {
        self.init(OFFICER, LABEL).expect("C_InitToken");
        let session = self.read_write();
        self.raw
            .login(session, CKU_SO, OFFICER.as_bytes())
            .expect("C_Login of the officer");
        self.init_pin(session, USER).expect("C_InitPIN");
        self.raw.close(session).expect("C_CloseSession");
    }

    #[track_caller]
    pub fn read_write(&self) -> CK_SESSION_HANDLE {
        let session = self
            .raw
            .open(self.slot, CKF_SERIAL_SESSION | CKF_RW_SESSION);
        session.expect("C_OpenSession")
    }

    #[track_caller]
    pub fn read_only(&self) -> CK_SESSION_HANDLE {
        let session = self.raw.open(self.slot, CKF_SERIAL_SESSION);
        session.expect("C_OpenSession")
    }

    pub fn login(&self, session: CK_SESSION_HANDLE, pin: &str) -> Result<(), Code> {
        self.raw.login(session, CKU_USER, pin.as_bytes())
    }

    pub fn officer(&self, session: CK_SESSION_HANDLE, pin: &str) -> Result<(), Code> {
        self.raw.login(session, CKU_SO, pin.as_bytes())
    }

    pub fn prove(&self, session: CK_SESSION_HANDLE, pin: &str) -> Result<(), Code> {
        self.raw
            .login(session, CKU_CONTEXT_SPECIFIC, pin.as_bytes())
    }

    #[track_caller]
    pub fn state(&self, session: CK_SESSION_HANDLE) -> CK_STATE {
        self.raw.session_info(session).expect("a session").state
    }

    #[track_caller]
    pub fn flags(&self) -> CK_FLAGS {
        self.raw.token_info(self.slot).expect("a token").flags
    }

    /// Makes a P-256 token key pair with this label. The private key has CKA_PRIVATE true.
    #[track_caller]
    pub fn pair(
        &self,
        session: CK_SESSION_HANDLE,
        label: &str,
        more: &[Item],
    ) -> (CK_OBJECT_HANDLE, CK_OBJECT_HANDLE) {
        let both = [(CKA_TOKEN, YES.to_vec()), (CKA_LABEL, label.into())];
        let open = [(CKA_PRIVATE, NO.to_vec()), (CKA_EC_PARAMS, P256.to_vec())];
        let public = [&both[..], &open].concat();
        let private = [&both[..], &[(CKA_PRIVATE, YES.to_vec())], more].concat();
        let made = generate(&self.raw, session, CKM_EC_KEY_PAIR_GEN, &public, &private);
        made.expect("C_GenerateKeyPair")
    }

    pub fn private_keys(&self, session: CK_SESSION_HANDLE) -> Vec<CK_OBJECT_HANDLE> {
        let template = [(CKA_CLASS, ulong(CKO_PRIVATE_KEY))];
        self.raw.find(session, &template).expect("a search")
    }

    pub fn sign(&self, session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> Result<Vec<u8>, Code> {
        self.raw.sign_init(session, CKM_ECDSA_SHA256, key)?;
        self.raw.sign(session, b"data")
    }

    /// Returns a verifier that uses OpenSSL and this public key of the token.
    #[track_caller]
    pub fn verifier(
        &self,
        bench: &Bench,
        session: CK_SESSION_HANDLE,
        public: CK_OBJECT_HANDLE,
    ) -> Verifier {
        let info = self.raw.attribute(session, public, CKA_PUBLIC_KEY_INFO);
        let pem = public_pem(&info.expect("a public key"));
        Verifier::new(&bench.home.write(&format!("public-{public}.pem"), pem))
    }
}

/// Returns the content of a sealed object in the folder. tpm2-tools unseals it with the
/// authorisation value of this PIN. Fails with the message of tpm2-tools.
pub fn unseal(bench: &Bench, seal: &str, pin: &str) -> Result<Vec<u8>, String> {
    unseal_by(bench, seal, &value_of(pin))
}

/// Returns the content of a sealed object, with an authorisation value that may be empty.
pub fn unseal_by(bench: &Bench, seal: &str, value: &[u8]) -> Result<Vec<u8>, String> {
    let tool = |name: &str, arguments: &[&str]| {
        let said = run(bench.tpm.tool(name).args(arguments));
        match said.status.success() {
            true => Ok(said.out),
            false => Err(said.all()),
        }
    };
    let [public, private, context] =
        ["seal.pub", "seal.priv", "seal.ctx"].map(|name| bench.path(name));
    let parts = sealed_parts(seal);
    bench.home.write("seal.pub", &parts.0);
    bench.home.write("seal.priv", &parts.1);
    tool(
        "tpm2_load",
        &[
            "-C",
            "0x81000080",
            "-u",
            &public,
            "-r",
            &private,
            "-c",
            &context,
        ],
    )?;
    let password = format!("hex:{}", hex(value));
    let opened = match value {
        [] => tool("tpm2_unseal", &["-c", &context]),
        _ => tool("tpm2_unseal", &["-c", &context, "-p", &password]),
    };
    tool("tpm2_flushcontext", &["-t"])?;
    opened
}

/// Returns the authorisation value that the module derives from a PIN.
pub fn value_of(pin: &str) -> Vec<u8> {
    super::openssl::digest("-sha256", pin.as_bytes())
}

/// Returns the TPM2B_PUBLIC and TPM2B_PRIVATE of a TSSPRIVKEY in PEM. They are its last two octet
/// strings.
pub fn sealed_parts(file: &str) -> (Vec<u8>, Vec<u8>) {
    let der = output(
        "openssl",
        ["asn1parse", "-in", file, "-noout", "-out", "/dev/stdout"],
    );
    let listed = output("openssl", ["asn1parse", "-in", file]);
    let listed = String::from_utf8(listed).expect("text");
    let strings = listed.lines().filter(|line| line.contains("OCTET STRING"));
    let mut parts: Vec<_> = strings
        .map(|line| {
            let field = |name: &str| -> usize {
                let (_, rest) = line.split_once(name).expect("a field");
                let digits = rest
                    .trim_start()
                    .split(|c: char| !c.is_ascii_digit())
                    .next();
                digits.expect("digits").parse().expect("a number")
            };
            let (offset, _) = line.split_once(':').expect("an offset");
            let from = offset.trim().parse::<usize>().expect("a number") + field("hl=");
            der[from..from + field(" l=")].to_vec()
        })
        .collect();
    let private = parts.pop().expect("the private part");
    (parts.pop().expect("the public part"), private)
}

/// Returns the authorisation value of a token key, derived from the token's secret. Checks it with
/// tpm2-tools.
pub fn key_value(bench: &Bench, secret: &[u8]) -> Vec<u8> {
    let key = key_with_value(bench);
    let derived = value_derived(&key, secret);
    opens(bench, &key, &hex(&derived));
    derived
}

/// Returns the file of a key that has an authorisation value.
pub fn key_with_value(bench: &Bench) -> PathBuf {
    let files = fs::read_dir(bench.path("state/devid")).unwrap();
    files
        .map(|entry| entry.unwrap().path())
        .find(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("Auth")))
        .expect("a key whose file names its salt")
}

/// Derives a value by HKDF of OpenSSL, with the salt in the key's file.
pub fn value_derived(key: &Path, secret: &[u8]) -> Vec<u8> {
    let text = fs::read_to_string(key).unwrap();
    let line = text.lines().find(|line| line.starts_with("Auth"));
    let (_, salt) = line.unwrap().rsplit_once(' ').unwrap();
    let info = [b"devid-pkcs11 key ".to_vec(), bytes_of(salt)].concat();
    let (secret, info) = (
        format!("hexkey:{}", hex(secret)),
        format!("hexinfo:{}", hex(&info)),
    );
    let options = ["digest:SHA256", &secret, &info].map(|option| ["-kdfopt", option]);
    let begin = ["kdf", "-binary", "-keylen", "32"];
    output(
        "openssl",
        [&begin[..], options.as_flattened(), &["HKDF"]].concat(),
    )
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks that tpm2-tools can sign with only the key's file and this value.
fn opens(bench: &Bench, key: &Path, value: &str) {
    let (public, private) = sealed_parts(key.to_str().unwrap());
    let [public, private] = [("key.pub", public), ("key.priv", private)]
        .map(|(name, bytes)| bench.home.write(name, bytes));
    let (context, signature) = (bench.path("key.ctx"), bench.path("key.sig"));
    let mut load = bench.tpm.tool("tpm2_load");
    load.args(["-C", "0x81000080", "-c", &context, "-u"])
        .arg(public)
        .arg("-r")
        .arg(private);
    run(&mut load).ok();
    for (value, right) in [("00", false), (value, true)] {
        let mut sign = bench.tpm.tool("tpm2_sign");
        sign.args([
            "-c",
            &context,
            "-p",
            &format!("hex:{value}"),
            "-o",
            &signature,
        ]);
        let said = run(sign.arg(bench.home.write("data", b"data")));
        assert_eq!(said.status.success(), right, "{said}");
    }
    run(bench.tpm.tool("tpm2_flushcontext").arg("-t")).ok();
}

fn bytes_of(digits: &str) -> Vec<u8> {
    let pairs = (0..digits.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}
