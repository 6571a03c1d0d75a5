//! BER elements (ITU-T X.690) as factories write them. They may have more length bytes than
//! necessary, indefinite lengths, and any value for TRUE.

/// The maximum depth of nested elements. Certificates have fewer levels.
const DEEPEST: usize = 24;
const CONSTRUCTED: u8 = 0x20;
use x509_cert::der::asn1::ObjectIdentifier;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// A BER element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    /// The first byte of the identifier.
    pub(crate) tag: u8,
    /// The element with its header.
    pub(crate) whole: &'a [u8],
    /// The content, without header and without end-of-contents bytes.
    pub(crate) content: &'a [u8],
}

/// The reason why bytes do not begin with a BER element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoElement {
    /// The header of the element states this total size, but there are fewer bytes.
    Cut(usize),
    /// The header of the element is invalid, or the elements are nested too deeply.
    Broken,
}

impl<'a> Element<'a> {
    /// Returns the element at the start of `bytes`, and the bytes after the element.
    pub(crate) fn first(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), NoElement> {
        Self::nested(bytes, DEEPEST)
    }

    /// Returns the element, if it fills `bytes` completely.
    pub(crate) fn only(bytes: &'a [u8]) -> Option<Self> {
        let (element, rest) = Self::first(bytes).ok()?;
        rest.is_empty().then_some(element)
    }

    /// Returns the elements in the content; `None` if the content has other bytes.
    pub(crate) fn children(&self) -> Option<Vec<Self>> {
        elements(self.content)
    }

    /// Returns the elements in the content of this element, if this element has the given tag.
    pub(crate) fn children_of(&self, tag: u8) -> Option<Vec<Self>> {
        (self.tag == tag).then(|| self.children())?
    }

    fn nested(bytes: &'a [u8], left: usize) -> Result<(Self, &'a [u8]), NoElement> {
        let (&tag, mut rest) = bytes.split_first().ok_or(NoElement::Cut(2))?;
        if tag & 0x1F == 0x1F {
            let more = rest.iter().take_while(|byte| **byte & 0x80 != 0).count();
            rest = rest.get(more + 1..).ok_or(NoElement::Broken)?;
        }
        let (&first, mut rest) = rest.split_first().ok_or(NoElement::Cut(bytes.len() + 1))?;
        let length = match first {
            0..=0x7F => usize::from(first),
            0x80 if tag & CONSTRUCTED != 0 => return Self::open_ended(bytes, tag, rest, left),
            0x80 | 0xFF => return Err(NoElement::Broken),
            _ => {
                let digits = usize::from(first & 0x7F);
                let number = rest
                    .get(..digits)
                    .ok_or(NoElement::Cut(bytes.len() + digits - rest.len()))?;
                rest = &rest[digits..];
                let length = number.iter().try_fold(0_usize, |length, byte| {
                    length.checked_mul(256)?.checked_add((*byte).into())
                });
                length.ok_or(NoElement::Broken)?
            }
        };
        let header = bytes.len() - rest.len();
        let end = header.checked_add(length).ok_or(NoElement::Broken)?;
        let whole = bytes.get(..end).ok_or(NoElement::Cut(end))?;
        let content = &whole[header..];
        Ok((
            Self {
                tag,
                whole,
                content,
            },
            &bytes[end..],
        ))
    }

    fn open_ended(
        bytes: &'a [u8],
        tag: u8,
        inside: &'a [u8],
        left: usize,
    ) -> Result<(Self, &'a [u8]), NoElement> {
        let left = left.checked_sub(1).ok_or(NoElement::Broken)?;
        let mut rest = inside;
        loop {
            if let Some(behind) = rest.strip_prefix(&[0, 0]) {
                let content = &inside[..inside.len() - rest.len()];
                let whole = &bytes[..bytes.len() - behind.len()];
                return Ok((
                    Self {
                        tag,
                        whole,
                        content,
                    },
                    behind,
                ));
            }
            rest = Self::nested(rest, left)?.1;
        }
    }
}

/// Returns the BER elements that `bytes` consists of. Returns `None` if other bytes follow an
/// element.
pub(crate) fn elements(bytes: &[u8]) -> Option<Vec<Element<'_>>> {
    let (mut rest, mut found) = (bytes, Vec::new());
    while !rest.is_empty() {
        let (element, behind) = Element::first(rest).ok()?;
        found.push(element);
        rest = behind;
    }
    Some(found)
}

/// Converts lengths, TRUE and constructed strings to DER. Returns `None` if `bytes` are not a
/// sequence of elements.
pub(crate) fn as_der(bytes: &[u8]) -> Option<Vec<u8>> {
    rewritten(bytes, DEEPEST)
}

fn rewritten(bytes: &[u8], left: usize) -> Option<Vec<u8>> {
    let left = left.checked_sub(1)?;
    let mut der = Vec::with_capacity(bytes.len());
    for element in elements(bytes)? {
        let Element { tag, content, .. } = element;
        let number = tag & 0x1F;
        if number == 0x1F {
            der.extend_from_slice(element.whole);
            continue;
        }
        match tag {
            BOOLEAN if content.len() == 1 && content != [0] => der.extend([BOOLEAN, 1, 0xFF]),
            _ if tag & CONSTRUCTED == 0 => der.extend(encoded(tag, content)),
            // Constructed strings: universal tags, except the tags that are always constructed.
            0x24 | 0x2C | 0x32..=0x3E => {
                let piece = tag & !CONSTRUCTED;
                let pieces = elements(content)?;
                if pieces.iter().any(|one| one.tag != piece) {
                    return None;
                }
                let joined: Vec<u8> = pieces.iter().flat_map(|one| one.content.to_vec()).collect();
                der.extend(encoded(piece, &joined));
            }
            _ if tag == BIT_STRING | CONSTRUCTED => return None,
            _ => der.extend(encoded(tag, &rewritten(content, left)?)),
        }
    }
    Some(der)
}

