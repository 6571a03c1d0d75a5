//! Writes words of command lines that a user copies into sh(1).

use std::path::Path;

/// Returns a path as one word of a command line. The word does not look like an option.
pub fn word(path: &Path) -> String {
    let text = path.display().to_string();
    match text.starts_with('-') {
        true => quoted(&format!("./{text}")),
        false => quoted(&text),
    }
}

/// Returns the name of an object as an argument of `devid`. Other parties may have chosen the name.
pub fn argument(name: &str) -> String {
    match name.starts_with('-') {
        true => format!("-- {}", quoted(name)),
        false => quoted(name),
    }
}

/// Returns a text as one word of a command line.
pub fn quoted(text: &str) -> String {
    let plain = |one: char| one.is_ascii_alphanumeric() || "/._-+,:@%".contains(one);
    match text.chars().all(plain) && !text.is_empty() {
        true => text.to_owned(),
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
        assert_eq!(word(Path::new("-rf")), "./-rf");
    }
}
