//! Compares the commands of this project with recordings of a swtpm 0.7.1 from 2026-11-28.
//! `wire.txt` was recorded over this link, `esapi.txt` over the ESAPI of libtss2 3.2.1. ESAPI sends
//! additional TPM2_ReadPublic and TPM2_NV_ReadPublic commands.
//!
//! The first character of a line shows its content:
//!
//! | character | content |
//! |---|---|
//! | `>` | a command |
//! | `<` | the answer to the command |
//! | `=` | the result of a step |
//! | `+` | random inputs |

use super::{CommandClass, Link, Timing, Transport, TransportError};
use crate::key::{Curve, PublicKey};
use crate::tpm::fake::p256_area;
use crate::tpm::{
    Auth, AuthHandle, Hash, KeyAlgorithm, KeyPurpose, NvPublic, PublicArea, SensitiveCreate,
    Signature, SignatureScheme, TpmError, template,
};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

use crate::tpm::SRK as ROOT;
const KEPT: u32 = 0x8100_0100;
const NV: u32 = 0x0180_0010;
const BOTH: KeyPurpose = KeyPurpose {
    signs: true,
    decrypts: true,
};

/// A recording of TPM commands and responses that the test replays.
#[derive(Clone)]
struct Recording(Arc<Mutex<VecDeque<(char, String)>>>);

impl Recording {
    fn new(text: &str) -> Self {
        let lines = text.lines().map(|line| {
            let (kind, rest) = line.split_once(' ').unwrap();
            (kind.parse().unwrap(), rest.to_owned())
        });
        Self(Arc::new(Mutex::new(lines.collect())))
    }

    fn next(&self, kind: char) -> String {
        let (found, rest) = self.0.lock().pop_front().unwrap();
        assert_eq!(found, kind, "{rest}");
        rest
    }

    /// Skips commands that only ESAPI sends. Stops at the command `wanted`, or at a line that is
    /// not a command.
    fn pass_over(&self, wanted: Option<&str>) {
        const ONLY_ESAPI: [&str; 2] = ["00000173", "00000169"];
        loop {
            match self.0.lock().front() {
                Some(('>', sent))
                    if wanted != Some(sent) && ONLY_ESAPI.contains(&&sent[12..20]) => {}
                _ => return,
            }
            self.next('>');
            self.next('<');
        }
    }

    /// Compares the result of a step of the test with the recorded result.
    fn tell(&self, step: &str, gave: String) {
        self.pass_over(None);
        assert_eq!(format!("{step}: {gave}"), self.next('='));
    }

    /// Returns the duplicate of a key and its seed from the recording.
    fn input(&self) -> (Vec<u8>, Vec<u8>) {
        self.pass_over(None);
        let both = self.next('+');
        let (twin, seed) = both.split_once(' ').unwrap();
        (bytes(twin), bytes(seed))
    }
}

impl Transport for Recording {
    fn transact(
        &mut self,
        command: &[u8],
        _: CommandClass,
        _: &Timing,
    ) -> Result<Vec<u8>, TransportError> {
        let command = hex(command);
        self.pass_over(Some(&command));
        assert_eq!(command, self.next('>'));
        Ok(bytes(&self.next('<')))
    }

    fn abandon(&mut self) {}
}

fn played(text: &str) {
    let recording = Recording::new(text);
    let mut link = Link::over(recording.clone());
    story(&mut link, &recording);
    recording.pass_over(None);
    assert!(
        recording.0.lock().is_empty(),
        "the test replayed the whole recording"
    );
}

#[test]
fn commands_and_answers_are_as_they_were() {
    played(include_str!("vectors/wire.txt"));
}

#[test]
fn commands_and_answers_are_those_of_esapi() {
    played(include_str!("vectors/esapi.txt"));
}

