//! Keys that OpenSSL wrapped, and calls that unwrap them.

use super::ciphers::{mechanism, openssl_encrypts};
use super::home::Home;
use super::module::ulong;
use super::openssl::{Verifier, digest};
use super::own::{Own, P256_KEY, RSA_KEY, YES, attributes, outside};
use super::programs::{output, program, run};
use super::raw::{Code, Item};
use cryptoki_sys::*;
use std::fs;
use std::path::PathBuf;
use std::ptr;

const P384_KEY: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];

/// The keys to wrap: `NAME.key` and `NAME.pub` in the home.
pub const KEYS: [(&str, [&str; 4], CK_ULONG); 3] = [
    ("rsa", RSA_KEY, CKK_RSA),
    ("p256", P256_KEY, CKK_EC),
    ("p384", P384_KEY, CKK_EC),
];

/// An AES key wrap in the terms of OpenSSL, with its initial value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AesWrap {
    Kw,
    Kwp,
}

impl AesWrap {
    pub fn kind(self) -> CK_MECHANISM_TYPE {
        match self {
            AesWrap::Kw => CKM_AES_KEY_WRAP,
            AesWrap::Kwp => CKM_AES_KEY_WRAP_KWP,
        }
    }

    /// Returns the mechanism without a parameter.
    pub fn plain(self) -> CK_MECHANISM {
        mechanism::<u8>(self.kind(), None)
    }

    /// Wraps `data` with OpenSSL under this AES key.
    #[track_caller]
    pub fn wraps(self, home: &Home, key: &[u8], data: &[u8]) -> Vec<u8> {
        let bits = 8 * key.len();
        let (name, initial) = match self {
            AesWrap::Kw => (format!("-id-aes{bits}-wrap"), "A6A6A6A6A6A6A6A6"),
            AesWrap::Kwp => (format!("-id-aes{bits}-wrap-pad"), "A65959A6"),
        };
        let (from, to) = (home.write("wrap.in", data), home.path("wrap.out"));
        let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut command = program("openssl");
        command.args(["enc", &name, "-iv", initial, "-K", &key]);
        run(command.arg("-in").arg(from).arg("-out").arg(&to)).ok();
        fs::read(to).expect("a file")
    }
}

/// Wraps `data` with OpenSSL under a new AES key, and wraps this key for the RSA key in the file.
#[track_caller]
pub fn openssl_wraps(
    home: &Home,
    public: &PathBuf,
    (bits, hash): (usize, &str),
    data: &[u8],
) -> Vec<u8> {
    let key = random(bits / 8);
    let front = openssl_encrypts(home, public, &oaep_options(hash), &key);
    [front, AesWrap::Kwp.wraps(home, &key, data)].concat()
}

/// Returns the options of `openssl pkeyutl` for OAEP with this hash, for label and mask.
pub fn oaep_options(hash: &str) -> [&str; 2] {
    let options = match hash {
        "sha1" => "rsa_oaep_md:sha1",
        "sha256" => "rsa_oaep_md:sha256",
        "sha384" => "rsa_oaep_md:sha384",
        _ => "rsa_oaep_md:sha512",
    };
    ["rsa_padding_mode:oaep", options]
}

pub fn random(length: usize) -> Vec<u8> {
    output("openssl", ["rand", &length.to_string()])
}

/// Returns the PrivateKeyInfo of a key of OpenSSL in the home, `NAME.key`.
#[track_caller]
pub fn private_key_info(home: &Home, name: &str) -> Vec<u8> {
    let file = home.path(&format!("{name}.key"));
    let file = file.to_str().expect("a path in UTF-8");
    let arguments = [
        "pkcs8", "-topk8", "-nocrypt", "-outform", "DER", "-in", file,
    ];
    output("openssl", arguments)
}

pub fn rsa_aes(bits: CK_ULONG, oaep: &CK_RSA_PKCS_OAEP_PARAMS) -> CK_RSA_AES_KEY_WRAP_PARAMS {
    CK_RSA_AES_KEY_WRAP_PARAMS {
        ulAESKeyBits: bits,
        pOAEPParams: ptr::from_ref(oaep).cast_mut(),
    }
}

/// Returns the template of an unwrapped private key of this type.
pub fn wanted(key_type: CK_KEY_TYPE, more: &[Item]) -> Vec<Item> {
    let least = [
        (CKA_CLASS, ulong(CKO_PRIVATE_KEY)),
        (CKA_KEY_TYPE, ulong(key_type)),
    ];
    [&least[..], more].concat()
}

impl Own {
    pub fn unwrap(
        &self,
        mut by: CK_MECHANISM,
        key: CK_ULONG,
        wrapped: &[u8],
        template: &[Item],
    ) -> Result<CK_ULONG, Code> {
        let (mut items, mut made) = (attributes(template), 0);
        let (at, count) = (items.as_mut_ptr(), items.len() as CK_ULONG);
        let (from, length) = (wrapped.as_ptr().cast_mut(), wrapped.len() as CK_ULONG);
        call!(
            self.raw.table,
            C_UnwrapKey(
                self.session,
                &raw mut by,
                key,
                from,
                length,
                at,
                count,
                &raw mut made
            )
        )
        .result()?;
        Ok(made)
    }

    /// Makes an RSA-2048 token key pair that unwraps.
    #[track_caller]
    pub fn unwrapping(&self, also: &[Item]) -> (CK_ULONG, CK_ULONG) {
        let token = (CKA_TOKEN, YES.to_vec());
        let public = [token.clone(), (CKA_MODULUS_BITS, ulong(2048))];
        let private = [&[token, (CKA_UNWRAP, YES.to_vec())], also].concat();
        let made = self.generate(CKM_RSA_PKCS_KEY_PAIR_GEN, &public, &private);
        made.expect("C_GenerateKeyPair")
    }

    /// Makes a session secret key with these bytes, which unwraps.
    pub fn transport(&self, key_type: CK_KEY_TYPE, value: &[u8]) -> Result<CK_ULONG, Code> {
        self.create(&[
            (CKA_CLASS, ulong(CKO_SECRET_KEY)),
            (CKA_KEY_TYPE, ulong(key_type)),
            (CKA_VALUE, value.to_vec()),
            (CKA_UNWRAP, YES.to_vec()),
        ])
    }
}

/// Makes the keys of [`KEYS`].
pub fn keys(home: &Home) {
    for (name, algorithm, _) in KEYS {
        outside(home, name, &algorithm);
    }
}

pub fn signs_as(own: &Own, home: &Home, key: CK_ULONG, name: &str) {
    let verifier = Verifier::new(&home.path(&format!("{name}.pub")));
    let digest = digest("-sha256", b"data");
    match name {
        "rsa" => {
            let signature = own.sign(CKM_SHA256_RSA_PKCS, key, b"data").unwrap();
            verifier.accepts_pkcs1("sha256", &digest, &signature).ok();
        }
        _ => {
            let signature = own.sign(CKM_ECDSA_SHA256, key, b"data").unwrap();
            let said = verifier.accepts_message("-sha256", b"data", &signature);
            said.ok();
        }
    }
}

/// Returns a key of OpenSSL, wrapped by OpenSSL under this AES key.
#[track_caller]
pub fn by_aes_wrapped(home: &Home, value: &[u8], name: &str) -> Vec<u8> {
    AesWrap::Kwp.wraps(home, value, &private_key_info(home, name))
}
