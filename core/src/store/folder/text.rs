//! Reads and writes attributes as lines of text above a PEM block. A line has the form
//! `Name: value` in UTF-8.
//!
//! The writer omits default values, so a file without lines is a valid object. A wrong value makes
//! the whole file damaged, because an attribute is never guessed.

use super::{KeyOrigin, ObjectAttributes, Usage, Use};
use crate::key::{from_hex, hex};
use crate::x509::Date;
use std::fmt::Write;
use std::str::FromStr;

/// The prefix of the names of lines about the public key of a pair.
pub(super) const PUBLIC_HALF: &str = "Public-";

/// The lines of an object's file that no parser has read yet, each with the length of its name. A
/// line without colon has no name.
pub(super) struct Lines<'a>(Vec<(&'a [u8], Option<usize>)>);

impl<'a> Lines<'a> {
    pub(super) fn new(lines: Vec<&'a [u8]>) -> Self {
        let named = |line: &'a [u8]| (line, line.iter().position(|byte| *byte == b':'));
        Self(lines.into_iter().map(named).collect())
    }

    /// Removes the lines with this name and parses the value with `read`. Returns `None` if no line
    /// has the name.
    pub(super) fn take<T>(
        &mut self,
        name: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, String> {
        self.take_of("", name, read)
    }

    /// Does what [`take`](Self::take) does, for the name `prefix` + `name`.
    fn take_of<T>(
        &mut self,
        prefix: &str,
        name: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let value = |(line, end): &(&'a [u8], Option<usize>)| -> Option<&'a [u8]> {
            let end = end.filter(|end| *end == prefix.len() + name.len())?;
            let (named, value) = line.split_at(end);
            let is_named = named.ends_with(name.as_bytes()) && named.starts_with(prefix.as_bytes());
            is_named.then(|| &value[1..])
        };
        let Some(first) = self.0.iter().position(|line| value(line).is_some()) else {
            return Ok(None);
        };
        let text = value(&self.0.remove(first));
        if self.0.iter().any(|line| value(line).is_some()) {
            return Err(format!("more than one line has the name {prefix}{name}"));
        }
        let text = text.and_then(|text| str::from_utf8(text).ok());
        let understood = text.and_then(|text| read(text.trim_matches([' ', '\t'])));
        understood
            .map(Some)
            .ok_or_else(|| format!("the value of the line {prefix}{name} is invalid"))
    }

    /// Returns true if no line begins with `prefix`.
    fn has_none_of(&self, prefix: &str) -> bool {
        let mut lines = self.0.iter();
        !lines.any(|(line, _)| line.starts_with(prefix.as_bytes()))
    }

    /// Returns the remaining lines. They are remarks, or lines of a newer version.
    pub(super) fn rest(self) -> Vec<Vec<u8>> {
        self.0.into_iter().map(|(line, _)| line.to_vec()).collect()
    }
}

/// Reads the attributes from lines whose names begin with `prefix`. `absent` holds the default
/// values.
pub(super) fn read_description(
    lines: &mut Lines<'_>,
    prefix: &str,
    absent: ObjectAttributes,
) -> Result<ObjectAttributes, String> {
    if lines.has_none_of(prefix) {
        return Ok(absent);
    }
    let mut read = absent;
    let mut text = |name: &str| lines.take_of(prefix, name, unescaped);
    set(&mut read.label, text("Label")?);
    set(&mut read.id, lines.take_of(prefix, "ID", id)?);
    let mut bytes = |name: &str| lines.take_of(prefix, name, from_hex);
    set(&mut read.subject, bytes("Subject")?);
    set(&mut read.subject_key_hash, bytes("Subject-Key-Hash")?);
    set(&mut read.issuer_key_hash, bytes("Issuer-Key-Hash")?);
    let mut date = |name: &str| lines.take_of(prefix, name, |text| day(text).map(Some));
    set(&mut read.start, date("Start")?);
    set(&mut read.end, date("End")?);
    let mut flag = |name: &str| lines.take_of(prefix, name, yes_no);
    set(&mut read.private, flag("Private")?);
    set(&mut read.always_authenticate, flag("Always-Authenticate")?);
    set(&mut read.modifiable, flag("Modifiable")?);
    set(&mut read.copyable, flag("Copyable")?);
    set(&mut read.destroyable, flag("Destroyable")?);
    let uses = lines.take_of(prefix, "Usage", |text| usage(text).map(Some))?;
    set(&mut read.usage, uses);
    set(
        &mut read.mechanisms,
        lines.take_of(prefix, "Mechanisms", numbers)?,
    );
    Ok(read)
}

/// Replaces a default value by the value of a line, if the file has that line.
fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// Writes lines that [`read_description`] parses into these attributes.
pub(super) fn write_description(
    out: &mut String,
    prefix: &str,
    this: &ObjectAttributes,
    absent: &ObjectAttributes,
) {
    let mut line = |name: &str, differs: bool, value: &dyn Fn() -> String| {
        if differs {
            write_line(out, &format!("{prefix}{name}"), &value());
        }
    };
    let flag = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
    let date = |day: &Option<Date>| {
        day.map(|day| format!("{:04}-{:02}-{:02}", day.year, day.month, day.day))
            .unwrap_or_default()
    };
    line("Label", this.label != absent.label, &|| {
        escaped(&this.label)
    });
    line("ID", this.id != absent.id, &|| match &this.id {
        Some(id) => hex(id),
        None => DEFAULT_ID.into(),
    });
    line("Subject", this.subject != absent.subject, &|| {
        hex(&this.subject)
    });
    line("Start", this.start.is_some(), &|| date(&this.start));
    line("End", this.end.is_some(), &|| date(&this.end));
    line("Private", this.private != absent.private, &|| {
        flag(this.private)
    });
    line(
        "Always-Authenticate",
        this.always_authenticate != absent.always_authenticate,
        &|| flag(this.always_authenticate),
    );
    line("Modifiable", this.modifiable != absent.modifiable, &|| {
        flag(this.modifiable)
    });
    line("Copyable", this.copyable != absent.copyable, &|| {
        flag(this.copyable)
    });
    line(
        "Destroyable",
        this.destroyable != absent.destroyable,
        &|| flag(this.destroyable),
    );
    line("Usage", this.usage.is_some(), &|| {
        let uses: Vec<_> = this
            .usage
            .iter()
            .flat_map(|usage| usage.iter())
            .map(word)
            .collect();
        match uses[..] {
            [] => NO_USE.into(),
            _ => uses.join(", "),
        }
    });
    line("Mechanisms", !this.mechanisms.is_empty(), &|| {
        let numbers: Vec<_> = this
            .mechanisms
            .iter()
            .map(|one| format!("0x{one:x}"))
            .collect();
        numbers.join(", ")
    });
    for (name, hash) in [
        ("Subject-Key-Hash", &this.subject_key_hash),
        ("Issuer-Key-Hash", &this.issuer_key_hash),
    ] {
        line(name, !hash.is_empty(), &|| hex(hash));
    }
}

/// Returns the default attributes of a pair's public key. The label, identifier and subject of the
/// private key apply to the public key too, as administrators expect.
pub(super) fn public_half(private: &ObjectAttributes) -> ObjectAttributes {
    ObjectAttributes {
        id: private.id.clone(),
        subject: private.subject.clone(),
        ..ObjectAttributes::labelled(&private.label)
    }
}

pub(super) fn write_line(out: &mut String, name: &str, value: &str) {
    // A write into a String always succeeds.
    let _ = match value {
        "" => writeln!(out, "{name}:"),
        value => writeln!(out, "{name}: {value}"),
    };
}

/// Escapes text so that it fits on one line. A parser cannot trim the result, and cannot take it
/// for the boundary of a PEM block.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for (at, char) in text.char_indices() {
        let at_an_end = at == 0 || at + char.len_utf8() == text.len();
        match char {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            ' ' if !at_an_end => out.push(char),
            '-' if !text[at..].starts_with("-----") => out.push(char),
            char if char == '-' || char.is_control() || char.is_whitespace() => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(char));
            }
            char => out.push(char),
        }
    }
    out
}

