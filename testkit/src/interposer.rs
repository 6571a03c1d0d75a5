//! An attacker between module and TPM, who shows his own key instead of a key that the TPM makes.

use super::openssl::point;
use super::programs::{program, run};
use super::proxy::command::{CREATE, CREATE_PRIMARY, EVICT_CONTROL, LOAD, SIGN};
use super::proxy::{Execute, Interposer};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use tempfile::TempDir;

/// The size of a P-256 point at the end of a TPMT_PUBLIC: two coordinates, each with its size
/// field.
const POINT: usize = 2 * (2 + 32);

/// A P-256 key of an attacker between client and TPM, and the keys that the attacker replaces.
pub struct Impostor {
    folder: TempDir,
    /// The coordinates of the attacker's key: x, then y.
    point: Vec<u8>,
    /// Returns true for the public areas (TPMT_PUBLIC) that the attacker replaces.
    replaces: fn(&[u8]) -> bool,
    /// Pairs of bytes: the TPM's public areas and names, each with its replacement.
    swapped: Vec<(Vec<u8>, Vec<u8>)>,
    /// The handles that the client uses for the attacker's key.
    handles: Vec<u32>,
}

/// Returns true for a signing key: TPMA_OBJECT.sign.
pub fn signs(area: &[u8]) -> bool {
    number_at(area, 4) & 1 << 18 != 0
}

/// Returns true for a storage key: it is restricted and decrypts.
pub fn wraps(area: &[u8]) -> bool {
    number_at(area, 4) & (1 << 16 | 1 << 17) == 1 << 16 | 1 << 17
}

impl Impostor {
    /// Creates an attacker who replaces every P-256 key whose public area `replaces` accepts.
    pub fn new(replaces: fn(&[u8]) -> bool) -> Impostor {
        let folder = TempDir::new().expect("a temporary folder");
        let (key, public) = (folder.path().join("key"), folder.path().join("public"));
        let curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let mut made = program("openssl");
        run(made.arg("genpkey").args(curve).arg("-out").arg(&key)).ok();
        let mut shown = program("openssl");
        shown.args(["pkey", "-pubout", "-in"]).arg(&key);
        run(shown.arg("-out").arg(&public)).ok();
        Impostor {
            point: point(&public)[1..].to_vec(),
            folder,
            replaces,
            swapped: Vec::new(),
            handles: Vec::new(),
        }
    }

    /// Also replaces the key with this public area, which is in the TPM already.
    pub fn knowing(mut self, area: &[u8]) -> Impostor {
        self.show_instead_of(area);
        self
    }

    /// Returns the interposer for [`super::proxy::Book::interpose`].
    pub fn between(mut self) -> Option<Interposer> {
        Some(Box::new(move |command, execute| {
            self.answer(command, execute)
        }))
    }

    /// Returns an interposer that makes the TPM itself report the attacker's key. TPM2_LoadExternal
    /// loads its public area. In each command with a session, this external object replaces the key
    /// in `handle`.
    pub fn told_to_the_tpm(self, handle: u32) -> Option<Interposer> {
        const LOAD_EXTERNAL: u32 = 0x167;
        const FLUSH_CONTEXT: u32 = 0x165;
        let command = |code: u32, parameters: &[u8]| {
            let size = (10 + parameters.len()) as u32;
            let header = [&[0x80, 1][..], &size.to_be_bytes(), &code.to_be_bytes()].concat();
            [&header, parameters].concat()
        };
        let (_, area) = self.swapped.last().expect("a known key").clone();
        let size = (area.len() as u16).to_be_bytes();
        let null = 0x4000_0007_u32.to_be_bytes();
        let load = command(LOAD_EXTERNAL, &[&[0, 0][..], &size, &area, &null].concat());
        Some(Box::new(move |sent, execute| {
            if sent.len() < 14 || number_at(sent, 10) != handle {
                return execute(sent);
            }
            if sent[..2] == [0x80, 1] {
                return self.false_of(execute(sent));
            }
            let loaded = execute(&load);
            assert_eq!(number_at(&loaded, 6), 0, "TPM2_LoadExternal");
            let mut instead = sent.to_vec();
            instead[10..14].copy_from_slice(&loaded[10..14]);
            let answer = execute(&instead);
            execute(&command(FLUSH_CONTEXT, &loaded[10..14]));
            answer
        }))
    }

    /// Replaces this public area (TPMT_PUBLIC) in all later responses. Returns the attacker's
    /// public area.
    pub fn false_area(&mut self, area: &[u8]) -> Vec<u8> {
        self.show_instead_of(area);
        self.false_of(area.to_vec())
    }

