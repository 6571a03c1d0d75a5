//! The token of the device's own keys, and calls that make and change objects.

use super::home::Home;
use super::module::{Opened, loaded, ulong};
use super::openssl::{Verifier, element};
use super::programs::{program, run};
use super::raw::{Code, Item, Raw, text};
use cryptoki_sys::*;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::ptr;

pub const YES: &[u8] = &[CK_TRUE];
pub const NO: &[u8] = &[CK_FALSE];
/// 1.2.840.10045.3.1.7, prime256v1
pub const P256: [u8; 10] = [0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
/// 1.3.132.0.34, secp384r1
pub const P384: [u8; 7] = [0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x22];
/// 1.3.132.0.35, secp521r1
pub const P521: [u8; 7] = [0x06, 0x05, 0x2B, 0x81, 0x04, 0x00, 0x23];

/// Arguments of `openssl genpkey`.
pub const P256_KEY: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
pub const RSA_KEY: [&str; 4] = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];

/// The module in this process, with a read-write session on the token `devid`.
pub struct Own(pub Opened);

impl Deref for Own {
    type Target = Opened;

    fn deref(&self) -> &Opened {
        &self.0
    }
}

impl Own {
    #[track_caller]
    pub fn new(home: &Home) -> Own {
        Own::on(home, "devid")
    }

    /// Opens a read-write session on another token.
    #[track_caller]
    pub fn on(home: &Home, token: &str) -> Own {
        let raw = loaded(home);
        raw.initialize().expect("C_Initialize");
        Own::with(raw, token)
    }

    /// Opens a read-write session of an initialised module.
    #[track_caller]
    pub fn with(raw: Raw, token: &str) -> Own {
        let slot = slot_of(&raw, token);
        let session = raw.open(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION);
        let session = session.expect("C_OpenSession");
        Own(Opened { raw, slot, session })
    }

    pub fn create(&self, template: &[Item]) -> Result<CK_OBJECT_HANDLE, Code> {
        create(&self.raw, self.session, template)
    }

    /// Makes a key pair. Returns the public and the private key.
    pub fn generate(
        &self,
        mechanism: CK_MECHANISM_TYPE,
        public: &[Item],
        private: &[Item],
    ) -> Result<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE), Code> {
        generate(&self.raw, self.session, mechanism, public, private)
    }

    /// Makes a P-256 token key pair with this label.
    #[track_caller]
    pub fn pair(&self, label: &str) -> (CK_OBJECT_HANDLE, CK_OBJECT_HANDLE) {
        let both = [(CKA_TOKEN, YES.to_vec()), (CKA_LABEL, label.into())];
        let public = [&both[..], &[(CKA_EC_PARAMS, P256.to_vec())]].concat();
        let made = self.generate(CKM_EC_KEY_PAIR_GEN, &public, &both);
        made.expect("C_GenerateKeyPair")
    }

    pub fn change(&self, object: CK_OBJECT_HANDLE, template: &[Item]) -> Result<(), Code> {
        change(&self.raw, self.session, object, template)
    }

    pub fn destroy(&self, object: CK_OBJECT_HANDLE) -> Result<(), Code> {
        call!(self.raw.table, C_DestroyObject(self.session, object)).result()
    }

    #[track_caller]
    pub fn find(&self, template: &[Item]) -> Vec<CK_OBJECT_HANDLE> {
        self.raw.find(self.session, template).expect("a search")
    }

    /// Returns the objects with this label.
    #[track_caller]
    pub fn labelled(&self, label: &str) -> Vec<CK_OBJECT_HANDLE> {
        self.find(&[(CKA_LABEL, label.into())])
    }

    #[track_caller]
    pub fn attribute(&self, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Vec<u8> {
        let value = self.raw.attribute(self.session, object, kind);
        value.unwrap_or_else(|code| panic!("attribute {kind:#x}: {code:?}"))
    }

    /// Returns a verifier that uses OpenSSL and the public key of this object.
    #[track_caller]
    pub fn verifier(&self, home: &Home, object: CK_OBJECT_HANDLE) -> Verifier {
        let info = self.attribute(object, CKA_PUBLIC_KEY_INFO);
        let file = home.write(&format!("public-{object}.pem"), public_pem(&info));
        Verifier::new(&file)
    }
}

/// Returns a home without TPM. The home has the token `files`, whose keys are in files.
pub fn without_tpm() -> Home {
    let home = Home::new("swtpm:path=/nonexistent/tpm");
    allow_files(&home);
    home
}

/// Configures the token `files`, whose keys are in files. Its key folder has this name.
pub fn allow_files(home: &Home) {
    let path = home.path("files");
    let settings = format!(
        "[[token]]\nname = \"files\"\npath = \"{}\"\nallow_file_keys = true\n",
        path.display()
    );
    home.write("config.toml", settings);
}

/// Returns a SubjectPublicKeyInfo as PEM.
pub fn public_pem(info: &[u8]) -> String {
    pem("PUBLIC KEY", info)
}

