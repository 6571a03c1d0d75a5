//! The number of TPM commands of each action, counted between the module and the TPM.

use cryptoki_sys::*;
use testkit::PROFILES;
use testkit::budgets::commands::{LISTING, LISTING_AGAIN, SIGNATURE};
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{Opened, loaded, ulong};
use testkit::proxy::{Proxy, answer, command};
use testkit::raw::Raw;
use testkit::tpm::Swtpm;

over_both_transports!(
    starting_and_ending_cost_nothing,
    listing_everything_costs_eight_at_most,
    a_signature_costs_one,
    random_bytes_are_the_kernels,
    random_bytes_of_the_tpm_on_demand,
    a_new_generation_is_read_again,
);

struct Bench {
    _tpm: Swtpm,
    proxy: Proxy,
    home: Home,
}

impl Bench {
    fn new(link: Link) -> Bench {
        let (tpm, _identity) = Swtpm::manufactured();
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        Bench {
            _tpm: tpm,
            proxy,
            home,
        }
    }

    #[track_caller]
    fn costs_nothing(&self, what: &str) {
        let seen = self.proxy.book().take();
        assert_eq!(seen.total(), 0, "{what}: {seen:?}");
    }
}

/// Everything a program can ask about without signing.
fn list(raw: &Raw) -> usize {
    let slot = raw.slots(true).unwrap()[0];
    raw.slot_info(slot).unwrap();
    raw.token_info(slot).unwrap();
    for mechanism in raw.mechanisms(slot).unwrap() {
        raw.mechanism_info(slot, mechanism).unwrap();
    }
    let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    let objects = raw.find(session, &[]).unwrap();
    let classes = [
        CKO_PRIVATE_KEY,
        CKO_PUBLIC_KEY,
        CKO_CERTIFICATE,
        CKO_PROFILE,
    ];
    let by_class = classes.map(|class| raw.find(session, &[(CKA_CLASS, ulong(class))]).unwrap());
    assert_eq!(by_class.concat().len(), objects.len());
    for object in &objects {
        for kind in 0..0x400 {
            raw.attribute(session, *object, kind).ok();
        }
    }
    raw.close(session).unwrap();
    objects.len()
}

fn starting_and_ending_cost_nothing(link: Link) {
    let bench = Bench::new(link);
    let raw = loaded(&bench.home);
    bench.costs_nothing("loading");
    raw.initialize().unwrap();
    bench.costs_nothing("C_Initialize");
    raw.finalize().unwrap();
    bench.costs_nothing("C_Finalize, nothing used");
    raw.initialize().unwrap();
    list(&raw);
    assert!(
        bench.proxy.book().take().total() > 0,
        "the proxy sees what comes"
    );
    raw.finalize().unwrap();
    bench.costs_nothing("C_Finalize");
}

fn listing_everything_costs_eight_at_most(link: Link) {
    let bench = Bench::new(link);
    let raw = loaded(&bench.home);
    raw.initialize().unwrap();
    assert_eq!(list(&raw), 4 + PROFILES);
    let seen = bench.proxy.book().take();
    assert!((1..=LISTING).contains(&seen.total()), "{seen:?}");
    for _ in 0..3 {
        list(&raw);
        let seen = bench.proxy.book().take();
        assert_eq!(seen.total(), LISTING_AGAIN, "{seen:?}");
    }
}

fn a_signature_costs_one(link: Link) {
    let bench = Bench::new(link);
    let Opened { raw, slot, session } = Opened::new(&bench.home);
    let key = raw
        .find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))])
        .unwrap()[0];
    bench.proxy.book().take();
    raw.sign_init(session, CKM_ECDSA, key).unwrap();
    raw.sign(session, &[1; 32]).unwrap();
    let first = bench.proxy.book().take();
    assert_eq!(first.answered(command::SIGN, 0), 1, "{first:?}");
    // The TPM itself answers RETRY to its first use of a key that is not noDA.
    assert_eq!(
        first.total() - first.answered(command::SIGN, answer::RETRY),
        SIGNATURE,
        "{first:?}"
    );
    for mechanism in [
        CKM_ECDSA,
        CKM_ECDSA_SHA256,
        CKM_ECDSA_SHA384,
        CKM_ECDSA_SHA512,
    ] {
        for _ in 0..5 {
            raw.sign_init(session, mechanism, key).unwrap();
            bench.costs_nothing("C_SignInit");
            raw.sign_into(session, &[2; 20], None);
            raw.sign_into(session, &[2; 20], Some(&mut [0; 7]));
            bench.costs_nothing("asking for the length");
            raw.sign(session, &[2; 20]).unwrap();
            let seen = bench.proxy.book().take();
            assert_eq!(
                (seen.total(), seen.of(command::SIGN)),
                (SIGNATURE, 1),
                "{seen:?}"
            );
        }
    }
    raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
    raw.sign_update(session, &[3; 5000]).unwrap();
    raw.sign_final_into(session, None);
    raw.sign_final_into(session, Some(&mut [0; 7]));
    bench.costs_nothing("parts of a message");
    raw.sign_final(session).unwrap();
    assert_eq!(bench.proxy.book().take().total(), 1);
    raw.sign_init(session, CKM_ECDSA, key).unwrap();
    raw.sign(session, &[0; 65]).unwrap_err();
    bench.costs_nothing("what is refused");
    // Nor does a new session make a difference.
    raw.close(session).unwrap();
    let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    raw.sign_init(session, CKM_ECDSA, key).unwrap();
    raw.sign(session, &[1; 32]).unwrap();
    assert_eq!(bench.proxy.book().take().total(), 1);
}

fn random_bytes_are_the_kernels(link: Link) {
    let bench = Bench::new(link);
    let module = Opened::new(&bench.home);
    bench.proxy.book().take();
    assert_ne!(module.raw.random(module.session, 64).unwrap(), [0; 64]);
    bench.costs_nothing("C_GenerateRandom");
}

fn random_bytes_of_the_tpm_on_demand(link: Link) {
    let bench = Bench::new(link);
    bench.home.write("config.toml", "random = \"tpm\"\n");
    let module = Opened::new(&bench.home);
    bench.proxy.book().take();
    let bytes = module.raw.random(module.session, 200).unwrap();
    let distinct: std::collections::BTreeSet<_> = bytes.chunks(8).collect();
    assert_eq!(
        distinct.len(),
        25,
        "no part is repeated or left empty: {bytes:?}"
    );
    let seen = bench.proxy.book().take();
    assert!(
        seen.of(command::GET_RANDOM) >= 4,
        "a TPM gives at most a digest at a time: {seen:?}"
    );
}

/// `devid` says by this file that it changed something.
fn a_new_generation_is_read_again(link: Link) {
    let bench = Bench::new(link);
    let raw = loaded(&bench.home);
    raw.initialize().unwrap();
    list(&raw);
    bench.proxy.book().take();
    bench.home.write("run/generation", "1");
    assert_eq!(list(&raw), 4 + PROFILES);
    let seen = bench.proxy.book().take();
    assert!(seen.total() > 0, "read again");
    list(&raw);
    bench.costs_nothing("the same generation");
}
