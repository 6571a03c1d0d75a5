//! docs/TPM-CHANGES.md, read by the stories.

use super::stage::{KEYS, Seen};
use std::env;
use std::fs::{self, File};
use testkit::folders;
use testkit::pages::blocks_of;

pub const PAGE: &str = "docs/TPM-CHANGES.md";

/// The section about one change.
pub struct Section {
    name: String,
    text: String,
}

/// The headings of the page, each as the name of its change.
pub fn names() -> Vec<String> {
    let text = fs::read_to_string(folders::root().join(PAGE)).expect("the page");
    let headings = text.lines().filter_map(|line| line.strip_prefix("## "));
    headings
        .map(|line| line.to_lowercase().replace(' ', "-"))
        .collect()
}

impl Section {
    #[track_caller]
    pub fn read(name: &str) -> Section {
        let text = fs::read_to_string(folders::root().join(PAGE)).expect("the page");
        let is = |part: &&str| {
            let heading = part.lines().next().unwrap_or_default();
            heading.to_lowercase().replace(' ', "-") == name
        };
        let part = text.split("\n## ").find(is);
        Section {
            name: name.to_owned(),
            text: part.unwrap_or_default().to_owned(),
        }
    }

    /// The commands of the way back.
    pub fn commands(&self) -> Vec<String> {
        let block = self.block("sh", "");
        block.lines().map(str::to_owned).collect()
    }

    fn block(&self, language: &str, end: &str) -> String {
        let name = format!("{}{end}", self.name);
        let mut blocks = blocks_of(PAGE).into_iter();
        let found =
            blocks.find(|one| one.language == language && one.name == format!("tpm-{name}"));
        found.map_or(String::new(), |block| block.text)
    }

    /// Writes what happens into the page: the table, and the blocks that are there.
    fn write(&self, table: &str, doctor: &str, left: &str) {
        let path = folders::root().join(PAGE);
        let lock = File::create(folders::scratch().join("page.lock")).expect("a lock file");
        lock.lock().expect("a lock");
        let page = fs::read_to_string(&path).expect("the page");
        let mut text = self.text.clone();
        let rows: Vec<&str> = self
            .text
            .lines()
            .filter(|line| line.starts_with('|'))
            .collect();
        text = text.replace(&rows.join("\n"), table.trim_end());
        for (end, new) in [("", doctor), ("-after", left)] {
            let head = format!("```text tpm-{}{end}\n", self.name);
            let block = head.clone() + &self.block("text", end) + "```";
            text = text.replace(&block, &format!("{head}{new}```"));
        }
        fs::write(path, page.replace(&self.text, &text)).expect("written");
    }

    /// The page says this, and nothing else. With `DEVID_PAGE=write` the story writes the page.
    #[track_caller]
    pub fn says(&self, table: &str, doctor: &str, left: &str) {
        if env::var_os("DEVID_PAGE").is_some_and(|mode| mode == "write") {
            return self.write(table, doctor, left);
        }
        let rows = self.text.lines().filter(|line| line.starts_with('|'));
        let told: String = rows.map(|line| format!("{line}\n")).collect();
        let same = told == table
            && self.block("text", "") == doctor
            && self.block("text", "-after") == left;
        assert!(
            same,
            "{PAGE} does not say what happens:\n## {}\n\n{table}\n```text tpm-{}\n{doctor}```\n\n\
             ```sh tpm-{}\n{}```\n\n```text tpm-{}-after\n{left}```\n",
            self.name,
            self.name,
            self.name,
            self.block("sh", ""),
            self.name
        );
    }
}

/// The table of a section, from what programs saw in its columns.
pub fn table(columns: [&Seen; 4]) -> String {
    let mut text = String::from(
        "| key | program that runs | program started now | program that runs, after the way back | \
         program started then |\n|---|---|---|---|---|\n",
    );
    for (at, (kind, ..)) in KEYS.iter().enumerate() {
        let cells = columns.map(|seen| seen.0[at].clone());
        text += &format!("| {kind} | {} |\n", cells.join(" | "));
    }
    text
}
