//! PEM blocks with text around them (RFC 7468, section 2: explanatory text is permitted).
//!
//! The strict decoder of `pem-rfc7468` requires lines of 64 characters and refuses text after the
//! block. Administrators have files of other forms. This parser reads all files that OpenSSL reads.

use std::io::BufRead;
use x509_cert::der::pem::{Base64Decoder, LineEnding, encode_string};

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
const UTF8_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The parts of a parsed PEM file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PemParts<'a> {
    /// The PEM blocks; at least one.
    pub(crate) blocks: Vec<Block<'a>>,
    /// The lines before the first block, without line ends.
    pub(crate) above: Vec<&'a [u8]>,
    /// The text after the last PEM block, unchanged.
    pub(crate) below: &'a [u8],
}

/// A PEM block: its label and its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block<'a> {
    pub(crate) label: &'a str,
    pub(crate) der: Vec<u8>,
}

/// The PEM blocks in a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PemReader<'a> {
    /// The blocks in the order of the text. A block that is not valid is an error with the reason.
    pub(crate) blocks: Vec<Result<Block<'a>, String>>,
    /// True if the last PEM block has no END line.
    pub(crate) is_cut: bool,
    /// Lines outside of PEM blocks that look like BEGIN or END lines but are invalid.
    pub(crate) boundaries: Vec<String>,
    above: Vec<&'a [u8]>,
    below: &'a [u8],
}

/// Parses a file. Lines may have any length, end in CR, LF or both, be indented, and have trailing
/// blanks. Text between blocks is ignored.
///
/// # Errors
///
/// Fails with the reason why the file is not valid.
pub(crate) fn parse(file: &[u8]) -> Result<PemParts<'_>, String> {
    let scan = PemReader::of(file);
    let blocks: Vec<Block> = scan.blocks.into_iter().collect::<Result<_, _>>()?;
    match (blocks.is_empty(), scan.boundaries.into_iter().next()) {
        (true, Some(boundary)) => Err(damaged(&boundary)),
        (true, None) => Err("there is no PEM block".into()),
        (false, _) => Ok(PemParts {
            blocks,
            above: scan.above,
            below: scan.below,
        }),
    }
}

/// Returns the message about an invalid BEGIN or END line.
pub(crate) fn damaged(boundary: &str) -> String {
    format!("a PEM boundary is damaged: {boundary:?}")
}

/// The PEM block that is being parsed.
struct Open<'a> {
    label: &'a str,
    base64: Vec<u8>,
    /// True if the last line was a header. An indented line may continue the header.
    in_header: bool,
    /// The reason why the block is invalid, even if its base64 is valid.
    fault: Option<String>,
}

impl<'a> PemReader<'a> {
    pub(crate) fn of(text: &'a [u8]) -> Self {
        let mut scan = Self::default();
        let mut open: Option<Open> = None;
        let mut rest = text.strip_prefix(UTF8_MARK).unwrap_or(text);
        while !rest.is_empty() {
            let (line, behind) = first_line(rest);
            let begun = line.trim_ascii_start();
            rest = behind;
            if begun.starts_with(BEGIN) {
                // A block without end is invalid, but the blocks after it are read.
                scan.blocks.extend(open.take().map(Open::endless));
                match boundary(begun, BEGIN) {
                    Some((label, inside)) => {
                        open = Some(Open::new(label, behind.len()));
                        rest = with_rest(text, inside, behind);
                    }
                    None => scan.blocks.push(Err(damaged(&shown(line)))),
                }
                continue;
            }
            let Some(block) = &mut open else {
                match is_meant_as(begun, b"BEGIN ") {
                    true => scan.boundaries.push(shown(line)),
                    false if scan.blocks.is_empty() => scan.above.push(line.trim_ascii_end()),
                    false => {}
                }
                continue;
            };
            // Base64 contains no dash.
            let dashed = line.contains(&b'-').then(|| end_in(line)).flatten();
            match dashed {
                Some(at) => {
                    block.take(&line[..at]);
                    let (ended, inside) = match boundary(&line[at..], END) {
                        Some((label, inside)) if label == block.label => (Ok(()), inside),
                        Some((_, inside)) => (
                            Err(format!(
                                "the PEM block of {} has an end line with another label",
                                block.label
                            )),
                            inside,
                        ),
                        None => (Err(damaged(&shown(&line[at..]))), &line[line.len()..]),
                    };
                    let block = open.take().map(|block| ended.and_then(|()| block.ended()));
                    scan.blocks.extend(block);
                    if !inside.trim_ascii().is_empty() {
                        rest = with_rest(text, inside, behind);
                    }
                    scan.below = rest;
                }
                None if is_meant_as(begun, b"END ") => {
                    let block = open.take().map(|_| Err(damaged(&shown(line))));
                    scan.blocks.extend(block);
                }
                None => block.take(line),
            }
        }
        scan.is_cut = open.is_some();
        scan.blocks.extend(open.map(Open::endless));
        scan
    }
}

