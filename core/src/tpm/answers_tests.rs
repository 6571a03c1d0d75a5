//! Answers about keys, signatures and codes with more, fewer or other data than today's TPMs
//! return.

use super::fake::{
    self, CONTEXT_SAVE, CREATE_PRIMARY, FIXED, FLUSH_CONTEXT, FakeTpm, IDENTITY, READ_PUBLIC,
    Reply, SIGN, longer, p256_area, public,
};
use super::*;
use crate::key::PublicKey;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);
const PERSISTENT: u32 = 0x8100_0000;
/// TPM_ALG_MLKEM (TPM 2.0 Library, version 1.85). This project does not know the algorithm.
const MLKEM: u16 = 0x00A0;

fn told(replies: impl IntoIterator<Item = Reply>) -> (FakeTpm, Tpm) {
    let fake = FakeTpm::new(replies);
    let tpm = fake.tpm(LIMIT);
    (fake, tpm)
}

/// Returns a key of level 1.85 (TPMT_PUBLIC): its type, SHA-256, attributes, no policy, then fields
/// that only a TPM of that level knows.
fn stranger(kind: u16) -> Vec<u8> {
    let attributes = 0x0003_0072_u32.to_be_bytes();
    [
        &kind.to_be_bytes()[..],
        &[0, 0x0B],
        &attributes,
        &[0, 0],
        &[7; 800],
    ]
    .concat()
}

/// Returns the TPMT_PUBLIC of a storage key on P-256. Its public point is the generator.
fn storage_key() -> Vec<u8> {
    let template = template::storage_root(false);
    let point = p256_area(0, &[0, 0x10]);
    [&template[..template.len() - 4], &point[point.len() - 68..]].concat()
}

#[test]
fn a_key_of_any_kind_is_read_as_it_is() {
    for area in [stranger(MLKEM), stranger(0xFFFF), vec![], vec![0xEE; 3]] {
        let (_fake, tpm) = told([longer(public(&area, &[0, 0x0B, 1]))]);
        let (read, key) = tpm.persistent_key(PERSISTENT).unwrap();
        assert_eq!((&read, key.name()), (&area, &[0, 0x0B, 1][..]));
        assert_eq!(
            (
                PublicArea::parse(&read),
                StorageKey::from_area(PERSISTENT, &read)
            ),
            (None, None)
        );
    }
    let area = p256_area(IDENTITY, FIXED);
    let of = |at: usize, strange: u16| {
        let mut area = area.clone();
        area[at..at + 2].copy_from_slice(&strange.to_be_bytes());
        area
    };
    // The offsets of type, nameAlg, symmetric algorithm, scheme, its hash, curve and key
    // derivation.
    for at in [0, 2, 10, 12, 14, 16, 18] {
        for strange in [0x00A0, 0x7777, 0x8001] {
            assert_eq!(
                PublicArea::parse(&of(at, strange)),
                None,
                "{at} {strange:x}"
            );
        }
    }
    // Attribute bits that TPM 2.0 does not define yet are ignored.
    let mut later = area.clone();
    later[4] |= 0x80;
    assert!(PublicArea::parse(&later).unwrap().is_identity());
}

/// If the TPM refuses TPM2_ContextSave, the key for salts is derived again for each session.
#[test]
fn a_tpm_that_saves_no_context_has_a_key_for_salts() {
    let area = storage_key();
    let name = name_of(&area).unwrap();
    let nowhere = [Reply::Code(0x18B), Reply::Code(0x18B), Reply::Code(0x18B)];
    let made = || fake::primary(0x8000_0000, &area, &name);
    let flushed = || Reply::Body(vec![]);
    let (fake, tpm) =
        told(
            nowhere
                .into_iter()
                .chain([made(), Reply::Code(0x143), flushed(), made()]),
        );
    let key = tpm.salt_key().unwrap();
    let loading = exchange::Exchange::new("salt key").needing_object_slot();
    let loaded = loading.run(&tpm, |link| link.with_salt_key(&key));
    assert_eq!(loaded, Ok((key, 0x8000_0000, true)));
    assert_eq!(
        fake.seen()[3..],
        [CREATE_PRIMARY, CONTEXT_SAVE, FLUSH_CONTEXT, CREATE_PRIMARY]
    );
}

