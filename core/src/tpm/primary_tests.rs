//! Tests of primary keys, with prepared responses of a fake TPM.

use super::fake::{
    CONTEXT_LOAD, CONTEXT_SAVE, CREATE_PRIMARY, FIXED, FLUSH_CONTEXT, FakeTpm, IDENTITY,
    READ_PUBLIC, Reply, SIGN, p256_area, primary, public, signature,
};
use super::*;
use crate::key::PublicKey;
use crate::tpm::policy::DevIdKind;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);
const HANDLE: u32 = 0x8000_0000;
/// The size of the field `unique` of a P-256 key, in bytes.
const POINT: usize = 2 * (2 + 32);

fn certified() -> PublicKey {
    PublicArea::parse(&p256_area(IDENTITY, FIXED)).unwrap().key
}

/// Returns the public area for candidate number `candidate`, with the point of the certified key.
fn area_of(candidate: usize) -> Vec<u8> {
    let candidates = template::devid_candidates(DevIdKind::Identity, &certified());
    // The field `unique` of the fourth template is empty: it consists of two sizes.
    let rest = candidates[3].len() - 4;
    let point = p256_area(IDENTITY, FIXED);
    let point = &point[point.len() - POINT..];
    [&candidates[candidate][..rest], point].concat()
}

fn area() -> Vec<u8> {
    area_of(0)
}

fn name() -> Vec<u8> {
    name_of(&area()).unwrap()
}

fn derived_by(candidate: usize) -> Reply {
    let area = area_of(candidate);
    primary(HANDLE, &area, &name_of(&area).unwrap())
}

fn derived() -> Reply {
    derived_by(0)
}

fn flushed() -> Reply {
    Reply::Body(Vec::new())
}

/// Returns a TPMS_CONTEXT in the endorsement hierarchy.
fn context() -> Reply {
    let mut body = vec![0; 7];
    body.extend([1, 0x80, 0, 0, 0, 0x40, 0, 0, 0x0B]);
    body.extend(sized(&[9; 40]));
    Reply::Body(body)
}

fn loaded() -> Reply {
    Reply::Body(HANDLE.to_be_bytes().to_vec())
}

fn signed() -> Reply {
    signature(&[1], &[2])
}

fn named(name: &[u8]) -> Reply {
    public(&area(), name)
}

fn sign(tpm: &Tpm, key: &PrimaryKey) -> Result<Signature, TpmError> {
    tpm.with_primary("Sign", key, |link, used| {
        link.sign(used, SignatureScheme::Ecdsa(Hash::Sha256), &[7; 32])
    })
}

#[test]
fn a_refused_template_costs_that_candidate_only() {
    // CURVE, HASH, SCHEME, VALUE and HANDLE without a parameter number; CURVE with parameter number
    // 2; a vendor code; AUTH_UNAVAILABLE.
    for code in [0x0A6, 0x083, 0x092, 0x084, 0x08B, 0x2E6, 0x501, 0x12F] {
        let fake = FakeTpm::new([Reply::Code(code), derived_by(1), context(), flushed()]);
        let found = fake
            .tpm(LIMIT)
            .find_primary_key(&certified(), None)
            .unwrap();
        assert!(found.is_some(), "{code:x}");
    }
    // A TPMT_PUBLIC of an unknown type (TPM_ALG_ID 0x00A0).
    let strange = Reply::Made(HANDLE, sized(&[0, 0xA0, 0, 0x0B, 7, 7]));
    let fake = FakeTpm::new([strange, derived_by(1), context(), flushed()]);
    assert!(
        fake.tpm(LIMIT)
            .find_primary_key(&certified(), None)
            .unwrap()
            .is_some()
    );
    // The hierarchy or the TPM refuses the command, not the template. No other candidate is tried.
    for code in [0x185, 0x085, 0x101, 0x97F] {
        let fake = FakeTpm::new([Reply::Code(code)]);
        let tried = fake.tpm(LIMIT).find_primary_key(&certified(), None);
        assert_eq!(tried.unwrap_err(), TpmError::Response(ResponseCode(code)));
    }
}

#[test]
fn a_context_is_proven_once_and_then_costs_three_commands() {
    let fake = FakeTpm::new([
        derived(),
        context(),
        flushed(), //
        loaded(),
        named(&name()),
        signed(),
        flushed(), //
        loaded(),
        signed(),
        flushed(),
    ]);
    let tpm = fake.tpm(LIMIT);
    let (_, key) = tpm.find_primary_key(&certified(), None).unwrap().unwrap();
    sign(&tpm, &key).unwrap();
    sign(&tpm, &key).unwrap();
    let made = [CREATE_PRIMARY, CONTEXT_SAVE, FLUSH_CONTEXT];
    let first = [CONTEXT_LOAD, READ_PUBLIC, SIGN, FLUSH_CONTEXT];
    let later = [CONTEXT_LOAD, SIGN, FLUSH_CONTEXT];
    assert_eq!(fake.seen(), [&made[..], &first, &later].concat());
}

