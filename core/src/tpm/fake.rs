//! A simulated TPM for unit tests. The TPM answers commands over a Unix socket with replies from
//! the test.

use super::{Limits, Link, Refusals, Tcti, Tpm, sized};
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

pub(crate) const READ_PUBLIC: u32 = 0x173;
pub(crate) const SIGN: u32 = 0x15D;
pub(crate) const GET_CAPABILITY: u32 = 0x17A;
pub(crate) const CREATE_PRIMARY: u32 = super::command_code::CREATE_PRIMARY;
pub(crate) const CONTEXT_LOAD: u32 = 0x161;
pub(crate) const CONTEXT_SAVE: u32 = 0x162;
pub(crate) const FLUSH_CONTEXT: u32 = 0x165;
pub(crate) const NV_READ: u32 = 0x14E;

/// The response of the fake TPM to one command.
pub(crate) enum Reply {
    /// A response that consists of this response code only.
    Code(u32),
    /// A successful response with these parameters after the header.
    Body(Vec<u8>),
    /// A successful response to a command with one authorisation.
    AuthorisedBody(Vec<u8>),
    /// A successful response to a command that returns a handle.
    Made(u32, Vec<u8>),
    /// The server closes the connection without an answer.
    Hangup,
    /// The server sends no response until the client stops waiting.
    Silence,
}

/// A server that runs until the process of the test ends.
pub(crate) struct FakeTpm {
    folder: tempfile::TempDir,
    seen: Arc<Mutex<Vec<u32>>>,
}

impl FakeTpm {
    /// Starts a server that answers with `replies`, in this order.
    pub(crate) fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        let mut replies: VecDeque<Reply> = replies.into_iter().collect();
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("tpm")).unwrap();
        let seen = Arc::<Mutex<Vec<u32>>>::default();
        let noted = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut header = [0; 10];
                stream.read_exact(&mut header).unwrap();
                let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
                let mut rest = vec![0; word(2) as usize - header.len()];
                stream.read_exact(&mut rest).unwrap();
                noted.lock().push(word(6));
                let frame = |tag: u16, code: u32, body: &[u8]| {
                    let mut frame = tag.to_be_bytes().to_vec();
                    frame.extend((10 + body.len() as u32).to_be_bytes());
                    frame.extend(code.to_be_bytes());
                    frame.extend(body);
                    frame
                };
                let answer = match replies.pop_front().expect("a reply for each command") {
                    Reply::Code(code) => frame(0x8001, code, &[]),
                    Reply::Body(body) => frame(0x8001, 0, &body),
                    Reply::AuthorisedBody(body) => frame(0x8002, 0, &authorised(&body)),
                    Reply::Made(handle, body) => frame(
                        0x8002,
                        0,
                        &[&handle.to_be_bytes()[..], &authorised(&body)].concat(),
                    ),
                    Reply::Hangup => continue,
                    Reply::Silence => {
                        // The read returns when the client stops waiting and closes the connection.
                        let _ = stream.read(&mut [0]);
                        continue;
                    }
                };
                stream.write_all(&answer).unwrap();
            }
        });
        Self { folder, seen }
    }

    /// Returns a client of this TPM with one time limit for all commands.
    pub(crate) fn tpm(&self, limit: Duration) -> Tpm {
        self.tpm_with(Limits::new(limit, limit))
    }

    /// Returns a client of the fake TPM with these time limits.
    pub(crate) fn tpm_with(&self, limits: Limits) -> Tpm {
        let path = self.folder.path().join("tpm");
        let tcti: Tcti = format!("swtpm:path={}", path.display()).parse().unwrap();
        Tpm::new(tcti, limits, self.folder.path(), Refusals::default())
    }

    /// Returns the folder for process locks of the clients.
    pub(crate) fn locks(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Returns the codes (TPM_CC) of all commands that the server has received.
    pub(crate) fn seen(&self) -> Vec<u32> {
        self.seen.lock().clone()
    }
}

/// Locks the link, as a thread does during a command.
pub(crate) fn keep_link(tpm: &Tpm) -> MutexGuard<'_, Option<Link>> {
    tpm.link.lock()
}