#[test]
fn a_salt_key_is_looked_for_in_the_next_place() {
    let known = || public(&storage_key(), &[0, 0x0B, 1]);
    let signs = || public(&p256_area(IDENTITY, FIXED), &[0, 0x0B, 1]);
    let strange = || public(&stranger(MLKEM), &[0, 0x0B, 1]);
    for (replies, place) in [
        (vec![strange(), known()], Some(0x8101_0001)),
        (vec![signs(), strange(), known()], Some(0x8101_0002)),
        (
            vec![Reply::Code(0x08B), Reply::Code(0x501), known()],
            Some(0x8101_0002),
        ),
        (vec![Reply::Body(vec![0, 9, 1]), known()], Some(0x8101_0001)),
    ] {
        let asked = replies.len();
        let (fake, tpm) = told(replies);
        let found = tpm.salt_key().unwrap();
        assert_eq!(found.handle(), place);
        assert_eq!(tpm.salt_key(), Ok(found), "the key is remembered");
        assert_eq!(fake.seen(), vec![READ_PUBLIC; asked]);
    }
    // No handle contains a key for salts, so a primary key of the NULL hierarchy is made.
    let nowhere = [strange(), Reply::Code(0x18B), Reply::Code(0x084)];
    let (fake, tpm) = told(
        nowhere
            .into_iter()
            .chain([Reply::Code(0x101)])
            .collect::<Vec<_>>(),
    );
    assert_eq!(tpm.salt_key(), Err(ResponseCode(0x101).into()));
    assert_eq!(
        fake.seen(),
        [READ_PUBLIC, READ_PUBLIC, READ_PUBLIC, CREATE_PRIMARY]
    );
}

fn signed(scheme: u16, hash: u16, numbers: &[&[u8]]) -> Reply {
    let numbers = numbers.iter().flat_map(|number| sized(number));
    let head = [scheme.to_be_bytes(), hash.to_be_bytes()].concat();
    Reply::AuthorisedBody(head.into_iter().chain(numbers).collect())
}

#[test]
fn a_signature_by_another_scheme_or_hash_is_no_answer() {
    let sign = |reply: fn() -> Reply| {
        let found = public(&p256_area(IDENTITY, FIXED), &[0, 0x0B, 1]);
        let again = public(&p256_area(IDENTITY, FIXED), &[0, 0x0B, 1]);
        let (fake, tpm) = told([found, reply(), again, reply()]);
        let (_, key) = tpm.persistent_key(0x8102_0000).unwrap();
        let ecdsa = SignatureScheme::Ecdsa(Hash::Sha256);
        let answer = tpm.with_persistent("Sign", &key, &AuthValue::default(), |link, used| {
            link.sign(used, ecdsa, &[7; 32])
        });
        assert_eq!(fake.seen()[1], SIGN);
        answer
    };
    let good = Signature::Ecc {
        r: vec![1],
        s: vec![2],
    };
    assert_eq!(sign(|| longer(signed(0x18, 0x0B, &[&[1], &[2]]))), Ok(good));
    for other in [
        || signed(0x18, 0x0C, &[&[1], &[2]]),
        || signed(0x1A, 0x0B, &[&[1], &[2]]),
        || signed(0x14, 0x0B, &[&[1]]),
        || signed(MLKEM, 0x7777, &[&[1]]),
        || signed(0x10, 0, &[]),
    ] {
        let error = sign(other).unwrap_err();
        assert!(matches!(error, TpmError::WrongAnswer(_)), "{error}");
    }
    for short in [
        || signed(0x18, 0x0B, &[&[1]]),
        || Reply::AuthorisedBody(vec![0]),
    ] {
        let error = sign(short).unwrap_err();
        assert!(matches!(error, TpmError::Unsupported(_)), "{error}");
    }
}

#[test]
fn random_bytes_and_secrets_of_another_size_are_refused() {
    let random = |bytes: &[u8]| Reply::Body(sized(bytes));
    for (wrong, again) in [
        (random(&[1; 9]), random(&[1; 9])),
        (random(&[]), random(&[])),
    ] {
        let (_fake, tpm) = told([wrong, again]);
        let error = tpm.random(&mut [0; 8]).unwrap_err();
        assert!(matches!(error, TpmError::WrongAnswer(_)), "{error}");
    }
    let (_fake, tpm) = told([random(&[1; 3]), longer(random(&[2; 5]))]);
    let mut bytes = [0; 8];
    tpm.random(&mut bytes).unwrap();
    assert_eq!(
        bytes,
        [1, 1, 1, 2, 2, 2, 2, 2],
        "as many commands as the TPM needs"
    );
    let (_fake, tpm) = told([Reply::Body(vec![0, 8, 1])]);
    assert!(matches!(
        tpm.random(&mut bytes),
        Err(TpmError::Unsupported(_))
    ));

    let used = || AuthHandle::open(PERSISTENT, &[]);
    for is_rsa in [true, false] {
        let (_fake, tpm) = told([Reply::AuthorisedBody(vec![0, 9, 1])]);
        let answer = exchange::Exchange::new("test").run(&tpm, |link| match is_rsa {
            true => link.rsa_decrypt(used(), &[1; 256]),
            false => link.ecdh_z(used(), (&[1; 32], &[2; 32])),
        });
        assert!(matches!(answer, Err(TpmError::Unsupported(_))));
    }
}

