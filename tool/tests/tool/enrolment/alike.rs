//! The list of fields that may be equal for two services.

use super::fields::Fields;

/// Fields that may be equal, and why: each is equal on any number of devices. `*` stands for anything.
const MAY_BE_EQUAL: &[(&str, &str)] = &[
    // Certificates and requests.
    ("*/0/0/0", "the version of a certificate"),
    ("request/0/0", "the version of a request"),
    ("evidence/csr/0/0", "the version of a request"),
    ("*/2a8648ce3d040302", "ecdsa-with-SHA256"),
    ("*/2a8648ce3d0201/1", "the curve P-256"),
    ("*/551d13/*", "basicConstraints: no CA, or one"),
    ("*/551d0f/*", "keyUsage: a signature"),
    ("*/551d25/1/6781050803", "the purpose of an attestation key"),
    (
        "*/0/4/0",
        "when the certificate begins, to the second: a CA may issue two at once",
    ),
    ("*/0/4/1", "when it ends, likewise"),
    (
        "*/55040a/1",
        "the organisation of the EST server's CAs, the same in both profiles",
    ),
    (
        "evidence/attestationKey/certificates/0/0/3/*",
        "the CA of attestation keys, for all devices",
    ),
    (
        "evidence/attestationKey/certificates/0/0/7/*/551d23/*",
        "that CA's key",
    ),
    (
        "evidence/attestationKey/certificates/1/*",
        "that CA's certificate",
    ),
    // TPM structures.
    ("evidence/format", "the format of the document"),
    ("evidence/*/public/type", "what kind of key"),
    ("evidence/*/public/nameAlg", "what kind of key"),
    ("evidence/*/public/objectAttributes", "what kind of key"),
    (
        "evidence/*/public/authPolicy",
        "what kind of key: no policy",
    ),
    ("evidence/*/public/symmetric", "what kind of key"),
    ("evidence/*/public/scheme", "what kind of key"),
    ("evidence/*/public/schemeHash", "what kind of key"),
    ("evidence/*/public/curve", "what kind of key"),
    ("evidence/*/public/kdf", "what kind of key"),
    ("evidence/key/certify/magic", "TPM_GENERATED_VALUE"),
    ("evidence/key/certify/type", "TPM_ST_ATTEST_CERTIFY"),
    (
        "evidence/key/certify/safe",
        "the clock was not set back, as on nearly every TPM",
    ),
    ("evidence/key/signature/sigAlg", "ECDSA"),
    ("evidence/key/signature/hash", "SHA-256"),
    // PKCS#11: the module and the program, whatever the device.
    ("pkcs11/module/*", "the module, and two slots"),
    ("pkcs11/slot/*/slotDescription", "what kind of token"),
    ("pkcs11/slot/*/manufacturerID", "the module"),
    ("pkcs11/slot/*/model", "a TPM 2.0"),
    ("pkcs11/slot/*/hardwareVersion", "a TPM 2.0"),
    ("pkcs11/slot/*/firmwareVersion", "the module's version"),
    (
        "pkcs11/slot/*/flags",
        "a token that is there, and asks for no PIN",
    ),
    ("pkcs11/slot/*/utcTime", "there is no clock"),
    (
        "pkcs11/slot/100/token/label",
        "the token for keys of peers, of the same name everywhere",
    ),
    (
        "pkcs11/slot/*/object/9/*",
        "what PKCS#11 profiles the module has",
    ),
];

/// Attributes of objects that say what kind of object it is, and what may be done with it.
const KINDS: &[&str] = &[
    "0", "1", "2", "80", "86", "87", "88", "89", "8a", "8b", "8c", "100", "101", "103", "104",
    "105", "106", "107", "108", "109", "10a", "10b", "10c", "162", "163", "164", "165", "166",
    "170", "171", "172", "180", "202", "210", "40000600", "c4450004", "c4450005",
    // The days on which a certificate begins and ends.
    "110", "111",
];

/// Whether a field may be equal for two services.
pub fn may_be_equal(path: &str) -> bool {
    let kind = path.strip_prefix("pkcs11/slot/N/object/");
    let kind = kind.and_then(|rest| rest.rsplit('/').next());
    kind.is_some_and(|attribute| KINDS.contains(&attribute))
        || MAY_BE_EQUAL.iter().any(|(known, _)| fits(known, path))
}

/// Whether a pattern stands for a path.
fn fits(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((before, after)) => path.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && fits(after, &rest[at..]))
        }),
    }
}

/// Fields that are equal, and should not be.
pub fn alike<'a>(first: &'a Fields, second: &Fields) -> Vec<(&'a String, &'a Vec<u8>)> {
    let fields = first.iter();
    let same = |(path, value): &(&'a String, &'a Vec<u8>)| {
        second.get(*path) == Some(value) && !may_be_equal(path)
    };
    fields.filter(same).collect()
}

/// Whether bytes stand within others.
pub fn contains(whole: &[u8], part: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}
