//! `[[certificate]]`: certificates that the device renews.

use super::SecretSource;
use super::section::{TomlTable, absolute};
use crate::key::from_hex;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use toml::de::DeValue;

/// The settings of a certificate that is renewed before its end of validity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSettings {
    /// The label of the key that the certificate is for.
    pub label: String,
    /// The URL of the EST server that issues the certificate.
    pub est: String,
    /// The label of the identity that the device shows to the server. `None`: it shows the
    /// certificate itself, or the factory's certificate.
    pub identity: Option<String>,
    /// The trust anchor for the TLS certificate of the EST server.
    pub trust: ServerTrust,
    /// The subject in the request for the first certificate of the key.
    pub subject: Option<String>,
    /// The subjectAltName entries in the request for the first certificate of the key.
    pub san: Vec<String>,
    /// The extended key usages in the request for the first certificate of the key.
    pub eku: Vec<String>,
    /// True if each renewal creates a new key instead of using the present key again.
    pub new_key: bool,
    /// The remaining validity at which the device renews the certificate.
    pub within: RenewWithin,
    /// The commands that run when a new certificate is in use.
    pub reload: Vec<String>,
    /// The time limit for each command of `reload`.
    pub reload_limit: Duration,
    /// The time limit for one HTTP response of the EST server.
    pub timeout: Duration,
    /// A server to which a new certificate must open a TLS session before it is used: HOST:PORT.
    pub prove: Option<String>,
    /// The user name that authenticates the device to the EST server, if the server requires a
    /// password.
    pub user: Option<String>,
    /// The source of the password that belongs to `user`.
    pub password: Option<SecretSource>,
}

/// The default time limit for each command of `reload`.
const RELOAD_LIMIT: Duration = Duration::from_secs(2 * 60);

/// The default time limit for one HTTP response of an EST server.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The trust anchor for the TLS certificate of an EST server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerTrust {
    /// All certificates in the file with this path are trust anchors.
    File(PathBuf),
    /// The trust anchor is the CA certificate with this SHA-256 hash.
    Fingerprint([u8; 32]),
}

/// The remaining validity at which the device renews a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenewWithin {
    /// The certificate is renewed when only this fraction of its validity remains (numerator,
    /// denominator).
    Part(u32, u32),
    /// The certificate is renewed when only this time of its validity remains.
    Left(Duration),
}

impl Default for RenewWithin {
    fn default() -> Self {
        Self::Part(1, 3)
    }
}

impl RenewWithin {
    /// Returns how many seconds before its notAfter a certificate is renewed. `life` is the
    /// validity of the certificate in seconds.
    pub fn of(self, life: u64) -> u64 {
        match self {
            Self::Part(part, whole) => {
                let seconds = u128::from(life) * u128::from(part) / u128::from(whole.max(1));
                u64::try_from(seconds).unwrap_or(life)
            }
            Self::Left(left) => left.as_secs(),
        }
    }
}

impl FromStr for RenewWithin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?}: expected a part of the validity, such as 1/3, or a time, such as 30d \
                 or 12h"
            )
        };
        if let Some((part, whole)) = text.split_once('/') {
            let numbers = part.trim().parse().ok().zip(whole.trim().parse().ok());
            return match numbers {
                Some((part, whole)) if 0 < part && part < whole => Ok(Self::Part(part, whole)),
                _ => Err(wrong()),
            };
        }
        duration(text).map(Self::Left).ok_or_else(wrong)
    }
}

/// Parses a positive time, such as `30d`, `12h`, `5m` or `20s`.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let seconds = match text.chars().last()? {
        'd' => 24 * 60 * 60,
        'h' => 60 * 60,
        'm' => 60,
        's' => 1,
        _ => return None,
    };
    let number: u64 = text.get(..text.len() - 1)?.parse().ok()?;
    let seconds = number.checked_mul(seconds).filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs)
}

/// A time limit in a setting, such as `timeout = "20s"`.
struct Limit(Duration);

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let limit = duration(text).map(Self);
        limit.ok_or_else(|| format!("{text:?}: expected a time, such as 20s or 5m"))
    }
}

/// A setting whose text has no characters that control a terminal.
struct Printable(String);

impl FromStr for Printable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.is_empty() || text.chars().any(char::is_control) {
            true => Err("expected printable text".into()),
            false => Ok(Self(text.to_owned())),
        }
    }
}