fn bytes(hex: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(pair).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn said<R>(result: &Result<R, TpmError>, how: impl FnOnce(&R) -> String) -> String {
    match result {
        Ok(value) => how(value),
        Err(error) => format!("{error:?}"),
    }
}

fn debug<R: Debug>(result: Result<R, TpmError>) -> String {
    said(&result, |value| format!("{value:?}"))
}

fn signature(signature: &Signature) -> String {
    match signature {
        Signature::Ecc { r, s } => format!("{} {}", hex(r), hex(s)),
        Signature::Rsa(bytes) => hex(bytes),
    }
}

/// Runs all TPM commands that need no auth session.
fn story(link: &mut Link, recording: &Recording) {
    about_the_tpm(link, recording);
    let root = template::storage_root(false);
    let made = link.create_primary(AuthHandle::owner(Auth::Empty), &root);
    recording.tell(
        "create_primary",
        said(&made, |(_, area, name)| {
            format!("{} {}", hex(area), hex(name))
        }),
    );
    let (transient, _, name) = made.unwrap();
    let object = (transient, &name[..]);
    let kept = link.evict(AuthHandle::owner(Auth::Empty), object, ROOT);
    recording.tell("evict", debug(kept));
    recording.tell("flush", debug(link.flush(transient)));
    ec_keys(link, recording);
    rsa_keys(link, recording);
    sealed_data(link, recording);
    imported(link, recording);
    nv(link, recording);
    let empty = link.evict(AuthHandle::owner(Auth::Empty), (ROOT, &name), ROOT);
    recording.tell("evict from its handle", debug(empty));
    recording.tell(
        "read_public of nothing",
        debug(link.read_public(ROOT).map(drop)),
    );
}

fn about_the_tpm(link: &mut Link, recording: &Recording) {
    recording.tell("handles", debug(link.handles(0x8100_0000)));
    recording.tell("algorithms", debug(link.algorithms()));
    recording.tell("lockout", debug(link.lockout()));
    let p384 = template::device_key(KeyAlgorithm::Ec(Curve::P384), BOTH);
    recording.tell("test_parameters", debug(link.test_parameters(&p384)));
    let large = template::device_key(KeyAlgorithm::Rsa(4096), BOTH);
    recording.tell(
        "test_parameters refused",
        debug(link.test_parameters(&large)),
    );
    recording.tell("random", said(&link.random(16), |bytes| hex(bytes)));
}

/// Makes a new key below the storage root key and loads it.
fn loaded(link: &mut Link, recording: &Recording, kind: KeyAlgorithm) -> (u32, Vec<u8>) {
    let template = template::device_key(kind, BOTH);
    let root = AuthHandle::open(ROOT, &[]);
    let made = link.create(root, SensitiveCreate::default(), &template);
    recording.tell(
        "create",
        said(&made, |(area, private)| {
            format!("{} {}", hex(area), hex(private))
        }),
    );
    let (area, private) = made.unwrap();
    let key = link.load(root, &area, &private);
    recording.tell("load", said(&key, |(_, name)| hex(name)));
    key.unwrap()
}

fn ec_keys(link: &mut Link, recording: &Recording) {
    let (handle, name) = loaded(link, recording, KeyAlgorithm::Ec(Curve::P256));
    let key = AuthHandle::open(handle, &name);
    let public = link.read_public(handle);
    recording.tell(
        "read_public",
        said(&public, |(area, name)| {
            format!("{} {}", hex(area), hex(name))
        }),
    );
    let qualified = link.qualified_name(handle);
    recording.tell(
        "qualified_name",
        said(&qualified, |name| hex(name.as_ref().unwrap())),
    );
    for hash in [Hash::Sha256, Hash::Sha384] {
        let signed = link.sign(key, SignatureScheme::Ecdsa(hash), &vec![7; hash.width()]);
        recording.tell("sign by ECDSA", said(&signed, signature));
    }
    // The public point of the peer is the generator of the curve.
    let PublicKey::Ec { point, .. } = PublicArea::parse(&p256_area(0, &[0, 0x10])).unwrap().key
    else {
        panic!("an EC key");
    };
    let (x, y) = (&point[1..33], &point[33..]);
    recording.tell(
        "ecdh_z",
        said(&link.ecdh_z(key, (x, y)), |secret| hex(secret)),
    );
    let owner = AuthHandle::owner(Auth::Empty);
    recording.tell(
        "evict into a handle",
        debug(link.evict(owner, (handle, &name), KEPT)),
    );
    let signed = link.sign(
        AuthHandle::open(KEPT, &name),
        SignatureScheme::Ecdsa(Hash::Sha256),
        &[8; 32],
    );
    recording.tell("sign in a handle", said(&signed, signature));
    recording.tell(
        "evict out of it",
        debug(link.evict(owner, (KEPT, &name), KEPT)),
    );
    let saved = link.context_save(handle);
    recording.tell("context_save", said(&saved, |_| "a context".to_owned()));
    recording.tell("flush", debug(link.flush(handle)));
    let again = link.context_load(&saved.unwrap()).unwrap();
    recording.tell("flush", debug(link.flush(again)));
}

fn rsa_keys(link: &mut Link, recording: &Recording) {
    let (handle, name) = loaded(link, recording, KeyAlgorithm::Rsa(2048));
    let key = AuthHandle::open(handle, &name);
    for scheme in [
        SignatureScheme::Rsassa(Hash::Sha256),
        SignatureScheme::Rsapss(Hash::Sha256),
        SignatureScheme::Rsassa(Hash::Sha1),
    ] {
        let signed = link.sign(key, scheme, &vec![7; scheme.hash().width()]);
        recording.tell("sign by RSA", said(&signed, signature));
    }
    let plain = link.rsa_decrypt(key, &[1; 256]);
    recording.tell("rsa_decrypt", said(&plain, |secret| hex(secret)));
    let plain = link.rsa_decrypt(key, &[0xFF; 256]);
    recording.tell(
        "rsa_decrypt of too much",
        said(&plain, |secret| hex(secret)),
    );
    recording.tell("flush", debug(link.flush(handle)));
}

fn sealed_data(link: &mut Link, recording: &Recording) {
    let root = AuthHandle::open(ROOT, &[]);
    let secrets = SensitiveCreate {
        value: &[],
        data: b"sealed",
    };
    let made = link.create(root, secrets, &template::sealed(false));
    recording.tell(
        "create a seal",
        said(&made, |(area, private)| {
            format!("{} {}", hex(area), hex(private))
        }),
    );
    let (area, private) = made.unwrap();
    let (handle, name) = link.load(root, &area, &private).unwrap();
    let opened = link.unseal(AuthHandle::open(handle, &name));
    recording.tell("unseal", said(&opened, |secret| hex(secret)));
    recording.tell("flush", debug(link.flush(handle)));
    let mut damaged = private.clone();
    damaged[40] ^= 1;
    recording.tell(
        "load a damaged one",
        debug(link.load(root, &area, &damaged).map(drop)),
    );
}

fn imported(link: &mut Link, recording: &Recording) {
    // The private scalar is 1, so the public point is the generator.
    let public = PublicArea::parse(&p256_area(0, &[0, 0x10])).unwrap().key;
    let area = template::imported_key(&public, BOTH);
    let (twin, seed) = recording.input();
    let taken = link.import(AuthHandle::open(ROOT, &[]), &area, &twin, &seed);
    recording.tell("import", said(&taken, |private| hex(private)));
    let key = link.load(AuthHandle::open(ROOT, &[]), &area, &taken.unwrap());
    recording.tell("load", said(&key, |(_, name)| hex(name)));
    recording.tell("flush", debug(link.flush(key.unwrap().0)));
}

fn nv(link: &mut Link, recording: &Recording) {
    let owner = AuthHandle::owner(Auth::Empty);
    let mut public = NvPublic {
        attributes: 0x0207_0002,
        size: 40,
    };
    recording.tell("nv_define", debug(link.nv_define(owner, NV, public)));
    recording.tell("nv_read_public", debug(link.nv_read_public(NV)));
    let index = (NV, &public.name(NV)[..]);
    recording.tell("nv_write", debug(link.nv_write(owner, index, 8, &[9; 32])));
    public.attributes |= 1 << 29;
    let name = public.name(NV);
    let by_itself = link.nv_read(AuthHandle::open(NV, &[]), (NV, &[]), 0, 40);
    recording.tell("nv_read", said(&by_itself, |bytes| hex(bytes)));
    let by_owner = link.nv_read(owner, (NV, &name), 8, 16);
    recording.tell("nv_read by the owner", said(&by_owner, |bytes| hex(bytes)));
    recording.tell("nv_undefine", debug(link.nv_undefine(owner, (NV, &name))));
    recording.tell("nv_read_public of nothing", debug(link.nv_read_public(NV)));
}
