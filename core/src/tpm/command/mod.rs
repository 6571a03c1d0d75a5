//! The link to a TPM: builds commands, sends them over a transport, and parses responses (TPM 2.0
//! Library, Part 1, section 18; Part 3).

mod authorization;
mod capability;
mod commands;
mod created;
mod execute;
pub(super) mod kdf;
// Only the feature `evidence` uses keys with policies.
#[cfg_attr(not(feature = "evidence"), allow(dead_code, unreachable_pub))]
pub(super) mod policy;
mod response_reader;
mod salt_key;
pub(super) mod session;
#[cfg_attr(not(feature = "evidence"), allow(dead_code, unreachable_pub))]
pub(super) mod ticket;
#[cfg(test)]
mod vectors;

use super::TpmError;
use super::transport::{self, CommandClass, FRAME_MAX, Tcti, Timing, Transport, TransportError};
pub use authorization::{Auth, AuthHandle, SensitiveCreate};
use log::warn;
pub(super) use salt_key::Hierarchy;
pub use salt_key::SaltKey;
use std::sync::Arc;
use tpm2_protocol::{TpmMarshal, TpmWriter};

/// A connection to a TPM. Each method sends one TPM command unless its documentation says
/// otherwise.
///
/// The link does not repeat commands. The link does not guarantee that a handle still contains the
/// same object (see [`super::Tpm`]). After a transport error the next call opens a new connection.
pub(crate) struct Link {
    transport: Box<dyn Transport>,
    timing: Arc<Timing>,
    /// The slowest class of the commands that were sent since the caller last set this field.
    pub(super) slowest: CommandClass,
}

impl Link {
    /// Creates the link for a TCTI. The link opens its connection at the first command.
    ///
    /// # Errors
    ///
    /// [`TpmError::Unsupported`] for a transport that this build does not include.
    pub(super) fn new(tcti: &Tcti, timing: Arc<Timing>) -> Result<Self, TpmError> {
        Ok(Self {
            transport: transport::new(tcti).map_err(TpmError::Unsupported)?,
            timing,
            slowest: CommandClass::default(),
        })
    }

    fn transact(&mut self, command: &[u8], class: CommandClass) -> Result<Vec<u8>, TpmError> {
        self.slowest = self.slowest.max(class);
        let timing = &*self.timing;
        let answered = self.transport.transact(command, class, timing);
        answered.map_err(|fault| match fault {
            TransportError::Unreachable(why) => TpmError::Unreachable(why),
            TransportError::Broken(why) => TpmError::Broken(why),
            TransportError::Timeout(limit) => TpmError::timed_out(limit, timing),
        })
    }

    /// Closes the parent's connection in a forked child, without sending a byte.
    pub(super) fn abandon(mut self) {
        self.transport.abandon();
    }
}

/// Returns true if the response code shows that the handle no longer contains the loaded object.
pub(super) fn is_gone<R>(answer: &Result<R, TpmError>) -> bool {
    matches!(answer, Err(TpmError::Response(code))
        if code.is_missing_handle() || code.is_unknown_handle())
}

/// Flushes a handle after the commands with the result `after`. A failure is only logged. Sends
/// nothing if the connection is broken or the TPM does not answer. A wrong answer came over a
/// working connection, so the flush is sent in that case.
pub(super) fn flush<R>(link: &mut Link, handle: u32, after: &Result<R, TpmError>) {
    let cannot_be = |error: &TpmError| matches!(error, TpmError::Broken(_)) || error.is_silence();
    if !after.as_ref().is_err_and(cannot_be)
        && let Err(error) = link.flush(handle)
    {
        warn!("TPM2_FlushContext: {error}");
    }
}

