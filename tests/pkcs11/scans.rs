//! A sequence of scans: temporary faults of a TPM remove no object, changes appear, and an object
//! keeps its handle.

use cryptoki_sys::*;
use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;
use testkit::PROFILES;
use testkit::factory::Identity;
use testkit::home::Home;
use testkit::link::Link;
use testkit::maker::{INDEX, Maker, OPEN};
use testkit::module::{Opened, identity, loaded, ulong};
use testkit::openssl::{Verifier, certificate_der};
use testkit::programs::poll;
use testkit::proxy::{Fault, Proxy, answer, command};
use testkit::raw::Code;
use testkit::story::await_some;
use testkit::tpm::Swtpm;

over_our_transport!(
    a_key_that_could_not_be_read_at_first,
    an_identity_that_cannot_be_read_again,
    a_search_while_another_looks,
    a_certificate_at_several_places,
    stale_bytes_behind_a_certificate,
    a_chain_file_edited_in_place,
    no_handle_comes_twice,
);

/// A device behind a proxy, its module opened.
struct Bench {
    proxy: Proxy,
    identity: Identity,
    home: Home,
    module: Opened,
    _tpm: Swtpm,
}

impl Bench {
    fn new(link: Link) -> Bench {
        Bench::with(link, |_, _| {})
    }

    fn with(link: Link, prepare: impl FnOnce(&Home, &Identity)) -> Bench {
        let (tpm, identity) = Swtpm::manufactured();
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        prepare(&home, &identity);
        let module = Opened::new(&home);
        Bench {
            proxy,
            identity,
            home,
            module,
            _tpm: tpm,
        }
    }

    fn objects(&self) -> Vec<CK_OBJECT_HANDLE> {
        let found = self.module.raw.find(self.module.session, &[]);
        found.expect("a search")
    }
}

/// A token without its key would be taken for the truth until the next change.
fn a_key_that_could_not_be_read_at_first(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let proxy = Proxy::new(&tpm);
    let home = Home::new(&link.tcti(&proxy.tcti()));
    let failure = Fault::Code(answer::FAILURE);
    proxy.book().break_next(command::READ_PUBLIC, failure);
    let raw = loaded(&home);
    raw.initialize().unwrap();
    let first = identity(&raw);
    assert!(proxy.book().all_broken());
    let key = await_some("the private key", Duration::from_secs(60), || {
        let slot = identity(&raw)?;
        let session = raw.open(slot, CKF_SERIAL_SESSION).unwrap();
        let keys = raw.find(session, &[(CKA_CLASS, ulong(CKO_PRIVATE_KEY))]);
        Some((session, *keys.unwrap().first()?))
    });
    assert_eq!(first, None, "half of what there is");
    raw.sign_init(key.0, CKM_ECDSA, key.1).unwrap();
    raw.sign(key.0, &[1; 32]).expect("a signature");
}

/// Objects that were not known before stay unknown then.
fn an_identity_that_cannot_be_read_again(link: Link) {
    let bench = Bench::new(link);
    let known = bench.objects();
    assert_eq!(known.len(), 4 + PROFILES);
    for code in [command::NV_READ, command::NV_READ_PUBLIC] {
        let book = bench.proxy.book();
        book.take();
        book.break_times(code, Fault::Code(answer::FAILURE), u32::MAX);
        bench.home.next_generation();
        // A look may be due only after a rest, if one has failed before.
        await_some("a look", Duration::from_secs(60), || {
            assert_eq!(bench.objects(), known);
            let seen = book.take();
            (seen.answered(code, answer::FAILURE) > 0).then_some(())
        });
        assert_eq!(bench.objects(), known);
        assert_eq!(identity(&bench.module.raw), Some(bench.module.slot));
        let signature = bench.module.sign(CKM_ECDSA, bench.module.key(), &[1; 32]);
        Verifier::new(&bench.identity.public_key())
            .accepts_digest(&[1; 32], &signature.expect("a signature"))
            .ok();
        book.heal();
    }
}