/// Returns the BER encoding of an element with this tag and content.
pub(crate) fn encoded(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut element = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short @ ..=0x7F) => element.push(short),
        _ => {
            let length = content.len().to_be_bytes();
            let zeros = length.iter().take_while(|byte| **byte == 0).count();
            element.push(0x80 | (length.len() - zeros) as u8);
            element.extend_from_slice(&length[zeros..]);
        }
    }
    element.extend_from_slice(content);
    element
}

/// Parses all elements with `read`. Returns `None` unless there is at least one element and all are
/// valid.
pub(crate) fn some<'a, T>(
    elements: Vec<Element<'a>>,
    read: impl FnMut(Element<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let all: Vec<T> = elements.into_iter().map(read).collect::<Option<_>>()?;
    (!all.is_empty()).then_some(all)
}

/// Reads an OBJECT IDENTIFIER.
pub(crate) fn identifier(element: &Element) -> Option<ObjectIdentifier> {
    match element.tag {
        OBJECT_IDENTIFIER => ObjectIdentifier::from_bytes(element.content).ok(),
        _ => None,
    }
}

/// Returns the bytes of a BIT STRING. The unused bits must be 0.
pub(crate) fn bits(element: &Element) -> Option<Vec<u8>> {
    let (&unused, bytes) = element.content.split_first()?;
    if element.tag != BIT_STRING || unused > 7 || (unused > 0 && bytes.is_empty()) {
        return None;
    }
    let mut bytes = bytes.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last &= 0xFF << unused;
    }
    Some(bytes)
}

/// Returns the content of an INTEGER. The INTEGER must have its shortest form.
pub(crate) fn integer<'a>(element: &Element<'a>) -> Option<&'a [u8]> {
    match element.content {
        [] | [0, 0..=0x7F, ..] | [0xFF, 0x80..=0xFF, ..] => None,
        content => Some(content),
    }
}

/// Reads an INTEGER as a count. The INTEGER must not be negative. A number that is too large is
/// replaced by the maximum.
pub(crate) fn count(element: &Element) -> Option<usize> {
    let number = integer(element)?;
    if number.first().is_some_and(|first| first & 0x80 != 0) {
        return None;
    }
    let add = |sum: usize, byte: &u8| sum.saturating_mul(256).saturating_add((*byte).into());
    let count = number.iter().fold(0, add);
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_every_form() {
        for bytes in [
            &[4, 2, 7, 8][..],
            &[4, 0x81, 2, 7, 8],
            &[4, 0x84, 0, 0, 0, 2, 7, 8],
        ] {
            let element = Element::only(bytes).unwrap();
            assert_eq!((element.tag, element.content), (4, &[7, 8][..]));
            assert_eq!(as_der(bytes).unwrap(), [4, 2, 7, 8]);
        }
        let open = [0x30, 0x80, 0x30, 0x80, 5, 0, 0, 0, 4, 1, 9, 0, 0];
        let (element, rest) = Element::first(&open).unwrap();
        assert_eq!((element.whole, rest), (&open[..], &[][..]));
        assert_eq!(element.children().unwrap().len(), 2);
        assert_eq!(as_der(&open).unwrap(), [0x30, 7, 0x30, 2, 5, 0, 4, 1, 9]);
        let high = [0x9F, 0x81, 0x01, 1, 7];
        assert_eq!(Element::only(&high).unwrap().content, [7]);
    }

    #[test]
    fn any_true_is_true_and_pieces_are_a_string() {
        assert_eq!(as_der(&[1, 1, 1]).unwrap(), [1, 1, 0xFF]);
        assert_eq!(as_der(&[1, 1, 0]).unwrap(), [1, 1, 0]);
        assert_eq!(as_der(&[0x24, 6, 4, 1, 7, 4, 1, 8]).unwrap(), [4, 2, 7, 8]);
        assert_eq!(
            as_der(&[0x24, 2, 0x30, 0]),
            None,
            "the content is not a string"
        );
    }

    #[test]
    fn what_is_cut_or_broken_is_no_element() {
        for (bytes, why) in [
            (&[][..], NoElement::Cut(2)),
            (&[0x30], NoElement::Cut(2)),
            (&[0x30, 3, 0], NoElement::Cut(5)),
            (&[0x30, 0x82, 1], NoElement::Cut(4)),
            (&[4, 0x80, 0, 0], NoElement::Broken),
            (&[0x30, 0xFF], NoElement::Broken),
            (&[0x30, 0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0], NoElement::Broken),
        ] {
            assert_eq!(Element::first(bytes).unwrap_err(), why, "{bytes:x?}");
        }
        let deep: Vec<u8> = std::iter::repeat_n([0x30, 0x80], 4000).flatten().collect();
        assert!(Element::first(&deep).is_err());
        let nested = (0..100).fold(Vec::new(), |inner, _| encoded(SEQUENCE, &inner));
        assert_eq!(as_der(&nested), None);
    }
}
