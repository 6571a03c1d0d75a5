//! The file format of `config.toml` and its drop-ins.

use super::{ConfigError, Existing, Fallback, LeaveSoftware, LogTarget, Random, SecretSource};
use crate::tpm::Tcti;
use log::LevelFilter;
use serde::{Deserialize, Deserializer, de};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// More bytes than any sane configuration has.
const LARGEST: u64 = 1 << 20;

/// A file as written: each setting may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    #[serde(default, deserialize_with = "parsed")]
    pub(super) tcti: Option<Tcti>,
    #[serde(default, deserialize_with = "milliseconds")]
    pub(super) timeout_ms: Option<u64>,
    pub(super) random: Option<Random>,
    #[serde(default, deserialize_with = "absolute_path")]
    pub(super) state: Option<PathBuf>,
    pub(super) log: Option<WrittenLog>,
    #[serde(default)]
    pub(super) identity: Vec<IdentityHint>,
    pub(super) master: Option<WrittenMaster>,
    pub(super) provision: Option<WrittenProvision>,
    #[serde(default)]
    pub(super) token: Vec<WrittenToken>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenProvision {
    pub(super) own: Option<bool>,
    #[serde(default, deserialize_with = "absolute_path")]
    pub(super) marker: Option<PathBuf>,
    pub(super) fallback: Option<Fallback>,
    #[serde(default, deserialize_with = "existing")]
    pub(super) existing: Option<Existing>,
    pub(super) leave_software: Option<LeaveSoftware>,
    #[serde(default, deserialize_with = "owners_nv_index")]
    pub(super) nv_index: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenToken {
    #[serde(deserialize_with = "token_name")]
    pub(super) name: String,
    #[serde(default, deserialize_with = "absolute_path")]
    pub(super) path: Option<PathBuf>,
    pub(super) allow_file_keys: Option<bool>,
    pub(super) allow_last_try: Option<bool>,
    #[serde(default, deserialize_with = "parsed")]
    pub(super) pin: Option<SecretSource>,
    #[serde(default, deserialize_with = "persistent_handles")]
    pub(super) parents: Vec<u32>,
    pub(super) allow_raw_rsa: Option<bool>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenMaster {
    #[serde(default, deserialize_with = "master_handle")]
    pub(super) handle: Option<u32>,
    #[serde(default, deserialize_with = "parsed")]
    pub(super) owner_auth: Option<SecretSource>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenLog {
    #[serde(default, deserialize_with = "parsed")]
    pub(super) level: Option<Level>,
    #[serde(default, deserialize_with = "parsed")]
    pub(super) target: Option<LogTarget>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Level(pub(super) LevelFilter);

impl Written {
    /// Takes what `later` sets; lists grow.
    fn overlay(&mut self, later: Self) {
        self.tcti = later.tcti.or(self.tcti.take());
        self.timeout_ms = later.timeout_ms.or(self.timeout_ms);
        self.random = later.random.or(self.random);
        self.state = later.state.or(self.state.take());
        if let Some(later) = later.log {
            let log = self.log.get_or_insert_default();
            log.level = later.level.or(log.level);
            log.target = later.target.or(log.target.take());
        }
        self.identity.extend(later.identity);
        self.token.extend(later.token);
        if let Some(later) = later.master {
            let master = self.master.get_or_insert_default();
            master.handle = later.handle.or(master.handle);
            master.owner_auth = later.owner_auth.or(master.owner_auth.take());
        }
        if let Some(later) = later.provision {
            let provision = self.provision.get_or_insert_default();
            provision.own = later.own.or(provision.own);
            provision.marker = later.marker.or(provision.marker.take());
            provision.fallback = later.fallback.or(provision.fallback);
            provision.existing = later.existing.or(provision.existing.take());
            provision.leave_software = later.leave_software.or(provision.leave_software);
            provision.nv_index = later.nv_index.or(provision.nv_index);
        }
    }
}

/// An identity that the maker put elsewhere (`[[identity]]`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityHint {
    /// A persistent handle, 0x81000000 to 0x81FFFFFF.
    #[serde(default, deserialize_with = "persistent_handle")]
    pub handle: Option<u32>,
    /// An NV index with a certificate, 0x01000000 to 0x01FFFFFF.
    #[serde(default, deserialize_with = "nv_index")]
    pub nv: Option<u32>,
    /// A file with a certificate, DER or PEM.
    pub certificate: Option<PathBuf>,
    /// How the key's authorisation value is to be had, if it is not empty.
    #[serde(default, deserialize_with = "parsed")]
    pub auth: Option<IdentityAuth>,
    /// Whether a PIN may be tried that would put the TPM into lockout if it is wrong.
    #[serde(default)]
    pub allow_last_try: bool,
}

/// Where the authorisation value of an identity's key comes from (`auth`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityAuth {
    /// From the configuration: callers need no PIN.
    Secret(SecretSource),
    /// From whoever logs in (`pin`): the identity has a slot of its own, and its PIN is the value.
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

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| {
            format!("{text:?} is no level: expected off, error, warn, info, debug or trace")
        })
    }
}

/// The `[log]` table of a file whose other settings are at fault, as far as it can be made out:
/// the fault is to be said where the administrator listens.
pub(super) fn log_table(file: &Path) -> Option<WrittenLog> {
    let text = text_of(file).ok()?;
    let mut all: toml::Table = text.parse().ok()?;
    all.remove("log")?.try_into().ok()
}

