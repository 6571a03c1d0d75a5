//! Mutations that make a test certificate wrong or unusual.

use super::Random;
use super::draft::{
    Draft, ECDSA_SHA1, ECDSA_SHA256, ECDSA_SHA384, Keys, RSA_PSS, RSA_SHA256, SEQUENCE, extension,
    name, unhex,
};
use super::values::{self, BASIC_CONSTRAINTS, KEY_USAGE};
use crate::ber::{Element, encoded};

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Mutates one certificate of a chain. Returns the name of the mutation.
pub(super) fn mutate(draft: &mut Draft, random: &mut Random) -> &'static str {
    match random.below(20) {
        0..=5 => {
            values::put(draft, random);
            "an extension's value"
        }
        6 => {
            for _ in 0..=random.below(3) {
                draft
                    .before
                    .push((random.below(2000), 1 << random.below(8)));
            }
            "bits of what is signed"
        }
        7 => {
            draft.before.push((random.below(2000), random.byte() | 1));
            "a byte of what is signed"
        }
        8 => {
            draft.after.push((random.below(2000), 1 << random.below(8)));
            "a bit of the whole"
        }
        9 | 10 => {
            rearrange(draft, random);
            "the list of extensions"
        }
        11 | 12 => {
            draft.validity = validity(random);
            "the validity"
        }
        13 | 14 => {
            rename(draft, random);
            "a name"
        }
        15 => {
            realgorithm(draft, random);
            "the algorithm"
        }
        16 => {
            resign(draft, random);
            "the signature"
        }
        17 => {
            let versions = [
                "",
                "a003020100",
                "a003020101",
                "a003020102",
                "a003020103",
                "a00402020002",
            ];
            draft.version = unhex(random.of(&versions));
            if random.below(3) == 0 {
                draft.extensions = None;
            }
            "the version"
        }
        18 => {
            let serials = [
                "020100",
                "0201ff",
                "020200ff",
                "0200",
                "02020001",
                "0215 4000000000000000000000000000000000000000 00",
            ];
            draft.serial = unhex(random.of(&serials));
            "the serial number"
        }
        _ => {
            rekey(draft, random);
            "the key"
        }
    }
}

fn rearrange(draft: &mut Draft, random: &mut Random) {
    let Some(all) = &mut draft.extensions else {
        return;
    };
    if all.is_empty() {
        return;
    }
    let at = random.below(all.len());
    match random.below(7) {
        0 | 1 => drop(all.remove(at)),
        2 => all.push(all[at].clone()),
        3 => all.reverse(),
        4 => {
            // The certificate gets a second extension with the same object identifier and another
            // value.
            let id = super::draft::identifier_of(&all[at]).unwrap();
            let value = encoded(
                4,
                &unhex(random.of(&["3000", "03020106", "0500", "03020780"])),
            );
            all.push(encoded(SEQUENCE, &[id, value].concat()));
        }
        5 => {
            let flags = ["010101", "010100", "0101ff", "01020101", "0100"];
            let parts = Element::only(&all[at]).unwrap().children().unwrap();
            let (id, value) = (parts[0].whole, parts[parts.len() - 1].whole);
            all[at] = encoded(SEQUENCE, &[id, &unhex(random.of(&flags)), value].concat());
        }
        _ => {
            let empty = random.below(2) == 0;
            draft.extensions = (!empty).then(Vec::new);
        }
    }
}

/// Returns a changed validity. All cases are verified for the middle of 2026.
fn validity(random: &mut Random) -> Vec<u8> {
    let before: &[(u8, &str)] = &[
        (UTC_TIME, "260701000000Z"),
        (UTC_TIME, "260630235959Z"),
        (UTC_TIME, "260701000001Z"),
        (UTC_TIME, "500101000000Z"),
        (UTC_TIME, "490101000000Z"),
        (UTC_TIME, "2401010000Z"),
        (UTC_TIME, "240101000000+0100"),
        (GENERALIZED_TIME, "00010101000000Z"),
        (GENERALIZED_TIME, "19490101000000Z"),
        (GENERALIZED_TIME, "20240101000000.5Z"),
        (0x16, "240101000000Z"),
    ];
    let after: &[(u8, &str)] = &[
        (UTC_TIME, "260701000000Z"),
        (UTC_TIME, "260630235959Z"),
        (UTC_TIME, "260701000001Z"),
        (UTC_TIME, "491231235959Z"),
        (UTC_TIME, "500101000000Z"),
        (UTC_TIME, "270230000000Z"),
        (UTC_TIME, "270101000060Z"),
        (GENERALIZED_TIME, "20270101000000Z"),
        (GENERALIZED_TIME, "99991231235959Z"),
        (GENERALIZED_TIME, "99990101000000Z"),
        (GENERALIZED_TIME, "20260701000000Z"),
        (GENERALIZED_TIME, "20261301000000Z"),
        (GENERALIZED_TIME, "202701010000Z"),
    ];
    let time = |(tag, text): (u8, &str)| encoded(tag, text.as_bytes());
    let (mut from, mut until) = (
        time((UTC_TIME, "240101000000Z")),
        time((GENERALIZED_TIME, "99991231235959Z")),
    );
    match random.below(3) {
        0 => from = time(random.of(before)),
        1 => until = time(random.of(after)),
        _ => (from, until) = (time(random.of(before)), time(random.of(after))),
    }
    encoded(SEQUENCE, &[from, until].concat())
}

