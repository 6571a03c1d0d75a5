//! A minimal DER parser for certificates. The tests do not use the library of the module, because
//! an error of the library would then stay hidden.

/// Returns the consecutive elements in `der`, each with tag and length.
pub fn elements(mut der: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while !der.is_empty() {
        let (element, rest) = der.split_at(header(der) + length(der));
        all.push(element);
        der = rest;
    }
    all
}

/// Returns the body of the first element in `der`.
pub fn body(der: &[u8]) -> &[u8] {
    &der[header(der)..header(der) + length(der)]
}

fn header(der: &[u8]) -> usize {
    2 + if der[1] < 0x80 {
        0
    } else {
        usize::from(der[1] & 0x7F)
    }
}

fn length(der: &[u8]) -> usize {
    match der[1] {
        short @ 0..0x80 => usize::from(short),
        _ => der[2..header(der)]
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
    }
}

/// The fields of a certificate for which PKCS#11 has attributes, each in DER.
pub struct Certificate {
    pub serial: Vec<u8>,
    pub issuer: Vec<u8>,
    pub subject: Vec<u8>,
    pub public_key_info: Vec<u8>,
}

impl Certificate {
    pub fn new(der: &[u8]) -> Certificate {
        let signed = elements(body(der))[0];
        let fields = elements(body(signed));
        assert_eq!(fields[0][0], 0xA0, "version 3");
        let field = |at: usize| fields[at].to_vec();
        Certificate {
            serial: field(1),
            issuer: field(3),
            subject: field(5),
            public_key_info: field(6),
        }
    }

    /// Returns the bits of the subject's public key, without the octet that counts unused bits.
    pub fn key_bits(&self) -> Vec<u8> {
        body(elements(body(&self.public_key_info))[1])[1..].to_vec()
    }
}

/// Returns an element with this tag and body.
pub fn element(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len().to_be_bytes();
    let length = &length[body.len().leading_zeros() as usize / 8..];
    match body.len() {
        short @ 0..0x80 => [&[tag, short as u8], body].concat(),
        _ => [&[tag, 0x80 | length.len() as u8], length, body].concat(),
    }
}

/// Returns a certificate with another SubjectPublicKeyInfo and the old signature.
pub fn with_key_info(certificate: &[u8], key_info: &[u8]) -> Vec<u8> {
    let outer = elements(body(certificate));
    let fields = elements(body(outer[0]));
    assert_eq!(fields[0][0], 0xA0, "version 3");
    let signed = [&fields[..6].concat(), key_info, &fields[7..].concat()].concat();
    let signed = element(0x30, &signed);
    element(0x30, &[&signed, outer[1], outer[2]].concat())
}
