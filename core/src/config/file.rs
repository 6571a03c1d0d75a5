//! Reads `config.toml` and its drop-ins: which sections and settings they may have.

use super::TctiSetting;
use super::section::{FirstError, SettingError, TomlTable, absolute};
use super::syntax;
use super::{
    CertificateSettings, ConfigError, ExistingSource, FACTORY, Fallback, LeaveSoftware, LogTarget,
    RandomSource, SESSIONS, SecretSource, ShowOwner,
};
use crate::tpm::handle;
use crate::trouble::{is_leftover, paths_in};
use crate::trust::distrusted;
use crate::x509::SubjectTemplate;
use log::LevelFilter;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use toml::de::DeValue;

/// The maximum size of a file. Usual configuration files are much smaller.
const LARGEST: u64 = 1 << 20;
const BYTE_ORDER_MARK: char = '\u{FEFF}';

/// The settings in one configuration file: `config.toml` or a drop-in. A setting that the file
/// omits is `None` or an empty list.
#[derive(Debug, Default)]
pub(super) struct FileSettings {
    pub(super) tcti: Option<TctiSetting>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) generation_timeout_ms: Option<u64>,
    pub(super) random: Option<RandomSource>,
    pub(super) session_slot: Option<bool>,
    pub(super) verify_signatures: Option<bool>,
    pub(super) state: Option<PathBuf>,
    pub(super) log: Option<LogTable>,
    pub(super) identity: Vec<IdentityHint>,
    pub(super) master: Option<MasterTable>,
    pub(super) provision: Option<ProvisionTable>,
    pub(super) token: Vec<TokenTable>,
    pub(super) certificate: Vec<CertificateSettings>,
    pub(super) owner: Option<ShowOwner>,
    /// The files in `config.d/` that are not drop-ins because of their names.
    pub(super) left_out: Vec<PathBuf>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct ProvisionTable {
    pub(super) own: Option<bool>,
    pub(super) marker: Option<PathBuf>,
    pub(super) fallback: Option<Fallback>,
    pub(super) existing: Option<ExistingSource>,
    pub(super) leave_software: Option<LeaveSoftware>,
    pub(super) nv_index: Option<u32>,
    pub(super) subject: Option<SubjectTemplate>,
}

