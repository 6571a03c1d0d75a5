//! Other interfaces of a swtpm: the protocol of the TPM simulator, and a character device.

use super::proxy::{Book, Reply, listeners, read_packet, serve};
use super::tpm::Swtpm;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// A server with the protocol of the TPM simulator (`mssim:`): commands on the first port, platform
/// signals on the second.
pub struct Simulator {
    book: Arc<Book>,
    ports: super::ports::Pair,
    ended: Arc<AtomicBool>,
}

impl Simulator {
    pub fn new(tpm: &Swtpm) -> Simulator {
        let (book, ended) = (Book::new(tpm), Arc::new(AtomicBool::new(false)));
        let (ports, commands, platform) = listeners();
        let served = Arc::clone(&book);
        serve(commands, &ended, move |client| simulate(&served, client));
        serve(platform, &ended, |mut client| {
            loop {
                match number(&mut client)? {
                    20 => return Ok(()), // TPM_SESSION_END
                    _ => client.write_all(&[0; 4])?,
                }
            }
        });
        Simulator { book, ports, ended }
    }

    pub fn book(&self) -> &Book {
        &self.book
    }

    pub fn tcti(&self) -> String {
        format!("mssim:host=127.0.0.1,port={}", self.ports.first)
    }

    /// Returns the port for commands.
    pub fn port(&self) -> u16 {
        self.ports.first
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        for port in [self.ports.first, self.ports.first + 1] {
            TcpStream::connect(("127.0.0.1", port)).ok();
        }
    }
}

fn simulate(book: &Book, mut client: TcpStream) -> io::Result<()> {
    loop {
        match number(&mut client)? {
            8 => {
                // TPM_SEND_COMMAND is followed by locality, size and command.
                let mut locality = [0];
                client.read_exact(&mut locality)?;
                let size = number(&mut client)?;
                let command = read_packet(&mut client)?;
                assert_eq!(size as usize, command.len(), "two sizes of one command");
                match book.exchange(&command) {
                    Reply::Whole(answer) | Reply::Dripped(answer) => {
                        let mut framed = u32::try_from(answer.len())
                            .expect("fits")
                            .to_be_bytes()
                            .to_vec();
                        framed.extend(answer);
                        framed.extend([0; 4]);
                        client.write_all(&framed)?;
                    }
                    Reply::Cut(bytes) => return client.write_all(&bytes),
                }
            }
            20 => return Ok(()), // TPM_SESSION_END
            _ => client.write_all(&[0; 4])?,
        }
    }
}

fn number(from: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

/// A pseudo terminal whose other end behaves like /dev/tpmrm0. A write sends a command, and a read
/// returns the answer.
pub struct Device {
    book: Arc<Book>,
    path: PathBuf,
    /// The other end stays open, so that the terminal exists between two users.
    _other_end: File,
}

impl Device {
    pub fn new(tpm: &Swtpm) -> Device {
        let (ours, path) = terminal();
        let other_end = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .expect("a terminal");
        let book = Book::new(tpm);
        let served = Arc::clone(&book);
        thread::spawn(move || -> io::Result<()> {
            let mut ours = ours;
            loop {
                if let Reply::Whole(answer) = served.exchange(&read_packet(&mut ours)?) {
                    ours.write_all(&answer)?;
                }
            }
        });
        Device {
            book,
            path,
            _other_end: other_end,
        }
    }

    pub fn book(&self) -> &Book {
        &self.book
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn tcti(&self) -> String {
        format!("device:{}", self.path.display())
    }
}

/// Opens a pseudo terminal in raw mode. Returns this end, and the path of the other end.
pub(super) fn terminal() -> (File, PathBuf) {
    let mut name = [0_u8; 128];
    // SAFETY: The calls use a descriptor of this process. `name` and `raw` are valid for writing,
    // and ptsname_r receives the length. The descriptor gets one owner.
    let ours = unsafe {
        let fd = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        assert!(fd >= 0, "posix_openpt: {}", io::Error::last_os_error());
        let owner = OwnedFd::from_raw_fd(fd);
        assert_eq!(
            libc::grantpt(fd) | libc::unlockpt(fd),
            0,
            "grantpt, unlockpt"
        );
        assert_eq!(
            libc::ptsname_r(fd, name.as_mut_ptr().cast(), name.len()),
            0,
            "ptsname_r"
        );
        let mut raw: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(fd, &raw mut raw), 0, "tcgetattr");
        libc::cfmakeraw(&raw mut raw);
        assert_eq!(
            libc::tcsetattr(fd, libc::TCSANOW, &raw const raw),
            0,
            "tcsetattr"
        );
        File::from(owner)
    };
    let end = name
        .iter()
        .position(|byte| *byte == 0)
        .expect("a terminated name");
    (
        ours,
        PathBuf::from(String::from_utf8_lossy(&name[..end]).into_owned()),
    )
}