/// The file with its drop-ins over it. A file that is not `required` may be missing.
pub(super) fn read(file: &Path, required: bool, folder: &Path) -> Result<Written, ConfigError> {
    let mut written = match text_of(file) {
        Ok(text) => parse(file, &text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => {
            Written::default()
        }
        Err(error) => return Err(ConfigError::file(file, error)),
    };
    for drop_in in drop_ins(folder)? {
        let text = text_of(&drop_in).map_err(|error| ConfigError::file(&drop_in, error))?;
        written.overlay(parse(&drop_in, &text)?);
    }
    Ok(written)
}

fn text_of(path: &Path) -> std::io::Result<String> {
    let content = crate::file::read(path, LARGEST)?;
    let no_text = |_| std::io::Error::new(std::io::ErrorKind::InvalidData, "not UTF-8");
    String::from_utf8(content).map_err(no_text)
}

fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ConfigError::file(folder, error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|error| ConfigError::file(folder, error))?
            .path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn parse(file: &Path, text: &str) -> Result<Written, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text[..start].matches('\n').count();
        let setting = text.lines().nth(line).unwrap_or_default().trim();
        let key = setting.split(['=', '#']).next().unwrap_or_default().trim();
        ConfigError {
            place: format!("{}:{}", file.display(), line + 1),
            what: format!("{key}: {}", error.message()),
        }
    })
}

fn parsed<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: fmt::Display,
{
    String::deserialize(deserializer)?
        .parse()
        .map(Some)
        .map_err(de::Error::custom)
}

fn existing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Existing>, D::Error> {
    let existing = Existing::deserialize(deserializer)?;
    if let Existing::Files { certificate, key } = &existing {
        for path in [certificate, key] {
            absolute(path)?;
        }
    }
    Ok(Some(existing))
}

fn absolute_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    absolute(&path)?;
    Ok(Some(path))
}

fn absolute<E: de::Error>(path: &Path) -> Result<(), E> {
    match path.is_absolute() {
        true => Ok(()),
        false => Err(de::Error::custom(format!(
            "{}: expected an absolute path",
            path.display()
        ))),
    }
}

fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    in_range(
        deserializer,
        1..=3_600_000,
        "milliseconds from 1 to 3600000",
    )
}

fn persistent_handle<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    in_range(
        deserializer,
        0x8100_0000..=0x81FF_FFFF,
        "a handle from 0x81000000 to 0x81FFFFFF",
    )
    .map(|handle| handle.map(|handle| handle as u32))
}

fn persistent_handles<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    let handles = Vec::<u64>::deserialize(deserializer)?;
    let handles = handles.into_iter().map(|handle| {
        let persistent = u32::try_from(handle).ok().filter(|one| one >> 24 == 0x81);
        persistent.ok_or_else(|| {
            de::Error::custom(format!(
                "{handle}: expected handles from 0x81000000 to 0x81FFFFFF"
            ))
        })
    });
    handles.collect()
}

/// One that is left to owners, and neither the storage root key's nor one of the device's own keys
/// (Registry of Reserved TPM 2.0 Handles, section 2.3.1).
fn master_handle<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    const NOT_FREE: [std::ops::RangeInclusive<u32>; 2] =
        [0x8100_0000..=0x8100_0001, 0x8100_0100..=0x8100_01FF];
    let handle = in_range(
        deserializer,
        0x8100_0000..=0x8100_FFFF,
        "a handle from 0x81000002 to 0x8100FFFF",
    )?
    .map(|handle| handle as u32);
    match handle.filter(|handle| NOT_FREE.iter().any(|range| range.contains(handle))) {
        Some(taken) => Err(de::Error::custom(format!(
            "0x{taken:08X} is the storage root key's, or one for the device's own keys"
        ))),
        None => Ok(handle),
    }
}

/// A file's name, and no longer than a token's label.
fn token_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    const LONGEST: usize = 32;
    let name = String::deserialize(deserializer)?;
    let sound = (1..=LONGEST).contains(&name.len()) && !name.contains('/') && name != "idev-id";
    match sound && !name.starts_with('.') {
        true => Ok(name),
        false => Err(de::Error::custom(format!(
            "{name:?}: expected 1 to 32 characters that can name a folder, and not idev-id"
        ))),
    }
}

fn nv_index<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    in_range(
        deserializer,
        0x0100_0000..=0x01FF_FFFF,
        "an index from 0x01000000 to 0x01FFFFFF",
    )
    .map(|index| index.map(|index| index as u32))
}

/// One that is left to owners: the factory's certificates are in the TCG's range (Registry of
/// Reserved TPM 2.0 Handles, section 2.2).
fn owners_nv_index<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    const OWNERS: std::ops::RangeInclusive<u64> = 0x0100_0000..=0x01BF_FFFF;
    in_range(
        deserializer,
        OWNERS,
        "an index from 0x01000000 to 0x01BFFFFF",
    )
    .map(|index| index.map(|index| index as u32))
}

fn in_range<'de, D: Deserializer<'de>>(
    deserializer: D,
    range: std::ops::RangeInclusive<u64>,
    expected: &str,
) -> Result<Option<u64>, D::Error> {
    match u64::deserialize(deserializer)? {
        number if range.contains(&number) => Ok(Some(number)),
        number => Err(de::Error::custom(format!("{number}: expected {expected}"))),
    }
}
