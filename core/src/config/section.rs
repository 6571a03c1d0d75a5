//! A section of a configuration file (a table of TOML). `TomlTable` takes each known setting out of
//! the section, and then reports each remaining setting as unknown.
//!
//! An error message names the expected value. The message shows the written value only for settings
//! that are not secrets.

use std::cell::RefCell;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The names of all sections and their settings. The first entry has the settings above the first
/// section.
const SETTINGS: [(&str, &[&str]); 8] = [
    (
        "",
        &[
            "tcti",
            "timeout_ms",
            "generation_timeout_ms",
            "random",
            "session_slot",
            "verify_signatures",
            "state",
        ],
    ),
    ("[log]", &["level", "target", "audit"]),
    (
        "[[identity]]",
        &["handle", "nv", "certificate", "auth", "allow_last_try"],
    ),
    (
        "[[token]]",
        &[
            "name",
            "path",
            "allow_file_keys",
            "allow_last_try",
            "pin",
            "parents",
            "allow_raw_rsa",
            "service",
        ],
    ),
    ("[master]", &["handle", "owner_auth", "ek_roots"]),
    (
        "[provision]",
        &[
            "own",
            "marker",
            "fallback",
            "existing",
            "leave_software",
            "nv_index",
            "subject",
        ],
    ),
    ("[owner]", &["show"]),
    (
        "[[certificate]]",
        &[
            "label",
            "est",
            "identity",
            "trust",
            "subject",
            "san",
            "eku",
            "key",
            "within",
            "reload",
            "reload_limit",
            "server_timeout",
            "prove",
            "user",
            "password",
        ],
    ),
];

/// An invalid setting: its byte offset in the file, and the error message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SettingError {
    pub(super) at: usize,
    pub(super) what: String,
}

/// The first invalid setting of a file, in the order of the file. Collected while the file is read.
#[derive(Debug, Default)]
pub(super) struct FirstError(RefCell<Option<SettingError>>);

/// A section, with the settings that the program has not read yet.
#[derive(Debug)]
pub(super) struct TomlTable<'t> {
    text: &'t str,
    first_error: &'t FirstError,
    /// The name of the section with its brackets: `[log]`, `[[token]]`. Empty for the settings
    /// above the first section.
    name: &'static str,
    at: usize,
    left: DeTable<'t>,
}

type TomlValue<'t> = Spanned<DeValue<'t>>;

impl FirstError {
    fn note(&self, at: usize, what: String) {
        let mut first = self.0.borrow_mut();
        if first.as_ref().is_none_or(|first| at < first.at) {
            *first = Some(SettingError { at, what });
        }
    }

    pub(super) fn first(self) -> Option<SettingError> {
        self.0.into_inner()
    }
}

impl<'t> TomlTable<'t> {
    /// Creates the table of a whole file: the settings above the first section, and all sections.
    pub(super) fn whole(text: &'t str, first_error: &'t FirstError, table: DeTable<'t>) -> Self {
        Self {
            text,
            first_error,
            name: "",
            at: 0,
            left: table,
        }
    }

