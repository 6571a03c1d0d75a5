//! Who may have put there what is in the state folder: an identity, or what asks for a reset.

use super::device::Device;
use super::mend::{Mend, word};
use super::software::Software;
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
            let command = format!("chmod o-w {}", word(folder));
            Some(said(
                folder,
                &why,
                "See that all in it is yours, then",
                command,
            ))
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
                    let (folder, file_word) = (word(software.folder()), word(file));
                    let command = format!(
                        "chown --reference={folder} {file_word} && chmod {mode} {file_word}"
                    );
                    Some(said(file, &why, words, command))
                })
        })
    }

    /// A reset that somebody else may have asked for. What mends that must not bring it about.
    fn request_of_others(&self, request: &Path, is_file: bool) -> Option<Untrusted> {
        let state = self.config.state.as_path();
        if !is_file {
            let words = "A reset is asked for by a plain file. To have none";
            let aside = format!("{}.old", request.display());
            let command = format!("mv {} {}", word(request), word(Path::new(&aside)));
            return Some(said(request, "not a plain file", words, command));
        }
        let folder = distrusted_folder(state, true);
        let why = folder.map(|why| (state, why));
        let (path, why) = why.or_else(|| Some((request, distrusted_file(request, false)?)))?;
        let words = "Nobody knows who asked for the reset. To have none";
        let command = format!("rm {} && chmod go-w {}", word(request), word(state));
        Some(said(path, &why, words, command))
    }
}

fn said(path: &Path, why: &str, words: &str, command: String) -> Untrusted {
    Untrusted {
        text: format!("{}: {why}", path.display()),
        mend: Mend::run(words, command),
    }
}
