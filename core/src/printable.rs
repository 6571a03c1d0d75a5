//! Prints texts of other parties in one line: labels, file names, names in certificates.

use std::fmt::{Display, Write};

/// Returns a text in one line. Escapes control characters, line ends, and direction marks (Unicode
/// Standard Annex 9, section 2), because they control a terminal or end a line.
pub fn printable(said: impl Display) -> String {
    let mut printable = String::new();
    for one in said.to_string().chars() {
        let _ = match one {
            '\u{61C}'
            | '\u{200E}'
            | '\u{200F}'
            | '\u{2028}'..='\u{202E}'
            | '\u{2066}'..='\u{2069}' => write!(printable, "{}", one.escape_default()),
            one if one.is_control() => write!(printable, "{}", one.escape_default()),
            one => printable.write_char(one),
        };
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_texts_make_no_line_and_move_no_cursor() {
        let forged = "a\n2026-11-28 ERROR: b\r\u{1b}[2J\0\t\u{7f}\u{9b}\u{202e}\u{2028}\u{2066}";
        let shown = printable(forged);
        assert!(shown.chars().all(|one| !one.is_control()), "{shown:?}");
        assert!(!shown.contains(['\u{202e}', '\u{2028}', '\u{2066}']));
        assert!(shown.contains("a\\n2026"), "{shown}");
        let usual = "/etc/Schlüssel/鍵.pem: \"x\" is none\\";
        assert_eq!(printable(usual), usual);
    }
}