#[test]
fn codes_that_nothing_knows_are_told_and_the_command_is_not_sent_again() {
    for code in [
        0x97F,
        0x900,
        0xD00,
        0x501,
        0x0BF,
        0xFBF,
        0x17F,
        0x01E,
        0x000B_0123,
    ] {
        let (fake, tpm) = told([Reply::Code(code)]);
        let error = tpm.random(&mut [0]).unwrap_err();
        let TpmError::Response(ResponseCode(told)) = error else {
            panic!("{code:x}: {error}");
        };
        assert_eq!(
            told,
            code & 0xFFFF,
            "without the layer of a resource manager"
        );
        assert_eq!(fake.seen().len(), 1);
    }
}

/// The TPM returns the name instead of the qualified name. Two handles contain the same key.
#[test]
fn a_qualified_name_that_is_the_name_tells_nothing() {
    let area = storage_key();
    let key = StorageKey::from_area(0x8100_0110, &area).unwrap();
    let there = || public(&area, key.name());
    let (_fake, tpm) = told([there()]);
    assert_eq!(
        tpm.lies_below(0x8100_0110, 0x8100_0100, key.name()),
        Ok(None)
    );
    let (_fake, tpm) = told([there()]);
    assert_eq!(tpm.lay_below(key.name(), 0x8100_0100, key.name()), Ok(None));
    let (_fake, tpm) = told([Reply::Code(0x08B)]);
    assert_eq!(
        tpm.lies_below(0x8100_0110, 0x8100_0100, key.name()),
        Ok(Some(false))
    );

    // The template gives the same key, so the key is a primary key.
    let mut other = area.clone();
    *other.last_mut().unwrap() ^= 1;
    for (made, is_primary) in [(&area, true), (&other, false)] {
        let flushed = Reply::Body(Vec::new());
        let primary = fake::primary(0x8000_0000, made, &name_of(made).unwrap());
        let (fake, tpm) = told([there(), primary, flushed]);
        assert_eq!(tpm.is_primary(&key), Ok(is_primary));
        assert_eq!(
            fake.seen()[1..],
            [fake::CREATE_PRIMARY, fake::FLUSH_CONTEXT]
        );
    }
    // The owner's authorisation is missing, so the key is compared with the storage root key.
    let (_fake, tpm) = told([there(), Reply::Code(0x9A2), there()]);
    assert_eq!(tpm.is_primary(&key), Ok(true));
    for place in [SRK, 0x8101_0001] {
        let key = StorageKey::from_area(place, &area).unwrap();
        let (_fake, tpm) = told([there()]);
        assert_eq!(
            tpm.is_primary(&key),
            Ok(true),
            "in the handle of a primary key"
        );
    }
}

#[test]
fn one_proof_is_for_one_scheme_hash_and_curve() {
    let (_fake, tpm) = told([]);
    let PublicArea { key, .. } = PublicArea::parse(&p256_area(IDENTITY, FIXED)).unwrap();
    let rsa =
        PublicKey::from_rsa(include_bytes!("../../testdata/rsa-modulus.bin"), &[1, 0, 1]).unwrap();
    let schemes = [
        SignatureScheme::Ecdsa,
        SignatureScheme::Rsassa,
        SignatureScheme::Rsapss,
    ];
    let mut all: Vec<_> = schemes
        .into_iter()
        .flat_map(|scheme: fn(Hash) -> SignatureScheme| Hash::ALL.map(|hash| Some(scheme(hash))))
        .collect();
    all.push(None);
    let key = |scheme: Option<SignatureScheme>| match scheme {
        Some(SignatureScheme::Ecdsa(_)) => &key,
        _ => &rsa,
    };
    for (at, scheme) in all.iter().enumerate() {
        assert!(!tpm.has_proven(*scheme, key(*scheme)));
        tpm.note_proven(*scheme, key(*scheme));
        let proven = all.iter().filter(|one| tpm.has_proven(**one, key(**one)));
        assert_eq!(proven.count(), at + 1);
    }
    assert!(tpm.for_child(Refusals::default()).has_proven(None, &rsa));
}