/// Reverses [`escaped`]. Returns `None` for an escape sequence that [`escaped`] does not write.
pub(super) fn unescaped(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let mut behind = rest[at + 1..].chars();
        out.push(match behind.next()? {
            '\\' => '\\',
            'n' => '\n',
            'r' => '\r',
            'u' => {
                let (digits, after) = behind.as_str().strip_prefix('{')?.split_once('}')?;
                behind = after.chars();
                char::from_u32(u32::try_from(hexadecimal(digits)?).ok()?)?
            }
            _ => return None,
        });
        rest = behind.as_str();
    }
    out.push_str(rest);
    Some(out)
}

/// Parses a handle of the form `0x81000100`.
pub(super) fn handle(text: &str) -> Option<u32> {
    u32::try_from(hexadecimal(text.strip_prefix("0x")?)?).ok()
}

pub(super) fn origin(text: &str) -> Option<KeyOrigin> {
    match text {
        "generated" => Some(KeyOrigin::Generated),
        "imported" => Some(KeyOrigin::Imported),
        _ => None,
    }
}

/// The value of the line `Public` for a pair whose public key object was destroyed.
pub(super) const NO_PUBLIC_HALF: &str = "none";
/// The value of the line `Auth` for a key that needs no PIN by intention.
pub(super) const NO_AUTH: &str = "none";
const NO_USE: &str = "none";
/// The value of the line `Public-ID` if the public key has the default identifier but the private
/// key has another.
const DEFAULT_ID: &str = "default";

