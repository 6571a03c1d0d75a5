//! Calls that encrypt, decrypt and derive. OpenSSL checks their results.

use super::home::Home;
use super::link::Link;
use super::module::ulong;
use super::own::{NO, Own, P256_KEY, YES, attributes, generate_key, outside, public_pem};
use super::programs::{output, program, run};
use super::proxy::Proxy;
use super::raw::{Code, Item};
use super::tpm::Swtpm;
use cryptoki_sys::*;
use std::fs;
use std::path::PathBuf;
use std::ptr;

/// Returns a mechanism with this parameter.
pub fn mechanism<T>(mechanism: CK_MECHANISM_TYPE, parameter: Option<&T>) -> CK_MECHANISM {
    let (at, length) = match parameter {
        Some(parameter) => (ptr::from_ref(parameter).cast_mut().cast(), size_of::<T>()),
        None => (ptr::null_mut(), 0),
    };
    CK_MECHANISM {
        mechanism,
        pParameter: at,
        ulParameterLen: length as CK_ULONG,
    }
}

/// Returns the mechanism CKM_RSA_PKCS.
pub fn pkcs1() -> CK_MECHANISM {
    mechanism::<u8>(CKM_RSA_PKCS, None)
}

pub fn oaep(hash: CK_ULONG, mgf: CK_ULONG, label: &[u8]) -> CK_RSA_PKCS_OAEP_PARAMS {
    CK_RSA_PKCS_OAEP_PARAMS {
        hashAlg: hash,
        mgf,
        source: CKZ_DATA_SPECIFIED,
        pSourceData: match label {
            [] => ptr::null_mut(),
            label => label.as_ptr().cast_mut().cast(),
        },
        ulSourceDataLen: label.len() as CK_ULONG,
    }
}

pub fn ecdh(kdf: CK_ULONG, shared: &[u8], public: &[u8]) -> CK_ECDH1_DERIVE_PARAMS {
    CK_ECDH1_DERIVE_PARAMS {
        kdf,
        ulSharedDataLen: shared.len() as CK_ULONG,
        pSharedData: shared.as_ptr().cast_mut(),
        ulPublicDataLen: public.len() as CK_ULONG,
        pPublicData: public.as_ptr().cast_mut(),
    }
}

pub fn gcm(iv: &[u8], aad: &[u8], tag_bits: CK_ULONG) -> CK_GCM_PARAMS {
    CK_GCM_PARAMS {
        pIv: iv.as_ptr().cast_mut(),
        ulIvLen: iv.len() as CK_ULONG,
        ulIvBits: 0,
        pAAD: aad.as_ptr().cast_mut(),
        ulAADLen: aad.len() as CK_ULONG,
        ulTagBits: tag_bits,
    }
}

/// Returns the template of programs that need a readable secret.
pub fn readable() -> Vec<Item> {
    vec![
        (CKA_CLASS, ulong(CKO_SECRET_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_GENERIC_SECRET)),
        (CKA_SENSITIVE, NO.to_vec()),
        (CKA_EXTRACTABLE, YES.to_vec()),
    ]
}

impl Own {
    /// Generates an RSA-2048 token key pair that decrypts.
    #[track_caller]
    pub fn decrypting(&self, also: &[Item]) -> (CK_ULONG, CK_ULONG) {
        let token = (CKA_TOKEN, YES.to_vec());
        let public = [
            token.clone(),
            (CKA_MODULUS_BITS, ulong(2048)),
            (CKA_ENCRYPT, YES.to_vec()),
        ];
        let private = [&[token, (CKA_DECRYPT, YES.to_vec())], also].concat();
        let made = self.generate(CKM_RSA_PKCS_KEY_PAIR_GEN, &public, &private);
        made.expect("C_GenerateKeyPair")
    }

