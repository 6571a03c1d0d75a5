//! Signatures that OpenSSL verifies: every mechanism, every length, single-part and multi-part, and
//! the ways to ask for the length.

use cryptoki_sys::*;
use testkit::fronts::{Device, Simulator};
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::Opened;
use testkit::openssl::{self, Verifier};
use testkit::proxy::{Fault, Proxy, command};
use testkit::raw::Code;
use testkit::tpm::Swtpm;

over_both_transports!(
    digests_of_every_length,
    no_data_and_too_much,
    messages_of_every_hash,
    a_message_in_parts,
    the_length_is_told_and_the_operation_lives,
    many_signatures_are_all_valid,
    short_numbers_are_padded,
    a_key_that_leaves_the_scheme_open,
    through_the_simulators_protocol,
    through_a_character_device,
);
once!(through_a_unix_socket);

const HASHES: [(CK_ULONG, &str); 3] = [
    (CKM_ECDSA_SHA256, "-sha256"),
    (CKM_ECDSA_SHA384, "-sha384"),
    (CKM_ECDSA_SHA512, "-sha512"),
];

/// A device, its module opened, and the judge of its signatures.
struct Bench {
    _tpm: Swtpm,
    _home: Home,
    module: Opened,
    key: CK_ULONG,
    judge: Verifier,
}

impl Bench {
    fn new(link: Link) -> Bench {
        Bench::with(link, &[])
    }

    fn with(link: Link, options: &[&str]) -> Bench {
        let (tpm, identity) = Swtpm::manufactured_with(options);
        let home = Home::new(&link.tcti(&tpm.tcti()));
        let module = Opened::new(&home);
        let key = module.key();
        let judge = Verifier::new(&identity.public_key());
        Bench {
            _tpm: tpm,
            _home: home,
            module,
            key,
            judge,
        }
    }

    /// Digests of every length and messages of every hash, once each.
    fn signs_everything(&self) {
        for length in [1, 20, 28, 31, 32, 33, 48, 64] {
            let digest = bytes(length);
            let signature = self.module.sign(CKM_ECDSA, self.key, &digest);
            let signature = signature.unwrap_or_else(|why| panic!("{length} bytes: {why:?}"));
            assert_eq!(signature.len(), 64, "{length} bytes");
            self.judge.accepts_digest(&digest, &signature).ok();
        }
        for (mechanism, hash) in HASHES {
            for length in [0, 1, 55, 56, 64, 111, 112, 128, 1000, 100_000] {
                let data = bytes(length);
                let signature = self.module.sign(mechanism, self.key, &data);
                let signature = signature.unwrap_or_else(|why| panic!("{hash} {length}: {why:?}"));
                self.judge.accepts_message(hash, &data, &signature).ok();
            }
        }
    }
}

/// Bytes without a pattern that a mistake could hide in, the same in each run.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64 ^ length as u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn digests_of_every_length(link: Link) {
    let bench = Bench::new(link);
    for length in 1..=64 {
        let digest = bytes(length);
        let signature = bench.module.sign(CKM_ECDSA, bench.key, &digest);
        let signature = signature.unwrap_or_else(|why| panic!("{length} bytes: {why:?}"));
        assert_eq!(signature.len(), 64, "{length} bytes");
        bench.judge.accepts_digest(&digest, &signature).ok();
    }
    let digest = [0; 32];
    let signature = bench.module.sign(CKM_ECDSA, bench.key, &digest).unwrap();
    bench.judge.accepts_digest(&digest, &signature).ok();
    let other = bench.judge.accepts_digest(&[1; 32], &signature);
    assert!(
        !other.status.success(),
        "the judge refuses another digest: {other}"
    );
}

fn no_data_and_too_much(link: Link) {
    let bench = Bench::new(link);
    for length in [0, 65, 128, 5000] {
        let answer = bench.module.sign(CKM_ECDSA, bench.key, &bytes(length));
        assert_eq!(answer, Err(Code(CKR_DATA_LEN_RANGE)), "{length} bytes");
        let again = bench.module.raw.sign(bench.module.session, &bytes(32));
        assert_eq!(
            again,
            Err(Code(CKR_OPERATION_NOT_INITIALIZED)),
            "it ended with the error"
        );
    }
    bench.module.sign(CKM_ECDSA, bench.key, &bytes(32)).unwrap();
}

fn messages_of_every_hash(link: Link) {
    let bench = Bench::new(link);
    bench.signs_everything();
}

fn a_message_in_parts(link: Link) {
    let bench = Bench::new(link);
    let (raw, session) = (&bench.module.raw, bench.module.session);
    let parts: [&[usize]; 6] = [
        &[],
        &[0],
        &[1, 1, 1],
        &[63, 1, 64, 129],
        &[0, 5, 0, 1000],
        &[70_000, 3],
    ];
    for (mechanism, hash) in HASHES {
        for lengths in parts {
            let data = bytes(lengths.iter().sum());
            raw.sign_init(session, mechanism, bench.key).unwrap();
            let mut at = 0;
            for length in lengths {
                raw.sign_update(session, &data[at..at + length]).unwrap();
                at += length;
            }
            let signature = raw.sign_final(session).unwrap();
            assert_eq!(signature.len(), 64, "{hash} {lengths:?}");
            bench.judge.accepts_message(hash, &data, &signature).ok();
        }
        raw.sign_init(session, mechanism, bench.key).unwrap();
        raw.sign_update(session, b"a part").unwrap();
        let answer = raw.sign(session, b"and the whole");
        assert!(
            answer.is_err(),
            "C_Sign cannot end what C_SignUpdate began: {answer:?}"
        );
        raw.sign_final(session).ok();
        let answer = raw.sign_update(session, b"");
        assert_eq!(answer, Err(Code(CKR_OPERATION_NOT_INITIALIZED)));
    }
}

