//! Comparison of names (RFC 5280, section 7.1). The comparison ignores string types, upper and
//! lower case, and repeated blanks. As in OpenSSL, the case matters for letters that are not ASCII.

use crate::ber::{BIT_STRING, Element, OBJECT_IDENTIFIER, SEQUENCE, SET};

const UTF8: u8 = 0x0C;
const NUMERIC: u8 = 0x12;
const PRINTABLE: u8 = 0x13;
const T61: u8 = 0x14;
const IA5: u8 = 0x16;
const UNIVERSAL: u8 = 0x1C;
const BMP: u8 = 0x1E;

/// A Name in a form that can be compared: the attributes of each RDN, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ComparableName(Vec<Vec<ComparableAttribute>>);

/// An attribute: its object identifier, the string type if the type matters, and the value in the
/// form for comparison.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct ComparableAttribute(Vec<u8>, u8, Vec<u8>);

impl ComparableName {
    /// Reads a Name. Returns `None` if the bytes are not a Name, or if a string is invalid for its
    /// type.
    pub(crate) fn read(der: &[u8]) -> Option<Self> {
        let sets = Element::only(der)?.children_of(SEQUENCE)?;
        let relative = |set: Element| {
            let attributes = set.children_of(SET)?;
            let mut all: Vec<_> = attributes.iter().map(attribute).collect::<Option<_>>()?;
            all.sort();
            Some(all)
        };
        let all: Vec<_> = sets.into_iter().map(relative).collect::<Option<_>>()?;
        // An RDN without attributes is ignored, as in OpenSSL.
        Some(Self(
            all.into_iter().filter(|one| !one.is_empty()).collect(),
        ))
    }

    /// Returns true if this name is in the subtree of the name `base` (RFC 5280, section 4.2.1.10).
    pub(crate) fn is_below(&self, base: &Self) -> bool {
        self.0.starts_with(&base.0)
    }
}

/// Returns true if two Names in DER are equal. Names that cannot be read are compared byte for
/// byte.
pub(crate) fn is_same_name(one: &[u8], other: &[u8]) -> bool {
    if one == other {
        return true;
    }
    let read = ComparableName::read(one).zip(ComparableName::read(other));
    read.is_some_and(|(one, other)| one == other)
}

fn attribute(element: &Element) -> Option<ComparableAttribute> {
    let parts = element.children_of(SEQUENCE)?;
    let [kind, value] = &parts[..] else {
        return None;
    };
    if kind.tag != OBJECT_IDENTIFIER || !is_identifier(kind.content) {
        return None;
    }
    let (tag, compared) = match value.tag {
        // A SEQUENCE is not a string type. It is accepted because swtpm_cert puts a
        // hardwareModuleName into a directoryName.
        NUMERIC | BIT_STRING | SEQUENCE => (value.tag, value.content.to_vec()),
        tag => (UTF8, folded(&text(tag, value.content)?)),
    };
    Some(ComparableAttribute(kind.content.to_vec(), tag, compared))
}

/// Returns true if the bytes are the content of a valid OBJECT IDENTIFIER (X.690, section 8.19).
/// Each arc must be complete and have no leading zeros.
fn is_identifier(content: &[u8]) -> bool {
    let goes_on = |byte: &u8| byte & 0x80 != 0;
    let begins = |at: usize| at == 0 || !goes_on(&content[at - 1]);
    let padded = (0..content.len()).any(|at| content[at] == 0x80 && begins(at));
    content.last().is_some_and(|last| !goes_on(last)) && !padded
}

/// Decodes a string of an ASN.1 string type. Returns `None` if the string is invalid for its type.
/// A T61String is decoded as Latin-1.
pub(crate) fn text(tag: u8, bytes: &[u8]) -> Option<String> {
    match tag {
        UTF8 => str::from_utf8(bytes).ok().map(str::to_owned),
        NUMERIC | PRINTABLE | T61 | IA5 => {
            Some(bytes.iter().map(|byte| char::from(*byte)).collect())
        }
        BMP => {
            let (units, rest) = bytes.as_chunks();
            let points = units.iter().map(|unit| u16::from_be_bytes(*unit).into());
            rest.is_empty()
                .then(|| points.map(char::from_u32).collect())?
        }
        UNIVERSAL => {
            let (points, rest) = bytes.as_chunks();
            let points = points.iter().map(|point| u32::from_be_bytes(*point));
            rest.is_empty()
                .then(|| points.map(char::from_u32).collect())?
        }
        _ => None,
    }
}

