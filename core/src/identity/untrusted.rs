//! Who may have put there what is in the state folder: an identity, or what asks for a reset.

use super::device::Device;
use super::mend::Mend;
use super::software::{Software, free_name};
use crate::shell::word;
use crate::trust::{distrusted_file, distrusted_folder};
use std::path::Path;

/// Why the state folder is not believed, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Untrusted {
    pub(super) text: String,
    pub(super) mend: Mend,
}

impl Device {
    /// `None` if nobody but whom the administrator trusts can have written there.
    pub(super) fn untrusted(&self, software: &Software) -> Option<Untrusted> {
        let state = self.config.state.as_path();
        let request = self.reset_request();
        if let Ok(about) = request.symlink_metadata() {
            return self.request_of_others(&request, about.is_file());
        }
        let folders = [state, software.folder()];
        let folder = folders.into_iter().find_map(|folder| {
            let why = distrusted_folder(folder, false)?;
            let words = "See that all in it is yours, then";
            let command = format!("chmod o-w {}", word(folder));
            Some(said(folder, &why, Mend::on(words, &[folder], command)))
        });
        folder.or_else(|| {
            let (key, certificate) = (software.key_path(), software.certificate_path());
            [(key, true), (certificate, false)]
                .iter()
                .find_map(|(file, secret)| {
                    let why = distrusted_file(file, *secret)?;
                    let mode = match secret {
                        true => "600",
                        false => "go-w",
                    };
                    let words = "If nobody else wrote or copied it meanwhile";
                    let command = format!(
                        "chown --no-dereference --reference={0} {1} && chmod {mode} {1}",
                        word(software.folder()),
                        word(file)
                    );
                    let paths = [software.folder(), file.as_path()];
                    Some(said(file, &why, Mend::on(words, &paths, command)))
                })
        })
    }

    /// A reset that somebody else may have asked for. What mends that must not bring it about.
    fn request_of_others(&self, request: &Path, is_file: bool) -> Option<Untrusted> {
        let state = self.config.state.as_path();
        if !is_file {
            let words = "A reset is asked for by a plain file. To have none";
            let aside = free_name(request, "old");
            // Whatever it is, it is moved and not followed.
            let command = |aside: &Path| format!("mv -nT {} {}", word(request), word(aside));
            let mend = Mend::aside(words, &[], aside, command);
            return Some(said(request, "not a plain file", mend));
        }
        let folder = distrusted_folder(state, true);
        let why = folder.map(|why| (state, why));
        let (path, why) = why.or_else(|| Some((request, distrusted_file(request, false)?)))?;
        let words = "Nobody knows who asked for the reset. To have none";
        let command = format!("chmod go-w {} && rm {}", word(state), word(request));
        // Once nobody else may write there; and what has the name is not followed.
        let mend = Mend::on(words, &[state], command);
        Some(said(path, &why, mend))
    }
}

fn said(path: &Path, why: &str, mend: Mend) -> Untrusted {
    Untrusted {
        text: format!("{}: {why}", path.display()),
        mend,
    }
}
