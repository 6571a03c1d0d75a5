//! Answers about the TPM and its NV indices with more, fewer or other data than today's TPMs
//! return.

use super::fake::{FakeTpm, GET_CAPABILITY, NV_READ, Reply, capability, longer};
use super::*;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);
const ALGORITHMS: u32 = 0;
const HANDLES: u32 = 1;
const PROPERTIES: u32 = 6;
const PERSISTENT: u32 = 0x8100_0000;
/// TPM_ALG_MLKEM (TPM 2.0 Library, version 1.85). This project does not know the algorithm.
const MLKEM: u16 = 0x00A0;
const INDEX: u32 = 0x01C9_0000;

fn told(replies: impl IntoIterator<Item = Reply>) -> (FakeTpm, Tpm) {
    let fake = FakeTpm::new(replies);
    let tpm = fake.tpm(LIMIT);
    (fake, tpm)
}

fn algorithms(more: bool, identifiers: &[u16]) -> Reply {
    let item = |one: &u16| [&one.to_be_bytes()[..], &[0xFF; 4]].concat();
    let items: Vec<_> = identifiers.iter().map(item).collect();
    capability(more, ALGORITHMS, &items)
}

fn handles(more: bool, handles: &[u32]) -> Reply {
    let items: Vec<_> = handles
        .iter()
        .map(|one| one.to_be_bytes().to_vec())
        .collect();
    capability(more, HANDLES, &items)
}

fn properties(pairs: &[(u32, u32)]) -> Reply {
    let item = |(tag, value): &(u32, u32)| [tag.to_be_bytes(), value.to_be_bytes()].concat();
    let items: Vec<_> = pairs.iter().map(item).collect();
    capability(false, PROPERTIES, &items)
}

/// Returns the reply of the TPM without its last byte.
fn cut(reply: Reply) -> Reply {
    match reply {
        Reply::Body(mut body) => {
            body.pop();
            Reply::Body(body)
        }
        other => other,
    }
}

#[test]
fn algorithms_that_nothing_knows_are_passed_over() {
    let strange = [
        0x0001, 0x000B, 0x0014, MLKEM, 0x00A1, 0x00A2, 0x8001, 0xFFFF,
    ];
    let (fake, tpm) = told([longer(algorithms(false, &strange))]);
    let known = tpm.algorithms().unwrap();
    assert!(known.sign(SignatureScheme::Rsassa(Hash::Sha256)));
    assert!(
        !known.sign(SignatureScheme::Rsassa(Hash::Sha512))
            && !known.sign(SignatureScheme::Rsapss(Hash::Sha256))
    );
    assert_eq!(tpm.algorithms(), Ok(known));
    assert_eq!(fake.seen(), [GET_CAPABILITY], "asked once");
}

#[test]
fn a_fault_leaves_the_algorithms_to_be_asked_for() {
    let (fake, tpm) = told([
        Reply::Hangup,
        Reply::Hangup,
        algorithms(false, &[0x0001, 0x000B, 0x0014]),
    ]);
    assert_eq!(tpm.algorithms_or_any(), Algorithms::ANY);
    tpm.asking.lock().takes(LIMIT);
    assert!(!tpm.can_ask_algorithms() && !tpm.learn_algorithms());
    assert_eq!(tpm.algorithms_or_any(), Algorithms::ANY);
    assert_eq!(
        fake.seen().len(),
        2,
        "the TPM is not asked during the pause"
    );
    tpm.asking.lock().takes(Duration::ZERO);
    assert!(tpm.can_ask_algorithms());
    assert!(!tpm.algorithms_or_any().has_ecc());
    assert_eq!(fake.seen().len(), 3);
    assert!(tpm.learn_algorithms() && !tpm.can_ask_algorithms());
    assert_eq!(fake.seen().len(), 3);
}

/// While the process forks, another thread of the parent asks the TPM for its algorithms.
#[test]
fn a_forked_child_asks_for_itself() {
    let (_fake, tpm) = told([algorithms(false, &[0x0001])]);
    let _asking = tpm.asking.lock();
    assert_eq!(tpm.algorithms_or_any(), Algorithms::ANY);
    let child = tpm.for_child(Refusals::default());
    assert!(!child.algorithms_or_any().has_ecc());
    assert!(
        tpm.known_algorithms().known().is_some(),
        "the parent's keys use the same value"
    );
}