fn folded(text: &str) -> Vec<u8> {
    let is_blank = |c: char| matches!(c, ' ' | '\t'..='\r');
    let words: Vec<_> = text
        .split(is_blank)
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ").to_ascii_lowercase().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ber::encoded;

    fn name(values: &[&[(u8, &[u8])]]) -> Vec<u8> {
        let relative = values.iter().map(|values| {
            let pairs = values.iter().map(|(tag, text)| {
                let pair = [&[6, 3, 0x55, 4, 3], &encoded(*tag, text)[..]].concat();
                encoded(SEQUENCE, &pair)
            });
            encoded(SET, &pairs.collect::<Vec<_>>().concat())
        });
        encoded(SEQUENCE, &relative.collect::<Vec<_>>().concat())
    }

    fn one(tag: u8, text: &[u8]) -> Vec<u8> {
        name(&[&[(tag, text)]])
    }

    #[test]
    fn type_case_and_blanks_do_not_count() {
        let wanted = one(UTF8, "Example Ger\u{e4}t".as_bytes());
        for (tag, text) in [
            (T61, &b"Example Ger\xE4t"[..]),
            (BMP, b"\0E\0x\0a\0m\0p\0l\0e\0 \0G\0e\0r\0\xE4\0t"),
            (UTF8, "  eXAMPLE \t ger\u{e4}T ".as_bytes()),
        ] {
            assert!(is_same_name(&one(tag, text), &wanted), "{tag}");
        }
        assert!(is_same_name(&one(PRINTABLE, b"Web"), &one(IA5, b"web")));
        assert!(is_same_name(&one(UNIVERSAL, b"\0\0\0w"), &one(UTF8, b"W")));
        let (a, b) = ((UTF8, &b"a"[..]), (UTF8, &b"b"[..]));
        assert!(is_same_name(&name(&[&[a, b]]), &name(&[&[b, a]])), "a set");
    }

    #[test]
    fn a_value_that_is_no_string_counts_byte_for_byte() {
        let module = encoded(SEQUENCE, &encoded(4, b"SN"));
        let wanted = one(SEQUENCE, &module);
        assert!(ComparableName::read(&wanted).is_some());
        assert!(is_same_name(&wanted, &one(SEQUENCE, &module)));
        let other = one(SEQUENCE, &encoded(SEQUENCE, &encoded(4, b"sn")));
        assert!(!is_same_name(&wanted, &other));
        // As in OpenSSL, an INTEGER is not a valid value in a name.
        assert!(ComparableName::read(&one(2, &[7])).is_none());
    }

    #[test]
    fn an_attribute_has_a_whole_identifier() {
        let with = |identifier: &[u8]| {
            let pair = [encoded(6, identifier), encoded(UTF8, b"x")].concat();
            let set = encoded(SET, &encoded(SEQUENCE, &pair));
            ComparableName::read(&encoded(SEQUENCE, &set))
        };
        for whole in [
            &[0x55, 4, 3][..],
            &[0x55, 4, 0x8A, 1],
            &[0x55, 4, 0x81, 0x80, 1],
        ] {
            assert!(with(whole).is_some(), "{whole:X?}");
        }
        for broken in [&[][..], &[0x55, 4, 0x8A], &[0x80, 4, 3], &[0x55, 0x80, 3]] {
            assert!(with(broken).is_none(), "{broken:X?}");
        }
    }

    #[test]
    fn other_names_are_others() {
        let (a, b) = ((UTF8, &b"a"[..]), (UTF8, &b"b"[..]));
        for (one, other) in [
            (one(UTF8, b"web"), one(UTF8, b"we b")),
            (
                one(UTF8, "\u{e4}".as_bytes()),
                one(UTF8, "\u{c4}".as_bytes()),
            ),
            (one(NUMERIC, b"7"), one(UTF8, b"7")),
            (name(&[&[a], &[b]]), name(&[&[b], &[a]])),
            (name(&[&[a], &[b]]), name(&[&[a, b]])),
            (name(&[&[a]]), name(&[&[a], &[b]])),
            (name(&[]), one(UTF8, b"")),
        ] {
            assert!(!is_same_name(&one, &other));
        }
        assert!(is_same_name(&name(&[]), &name(&[&[]])));
    }

    #[test]
    fn what_is_no_string_of_its_type_is_compared_byte_for_byte() {
        for broken in [
            one(UTF8, b"\xE4"),
            one(BMP, b"\0a\0"),
            one(BMP, b"\xD8\0"),
            one(UNIVERSAL, b"\0\x11\0\0"),
            one(2, b"*"),
        ] {
            assert_eq!(ComparableName::read(&broken), None);
            assert!(is_same_name(&broken, &broken));
            assert!(!is_same_name(&broken, &one(UTF8, b"a")));
        }
    }

    #[test]
    fn a_name_lies_below_what_it_begins_with() {
        let read = |der: &[u8]| ComparableName::read(der).unwrap();
        let (a, b) = ((UTF8, &b"a"[..]), (PRINTABLE, &b"B"[..]));
        let whole = read(&name(&[&[a], &[b]]));
        assert!(whole.is_below(&read(&name(&[&[(PRINTABLE, b" A")]]))));
        assert!(whole.is_below(&read(&name(&[]))) && whole.is_below(&whole));
        assert!(!whole.is_below(&read(&name(&[&[b]]))));
        assert!(!read(&name(&[&[a]])).is_below(&whole));
    }
}
