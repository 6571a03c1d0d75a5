//! One PEM block with text around it (RFC 7468, section 2: explanatory text is permitted).
//!
//! The strict decoder of `pem-rfc7468` wants lines of 64 characters and refuses what stands
//! behind the block; administrators have files of other shapes.

use x509_cert::der::pem::{Base64Decoder, LineEnding, encode_string};

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
/// U+FEFF in UTF-8, which some editors put in front of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A file taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    /// At least one.
    pub(crate) blocks: Vec<Block<'a>>,
    /// The lines above the first block, without their ends.
    pub(crate) above: Vec<&'a [u8]>,
    /// All that stands below the last, as it is.
    pub(crate) below: &'a [u8],
}

/// One block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block<'a> {
    pub(crate) label: &'a str,
    pub(crate) der: Vec<u8>,
}

/// Takes a file apart; lines may be of any length and end in CRLF. Text between blocks is lost.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn parse(file: &[u8]) -> Result<Parts<'_>, String> {
    let (mut above, mut base64, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
    let (mut label, mut below) = (None, &file[..0]);
    let mut rest = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    while !rest.is_empty() {
        let end = rest.iter().position(|&byte| byte == b'\n');
        let (line, behind) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
        rest = behind;
        let line = line.trim_ascii_end();
        match label {
            None if line.starts_with(BEGIN) => label = Some(name(line, BEGIN)?),
            None if blocks.is_empty() => above.push(line),
            None => {}
            Some(begun) if line.starts_with(END) => {
                if name(line, END)? != begun {
                    return Err(format!("the block of {begun} ends as another"));
                }
                let der = decoded(&std::mem::take(&mut base64))?;
                blocks.push(Block { label: begun, der });
                (label, below) = (None, rest);
            }
            Some(_) => base64.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace())),
        }
    }
    match label {
        Some(label) => Err(format!("the PEM block of {label} has no end")),
        None if blocks.is_empty() => Err("no PEM block".into()),
        None => Ok(Parts {
            blocks,
            above,
            below,
        }),
    }
}

/// A block as every reader takes it.
pub(crate) fn render(label: &str, der: &[u8]) -> Result<String, String> {
    encode_string(label, LineEnding::LF, der).map_err(|error| error.to_string())
}

fn name<'a>(line: &'a [u8], mark: &[u8]) -> Result<&'a str, String> {
    let name = line
        .strip_prefix(mark)
        .and_then(|rest| rest.strip_suffix(DASHES));
    name.and_then(|name| str::from_utf8(name).ok())
        .ok_or_else(|| "a PEM boundary is damaged".into())
}

fn decoded(base64: &[u8]) -> Result<Vec<u8>, String> {
    let mut der = Vec::new();
    if base64.is_empty() {
        return Ok(der);
    }
    let read = Base64Decoder::new(base64).and_then(|mut decoder| {
        decoder.decode_to_end(&mut der)?;
        Ok(())
    });
    match read {
        Ok(()) => Ok(der),
        Err(_) => Err("the PEM block is no base64".into()),
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
    fn what_is_wrong_is_said() {
        let text = render("DATA", &[7; 100]).unwrap();
        for (file, why) in [
            (String::new(), "no PEM block"),
            (text.replace("BEGIN", "begin"), "no PEM block"),
            (text[..text.len() - 20].into(), "has no end"),
            (text.replace("END DATA", "END CERTIFICATE"), "as another"),
            (text.replace("END DATA-----", "END DATA"), "boundary"),
            (text.replace("BwcH", "Bw!H"), "base64"),
            (text.replacen("Bwc", "Bw", 1), "base64"),
        ] {
            let said = parse(file.as_bytes()).unwrap_err();
            assert!(said.contains(why), "{said}, not {why}");
        }
    }
}
