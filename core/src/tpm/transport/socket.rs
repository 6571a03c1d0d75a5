//! Sockets of software TPMs: swtpm (commands without framing) and the reference simulator (mssim
//! framing).
//!
//! A software TPM serves one client at a time, and a permanent connection would exclude all other
//! processes. Therefore each command has its own connection.

use super::Socket;
use super::{CommandClass, FRAME_MAX, HEADER, Timing, Transport, TransportError, Wait, frame_size};
use crate::system::pause;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::sockopt::set_tcp_user_timeout;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
    connect, recv, send, shutdown, socket_with,
};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// The bytes around a command on the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tpm) enum Framing {
    /// No framing: the size in the header of a command or response marks its end.
    Raw,
    /// MS_SIM: TPM_SEND_COMMAND with locality and size. The response comes between its size and a
    /// zero word.
    Mssim,
}

const MSSIM_SEND_COMMAND: u32 = 8;
const MSSIM_SESSION_END: u32 = 20;

/// The socket of a software TPM.
pub(in crate::tpm) struct Channel {
    socket: Socket,
    framing: Framing,
}

impl Channel {
    pub(in crate::tpm) fn new(socket: Socket, framing: Framing) -> Self {
        Self { socket, framing }
    }

    fn connect(&self, wait: &Wait<'_>) -> Result<OwnedFd, TransportError> {
        let unreachable = |error: std::io::Error| {
            TransportError::Unreachable(format!(
                "{}: {error}; is the software TPM running?",
                self.socket
            ))
        };
        match &self.socket {
            Socket::Tcp(host, port) => {
                let mut refused = None;
                for address in (host.as_str(), *port)
                    .to_socket_addrs()
                    .map_err(unreachable)?
                {
                    match connect_tcp(&address, wait)? {
                        Ok(stream) => {
                            // A failure is ignored. Without TCP_NODELAY a command may wait for an
                            // acknowledgement.
                            let _ = stream.set_nodelay(true);
                            if address.ip().is_loopback() {
                                let _ = set_tcp_user_timeout(&stream, UNDELIVERED_MS);
                            }
                            return above_standard_streams(stream.into());
                        }
                        Err(error) => refused = Some(error),
                    }
                }
                Err(unreachable(
                    refused.unwrap_or_else(|| Errno::HOSTUNREACH.into()),
                ))
            }
            Socket::Unix(path) => {
                connect_unix(path, wait)?.map_err(|errno| unreachable(errno.into()))
            }
        }
    }
}

/// The time in ms that a command on loopback may be without acknowledgement (TCP_USER_TIMEOUT). At
/// its next repetition the kernel then ends the connection. An acknowledgement takes at most 40 ms.
///
/// If the queue of a listener becomes full during a handshake, only the client has a connection. Its
/// kernel repeats the command after 0.2 s, 0.4 s and so on, until the queue has room.
const UNDELIVERED_MS: u32 = 100;

/// Connects to a TCP address. A software TPM has room for two waiting clients. The kernel drops
/// further requests and sends them again after 1 s, 2 s, 4 s and so on. With many processes, short
/// tries reach the TPM earlier. A process that waits longer than others would get no turn.
fn connect_tcp(
    address: &SocketAddr,
    wait: &Wait<'_>,
) -> Result<std::io::Result<TcpStream>, TransportError> {
    // The first try must be long enough for a round trip in most networks.
    let (first, longest) = match address.ip().is_loopback() {
        true => (Duration::from_millis(2), Duration::from_millis(16)),
        false => (Duration::from_millis(50), Duration::from_millis(500)),
    };
    let mut time = first;
    loop {
        match TcpStream::connect_timeout(address, time.min(wait.left()?)) {
            Err(error) if error.kind() == ErrorKind::TimedOut => time = longest.min(time * 2),
            other => return Ok(other),
        }
    }
}

/// Connects to a Unix socket. If the backlog of the listener is full, waits and tries again.
fn connect_unix(path: &Path, wait: &Wait<'_>) -> Result<Result<OwnedFd, Errno>, TransportError> {
    const PAUSE: Duration = Duration::from_millis(2);
    let address = match SocketAddrUnix::new(path) {
        Ok(address) => address,
        Err(errno) => return Ok(Err(errno)),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = match socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None) {
        Ok(socket) => above_standard_streams(socket)?,
        Err(errno) => return Ok(Err(errno)),
    };
    loop {
        match connect(&socket, &address) {
            Ok(()) => return Ok(Ok(socket)),
            Err(Errno::AGAIN | Errno::INTR) => pause(PAUSE.min(wait.left()?)),
            Err(errno) => return Ok(Err(errno)),
        }
    }
}

