//! The number of TPM commands for the device's own keys. The commands are counted between module
//! and TPM, or between resource manager and TPM.

use cryptoki_sys::*;
use std::fs;
use std::time::Instant;
use testkit::budgets::commands::*;
use testkit::budgets::{is_exactly, managed};
use testkit::devid::{
    Bench, IN_FILE, Kind, Own, PERSISTENT, PROTECTION, SEALED, TPM_PUBLIC, copy_key, folder, label,
    yes,
};
use testkit::home::Home;
use testkit::link::Link;
use testkit::managers::{Broker, Kernel};
use testkit::module::ulong;
use testkit::own::{P256, YES, allow_files};
use testkit::pins;
use testkit::proxy::{Proxy, Seen};
use testkit::raw::Item;
use testkit::tpm::Swtpm;

over_both_transports!(
    each_storage_has_its_costs,
    a_key_that_is_brought_costs_a_proof,
    a_file_key_costs_nothing,
    other_objects_cost_nothing,
    a_thousand_pairs_are_listed_without_the_tpm,
    keys_stay_loaded_behind_the_kernels_manager,
    nine_keys_take_turns_in_eight_places,
    a_dropped_connection_costs_a_load,
);
// libtss2 alone speaks to tpm2-abrmd.
once!(a_key_stays_loaded_behind_tpm2_abrmd);

/// Signs `times` times, and OpenSSL accepts each.
#[track_caller]
fn sign(own: &Own, key: CK_OBJECT_HANDLE, times: usize) {
    for _ in 0..times {
        own.signs(key);
    }
}

/// The TPM commands of a key in one storage.
struct Costs {
    storage: &'static str,
    /// The attributes of the private key that choose the storage.
    private: Vec<Item>,
    generation: Vec<u32>,
    /// The first signature of a process, and each further signature.
    first: Vec<u32>,
    signature: &'static [u32],
    destruction: &'static [u32],
}

impl Costs {
    /// Returns the costs of each storage on a bare TPM.
    fn bare() -> [Costs; 3] {
        Costs::with(<[u32]>::to_vec, SIGNATURE_WRAPPED)
    }

    /// Returns the costs of each storage behind a resource manager.
    fn managed() -> [Costs; 3] {
        Costs::with(|budget| managed(budget).to_vec(), SIGNATURE_LOADED)
    }

    /// `without_flush` removes the flush at the end of a budget behind a resource manager. `wrapped`
    /// is a further signature by a key in a file.
    fn with(without_flush: fn(&[u32]) -> Vec<u32>, wrapped: &'static [u32]) -> [Costs; 3] {
        let generation = without_flush(GENERATION);
        [
            Costs {
                storage: "in a file, wrapped",
                private: vec![],
                generation: generation.clone(),
                first: without_flush(SIGNATURE_WRAPPED),
                signature: wrapped,
                destruction: NOTHING,
            },
            Costs {
                storage: "in a persistent handle",
                private: vec![yes(PERSISTENT)],
                generation: [generation, without_flush(PERSISTENCE)].concat(),
                first: [HANDLE_CHECK, SIGNATURE].concat(),
                signature: SIGNATURE,
                destruction: EVICTION,
            },
            Costs {
                storage: "sealed",
                private: vec![(PROTECTION, ulong(SEALED))],
                generation: GENERATION_SEALED.to_vec(),
                first: [SALT_KEY, &without_flush(OPENING_OF_A_KEY)].concat(),
                signature: NOTHING,
                destruction: NOTHING,
            },
        ]
    }

    /// Makes a key pair, signs in this process and in a new process, and destroys the pair.
    #[track_caller]
    fn apply(&self, take: &dyn Fn() -> Seen, own: Own, kind: Kind) -> Own {
        let what = |doing: &str| format!("{}, {kind:?}: {doing}", self.storage);
        let is = |doing: &str, budget: &[u32]| is_exactly(&what(doing), &take(), budget);
        let both = [label("key"), yes(CKA_TOKEN)];
        take();
        let pair = own.make_with(kind, &both, &self.private).unwrap();
        is("C_GenerateKeyPair", &self.generation);
        sign(&own, pair.private, 1);
        take();
        sign(&own, pair.private, 5);
        is("C_Sign, five times", &self.signature.repeat(5));
        let own = own.anew();
        let key = own.key_called("key");
        take();
        sign(&own, key, 1);
        is("C_Sign, first of a process", &self.first);
        sign(&own, key, 2);
        is("C_Sign, twice more", &self.signature.repeat(2));
        own.destroy(key).unwrap();
        is("C_DestroyObject, private key", self.destruction);
        let public = own.labelled("key");
        assert_eq!(public.len(), 1);
        own.destroy(public[0]).unwrap();
        is("C_DestroyObject, public key", NOTHING);
        own
    }
}