/// A scan does not wait behind a key generation of another thread or process.
#[test]
fn whoever_looks_waits_for_no_link() {
    let (fake, tpm) = told([algorithms(false, &[0x0001])]);
    let held = tpm.link.lock();
    assert!(!tpm.can_ask_algorithms() && !tpm.learn_algorithms());
    drop(held);
    let other = fake.tpm(LIMIT);
    let generation = other.timing().note_start(CommandClass::Generation);
    assert!(!tpm.can_ask_algorithms() && !tpm.learn_algorithms());
    assert_eq!(fake.seen(), [0_u32; 0]);
    drop(generation);
    assert!(tpm.can_ask_algorithms() && tpm.learn_algorithms());
}

#[test]
fn algorithms_come_in_pages_and_in_any_order() {
    let (fake, tpm) = told([
        algorithms(true, &[0x0014, 0x0001, 0x0001]),
        algorithms(false, &[0x000B, 0x0004]),
    ]);
    let known = tpm.algorithms().unwrap();
    assert_eq!(known.hashes(), [Hash::Sha1, Hash::Sha256]);
    assert!(known.sign(SignatureScheme::Rsassa(Hash::Sha1)));
    assert_eq!(fake.seen().len(), 2);
}

#[test]
fn a_tpm_that_does_not_tell_its_algorithms_may_have_all() {
    for untold in [
        algorithms(false, &[]),
        Reply::Code(0x084),
        Reply::Code(0x1C4),
        Reply::Code(0x501),
        Reply::Code(0x143),
        cut(algorithms(false, &[1])),
        Reply::Body(vec![0]),
    ] {
        let (_fake, tpm) = told([untold]);
        assert_eq!(tpm.algorithms(), Ok(Algorithms::ANY));
    }
    // The TPM is asked again after a temporary failure.
    let (_fake, tpm) = told([Reply::Code(0x101), algorithms(false, &[0x000B])]);
    assert_eq!(
        tpm.algorithms(),
        Err(TpmError::Response(ResponseCode(0x101)))
    );
    assert_eq!(tpm.algorithms().unwrap().hashes(), [Hash::Sha256]);
}

#[test]
fn handles_are_sorted_told_once_and_of_one_range() {
    let (fake, tpm) = told([
        handles(true, &[0x8100_0005, 0x8100_0001, 0x8100_0005, 0x8000_0000]),
        handles(false, &[0x8102_0000, 0x8100_0001, 0x9000_0000, 0x0100_0000]),
    ]);
    let found = tpm.handles(PERSISTENT).unwrap();
    assert_eq!(found, [0x8100_0001, 0x8100_0005, 0x8102_0000]);
    assert_eq!(fake.seen().len(), 2);
    let (_fake, tpm) = told([handles(false, &[0x8100_0001, 0x8100_0100])]);
    assert_eq!(
        tpm.handles(0x8100_0100).unwrap(),
        [0x8100_0100],
        "from there on"
    );
}

#[test]
fn a_tpm_that_says_more_for_ever_is_asked_no_more() {
    let same = || handles(true, &[0x8100_0001]);
    let (fake, tpm) = told([same(), same()]);
    assert_eq!(tpm.handles(PERSISTENT).unwrap(), [0x8100_0001]);
    assert_eq!(fake.seen().len(), 2);
    let (fake, tpm) = told([handles(true, &[])]);
    assert_eq!(tpm.handles(PERSISTENT).unwrap(), [0_u32; 0]);
    assert_eq!(fake.seen().len(), 1);
    let last = || handles(true, &[u32::MAX]);
    let (fake, tpm) = told([last(), last()]);
    assert_eq!(tpm.handles(0xFF00_0000).unwrap(), [u32::MAX]);
    assert!(fake.seen().len() <= 2);
}

#[test]
fn a_list_that_is_cut_is_not_understood_and_another_one_is_no_answer() {
    for damaged in [
        cut(handles(false, &[0x8100_0001])),
        Reply::Body(vec![]),
        Reply::Body(vec![0, 0, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF]),
    ] {
        let (_fake, tpm) = told([damaged]);
        let error = tpm.handles(PERSISTENT).unwrap_err();
        assert!(matches!(error, TpmError::Unsupported(_)), "{error}");
    }
    let (fake, tpm) = told([properties(&[(0x12C, 9)]), handles(false, &[0x8100_0001])]);
    assert_eq!(
        tpm.handles(PERSISTENT).unwrap(),
        [0x8100_0001],
        "asked again"
    );
    assert_eq!(fake.seen().len(), 2);
}

#[test]
fn a_property_is_found_among_others_or_not_told() {
    let answers = [
        (
            properties(&[(0x7FFF_0000, 1), (0x12C, 1024), (0x12C, 2)]),
            Some(1024),
        ),
        (longer(properties(&[(0x12C, 768)])), Some(768)),
        // A TPM that lacks the requested property returns the next property.
        (properties(&[(0x12D, 4)]), None),
        (properties(&[]), None),
        (Reply::Code(0x084), None),
        (Reply::Code(0x1C4), None),
        (Reply::Code(0x57F), None),
    ];
    for (answer, value) in answers {
        let (_fake, tpm) = told([answer]);
        assert_eq!(tpm.property(Property::NvBufferMax), Ok(value));
    }
}