impl<'a> Open<'a> {
    /// `behind` is the length of the text after the BEGIN line.
    fn new(label: &'a str, behind: usize) -> Self {
        Self {
            label,
            // Usual blocks fit without a second allocation.
            base64: Vec::with_capacity(behind.min(2 << 10)),
            in_header: false,
            fault: None,
        }
    }

    /// Reads a line of the block. Headers may precede the base64 (RFC 1421, section 4.6).
    fn take(&mut self, line: &[u8]) {
        let goes_on = self.in_header && line.starts_with(b" ");
        self.in_header = self.base64.is_empty() && (line.contains(&b':') || goes_on);
        if self.in_header {
            if line.trim_ascii().ends_with(b"ENCRYPTED") {
                self.fault = Some(format!("the PEM block of {} is encrypted", self.label));
            }
            return;
        }
        // Blanks and control characters between base64 digits are ignored. A usual line has none.
        match line.iter().fold(true, |all, byte| all & (*byte > b' ')) {
            true => self.base64.extend_from_slice(line),
            false => {
                let digits = line.iter().filter(|byte| **byte > b' ');
                self.base64.extend(digits);
            }
        }
    }

    fn ended(self) -> Result<Block<'a>, String> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(Block {
                label: self.label,
                der: decoded(&self.base64)?,
            }),
        }
    }

    fn endless(self) -> Result<Block<'a>, String> {
        Err(format!("the PEM block of {} has no end", self.label))
    }
}

fn end_in(line: &[u8]) -> Option<usize> {
    line.windows(END.len()).position(|window| window == END)
}

/// Returns the first line without its end, and the text after the line.
fn first_line(text: &[u8]) -> (&[u8], &[u8]) {
    let mut behind = text;
    // Searches many bytes at once. Reading from a slice does not fail.
    let length = behind.skip_until(b'\n').unwrap_or_default();
    let line = &text[..length];
    let end = line
        .contains(&b'\r')
        .then(|| line.iter().position(|byte| *byte == b'\r'));
    match end.flatten() {
        Some(end) => {
            let width = match &text[end..] {
                [b'\r', b'\n', ..] => 2,
                _ => 1,
            };
            (&text[..end], &text[end + width..])
        }
        None => (line.strip_suffix(b"\n").unwrap_or(line), behind),
    }
}

/// Returns the part of `text` that begins with `inside`. `inside` is a part of a line, and `behind`
/// is the text after this line.
fn with_rest<'a>(text: &'a [u8], inside: &[u8], behind: &[u8]) -> &'a [u8] {
    let line_end = behind.as_ptr().addr() - inside.as_ptr().addr();
    &text[text.len() - behind.len() - line_end..]
}

/// Returns the label of a BEGIN or END line (`mark`) at the start of `line`, and the text after it.
fn boundary<'a>(line: &'a [u8], mark: &[u8]) -> Option<(&'a str, &'a [u8])> {
    let rest = line.strip_prefix(mark)?;
    let end = rest.windows(DASHES.len()).position(|it| it == DASHES)?;
    let label = str::from_utf8(&rest[..end]).ok()?;
    Some((label, &rest[end + DASHES.len()..]))
}

/// Returns true if a line looks like a BEGIN or END line (`mark`), with any number of dashes.
fn is_meant_as(line: &[u8], mark: &[u8]) -> bool {
    const KINDS: [&str; 4] = ["CERTIFICATE", "KEY", "PKCS7", "CMS"];
    let first = line.first().map(u8::to_ascii_uppercase);
    if !first.is_some_and(|first| first == b'-' || !first.is_ascii() || first == mark[0]) {
        return false;
    }
    let text = String::from_utf8_lossy(line).to_ascii_uppercase();
    let dash = |c: char| matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}');
    let inner = text.trim_start_matches(dash).trim_start();
    let label = inner.trim_end().trim_end_matches(dash).trim_end();
    inner.as_bytes().starts_with(mark) && KINDS.iter().any(|kind| label.ends_with(kind))
}

/// Returns the boundary in a line, without the text after it, which may be a secret.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.trim_ascii());
    let is_part = |c: &char| !c.is_ascii() || !c.is_ascii_lowercase() && *c != '=';
    let part: String = text.chars().take(40).take_while(is_part).collect();
    part.trim_end().to_owned()
}

/// Returns a PEM block that every reader accepts.
pub(crate) fn render(label: &str, der: &[u8]) -> Result<String, String> {
    encode_string(label, LineEnding::LF, der).map_err(|error| error.to_string())
}

