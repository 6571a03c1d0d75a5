//! Explains syntax errors in terms of the configuration file. Only names of settings are shown,
//! because the line may contain a secret.

use super::section::{is_known, section_called};

const SHAPE: &str = "expected NAME = VALUE, or a [SECTION]";
const VALUE: &str = "a value is text in quotes, a number, true or false";

/// Returns the line (the first line is 0) of a byte offset, which may be inside a character.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    let before = &text.as_bytes()[..at.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count()
}

/// Returns the line that the user must correct (the first line is 0), and the error message. `at`
/// is the byte offset at which the TOML parser stopped.
pub(super) fn explain(text: &str, at: usize) -> (usize, String) {
    let number = line_of(text, at);
    let lines: Vec<&str> = text.lines().collect();
    let line = |number: usize| {
        lines
            .get(number)
            .copied()
            .unwrap_or_default()
            .trim_matches([' ', '\t', '\r'])
    };
    // If a value is alone on its line, the line above has the name without a value. The user must
    // correct the line above.
    let before = (0..number)
        .rev()
        .find(|number| !is_bare_comment(line(*number)));
    let lacks = before.filter(|before| line(*before).ends_with(['=', ':']));
    if let Some(before) = lacks
        && assignment(line(number)).is_none()
    {
        return (
            before,
            with_name(line(before), "the value is on another line"),
        );
    }
    let here = line(number);
    let stands_alone = toml::de::DeTable::parse(here).is_ok() && !is_bare_comment(here);
    match stands_alone {
        true => (number, twice(here)),
        false => (number, with_name(here, &fault(here))),
    }
}

fn is_bare_comment(line: &str) -> bool {
    line.is_empty() || line.starts_with('#')
}

/// Explains a line with valid syntax that repeats an earlier setting or section.
fn twice(line: &str) -> String {
    let name = line.trim_start_matches('[').split([']', '=', '.']).next();
    let name = name.unwrap_or_default().trim();
    match section_called(name) {
        Some(section) if line.starts_with('[') => {
            format!("{section} occurs twice, or is written in two forms")
        }
        _ => with_name(line, "the setting occurs twice"),
    }
}

/// Returns the error message `what`, preceded by the name of the setting if that name is known.
fn with_name(line: &str, what: &str) -> String {
    let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let name = &line[..end.unwrap_or(line.len())];
    match is_known(name) {
        true => format!("{name}: {what}"),
        false => what.to_owned(),
    }
}

fn fault(line: &str) -> String {
    if let Some(odd) = line.chars().find(|c| is_invisible(*c)) {
        return format!("the line has an invisible character (U+{:04X})", odd as u32);
    }
    if line.contains(is_typographic_quote) {
        return "the line has typographic quotes; write text in straight quotes (\")".into();
    }
    let begins = |marks: &[&str]| marks.iter().any(|mark| line.starts_with(mark));
    if begins(&["//", ";", "/*", "--", "<!"]) {
        return "a comment begins with #".into();
    }
    if begins(&["{", "}", "\""]) && (line.contains("\":") || line.len() < 3) {
        return format!("this looks like JSON: {SHAPE}");
    }
    if begins(&["- "]) {
        return format!("this looks like YAML: {SHAPE}");
    }
    if line.starts_with('[') {
        return header(line);
    }
    match assignment(line) {
        Some((name, value)) => wrong_value(name.trim(), value.trim()),
        None => {
            let end = line.find(['"', '\'']).unwrap_or(line.len());
            match line[..end].contains(':') {
                true => "the line has a colon instead of an equals sign".into(),
                false => format!("the line has no equals sign: {SHAPE}"),
            }
        }
    }
}

/// Returns the text on both sides of the first equals sign outside of quotes.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, '=') => return Some((&line[..at], &line[at + 1..])),
            _ => {}
        }
    }
    None
}

fn header(line: &str) -> String {
    let name = line.trim_start_matches('[');
    let name = name.split([']', ' ', '#', '.']).next().unwrap_or_default();
    let closed = line.find(']').map(|at| line[at..].trim_start_matches(']'));
    match (section_called(name), closed) {
        (_, Some(rest)) if !rest.trim().is_empty() && !rest.trim().starts_with('#') => {
            "the name of a section must be on a separate line".into()
        }
        (Some(section), _) => format!("a bracket is missing: expected {section}"),
        (None, _) => "invalid section name: expected [NAME] or [[NAME]]".into(),
    }
}

fn wrong_value(name: &str, value: &str) -> String {
    const SWITCHES: [&str; 10] = [
        "yes", "no", "on", "off", "true", "false", "y", "n", "enabled", "disabled",
    ];
    let word = value.split('#').next().unwrap_or_default().trim();
    if name.ends_with([':', '+', '?', '!']) || value.starts_with(['=', '>', ':']) {
        return "expected one equals sign only".into();
    }
    if name.is_empty() {
        return format!("the line has no name: {SHAPE}");
    }
    if name.contains(char::is_whitespace) {
        return "the name of a setting must not contain blanks".into();
    }
    if word.is_empty() {
        return format!("the line has no value: {VALUE}");
    }
    if SWITCHES.contains(&&*word.to_ascii_lowercase()) {
        return "expected true or false, or text in quotes".into();
    }
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => wrong_text(value, quote),
        Some('[' | '{') => "the bracket is not closed on this line, or its content is wrong".into(),
        Some(c) if c.is_ascii_digit() || c == '+' || c == '-' => {
            "expected a number (digits, or 0x and hexadecimal digits, without a unit), or text \
             in quotes"
                .into()
        }
        _ => "text must be in quotes".into(),
    }
}

fn wrong_text(value: &str, quote: char) -> String {
    let inner = &value[1..];
    let mut escaped = false;
    let end = inner.find(|c: char| {
        let closes = c == quote && !escaped;
        escaped = c == '\\' && quote == '"' && !escaped;
        closes
    });
    match end.map(|end| inner[end + 1..].trim()) {
        None => "the quotes are not closed".into(),
        Some(rest) if !rest.is_empty() && !rest.starts_with('#') => {
            "unexpected text follows the value; a comment begins with #".into()
        }
        Some(_) if inner.contains('\\') => {
            "write a backslash twice in \" quotes, or once in ' quotes".into()
        }
        Some(_) => format!("the value cannot be read: {VALUE}"),
    }
}

fn is_invisible(c: char) -> bool {
    let blank = c.is_whitespace() && c != ' ' && c != '\t';
    blank
        || c.is_control() && c != '\t'
        || matches!(
            c,
            '\u{200B}'..='\u{200F}' | '\u{2060}' | '\u{FEFF}' | '\u{AD}'
        )
}

fn is_typographic_quote(c: char) -> bool {
    matches!(
        c,
        '\u{2018}'
            ..='\u{201F}'
                | '\u{AB}'
                | '\u{BB}'
                | '\u{2039}'
                | '\u{203A}'
                | '\u{FF02}'
                | '\u{B4}'
                | '`'
    )
}

/// Explains why a configuration file is not UTF-8.
pub(super) fn no_text(content: &[u8]) -> String {
    if content.starts_with(b"\xFF\xFE") || content.starts_with(b"\xFE\xFF") {
        return "this is UTF-16: save it as UTF-8".into();
    }
    let good = content
        .utf8_chunks()
        .next()
        .map_or("", |chunk| chunk.valid());
    let line = good.matches('\n').count() + 1;
    format!("line {line} has a character that is not UTF-8: save the file as UTF-8")
}