    /// Returns the byte offset of the section in the file.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Reads a text in quotes and parses it as `T`. The error of `T` becomes the message.
    pub(super) fn text<T: FromStr>(&mut self, key: &str) -> Option<T>
    where
        T::Err: fmt::Display,
    {
        self.taken(key, |value| match value.get_ref() {
            DeValue::String(text) => text.parse().map_err(|why: T::Err| why.to_string()),
            other => Err(format!("expected text in quotes{}", not(other))),
        })
    }

    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        self.taken(key, |value| match value.get_ref() {
            DeValue::Boolean(flag) => Ok(*flag),
            DeValue::String(_) => Err("expected true or false, without quotes".into()),
            _ => Err("expected true or false".into()),
        })
    }

    /// Reads a time limit in milliseconds, from 1 ms to one hour.
    pub(super) fn milliseconds(&mut self, key: &str) -> Option<u64> {
        self.number(key, 1..=3_600_000, "milliseconds from 1 to 3600000")
    }

    /// Reads a number in `range`. `expected` describes the range for error messages.
    pub(super) fn number(
        &mut self,
        key: &str,
        range: RangeInclusive<u64>,
        expected: &str,
    ) -> Option<u64> {
        self.number_unless(key, range, expected, |_| None)
    }

    /// Reads a number in `range`. The number is an error if the function `wrong` returns a reason.
    pub(super) fn number_unless(
        &mut self,
        key: &str,
        range: RangeInclusive<u64>,
        expected: &str,
        wrong: impl FnOnce(u64) -> Option<String>,
    ) -> Option<u64> {
        let text = self.text;
        self.taken(key, |value| match value.get_ref() {
            DeValue::Integer(digits) => {
                let number = u64::from_str_radix(digits.as_str(), digits.radix()).ok();
                // The number as the file shows it, possibly in hexadecimal digits.
                let written = text.get(value.span()).unwrap_or_default();
                let number = number.filter(|number| range.contains(number));
                let number = number.ok_or_else(|| format!("{written}: expected {expected}"))?;
                wrong(number).map_or(Ok(number), Err)
            }
            DeValue::String(_) => Err(format!("expected {expected}: a number without quotes")),
            other => Err(format!("expected {expected}{}", not(other))),
        })
    }

    /// Reads a list of persistent handles.
    pub(super) fn handles(&mut self, key: &str) -> Option<Vec<u32>> {
        let text = self.text;
        let expected = "expected handles from 0x81000000 to 0x81FFFFFF, without quotes";
        self.taken(key, |value| match value.get_ref() {
            DeValue::Array(all) => {
                let handle = |one: &TomlValue<'t>| match one.get_ref() {
                    DeValue::Integer(digits) => {
                        let number = u32::from_str_radix(digits.as_str(), digits.radix()).ok();
                        let written = text.get(one.span()).unwrap_or_default();
                        let persistent = number.filter(|number| number >> 24 == 0x81);
                        persistent.ok_or_else(|| format!("{written}: {expected}"))
                    }
                    other => Err(format!("{expected}{}", not(other))),
                };
                all.iter().map(handle).collect()
            }
            _ => Err("expected a list in brackets, as in [0x81000001]".into()),
        })
    }

    /// Reads an absolute path.
    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.taken(key, |value| absolute(value.get_ref()))
    }

    /// Reads a text that must be a word of the list `words`.
    pub(super) fn one_of<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let all = words.iter().map(|(word, _)| format!("\"{word}\""));
        let all = all.collect::<Vec<_>>().join(" or ");
        self.taken(key, |value| match value.get_ref() {
            DeValue::String(text) => {
                let known = words.iter().find(|(word, _)| word == text);
                let known = known.map(|(_, known)| *known);
                known.ok_or_else(|| format!("{text:?}: expected {all}"))
            }
            other => Err(format!("expected {all}{}", not(other))),
        })
    }

    /// Takes the setting `key` out of the section and parses it with `read`. Records the error of
    /// `read` as an invalid setting.
    pub(super) fn taken<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&TomlValue<'t>) -> Result<T, String>,
    ) -> Option<T> {
        let (at, value) = self.remove(key)?;
        match read(&value) {
            Ok(taken) => Some(taken),
            Err(what) => {
                self.complain(at, key, &what);
                None
            }
        }
    }

    /// Records an error if the section has no setting `key`, which is required.
    pub(super) fn must(&mut self, key: &str) {
        if !self.left.contains_key(key) {
            let what = format!("this section has no {key}");
            self.first_error
                .note(self.at, format!("{}: {what}", self.name));
        }
    }

    /// Records an error that concerns the whole section.
    pub(super) fn complain_here(&self, what: &str) {
        self.first_error
            .note(self.at, format!("{}: {what}", self.name));
    }

    /// Takes a section that may occur only once, such as `[log]`.
    pub(super) fn section(&mut self, name: &'static str) -> Option<Self> {
        let key = bare(name);
        let (at, value) = self.remove(key)?;
        match value.into_inner() {
            DeValue::Table(left) => Some(self.below(name, at, left)),
            DeValue::Array(_) => {
                let what = format!("[[{key}]] must be {name}: this section occurs only once");
                self.first_error.note(at, what);
                None
            }
            _ => {
                let what = format!("{key}: this is a section: write {name} on a separate line");
                self.first_error.note(at, what);
                None
            }
        }
    }

    /// Takes all sections of a name that may occur several times, such as `[[token]]`.
    pub(super) fn sections(&mut self, name: &'static str) -> Vec<Self> {
        let key = bare(name);
        let Some((at, value)) = self.remove(key) else {
            return Vec::new();
        };
        let what = match value.into_inner() {
            DeValue::Array(all) => {
                let is_table = |one: &TomlValue<'t>| matches!(one.get_ref(), DeValue::Table(_));
                if all.iter().all(is_table) {
                    let below = all.into_iter().filter_map(|one| {
                        let at = one.span().start;
                        match one.into_inner() {
                            DeValue::Table(left) => Some(self.below(name, at, left)),
                            _ => None,
                        }
                    });
                    return below.collect();
                }
                format!("{key}: this is a section: write {name} on a separate line")
            }
            DeValue::Table(_) => {
                format!("[{key}] must be {name}: this section may occur several times")
            }
            _ => format!("{key}: this is a section: write {name} on a separate line"),
        };
        self.first_error.note(at, what);
        Vec::new()
    }

    /// Records an error for each setting that the program did not read: such settings are unknown.
    pub(super) fn end(self) {
        for key in self.left.keys() {
            let (at, key) = (key.span().start, key.get_ref());
            // A key in quotes, or a key with digits, may be a secret at a wrong position. The
            // message does not show such a key.
            let quoted = self.text[at..].starts_with(['"', '\'']);
            let what = unknown(key, self.name);
            match is_known(key) || is_like_one(key) || is_plain(key) && !quoted {
                true => self.complain(at, key, &what),
                false => self.complain(at, self.name, &what),
            }
        }
    }

    fn below(&self, name: &'static str, at: usize, left: DeTable<'t>) -> Self {
        Self {
            name,
            at,
            left,
            ..*self
        }
    }

    fn remove(&mut self, key: &str) -> Option<(usize, TomlValue<'t>)> {
        let at = self.left.get_key_value(key)?.0.span().start;
        Some((at, self.left.remove(key)?))
    }

    fn complain(&self, at: usize, key: &str, what: &str) {
        let what = match key {
            "" => what.to_owned(),
            key => format!("{key}: {what}"),
        };
        self.first_error.note(at, what);
    }
}

