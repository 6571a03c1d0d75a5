//! OpenSSL's command line as the independent verifier. OpenSSL verifies signatures of the module
//! and parses certificates.

use super::programs::{Said, output, program, run, run_with};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Verifies the signatures of one public key.
pub struct Verifier {
    folder: TempDir,
    public_key: PathBuf,
}

impl Verifier {
    /// Creates a verifier with the public key of a PEM file.
    pub fn new(public_key: &Path) -> Verifier {
        let folder = TempDir::new().expect("a temporary folder");
        Verifier {
            folder,
            public_key: public_key.to_owned(),
        }
    }

    pub fn public_key(&self) -> &Path {
        &self.public_key
    }

    /// Verifies `signature` (r ‖ s in the format of PKCS#11) over `digest`.
    pub fn accepts_digest(&self, digest: &[u8], signature: &[u8]) -> Said {
        let (data, signature) = self.files(digest, &der(signature));
        run(program("openssl")
            .args(["pkeyutl", "-verify", "-pubin", "-inkey"])
            .arg(&self.public_key)
            .arg("-in")
            .arg(data)
            .arg("-sigfile")
            .arg(signature))
    }

    /// Verifies `signature` (r ‖ s) over the message `data` with the hash `-sha256`, `-sha384` …
    pub fn accepts_message(&self, hash: &str, data: &[u8], signature: &[u8]) -> Said {
        self.accepts_der(hash, data, &der(signature))
    }

    /// Verifies a signature in DER over a message.
    pub fn accepts_der(&self, hash: &str, data: &[u8], signature: &[u8]) -> Said {
        let (data, signature) = self.files(data, signature);
        run(program("openssl")
            .args(["dgst", hash, "-verify"])
            .arg(&self.public_key)
            .arg("-signature")
            .arg(signature)
            .arg(data))
    }

    /// Verifies `signature` (RSA) over `digest` of the hash `sha256`, `sha384` …
    pub fn accepts_pkcs1(&self, hash: &str, digest: &[u8], signature: &[u8]) -> Said {
        self.accepts_rsa(&["rsa_padding_mode:pkcs1"], hash, digest, signature)
    }

    /// Verifies a PSS signature with a salt as long as the digest, and MGF1 with the hash of the
    /// digest.
    pub fn accepts_pss(&self, hash: &str, digest: &[u8], signature: &[u8]) -> Said {
        let mask = format!("rsa_mgf1_md:{hash}");
        let options = [
            "rsa_padding_mode:pss",
            "rsa_pss_saltlen:digest",
            mask.as_str(),
        ];
        self.accepts_rsa(&options, hash, digest, signature)
    }

    fn accepts_rsa(&self, options: &[&str], hash: &str, digest: &[u8], signature: &[u8]) -> Said {
        let (data, signature) = self.files(digest, signature);
        let mut verify = program("openssl");
        verify
            .args(["pkeyutl", "-verify", "-pubin", "-inkey"])
            .arg(&self.public_key)
            .arg("-in")
            .arg(data)
            .arg("-sigfile")
            .arg(signature)
            .args(["-pkeyopt", &format!("digest:{hash}")]);
        for option in options {
            verify.args(["-pkeyopt", option]);
        }
        run(&mut verify)
    }

    fn files(&self, data: &[u8], signature: &[u8]) -> (PathBuf, PathBuf) {
        let files = (
            self.folder.path().join("data"),
            self.folder.path().join("signature"),
        );
        fs::write(&files.0, data).expect("a file");
        fs::write(&files.1, signature).expect("a file");
        files
    }
}

/// Returns the ECDSA-Sig-Value of r ‖ s.
pub fn der(raw: &[u8]) -> Vec<u8> {
    assert!(
        !raw.is_empty() && raw.len().is_multiple_of(2),
        "r and s have one width: {}",
        raw.len()
    );
    let (r, s) = raw.split_at(raw.len() / 2);
    let body = [integer(r), integer(s)].concat();
    element(0x30, &body)
}

fn integer(unsigned: &[u8]) -> Vec<u8> {
    let zeros = unsigned.iter().take_while(|byte| **byte == 0).count();
    let digits = &unsigned[zeros.min(unsigned.len() - 1)..];
    let sign: &[u8] = if digits[0] & 0x80 == 0 { &[] } else { &[0] };
    element(2, &[sign, digits].concat())
}

/// Returns a DER element with a body below 64 KiB.
pub fn element(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = match body.len() {
        size @ 0..=0x7F => vec![size as u8],
        size @ 0x80..=0xFF => vec![0x81, size as u8],
        size => vec![0x82, (size >> 8) as u8, size as u8],
    };
    [&[tag], &length[..], body].concat()
}

/// Returns a certificate in DER.
pub fn certificate_der(pem: &Path) -> Vec<u8> {
    output("openssl", ["x509", "-outform", "DER", "-in", path(pem)])
}

/// Returns the SubjectPublicKeyInfo of a public key in DER.
pub fn public_key_der(pem: &Path) -> Vec<u8> {
    output(
        "openssl",
        ["pkey", "-pubin", "-outform", "DER", "-in", path(pem)],
    )
}

/// Returns the uncompressed point of a P-256 key: the last 65 bytes of its SubjectPublicKeyInfo.
pub fn point(pem: &Path) -> Vec<u8> {
    let info = public_key_der(pem);
    let point = info[info.len() - 65..].to_vec();
    assert_eq!(point[0], 4, "an uncompressed point");
    point
}

/// Returns the digest `name` (`-sha1`, `-sha256` …) of `data`.
pub fn digest(name: &str, data: &[u8]) -> Vec<u8> {
    run_with(program("openssl").args(["dgst", name, "-binary"]), data)
        .ok()
        .out
}

/// Returns one line of `openssl x509 -noout OPTIONS -in PEM`.
pub fn certificate_says(pem: &Path, options: &[&str]) -> String {
    let mut all = vec!["x509", "-noout", "-in", path(pem)];
    all.extend(options);
    String::from_utf8_lossy(&output("openssl", all))
        .trim()
        .to_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Returns the numbers of an RSA key in a file, by OpenSSL's names. They are big-endian, as in DER.
pub fn rsa_numbers(key: &Path, wanted: &[&str]) -> Vec<Vec<u8>> {
    let text = ["pkey", "-noout", "-text", "-in", key.to_str().unwrap()];
    let said = String::from_utf8(output("openssl", text)).unwrap();
    let number = |name: &&str| {
        let rest = said.split_once(&format!("\n{name}:\n")).unwrap().1;
        let lines = rest.lines().take_while(|line| line.starts_with(' '));
        let digits: String = lines.map(str::trim).collect();
        let bytes = digits.split(':');
        bytes
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect()
    };
    wanted.iter().map(number).collect()
}
