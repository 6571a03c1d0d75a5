//! Configuration: `config.toml`, its drop-ins `config.d/*.toml`, and the environment.
//!
//! An unknown or wrong setting is an error. The error names the file, the line and the setting. A
//! device must not run with a partly valid configuration.

mod certificate;
mod file;
mod owner;
mod provision;
mod secret;
mod section;
mod syntax;
#[cfg(test)]
mod tests;
mod token;
#[cfg(test)]
mod wrong_tests;

pub use certificate::{CertificateSettings, RenewWithin, ServerTrust};
pub use file::{IdentityAuth, IdentityHint};
pub use owner::{OwnerSettings, ShowOwner};
pub use provision::{ExistingSource, Fallback, LeaveSoftware, OwnIdentity, Provision};
pub use secret::{SecretSource, left_over};
pub use token::TokenSettings;

use crate::tpm::{Limits, Refusals, Tcti, TctiError, Tpm, handle, is_tcti_alias};
use crate::trouble::trouble;
use file::{FileSettings, LogLevel, LogTable};
use log::LevelFilter;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

const FILE: &str = "/etc/devid-pkcs11/config.toml";
const RUN: &str = "/run/devid-pkcs11";
/// The label of the token that shows the factory's identity (IDevID), and of its first certificate
/// and key.
pub const FACTORY: &str = "idev-id";
/// The label of the token that shows the owner's certificates, and of its first certificate.
pub const OWNER: &str = "oidevid";
/// The label of the token whose keys the device created, and of the identity that `devid provision`
/// creates.
pub const OWN: &str = "devid";
/// The label of the token without stored objects. All its objects are session objects.
pub(crate) const SESSIONS: &str = "sessions";
const STATE: &str = "/var/lib/devid-pkcs11";
const TIMEOUT_MS: u64 = 30_000;
const GENERATION_TIMEOUT_MS: u64 = 300_000;

/// All settings of the module and of `devid`, with the defaults for missing settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The TCTI (the transport to the TPM) and its parameters.
    pub tcti: Tcti,
    /// True if `tcti` begins with `esapi:`, an alias of an older release.
    pub tcti_by_alias: bool,
    /// Time limits of TPM commands (`timeout_ms`, `generation_timeout_ms`).
    pub limits: Limits,
    /// True if each use of a private key is logged (`[log] audit`).
    pub audit: bool,
    /// The source of random bytes for C_GenerateRandom.
    pub random: RandomSource,
    /// True if the module shows the token `sessions`, which has only session objects.
    pub session_slot: bool,
    /// True if each signature of the TPM is verified before the caller receives it.
    pub verify_signatures: bool,
    /// The `[[identity]]` sections, which tell a scan where to find more identities.
    pub identities: Vec<IdentityHint>,
    /// The folder `chain/`. Tokens show the CA certificates in this folder.
    pub chain: PathBuf,
    /// The folder of CA certificates that `devid` trusts when it verifies an identity.
    pub trust: PathBuf,
    /// The folder of drop-ins: `config.d/` in the folder of the configuration file.
    pub drop_ins: PathBuf,
    /// /run/devid-pkcs11, the folder for data that are valid until the next boot.
    pub run: PathBuf,
    /// /run/devid-pkcs11/lock, the folder of process locks for PIN tries and for shared TPM slots.
    pub locks: PathBuf,
    /// /var/lib/devid-pkcs11, the parent of the key folders.
    pub state: PathBuf,
    /// The settings of the master key. The master key wraps the keys in the key folders.
    pub master: Master,
    /// The tokens with key folders: first `devid`, then the other tokens.
    pub tokens: Vec<TokenSettings>,
    /// How the device gets the identity with the label `devid`.
    pub provision: Provision,
    /// The settings for the certificates that the owner issues for factory keys.
    pub owner: OwnerSettings,
    /// The `[[certificate]]` sections: the certificates that the device renews.
    pub certificates: Vec<CertificateSettings>,
    /// The file that `devid` touches after each change that other processes may have cached.
    pub generation: PathBuf,
    /// Files in `config.d/` that are ignored because their names do not end in `.toml`.
    pub left_out: Vec<PathBuf>,
}

impl Config {
    /// Creates the client of the configured TPM. This function does not connect, and sends no
    /// command.
    pub fn tpm(&self, refusals: Refusals) -> Tpm {
        Tpm::new(self.tcti.clone(), self.limits, &self.locks, refusals)
            .with_master(self.master.handle)
            .verifying_signatures(self.verify_signatures)
    }