fn id(text: &str) -> Option<Option<Vec<u8>>> {
    match text {
        DEFAULT_ID => Some(None),
        digits => from_hex(digits).map(Some),
    }
}

pub(super) fn yes_no(text: &str) -> Option<bool> {
    match text {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

fn usage(text: &str) -> Option<Usage> {
    if text == NO_USE {
        return Some(Usage::NONE);
    }
    let named = |name: &str| Use::ALL.into_iter().find(|&one| word(one) == name.trim());
    text.split(',').map(named).collect()
}

fn word(one: Use) -> &'static str {
    match one {
        Use::Sign => "sign",
        Use::SignRecover => "sign-recover",
        Use::Decrypt => "decrypt",
        Use::Unwrap => "unwrap",
        Use::Derive => "derive",
        Use::Verify => "verify",
        Use::VerifyRecover => "verify-recover",
        Use::Encrypt => "encrypt",
        Use::Wrap => "wrap",
    }
}

fn numbers(text: &str) -> Option<Vec<u64>> {
    let number = |text: &str| hexadecimal(text.trim().strip_prefix("0x")?);
    text.split(',').map(number).collect()
}

fn hexadecimal(digits: &str) -> Option<u64> {
    let sound = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| sound)
}

/// Parses a date of the form `2031-01-31`.
fn day(text: &str) -> Option<Date> {
    let parts: Vec<_> = text.split('-').collect();
    let [year, month, day] = parts[..] else {
        return None;
    };
    Some(Date {
        year: digits(year, 4)?,
        month: digits(month, 2).filter(|month| (1..=12).contains(month))?,
        day: digits(day, 2).filter(|day| (1..=31).contains(day))?,
    })
}