#[test]
fn an_index_holds_what_can_be_asked_for_where_the_tpm_tells_nothing_of_use() {
    for (told_most, most) in [(2048, 2048), (0, 0xFFFF), (0x10000, 0xFFFF)] {
        let (_fake, tpm) = told([properties(&[(0x117, told_most)])]);
        assert_eq!(tpm.nv_index_max(), Ok(most), "{told_most}");
    }
}

#[test]
fn lockout_is_found_among_strangers_or_asked_for_by_itself() {
    let whole = [
        (0x999, 7),
        (0x210, 100),
        (0x20E, 2),
        (0x20F, 32),
        (0x211, 5),
    ];
    let lockout = Lockout {
        counter: 2,
        most: 32,
        interval: 100,
    };
    let (fake, tpm) = told([properties(&whole)]);
    assert_eq!(tpm.lockout(), Ok(lockout));
    assert_eq!(fake.seen().len(), 1);
    let (_fake, tpm) = told([
        properties(&whole[2..3]),
        properties(&[(0x20F, 32)]),
        Reply::Code(0x084),
    ]);
    assert_eq!(
        tpm.lockout(),
        Ok(Lockout {
            interval: 0,
            ..lockout
        })
    );
    let (_fake, tpm) = told([
        properties(&[]),
        properties(&[]),
        properties(&[]),
        properties(&[]),
    ]);
    let error = tpm.lockout().unwrap_err().to_string();
    assert!(error.contains("does not report"), "{error}");
}

fn data(bytes: &[u8]) -> Reply {
    Reply::AuthorisedBody(sized(bytes))
}

#[test]
fn an_index_is_read_whatever_the_tpm_tells_of_its_pieces() {
    let content: Vec<u8> = (0..700).map(|at| at as u8).collect();
    for (untold, first) in [
        (properties(&[(0x12D, 1)]), 512),
        (properties(&[(0x12C, 0)]), 512),
        (Reply::Code(0x1C4), 512),
        (properties(&[(0x12C, 256)]), 256),
    ] {
        // The TPM may return fewer properties than the command requested.
        let (fake, tpm) = told([
            untold,
            data(&content[..first]),
            data(&content[first..first + 1]),
            data(&content[first + 1..690.min(2 * first + 1)]),
            data(&content[690.min(2 * first + 1)..]),
        ]);
        assert_eq!(tpm.nv_read(INDEX, 700), Ok(content.clone()));
        assert_eq!(fake.seen()[..2], [GET_CAPABILITY, NV_READ]);
    }
    for wrong in [data(&[7; 41]), data(&[])] {
        let again = match &wrong {
            Reply::AuthorisedBody(body) => Reply::AuthorisedBody(body.clone()),
            _ => unreachable!(),
        };
        let (_fake, tpm) = told([wrong, again]);
        let error = tpm.nv_read(INDEX, 40).unwrap_err();
        assert!(matches!(error, TpmError::WrongAnswer(_)), "{error}");
    }
}

fn nv_public(index: u32, name_hash: u16, attributes: u32) -> Reply {
    let mut area = index.to_be_bytes().to_vec();
    area.extend(name_hash.to_be_bytes());
    area.extend(attributes.to_be_bytes());
    area.extend(sized(&[5; 64])); // a policy
    area.extend([1, 44]);
    Reply::Body([sized(&area), sized(&[0; 66])].concat())
}

#[test]
fn an_index_may_be_named_by_any_hash_and_have_any_attributes() {
    for (name_hash, attributes) in [(0x0027, 0x6207_0002), (0x7777, u32::MAX)] {
        let (_fake, tpm) = told([longer(nv_public(INDEX, name_hash, attributes))]);
        let size = 300;
        assert_eq!(tpm.nv_public(INDEX), Ok(NvPublic { attributes, size }));
    }
    let another = || nv_public(INDEX + 1, 0x000B, 0);
    let (_fake, tpm) = told([another(), another()]);
    let error = tpm.nv_public(INDEX).unwrap_err();
    assert!(matches!(error, TpmError::WrongAnswer(_)), "{error}");
    let (_fake, tpm) = told([Reply::Body(sized(&[1; 5]))]);
    assert!(matches!(
        tpm.nv_public(INDEX),
        Err(TpmError::Unsupported(_))
    ));
}
