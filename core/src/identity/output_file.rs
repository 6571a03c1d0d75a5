//! Output files that a user names. An existing file is not overwritten by mistake. A private key,
//! or a file of another kind, is replaced only at explicit request.

use super::{IdentityError, IdentityErrorKind};
use crate::file::{self, read};
use crate::pem::{Block, PemReader};
use std::fs::{File, canonicalize};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use x509_cert::der::Decode;
use x509_cert::request::CertReq;

/// The size up to which an existing file is examined, in bytes. The tool writes no larger file.
const LARGEST: u64 = 1 << 20;
/// The maximum number of symbolic links in a path (Linux follows at most 40).
const MOST_LINKS: usize = 40;

/// An output file that the user named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    path: PathBuf,
    /// True if the output may replace any file (`--force`).
    force: bool,
}

/// The kind of content of an output file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind<'a> {
    /// PEM blocks with this label, and nothing else.
    Pem(&'a str),
    /// A certificate request (PKCS#10) in DER.
    DerRequest,
    /// A page of the manual in roff.
    ManualPage,
    /// A JSON document that contains this format name.
    Document(&'a str),
    /// A TCG-CSR structure, or a TPMT_SIGNATURE.
    #[cfg(feature = "manufacture")]
    TcgCsr,
    /// Bytes without a known format. They never replace an existing file.
    Bytes,
    /// A signed message. A signed message never replaces an existing file.
    SignedMessage,
    /// Hexadecimal digits, and nothing else.
    Hex,
    /// Metrics of devid in the text format of Prometheus.
    Metrics,
}

/// What exists at the path of an output file.
#[derive(Debug, PartialEq, Eq)]
enum Occupant {
    Nothing,
    /// A regular file. The path contains no symbolic links.
    Regular(PathBuf),
    /// An open file of this process (`/dev/stdout`, `/dev/fd/3`). Output is appended, and the file
    /// is never replaced.
    OpenFile,
    /// A device, a pipe or a socket.
    Special,
}

impl OutputFile {
    /// Creates the description of an output file. Opens no file.
    pub fn new(path: impl Into<PathBuf>, force: bool) -> Self {
        let path = path.into();
        Self { path, force }
    }

    /// Returns the path as the user gave it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns true if the output may replace any file (`--force`).
    pub fn is_forced(&self) -> bool {
        self.force
    }

    /// Checks that output of the kind `kind` may be written to the file. Callers check this before
    /// long work.
    ///
    /// # Errors
    ///
    /// Fails if an existing file would be lost. Also fails if the path is a folder, or a symbolic
    /// link without target.
    pub fn check(&self, kind: FileKind) -> Result<(), IdentityError> {
        match self.occupant()? {
            Occupant::Regular(there) => self.check_file(&there, |old| is_of_kind(old, kind)),
            Occupant::Nothing | Occupant::OpenFile | Occupant::Special => Ok(()),
        }
    }

    /// Writes a file with this content and mode. Replaces a file atomically, also through a
    /// symbolic link. Writes to an existing device or pipe.
    ///
    /// # Errors
    ///
    /// Fails for the reasons of [`OutputFile::check`], or if the file system reports an error.
    pub fn write(&self, content: &[u8], kind: FileKind, mode: u32) -> Result<(), IdentityError> {
        let written = match self.occupant()? {
            Occupant::Nothing => file::write_new(&self.path, content, mode),
            Occupant::Regular(there) => {
                self.check_file(&there, |old| old == content || is_of_kind(old, kind))?;
                file::write(&there, content, mode)
            }
            Occupant::OpenFile => appended(&self.path, content),
            Occupant::Special => File::options()
                .write(true)
                .open(&self.path)
                .and_then(|mut file| file.write_all(content)),
        };
        written.map_err(IdentityError::file(&self.path))
    }

    fn occupant(&self) -> Result<Occupant, IdentityError> {
        let path = &self.path;
        let shown = path.display();
        let refused =
            |why: &str| IdentityError::new(IdentityErrorKind::Failed, format!("{shown}: {why}"));
        match std::fs::metadata(path) {
            Ok(there) if there.is_dir() => Err(refused("this is a folder; name a file in it")),
            Ok(there) if !there.is_file() => Ok(Occupant::Special),
            Ok(_) if is_open_file(path) => Ok(Occupant::OpenFile),
            Ok(_) => {
                let there = canonicalize(path).map_err(IdentityError::file(path))?;
                Ok(Occupant::Regular(there))
            }
            Err(_) if path.is_symlink() => Err(refused("this is a symbolic link without target")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Occupant::Nothing),
            Err(error) => Err(IdentityError::file(path)(error)),
        }
    }

    /// Checks that output of the kind `kind` may replace an existing file.
    fn check_file(
        &self,
        there: &Path,
        is_same: impl FnOnce(&[u8]) -> bool,
    ) -> Result<(), IdentityError> {
        if self.force {
            return Ok(());
        }
        let what = match read(there, LARGEST) {
            Ok(old) if old.trim_ascii().is_empty() || is_same(&old) => return Ok(()),
            Ok(old) => match private_key(&old) {
                Some(label) => format!("it holds a private key ({label})"),
                None => "it holds content of another kind".into(),
            },
            Err(error) => format!("it cannot be read ({error}), so it may hold a private key"),
        };
        let shown = self.path.display();
        Err(IdentityError::refused(format!(
            "{shown}: {what}; nothing was written. Choose another file, or use --force if this \
             file may be overwritten"
        )))
    }
}

/// Returns true if a path leads to an open file of a process in /proc, perhaps through symbolic
/// links.
fn is_open_file(path: &Path) -> bool {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let Ok(folder) = canonicalize(parent) else {
            return false;
        };
        if folder.starts_with("/proc") && folder.ends_with("fd") {
            return true;
        }
        let Ok(next) = std::fs::read_link(&path) else {
            return false;
        };
        path = folder.join(next);
    }
    false
}

