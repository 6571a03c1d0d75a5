//! TCTI strings: the address of the TPM, in the format of tpm2-tools and libtss2.

use crate::trouble::paths_in;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A parsed TCTI string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tcti {
    /// `device:/dev/tpmrm0`: a character device.
    Device(PathBuf),
    /// `swtpm:host=…,port=…` (default 127.0.0.1:2321), or `swtpm:path=…` for a Unix socket.
    Swtpm(Socket),
    /// `mssim:host=…,port=…`: a socket with the framing of the reference simulator.
    Mssim(String, u16),
    /// `tabrmd:…` and other transports of libtss2, in the format of libtss2.
    Loaded(String),
}

/// The address of a TPM's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Socket {
    /// A TCP address: host and port.
    Tcp(String, u16),
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// The error for a TCTI string that cannot be parsed. The text gives the cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TctiError(String);

impl Tcti {
    const PORT: u16 = 2321;

    /// Returns true if a resource manager gives each connection its own space. The resource manager
    /// of the kernel (/dev/tpmrm0) and tpm2-abrmd do so. In all other cases the clients share the
    /// slots of the TPM.
    pub fn is_managed(&self) -> bool {
        let is_kernels = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("tpmrm"))
        };
        match self {
            Self::Device(path) => is_kernels(path),
            Self::Swtpm(_) | Self::Mssim(..) => false,
            Self::Loaded(conf) => match tcti_of_libtss2(conf) {
                ("tabrmd", _) => true,
                ("device", path) => path.is_empty() || is_kernels(Path::new(path)),
                _ => false,
            },
        }
    }

    /// Returns true if no other process can replace an object that this process has loaded, and if this
    /// process notices when the descriptor no longer names its own connection. Only our transport
    /// to the kernel's resource manager checks its descriptor ([`super::device`]).
    pub(crate) fn has_own_space(&self) -> bool {
        match self {
            Self::Device(_) => self.is_managed(),
            Self::Swtpm(_) | Self::Mssim(..) | Self::Loaded(_) => false,
        }
    }

    /// Returns the device node of the kernel to which this TCTI leads, if there is one.
    pub(in crate::tpm) fn node(&self) -> Option<PathBuf> {
        let conf = match self {
            Self::Device(path) => return Some(path.clone()),
            Self::Swtpm(_) | Self::Mssim(..) => return None,
            Self::Loaded(conf) => conf,
        };
        match tcti_of_libtss2(conf) {
            ("device", "") => Self::default().node(),
            ("device", path) => Some(PathBuf::from(path)),
            _ => None,
        }
    }

    /// Returns true if the kernel has a TPM for this TCTI. The TPM need not answer, and this user
    /// need not have access. For other transports only an answer shows that the TPM exists. If the
    /// check fails, the TPM is assumed to exist, so that no second identity is made.
    pub fn is_there(&self) -> bool {
        let there = |path: &Path| path.try_exists().unwrap_or(true);
        if let Some(node) = self.node() {
            return there(&node);
        }
        let Self::Loaded(conf) = self else {
            return false;
        };
        match tcti_of_libtss2(conf) {
            ("tabrmd", _) => {
                let is_tpm = |path: &PathBuf| {
                    let name = path.file_name().unwrap_or_default();
                    name.as_encoded_bytes().starts_with(b"tpm")
                };
                paths_in(Path::new("/dev")).map_or(true, |paths| paths.iter().any(is_tpm))
            }
            _ => false,
        }
    }

    /// Returns the number of keys that one connection may keep loaded behind a resource manager.
    /// The kernel saves and loads all keys of a connection around each command. It has room for
    /// three keys, so the number is one. For tpm2-abrmd the number is eight, because tpm2-abrmd
    /// loads only the keys that a command names, but allows few connections.
    pub(in crate::tpm) fn keys_in_a_space(&self) -> usize {
        match self {
            Self::Loaded(conf) if tcti_of_libtss2(conf).0 == "tabrmd" => 8,
            Self::Loaded(_) | Self::Device(_) | Self::Swtpm(_) | Self::Mssim(..) => 1,
        }
    }
}

