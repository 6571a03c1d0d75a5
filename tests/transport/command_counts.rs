//! The number of TPM commands of each action, counted between the module and the TPM.

use cryptoki_sys::*;
use testkit::PROFILES;
use testkit::budgets::commands::*;
use testkit::budgets::is_exactly;
use testkit::factory::Identity;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{Opened, loaded, ulong};
use testkit::proxy::Proxy;
use testkit::raw::Raw;
use testkit::tpm::Swtpm;

over_both_transports!(
    starting_and_ending_cost_nothing,
    a_listing_is_read_once,
    a_factory_key_in_a_handle,
    random_bytes_are_the_kernels,
    random_bytes_of_the_tpm_on_demand,
    a_new_generation_is_read_again,
);

struct Bench {
    _tpm: Swtpm,
    identity: Identity,
    proxy: Proxy,
    home: Home,
}

impl Bench {
    fn new(link: Link) -> Bench {
        let (tpm, identity) = Swtpm::manufactured();
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        Bench {
            _tpm: tpm,
            identity,
            proxy,
            home,
        }
    }

    /// Compares the commands since the last comparison with their budget.
    #[track_caller]
    fn costs(&self, what: &str, budget: &[u32]) {
        is_exactly(what, &self.proxy.book().take(), budget);
    }

    fn listing(&self) -> Vec<u32> {
        listing(&self.identity)
    }

    #[track_caller]
    fn costs_nothing(&self, what: &str) {
        self.costs(what, NOTHING);
    }
}

/// Everything a program can ask about without signing.
fn list(raw: &Raw) -> usize {
    let slot = raw.slots(true).unwrap()[0];
    let mut info = CK_INFO::default();
    call!(raw.table, C_GetInfo(&raw mut info)).result().unwrap();
    raw.slot_info(slot).unwrap();
    raw.token_info(slot).unwrap();
    for mechanism in raw.mechanisms(slot).unwrap() {
        raw.mechanism_info(slot, mechanism).unwrap();
    }
    let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    raw.session_info(session).unwrap();
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
    bench.costs("a listing", &bench.listing());
    raw.finalize().unwrap();
    bench.costs_nothing("C_Finalize");
}

fn a_listing_is_read_once(link: Link) {
    let bench = Bench::new(link);
    let raw = loaded(&bench.home);
    raw.initialize().unwrap();
    assert_eq!(list(&raw), 4 + PROFILES);
    bench.costs("a listing", &bench.listing());
    for _ in 0..3 {
        list(&raw);
        bench.costs_nothing("a listing, again");
    }
}

fn a_factory_key_in_a_handle(link: Link) {
    let bench = Bench::new(link);
    let Opened { raw, slot, session } = Opened::new(&bench.home);
    let key = raw
        .find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))])
        .unwrap()[0];
    bench.proxy.book().take();
    raw.sign_init(session, CKM_ECDSA, key).unwrap();
    raw.sign(session, &[1; 32]).unwrap();
    let first = bench.proxy.book().take().without_retries();
    is_exactly("C_Sign, first of a process", &first, SIGNATURE);
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
            bench.costs("C_Sign", SIGNATURE);
        }
    }
    raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
    raw.sign_update(session, &[3; 5000]).unwrap();
    raw.sign_final_into(session, None);
    raw.sign_final_into(session, Some(&mut [0; 7]));
    bench.costs_nothing("parts of a message");
    raw.sign_final(session).unwrap();
    bench.costs("C_SignFinal", SIGNATURE);
    raw.sign_init(session, CKM_ECDSA, key).unwrap();
    raw.sign(session, &[0; 65]).unwrap_err();
    bench.costs_nothing("what is refused");
    // Nor does a new session make a difference.
    raw.close(session).unwrap();
    let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
    raw.sign_init(session, CKM_ECDSA, key).unwrap();
    raw.sign(session, &[1; 32]).unwrap();
    bench.costs("C_Sign in a new session", SIGNATURE);
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
    // A command asks for 32 bytes at most.
    bench.costs("200 random bytes of the TPM", &RANDOM.repeat(7));
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
    bench.costs("a listing of a new generation", LISTING_ANEW);
    list(&raw);
    bench.costs_nothing("the same generation");
}