fn decoded(base64: &[u8]) -> Result<Vec<u8>, String> {
    if base64.is_empty() {
        return Ok(Vec::new());
    }
    let mut der = Vec::with_capacity(base64.len() / 4 * 3 + 3);
    let missing = (4 - base64.len() % 4) % 4;
    let padded = [base64, &b"=="[..missing.min(2)]].concat();
    let read = Base64Decoder::new(&padded).and_then(|mut decoder| {
        decoder.decode_to_end(&mut der)?;
        Ok(())
    });
    match read {
        Ok(()) => Ok(der),
        Err(_) => Err("the content of the PEM block is not base64".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_goes_there_and_back() {
        for length in [0, 1, 2, 3, 47, 48, 49, 500] {
            let der: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let text = render("DATA", &der).unwrap();
            let parts = parse(text.as_bytes()).unwrap();
            let [block] = &parts.blocks[..] else { panic!() };
            assert_eq!((block.label, &block.der), ("DATA", &der));
            assert!(parts.above.is_empty() && parts.below.is_empty());
        }
    }

    #[test]
    fn files_of_other_shapes() {
        let der = [7; 100];
        let text = render("PUBLIC KEY", &der).unwrap();
        let one_line: String = {
            let lines: Vec<_> = text.lines().collect();
            let (last, body) = lines[1..].split_last().unwrap();
            format!("{}\n{}\n{last}", lines[0], body.concat())
        };
        let short = text.replace("Bwc", "Bw\n c");
        let around = format!("# by hand\r\n\r\n{}# behind\n", text.replace('\n', "\r\n"));
        for file in [&text, &one_line, &short, &around, text.trim_end()] {
            assert_eq!(parse(file.as_bytes()).unwrap().blocks[0].der, der, "{file}");
        }
        let block = parse(around.as_bytes()).unwrap();
        assert_eq!(block.above, [&b"# by hand"[..], b""]);
        assert_eq!(block.below, b"# behind\n");
    }

    #[test]
    fn whatever_the_lines_are_like() {
        let der = [7; 100];
        let text = render("CERTIFICATE", &der).unwrap();
        let two = format!("{}{}", text.trim_end(), text);
        let headed = text.replacen('\n', "\nSubject: someone\n  else\n\n", 1);
        for file in [
            format!("\u{feff}{text}"),
            text.replace('\n', "\r"),
            text.replace('\n', " \t\n"),
            text.replace('\n', "\u{b}\n").replace("=\u{b}", "=\0"),
            text.replace('\n', "\n\n"),
            text.replace('\n', "\n    "),
            format!("  {}", text.replace('\n', "\n  ")),
            text.replace('\n', ""),
            text.replace("=\n", "\n").replace("=\n", "\n"),
            two,
            headed,
            format!("junk{text}").replacen("junk", "junk\n", 1),
            format!("{}junk\n", text.trim_end()),
        ] {
            let parts = parse(file.as_bytes()).unwrap_or_else(|why| panic!("{why}: {file}"));
            for block in &parts.blocks {
                assert_eq!(
                    (block.label, &block.der[..]),
                    ("CERTIFICATE", &der[..]),
                    "{file}"
                );
            }
        }
    }

    #[test]
    fn a_bad_block_costs_only_itself() {
        let text = render("CERTIFICATE", &[7; 100]).unwrap();
        let cut = &text[..60];
        let file = format!("{cut}\n{text}{}{text}{cut}", text.replace("Bwc", "B!c"));
        let blocks = PemReader::of(file.as_bytes()).blocks;
        let read: Vec<bool> = blocks.iter().map(Result::is_ok).collect();
        assert_eq!(read, [false, true, false, true, false]);
    }

    #[test]
    fn boundaries_with_other_dashes_are_named_without_what_follows() {
        let text = render("PRIVATE KEY", &[7; 100]).unwrap();
        for (mark, said) in [
            ("----BEGIN PRIVATE KEY----", "----BEGIN PRIVATE KEY----"),
            (
                "------BEGIN PRIVATE KEY-----",
                "------BEGIN PRIVATE KEY-----",
            ),
            (
                "\u{2014}BEGIN PRIVATE KEY\u{2014}",
                "\u{2014}BEGIN PRIVATE KEY\u{2014}",
            ),
            ("BEGIN PRIVATE KEY", "BEGIN PRIVATE KEY"),
            ("-----BEGIN PRIVATE KEY----", "-----BEGIN PRIVATE KEY----"),
            (
                "-----BEGIN PRIVATE KEY MIIEvgIBADANBg",
                "-----BEGIN PRIVATE KEY MIIE",
            ),
        ] {
            let file = text.replace("-----BEGIN PRIVATE KEY-----", mark);
            let why = parse(file.as_bytes()).unwrap_err();
            assert_eq!(why, damaged(said));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let text = render("DATA", &[7; 100]).unwrap();
        for (file, why) in [
            (String::new(), "no PEM block"),
            (text.replace("BEGIN", "begin"), "no PEM block"),
            (text[..text.len() - 20].into(), "has no end"),
            (text.replace("END DATA", "END CERTIFICATE"), "another label"),
            (text.replace("END DATA-----", "END DATA"), "boundary"),
            (text.replace("BwcH", "Bw!H"), "base64"),
            (text.replacen("Bwc", "Bw", 1), "base64"),
        ] {
            let said = parse(file.as_bytes()).unwrap_err();
            assert!(said.contains(why), "{said}, not {why}");
        }
    }
}