#[test]
fn a_context_that_is_refused_leads_to_a_new_derivation() {
    // INTEGRITY, HANDLE, VALUE and SIZE, with a parameter number and without; REFERENCE_H0;
    // CONTEXT_GAP; a vendor code; BAD_CONTEXT.
    for code in [
        0x1DF, 0x09F, 0x08B, 0x184, 0x084, 0x095, 0x910, 0x901, 0x501, 0x150,
    ] {
        let fake = FakeTpm::new([
            derived(),
            context(),
            flushed(), //
            Reply::Code(code),
            derived(),
            context(),
            signed(),
            flushed(),
        ]);
        let tpm = fake.tpm(LIMIT);
        let (_, key) = tpm.find_primary_key(&certified(), None).unwrap().unwrap();
        assert!(sign(&tpm, &key).is_ok(), "{code:x}");
    }
}

#[test]
fn a_context_that_brings_another_key_back_is_given_up() {
    let fake = FakeTpm::new([
        derived(),
        context(),
        flushed(), //
        loaded(),
        named(&[0, 0x0B, 9]),
        flushed(),
        derived(),
        signed(),
        flushed(), //
        derived(),
        signed(),
        flushed(),
    ]);
    let tpm = fake.tpm(LIMIT);
    let (_, key) = tpm.find_primary_key(&certified(), None).unwrap().unwrap();
    sign(&tpm, &key).unwrap();
    sign(&tpm, &key).unwrap();
    let anew = [CREATE_PRIMARY, SIGN, FLUSH_CONTEXT];
    assert_eq!(fake.seen()[6..], [anew, anew].concat());
}

/// Each candidate has the whole time limit. All candidates together may take longer.
#[test]
fn each_candidate_has_the_whole_limit() {
    const PATIENCE: Duration = Duration::from_secs(3);
    // Pauses of 1, 2, 4 … 128 ms and seven of 200 ms: together more than half the limit.
    let slow = || (0..15).map(|_| Reply::Code(0x922));
    let other = || [Reply::Code(0x2E6)];
    let replies = slow().chain(other()).chain(slow()).chain(other());
    let found = [derived_by(2), context(), flushed()];
    let fake = FakeTpm::new(replies.chain(found));
    let found = fake.tpm(PATIENCE).find_primary_key(&certified(), None);
    assert!(found.unwrap().is_some());
}

#[test]
fn a_tpm_that_saves_no_context_derives_the_key_for_each_use() {
    for refused in [
        Reply::Code(0x501),
        Reply::Code(0x143),
        Reply::Body(vec![1, 2]),
    ] {
        let fake = FakeTpm::new([
            derived(),
            refused,
            flushed(), //
            derived(),
            signed(),
            flushed(),
        ]);
        let tpm = fake.tpm(LIMIT);
        let (_, key) = tpm.find_primary_key(&certified(), None).unwrap().unwrap();
        sign(&tpm, &key).unwrap();
    }
}

#[test]
fn a_tpm_without_room_to_save_a_context_is_asked_again() {
    let full = || Reply::Code(0x904);
    let fake = FakeTpm::new([
        derived(),
        full(),
        flushed(), //
        derived(),
        full(),
        signed(),
        flushed(), //
        derived(),
        context(),
        signed(),
        flushed(), //
    ]);
    let tpm = fake.tpm(LIMIT);
    let (_, key) = tpm.find_primary_key(&certified(), None).unwrap().unwrap();
    sign(&tpm, &key).unwrap();
    sign(&tpm, &key).unwrap();
}

#[test]
fn another_seed_is_told() {
    let other = || {
        let mut area = area();
        let y = area.len() - 1;
        area[y] ^= 1;
        primary(HANDLE, &area, &name_of(&area).unwrap())
    };
    let fake = FakeTpm::new([
        derived(),
        context(),
        flushed(), //
        Reply::Code(0x1DF),
        other(),
        flushed(),
    ]);
    let tpm = fake.tpm(LIMIT);
    let (_, key) = tpm.find_primary_key(&certified(), None).unwrap().unwrap();
    assert_eq!(sign(&tpm, &key), Err(TpmError::SeedChanged));
}
