//! Writes text for a user, line by line. Text from other sources (a name in a certificate, a label,
//! a path) can neither start a new line nor control the terminal.

pub(crate) use devid_core::printable;
use std::fmt::{Display, Write};

/// Appends a line to the text.
pub(crate) fn row(text: &mut String, said: impl Display) {
    text.push_str(&printable(said));
    text.push('\n');
}

/// Appends a line that starts with a mark. The mark may have a colour.
pub(crate) fn marked(text: &mut String, mark: impl Display, said: impl Display) {
    let _ = writeln!(text, "{mark} {}", printable(said));
}

/// Appends an indented line of a paragraph: a name and a value.
pub(crate) fn line(text: &mut String, name: &str, value: &str) {
    row(text, format_args!("  {name:<13} {value}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_in_its_line_and_steers_nothing() {
        for (said, written) in [
            ("Büro 3, O=Ex\\,ample", "Büro 3, O=Ex\\,ample"),
            ("a\n  SHA-256       00", "a\\n  SHA-256       00"),
            (
                "\u{1B}]0;title\u{7}\u{9B}2J",
                "\\u{1b}]0;title\\u{7}\\u{9b}2J",
            ),
            ("web\u{202E}bew\u{2066}", "web\\u{202e}bew\\u{2066}"),
            ("a\u{2028}b\r", "a\\u{2028}b\\r"),
        ] {
            let mut text = String::new();
            line(&mut text, "model", said);
            assert_eq!(text, format!("  model         {written}\n"));
        }
    }
}
