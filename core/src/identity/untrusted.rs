//! Checks whether other users could have written the identity, or the request for a factory reset,
//! in the state folder.

use super::IdentityError;
use super::device::Device;
use super::free_name::free_name;
use super::permissions::{ONLY_ITS_OWNER, for_distrusted_file, for_open_folder};
use super::remedy::Remedy;
use super::software::Software;
use crate::shell::word;
use crate::trust::{distrusted_file, distrusted_folder};
use std::path::Path;

/// The reason why files in the state folder are not trusted, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UntrustedState {
    pub(super) text: String,
    pub(super) remedy: Remedy,
}

impl Device {
    /// Returns the reason why the state folder is not trusted. Returns `None` if only users whom
    /// the administrator trusts could have written it. `reset` is true if a file requests a reset.
    ///
    /// # Errors
    ///
    /// Fails if the system does not permit the check.
    pub(super) fn untrusted(
        &self,
        software: &Software,
        reset: bool,
    ) -> Result<Option<UntrustedState>, IdentityError> {
        if reset {
            return self.request_of_others(&self.reset_request());
        }
        for folder in [self.config.state.as_path(), software.folder()] {
            if let Some(why) =
                distrusted_folder(folder, false).map_err(IdentityError::file(folder))?
            {
                return Ok(Some(said(folder, &why, for_open_folder(folder))));
            }
        }
        let (key, certificate) = (software.key_path(), software.certificate_path());
        for (file, secret, mode) in [(key, true, ONLY_ITS_OWNER), (certificate, false, "go-w")] {
            if let Some(why) = distrusted_file(&file, secret).map_err(IdentityError::file(&file))? {
                let remedy = for_distrusted_file(software.folder(), &file, mode);
                return Ok(Some(said(&file, &why, remedy)));
            }
        }
        Ok(None)
    }

    /// Checks whether another user may have written the request for a factory reset. The remedy
    /// must not cause the reset.
    fn request_of_others(&self, request: &Path) -> Result<Option<UntrustedState>, IdentityError> {
        let state = self.config.state.as_path();
        let about = request
            .symlink_metadata()
            .map_err(IdentityError::file(request))?;
        if !about.is_file() {
            let words = "A reset request must be a regular file. To cancel it";
            let aside = free_name(request, "old");
            // mv renames the object itself, even if the object is a symbolic link.
            let command = |aside: &Path| format!("mv -nT {} {}", word(request), word(aside));
            let remedy = Remedy::to_free_name(words, &[], aside, command);
            return Ok(Some(said(request, "this is not a regular file", remedy)));
        }
        let folder = distrusted_folder(state, true).map_err(IdentityError::file(state))?;
        let (path, why) = match folder {
            Some(why) => (state, why),
            None => match distrusted_file(request, false).map_err(IdentityError::file(request))? {
                Some(why) => (request, why),
                None => return Ok(None),
            },
        };
        let words = "It is unknown who requested the reset. To cancel it";
        let command = format!("chmod go-w {} && rm {}", word(state), word(request));
        // The command removes the file after other users have lost their write permission. It
        // follows no symbolic links.
        let remedy = Remedy::on_paths(words, &[state], command);
        Ok(Some(said(path, &why, remedy)))
    }
}

fn said(path: &Path, why: &str, remedy: Remedy) -> UntrustedState {
    UntrustedState {
        text: format!("{}: {why}", path.display()),
        remedy,
    }
}