fn each_storage_has_its_costs(link: Link) {
    let bench = Bench::new(link);
    let book = bench.proxy.book();
    let mut own = Own::new(&bench.home);
    book.take();
    own.make(Kind::P256, "first").unwrap();
    let first = [MASTER_KEY, &GENERATION[1..]].concat();
    is_exactly("the first key of a device", &book.take(), &first);
    // The first RSA key asks once for the algorithms of the TPM.
    own.make(Kind::Rsa(2048), "second").unwrap();
    for kind in [Kind::P256, Kind::Rsa(2048)] {
        for costs in Costs::bare() {
            own = costs.apply(&|| book.take(), own, kind);
        }
    }
    // The key of a session is wrapped too.
    book.take();
    let of_session = own.make_with(Kind::P256, &[], &[]).unwrap();
    is_exactly("a session key", &book.take(), GENERATION);
    sign(&own, of_session.private, 5);
    let budget = SIGNATURE_WRAPPED.repeat(5);
    is_exactly("a session key signs", &book.take(), &budget);
    own.destroy(of_session.private).unwrap();
    is_exactly("a session key goes", &book.take(), NOTHING);
}

/// C_CreateObject with a private key.
fn a_key_that_is_brought_costs_a_proof(link: Link) {
    let bench = Bench::new(link);
    let book = bench.proxy.book();
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "first").unwrap();
    let persistence = [IMPORT_OF_A_KEY, PERSISTENCE].concat();
    for (storage, budget) in [
        (None, IMPORT_OF_A_KEY),
        (Some(yes(PERSISTENT)), &persistence[..]),
        (Some((PROTECTION, ulong(SEALED))), GENERATION_SEALED),
    ] {
        let template: Vec<Item> = [
            (CKA_CLASS, ulong(CKO_PRIVATE_KEY)),
            (CKA_KEY_TYPE, ulong(CKK_EC)),
            (CKA_TOKEN, YES.to_vec()),
            (CKA_EC_PARAMS, P256.to_vec()),
            (CKA_VALUE, vec![7; 32]),
        ]
        .into_iter()
        .chain(storage.clone())
        .collect();
        book.take();
        let key = own.create(&template).unwrap();
        is_exactly(
            &format!("C_CreateObject, {storage:?}"),
            &book.take(),
            budget,
        );
        own.destroy(key).unwrap();
    }
}

fn a_file_key_costs_nothing(link: Link) {
    let bench = Bench::new(link);
    let book = bench.proxy.book();
    allow_files(&bench.home);
    let mut own = Own::on(&bench.home, "files");
    // Slot 0 looks for its identity, which this TPM does not have.
    book.take();
    for kind in [Kind::P256, Kind::Rsa(2048)] {
        let both = [label("key"), yes(CKA_TOKEN)];
        let file = [(PROTECTION, ulong(IN_FILE))];
        own.make_with(kind, &both, &file).unwrap();
        own.raw.finalize().unwrap();
        own.raw.initialize().unwrap();
        own = Own::with(own.0.raw, "files");
        book.take();
        let key = own.key_called("key");
        sign(&own, key, 5);
        for object in own.labelled("key") {
            own.destroy(object).unwrap();
        }
        own.make_with(kind, &both, &file).unwrap();
        is_exactly(&format!("a file key, {kind:?}"), &book.take(), NOTHING);
        for object in own.labelled("key") {
            own.destroy(object).unwrap();
        }
    }
}

/// Data objects, certificates and attributes are files. The TPM has no part in them.
fn other_objects_cost_nothing(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let key = own.make(Kind::P256, "key").unwrap().private;
    bench.proxy.book().take();
    let data = own.create_data("data", b"value").unwrap();
    own.change(data, &[label("changed")]).unwrap();
    own.change(key, &[label("renamed"), (CKA_ID, b"id".to_vec())])
        .unwrap();
    assert_eq!(own.attribute(key, CKA_ID), b"id");
    let (table, session, null) = (own.raw.table, own.session, std::ptr::null_mut());
    let mut copy = 0;
    let copied = call!(table, C_CopyObject(session, data, null, 0, &raw mut copy));
    copied.result().unwrap();
    own.destroy(copy).unwrap();
    own.destroy(data).unwrap();
    is_exactly("data and attributes", &bench.proxy.book().take(), NOTHING);
}