    /// Returns the key folder of a token.
    pub(crate) fn key_folder(&self, token: &TokenSettings) -> PathBuf {
        let named = || self.state.join(&token.name);
        token.path.clone().unwrap_or_else(named)
    }

    /// Returns true if all users share the folder of process locks. Returns false if the folder is
    /// private.
    pub(crate) fn locks_with_all(&self) -> bool {
        self.run == Path::new(RUN)
    }

    /// Returns a sentence for each ignored file and each outdated setting.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let unread = self.left_out.iter().map(|path| not_read(path, ".toml"));
        let alias = self.tcti_by_alias.then(|| {
            format!(
                "tcti = \"esapi:...\" is an alias of an older release: write \"{}\"",
                self.tcti
            )
        });
        unread.chain(alias)
    }
}

/// Returns a folder next to the state folder: `/var/lib/devid-pkcs11-NAME`.
pub(crate) fn beside_state(state: &Path, name: &str) -> PathBuf {
    let mut path = state.as_os_str().to_owned();
    path.push(format!("-{name}"));
    path.into()
}

/// Returns the warning about a file in `config.d/` or in a key folder that is ignored because of
/// its suffix.
pub(crate) fn not_read(path: &Path, end: &str) -> String {
    let path = path.display();
    format!("{path}: the file is not read, because its name does not end in {end}")
}

/// The settings of the master key (`[master]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    /// The persistent handle of the master key.
    pub handle: u32,
    /// The source of the authorisation value of the owner hierarchy, if the value is not empty.
    pub owner_auth: Option<SecretSource>,
    /// The folder with root certificates of TPM manufacturers. With this setting, a storage root
    /// key is trusted only together with a certified endorsement key.
    pub ek_roots: Option<PathBuf>,
}

/// The source of random bytes for C_GenerateRandom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RandomSource {
    /// The kernel: getrandom(2).
    Kernel,
    /// The TPM: TPM2_GetRandom.
    Tpm,
}

/// The level and target of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// The level of the log. The log is off by default.
    pub level: LevelFilter,
    /// The target of the log lines: syslog or a file.
    pub target: LogTarget,
}

/// Where log lines are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Lines go to /dev/log, which the journal also reads.
    Syslog,
    /// Lines are appended to the file with this path.
    File(PathBuf),
}

/// The result of loading the configuration. The log settings are always valid, so that an error in
/// other settings can be logged.
#[derive(Debug)]
pub struct LoadedConfig {
    /// The log settings. They are valid even if `config` is an error.
    pub log: LogSettings,
    /// All settings, or the first invalid setting.
    pub config: Result<Config, ConfigError>,
}

/// An error in the configuration: the file and the line, and a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    place: String,
    what: String,
    /// True if reading a configuration file failed. A later attempt may succeed.
    unread: bool,
    /// True if untrusted users can write a configuration file or its folder.
    distrusted: bool,
}

/// A function that reads an environment variable by its name, for [`load`].
pub type Variable<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Returns a function that reads environment variables. If the program has more rights than its
/// caller (setuid, file capabilities), all variables are unset.
pub fn environment(is_privileged: bool) -> impl Fn(&str) -> Option<OsString> {
    move |name| match is_privileged {
        true => None,
        false => std::env::var_os(name),
    }
}

/// Returns true if this program has more rights than its caller. The function reads AT_SECURE
/// (getauxval(3)) from a file of the kernel. If the file cannot be read, as with file capabilities,
/// the function returns true.
pub fn is_privileged() -> bool {
    use rustix::process::{getegid, geteuid, getgid, getuid};
    const WORD: usize = size_of::<usize>();
    const AT_SECURE: [u8; WORD] = 23_usize.to_ne_bytes();
    let vector = std::fs::read("/proc/self/auxv").unwrap_or_default();
    let mut entries = vector.chunks_exact(2 * WORD);
    let secure = entries.find(|entry| entry[..WORD] == AT_SECURE);
    secure.is_none_or(|entry| entry[WORD..] != [0; WORD])
        || getuid() != geteuid()
        || getgid() != getegid()
}