/// Parses a setting whose value must be an absolute path.
pub(super) fn absolute(value: &DeValue<'_>) -> Result<PathBuf, String> {
    match value {
        DeValue::String(text) if Path::new(&**text).is_absolute() => Ok(PathBuf::from(&**text)),
        DeValue::String(text) if text.starts_with('~') => Err(format!(
            "{text}: expected an absolute path; ~ is not replaced by the home folder"
        )),
        DeValue::String(text) => Err(format!("{text}: expected an absolute path")),
        other => Err(format!("expected an absolute path in quotes{}", not(other))),
    }
}

/// Describes the TOML type of a value for an error message, without the value.
fn not(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => ", not a text",
        DeValue::Integer(_) => ", not a number",
        DeValue::Float(_) => ", not a number with a decimal point",
        DeValue::Boolean(_) => ", not true or false",
        DeValue::Datetime(_) => ", not a date",
        DeValue::Array(_) => ", not a list",
        DeValue::Table(_) => ", not a section",
    }
}

/// Removes the brackets from the name of a section: `[log]` becomes `log`.
fn bare(name: &str) -> &str {
    name.trim_matches(['[', ']'])
}

/// Returns true if any section has a setting with the name `name`, or if a section has this name.
pub(super) fn is_known(name: &str) -> bool {
    SETTINGS
        .iter()
        .any(|(section, keys)| bare(section) == name || keys.contains(&name))
}