/// Splits a string of libtss2 into the name of the transport and its configuration. libtss2 also
/// accepts the file name of a library as the name.
fn tcti_of_libtss2(conf: &str) -> (&str, &str) {
    let (name, rest) = conf.split_once(':').unwrap_or((conf, ""));
    let name = name.strip_prefix("libtss2-tcti-").unwrap_or(name);
    (name.split('.').next().unwrap_or(name), rest)
}

/// Returns true if a string begins with the alias `esapi:`. An older release required this alias
/// before strings of libtss2.
pub(crate) fn is_alias(text: &str) -> bool {
    text.starts_with("esapi:")
}

/// Returns true if only libtss2 has a transport of this name.
fn is_of_libtss2(name: &str) -> bool {
    let Some(library) = name.strip_prefix("libtss2-tcti-") else {
        return name == "tabrmd";
    };
    // A name with a path is refused, because the loader would run any library at this path. `cmd`
    // is refused, because it ends the host by SIGPIPE when its program ends, and writes past its
    // buffer.
    library.contains(".so") && !name.contains('/') && !library.starts_with("cmd.")
}

impl Default for Tcti {
    /// Returns the device of the kernel's resource manager.
    fn default() -> Self {
        Self::Device(PathBuf::from("/dev/tpmrm0"))
    }
}

impl FromStr for Tcti {
    type Err = TctiError;

    fn from_str(text: &str) -> Result<Self, TctiError> {
        let (name, conf) = text.split_once(':').unwrap_or((text, ""));
        match name {
            "device" if conf.is_empty() => Ok(Self::default()),
            "device" => Ok(Self::Device(PathBuf::from(conf))),
            "swtpm" => socket(conf).map(Self::Swtpm),
            "mssim" => match socket(conf)? {
                Socket::Unix(_) => Err(TctiError("mssim has no path=".into())),
                Socket::Tcp(host, port) => Ok(Self::Mssim(host, port)),
            },
            "esapi" if !conf.is_empty() && !is_alias(conf) => conf.parse(),
            _ if is_of_libtss2(name) => Ok(Self::Loaded(text.to_owned())),
            _ => Err(TctiError(format!(
                "{text:?} names no TPM: expected device:, swtpm:, mssim:, tabrmd: \
                 or libtss2-tcti-NAME.so.0:"
            ))),
        }
    }
}

fn socket(conf: &str) -> Result<Socket, TctiError> {
    let (mut host, mut port, mut path) = (None, None, None);
    for pair in conf.split(',').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("host", value)) => host = Some(value.to_owned()),
            Some(("port", value)) => {
                port = Some(
                    value
                        .parse()
                        .map_err(|_| TctiError(format!("{value:?} is not a port number")))?,
                );
            }
            Some(("path", value)) => path = Some(PathBuf::from(value)),
            _ => {
                return Err(TctiError(format!(
                    "{pair:?}: expected host=, port= or path="
                )));
            }
        }
    }
    match (path, host, port) {
        (Some(path), None, None) => Ok(Socket::Unix(path)),
        (Some(_), _, _) => Err(TctiError("use either path=, or host= and port=".into())),
        (None, host, port) => Ok(Socket::Tcp(
            host.unwrap_or_else(|| "127.0.0.1".into()),
            port.unwrap_or(Tcti::PORT),
        )),
    }
}

impl fmt::Display for Tcti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => write!(f, "device:{}", path.display()),
            Self::Swtpm(socket) => write!(f, "swtpm:{socket}"),
            Self::Mssim(host, port) => write!(f, "mssim:host={host},port={port}"),
            Self::Loaded(conf) => f.write_str(conf),
        }
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "host={host},port={port}"),
            Self::Unix(path) => write!(f, "path={}", path.display()),
        }
    }
}