fn digits<T: FromStr>(text: &str, count: usize) -> Option<T> {
    let sound = text.len() == count && text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|_| sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ObjectAttributes, String> {
        let mut lines = Lines::new(text.lines().map(str::as_bytes).collect());
        read_description(&mut lines, "", ObjectAttributes::labelled("stem"))
    }

    #[test]
    fn any_text_fits_into_one_line() {
        for text in [
            "",
            " ",
            "web server",
            "  leading and trailing ",
            "two\nlines\r\nand\u{85}\u{2028}more",
            "colon: yes",
            "Schlüssel 鍵 🔑",
            r"back\slash \n \u{20} \",
            "\0\u{7f}\t",
            "-----BEGIN CERTIFICATE-----",
            "---------",
            "a - b -- c",
        ] {
            let line = escaped(text);
            assert_eq!(unescaped(&line).as_deref(), Some(text), "{line}");
            assert_eq!(line.trim(), line);
            assert!(
                !line.contains(char::is_control) && !line.contains("-----"),
                "{line}"
            );
        }
        for wrong in [
            r"\",
            r"\x",
            r"\u",
            r"\u{}x",
            r"\u{d800}",
            r"\u{+41}",
            r"\u{41",
        ] {
            assert_eq!(unescaped(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn descriptions_go_there_and_back() {
        let plain = ObjectAttributes::labelled("stem");
        let day = |day| {
            Some(Date {
                year: 2031,
                month: 1,
                day,
            })
        };
        let full = ObjectAttributes {
            label: "web server".into(),
            id: Some(vec![1, 2]),
            subject: vec![0x30, 0],
            start: day(1),
            end: day(31),
            private: true,
            always_authenticate: true,
            modifiable: false,
            copyable: false,
            destroyable: false,
            usage: Some([Use::Derive, Use::Sign].into_iter().collect()),
            mechanisms: vec![0x1041, 0x8000_0001_0000],
            subject_key_hash: vec![3; 2],
            issuer_key_hash: vec![4; 2],
        };
        let bare = ObjectAttributes {
            label: String::new(),
            id: Some(vec![]),
            usage: Some(Usage::NONE),
            ..plain.clone()
        };
        for (this, text) in [
            (&plain, ""),
            (
                &full,
                "Label: web server\nID: 0102\nSubject: 3000\nStart: 2031-01-01\nEnd: 2031-01-31\n\
                 Private: yes\nAlways-Authenticate: yes\nModifiable: no\nCopyable: no\n\
                 Destroyable: no\nUsage: sign, derive\nMechanisms: 0x1041, 0x800000010000\n\
                 Subject-Key-Hash: 0303\nIssuer-Key-Hash: 0404\n",
            ),
            (&bare, "Label:\nID:\nUsage: none\n"),
        ] {
            let mut out = String::new();
            write_description(&mut out, "", this, &plain);
            assert_eq!(out, text);
            assert_eq!(read(&out).as_ref(), Ok(this));
        }
        let all = Usage::from_iter(Use::ALL);
        assert_eq!(usage(&Use::ALL.map(word).join(",")), Some(all));
    }

    #[test]
    fn the_public_half_follows_the_private_one() {
        let private = ObjectAttributes {
            id: Some(vec![7]),
            private: true,
            ..ObjectAttributes::labelled("both")
        };
        let absent = public_half(&private);
        assert_eq!((&*absent.label, absent.private), ("both", false));
        assert_eq!(absent.id, Some(vec![7]));
        for this in [absent.clone(), ObjectAttributes::labelled("own")] {
            let mut out = String::new();
            write_description(&mut out, PUBLIC_HALF, &this, &absent);
            let mut lines = Lines::new(out.lines().map(str::as_bytes).collect());
            let again = read_description(&mut lines, PUBLIC_HALF, absent.clone());
            assert_eq!(again, Ok(this), "{out}");
        }
    }

    #[test]
    fn a_known_line_that_is_wrong_is_damage() {
        for wrong in [
            "ID: 010",
            "ID: 01 02",
            "Label: \\x",
            "Private: maybe",
            "Private:",
            "Usage: sing",
            "Usage:",
            "Mechanisms: 1041",
            "Mechanisms:",
            "Start: 2031-13-01",
            "Start: 31-01-01",
            "End: 2031-01-00",
            "Label: a\nLabel: a",
        ] {
            let name = wrong.split(':').next().unwrap();
            assert!(read(wrong).unwrap_err().contains(name), "{wrong}");
        }
        let mut lines = Lines::new(vec![b"Label: \xFF"]);
        assert!(lines.take("Label", unescaped).is_err());
        assert_eq!(handle("0x81000100"), Some(0x8100_0100));
        for wrong in ["81000100", "0x", "0x181000100", "0x+1"] {
            assert_eq!(handle(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_not_known_stays() {
        let text: [&[u8]; 5] = [
            b"# note",
            b"",
            b"Colour: red",
            b" Label: indented",
            b"Label: x",
        ];
        let mut lines = Lines::new(text.to_vec());
        assert_eq!(lines.take("Label", unescaped), Ok(Some("x".into())));
        assert_eq!(lines.take("Label", unescaped), Ok(None));
        assert_eq!(lines.rest(), text[..4]);
    }
}