    /// Generates a token key pair on this curve that agrees on secrets.
    #[track_caller]
    pub fn agreeing(&self, curve: &[u8], also: &[Item]) -> (CK_ULONG, CK_ULONG) {
        let token = (CKA_TOKEN, YES.to_vec());
        let public = [token.clone(), (CKA_EC_PARAMS, curve.to_vec())];
        let private = [&[token, (CKA_DERIVE, YES.to_vec())], also].concat();
        let made = self.generate(CKM_EC_KEY_PAIR_GEN, &public, &private);
        made.expect("C_GenerateKeyPair")
    }

    /// Generates an AES-256 key; a session key unless the template says otherwise.
    #[track_caller]
    pub fn aes_key(&self, template: &[Item]) -> CK_OBJECT_HANDLE {
        self.secret_key(CKM_AES_KEY_GEN, template)
    }

    /// Generates a generic secret of 32 bytes; a session key unless the template says otherwise.
    #[track_caller]
    pub fn generic_secret(&self, template: &[Item]) -> CK_OBJECT_HANDLE {
        self.secret_key(CKM_GENERIC_SECRET_KEY_GEN, template)
    }

    #[track_caller]
    fn secret_key(&self, mechanism: CK_MECHANISM_TYPE, template: &[Item]) -> CK_OBJECT_HANDLE {
        let template = [&[(CKA_VALUE_LEN, ulong(32))], template].concat();
        let made = generate_key(&self.raw, self.session, mechanism, &template);
        made.expect("C_GenerateKey")
    }

    pub fn encrypt_init(&self, mut by: CK_MECHANISM, key: CK_OBJECT_HANDLE) -> Result<(), Code> {
        let session = self.session;
        call!(self.raw.table, C_EncryptInit(session, &raw mut by, key)).result()
    }

    /// Calls C_EncryptInit without a mechanism, which cancels the operation.
    pub fn encrypt_cancel(&self, key: CK_OBJECT_HANDLE) -> Result<(), Code> {
        let (session, none) = (self.session, ptr::null_mut());
        call!(self.raw.table, C_EncryptInit(session, none, key)).result()
    }

    pub fn decrypt_init(&self, mut mechanism: CK_MECHANISM, key: CK_ULONG) -> Result<(), Code> {
        let session = self.session;
        call!(
            self.raw.table,
            C_DecryptInit(session, &raw mut mechanism, key)
        )
        .result()
    }

    /// Calls C_Decrypt with this buffer, or as a length query without buffer. Returns the code and
    /// the length.
    pub fn decrypt_into(&self, data: &[u8], room: Option<&mut [u8]>) -> (Code, CK_ULONG) {
        let mut length = room.as_ref().map_or(0, |room| room.len() as CK_ULONG);
        let to = room.map_or(ptr::null_mut(), <[u8]>::as_mut_ptr);
        let (from, size) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
        let code = call!(
            self.raw.table,
            C_Decrypt(self.session, from, size, to, &raw mut length)
        );
        (code, length)
    }

    /// Calls C_Decrypt with a large buffer.
    pub fn decrypt_on(&self, data: &[u8]) -> Result<Vec<u8>, Code> {
        let mut room = vec![0; 512];
        let (code, length) = self.decrypt_into(data, Some(&mut room));
        code.result()?;
        room.truncate(length as usize);
        Ok(room)
    }

    pub fn decrypt(&self, by: CK_MECHANISM, key: CK_ULONG, data: &[u8]) -> Result<Vec<u8>, Code> {
        self.decrypt_init(by, key)?;
        self.decrypt_on(data)
    }

    pub fn encrypt(&self, by: CK_MECHANISM, key: CK_ULONG, data: &[u8]) -> Result<Vec<u8>, Code> {
        self.encrypt_init(by, key)?;
        let session = self.session;
        let (from, size) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
        let (null, mut length) = (ptr::null_mut(), 0);
        let table = &self.raw.table;
        call!(table, C_Encrypt(session, from, size, null, &raw mut length)).result()?;
        let mut room = vec![0; length as usize];
        let to = room.as_mut_ptr();
        call!(table, C_Encrypt(session, from, size, to, &raw mut length)).result()?;
        assert_eq!(length as usize, room.len());
        Ok(room)
    }

