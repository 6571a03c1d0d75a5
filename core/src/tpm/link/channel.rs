//! Sockets of software TPMs: swtpm (raw frames) and the reference simulator (mssim framing).
//!
//! Both serve one client at a time, so each command has a connection of its own: a socket that is
//! kept would lock every other process out. A connection per command is also the reconnect.

use super::{FRAME_MAX, Fault, HEADER, Transport, frame_size};
use crate::system::pause;
use crate::tpm::tcti::Socket;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::io::Errno;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
    connect, recv, send, shutdown, socket_with,
};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// What surrounds a command on the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Nothing: the header's size says where a frame ends.
    Raw,
    /// MS_SIM's TPM_SEND_COMMAND with locality and size; size and a zero word around the response.
    Mssim,
}

const MSSIM_SEND_COMMAND: u32 = 8;
const MSSIM_SESSION_END: u32 = 20;

/// A software TPM's socket.
pub(super) struct Channel {
    socket: Socket,
    framing: Framing,
}

impl Channel {
    pub(super) fn new(socket: Socket, framing: Framing) -> Self {
        Self { socket, framing }
    }

    fn connect(&self, deadline: Instant) -> Result<OwnedFd, Fault> {
        let unreachable = |error: std::io::Error| {
            Fault::Unreachable(format!(
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
                    match connect_tcp(&address, deadline)? {
                        Ok(stream) => {
                            // Best effort: without it a command may wait for an acknowledgement.
                            let _ = stream.set_nodelay(true);
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
                connect_unix(path, deadline)?.map_err(|errno| unreachable(errno.into()))
            }
        }
    }
}

/// Connects to a TCP address. A software TPM has room for one client that waits; the kernel drops
/// what others send, and would try again after one second, then two, four and so on. So many
/// processes at once are better served by short tries.
fn connect_tcp(
    address: &SocketAddr,
    deadline: Instant,
) -> Result<std::io::Result<TcpStream>, Fault> {
    const ONE_TRY: Duration = Duration::from_millis(500);
    loop {
        match TcpStream::connect_timeout(address, ONE_TRY.min(remaining(deadline)?)) {
            Err(error) if error.kind() == ErrorKind::TimedOut => {}
            other => return Ok(other),
        }
    }
}

/// Connects to a Unix socket; a listener with a full backlog is waited for until the deadline.
fn connect_unix(path: &Path, deadline: Instant) -> Result<Result<OwnedFd, Errno>, Fault> {
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
            Err(Errno::AGAIN | Errno::INTR) => pause(PAUSE.min(remaining(deadline)?)),
            Err(errno) => return Ok(Err(errno)),
        }
    }
}

/// The same descriptor with a number above 2. A host that closed its standard streams would else
/// read from and write to the TPM when it means them.
pub(super) fn above_standard_streams(fd: OwnedFd) -> Result<OwnedFd, Fault> {
    match fd.as_raw_fd() {
        0..=2 => fcntl_dupfd_cloexec(&fd, 3).map_err(|errno| Fault::broken("opening", errno)),
        _ => Ok(fd),
    }
}

impl Transport for Channel {
    fn transact(&mut self, command: &[u8], deadline: Instant) -> Result<Vec<u8>, Fault> {
        let stream = Stream {
            socket: self.connect(deadline)?,
            deadline,
        };
        match self.framing {
            Framing::Raw => {
                stream.send(command)?;
                let mut response = stream.receive(HEADER)?;
                let size = frame_size(&response)?;
                response.extend(stream.receive(size - HEADER)?);
                Ok(response)
            }
            Framing::Mssim => {
                let mut message = MSSIM_SEND_COMMAND.to_be_bytes().to_vec();
                message.push(0); // locality
                message.extend((command.len() as u32).to_be_bytes());
                message.extend(command);
                stream.send(&message)?;
                let size = word(&stream.receive(4)?) as usize;
                if !(HEADER..=FRAME_MAX).contains(&size) {
                    return Err(Fault::Broken(format!(
                        "a response of {size} bytes announced"
                    )));
                }
                let response = stream.receive(size)?;
                stream.receive(4)?; // the simulator's own status, always 0
                // Best effort: the answer is here; the simulator also notices a closed socket.
                let _ = stream.send(&MSSIM_SESSION_END.to_be_bytes());
                Ok(response)
            }
        }
    }

    fn abandon(&mut self) {}
}

/// One connection with a deadline.
struct Stream {
    socket: OwnedFd,
    deadline: Instant,
}

impl Drop for Stream {
    /// A process that another thread forked meanwhile holds the connection too: closing alone would
    /// leave it open, and the TPM waiting on it.
    fn drop(&mut self) {
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

impl Stream {
    fn send(&self, mut bytes: &[u8]) -> Result<(), Fault> {
        while !bytes.is_empty() {
            wait(self.socket.as_fd(), PollFlags::OUT, self.deadline)?;
            match send(
                &self.socket,
                bytes,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(Fault::broken("sending", error)),
            }
        }
        Ok(())
    }

    fn receive(&self, count: usize) -> Result<Vec<u8>, Fault> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            wait(self.socket.as_fd(), PollFlags::IN, self.deadline)?;
            match recv(&self.socket, &mut bytes[filled..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(Fault::Broken("the TPM closed the connection".into())),
                Ok((got, _)) => filled += got,
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(Fault::broken("receiving", error)),
            }
        }
        Ok(bytes)
    }
}

/// Waits until `fd` is ready, or has an error or end that the next call will report.
pub(super) fn wait(fd: BorrowedFd<'_>, flags: PollFlags, deadline: Instant) -> Result<(), Fault> {
    loop {
        let left = remaining(deadline)?;
        let limit = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&limit)) {
            Ok(0) => return Err(Fault::Timeout),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(Fault::broken("waiting", error)),
        }
    }
}

fn remaining(deadline: Instant) -> Result<Duration, Fault> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(Fault::Timeout),
        left => Ok(left),
    }
}

fn word(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .take(4)
        .fold(0, |word, &byte| word << 8 | u32::from(byte))
}