    fn answer(&mut self, command: &[u8], execute: Execute) -> Vec<u8> {
        let code = number_at(command, 6);
        if code == SIGN && self.handles.contains(&number_at(command, 10)) {
            return self.signature(command);
        }
        let mut answer = execute(&self.genuine(command));
        if answer.len() < 10 || number_at(&answer, 6) != 0 {
            return answer;
        }
        match code {
            // The parameters begin with TPM2B_PRIVATE. Those of CreatePrimary begin with
            // TPM2B_PUBLIC.
            CREATE => self.swap(sized(after_sized(&answer[14..]))),
            CREATE_PRIMARY => self.swap(sized(&answer[18..])),
            _ => {}
        }
        answer = self.false_of(answer);
        let shows = |name: &[u8]| answer.windows(name.len()).any(|part| part == name);
        if matches!(code, LOAD | CREATE_PRIMARY) && self.swapped.iter().any(|(_, no)| shows(no)) {
            self.handles.push(number_at(&answer, 10));
        }
        if code == EVICT_CONTROL && self.handles.contains(&number_at(command, 14)) {
            self.handles.push(number_at(command, command.len() - 4));
        }
        answer
    }

    /// Records a replacement for this public area and its name, if `replaces` accepts it.
    fn swap(&mut self, area: &[u8]) {
        let is_p256 = area.len() > POINT && area[area.len() - POINT..][..2] == [0, 32];
        if is_p256 && area[..2] == [0, 0x23] && (self.replaces)(area) {
            self.show_instead_of(area);
        }
    }

    fn show_instead_of(&mut self, area: &[u8]) {
        let mut other = area[..area.len() - POINT].to_vec();
        for coordinate in self.point.chunks(32) {
            other.extend([0, 32]);
            other.extend(coordinate);
        }
        self.swapped.push((name_of(area), name_of(&other)));
        self.swapped.push((area.to_vec(), other));
    }

    /// Returns the command with the TPM names of the real keys.
    fn genuine(&self, command: &[u8]) -> Vec<u8> {
        let pairs = self.swapped.iter();
        pairs.fold(command.to_vec(), |bytes, (yes, no)| {
            replaced(bytes, no, yes)
        })
    }

    /// Returns the response with the TPM names of the attacker's keys.
    fn false_of(&self, answer: Vec<u8>) -> Vec<u8> {
        let pairs = self.swapped.iter();
        pairs.fold(answer, |bytes, (yes, no)| replaced(bytes, yes, no))
    }

    /// Returns the attacker's response to TPM2_Sign: ECDSA with SHA-256.
    fn signature(&self, command: &[u8]) -> Vec<u8> {
        let authorisation = number_at(command, 14) as usize;
        let digest = sized(&command[18 + authorisation..]);
        let path = |name: &str| -> PathBuf { self.folder.path().join(name) };
        std::fs::write(path("digest"), digest).expect("a file");
        let mut sign = program("openssl");
        sign.args(["pkeyutl", "-sign", "-inkey"]).arg(path("key"));
        let der = run(sign.arg("-in").arg(path("digest"))).ok().out;
        let mut parameters = vec![0, 0x18, 0, 0x0B];
        let mut rest = &der[2..];
        for _ in 0..2 {
            let number = &rest[2..2 + usize::from(rest[1])];
            let zeros = number.iter().take_while(|byte| **byte == 0).count();
            parameters.extend(((number.len() - zeros) as u16).to_be_bytes());
            parameters.extend(&number[zeros..]);
            rest = &rest[2 + number.len()..];
        }
        answer_of(&parameters)
    }
}

/// Returns a successful TPM response with these parameters, authorised by a password.
fn answer_of(parameters: &[u8]) -> Vec<u8> {
    let size = 10 + 4 + parameters.len() + 5;
    let mut answer = vec![0x80, 2];
    answer.extend((size as u32).to_be_bytes());
    answer.extend([0; 4]);
    answer.extend((parameters.len() as u32).to_be_bytes());
    answer.extend(parameters);
    answer.extend([0, 0, 1, 0, 0]);
    answer
}

/// Returns the TPM name of an object whose nameAlg is SHA-256.
pub fn name_of(area: &[u8]) -> Vec<u8> {
    [&[0, 0x0B][..], &Sha256::digest(area)].concat()
}

/// Returns the HMAC with SHA-256 (RFC 2104) by a key of at most 64 bytes.
pub fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let padded = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(to, byte)| *to ^= byte);
        block
    };
    let inner = parts
        .iter()
        .fold(Sha256::new_with_prefix(padded(0x36)), |digest, part| {
            digest.chain_update(part)
        });
    let outer = Sha256::new_with_prefix(padded(0x5C));
    outer.chain_update(inner.finalize()).finalize().to_vec()
}

/// Returns the content of a TPM2B.
pub fn sized(bytes: &[u8]) -> &[u8] {
    let size = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    &bytes[2..2 + size]
}

/// Returns the bytes after a TPM2B.
pub fn after_sized(bytes: &[u8]) -> &[u8] {
    &bytes[2 + sized(bytes).len()..]
}

pub fn number_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn replaced(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut at = 0;
    while at + from.len() <= bytes.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + from.len()].copy_from_slice(to);
        }
        at += 1;
    }
    bytes
}