    pub fn derive(
        &self,
        mut by: CK_MECHANISM,
        key: CK_ULONG,
        template: &[Item],
    ) -> Result<CK_ULONG, Code> {
        let (mut items, mut made) = (attributes(template), 0);
        let (at, count) = (items.as_mut_ptr(), items.len() as CK_ULONG);
        call!(
            self.raw.table,
            C_DeriveKey(self.session, &raw mut by, key, at, count, &raw mut made)
        )
        .result()?;
        Ok(made)
    }

    /// Writes the public key of this object to a PEM file. Returns the path.
    #[track_caller]
    pub fn pem(&self, home: &Home, object: CK_ULONG) -> PathBuf {
        let info = self.attribute(object, CKA_PUBLIC_KEY_INFO);
        home.write(&format!("public-{object}.pem"), public_pem(&info))
    }
}

/// Encrypts with OpenSSL for the public key in this file.
#[track_caller]
pub fn openssl_encrypts(home: &Home, public: &PathBuf, options: &[&str], data: &[u8]) -> Vec<u8> {
    pkeyutl(home, &["-encrypt", "-pubin"], public, options, data)
}

/// Decrypts with OpenSSL and the private key in this file.
#[track_caller]
pub fn openssl_decrypts(home: &Home, private: &PathBuf, options: &[&str], data: &[u8]) -> Vec<u8> {
    pkeyutl(home, &["-decrypt"], private, options, data)
}

#[track_caller]
fn pkeyutl(home: &Home, what: &[&str], key: &PathBuf, options: &[&str], data: &[u8]) -> Vec<u8> {
    let (from, to) = (home.write("pkeyutl.in", data), home.path("pkeyutl.out"));
    let mut command = program("openssl");
    command.arg("pkeyutl").args(what).arg("-inkey").arg(key);
    command.arg("-in").arg(from).arg("-out").arg(&to);
    for option in options {
        command.args(["-pkeyopt", option]);
    }
    run(&mut command).ok();
    fs::read(to).expect("a file")
}

/// Agrees on a secret with OpenSSL, from a private key of OpenSSL and a public key of the token.
#[track_caller]
pub fn openssl_agrees(home: &Home, private: &PathBuf, public: &PathBuf) -> Vec<u8> {
    let to = home.path("agreed");
    let mut command = program("openssl");
    command.args(["pkeyutl", "-derive", "-inkey"]).arg(private);
    command.arg("-peerkey").arg(public).arg("-out").arg(&to);
    run(&mut command).ok();
    fs::read(to).expect("a file")
}

/// A token with own keys, and the TPM behind a counting proxy.
pub struct Bench {
    pub tpm: Swtpm,
    pub proxy: Proxy,
    pub home: Home,
    pub own: Own,
}

impl Bench {
    pub fn new(link: Link) -> Bench {
        let tpm = Swtpm::blank();
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        let own = Own::new(&home);
        Bench {
            tpm,
            proxy,
            home,
            own,
        }
    }

    /// Makes a key pair with OpenSSL on this curve. Returns its file and its point.
    pub fn peer(&self, curve: &str, width: usize) -> (PathBuf, Vec<u8>) {
        let file = self.home.path(&format!("{curve}.key"));
        let group = format!("ec_paramgen_curve:{curve}");
        let mut make = program("openssl");
        make.args(["genpkey", "-algorithm", "EC", "-pkeyopt", &group, "-out"]);
        run(make.arg(&file)).ok();
        let name = file.to_str().unwrap();
        let info = output(
            "openssl",
            ["pkey", "-in", name, "-pubout", "-outform", "DER"],
        );
        let point = info[info.len() - 2 * width - 1..].to_vec();
        assert_eq!(point[0], 4, "an uncompressed point");
        (file, point)
    }
}

/// Makes a P-256 key pair with OpenSSL. Returns its file and its point.
pub fn peer(home: &Home) -> (PathBuf, Vec<u8>) {
    outside(home, "peer", &P256_KEY);
    let point = super::openssl::point(&home.path("peer.pub"));
    (home.path("peer.key"), point)
}
