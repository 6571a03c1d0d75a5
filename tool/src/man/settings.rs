//! Makes devid-pkcs11.conf(5) from the commented example file. The first comment describes the
//! file. Each later comment describes the settings that follow it.

use clap_mangen::roff::{Inline, Roff, bold, roman};

const FILE: &str = include_str!("../../../pkcs11-conf/config.toml");

/// A line of the commented file.
enum Line<'a> {
    Blank,
    /// `# text`. The text is empty between two paragraphs.
    Remark(&'a str),
    /// `#[table]` or `#[[table]]`
    Table(&'a str),
    /// `#name = default`
    Setting(&'a str),
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Self {
        match line.strip_prefix('#') {
            None => Self::Blank,
            Some(text) if text.is_empty() || text.starts_with(' ') => Self::Remark(text.trim()),
            Some(text) if text.starts_with('[') => Self::Table(text),
            Some(text) => Self::Setting(text),
        }
    }
}

pub(super) fn page() -> String {
    let mut roff = Roff::new();
    roff.control("TH", ["devid-pkcs11.conf", "5"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman(
        "devid-pkcs11.conf - settings of libdevid_pkcs11.so and devid",
    )]);
    roff.control("SH", ["DESCRIPTION"]);
    let mut remarks: Vec<&str> = Vec::new();
    let mut describes_file = true;
    for line in FILE.lines().map(Line::of) {
        match line {
            Line::Remark("") => paragraph(&mut roff, &mut remarks),
            Line::Remark(text) => remarks.push(text),
            Line::Blank if describes_file => {
                paragraph(&mut roff, &mut remarks);
                roff.control("SH", ["SETTINGS"]);
                describes_file = false;
            }
            Line::Blank => {}
            Line::Table(name) => {
                roff.control("SS", [name]);
                paragraph(&mut roff, &mut remarks);
            }
            Line::Setting(text) => {
                roff.control("TP", []);
                roff.text([bold(text)]);
                roff.text(joined(&mut remarks));
            }
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([
        bold("devid"),
        roman("(1), "),
        bold("devid-pkcs11"),
        roman("(7)"),
    ]);
    roff.render()
}

fn paragraph(roff: &mut Roff, remarks: &mut Vec<&str>) {
    if !remarks.is_empty() {
        roff.control("PP", []);
        roff.text(joined(remarks));
    }
}

/// Joins the collected comment lines into one text, and clears the list.
fn joined(remarks: &mut Vec<&str>) -> Vec<Inline> {
    let text = remarks.join(" ");
    remarks.clear();
    vec![roman(text)]
}