fn a_search_while_another_looks(link: Link) {
    let bench = Bench::new(link);
    let known = bench.objects();
    let (raw, book) = (&bench.module.raw, bench.proxy.book());
    let other = raw.open(bench.module.slot, CKF_SERIAL_SESSION).unwrap();
    book.break_next(command::GET_CAPABILITY, Fault::Stall);
    bench.home.next_generation();
    thread::scope(|scope| {
        let looks = scope.spawn(|| raw.find(other, &[]));
        book.await_stall();
        let searches = scope.spawn(|| bench.objects());
        // As long as the TPM is silent nothing else can end the wait.
        let limit = Duration::from_secs(20);
        let answered = poll(limit, || searches.is_finished().then_some(()));
        let still_looks = !looks.is_finished();
        book.release();
        assert!(answered.is_some(), "a search waits for another's look");
        assert!(still_looks, "the TPM was to be silent");
        assert_eq!(searches.join().unwrap(), known);
        assert_eq!(looks.join().unwrap(), Ok(known.clone()));
    });
}

fn a_certificate_at_several_places(link: Link) {
    let bench = Bench::with(link, |home, identity| {
        let root = fs::read(identity.root()).unwrap();
        home.write("chain/a.pem", &root);
        home.write("chain/b.pem", &root);
        let named = identity.certificate();
        let named = named.to_str().unwrap();
        home.write(
            "config.toml",
            format!("[[identity]]\ncertificate = \"{named}\"\n"),
        );
    });
    // Certificate and key pair, the CA, the root.
    let objects = bench.objects();
    assert_eq!(objects.len(), 5 + PROFILES);
    let ids = || -> BTreeSet<Vec<u8>> {
        let Opened { raw, session, .. } = &bench.module;
        let id = |object: &CK_ULONG| raw.attribute(*session, *object, CKA_UNIQUE_ID).unwrap();
        bench.objects().iter().map(id).collect()
    };
    let known = ids();
    assert_eq!(known.len(), 5 + PROFILES, "no CKA_UNIQUE_ID twice");
    bench.home.next_generation();
    assert_eq!(bench.objects(), objects, "a new look, the same handles");
    assert_eq!(objects.iter().collect::<BTreeSet<_>>().len(), objects.len());
    assert_eq!(ids(), known);
}

/// A maker that wrote a shorter certificate over a longer one.
fn stale_bytes_behind_a_certificate(link: Link) {
    let (tpm, identity) = Swtpm::manufactured();
    let mut content = certificate_der(&identity.certificate());
    content.extend(b"\x30\x82\x01\x00stale");
    let maker = Maker::new(&tpm);
    maker.forget_index(INDEX);
    maker.index(INDEX, OPEN, "", &content);
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let module = Opened::new(&home);
    let found = module.raw.find(module.session, &[]).unwrap();
    assert_eq!(found.len(), 4 + PROFILES);
    let class = (CKA_CLASS, ulong(CKO_CERTIFICATE));
    let label = (CKA_LABEL, b"idev-id".to_vec());
    let found = module.raw.find(module.session, &[class, label]).unwrap();
    let value = module.raw.attribute(module.session, found[0], CKA_VALUE);
    assert_eq!(value, Ok(certificate_der(&identity.certificate())));
    module.key();
}

fn a_chain_file_edited_in_place(link: Link) {
    let bench = Bench::with(link, |home, identity| {
        home.write("chain/root.pem", fs::read(identity.root()).unwrap());
    });
    let with_root = bench.objects();
    assert_eq!(with_root.len(), 5 + PROFILES);
    bench.home.write("chain/root.pem", "");
    assert_eq!(bench.objects().len(), 4 + PROFILES);
    let root = fs::read(bench.identity.root()).unwrap();
    bench.home.write("chain/root.pem", &root);
    assert_eq!(bench.objects().len(), 5 + PROFILES);
}

fn no_handle_comes_twice(link: Link) {
    let (tpm, _identity) = Swtpm::manufactured();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let mut all = BTreeSet::new();
    let mut stale = None;
    for _ in 0..4 {
        let module = Opened::new(&home);
        if let Some((session, object)) = stale {
            let closed = module.raw.session_info(session).map(|_| ());
            assert_eq!(closed, Err(Code(CKR_SESSION_HANDLE_INVALID)));
            let init = module.raw.sign_init(module.session, CKM_ECDSA, object);
            assert!(init.is_err(), "a key by a handle of another time");
        }
        stale = Some((module.session, module.key()));
        let objects = module.raw.find(module.session, &[]).unwrap();
        for handle in objects.into_iter().chain([module.session]) {
            assert!(all.insert(handle), "handle {handle} comes twice");
        }
        module.raw.finalize().unwrap();
    }
}
