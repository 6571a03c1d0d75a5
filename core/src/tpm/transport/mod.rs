//! Transports. A transport carries the bytes of a command to the TPM, and the bytes of the response
//! back, within a time limit. A transport does not interpret commands.

mod device;
pub(super) mod kept_open;
mod limits;
#[cfg(fuzzing)]
pub mod memory;
pub(super) mod socket;
pub(super) mod tcti;
#[cfg(feature = "tss")]
mod tctildr;
mod timeout_memory;

use device::CharDevice;
pub(super) use limits::{BUSY, Timing, Wait};
pub use limits::{CommandClass, Limit, Limits};
use socket::{Channel, Framing};
use tcti::Socket;
pub(crate) use tcti::is_alias as is_tcti_alias;
pub use tcti::{Tcti, TctiError};
pub(super) use timeout_memory::TimeoutCause;
pub use timeout_memory::TimeoutMemory;

/// The maximum size of a command or response (Part 2, section 4: implementations use 4096).
pub(super) const FRAME_MAX: usize = 4096;
/// The size of the header of a command or response: tag, size and code.
pub(super) const HEADER: usize = 10;

/// Sends a command to the TPM and returns its response.
pub(super) trait Transport: Send {
    /// Sends a command and returns the response. The class of the command decides its time limit.
    /// Opening a connection, and receiving a late answer to an earlier command, have the time limit
    /// of ordinary commands. A command that generates a key is noted ([`Timing::note_start`]) from
    /// its sending until this method returns. After an error the next call opens a new connection.
    fn transact(
        &mut self,
        command: &[u8],
        class: CommandClass,
        timing: &Timing,
    ) -> Result<Vec<u8>, TransportError>;
    /// Closes the parent's connection in a forked child, without sending a byte.
    fn abandon(&mut self);
}

/// Errors of a transport.
pub(super) enum TransportError {
    Unreachable(String),
    Broken(String),
    Timeout(Limit),
}

impl From<Limit> for TransportError {
    fn from(passed: Limit) -> Self {
        Self::Timeout(passed)
    }
}

impl TransportError {
    /// Creates the error for a fault that occurred while a command was under way.
    pub(super) fn broken(doing: &str, error: impl std::fmt::Display) -> Self {
        Self::Broken(format!("{doing}: {error}"))
    }
}

/// Creates the transport for a TCTI. The transport opens nothing before the first command.
///
/// # Errors
///
/// Fails with the reason if this build lacks the transport.
pub(super) fn new(tcti: &Tcti) -> Result<Box<dyn Transport>, String> {
    Ok(match tcti {
        Tcti::Device(path) => Box::new(CharDevice::new(path.clone())),
        #[cfg(fuzzing)]
        Tcti::Swtpm(Socket::Unix(path)) if path == std::path::Path::new(memory::PATH) => {
            Box::new(memory::Memory)
        }
        Tcti::Swtpm(socket) => Box::new(Channel::new(socket.clone(), Framing::Raw)),
        Tcti::Mssim(host, port) => {
            let socket = Socket::Tcp(host.clone(), *port);
            Box::new(Channel::new(socket, Framing::Mssim))
        }
        #[cfg(feature = "tss")]
        Tcti::Loaded(conf) => Box::new(tctildr::Tctildr::new(conf)?),
        #[cfg(not(feature = "tss"))]
        Tcti::Loaded(conf) => {
            return Err(format!("{conf}: this build has no libtss2 (feature tss)"));
        }
    })
}

/// Returns the size in the header of a command or response.
fn frame_size(header: &[u8]) -> Result<usize, TransportError> {
    let size = header.get(2..6).and_then(|size| size.try_into().ok());
    match size.map(|size| u32::from_be_bytes(size) as usize) {
        Some(size) if (HEADER..=FRAME_MAX).contains(&size) => Ok(size),
        _ => Err(TransportError::Broken(
            "the answer has no TPM response header".into(),
        )),
    }
}
