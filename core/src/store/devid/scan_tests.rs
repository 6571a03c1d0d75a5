//! Tests the TPM commands of a scan of a key folder, with prepared responses.

use super::DevidStore;
use crate::config::{Config, defaults};
use crate::store::folder::{
    EntryContent, KeyAuth, KeyFolder, KeyMaterial, KeyOrigin, KeyPair, ObjectAttributes, Tss2Key,
};
use crate::store::{ObjectKind, ScanResult};
use crate::system::pause;
use crate::tpm::fake::{FakeTpm, GET_CAPABILITY, Reply, capability, keep_link, rsa_area};
use crate::tpm::{Hash, PublicArea, SignatureScheme, Tpm};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const PSS: SignatureScheme = SignatureScheme::Rsapss(Hash::Sha256);
const GET_RANDOM: u32 = 0x17B;

/// A key folder with one RSA key below the storage root key. The TPM has answered before.
struct Bench {
    fake: FakeTpm,
    tpm: Arc<Tpm>,
    store: DevidStore,
    _folder: TempDir,
}

impl Bench {
    fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let area = rsa_area(256);
        let pair = KeyPair {
            material: KeyMaterial::Wrapped(Tss2Key::loadable(
                0x8100_0001,
                area.clone(),
                vec![1; 40],
            )),
            public: PublicArea::parse(&area).unwrap().key,
            handle: None,
            auth: KeyAuth::Unsaid,
            origin: KeyOrigin::Generated,
            private: ObjectAttributes::labelled("key"),
            shown_public: None,
        };
        let keys = folder.path().join("devid");
        KeyFolder::new(keys).add(EntryContent::Pair(pair)).unwrap();
        let config = Config {
            state: folder.path().to_owned(),
            ..defaults(&|_| None)
        };
        let random = [&[0, 1][..], &[7]].concat();
        let fake = FakeTpm::new([Reply::Body(random)].into_iter().chain(replies));
        let tpm = Arc::new(fake.tpm(Duration::from_secs(20)));
        tpm.random(&mut [0]).unwrap();
        let store = DevidStore::all(&config, &tpm).remove(0);
        // The stamp of a file that was just written is unreliable for a moment.
        let is_settled = || {
            let before = store.stamp();
            pause(Duration::from_millis(10));
            before == store.stamp()
        };
        while !is_settled() {}
        Self {
            fake,
            tpm,
            store,
            _folder: folder,
        }
    }

    fn looks_again(&self, last: &ScanResult) -> bool {
        self.store.stamp() != last.stamp
    }
}

/// Returns the list of algorithms: RSA, SHA-256 and PKCS#1 v1.5.
fn algorithms() -> Reply {
    let items = [0x0001_u16, 0x000B, 0x0014];
    let items = items.map(|one| [&one.to_be_bytes()[..], &[0; 4]].concat());
    capability(false, 0, &items)
}

fn signs_pss(listing: &ScanResult) -> bool {
    match &listing.objects[0].kind {
        ObjectKind::Pair { key, .. } => key.signs(PSS),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_look_waits_for_no_other_thread_and_asks_when_the_tpm_is_free() {
    let bench = Bench::new([algorithms()]);
    let store = &bench.store;
    let held = keep_link(&bench.tpm);
    let first = store.scan().unwrap();
    assert!(signs_pss(&first), "all is supposed");
    assert!(!bench.looks_again(&first));
    drop(held);
    assert!(bench.looks_again(&first));
    let second = store.scan().unwrap();
    assert_eq!(bench.fake.seen(), [GET_RANDOM, GET_CAPABILITY]);
    assert!(!signs_pss(&second));
    let (before, after) = (&first.objects[0], &second.objects[0]);
    assert!(!Arc::ptr_eq(before, after), "its attributes are made anew");
    assert!(!bench.looks_again(&second));
    let third = store.scan().unwrap();
    assert!(Arc::ptr_eq(&second.objects[0], &third.objects[0]));
}

#[test]
fn what_the_tpm_tells_somebody_else_is_shown() {
    let bench = Bench::new([algorithms()]);
    let held = keep_link(&bench.tpm);
    let first = bench.store.scan().unwrap();
    drop(held);
    bench.tpm.algorithms().unwrap();
    assert!(bench.looks_again(&first));
    let second = bench.store.scan().unwrap();
    assert!(!Arc::ptr_eq(&first.objects[0], &second.objects[0]));
    assert!(!bench.looks_again(&second));
    assert_eq!(bench.fake.seen(), [GET_RANDOM, GET_CAPABILITY]);
}

#[test]
fn what_another_key_finds_out_of_pss_is_shown() {
    let all = [0x0001_u16, 0x000B, 0x0014, 0x0016];
    let all = all.map(|one| [&one.to_be_bytes()[..], &[0; 4]].concat());
    let bench = Bench::new([capability(false, 0, &all)]);
    let first = bench.store.scan().unwrap();
    assert!(signs_pss(&first));
    bench.tpm.give_up_pss();
    assert!(bench.looks_again(&first));
    let second = bench.store.scan().unwrap();
    assert!(!signs_pss(&second));
    assert!(!Arc::ptr_eq(&first.objects[0], &second.objects[0]));
}