/// An https URL of an EST server.
struct HttpsUrl(String);

impl FromStr for HttpsUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        match lower.starts_with("https://") && lower.len() > "https://".len() {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("{text:?}: expected https://HOST[:PORT][/PATH]")),
        }
    }
}

impl CertificateSettings {
    pub(super) fn of(mut section: TomlTable<'_>) -> Option<Self> {
        section.must("label");
        section.must("est");
        section.must("trust");
        let printable = |text: Option<Printable>| text.map(|Printable(text)| text);
        let label = printable(section.text("label"));
        let est = section.text("est").map(|HttpsUrl(url)| url);
        let trust = section.taken("trust", |value| server_trust(value.get_ref()));
        let user = printable(section.text("user"));
        let password = section.text("password");
        if user.is_some() != password.is_some() {
            section.complain_here("user and password must be given together");
        }
        let keys = [("same", false), ("new", true)];
        let settings = Self {
            identity: printable(section.text("identity")),
            subject: printable(section.text("subject")),
            san: section
                .taken("san", |value| texts(value.get_ref()))
                .unwrap_or_default(),
            eku: section
                .taken("eku", |value| texts(value.get_ref()))
                .unwrap_or_default(),
            new_key: section.one_of("key", &keys).unwrap_or_default(),
            within: section.text("within").unwrap_or_default(),
            reload: section
                .taken("reload", |value| texts(value.get_ref()))
                .unwrap_or_default(),
            reload_limit: section
                .text("reload_limit")
                .map_or(RELOAD_LIMIT, |Limit(limit)| limit),
            timeout: section
                .text("server_timeout")
                .map_or(TIMEOUT, |Limit(limit)| limit),
            prove: section.text("prove").map(|HostAndPort(place)| place),
            user,
            password,
            label: label.clone().unwrap_or_default(),
            est: est.clone().unwrap_or_default(),
            trust: trust.clone()?,
        };
        section.end();
        label.and(est).map(|_| settings)
    }
}

/// A TLS server in the form HOST:PORT (`prove`).
struct HostAndPort(String);

impl FromStr for HostAndPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.rsplit_once(':');
        let sound =
            parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        match sound {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("{text:?}: expected HOST:PORT")),
        }
    }
}

/// Parses the value of a setting: a text, or a list of texts.
fn texts(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let expected = || "expected text in quotes, or a list of such texts".to_owned();
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) if !text.is_empty() => Ok(text.to_string()),
        _ => Err(expected()),
    };
    match value {
        DeValue::Array(all) => all.iter().map(|value| one(value.get_ref())).collect(),
        value => Ok(vec![one(value)?]),
    }
}

/// Parses the trust anchor of an EST server: an absolute path, or `sha256:` followed by hexadecimal
/// digits.
fn server_trust(value: &DeValue<'_>) -> Result<ServerTrust, String> {
    let expected = || {
        "expected the absolute path of a file with certificates, or sha256: and the SHA-256 of a \
         certificate of the server's CAs, 64 hexadecimal digits"
            .to_owned()
    };
    let DeValue::String(text) = value else {
        return Err(expected());
    };
    let Some(digits) = text.strip_prefix("sha256:") else {
        return absolute(value)
            .map(ServerTrust::File)
            .map_err(|_| expected());
    };
    let digits = digits.replace(':', "").to_ascii_lowercase();
    let bytes = from_hex(&digits).and_then(|bytes| bytes.try_into().ok());
    bytes.map(ServerTrust::Fingerprint).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_the_end_is_a_part_or_a_length() {
        for (text, life, left) in [
            ("1/3", 900, 300),
            ("2/5", 100, 40),
            ("30d", 1, 2_592_000),
            ("12h", 1, 43_200),
            ("5m", 1, 300),
        ] {
            assert_eq!(
                text.parse::<RenewWithin>().unwrap().of(life),
                left,
                "{text}"
            );
        }
        for text in [
            "",
            "0/3",
            "3/3",
            "4/3",
            "1/0",
            "x",
            "30",
            "0d",
            "d",
            "-1d",
            "99999999999999999999d",
        ] {
            assert!(text.parse::<RenewWithin>().is_err(), "{text}");
        }
    }
}