fn rename(draft: &mut Draft, random: &mut Random) {
    let place = match random.below(2) {
        0 => &mut draft.issuer,
        _ => &mut draft.subject,
    };
    let attributes: Vec<(Vec<u8>, Vec<u8>)> = {
        let sets = Element::only(place).unwrap().children().unwrap();
        let attribute = |set: &Element| {
            let pair = set.children()?.first()?.children()?;
            Some((pair[0].whole.to_vec(), pair[1].content.to_vec()))
        };
        sets.iter().filter_map(attribute).collect()
    };
    let relative = |kind: &[u8], tag: u8, text: &[u8]| {
        let pair = [kind, &encoded(tag, text)].concat();
        encoded(0x31, &encoded(SEQUENCE, &pair))
    };
    let style = random.below(14);
    let all = attributes.iter().map(|(kind, text)| {
        let wide: Vec<u8> = text.iter().flat_map(|byte| [0, *byte]).collect();
        match style {
            0 => relative(kind, 0x13, text),
            1 => relative(kind, 0x0C, &text.to_ascii_uppercase()),
            2 => relative(kind, 0x16, &[b"  ", &text[..], b" "].concat()),
            3 => relative(kind, 0x1E, &wide),
            4 => relative(kind, 0x14, text),
            5 => relative(kind, 0x0C, &[&text[..], b"\xE4"].concat()),
            6 => relative(kind, 0x1E, &[&wide[..], b"x"].concat()),
            7 => relative(kind, 0x12, text),
            8 => relative(kind, 0x1A, text),
            9 => relative(kind, 0x02, text),
            10 => relative(
                kind,
                0x0C,
                &text.iter().map(|byte| byte ^ 1).collect::<Vec<_>>(),
            ),
            11 => relative(
                kind,
                0x0C,
                &String::from_utf8_lossy(text)
                    .replace(' ', "\t  ")
                    .into_bytes(),
            ),
            12 => relative(
                kind,
                0x1C,
                &wide
                    .chunks(2)
                    .flat_map(|two| [0, 0, two[0], two[1]])
                    .collect::<Vec<_>>(),
            ),
            _ => relative(kind, 0x0C, text),
        }
    });
    let mut all: Vec<_> = all.collect();
    match random.below(8) {
        0 => all.reverse(),
        1 => all.push(encoded(0x31, &[])),
        2 => all.clear(),
        3 => {
            // A Name with one RDN that contains all attributes.
            let pairs = all
                .iter()
                .map(|set| Element::only(set).unwrap().content.to_vec());
            all = vec![encoded(0x31, &pairs.collect::<Vec<_>>().concat())];
        }
        _ => {}
    }
    *place = encoded(SEQUENCE, &all.concat());
}

fn realgorithm(draft: &mut Draft, random: &mut Random) {
    let algorithms = [
        ECDSA_SHA256,
        ECDSA_SHA384,
        RSA_SHA256,
        RSA_PSS,
        ECDSA_SHA1,
        // AlgorithmIdentifiers with wrong parameters: ecdsa-with-SHA256 with NULL, and
        // sha256WithRSAEncryption without NULL.
        "300c06082a8648ce3d0403020500",
        "300b06092a864886f70d01010b",
        // Wrong AlgorithmIdentifiers: ecdsa-with-SHA256 with an INTEGER, Ed25519, and an unknown
        // algorithm.
        "300d06082a8648ce3d040302020101",
        "300506032b6570",
        "300506032a0304",
        // The AlgorithmIdentifier of RSASSA-PSS without parameters.
        "300b06092a864886f70d01010a",
    ];
    let one = unhex(random.of(&algorithms));
    match random.below(4) {
        0 => draft.algorithm = one,
        1 => draft.signed_algorithm = one,
        _ => {
            draft.algorithm.clone_from(&one);
            draft.signed_algorithm = one;
        }
    }
}