/// Appends content to an open file. With `>> file`, the shell opens the file for appending too.
fn appended(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::options().append(true).open(path)?;
    file.write_all(content)
}

/// Returns the label of the first private key in a file.
fn private_key(content: &[u8]) -> Option<String> {
    let blocks = PemReader::of(content).blocks;
    let mut labels = blocks.iter().flatten().map(|block| block.label);
    let label = labels.find(|label| is_private(label));
    // A damaged PEM block may still hold a private key of the user.
    let text = String::from_utf8_lossy(content);
    let damaged = || {
        text.contains("PRIVATE KEY-----")
            .then_some("a damaged block")
    };
    label.or_else(damaged).map(str::to_owned)
}

fn is_private(label: &str) -> bool {
    label.ends_with("PRIVATE KEY")
}

/// Returns true if the content is of the kind `kind` and of no other kind. Content with a private
/// key is never replaced by another kind.
fn is_of_kind(content: &[u8], kind: FileKind) -> bool {
    match kind {
        FileKind::Pem(label) => {
            let blocks = PemReader::of(content).blocks;
            let is_like = |block: &Result<Block, String>| {
                let block = block.as_ref();
                block.is_ok_and(|block| without_new(block.label) == label)
            };
            !is_private(label) && blocks.iter().all(is_like) && has_blocks_only(content)
        }
        FileKind::DerRequest => CertReq::from_der(content).is_ok(),
        FileKind::Document(format) => {
            let text = String::from_utf8_lossy(content);
            text.trim_start().starts_with('{') && text.contains(&format!("\"{format}\""))
        }
        #[cfg(feature = "manufacture")]
        FileKind::TcgCsr => match content.first_chunk() {
            // The field structVer of TCG_CSR_IDEVID_CONTENT, or of the enclosing TCG_CSR_IDEVID.
            Some([0 | 1, 0, 1, 0]) => true,
            // A TPMT_SIGNATURE begins with RSASSA, RSAPSS or ECDSA, and a hash.
            Some([0, 0x14 | 0x16 | 0x18, 0, 0x0B..=0x0D]) => true,
            _ => false,
        },
        FileKind::Hex => {
            let digit = |byte: &u8| byte.is_ascii_hexdigit() || byte.is_ascii_whitespace();
            content.iter().all(digit)
        }
        FileKind::Metrics => {
            let is_ours = |line: &[u8]| {
                line.is_empty()
                    || [&b"devid_"[..], b"# HELP devid_", b"# TYPE devid_"]
                        .iter()
                        .any(|start| line.starts_with(start))
            };
            content.split(|byte| *byte == b'\n').all(is_ours)
        }
        FileKind::ManualPage => {
            let is_macro = |line: &[u8]| matches!(line.first(), Some(b'.' | b'\''));
            let mut lines = content.split(|byte| *byte == b'\n');
            lines.next().is_some_and(is_macro) && lines.any(|line| line.starts_with(b".SH"))
        }
        FileKind::SignedMessage | FileKind::Bytes => false,
    }
}