fn the_length_is_told_and_the_operation_lives(link: Link) {
    let bench = Bench::new(link);
    let (raw, session) = (&bench.module.raw, bench.module.session);
    let data = bytes(32);
    for mechanism in [
        CKM_ECDSA,
        CKM_ECDSA_SHA256,
        CKM_ECDSA_SHA384,
        CKM_ECDSA_SHA512,
    ] {
        raw.sign_init(session, mechanism, bench.key).unwrap();
        for _ in 0..2 {
            assert_eq!(raw.sign_into(session, &data, None), (Code(CKR_OK), 64));
            let too_small = raw.sign_into(session, &data, Some(&mut [0; 63]));
            assert_eq!(too_small, (Code(CKR_BUFFER_TOO_SMALL), 64));
        }
        let mut room = [0xEE; 80];
        assert_eq!(
            raw.sign_into(session, &data, Some(&mut room)),
            (Code(CKR_OK), 64)
        );
        assert_eq!(
            room[64..],
            [0xEE; 16],
            "nothing beyond the signature is written"
        );
        match mechanism {
            CKM_ECDSA => bench.judge.accepts_digest(&data, &room[..64]).ok(),
            _ => {
                let hash = HASHES.iter().find(|known| known.0 == mechanism).unwrap().1;
                bench.judge.accepts_message(hash, &data, &room[..64]).ok()
            }
        };
        assert_eq!(
            raw.sign(session, &data),
            Err(Code(CKR_OPERATION_NOT_INITIALIZED))
        );
    }
    for (mechanism, hash) in HASHES {
        raw.sign_init(session, mechanism, bench.key).unwrap();
        raw.sign_update(session, &data).unwrap();
        for _ in 0..2 {
            assert_eq!(raw.sign_final_into(session, None), (Code(CKR_OK), 64));
            let too_small = raw.sign_final_into(session, Some(&mut [0; 10]));
            assert_eq!(too_small, (Code(CKR_BUFFER_TOO_SMALL), 64));
        }
        let mut room = [0; 64];
        assert_eq!(
            raw.sign_final_into(session, Some(&mut room)),
            (Code(CKR_OK), 64)
        );
        bench.judge.accepts_message(hash, &data, &room).ok();
        assert_eq!(
            raw.sign_final(session),
            Err(Code(CKR_OPERATION_NOT_INITIALIZED))
        );
    }
}

fn many_signatures_are_all_valid(link: Link) {
    let bench = Bench::new(link);
    for round in 0..300 {
        let digest = another_digest(round);
        let signature = bench.module.sign(CKM_ECDSA, bench.key, &digest).unwrap();
        assert_eq!(signature.len(), 64);
        bench.judge.accepts_digest(&digest, &signature).ok();
    }
}

/// Another digest each round.
fn another_digest(round: u64) -> Vec<u8> {
    let mut digest = bytes(32);
    digest[..8].copy_from_slice(&round.to_be_bytes());
    digest
}

/// Hardware may leave out leading zeros of r and s; PKCS#11 wants both at full width.
fn short_numbers_are_padded(link: Link) {
    let (tpm, identity) = Swtpm::manufactured();
    let proxy = Proxy::new(&tpm);
    proxy
        .book()
        .break_times(command::SIGN, Fault::Shorten, u32::MAX);
    let home = Home::new(&link.tcti(&proxy.tcti()));
    let module = Opened::new(&home);
    let (key, judge) = (module.key(), Verifier::new(&identity.public_key()));
    let (mut short_r, mut short_s) = (0, 0);
    // One number in 256 is short. The odds that none occurs here are 1 to 10^9.
    for round in 0..6000 {
        let digest = another_digest(round);
        let signature = module.sign(CKM_ECDSA, key, &digest).unwrap();
        assert_eq!(signature.len(), 64);
        let (r, s) = (signature[0] == 0, signature[32] == 0);
        if r || s {
            judge.accepts_digest(&digest, &signature).ok();
            short_r += u32::from(r);
            short_s += u32::from(s);
        }
        if short_r > 0 && short_s > 0 {
            return;
        }
    }
    panic!("{short_r} short r, {short_s} short s in 6000 signatures");
}

/// The factory may leave the key's scheme open; then the hash is ours to choose.
fn a_key_that_leaves_the_scheme_open(link: Link) {
    let bench = Bench::with(link, &["--scheme", "null"]);
    bench.signs_everything();
}

fn through_the_simulators_protocol(link: Link) {
    let (tpm, identity) = Swtpm::manufactured();
    let front = Simulator::new(&tpm);
    signs_once(&link.tcti(&front.tcti()), &identity.public_key());
    assert!(front.book().take().of(command::SIGN) > 0);
}

fn through_a_character_device(link: Link) {
    let (tpm, identity) = Swtpm::manufactured();
    let front = Device::new(&tpm);
    signs_once(&link.tcti(&front.tcti()), &identity.public_key());
    assert!(front.book().take().of(command::SIGN) > 0);
}

fn through_a_unix_socket() {
    let (tpm, identity) = Swtpm::manufactured_on_unix_socket();
    signs_once(&tpm.tcti(), &identity.public_key());
}

fn signs_once(tcti: &str, public_key: &std::path::Path) {
    let home = Home::new(tcti);
    let module = Opened::new(&home);
    let digest = openssl::digest("-sha256", b"a door like the others");
    for _ in 0..3 {
        let signature = module.sign(CKM_ECDSA, module.key(), &digest).unwrap();
        Verifier::new(public_key)
            .accepts_digest(&digest, &signature)
            .ok();
    }
    module.raw.finalize().unwrap();
}
