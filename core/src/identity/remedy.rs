//! Remedies: a text, and in some cases a command. A remedy never ends an identity. A remedy never
//! destroys a key that may still be useful.

use super::error::IdentityError;
use crate::trouble::found;
use crate::trust::names_only_ours;
use rustix::fs::{FileType, lstat};
use rustix::process::geteuid;
use std::fmt;
use std::path::{Path, PathBuf};

/// What a user should do about an error or a finding of `devid doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remedy {
    /// What the user should do, as text.
    pub(super) words: String,
    /// A command for sh(1). The user first follows the text, then runs the command.
    pub(super) command: Option<String>,
}

impl Remedy {
    /// Creates a remedy without a command.
    pub(super) fn by_hand(words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            command: None,
        }
    }

    /// Creates a remedy from a command and a text that tells when to run it. The command must not
    /// contain paths that vary; [`Remedy::on_paths`] checks such paths. For users other than root,
    /// the text adds that root must run the command.
    pub(super) fn by_command(words: impl Into<String>, command: impl Into<String>) -> Self {
        let words = words.into();
        let is_said = geteuid().is_root() || words.contains("s root");
        Self {
            words: match is_said {
                true => words,
                false => format!("{words} (as root)"),
            },
            command: Some(command.into()),
        }
    }

    /// Calls [`Remedy::on_paths`] with a command that gives a file the name `free`. Without an
    /// unused name, the remedy has no command.
    pub(super) fn to_free_name(
        words: impl fmt::Display,
        paths: &[&Path],
        free: Result<PathBuf, IdentityError>,
        command: impl FnOnce(&Path) -> String,
    ) -> Self {
        match free {
            Ok(free) => Self::on_paths(words, &[paths, &[free.as_path()]].concat(), command(&free)),
            Err(fault) => Self::by_hand(format!(
                "{words}: check this manually; no command is given, because no unused name was \
                 found: {fault}"
            )),
        }
    }

    /// Creates a remedy from a command that contains `paths`. Root will run the command. If a path
    /// may lead to another file, now or later, the remedy has no command. The text then gives the
    /// reason.
    pub(super) fn on_paths(words: impl fmt::Display, paths: &[&Path], command: String) -> Self {
        match paths.iter().find_map(|path| hazard(path)) {
            None if paths.iter().all(|path| is_this_users(path)) => Self {
                words: words.to_string(),
                command: Some(command),
            },
            None => Self::by_command(words.to_string(), command),
            Some(why) => Self::by_hand(format!(
                "{words}: check this manually; no command is given, because {why}"
            )),
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.command {
            Some(command) => write!(f, "{}: {command}", self.words),
            None => f.write_str(&self.words),
        }
    }
}

/// Returns the reason why a command for root must not contain the path, if any. Examples are a file
/// that other users can replace, a symbolic link, and a name with invisible characters.
fn hazard(path: &Path) -> Option<String> {
    let shown = path.display();
    let is_text = path
        .to_str()
        .is_some_and(|text| !text.chars().any(char::is_control));
    if !is_text {
        return Some("the name of a file has invisible characters".into());
    }
    if let Err(why) = names_only_ours(path.parent().unwrap_or(Path::new("/"))) {
        return Some(why.to_string());
    }
    let about = match found(|| lstat(path)) {
        Ok(None) => return None,
        Ok(Some(about)) => about,
        Err(error) => return Some(format!("{shown}: {error}")),
    };
    match FileType::from_raw_mode(about.st_mode) {
        FileType::Symlink => Some(format!("{shown} is a symbolic link")),
        FileType::RegularFile if about.st_nlink > 1 => {
            Some(format!("{shown} has a second name (a hard link)"))
        }
        _ => None,
    }
}

/// Returns true if the user of this process owns the file, and so may change its mode.
fn is_this_users(path: &Path) -> bool {
    lstat(path).is_ok_and(|about| about.st_uid == geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_names_what_may_be_something_else() {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::{PermissionsExt, symlink};
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        std::fs::write(&file, "").unwrap();
        let has = |path: &Path| {
            Remedy::on_paths("Do", &[path], "rm".into())
                .command
                .is_some()
        };
        assert!(has(&file));
        assert!(has(&home.path().join("none")));
        assert!(!has(&home.path().join("two\nlines")));
        assert!(!has(&home
            .path()
            .join(std::ffi::OsStr::from_bytes(b"\xFF"))));
        symlink(&file, home.path().join("link")).unwrap();
        assert!(!has(&home.path().join("link")));
        std::fs::hard_link(&file, home.path().join("second")).unwrap();
        assert!(!has(&file));
        std::fs::remove_file(home.path().join("second")).unwrap();
        let mode = |path: &Path, bits| {
            let mode = std::fs::Permissions::from_mode(bits);
            std::fs::set_permissions(path, mode).unwrap();
        };
        mode(home.path(), 0o777);
        assert!(!has(&file));
        // Any user with write permission can create the missing folder.
        assert!(!has(&home.path().join("none/below/file")));
        mode(home.path(), 0o1777);
        assert!(!has(&home.path().join("none/below/file")));
        mode(home.path(), 0o700);
        assert!(has(&home.path().join("none/below/file")));
        let open = home.path().join("open");
        std::fs::create_dir(&open).unwrap();
        mode(&open, 0o777);
        symlink(open.join("none"), home.path().join("away")).unwrap();
        assert!(!has(&home.path().join("away/file")), "a link to nothing");
        // In a folder for a group, each member can replace his own files and create files.
        mode(&open, 0o1770);
        if std::os::unix::fs::chown(&open, None, Some(12345)).is_ok() {
            mode(&open, 0o1770);
            assert!(!has(&open.join("file")));
        }
        // The system cannot resolve these paths.
        let around = home.path().join("loop");
        symlink(&around, &around).unwrap();
        assert!(!has(&around.join("file")));
        assert!(!has(&home.path().join("x".repeat(300))));
    }
}
