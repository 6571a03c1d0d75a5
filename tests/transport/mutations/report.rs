//! The report of a child to its parent: a line for each call and each observation.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use testkit::pins::hex;
use testkit::programs::Said;
use testkit::raw::Code;

/// The child's end.
pub struct Report(File);

impl Report {
    pub fn new(path: &Path) -> Report {
        Report(File::create(path).expect("a file for the report"))
    }

    /// Something that it saw.
    pub fn saw(&mut self, what: &str, value: &[u8]) {
        self.line(what, &hex(value));
    }

    /// Records the answer of a call, and returns its value if the call succeeded.
    pub fn called<T>(&mut self, what: &str, answer: Result<T, Code>) -> Option<T> {
        let code = answer
            .as_ref()
            .err()
            .map_or("ok".to_owned(), |code| format!("{code:?}"));
        self.line(what, &code);
        answer.ok()
    }

    fn line(&mut self, what: &str, value: &str) {
        writeln!(self.0, "{what}\t{value}").expect("written");
    }
}

/// The parent's end.
#[derive(Debug, Default)]
pub struct Told(Vec<(String, String)>);

impl Told {
    pub fn by(path: &Path) -> Told {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = |line: &str| {
            line.split_once('\t')
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
        };
        Told(text.lines().filter_map(line).collect())
    }

    /// Joins both reports.
    pub fn and(mut self, other: Told) -> Told {
        self.0.extend(other.0);
        self
    }

    /// Records the result of a program, and its output if it succeeded.
    pub fn add(&mut self, what: &str, said: &Said) {
        let code = match said.status.code() {
            Some(0) => "ok".to_owned(),
            _ => format!("{}: {}", said.status, said.err.trim()),
        };
        self.0.push((what.to_owned(), code));
        if said.status.success() {
            self.0.push((format!("saw {what}"), hex(&said.out)));
        }
    }

    /// The calls that failed.
    pub fn failed(&self) -> Vec<&str> {
        let is_value = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let failed = self
            .0
            .iter()
            .filter(|(_, value)| value != "ok" && !is_value(value));
        failed.map(|(name, _)| name.as_str()).collect()
    }

    /// True if this call was made and succeeded.
    pub fn ok(&self, what: &str) -> bool {
        self.code(what) == Some("ok")
    }

    /// The code of this call, if the call was made.
    pub fn code(&self, what: &str) -> Option<&str> {
        let found = self.0.iter().find(|(name, _)| name == what);
        found.map(|(_, value)| value.as_str())
    }

    /// All that was seen under names that begin so: the rest of the name, and the value.
    pub fn seen(&self, begin: &str) -> Vec<(&str, Vec<u8>)> {
        let seen = self.0.iter().filter_map(|(name, value)| {
            let rest = name.strip_prefix(begin)?;
            Some((rest, bytes(value)))
        });
        seen.collect()
    }
}

fn bytes(digits: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(pair).collect()
}
