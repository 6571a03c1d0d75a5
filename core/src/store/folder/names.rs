//! File names in the folder.

/// The suffix of an object's file.
pub(super) const SUFFIX: &str = ".pem";
/// The suffix of a file that was set aside; a number follows if that name is in use.
pub(super) const LOST: &str = ".pem.lost";

/// The file of the object with this name.
pub(super) fn file_name(name: &str) -> String {
    format!("{name}{SUFFIX}")
}

/// The object's name; reverses [`file_name`].
pub(super) fn object_name(file: &str) -> &str {
    file.strip_suffix(SUFFIX).unwrap_or(file)
}

/// True if the file holds an object.
pub(super) fn is_object(file: &[u8]) -> bool {
    file.ends_with(SUFFIX.as_bytes()) && !file.starts_with(b".")
}

/// True if these are random digits of a generated name: 16, hexadecimal, lower case.
pub fn is_random(digits: &str) -> bool {
    let lower = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    digits.len() == 16 && digits.bytes().all(lower)
}

/// True if [`KeyFolder::set_aside`](super::KeyFolder::set_aside) gave the file this name.
pub(super) fn is_lost(name: &str) -> bool {
    let Some((_, number)) = name.rsplit_once(LOST) else {
        return false;
    };
    let number = number.strip_prefix('-').map(str::parse::<usize>);
    name.ends_with(LOST) || matches!(number, Some(Ok(2..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_are_not_taken_for_lost_ones() {
        for name in ["a.pem.lost", "a.pem.lost-2", ".user.pem.lost"] {
            assert!(is_lost(name), "{name}");
        }
        for name in [
            "a.lost",
            "a.pem.lost-1",
            "a.pem.lost-x",
            "a.pem.lost2",
            "a.pem",
        ] {
            assert!(!is_lost(name), "{name}");
        }
    }
}