/// Returns a TPM structure in the encoding for commands (Part 2: marshalled).
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
    use crate::key::Curve;
    use crate::system::pause;
    use crate::tpm::transport::Wait;
    use crate::tpm::transport::kept_open::{Endpoint, KeptOpen};
    use crate::tpm::transport::socket::{Channel, Framing};
    use crate::tpm::transport::tcti::Socket;
    use crate::tpm::{
        AuthHandle, Hash, KeyAlgorithm, KeyPurpose, Limits, ResponseCode, SensitiveCreate,
        SignatureScheme, template,
    };
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::time::Duration;

    impl Link {
        /// Creates a link over a transport that never waits.
        pub(super) fn over(transport: impl Transport + 'static) -> Self {
            let second = Duration::from_secs(1);
            Self::within(Limits::new(second, second), transport)
        }

        fn within(limits: Limits, transport: impl Transport + 'static) -> Self {
            Self {
                transport: Box::new(transport),
                timing: Arc::new(Timing::new(limits, Path::new("/dev/null/locks"))),
                slowest: CommandClass::default(),
            }
        }
    }

    /// A test transport that stores the command, and returns the response that the test has set.
    struct Canned {
        sent: Arc<parking_lot::Mutex<Vec<u8>>>,
        answer: Vec<u8>,
    }

    impl Transport for Canned {
        fn transact(
            &mut self,
            command: &[u8],
            _: CommandClass,
            _: &Timing,
        ) -> Result<Vec<u8>, TransportError> {
            *self.sent.lock() = command.to_vec();
            Ok(self.answer.clone())
        }
        fn abandon(&mut self) {}
    }

    fn answering(answer: &[u8]) -> (Link, Arc<parking_lot::Mutex<Vec<u8>>>) {
        let sent = Arc::default();
        let canned = Canned {
            sent: Arc::clone(&sent),
            answer: answer.to_vec(),
        };
        (Link::over(canned), sent)
    }

    #[test]
    fn a_sign_command_has_the_bytes_of_the_standard() {
        let (mut link, sent) = answering(&[0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x21]);
        let error = link
            .sign(
                AuthHandle::open(0x8102_0000, &[]),
                SignatureScheme::Ecdsa(Hash::Sha256),
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

    /// A test transport that accepts each command and never returns a response.
    struct Mute;

    impl Endpoint for Mute {
        fn send(&mut self, _: &[u8], _: &Wait<'_>) -> Result<(), TransportError> {
            Ok(())
        }
        fn receive(&mut self, wait: &Wait<'_>) -> Result<Vec<u8>, TransportError> {
            loop {
                pause(wait.left()?.min(Duration::from_millis(5)));
            }
        }
    }

    struct Silent(KeptOpen<Mute>);

    impl Transport for Silent {
        fn transact(
            &mut self,
            command: &[u8],
            class: CommandClass,
            timing: &Timing,
        ) -> Result<Vec<u8>, TransportError> {
            self.0.transact(|| Ok(Mute), command, class, timing)
        }
        fn abandon(&mut self) {}
    }

    /// Returns the time limits for a TPM that generates keys slowly.
    fn slow() -> Limits {
        Limits::new(Duration::from_millis(20), Duration::from_secs(2))
    }

    fn create(link: &mut Link) -> TpmError {
        let usage = KeyPurpose {
            signs: true,
            decrypts: false,
        };
        let template = template::device_key(KeyAlgorithm::Ec(Curve::P256), usage);
        let parent = AuthHandle::open(0x8100_0100, &[]);
        let made = link.create(parent, SensitiveCreate::default(), &template);
        made.map(drop).unwrap_err()
    }

    /// While the response to an earlier command is missing, the time limit of ordinary commands
    /// applies.
    #[test]
    fn a_generation_waits_for_an_answer_that_is_owed_as_any_command_does() {
        let mut link = Link::within(slow(), Silent(KeptOpen::new()));
        let ordinary = TpmError::Timeout(slow().for_class(CommandClass::Ordinary));
        assert_eq!(link.random(8), Err(ordinary.clone()));
        assert_eq!(create(&mut link), ordinary);
        let own = TpmError::Timeout(slow().for_class(CommandClass::Generation));
        assert_eq!(
            create(&mut link),
            own,
            "the command is sent over a new connection"
        );
    }

    #[test]
    fn a_generation_waits_for_a_connection_as_any_command_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tpm");
        let listener = UnixListener::bind(&path).unwrap();
        // One waiting connection fills the backlog.
        rustix::net::listen(&listener, 0).unwrap();
        let _waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let channel = Channel::new(Socket::Unix(path), Framing::Raw);
        let mut link = Link::within(slow(), channel);
        assert_eq!(
            create(&mut link),
            TpmError::Timeout(slow().for_class(CommandClass::Ordinary))
        );
    }

    #[test]
    fn a_code_that_no_table_knows_is_still_the_tpms_answer() {
        let (mut link, _) = answering(&[0x80, 1, 0, 0, 0, 10, 0, 0, 0x05, 0x7F]);
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
            let (mut link, _) = answering(garbage);
            let error = link.random(8).unwrap_err();
            assert!(error.is_transport_fault(), "{garbage:x?}: {error}");
        }
    }
}