/// Returns a duplicate of the descriptor with a number above 2. If the host process closed its
/// standard streams, the descriptor could have such a number. The host would then read from the TPM
/// or write to it by mistake.
pub(super) fn above_standard_streams(fd: OwnedFd) -> Result<OwnedFd, TransportError> {
    match fd.as_raw_fd() {
        0..=2 => {
            fcntl_dupfd_cloexec(&fd, 3).map_err(|errno| TransportError::broken("opening", errno))
        }
        _ => Ok(fd),
    }
}

/// The reason why a connection gave no response.
enum Failure {
    /// The command did not reach the other end of a connection on loopback. The TPM did nothing.
    Undelivered,
    Other(TransportError),
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        Self::Other(error)
    }
}

impl Transport for Channel {
    fn transact(
        &mut self,
        command: &[u8],
        class: CommandClass,
        timing: &Timing,
    ) -> Result<Vec<u8>, TransportError> {
        let before = timing.wait(CommandClass::Ordinary);
        loop {
            let stream = Stream(self.connect(&before)?);
            let _generation = timing.note_start(class);
            match self.exchange(&stream, command, class, timing, &before) {
                Ok(response) => return Ok(response),
                Err(Failure::Other(error)) => return Err(error),
                Err(Failure::Undelivered) => {}
            }
        }
    }

    fn abandon(&mut self) {}
}

impl Channel {
    /// Sends a command within the wait `before`, and receives its response.
    fn exchange(
        &self,
        stream: &Stream,
        command: &[u8],
        class: CommandClass,
        timing: &Timing,
        before: &Wait<'_>,
    ) -> Result<Vec<u8>, Failure> {
        match self.framing {
            Framing::Raw => {
                stream.send(command, before)?;
                let wait = timing.wait(class);
                let mut response = stream.receive(HEADER, &wait)?;
                let size = frame_size(&response)?;
                response.extend(stream.receive(size - HEADER, &wait)?);
                Ok(response)
            }
            Framing::Mssim => {
                let mut message = MSSIM_SEND_COMMAND.to_be_bytes().to_vec();
                message.push(0); // locality
                message.extend((command.len() as u32).to_be_bytes());
                message.extend(command);
                stream.send(&message, before)?;
                let wait = timing.wait(class);
                let size = word(&stream.receive(4, &wait)?) as usize;
                if !(HEADER..=FRAME_MAX).contains(&size) {
                    return Err(TransportError::Broken(format!(
                        "the TPM announced a response of {size} bytes"
                    ))
                    .into());
                }
                let response = stream.receive(size, &wait)?;
                stream.receive(4, &wait)?; // the simulator's own status, always 0
                // A failure is ignored. The answer has arrived, and the simulator also notices a
                // closed socket.
                let _ = stream.send(&MSSIM_SESSION_END.to_be_bytes(), &wait);
                Ok(response)
            }
        }
    }
}

/// A connection for one command.
struct Stream(OwnedFd);

impl Drop for Stream {
    /// Shuts the connection down. If another thread forked in the meantime, the forked process has
    /// a copy of the descriptor. After close(2) alone the connection would stay open, and the TPM
    /// would wait.
    fn drop(&mut self) {
        let _ = shutdown(&self.0, Shutdown::Both);
    }
}

impl Stream {
    fn send(&self, mut bytes: &[u8], wait: &Wait<'_>) -> Result<(), TransportError> {
        while !bytes.is_empty() {
            poll_fd(self.0.as_fd(), PollFlags::OUT, wait)?;
            match send(&self.0, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(TransportError::broken("sending", error)),
            }
        }
        Ok(())
    }

    fn receive(&self, count: usize, wait: &Wait<'_>) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            poll_fd(self.0.as_fd(), PollFlags::IN, wait)?;
            match recv(&self.0, &mut bytes[filled..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    let closed = "the TPM closed the connection".into();
                    return Err(TransportError::Broken(closed).into());
                }
                Ok((got, _)) => filled += got,
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(Errno::TIMEDOUT) => return Err(Failure::Undelivered),
                Err(error) => return Err(TransportError::broken("receiving", error).into()),
            }
        }
        Ok(bytes)
    }
}

/// Waits until `fd` is ready, or has an error or end of file that the next call reports.
pub(super) fn poll_fd(
    fd: BorrowedFd<'_>,
    flags: PollFlags,
    wait: &Wait<'_>,
) -> Result<(), TransportError> {
    loop {
        let left = wait.left()?;
        let limit = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&limit)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(TransportError::broken("waiting", error)),
        }
    }
}

fn word(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .take(4)
        .fold(0, |word, &byte| word << 8 | u32::from(byte))
}
