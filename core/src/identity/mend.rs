//! What mends something: words, and a command where there is one. None of it ends an identity, or
//! destroys a key that may still be of use.

use std::fmt;
use std::path::Path;

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

    /// A command, and when it is the right one.
    pub(super) fn run(words: impl Into<String>, command: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            command: Some(command.into()),
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
    Mend::run(
        "If its mode or owner is at fault, and its content is yours",
        format!(
            "chown --reference={} {1} && chmod u=rw,g-wx,o= {1}",
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

/// A path as one word of a command line.
pub(super) fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |one: char| one.is_ascii_alphanumeric() || "/._-+,:@%".contains(one);
    match text.chars().all(plain) && !text.is_empty() {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word() {
        assert_eq!(word(Path::new("/var/lib/x-1.pem")), "/var/lib/x-1.pem");
        assert_eq!(word(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