/// Reads the configuration file, its drop-ins and the environment.
///
/// | variable | effect |
/// |---|---|
/// | `DEVID_PKCS11_CONFIG` | replaces the file; drop-ins and `chain/` are searched in its folder |
/// | `DEVID_PKCS11_TCTI` | takes precedence over the file |
/// | `DEVID_PKCS11_LOG` | `LEVEL` or `LEVEL,TARGET`; takes precedence over the file |
/// | `DEVID_PKCS11_RUN` | replaces /run/devid-pkcs11 |
/// | `DEVID_PKCS11_STATE` | replaces /var/lib/devid-pkcs11 |
///
/// An empty variable counts as unset.
pub fn load(variable: Variable) -> LoadedConfig {
    let variable: Variable = &without_empty(variable);
    let file = file(variable);
    let required = variable("DEVID_PKCS11_CONFIG").is_some();
    let written = file::read(&file, required, &beside(&file, "config.d"));
    let rescued;
    let log_table = match &written {
        Ok(written) => written.log.as_ref(),
        Err(_) => {
            rescued = file::log_table(&file);
            rescued.as_ref()
        }
    };
    let log = log_settings(variable, log_table);
    let config = written.and_then(|file| settings(file, variable));
    match (log, config) {
        (Ok(Some(log)), config) => LoadedConfig { log, config },
        (Ok(None), Ok(config)) => LoadedConfig {
            log: LogSettings::OFF,
            config: Ok(config),
        },
        // Without a valid `[log]` table, the error goes to the default log, so that the
        // administrator learns of the error.
        (Ok(None), Err(fault)) => LoadedConfig {
            log: LogSettings::ERRORS,
            config: Err(fault),
        },
        (Err(fault), _) => LoadedConfig {
            log: LogSettings::ERRORS,
            config: Err(fault),
        },
    }
}

/// Returns the settings to use if the configuration files are invalid: the defaults, and the valid
/// environment variables. Only for commands that change nothing.
pub fn defaults(variable: Variable) -> Config {
    let variable: Variable = &without_empty(variable);
    let tcti = tcti_variable(variable).ok().flatten();
    overlaid(FileSettings::default(), tcti, token::none(), variable)
}

fn without_empty(variable: Variable) -> impl Fn(&str) -> Option<OsString> {
    move |name| variable(name).filter(|value| !value.is_empty())
}

/// The parsed value of the setting `tcti`.
#[derive(Debug)]
struct TctiSetting {
    tcti: Tcti,
    by_alias: bool,
}

impl FromStr for TctiSetting {
    type Err = TctiError;

    fn from_str(text: &str) -> Result<Self, TctiError> {
        Ok(Self {
            tcti: text.parse()?,
            by_alias: is_tcti_alias(text),
        })
    }
}

impl RandomSource {
    const WORDS: [(&str, Self); 2] = [("kernel", Self::Kernel), ("tpm", Self::Tpm)];
}

impl LogSettings {
    const OFF: Self = Self {
        level: LevelFilter::Off,
        target: LogTarget::Syslog,
    };
    const ERRORS: Self = Self {
        level: LevelFilter::Error,
        target: LogTarget::Syslog,
    };
}

fn file(variable: Variable) -> PathBuf {
    variable("DEVID_PKCS11_CONFIG").map_or_else(|| PathBuf::from(FILE), PathBuf::from)
}

fn beside(file: &Path, name: &str) -> PathBuf {
    file.with_file_name(name)
}

fn settings(mut written: FileSettings, variable: Variable) -> Result<Config, ConfigError> {
    let tcti = tcti_variable(variable)?;
    let tokens = token::all(std::mem::take(&mut written.token))?;
    Ok(overlaid(written, tcti, tokens, variable))
}

/// Returns true if the system's configuration file requires audit lines, even if a variable names
/// another file. Also returns true if the system's file is invalid, because its setting is then
/// unknown.
fn system_asks_audit(file: &Path) -> bool {
    let written = file::read(file, false, &beside(file, "config.d"));
    written.map_or(true, |written| written.asks_audit())
}

fn tcti_variable(variable: Variable) -> Result<Option<TctiSetting>, ConfigError> {
    const NAME: &str = "DEVID_PKCS11_TCTI";
    let said = variable(NAME).map(|tcti| from_variable(NAME, tcti));
    said.transpose()
}