fn resign(draft: &mut Draft, random: &mut Random) {
    match random.below(6) {
        0..=2 => draft.signer = random.below(Keys::COUNT),
        3 => draft.bits = Some(vec![0]),
        4 => draft.bits = Some(unhex("00 3006020101020101")),
        _ => draft.bits = Some(unhex("01 3006020101020102")),
    }
}

fn rekey(draft: &mut Draft, random: &mut Random) {
    let point = "036b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
    let infos = [
        // Public keys with the base point of P-256: compressed, with id-ecDH, without a curve, with
        // the name of another curve.
        format!("3039 301306072a8648ce3d020106082a8648ce3d030107 032200{point}"),
        format!("3036 301006052b8104010c06072a8648ce3d0301 032200{point}"),
        format!(
            "3039 301306072a8648ce3d020106082a8648ce3d030107 032200{}",
            point.replace("17d1", "17d2")
        ),
        format!("3036 301006072a8648ce3d020106052b81040022 032200{point}"),
        // A SubjectPublicKeyInfo with an Ed25519 key.
        format!("302a 300506032b6570 032100{}", &point[2..]),
        "3000".to_owned(),
        "3012 300d06092a864886f70d0101010500 030100".to_owned(),
    ];
    draft.key_info = unhex(&random.of(&infos));
}

/// Returns an unchanged chain, and the number of trusted certificates at its end. The leaf is
/// first.
pub(super) fn base(keys: &Keys, random: &mut Random) -> (Vec<Draft>, usize) {
    let key_id = |holder: usize| (format!("0404{holder:08x}"), format!("30068004{holder:08x}"));
    let length = 1 + random.below(3);
    let names = [
        "CN=device one,O=Ex ample",
        "CN=ca one,O=Ex ample",
        "CN=root one,O=Ex ample",
    ];
    let large = random.below(6);
    let holder = |at: usize| match (large, at) {
        (0, 1) | (1, 2) => Keys::RSA,
        (2, 2) => Keys::P384,
        (_, at) => at,
    };
    let above = |at: usize| (at + 1).min(length - 1);
    let flavour = random.below(5);
    let chain = (0..length).map(|at| {
        let signer = above(at);
        let mut draft = Draft::new(keys, holder(signer), names[signer], holder(at), names[at]);
        let (own, by) = (key_id(at).0, key_id(signer).1);
        draft = draft.with(values::SUBJECT_KEY_ID, false, &own);
        draft = draft.with(values::AUTHORITY_KEY_ID, false, &by);
        draft = match at {
            0 => draft.with(KEY_USAGE, true, "03020780"),
            _ => draft
                .with(BASIC_CONSTRAINTS, true, "30030101ff")
                .with(KEY_USAGE, true, "03020106"),
        };
        match flavour {
            0 | 1 => values::put_policies(&mut draft, at, random),
            2 => values::put_names(&mut draft, at, random),
            _ => {}
        }
        draft
    });
    let chain: Vec<Draft> = chain.collect();
    (chain, 1 + random.below(length.min(2)))
}

/// Mutates a whole chain: a root of version 1, a self-issued CA, a wrong issuer name, or an unknown
/// extension.
pub(super) fn restructure(chain: &mut [Draft], random: &mut Random) -> &'static str {
    let last = chain.len() - 1;
    match random.below(4) {
        0 => {
            let root = &mut chain[last];
            root.version = Vec::new();
            root.extensions = None;
            "a root of the first version"
        }
        1 if last == 2 => {
            let subject = chain[2].subject.clone();
            chain[0].issuer.clone_from(&subject);
            chain[1].subject = subject;
            "a CA that certifies itself anew"
        }
        2 => {
            chain[last].issuer = name("CN=nobody");
            "a trusted certificate of another party"
        }
        _ => {
            let oid = "06032a0304";
            let critical = random.below(2) == 0;
            let at = random.below(chain.len());
            let extensions = chain[at].extensions.get_or_insert_default();
            extensions.push(extension(oid, critical, &[5, 0]));
            "an unknown extension"
        }
    }
}