/// Returns the reply of the fake TPM with additional bytes at its end.
pub(crate) fn longer(reply: Reply) -> Reply {
    match reply {
        Reply::Body(body) => Reply::Body([&body[..], &[0xEE; 9]].concat()),
        Reply::AuthorisedBody(body) => Reply::AuthorisedBody([&body[..], &[0xEE; 9]].concat()),
        other => other,
    }
}

/// Returns the parameters followed by a response authorisation: an empty nonce, attributes, no
/// HMAC.
fn authorised(body: &[u8]) -> Vec<u8> {
    [
        &(body.len() as u32).to_be_bytes()[..],
        body,
        &[0, 0, 0x01, 0, 0],
    ]
    .concat()
}

/// Returns a TPM2_GetCapability response: a list of this capability, with its items as bytes.
pub(crate) fn capability(more: bool, capability: u32, items: &[Vec<u8>]) -> Reply {
    let mut body = vec![u8::from(more)];
    body.extend(capability.to_be_bytes());
    body.extend((items.len() as u32).to_be_bytes());
    body.extend(items.concat());
    Reply::Body(body)
}

/// Returns a TPM2_CreatePrimary response with this area and this name, without creation data.
pub(crate) fn primary(handle: u32, area: &[u8], name: &[u8]) -> Reply {
    let creation = [0, 0, 0, 0, 0, 32]; // no PCRs, and the size of their digest
    let creation = [&creation[..], &[0; 32], &[0], &[0, 0x10, 0, 0, 0, 0, 0, 0]].concat();
    let mut body = sized(area);
    body.extend(sized(&creation));
    body.extend(sized(&[0; 32])); // the creation hash
    body.extend([0x80, 0x21, 0x40, 0, 0, 7, 0, 0]); // the NULL ticket
    body.extend(sized(name));
    Reply::Made(handle, body)
}

/// Returns a TPM2_ReadPublic response with this area. The name is also the qualified name.
pub(crate) fn public(area: &[u8], name: &[u8]) -> Reply {
    let mut body = Vec::new();
    for part in [area, name, name] {
        body.extend((part.len() as u16).to_be_bytes());
        body.extend(part);
    }
    Reply::Body(body)
}

/// Returns a TPM2_Sign response: an ECDSA signature with SHA-256.
pub(crate) fn signature(r: &[u8], s: &[u8]) -> Reply {
    let mut body = vec![0x00, 0x18, 0x00, 0x0B];
    for half in [r, s] {
        body.extend((half.len() as u16).to_be_bytes());
        body.extend(half);
    }
    Reply::AuthorisedBody(body)
}

/// Returns the TPMT_PUBLIC of TCG's template H-2 with these attributes and this scheme. The public
/// point is the generator of P-256.
pub(crate) fn p256_area(attributes: u32, scheme: &[u8]) -> Vec<u8> {
    let mut area = vec![0x00, 0x23, 0x00, 0x0B];
    area.extend(attributes.to_be_bytes());
    area.extend([0, 0]); // no policy
    area.extend([0x00, 0x10]); // symmetric: NULL
    area.extend(scheme);
    area.extend([0x00, 0x03, 0x00, 0x10]); // P-256, kdf: NULL
    for coordinate in [
        "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296",
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
    ] {
        area.extend([0, 32]);
        for pair in coordinate.as_bytes().chunks(2) {
            area.push(u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap());
        }
    }
    area
}

/// Returns the TPMT_PUBLIC of an RSA key without a fixed scheme. The modulus is the first `width`
/// bytes of the modulus in `testdata/`.
pub(crate) fn rsa_area(width: u16) -> Vec<u8> {
    let mut area = vec![0x00, 0x01, 0x00, 0x0B];
    area.extend(IDENTITY.to_be_bytes());
    area.extend([0, 0, 0x00, 0x10, 0x00, 0x10]);
    area.extend((8 * width).to_be_bytes());
    area.extend([0; 4]);
    area.extend(width.to_be_bytes());
    let modulus = include_bytes!("../../testdata/rsa-modulus.bin");
    area.extend(&modulus[..width.into()]);
    area
}

/// The fixed scheme of a key: ECDSA with SHA-256.
pub(crate) const FIXED: &[u8] = &[0x00, 0x18, 0x00, 0x0B];
/// The TPMA_OBJECT attributes of an identity's key.
pub(crate) const IDENTITY: u32 = 0x0004_00F2;
