//! The wire link: builds the bytes of a command and reads those of its response
//! (TPM 2.0 Library, Part 1, section 18; Part 3).

mod authorised;
mod commands;

use crate::tpm::{ResponseCode, TpmError};
use std::time::{Duration, Instant};
use tpm2_protocol::data::TpmSt;
use tpm2_protocol::frame::{TpmFrame, TpmResponse, TpmUnmarshalBody, tpm_marshal_command};
use tpm2_protocol::{TpmMarshal, TpmWriter};

/// The most bytes of a command or a response (Part 2, section 4: implementations use 4096).
pub(super) const FRAME_MAX: usize = 4096;
/// Bytes before a command's handles or a response's: tag, size, code.
pub(super) const HEADER: usize = 10;

/// Takes a command to the TPM and brings its response.
pub(super) trait Transport: Send {
    /// One command, one response, before `deadline`. After an error the next call starts afresh.
    fn transact(&mut self, command: &[u8], deadline: Instant) -> Result<Vec<u8>, Fault>;
    /// In a forked child: closes its copy of the parent's connection.
    fn abandon(&mut self);
}

/// How a transport fails.
pub(super) enum Fault {
    Unreachable(String),
    Broken(String),
    Timeout,
}

impl Fault {
    /// A fault met while a command was under way.
    pub(super) fn broken(doing: &str, error: impl std::fmt::Display) -> Self {
        Self::Broken(format!("{doing}: {error}"))
    }
}

/// A link over any byte transport.
pub(super) struct Wire<T> {
    transport: T,
    limit: Duration,
}

impl<T: Transport> Wire<T> {
    pub(super) fn new(transport: T, limit: Duration) -> Self {
        Self { transport, limit }
    }

    /// A command without authorisation.
    fn call<C: TpmFrame, R: TpmUnmarshalBody>(&mut self, command: &C) -> Result<R, TpmError> {
        let mut frame = [0; FRAME_MAX];
        let mut writer = TpmWriter::new(&mut frame);
        tpm_marshal_command(command, TpmSt::NoSessions, &[], &mut writer)
            .map_err(|error| TpmError::Unsupported(format!("command: {error}")))?;
        let response = self.transact(writer.as_bytes())?;
        check(&response)?;
        unmarshalled(&response)
    }

    fn transact(&mut self, command: &[u8]) -> Result<Vec<u8>, TpmError> {
        let deadline = Instant::now() + self.limit;
        let answered = self.transport.transact(command, deadline);
        answered.map_err(|fault| match fault {
            Fault::Unreachable(why) => TpmError::Unreachable(why),
            Fault::Broken(why) => TpmError::Broken(why),
            Fault::Timeout => TpmError::Timeout(self.limit),
        })
    }
}

fn garbage(why: impl std::fmt::Display) -> TpmError {
    TpmError::Broken(format!("response not understood: {why}"))
}

/// Whether a response says success.
///
/// The code is read by hand: a vendor's code that no table knows is an answer, not a fault.
fn check(response: &[u8]) -> Result<(), TpmError> {
    let [tag0, tag1, _, _, _, _, code @ ..] = *response
        .first_chunk::<HEADER>()
        .ok_or_else(|| garbage(format!("{} bytes", response.len())))?;
    let code = u32::from_be_bytes(code);
    match u16::from_be_bytes([tag0, tag1]) {
        // TPM_ST_RSP_COMMAND, of TPM 1.2, is how a TPM of either kind says "bad tag".
        0x00C4 | 0x8001 | 0x8002 if code != 0 => Err(ResponseCode(code).into()),
        _ => TpmResponse::cast(response).map(drop).map_err(garbage),
    }
}

/// The body of a response that says success.
///
/// A sound frame with a structure that the library does not know (a vendor's algorithm, say) is no
/// fault of the connection: asking again would bring the same.
fn unmarshalled<R: TpmUnmarshalBody>(response: &[u8]) -> Result<R, TpmError> {
    let frame = TpmResponse::cast(response).map_err(garbage)?;
    let unfit = |error| TpmError::Unsupported(format!("response: {error}"));
    frame.unmarshal().map_err(unfit)
}

/// A structure as bytes.
fn marshalled(structure: &impl TpmMarshal) -> Result<Vec<u8>, TpmError> {
    let mut bytes = [0; FRAME_MAX];
    let mut writer = TpmWriter::new(&mut bytes);
    let unfit = |error| TpmError::Unsupported(format!("response: {error}"));
    structure.marshal(&mut writer).map_err(unfit)?;
    Ok(writer.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpm::{Hash, Link, Scheme, Used};

    /// Remembers the command and answers what the test wants.
    struct Canned {
        sent: std::sync::Arc<parking_lot::Mutex<Vec<u8>>>,
        answer: Vec<u8>,
    }

    impl Transport for Canned {
        fn transact(&mut self, command: &[u8], _: Instant) -> Result<Vec<u8>, Fault> {
            *self.sent.lock() = command.to_vec();
            Ok(self.answer.clone())
        }
        fn abandon(&mut self) {}
    }

    fn wire(answer: &[u8]) -> (Wire<Canned>, std::sync::Arc<parking_lot::Mutex<Vec<u8>>>) {
        let sent = std::sync::Arc::default();
        let canned = Canned {
            sent: std::sync::Arc::clone(&sent),
            answer: answer.to_vec(),
        };
        (Wire::new(canned, Duration::from_secs(1)), sent)
    }

    #[test]
    fn a_sign_command_has_the_bytes_of_the_standard() {
        let (mut link, sent) = wire(&[0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x21]);
        let error = link
            .sign(
                Used::open(0x8102_0000, &[]),
                Scheme::Ecdsa(Hash::Sha256),
                &[7; 32],
            )
            .unwrap_err();
        assert_eq!(error, TpmError::Response(ResponseCode(0x921)));
        let mut expected = vec![0x80, 2, 0, 0, 0, 73 + 4, 0, 0, 1, 0x5D, 0x81, 2, 0, 0];
        expected.extend([0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0]); // one empty password
        expected.extend([0, 32]);
        expected.extend([7; 32]);
        expected.extend([0, 0x18, 0, 0x0B]); // ECDSA with SHA-256
        expected.extend([0x80, 0x24, 0x40, 0, 0, 7, 0, 0]); // NULL ticket
        expected[5] = expected.len() as u8;
        assert_eq!(*sent.lock(), expected);
    }

    #[test]
    fn a_code_that_no_table_knows_is_still_the_tpms_answer() {
        let (mut link, _) = wire(&[0x80, 1, 0, 0, 0, 10, 0, 0, 0x05, 0x7F]);
        assert_eq!(link.random(8), Err(TpmError::Response(ResponseCode(0x57F))));
    }

    #[test]
    fn garbage_is_a_transport_fault() {
        for garbage in [
            &b""[..],
            &[0x80, 1, 0],
            &[0xFF; 40],
            &[0x80, 1, 0, 0, 0, 11, 0, 0, 0, 0],
        ] {
            let (mut link, _) = wire(garbage);
            let error = link.random(8).unwrap_err();
            assert!(error.is_transport_fault(), "{garbage:x?}: {error}");
        }
    }
}
