//! A certificate request that a CA has not answered yet. Until the CA answers, the device makes no
//! certificate itself.

use super::IdentityError;
use super::device::Device;
use crate::file;
use crate::shell::quoted;
use std::io::ErrorKind;
use std::path::PathBuf;

/// The file in the state folder that records the pending certificate request. Its content is the
/// requested subject in the format of RFC 4514.
const NAME: &str = "awaited-certificate";
const LARGEST: u64 = 64 << 10;

impl Device {
    fn awaited_path(&self) -> PathBuf {
        self.config.state.join(NAME)
    }

    /// Returns the subject of the pending certificate request, if there is one. An empty text
    /// stands for the subject of the factory identity.
    ///
    /// # Errors
    ///
    /// Fails if the file exists but cannot be read.
    pub(super) fn awaited(&self) -> Result<Option<String>, IdentityError> {
        let path = self.awaited_path();
        match file::read(&path, LARGEST) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes).trim().to_owned();
                Ok(Some(text))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(IdentityError::file(&path)(error)),
        }
    }

    /// Writes the file `awaited-certificate` for a pending certificate request. Later runs then
    /// wait for the answer of the CA.
    pub(super) fn await_certificate(&self, subject: Option<&str>) -> Result<(), IdentityError> {
        let path = self.awaited_path();
        let text = format!("{}\n", subject.unwrap_or_default());
        file::write(&path, text.as_bytes(), 0o644).map_err(IdentityError::file(&path))
    }

    /// Removes the file `awaited-certificate`, so that later runs no longer wait for a CA.
    pub(super) fn stop_awaiting(&self) -> Result<(), IdentityError> {
        let path = self.awaited_path();
        file::remove(&path).map_err(IdentityError::file(&path))
    }
}

/// Returns the message that a CA has not answered the certificate request yet.
pub(super) fn waiting(subject: &str) -> String {
    let named = match subject.is_empty() {
        true => String::new(),
        false => format!(" for {subject}"),
    };
    let again = match subject.is_empty() {
        true => String::new(),
        false => format!(" --subject {}", quoted(subject)),
    };
    format!(
        "the device's key waits for the certificate of a CA{named}. To import the certificate, run \
         devid import-cert FILE. To write the request again, run devid provision --csr \
         FILE{again}. To make a self-signed certificate instead, run devid provision \
         --new-certificate"
    )
}
