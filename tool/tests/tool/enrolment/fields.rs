//! Converts documents to flat lists of fields. Each value has a path that shows its position.

use std::collections::BTreeMap;
use testkit::der::{body, elements};

/// Values by path.
pub type Fields = BTreeMap<String, Vec<u8>>;

/// What is not read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (piece, rest) = self.0.split_at(count);
        self.0 = rest;
        piece
    }

    fn word(&mut self) -> usize {
        usize::from(u16::from_be_bytes(self.take(2).try_into().unwrap()))
    }

    fn sized(&mut self) -> &'a [u8] {
        let size = self.word();
        self.take(size)
    }
}

/// A DER document. An element that begins with an OID is called by it: an extension, an attribute, an
/// algorithm.
pub fn of_der(path: &str, der: &[u8], into: &mut Fields) {
    const SEQUENCE: u8 = 0x30;
    const OID: u8 = 0x06;
    let (tag, content) = (der[0], body(der));
    if tag & 0x20 != 0 {
        let children = elements(content);
        let named = (tag == SEQUENCE && children.first().is_some_and(|one| one[0] == OID))
            .then(|| hex(body(children[0])));
        let path = named.map_or(path.to_owned(), |oid| format!("{path}/{oid}"));
        // A sequence of nothing but its OID is a field all the same.
        if children.len() == 1 && children[0][0] == OID {
            into.insert(path, body(children[0]).to_vec());
            return;
        }
        for (number, child) in children.iter().enumerate() {
            if number > 0 || child[0] != OID {
                of_der(&format!("{path}/{number}"), child, into);
            }
        }
        return;
    }
    // An extension's value is DER in an octet string.
    if tag == 0x04 && is_der(content) {
        return of_der(path, content, into);
    }
    let old = into.insert(path.to_owned(), content.to_vec());
    assert!(old.is_none(), "two fields at {path}");
}

fn is_der(bytes: &[u8]) -> bool {
    const KNOWN: [u8; 4] = [0x30, 0x03, 0x04, 0x05];
    bytes.len() > 2
        && KNOWN.contains(&bytes[0])
        && (bytes[1] < 0x80 && bytes.len() == 2 + usize::from(bytes[1])
            || bytes[1] == 0x81 && bytes.len() == 3 + usize::from(bytes[2])
            || bytes[1] == 0x82
                && bytes.len() == 4 + (usize::from(bytes[2]) << 8 | usize::from(bytes[3])))
}

/// TPMT_PUBLIC of a signing key on a curve.
pub fn of_public(path: &str, bytes: &[u8], into: &mut Fields) {
    let mut reader = Reader(bytes);
    let mut add = |name: &str, value: &[u8]| {
        into.insert(format!("{path}/{name}"), value.to_vec());
    };
    for (name, count) in [("type", 2), ("nameAlg", 2), ("objectAttributes", 4)] {
        add(name, reader.take(count));
    }
    add("authPolicy", reader.sized());
    add("symmetric", reader.take(2));
    let scheme = reader.take(2);
    add("scheme", scheme);
    if scheme != [0, 0x10] {
        add("schemeHash", reader.take(2));
    }
    add("curve", reader.take(2));
    add("kdf", reader.take(2));
    add("x", reader.sized());
    add("y", reader.sized());
    assert!(reader.0.is_empty(), "{path}: more than a public area");
}

/// TPMS_ATTEST of TPM2_Certify.
pub fn of_attest(path: &str, bytes: &[u8], into: &mut Fields) {
    let mut reader = Reader(bytes);
    let mut add = |name: &str, value: &[u8]| {
        into.insert(format!("{path}/{name}"), value.to_vec());
    };
    add("magic", reader.take(4));
    add("type", reader.take(2));
    add("qualifiedSigner", reader.sized());
    add("extraData", reader.sized());
    add("clock", reader.take(8));
    add("resetCount", reader.take(4));
    add("restartCount", reader.take(4));
    add("safe", reader.take(1));
    add("firmwareVersion", reader.take(8));
    add("name", reader.sized());
    add("qualifiedName", reader.sized());
    assert!(reader.0.is_empty(), "{path}: more than TPMS_ATTEST");
}

/// TPMT_SIGNATURE of ECDSA.
pub fn of_signature(path: &str, bytes: &[u8], into: &mut Fields) {
    let mut reader = Reader(bytes);
    let mut add = |name: &str, value: &[u8]| {
        into.insert(format!("{path}/{name}"), value.to_vec());
    };
    add("sigAlg", reader.take(2));
    add("hash", reader.take(2));
    add("r", reader.sized());
    add("s", reader.sized());
    assert!(reader.0.is_empty(), "{path}: more than a signature");
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