fn pem(label: &str, der: &[u8]) -> String {
    use std::fmt::Write;
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for (n, three) in der.chunks(3).enumerate() {
        let number = three.iter().chain(&[0, 0]).take(3);
        let number = number.fold(0, |number, byte| number << 8 | u32::from(*byte));
        for (place, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = ALPHABET[(number >> shift & 63) as usize];
            text.push(if place <= three.len() {
                digit.into()
            } else {
                '='
            });
        }
        if n % 16 == 15 {
            text.push('\n');
        }
    }
    writeln!(text, "\n-----END {label}-----").expect("a string takes all");
    text
}

/// Returns the slot of the token with this label.
#[track_caller]
pub fn slot_of(raw: &Raw, label: &str) -> CK_SLOT_ID {
    let slots = raw.slots(true).expect("C_GetSlotList");
    let is = |slot: &CK_SLOT_ID| {
        let info = raw.token_info(*slot);
        info.is_ok_and(|info| text(&info.label) == label)
    };
    let found = slots.into_iter().find(is);
    found.unwrap_or_else(|| panic!("no token {label:?}"))
}

pub fn create(
    raw: &Raw,
    session: CK_SESSION_HANDLE,
    template: &[Item],
) -> Result<CK_OBJECT_HANDLE, Code> {
    let (mut items, mut object) = (attributes(template), 0);
    let (at, count) = (items.as_mut_ptr(), items.len() as CK_ULONG);
    call!(
        raw.table,
        C_CreateObject(session, at, count, &raw mut object)
    )
    .result()?;
    Ok(object)
}

pub fn generate(
    raw: &Raw,
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_TYPE,
    public: &[Item],
    private: &[Item],
) -> Result<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE), Code> {
    let (mut public, mut private) = (attributes(public), attributes(private));
    let mut mechanism = CK_MECHANISM {
        mechanism,
        pParameter: ptr::null_mut(),
        ulParameterLen: 0,
    };
    let (mut one, mut other) = (0, 0);
    let (public_at, public_count) = (public.as_mut_ptr(), public.len() as CK_ULONG);
    let (private_at, private_count) = (private.as_mut_ptr(), private.len() as CK_ULONG);
    call!(
        raw.table,
        C_GenerateKeyPair(
            session,
            &raw mut mechanism,
            public_at,
            public_count,
            private_at,
            private_count,
            &raw mut one,
            &raw mut other
        )
    )
    .result()?;
    Ok((one, other))
}

/// Calls C_GenerateKey.
pub fn generate_key(
    raw: &Raw,
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_TYPE,
    template: &[Item],
) -> Result<CK_OBJECT_HANDLE, Code> {
    let mut items = attributes(template);
    let mut mechanism = CK_MECHANISM {
        mechanism,
        pParameter: ptr::null_mut(),
        ulParameterLen: 0,
    };
    let (by, mut made) = (&raw mut mechanism, 0);
    let (at, count) = (items.as_mut_ptr(), items.len() as CK_ULONG);
    call!(
        raw.table,
        C_GenerateKey(session, by, at, count, &raw mut made)
    )
    .result()?;
    Ok(made)
}

pub fn change(
    raw: &Raw,
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: &[Item],
) -> Result<(), Code> {
    let mut items = attributes(template);
    let (at, count) = (items.as_mut_ptr(), items.len() as CK_ULONG);
    call!(raw.table, C_SetAttributeValue(session, object, at, count)).result()
}

pub fn attributes(template: &[Item]) -> Vec<CK_ATTRIBUTE> {
    let items = template.iter().map(|(kind, value)| CK_ATTRIBUTE {
        type_: *kind,
        pValue: value.as_ptr().cast_mut().cast(),
        ulValueLen: value.len() as CK_ULONG,
    });
    items.collect()
}

/// Returns a template for the public P-256 key in a PEM file.
pub fn ec_public(public: &Path) -> Vec<Item> {
    vec![
        (CKA_CLASS, ulong(CKO_PUBLIC_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_EC)),
        (CKA_EC_PARAMS, P256.to_vec()),
        (CKA_EC_POINT, element(0x04, &super::openssl::point(public))),
    ]
}

/// Returns the files of the key folder, sorted by name.
pub fn folder(home: &Home) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.path("state/devid"));
    let entries = entries.into_iter().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|kind| kind == "pem"));
    files.sort();
    files
}

/// Makes a key pair with OpenSSL and a certificate for it, in the home: `NAME.key`, `NAME.pub`,
/// `NAME.pem`.
pub fn outside(home: &Home, name: &str, algorithm: &[&str]) {
    let key = home.path(&format!("{name}.key"));
    let (public, certificate) = (key.with_extension("pub"), key.with_extension("pem"));
    let openssl = |arguments: &[&str], files: &[(&str, &Path)]| {
        let mut command = program("openssl");
        command.args(arguments);
        for (option, file) in files {
            command.arg(option).arg(file);
        }
        run(&mut command).ok();
    };
    openssl(&[&["genpkey"], algorithm].concat(), &[("-out", &key)]);
    openssl(&["pkey", "-pubout"], &[("-in", &key), ("-out", &public)]);
    let subject = format!("/CN={name}");
    let request = ["req", "-x509", "-new", "-days", "30", "-subj", &subject];
    openssl(&request, &[("-key", &key), ("-out", &certificate)]);
}