impl fmt::Display for TctiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TctiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_of_the_kernel_is_there_whoever_speaks_to_it() {
        for (text, there) in [
            ("device:/dev/null", true),
            ("device:/nonexistent", false),
            ("esapi:device:/dev/null", true),
            ("libtss2-tcti-device.so.0:/dev/null", true),
            ("libtss2-tcti-device.so.0:/nonexistent", false),
            ("libtss2-tcti-swtpm.so.0:path=/dev/null", false),
            ("swtpm:path=/dev/null", false),
        ] {
            assert_eq!(text.parse::<Tcti>().unwrap().is_there(), there, "{text}");
        }
        let kernels = std::fs::read_dir("/sys/class/tpm").is_ok_and(|mut all| all.next().is_some());
        let tabrmd: Tcti = "tabrmd".parse().unwrap();
        assert!(tabrmd.is_there() || !kernels);
    }

    #[test]
    fn strings_of_every_kind() {
        let tcp = |port| Socket::Tcp("127.0.0.1".into(), port);
        for (text, expected) in [
            ("device", Tcti::Device("/dev/tpmrm0".into())),
            ("device:/dev/tpm0", Tcti::Device("/dev/tpm0".into())),
            ("swtpm", Tcti::Swtpm(tcp(2321))),
            ("swtpm:port=99", Tcti::Swtpm(tcp(99))),
            (
                "swtpm:path=/run/tpm.sock",
                Tcti::Swtpm(Socket::Unix("/run/tpm.sock".into())),
            ),
            (
                "mssim:host=127.0.0.1,port=1",
                Tcti::Mssim("127.0.0.1".into(), 1),
            ),
            (
                "tabrmd:bus_type=session",
                Tcti::Loaded("tabrmd:bus_type=session".into()),
            ),
            // An alias of an older release.
            ("esapi:swtpm:port=1", Tcti::Swtpm(tcp(1))),
            ("esapi:tabrmd", Tcti::Loaded("tabrmd".into())),
            (
                "libtss2-tcti-swtpm.so.0:port=1",
                Tcti::Loaded("libtss2-tcti-swtpm.so.0:port=1".into()),
            ),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "",
            "esapi:",
            "esapi:esapi:tabrmd",
            "esapi:usb:",
            "libtss2-tcti-../../tmp/x.so:",
            "libtss2-tcti-tabrmd",
            "cmd:program",
            "libtss2-tcti-cmd.so.0:program",
            "usb:",
            "swtpm:port=x",
            "swtpm:prot=1",
            "mssim:path=/x",
        ] {
            assert!(text.parse::<Tcti>().is_err(), "{text}");
        }
        assert!("swtpm:path=/x,port=1".parse::<Tcti>().is_err());
    }

    #[test]
    fn a_space_of_the_kernel_holds_one_key_whoever_speaks_to_it() {
        for (text, keys) in [
            ("device:/dev/tpmrm0", 1),
            ("libtss2-tcti-device.so.0:/dev/tpmrm0", 1),
            ("tabrmd:bus_type=session", 8),
            ("libtss2-tcti-tabrmd.so.0", 8),
        ] {
            let tcti: Tcti = text.parse().unwrap();
            assert!(tcti.is_managed());
            assert_eq!(tcti.keys_in_a_space(), keys, "{text}");
            assert_eq!(tcti.has_own_space(), text == "device:/dev/tpmrm0", "{text}");
        }
    }

    #[test]
    fn clients_without_a_manager_share_the_slots() {
        for text in [
            "device:/dev/tpm0",
            "swtpm:path=/run/tpm",
            "mssim:",
            "libtss2-tcti-swtpm.so.0:",
        ] {
            let tcti: Tcti = text.parse().unwrap();
            assert!(!tcti.is_managed() && !tcti.has_own_space(), "{text}");
        }
    }

    #[test]
    fn a_shown_string_parses_to_the_same() {
        for text in [
            "device:/dev/tpm0",
            "swtpm:host=h,port=9",
            "tabrmd:bus_type=session",
        ] {
            let tcti: Tcti = text.parse().unwrap();
            assert_eq!(tcti.to_string().parse(), Ok(tcti));
        }
    }
}