#[derive(Debug, Clone)]
pub(super) struct TokenTable {
    /// The byte offset of the `[[token]]` table in the file.
    at: usize,
    /// The file and the line of the `[[token]]` table, for error messages.
    pub(super) place: String,
    pub(super) name: String,
    pub(super) path: Option<PathBuf>,
    pub(super) allow_file_keys: Option<bool>,
    pub(super) allow_last_try: Option<bool>,
    pub(super) pin: Option<SecretSource>,
    pub(super) parents: Vec<u32>,
    pub(super) allow_raw_rsa: Option<bool>,
    pub(super) service: Option<bool>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct MasterTable {
    pub(super) handle: Option<u32>,
    pub(super) owner_auth: Option<SecretSource>,
    pub(super) ek_roots: Option<PathBuf>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct LogTable {
    pub(super) level: Option<LogLevel>,
    pub(super) target: Option<LogTarget>,
    pub(super) audit: Option<bool>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct LogLevel(pub(super) LevelFilter);

impl FileSettings {
    pub(super) fn asks_audit(&self) -> bool {
        self.log.as_ref().and_then(|log| log.audit).unwrap_or(false)
    }

    /// Overrides settings with the settings of a later drop-in. Lists of both files are joined.
    fn overlay(&mut self, later: Self) {
        self.tcti = later.tcti.or(self.tcti.take());
        self.timeout_ms = later.timeout_ms.or(self.timeout_ms);
        let generation = later.generation_timeout_ms;
        self.generation_timeout_ms = generation.or(self.generation_timeout_ms);
        self.random = later.random.or(self.random);
        self.session_slot = later.session_slot.or(self.session_slot);
        self.verify_signatures = later.verify_signatures.or(self.verify_signatures);
        self.state = later.state.or(self.state.take());
        if let Some(later) = later.log {
            let log = self.log.get_or_insert_default();
            log.level = later.level.or(log.level);
            log.target = later.target.or(log.target.take());
            log.audit = later.audit.or(log.audit);
        }
        self.identity.extend(later.identity);
        self.token.extend(later.token);
        self.certificate.extend(later.certificate);
        self.owner = later.owner.or(self.owner);
        self.left_out.extend(later.left_out);
        if let Some(later) = later.master {
            let master = self.master.get_or_insert_default();
            master.handle = later.handle.or(master.handle);
            master.owner_auth = later.owner_auth.or(master.owner_auth.take());
            master.ek_roots = later.ek_roots.or(master.ek_roots.take());
        }
        if let Some(later) = later.provision {
            let provision = self.provision.get_or_insert_default();
            provision.own = later.own.or(provision.own);
            provision.marker = later.marker.or(provision.marker.take());
            provision.fallback = later.fallback.or(provision.fallback);
            provision.existing = later.existing.or(provision.existing.take());
            provision.leave_software = later.leave_software.or(provision.leave_software);
            provision.nv_index = later.nv_index.or(provision.nv_index);
            provision.subject = later.subject.or(provision.subject.take());
        }
    }
}

/// Where to find an identity that is not at the handles and NV indices of the TCG (`[[identity]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityHint {
    /// The persistent handle of the identity's key, 0x81000000 to 0x81FFFFFF.
    pub handle: Option<u32>,
    /// The NV index of the identity's certificate, 0x01000000 to 0x01FFFFFF.
    pub nv: Option<u32>,
    /// The file with the identity's certificate, in DER or PEM.
    pub certificate: Option<PathBuf>,
    /// The source of the key's authorisation value, if the value is not empty.
    pub auth: Option<IdentityAuth>,
    /// True if a PIN may be tried even if a wrong PIN would put the TPM into lockout.
    pub allow_last_try: bool,
}

/// The source of an identity key's authorisation value (`auth`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityAuth {
    /// The configuration names the authorisation value, so callers need no PIN.
    Secret(SecretSource),
    /// The authorisation value is the PIN that the user gives to C_Login (`auth = "pin"`). The
    /// identity has its own slot.
    Pin,
}

impl FromStr for IdentityAuth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "pin" => Ok(Self::Pin),
            secret => secret
                .parse()
                .map(Self::Secret)
                .map_err(|why: String| format!("{why}, or pin")),
        }
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!("{text:?} is not a log level: expected off, error, warn, info, debug or trace")
        })
    }
}

/// Returns the valid settings of the `[log]` table, although the file has errors. The error must
/// reach the log that the administrator reads.
pub(super) fn log_table(file: &Path) -> Option<LogTable> {
    believed(file).ok()?;
    let text = text_of(file).ok()?;
    let (written, _) = understood(&text).ok()?;
    written.log
}

