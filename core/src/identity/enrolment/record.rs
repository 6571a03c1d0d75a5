//! The file that records an enrolment that is not complete. It contains the request that the server
//! received, and the reason of the last failure. Each key has its own file below the state folder.

use crate::file::{self, Lock};
use crate::identity::provision::only_one;
use crate::identity::software::make_folder;
use crate::identity::{Device, IdentityError, TokenEntry};
use crate::key::{from_hex, hex};
use crate::tpm::Hash;
use crate::trouble::paths_in;
use log::warn;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The largest size of an enrolment record file, in bytes.
const LARGEST: u64 = 64 << 10;
/// The subfolder for enrolment records in the key folder of a service.
const OF_SERVICE: &str = ".enrolment";

/// An enrolment that is pending, or that failed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EnrolmentRecord {
    /// The token of the key.
    pub token: String,
    /// The label of the key.
    pub label: String,
    /// The URL of the EST server.
    pub url: String,
    /// A text that identifies the requested content. A different content has a different text.
    pub asked: String,
    /// The certificate request that the server received, in DER as hexadecimal digits. Empty if the
    /// server received none.
    #[serde(default)]
    pub request: String,
    /// The time from which the device may ask the server again, in seconds since 1970. Zero permits
    /// any time.
    #[serde(default)]
    pub retry_at: u64,
    /// The number of failed enrolments in succession.
    #[serde(default)]
    pub failures: u32,
    /// The reason of the last failed enrolment. Empty if the enrolment did not fail.
    #[serde(default)]
    pub fault: String,
    /// The time of the last failed enrolment, in seconds since 1970.
    #[serde(default)]
    pub failed_at: u64,
    /// True if a command of `reload` must still run for the new certificate.
    #[serde(default)]
    pub reload_due: bool,
}

/// The lock of enrolments. While a process holds the lock, no other process enrols, or exchanges a
/// key or a certificate.
#[derive(Debug)]
pub struct EnrolmentTurn {
    _lock: Option<Lock>,
}

impl EnrolmentRecord {
    /// Returns the certificate request that the server received (PKCS#10, DER).
    pub fn request_der(&self) -> Option<Vec<u8>> {
        from_hex(&self.request).filter(|der| !der.is_empty())
    }

    /// Returns the record with another certificate request, or without a request.
    #[must_use]
    pub fn with_request(self, der: Option<&[u8]>) -> Self {
        let request = der.map_or(String::new(), hex);
        Self { request, ..self }
    }
}

impl Device {
    /// Reads the enrolment record of a key. Returns `None` if there is none.
    pub fn enrolment(
        &self,
        token: &str,
        label: &str,
    ) -> Result<Option<EnrolmentRecord>, IdentityError> {
        read_record(&self.enrolment_file(token, label))
    }

