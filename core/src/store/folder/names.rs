//! Names of the files in the key folder.

/// The suffix of the name of an object's file.
pub(super) const SUFFIX: &str = ".pem";
/// The suffix of a file that was set aside. A number follows the suffix if another file has the
/// name already.
pub(super) const LOST: &str = ".pem.lost";

/// Returns the file name of the object with this name.
pub(super) fn file_name(name: &str) -> String {
    format!("{name}{SUFFIX}")
}

/// Returns the name of the object in this file. This function reverses [`file_name`].
pub(super) fn object_name(file: &str) -> &str {
    file.strip_suffix(SUFFIX).unwrap_or(file)
}

/// Returns true if the name is that of an object's file.
pub(super) fn is_object(file: &[u8]) -> bool {
    file.ends_with(SUFFIX.as_bytes()) && !file.starts_with(b".")
}

/// Returns true if the text is the random part of a generated name: 16 hexadecimal digits in lower
/// case.
pub fn is_random(digits: &str) -> bool {
    let lower = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    digits.len() == 16 && digits.bytes().all(lower)
}

/// Returns true if [`KeyFolder::set_aside`](super::KeyFolder::set_aside) gave the file this name.
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
