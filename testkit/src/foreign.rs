//! Keys that other programs wrapped, and their files in the key folder.

use super::devid::{Bench, Kind, Own};
use super::link::Link;
use super::openssl::element;
use super::programs::{program, run, run_with};
use cryptoki_sys::CKA_ALLOWED_MECHANISMS;
use std::fs;

/// The attributes fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth and noDA.
pub const BOUND: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda";
pub const DECRYPTS: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|decrypt";

/// Makes a key folder with one key of the device. The function also makes the storage root key.
pub fn begun(link: Link) -> (Bench, Own) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "of ours").unwrap();
    (bench, own)
}

/// A key that tpm2-tools wrapped.
pub struct Wrapped {
    public: Vec<u8>,
    private: Vec<u8>,
}

impl Wrapped {
    /// Runs `tpm2_create` with these arguments.
    pub fn create(bench: &Bench, words: &[&str]) -> Wrapped {
        let [public, private] = ["made.pub", "made.priv"].map(|name| bench.home.path(name));
        let mut create = bench.tpm.tool("tpm2_create");
        create.arg("-Q").args(words);
        create.arg("-u").arg(&public).arg("-r").arg(&private);
        run(&mut create).ok();
        flush(bench);
        Wrapped {
            public: fs::read(public).unwrap(),
            private: fs::read(private).unwrap(),
        }
    }

    /// Returns the text of a file "TSS2 PRIVATE KEY" of this kind and parent, with these additional
    /// members.
    pub fn file(&self, kind: u8, parent: u32, members: &[Vec<u8>]) -> Vec<u8> {
        let mut all = vec![element(6, &[0x67, 0x81, 0x05, 0x0A, 0x01, kind])];
        all.push(element(0xA0, &element(1, &[0xFF])));
        all.extend_from_slice(members);
        all.push(element(2, &[&[0][..], &parent.to_be_bytes()].concat()));
        all.push(element(4, &self.public));
        all.push(element(4, &self.private));
        pem_of(&element(0x30, &all.concat())).into_bytes()
    }

    pub fn loadable(&self, parent: u32) -> Vec<u8> {
        self.file(3, parent, &[])
    }
}

pub fn pem_of(der: &[u8]) -> String {
    let encoded = run_with(program("openssl").arg("base64"), der).ok().text();
    format!("-----BEGIN TSS2 PRIVATE KEY-----\n{encoded}-----END TSS2 PRIVATE KEY-----\n")
}

fn flush(bench: &Bench) {
    run(bench.tpm.tool("tpm2_flushcontext").arg("-t")).ok();
}

/// Makes a primary key persistent in a handle.
pub fn put_primary(bench: &Bench, handle: u32, words: &[&str]) {
    let context = bench.home.path("primary.ctx");
    let mut create = bench.tpm.tool("tpm2_createprimary");
    run(create.arg("-Q").args(words).arg("-c").arg(&context)).ok();
    let mut keep = bench.tpm.tool("tpm2_evictcontrol");
    keep.args(["-Q", "-C", "o", "-c"]).arg(&context);
    run(keep.arg(format!("0x{handle:08X}"))).ok();
    flush(bench);
}

pub fn drop_in(bench: &Bench, stem: &str, file: impl AsRef<[u8]>) {
    fs::write(bench.folder().join(format!("{stem}.pem")), file).unwrap();
}

pub fn allowed(own: &Own, key: u64) -> Vec<u64> {
    let words = own.attribute(key, CKA_ALLOWED_MECHANISMS);
    let words = words.chunks(8).map(|word| word.try_into().unwrap());
    words.map(u64::from_ne_bytes).collect()
}