/// Removes the prefix of the label NEW CERTIFICATE REQUEST, which older programs write (RFC 7468,
/// section 7).
fn without_new(label: &str) -> &str {
    label.strip_prefix("NEW ").unwrap_or(label)
}

/// Returns true if the file has no text outside of PEM blocks.
fn has_blocks_only(content: &[u8]) -> bool {
    let mut is_inside = false;
    content.split(|byte| *byte == b'\n').all(|line| {
        let line = line.trim_ascii();
        let was_inside = is_inside;
        is_inside =
            (was_inside || line.starts_with(b"-----BEGIN ")) && !line.starts_with(b"-----END ");
        line.is_empty() || was_inside || is_inside
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pem::render;
    use std::fs::{self, OpenOptions};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;

    const REQUEST: FileKind = FileKind::Pem("CERTIFICATE REQUEST");

    fn pem(label: &str) -> String {
        render(label, &[0x30, 0x03, 0x02, 0x01, 0x07]).unwrap()
    }

    fn written(path: &Path, force: bool) -> Result<(), IdentityErrorKind> {
        let file = OutputFile::new(path, force);
        let checked = file.check(REQUEST).map_err(|why| why.kind);
        let written = file.write(pem("CERTIFICATE REQUEST").as_bytes(), REQUEST, 0o644);
        let written = written.map_err(|why| why.kind);
        assert_eq!(checked, written, "{}", path.display());
        written
    }

    /// A file of the requested kind is replaced; any other file stays unchanged.
    #[test]
    fn documents_and_digits_are_kinds_of_their_own() {
        let challenge = FileKind::Document("devid-challenge/1");
        let document = b"{\n  \"format\": \"devid-challenge/1\",\n  \"id\": \"AA==\"\n}\n";
        assert!(is_of_kind(document, challenge));
        assert!(!is_of_kind(
            document,
            FileKind::Document("devid-response/1")
        ));
        assert!(!is_of_kind(b"\"format\": \"devid-challenge/1\"", challenge));
        assert!(is_of_kind(b"00ffAB\n", FileKind::Hex));
        assert!(!is_of_kind(document, FileKind::Hex));
        let metrics = b"# HELP devid_tpm_up Up.\n# TYPE devid_tpm_up gauge\ndevid_tpm_up 1\n";
        assert!(is_of_kind(metrics, FileKind::Metrics));
        let others = [&metrics[..], b"node_load1 1\n"].concat();
        assert!(!is_of_kind(&others, FileKind::Metrics));
    }

    #[test]
    fn what_would_be_lost_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let request = pem("CERTIFICATE REQUEST");
        let new_request = pem("NEW CERTIFICATE REQUEST").replace('\n', "\r\n");
        for old in [&request, &new_request, "", " \n", &request.repeat(2)] {
            fs::write(&path, old).unwrap();
            assert_eq!(written(&path, false), Ok(()), "{old:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), request, "{old:?}");
        }
        let large = format!("{request}{}", " ".repeat(LARGEST as usize));
        for old in [
            pem("PRIVATE KEY"),
            pem("EC PRIVATE KEY"),
            pem("TSS2 PRIVATE KEY"),
            pem("ENCRYPTED PRIVATE KEY"),
            pem("CERTIFICATE"),
            format!("{request}{}", pem("PRIVATE KEY")),
            format!("# our requests\n{request}"),
            format!("{request}# ours\n"),
            request.replace('M', "!"),
            "text".into(),
            "\0".into(),
            large,
        ] {
            fs::write(&path, &old).unwrap();
            assert_eq!(written(&path, false), Err(IdentityErrorKind::Refused));
            assert!(fs::read_to_string(&path).unwrap() == old, "{old:.80}");
            assert_eq!(written(&path, true), Ok(()));
            assert_eq!(fs::read_to_string(&path).unwrap(), request);
        }
    }

    /// A second write of a key loses nothing. Another key would replace and lose the first key.
    #[test]
    fn a_key_is_replaced_by_itself_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = OutputFile::new(folder.path().join("key"), false);
        let kind = FileKind::Pem("TSS2 PRIVATE KEY");
        let (one, other) = (
            render("TSS2 PRIVATE KEY", &[1; 50]).unwrap(),
            render("TSS2 PRIVATE KEY", &[2; 50]).unwrap(),
        );
        for _ in 0..2 {
            file.write(one.as_bytes(), kind, 0o600).unwrap();
        }
        let why = file.write(other.as_bytes(), kind, 0o600).unwrap_err();
        assert!(why.text.contains("private key"), "{why}");
        assert!(why.text.contains("--force"), "{why}");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), one);
    }

    #[test]
    fn what_a_path_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let [key, link, none] = ["key", "link", "none"].map(|name| folder.path().join(name));
        fs::write(&key, pem("PRIVATE KEY")).unwrap();
        symlink("key", &link).unwrap();
        assert_eq!(written(&link, false), Err(IdentityErrorKind::Refused));
        assert_eq!(fs::read_to_string(&key).unwrap(), pem("PRIVATE KEY"));
        assert_eq!(written(&link, true), Ok(()));
        assert!(link.is_symlink());
        assert_eq!(
            fs::read_to_string(&key).unwrap(),
            pem("CERTIFICATE REQUEST")
        );
        fs::remove_file(&key).unwrap();
        assert_eq!(written(&link, true), Err(IdentityErrorKind::Failed));
        assert_eq!(written(folder.path(), true), Err(IdentityErrorKind::Failed));
        assert_eq!(written(&none, false), Ok(()));
        assert_eq!(written(Path::new("/dev/null"), false), Ok(()));
        assert_eq!(
            written(&none.join("below"), true),
            Err(IdentityErrorKind::Failed)
        );
    }

    /// Output is appended to an open file. The file is not replaced.
    #[test]
    fn an_open_file_is_written_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.pem");
        fs::write(&path, pem("PRIVATE KEY")).unwrap();
        let opened = OpenOptions::new().append(true).open(&path).unwrap();
        let link = folder.path().join("link");
        symlink(format!("/dev/fd/{}", opened.as_raw_fd()), &link).unwrap();
        assert_eq!(written(&link, false), Ok(()));
        let both = pem("PRIVATE KEY") + &pem("CERTIFICATE REQUEST");
        assert_eq!(fs::read_to_string(&path).unwrap(), both);
    }

    #[test]
    fn a_pipe_stays_one() {
        use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, &path, FileType::Fifo, mode, 0).unwrap();
        let reader = open(&path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
        assert_eq!(written(&path, false), Ok(()));
        let mut read = [0; 500];
        let length = rustix::io::read(&reader, &mut read).unwrap();
        assert_eq!(&read[..length], pem("CERTIFICATE REQUEST").as_bytes());
        let about = fs::symlink_metadata(&path).unwrap();
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(&about.file_type()));
    }
}