/// Returns the name of a section with its brackets, for a name without brackets.
pub(super) fn section_called(name: &str) -> Option<&'static str> {
    let mut names = SETTINGS.iter().map(|(section, _)| *section);
    names.find(|section| !name.is_empty() && bare(section) == name)
}

/// Returns true for a name that looks like the name of a setting, which is unlikely to be a PIN.
fn is_plain(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphabetic() || c == '_')
}

/// Returns true if the name is similar to the name of a known setting or section.
fn is_like_one(name: &str) -> bool {
    let all = SETTINGS.iter().flat_map(|(section, keys)| {
        let keys = keys.iter().map(|key| (*key, *section));
        keys.chain([(*section, "")])
    });
    closest(name, all.collect()).is_some()
}

/// Returns the message for an unknown setting in `section`, with a suggestion.
fn unknown(key: &str, section: &str) -> String {
    if let Some(name) = section_called(key) {
        return format!("{name} is a section, not a setting of this section");
    }
    let place = |section: &str| match section {
        "" => "above the first section".to_owned(),
        section => format!("in {section}"),
    };
    let elsewhere = SETTINGS.iter().filter(|(_, keys)| keys.contains(&key));
    let elsewhere: Vec<_> = elsewhere.map(|(section, _)| place(section)).collect();
    if !elsewhere.is_empty() {
        return format!("this setting belongs {}", elsewhere.join(" or "));
    }
    let here = SETTINGS.iter().filter(|(one, _)| *one == section);
    let others = SETTINGS.iter().filter(|(one, _)| *one != section);
    let keys = |(section, keys): &(&'static str, &'static [&'static str])| {
        keys.iter().map(|key| (*key, *section)).collect::<Vec<_>>()
    };
    let sections = SETTINGS.iter().filter(|_| section.is_empty());
    let sections = sections.map(|(section, _)| (*section, ""));
    let mut all: Vec<_> = here.flat_map(keys).chain(sections).collect();
    all.extend(others.flat_map(keys));
    match closest(key, all) {
        Some((meant, its)) if its == section || meant.starts_with('[') => {
            format!("there is no such setting; did you mean {meant}?")
        }
        Some((meant, its)) => {
            let place = place(its);
            format!("there is no such setting; did you mean {meant}, {place}?")
        }
        None => match SETTINGS.iter().find(|(one, _)| *one == section) {
            Some((_, keys)) if !section.is_empty() => {
                let keys = keys.join(", ");
                format!("there is no such setting in {section}; its settings are {keys}")
            }
            _ => "there is no such setting".into(),
        },
    }
}

/// Returns the word in `among` that is most similar to `word`, if it is similar enough. Of equally
/// similar words the first is returned.
fn closest<'a>(word: &str, among: Vec<(&'a str, &'a str)>) -> Option<(&'a str, &'a str)> {
    const ALIKE: f64 = 0.7;
    let word = word.to_ascii_lowercase().replace('-', "_");
    let likeness = |name: &str| strsim::normalized_damerau_levenshtein(&word, bare(name));
    let mut best: Option<(f64, (&str, &str))> = None;
    for one in among {
        let alike = likeness(one.0);
        if alike >= ALIKE && best.is_none_or(|(most, _)| alike > most) {
            best = Some((alike, one));
        }
    }
    best.map(|(_, one)| one)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The installed configuration file must list all settings in comments.
    #[test]
    fn the_settings_are_those_that_the_installed_file_lists() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../pkcs11-conf/config.toml");
        let text = std::fs::read_to_string(file).unwrap();
        let mut section = "";
        let mut listed = std::collections::BTreeSet::new();
        for line in text.lines().filter_map(|line| line.strip_prefix('#')) {
            if line.starts_with('[') {
                section = section_called(bare(line)).expect(line);
                assert_eq!(section, line);
            } else if let Some((key, _)) = line.split_once(" = ")
                && !key.starts_with(' ')
            {
                listed.insert((section, key));
            }
        }
        let all = SETTINGS
            .iter()
            .flat_map(|(section, keys)| keys.iter().map(|key| (*section, *key)));
        assert_eq!(listed, all.collect());
    }
}