fn overlaid(
    mut written: FileSettings,
    tcti: Option<TctiSetting>,
    mut tokens: Vec<TokenSettings>,
    variable: Variable,
) -> Config {
    let credentials = variable("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let audit = written.asks_audit()
        || file(variable) != Path::new(FILE) && system_asks_audit(Path::new(FILE));
    let master = written.master.get_or_insert_default();
    let secrets = written
        .identity
        .iter_mut()
        .filter_map(|hint| match &mut hint.auth {
            Some(IdentityAuth::Secret(source)) => Some(source),
            _ => None,
        });
    let passwords = written
        .certificate
        .iter_mut()
        .filter_map(|one| one.password.as_mut());
    let secrets = secrets.chain(passwords);
    let secrets = secrets.chain(tokens.iter_mut().filter_map(|token| token.pin.as_mut()));
    for source in secrets.chain(master.owner_auth.as_mut()) {
        source.find_in(credentials.as_deref());
    }
    let run = variable("DEVID_PKCS11_RUN").map(PathBuf::from);
    let run = run.unwrap_or_else(|| RUN.into());
    let master = written.master.unwrap_or_default();
    let state = variable("DEVID_PKCS11_STATE").map(PathBuf::from);
    let tcti = tcti.or(written.tcti);
    let state = state.or(written.state).unwrap_or_else(|| STATE.into());
    Config {
        tcti_by_alias: tcti.as_ref().is_some_and(|tcti| tcti.by_alias),
        tcti: tcti.map(|tcti| tcti.tcti).unwrap_or_default(),
        limits: Limits::new(
            Duration::from_millis(written.timeout_ms.unwrap_or(TIMEOUT_MS)),
            Duration::from_millis(
                written
                    .generation_timeout_ms
                    .unwrap_or(GENERATION_TIMEOUT_MS),
            ),
        ),
        audit,
        random: written.random.unwrap_or(RandomSource::Kernel),
        session_slot: written.session_slot.unwrap_or(true),
        verify_signatures: written.verify_signatures.unwrap_or(false),
        identities: written.identity,
        chain: beside(&file(variable), "chain"),
        trust: beside(&file(variable), "trust"),
        drop_ins: beside(&file(variable), "config.d"),
        locks: run.join("lock"),
        owner: OwnerSettings::new(written.owner, &state),
        provision: Provision::from_table(written.provision.unwrap_or_default(), &state),
        state,
        master: Master {
            handle: master.handle.unwrap_or(handle::MASTER_KEY),
            owner_auth: master.owner_auth,
            ek_roots: master.ek_roots,
        },
        tokens,
        generation: run.join("generation"),
        certificates: written.certificate,
        left_out: written.left_out,
        run,
    }
}

fn log_settings(
    variable: Variable,
    written: Option<&LogTable>,
) -> Result<Option<LogSettings>, ConfigError> {
    if let Some(value) = variable("DEVID_PKCS11_LOG") {
        return from_variable("DEVID_PKCS11_LOG", value).map(Some);
    }
    Ok(written.map(|log| LogSettings {
        level: log.level.map_or(LevelFilter::Warn, |level| level.0),
        target: log.target.clone().unwrap_or(LogTarget::Syslog),
    }))
}

fn from_variable<T: FromStr>(name: &str, value: OsString) -> Result<T, ConfigError>
where
    T::Err: fmt::Display,
{
    let fault = |what: String| ConfigError {
        place: format!("environment {name}"),
        what,
        unread: false,
        distrusted: false,
    };
    let text = value.into_string().map_err(|_| fault("not UTF-8".into()))?;
    text.parse()
        .map_err(|error: T::Err| fault(error.to_string()))
}

impl FromStr for LogSettings {
    type Err = String;

    /// Parses `LEVEL` or `LEVEL,TARGET`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (level, target) = text.split_once(',').unwrap_or((text, "syslog"));
        Ok(Self {
            level: level.parse::<LogLevel>()?.0,
            target: target.parse()?,
        })
    }
}

impl FromStr for LogTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("file:") {
            Some(path) if Path::new(path).is_absolute() => Ok(Self::File(path.into())),
            None if text == "syslog" => Ok(Self::Syslog),
            _ => Err(format!(
                "{text:?} is not a log target: expected syslog or file:/absolute/path"
            )),
        }
    }
}

impl ConfigError {
    fn file(file: &Path, error: std::io::Error) -> Self {
        Self {
            place: file.display().to_string(),
            what: error.to_string(),
            unread: trouble(&error).is_some(),
            distrusted: false,
        }
    }

    /// Returns true if reading a configuration file failed, for example with EIO. A later attempt
    /// may succeed.
    pub fn is_unread(&self) -> bool {
        self.unread
    }

    /// Returns true if users other than root may write the configuration file or its folder.
    pub fn is_of_trust(&self) -> bool {
        self.distrusted
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

impl std::error::Error for ConfigError {}