    /// Writes the enrolment record of a key. Replaces an older record of the same key.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn keep_enrolment(&self, record: &EnrolmentRecord) -> Result<(), IdentityError> {
        let path = self.enrolment_file(&record.token, &record.label);
        make_folder(&self.enrolment_folder())?;
        let text = toml::to_string(record);
        let text = text.map_err(|error| IdentityError::failed(error.to_string()))?;
        file::write(&path, text.as_bytes(), 0o600).map_err(IdentityError::file(&path))
    }

    /// Returns all enrolment records, sorted by token and label. If a file cannot be read, logs the
    /// error and leaves the file out.
    pub fn enrolments(&self) -> Vec<EnrolmentRecord> {
        let paths = paths_in(&self.enrolment_folder()).unwrap_or_default();
        let of_record = |path: &PathBuf| path.extension().is_some_and(|end| end == "toml");
        let read = |path: PathBuf| match read_record(&path) {
            Ok(found) => found,
            Err(fault) => {
                warn!("{fault}");
                None
            }
        };
        let mut found: Vec<_> = paths
            .into_iter()
            .filter(of_record)
            .filter_map(read)
            .collect();
        found.sort_by(|one, other| (&one.token, &one.label).cmp(&(&other.token, &other.label)));
        found
    }

    /// Waits for the lock of enrolments, and takes it. Fails if another process holds the lock for
    /// too long.
    pub fn enrolment_turn(&self) -> Result<EnrolmentTurn, IdentityError> {
        let folder = self.enrolment_folder();
        make_folder(&folder)?;
        Ok(EnrolmentTurn {
            _lock: Some(only_one(&folder)?),
        })
    }

    /// Takes the lock for a change of a key or certificate without a server. A user without write
    /// permission for the state folder cannot enrol, and changes only his own key folder. Such a
    /// user needs no lock.
    ///
    /// # Errors
    ///
    /// Fails for the reasons of [`enrolment_turn`](Self::enrolment_turn).
    pub fn exchange_turn(&self) -> Result<EnrolmentTurn, IdentityError> {
        let folder = self.enrolment_folder();
        let mut nearest = folder.as_path();
        let refused = loop {
            match (
                access(nearest, Access::WRITE_OK | Access::EXEC_OK),
                nearest.parent(),
            ) {
                (Err(Errno::NOENT), Some(parent)) => nearest = parent,
                (result, _) => break matches!(result, Err(Errno::ACCESS | Errno::ROFS)),
            }
        };
        match refused {
            true => Ok(EnrolmentTurn { _lock: None }),
            false => self.enrolment_turn(),
        }
    }

    /// Removes the enrolment record of a key.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be removed.
    pub fn forget_enrolment(&self, token: &str, label: &str) -> Result<(), IdentityError> {
        let path = self.enrolment_file(token, label);
        file::remove(&path).map_err(IdentityError::file(&path))
    }

    /// Removes the enrolment records of a key, both of root and of the user of the service. The key
    /// was destroyed, or has a certificate from another source.
    pub(in crate::identity) fn forget_enrolments_of(
        &self,
        token: &str,
        label: &str,
    ) -> Result<(), IdentityError> {
        let name = record_name(token, label);
        for folder in self.enrolment_folders(token) {
            let path = folder.join(&name);
            file::remove(&path).map_err(IdentityError::file(&path))?;
        }
        Ok(())
    }

    /// Removes all enrolment records.
    pub(in crate::identity) fn forget_all_enrolments(&self) -> Result<(), IdentityError> {
        for token in self.tokens() {
            for folder in self.enrolment_folders(token) {
                for path in paths_in(&folder).unwrap_or_default() {
                    if path.extension().is_some_and(|end| end == "toml") {
                        file::remove(&path).map_err(IdentityError::file(&path))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the folders with enrolment records for keys of a token. Returns only folders that
    /// this process maintains.
    fn enrolment_folders(&self, token: &str) -> Vec<PathBuf> {
        let own = self.enrolment_folder();
        let mut services = self.open_stores().filter(|store| store.name() == token);
        let beside = services.next().map(|store| store.path().join(OF_SERVICE));
        let beside = beside.filter(|folder| *folder != own && folder.exists());
        std::iter::once(own).chain(beside).collect()
    }

    /// Returns true if a certificate request is for the key of a token entry.
    pub fn is_request_of(&self, entry: &TokenEntry, request: &[u8]) -> bool {
        let info = entry.public.as_ref().map(|key| key.info_der());
        info.is_some_and(|info| request.windows(info.len()).any(|window| window == info))
    }

    pub(in crate::identity) fn enrolment_folder(&self) -> PathBuf {
        match self.service_store() {
            Some(store) => store.path().join(OF_SERVICE),
            None => self.config().state.join("enrolment"),
        }
    }

    fn enrolment_file(&self, token: &str, label: &str) -> PathBuf {
        self.enrolment_folder().join(record_name(token, label))
    }
}

/// Returns the file name of an enrolment record. The name is a digest of token and label, because a
/// label may contain any character.
fn record_name(token: &str, label: &str) -> String {
    let digest = Hash::Sha256.digest(&[token.as_bytes(), b"/", label.as_bytes()]);
    format!("{}.toml", hex(&digest[..8]))
}

fn read_record(path: &Path) -> Result<Option<EnrolmentRecord>, IdentityError> {
    let content = match file::read(path, LARGEST) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(IdentityError::file(path))?,
    };
    let text = String::from_utf8(content).unwrap_or_default();
    let record: EnrolmentRecord = toml::from_str(&text).map_err(|error| {
        let line = error.message().lines().next().unwrap_or_default();
        IdentityError::failed(format!(
            "{}: the record is damaged ({line}). You can delete this file, because it holds \
             neither the key nor its certificate",
            path.display()
        ))
    })?;
    Ok(Some(record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn a_record_is_read_back_until_it_is_forgotten() {
        let state = tempfile::tempdir().unwrap();
        let device = Device::new(config::Config {
            state: state.path().to_owned(),
            ..config::defaults(&|_| None)
        });
        assert_eq!(device.enrolment("devid", "web"), Ok(None));
        let record = EnrolmentRecord {
            token: "devid".into(),
            label: "web".into(),
            fault: "it said \"no\"\n".into(),
            ..EnrolmentRecord::default()
        };
        let record = record.with_request(Some(&[0x30, 0]));
        device.keep_enrolment(&record).unwrap();
        assert_eq!(device.enrolment("devid", "web"), Ok(Some(record.clone())));
        assert_eq!(record.request_der(), Some(vec![0x30, 0]));
        assert_eq!(device.enrolment("devid", "other"), Ok(None));
        std::fs::write(device.enrolment_file("devid", "web"), "nonsense").unwrap();
        assert!(
            device
                .enrolment("devid", "web")
                .unwrap_err()
                .text
                .contains("damaged")
        );
        device.forget_enrolment("devid", "web").unwrap();
        assert_eq!(device.enrolment("devid", "web"), Ok(None));
    }
}