/// Reads `config.toml` and its drop-ins. Drop-ins override `config.toml`. `config.toml` may be
/// missing unless `required` is true.
pub(super) fn read(
    file: &Path,
    required: bool,
    folder: &Path,
) -> Result<FileSettings, ConfigError> {
    believed(file)?;
    let mut written = match text_of(file) {
        Ok(text) => parse(file, &text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {
            FileSettings::default()
        }
        Err(error) => return Err(ConfigError::file(file, error)),
    };
    believed(folder)?;
    let (drop_ins, left_out) = drop_ins(folder)?;
    written.left_out = left_out;
    for drop_in in drop_ins {
        believed(&drop_in)?;
        let text = text_of(&drop_in).map_err(|error| ConfigError::file(&drop_in, error))?;
        written.overlay(parse(&drop_in, &text)?);
    }
    Ok(written)
}

/// Checks that only users whom the administrator trusts could have written the file. If the check
/// fails, neither the file nor the defaults are used, because the intended settings are unknown.
fn believed(path: &Path) -> Result<(), ConfigError> {
    match distrusted(path) {
        None => Ok(()),
        Some(fault) => Err(ConfigError {
            place: fault.place.display().to_string(),
            what: format!("{}, so {} is not used", fault.why, path.display()),
            unread: fault.unread.is_some(),
            distrusted: fault.unread.is_none(),
        }),
    }
}

/// Returns the text of a configuration file without byte order marks at its start. All byte offsets
/// of this module count from there.
fn text_of(path: &Path) -> std::io::Result<String> {
    let content = crate::file::read(path, LARGEST)?;
    let no_text = |what| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
    let text =
        String::from_utf8(content).map_err(|error| no_text(syntax::no_text(error.as_bytes())))?;
    Ok(text.trim_start_matches(BYTE_ORDER_MARK).to_owned())
}

/// Returns the drop-ins in the folder `config.d/`, and the files of this folder that are not
/// drop-ins.
fn drop_ins(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), ConfigError> {
    let all = paths_in(folder).map_err(|error| ConfigError::file(folder, error))?;
    let is_drop_in = |path: &PathBuf| path.extension().is_some_and(|end| end == "toml");
    let (drop_ins, mut others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_drop_in);
    others.retain(|path| !is_leftover(path));
    Ok((drop_ins, others))
}

fn parse(file: &Path, text: &str) -> Result<FileSettings, ConfigError> {
    let fault = |line: usize, what: String| ConfigError {
        place: format!("{}:{}", file.display(), line + 1),
        what,
        unread: false,
        distrusted: false,
    };
    let line = |at: usize| syntax::line_of(text, at);
    match understood(text) {
        Ok((mut written, None)) => {
            for token in &mut written.token {
                token.place = format!("{}:{}", file.display(), line(token.at) + 1);
            }
            Ok(written)
        }
        Ok((_, Some(first))) => Err(fault(line(first.at), first.what)),
        Err(at) => {
            let (line, what) = syntax::explain(text, at);
            Err(fault(line, what))
        }
    }
}

/// Returns the valid settings of a configuration file, and its first invalid setting. For invalid
/// TOML, returns the byte offset of the syntax error as `Err`.
fn understood(text: &str) -> Result<(FileSettings, Option<SettingError>), usize> {
    let table = toml::de::DeTable::parse(text);
    let table = table.map_err(|error| error.span().map_or(text.len(), |span| span.start))?;
    let first_error = FirstError::default();
    let written = FileSettings::of(TomlTable::whole(text, &first_error, table.into_inner()));
    Ok((written, first_error.first()))
}

impl FileSettings {
    fn of(mut all: TomlTable<'_>) -> Self {
        let written = Self {
            tcti: all.text("tcti"),
            timeout_ms: all.milliseconds("timeout_ms"),
            generation_timeout_ms: all.milliseconds("generation_timeout_ms"),
            random: all.one_of("random", &RandomSource::WORDS),
            session_slot: all.flag("session_slot"),
            verify_signatures: all.flag("verify_signatures"),
            state: all.path("state"),
            log: all.section("[log]").map(LogTable::of),
            identity: all
                .sections("[[identity]]")
                .into_iter()
                .map(IdentityHint::of)
                .collect(),
            master: all.section("[master]").map(MasterTable::of),
            provision: all.section("[provision]").map(ProvisionTable::of),
            token: all
                .sections("[[token]]")
                .into_iter()
                .map(TokenTable::of)
                .collect(),
            certificate: all
                .sections("[[certificate]]")
                .into_iter()
                .filter_map(CertificateSettings::of)
                .collect(),
            owner: all.section("[owner]").and_then(ShowOwner::of),
            left_out: Vec::new(),
        };
        all.end();
        written
    }
}

impl LogTable {
    fn of(mut section: TomlTable<'_>) -> Self {
        let log = Self {
            level: section.text("level"),
            target: section.text("target"),
            audit: section.flag("audit"),
        };
        section.end();
        log
    }
}

/// Converts a range of handles to the `u64` range that `TomlTable::number` takes.
fn wide(handles: RangeInclusive<u32>) -> RangeInclusive<u64> {
    u64::from(*handles.start())..=u64::from(*handles.end())
}

impl IdentityHint {
    fn of(mut section: TomlTable<'_>) -> Self {
        let (handles, indices) = (wide(handle::PERSISTENT_OBJECTS), wide(handle::NV_INDICES));
        let hint = Self {
            handle: section
                .number("handle", handles, "a handle from 0x81000000 to 0x81FFFFFF")
                .map(|handle| handle as u32),
            nv: section
                .number("nv", indices, "an index from 0x01000000 to 0x01FFFFFF")
                .map(|index| index as u32),
            certificate: section.path("certificate"),
            auth: section.text("auth"),
            allow_last_try: section.flag("allow_last_try").unwrap_or_default(),
        };
        section.end();
        hint
    }
}

impl TokenTable {
    fn of(mut section: TomlTable<'_>) -> Self {
        section.must("name");
        let token = Self {
            at: section.at(),
            place: String::new(),
            name: section
                .text("name")
                .map(|TokenName(name)| name)
                .unwrap_or_default(),
            path: section.path("path"),
            allow_file_keys: section.flag("allow_file_keys"),
            allow_last_try: section.flag("allow_last_try"),
            pin: section.text("pin"),
            parents: section.handles("parents").unwrap_or_default(),
            allow_raw_rsa: section.flag("allow_raw_rsa"),
            service: section.flag("service"),
        };
        section.end();
        token
    }
}

impl MasterTable {
    fn of(mut section: TomlTable<'_>) -> Self {
        /// The persistent handles that `[master] handle` must not name: those of the storage root
        /// key and of the keys of the token `devid` (Registry of Reserved TPM 2.0 Handles, section
        /// 2.3.1).
        const NOT_FREE: [RangeInclusive<u32>; 2] =
            [handle::PERSISTENT..=handle::SRK, handle::DEVICE_KEYS];
        let owners = wide(handle::STORAGE_KEYS);
        let expected = "a handle from 0x81000002 to 0x8100FFFF";
        let master = Self {
            handle: section
                .number_unless("handle", owners, expected, |handle| {
                    let is_in = |range: &RangeInclusive<u32>| wide(range.clone()).contains(&handle);
                    let taken = NOT_FREE.iter().any(is_in);
                    taken.then(|| {
                        let whose = "is reserved for the storage root key or the device's own keys";
                        format!("0x{handle:08X} {whose}")
                    })
                })
                .map(|handle| handle as u32),
            owner_auth: section.text("owner_auth"),
            ek_roots: section.path("ek_roots"),
        };
        section.end();
        master
    }
}

impl ProvisionTable {
    fn of(mut section: TomlTable<'_>) -> Self {
        // `nv_index` must be in the owner's range. The factory's certificates are in the TCG's
        // range (Registry of Reserved TPM 2.0 Handles, section 2.2).
        let owners = wide(handle::OWNER_NV_INDICES);
        let provision = Self {
            own: section.flag("own"),
            marker: section.path("marker"),
            fallback: section.one_of("fallback", &Fallback::WORDS),
            existing: section.taken("existing", |value| existing(value.get_ref())),
            leave_software: section.one_of("leave_software", &LeaveSoftware::WORDS),
            nv_index: section
                .number("nv_index", owners, "an index from 0x01000000 to 0x01BFFFFF")
                .map(|index| index as u32),
            subject: section.taken("subject", |value| subject(value.get_ref())),
        };
        section.end();
        provision
    }
}

/// The name of a token. The name must be a valid file name, and must not be longer than a PKCS#11
/// token label.
struct TokenName(String);

impl FromStr for TokenName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        const LONGEST: usize = 32;
        /// The labels that a `[[token]]` must not have, because the module defines tokens with
        /// these labels.
        const RESERVED: [&str; 2] = [FACTORY, SESSIONS];
        let sound =
            (1..=LONGEST).contains(&name.len()) && !name.contains('/') && !RESERVED.contains(&name);
        match sound && !name.starts_with('.') {
            true => Ok(Self(name.into())),
            false => Err(format!(
                "{name:?}: expected 1 to 32 characters that can name a folder, but not {FACTORY} \
                 or {SESSIONS}"
            )),
        }
    }
}

fn subject(value: &DeValue<'_>) -> Result<SubjectTemplate, String> {
    let DeValue::String(text) = value else {
        return Err("expected text in quotes".into());
    };
    SubjectTemplate::parse(text).map_err(|why| why.to_string())
}

fn existing(value: &DeValue<'_>) -> Result<ExistingSource, String> {
    const EXPECTED: &str =
        "expected a PKCS#11 URI in quotes, or { certificate = \"/PATH\", key = \"/PATH\" }";
    match value {
        DeValue::String(uri) => Ok(ExistingSource::Uri(uri.to_string())),
        DeValue::Table(files) if files.len() == 2 => {
            let path = |key: &str| {
                let value = files.get(key).ok_or(EXPECTED)?;
                absolute(value.get_ref()).map_err(|why| format!("{key}: {why}"))
            };
            Ok(ExistingSource::Files {
                certificate: path("certificate")?,
                key: path("key")?,
            })
        }
        _ => Err(EXPECTED.into()),
    }
}
