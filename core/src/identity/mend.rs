//! What mends something: words, and a command where there is one. None of it ends an identity, or
//! destroys a key that may still be of use.

use super::fault::Fault;
use crate::shell::word;
use crate::trust::alone;
use rustix::fs::{FileType, lstat};
use std::fmt;
use std::path::{Path, PathBuf};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mend {
    /// For a person.
    pub(super) words: String,
    /// For sh(1), as it stands; after what the words ask for.
    pub(super) command: Option<String>,
}

impl Mend {
    /// What no command does.
    pub(super) fn by(words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            command: None,
        }
    }

    /// A command, and when it is the right one. Paths of its own it must not have: those are for
    /// [`Mend::on`].
    pub(super) fn run(words: impl Into<String>, command: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            command: Some(command.into()),
        }
    }

    /// As [`Mend::on`], with a command that gives something the name `free`, if nothing has it yet.
    pub(super) fn aside(
        words: impl fmt::Display,
        paths: &[&Path],
        free: Result<PathBuf, Fault>,
        command: impl FnOnce(&Path) -> String,
    ) -> Self {
        match free {
            Ok(free) => Self::on(words, &[paths, &[free.as_path()]].concat(), command(&free)),
            Err(fault) => Self::by(format!(
                "{words}: look at this by hand; no command is given, because of this: {fault}"
            )),
        }
    }

    /// A command that names these paths. Root copies it, so there is none where a path may lead
    /// elsewhere than it seems, now or when it is run: then the words say so.
    pub(super) fn on(words: impl fmt::Display, paths: &[&Path], command: String) -> Self {
        match paths.iter().find_map(|path| hazard(path)) {
            None => Self::run(words.to_string(), command),
            Some(why) => Self::by(format!(
                "{words}: look at this by hand; no command is given, because {why}"
            )),
        }
    }
}

/// What helps where a file of a key folder gives no object: an identity may be in it, so it is not to
/// be moved away just so that the finding goes.
pub(super) fn of_unread(folder: &Path, file: &Path, by_content: bool) -> Mend {
    if by_content {
        return Mend::by(
            "If it is one of the device's, bring it back from a copy. If it is none, take it to a \
             place outside of the folder",
        );
    }
    Mend::on(
        "If its mode or owner is at fault, and its content is yours",
        &[folder, file],
        format!(
            "chown --no-dereference --reference={} {1} && chmod u=rw,g-wx,o= {1}",
            word(folder),
            word(file)
        ),
    )
}

impl fmt::Display for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.command {
            Some(command) => write!(f, "{}: {command}", self.words),
            None => f.write_str(&self.words),
        }
    }
}

/// Why a path is not for a command that root copies, if so: others can put something else there, or
/// it is a link already, or its name is not what is shown of it.
fn hazard(path: &Path) -> Option<String> {
    let shown = path.display();
    let is_text = path
        .to_str()
        .is_some_and(|text| !text.chars().any(char::is_control));
    if !is_text {
        return Some("its name holds what no command line shows".into());
    }
    if let Err(why) = alone(path.parent().unwrap_or(Path::new("/"))) {
        return Some(why.to_string());
    }
    let about = lstat(path).ok()?;
    match FileType::from_raw_mode(about.st_mode) {
        FileType::Symlink => Some(format!("{shown} is a symbolic link")),
        FileType::RegularFile if about.st_nlink > 1 => {
            Some(format!("{shown} has another name too (a hard link)"))
        }
        _ => None,
    }
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
        let has = |path: &Path| Mend::on("Do", &[path], "rm".into()).command.is_some();
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
        let open = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(home.path(), open).unwrap();
        assert!(!has(&file));
    }
}