/// As many files as pairs; all of one key, since it is the files that are read.
fn a_thousand_pairs_are_listed_without_the_tpm(link: Link) {
    const PAIRS: usize = 1000;
    // A slot without identity would look for one again each second.
    let bench = pins::Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "original").unwrap();
    own.raw.finalize().unwrap();
    copy_key(&folder(&bench.home), "original", 1..PAIRS);
    bench.proxy.book().take();

    let begun = Instant::now();
    let own = Own::new(&bench.home);
    let keys = own.keys();
    let listed = begun.elapsed();
    assert_eq!(keys.len(), PAIRS);
    for key in &keys {
        own.label(*key);
        own.attribute(*key, TPM_PUBLIC);
    }
    assert_eq!(own.labels(CKO_PUBLIC_KEY).len(), PAIRS);
    let read = begun.elapsed();
    let again = Instant::now();
    assert_eq!(
        own.key_called("999"),
        own.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY)), label("999")])[0]
    );
    println!(
        "\n{PAIRS} pairs: listed {listed:?}, with attributes {read:?}, two searches {:?}",
        again.elapsed()
    );
    let seen = bench.proxy.book().take();
    is_exactly("a thousand pairs", &seen, &listing(&bench.identity));
    a_new_look_costs_nothing(&bench, &own, PAIRS);
    sign(&own, own.key_called("999"), 1);
}

/// The token that has the keys is looked at anew, and all is listed, with no command at all.
#[track_caller]
fn a_new_look_costs_nothing(bench: &pins::Bench, own: &Own, pairs: usize) {
    fs::write(folder(&bench.home).join("one-more.pem"), "damaged").unwrap();
    bench.proxy.book().take();
    assert_eq!(own.keys().len(), pairs);
    own.raw.token_info(own.slot).unwrap();
    is_exactly("a new look", &bench.proxy.book().take(), NOTHING);
}

fn keys_stay_loaded_behind_the_kernels_manager(link: Link) {
    let (_tpm, home, kernel) = Kernel::with_home(link);
    let mut own = Own::new(&home);
    own.make(Kind::P256, "first").unwrap();
    own.make(Kind::Rsa(2048), "second").unwrap();
    for kind in [Kind::P256, Kind::Rsa(2048)] {
        for costs in Costs::managed() {
            own = costs.apply(&|| kernel.taken(link), own, kind);
        }
    }
}

fn nine_keys_take_turns_in_eight_places(link: Link) {
    let (_tpm, home, kernel) = Kernel::with_home(link);
    let own = Own::new(&home);
    let generate = |at: usize| own.make(Kind::P256, &at.to_string()).unwrap().private;
    let keys: Vec<_> = (0..9).map(generate).collect();
    for key in &keys {
        sign(&own, *key, 1);
    }
    let loaded = |times: usize| SIGNATURE_LOADED.repeat(times);
    let costs = |keys: &[CK_OBJECT_HANDLE], budget: &[u32]| {
        kernel.taken(link);
        keys.iter().for_each(|key| sign(&own, *key, 1));
        is_exactly(&format!("{} keys", keys.len()), &kernel.taken(link), budget);
    };
    let mut last_eight = keys[1..].to_vec();
    costs(&last_eight, &loaded(8));
    last_eight.reverse();
    costs(&last_eight, &loaded(8));
    // The ninth was used the longest ago, and goes.
    costs(&keys[..1], SIGNATURE_LOADING);
    costs(&keys[..8], &loaded(8));
    costs(&keys[8..], SIGNATURE_LOADING);
    costs(&keys[1..8], &loaded(7));
    // In turn, each is the one that went before it is needed: that is what a ninth key costs.
    keys.iter().for_each(|key| sign(&own, *key, 1));
    costs(&keys, &SIGNATURE_LOADING.repeat(9));
}

fn a_dropped_connection_costs_a_load(link: Link) {
    let (_tpm, home, mut kernel) = Kernel::with_home(link);
    let own = Own::new(&home);
    let key = own.make(Kind::P256, "key").unwrap().private;
    sign(&own, key, 2);
    for _ in 0..3 {
        kernel.drop_connections();
        kernel.taken(link);
        sign(&own, key, 1);
        let again = kernel.taken(link);
        is_exactly("after a dropped connection", &again, SIGNATURE_LOADING);
        sign(&own, key, 3);
        let loaded = SIGNATURE_LOADED.repeat(3);
        is_exactly("three more", &kernel.taken(link), &loaded);
    }
}

/// Below the broker, the broker's own commands are counted too: for each command it loads the
/// context of the key, and saves the context again.
fn a_key_stays_loaded_behind_tpm2_abrmd() {
    let tpm = Swtpm::blank();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(Broker::tcti());
    let _broker = Broker::new(&proxy.tcti(), &home);
    let own = Own::new(&home);
    let generate = |at: usize| own.make(Kind::P256, &at.to_string()).unwrap().private;
    let wrapped: Vec<_> = (0..3).map(generate).collect();
    let persistent = own.make_persistent(Kind::P256, "kept").unwrap().private;
    for key in wrapped.iter().chain([&persistent]) {
        sign(&own, *key, 1);
    }
    for (key, budget) in wrapped
        .iter()
        .map(|key| (key, SIGNATURE_BELOW_TPM2_ABRMD))
        .chain([(&persistent, SIGNATURE)])
    {
        proxy.book().take();
        sign(&own, *key, 5);
        is_exactly("below tpm2-abrmd", &proxy.book().take(), &budget.repeat(5));
    }
    assert!(folder(&home).is_dir());
}
