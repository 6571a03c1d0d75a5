//! The master key of the token `devid`. It is made when it is first needed, and wraps all other
//! keys. Another TPM does not have it.

use cryptoki_sys::*;
use std::path::Path;
use testkit::devid::{
    Bench, FIRST, Inspection, Kind, MASTER, Own, PERSISTENT, SRK, TPM_HANDLE, TPM_PUBLIC, label,
    persistent, yes,
};
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::ulong;
use testkit::openssl::certificate_der;
use testkit::programs::run;
use testkit::proxy::Proxy;
use testkit::raw::Code;
use testkit::tls::server_identity;
use testkit::tpm::Swtpm;

over_our_transport!(
    nothing_is_written_before_somebody_asks,
    the_masters_handle_is_configured,
    a_storage_root_key_that_is_there_stays,
    an_owner_with_a_password,
    a_cleared_tpm_is_recognised,
    another_tpm_with_the_same_folder,
    something_else_at_the_masters_handle,
    a_storage_key_of_an_administrator_is_taken,
    a_key_that_was_evicted_is_loaded_from_its_file,
    every_key_is_bound_to_this_tpm,
    a_program_that_runs_while_the_master_key_is_renewed,
);

/// TPM_CC of what changes a TPM.
const WRITING: [u32; 8] = [0x120, 0x126, 0x129, 0x12A, 0x131, 0x137, 0x153, 0x156];
const NOT_RECOGNISED: Code = Code(CKR_TOKEN_NOT_RECOGNIZED);

fn nothing_is_written_before_somebody_asks(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    for slot in own.raw.slots(false).unwrap() {
        own.raw.slot_info(slot).unwrap();
        own.raw.token_info(slot).ok();
        own.raw.mechanisms(slot).ok();
    }
    own.find(&[]);
    own.keys();
    for user in [CKU_USER, CKU_SO] {
        own.raw.login(own.session, user, b"12345678").ok();
        own.raw.logout(own.session).ok();
    }
    assert_eq!(own.destroy(4711), Err(Code(CKR_OBJECT_HANDLE_INVALID)));
    let seen = bench.proxy.book().take();
    let written: usize = WRITING.iter().map(|code| seen.of(*code)).sum();
    assert_eq!(written, 0, "{seen:?}");
    assert_eq!(persistent(&bench.tpm), []);
    assert!(!bench.folder().exists(), "nothing to keep, no folder");

    own.signs(own.make(Kind::P256, "first").unwrap().private);
    assert_eq!(persistent(&bench.tpm), [SRK, MASTER]);
    own.make(Kind::P256, "second").unwrap();
    let of_session = own.make_with(Kind::P256, &[], &[]).unwrap();
    own.signs(of_session.private);
    assert_eq!(persistent(&bench.tpm), [SRK, MASTER]);
    let kept = own.make_persistent(Kind::P256, "third").unwrap();
    assert_eq!(persistent(&bench.tpm), [SRK, MASTER, FIRST]);
    own.signs(kept.private);
    own.destroy(kept.private).unwrap();
    assert_eq!(persistent(&bench.tpm), [SRK, MASTER]);
    assert_eq!(bench.tpm.transients(), 0);
}

fn the_masters_handle_is_configured(link: Link) {
    let bench = Bench::new(link);
    bench
        .home
        .write("config.toml", "[master]\nhandle = 0x81000090\n");
    let own = Own::new(&bench.home);
    own.signs(own.make(Kind::P256, "key").unwrap().private);
    assert_eq!(persistent(&bench.tpm), [SRK, 0x8100_0090]);
    let own = own.anew();
    own.signs(own.key_called("key"));
}

/// As other programs leave one: made by tpm2-tools, from a template of theirs.
fn a_storage_root_key_that_is_there_stays(link: Link) {
    let bench = Bench::new(link);
    put_primary(&bench.tpm, &bench.home, "rsa2048:aes128cfb", SRK);
    let name = name_of(&bench.tpm, SRK);
    let own = Own::new(&bench.home);
    own.signs(own.make(Kind::P256, "key").unwrap().private);
    assert_eq!(persistent(&bench.tpm), [SRK, MASTER]);
    assert_eq!(name_of(&bench.tpm, SRK), name);
}

fn an_owner_with_a_password(link: Link) {
    let bench = Bench::new(link);
    run(bench
        .tpm
        .tool("tpm2_changeauth")
        .args(["-c", "owner", "s3cret"]))
    .ok();
    let own = Own::new(&bench.home);
    let refused = own.make(Kind::P256, "key");
    assert_eq!(refused, Err(Code(CKR_DEVICE_ERROR)));
    bench.home.log_says(&["owner_auth"]);
    assert_eq!(persistent(&bench.tpm), []);
    assert_eq!(own.keys(), []);

    let secret = bench.home.write("owner", "s3cret");
    let setting = format!("[master]\nowner_auth = \"file:{}\"\n", secret.display());
    bench.home.write("config.toml", setting);
    let own = own.anew();
    own.signs(own.make(Kind::P256, "key").unwrap().private);
    let kept = own.make_persistent(Kind::P384, "kept").unwrap();
    own.signs(kept.private);
    assert_eq!(persistent(&bench.tpm), [SRK, MASTER, FIRST]);
    own.destroy(kept.private).unwrap();
    assert_eq!(persistent(&bench.tpm), [SRK, MASTER]);
    assert!(!bench.home.log().contains("s3cret"));
}

/// A token with a key on the disk, one in a handle, and a certificate.
fn filled(bench: &Bench) -> Own {
    let own = Own::new(&bench.home);
    own.signs(own.make(Kind::P256, "wrapped").unwrap().private);
    let kept = own.make_persistent(Kind::P256, "persistent");
    own.signs(kept.unwrap().private);
    server_identity(&bench.home);
    let der = certificate_der(&bench.home.path("server.pem"));
    own.create(&[
        (CKA_CLASS, ulong(CKO_CERTIFICATE)),
        (CKA_CERTIFICATE_TYPE, ulong(CKC_X_509)),
        (CKA_VALUE, der),
        yes(CKA_TOKEN),
        label("certificate"),
    ])
    .unwrap();
    own
}

/// No key of the token works, the log names the next step, and no key is made anew. Objects that
/// need no TPM are still there.
#[track_caller]
fn is_not_recognised(bench: &Bench, own: &Own, tpm: &Swtpm) {
    let (before, handles) = (Inspection::of(&bench.folder()), persistent(tpm));
    for name in ["wrapped", "persistent"] {
        let refused = own.sign_data(own.key_called(name), b"data");
        assert_eq!(refused, Err(NOT_RECOGNISED), "{name}");
    }
    for both in [vec![], vec![label("new"), yes(CKA_TOKEN)]] {
        let refused = own.make_with(Kind::P256, &both, &[]);
        assert_eq!(refused, Err(NOT_RECOGNISED));
    }
    let refused = own.make_persistent(Kind::P256, "new");
    assert_eq!(refused, Err(NOT_RECOGNISED));
    let certificate = own.find(&[(CKA_CLASS, ulong(CKO_CERTIFICATE))])[0];
    assert_eq!(own.label(certificate), "certificate");
    assert!(own.attribute(certificate, CKA_VALUE).len() > 200);
    let folder = bench.folder().display().to_string();
    bench
        .home
        .log_says(&["cleared or exchanged", &folder, "devid reset --factory"]);
    assert_eq!(persistent(tpm), handles);
    let changed = before.to(&Inspection::of(&bench.folder()));
    assert_eq!(changed, [] as [String; 0], "nothing is made anew");
}

fn a_cleared_tpm_is_recognised(link: Link) {
    let bench = Bench::new(link);
    let own = filled(&bench);
    run(&mut bench.tpm.tool("tpm2_clear")).ok();
    assert_eq!(persistent(&bench.tpm), []);
    is_not_recognised(&bench, &own, &bench.tpm);
    // And to a program that starts now.
    is_not_recognised(&bench, &own.anew(), &bench.tpm);
    assert_eq!(bench.tpm.lockout_counter(), 0);
}

fn another_tpm_with_the_same_folder(link: Link) {
    let bench = Bench {
        home: Home::new(""),
        ..Bench::new(link)
    };
    let (blank, of_another) = (Swtpm::blank(), Swtpm::blank());
    put_primary(&of_another, &bench.home, "ecc256:aes128cfb", MASTER);
    let use_tpm = |proxy: &Proxy| {
        let tcti = link.tcti(&proxy.tcti());
        bench
            .home
            .write("config.toml", format!("tcti = \"{tcti}\"\n"));
    };
    use_tpm(&bench.proxy);
    let mut own = filled(&bench);
    for other in [&blank, &of_another] {
        let proxy = Proxy::new(other);
        use_tpm(&proxy);
        own = own.anew();
        is_not_recognised(&bench, &own, other);
    }
    use_tpm(&bench.proxy);
    let own = own.anew();
    own.signs(own.key_called("wrapped"));
    own.signs(own.key_called("persistent"));
}

/// A key that cannot wrap is never the master key, neither before nor after the first key.
fn something_else_at_the_masters_handle(link: Link) {
    let bench = Bench::new(link);
    put_primary(&bench.tpm, &bench.home, "ecc256:ecdsa", MASTER);
    let (own, there) = (Own::new(&bench.home), name_of(&bench.tpm, MASTER));
    for _ in 0..2 {
        let refused = own.make(Kind::P256, "key");
        assert_eq!(refused, Err(Code(CKR_DEVICE_ERROR)));
    }
    bench.home.log_says(&["0x81000080", "no storage key"]);
    assert_eq!((own.keys(), persistent(&bench.tpm)), (vec![], vec![MASTER]));
    evict(&bench.tpm, MASTER);

    own.make(Kind::P256, "wrapped").unwrap();
    evict(&bench.tpm, MASTER);
    put_primary(&bench.tpm, &bench.home, "ecc256:ecdsa", MASTER);
    assert_eq!(
        own.sign_data(own.key_called("wrapped"), b"data"),
        Err(NOT_RECOGNISED)
    );
    assert_eq!(own.make(Kind::P256, "new"), Err(NOT_RECOGNISED));
    assert_eq!(name_of(&bench.tpm, MASTER), there, "it is still there");
}

/// An administrator may have made the master key, if it has our attributes. A primary key is not
/// accepted: it can be derived again, so its loss would erase nothing.
fn a_storage_key_of_an_administrator_is_taken(link: Link) {
    let bench = Bench::new(link);
    put_primary(&bench.tpm, &bench.home, "ecc256:aes128cfb", SRK);
    put_primary(&bench.tpm, &bench.home, "ecc256:aes128cfb", MASTER);
    let own = Own::new(&bench.home);
    let refused = own.make(Kind::P256, "key");
    assert_eq!(refused, Err(Code(CKR_DEVICE_ERROR)));
    bench
        .home
        .log_says(&["0x81000080", "that devid did not create"]);
    assert_eq!(own.keys(), []);
    evict(&bench.tpm, MASTER);

    let [public, private, context] =
        ["child.pub", "child.priv", "child.ctx"].map(|name| bench.home.path(name));
    let mut create = bench.tpm.tool("tpm2_create");
    create.args(["-Q", "-C", "0x81000001", "-G", "ecc256:aes128cfb", "-a"]);
    create.arg("restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda");
    run(create.arg("-u").arg(&public).arg("-r").arg(&private)).ok();
    let mut load = bench.tpm.tool("tpm2_load");
    load.args(["-Q", "-C", "0x81000001", "-u"]).arg(&public);
    run(load.arg("-r").arg(&private).arg("-c").arg(&context)).ok();
    put(&bench.tpm, &context, MASTER);
    own.signs(own.make(Kind::P256, "key").unwrap().private);
    assert_eq!(persistent(&bench.tpm), [SRK, MASTER]);
}

fn a_key_that_was_evicted_is_loaded_from_its_file(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let generate = |name: &str| own.make_persistent(Kind::P256, name).unwrap().private;
    let [evicted, replaced] = ["evicted", "replaced"].map(generate);
    for key in [evicted, replaced] {
        own.signs(key);
    }
    evict(&bench.tpm, FIRST);
    own.signs(evicted);
    // Another key has the handle now: as if ours had been destroyed, and a new one made.
    evict(&bench.tpm, FIRST + 1);
    put_primary(&bench.tpm, &bench.home, "ecc256:ecdsa", FIRST + 1);
    own.signs(replaced);
    let own = own.anew();
    for name in ["evicted", "replaced"] {
        own.signs(own.key_called(name));
        own.destroy(own.key_called(name)).unwrap();
    }
    assert_eq!(persistent(&bench.tpm), [SRK, MASTER, FIRST + 1], "not ours");
    assert_eq!(bench.tpm.transients(), 0);
}

/// A key in a persistent handle signs all the time. New keys can be made as soon as there is a
/// master key.
fn a_program_that_runs_while_the_master_key_is_renewed(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    own.make(Kind::P256, "wrapped").unwrap();
    let kept = own.make_persistent(Kind::P256, "kept").unwrap().private;
    evict(&bench.tpm, MASTER);
    own.signs(kept);
    assert_eq!(own.make(Kind::P256, "new"), Err(NOT_RECOGNISED));
    let wrapped = own.key_called("wrapped");
    assert_eq!(own.sign_data(wrapped, b"data"), Err(NOT_RECOGNISED));
    let log = bench.home.log();
    assert!(log.contains("devid master renew"), "{log}");
    assert!(!log.contains("devid reset"), "{log}");
    let mut renew = std::process::Command::new(testkit::module::tool());
    renew.args(["master", "renew", "--yes"]);
    run(bench.home.settle(&mut renew)).ok();
    own.signs(kept);
    own.signs(own.make(Kind::P256, "new").unwrap().private);
    let labels: Vec<_> = own.keys().into_iter().map(|key| own.label(key)).collect();
    assert!(!labels.contains(&"wrapped".to_owned()), "{labels:?}");
    let own = own.anew();
    own.signs(own.key_called("kept"));
    own.signs(own.key_called("new"));
    assert_eq!(persistent(&bench.tpm), [SRK, MASTER, FIRST]);
    assert_eq!(bench.tpm.transients(), 0);
}

/// TPMA_OBJECT (Part 2, section 8.3.2).
const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
const NO_DA: u32 = 1 << 10;
const RESTRICTED: u32 = 1 << 16;

fn every_key_is_bound_to_this_tpm(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let mut keys = Vec::new();
    for kind in Kind::ALL {
        let name = format!("{kind:?}");
        keys.push(own.make(kind, &name).unwrap().private);
    }
    let of_session = own.make_with(Kind::P384, &[], &[]);
    keys.push(of_session.unwrap().private);
    for kind in [Kind::P256, Kind::P384] {
        let kept = own.make_persistent(kind, "kept").unwrap().private;
        let handle = own.attribute(kept, TPM_HANDLE);
        let handle = CK_ULONG::from_ne_bytes(handle.try_into().unwrap());
        let said = readpublic(&bench.tpm, handle as u32);
        let bound = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign";
        let attributes = said.lines().find(|line| line.contains("fixedtpm"));
        assert_eq!(attributes.unwrap().trim(), format!("value: {bound}"));
        keys.push(kept);
    }
    for key in keys {
        let area = own.attribute(key, TPM_PUBLIC);
        let attributes = u32::from_be_bytes(area[4..8].try_into().unwrap());
        let bound = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | NO_DA;
        assert_eq!(attributes & bound, bound, "{attributes:#x}");
        assert_eq!(attributes & RESTRICTED, 0);
        for flag in [CKA_LOCAL, CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE] {
            assert_eq!(own.attribute(key, flag), [CK_TRUE], "{flag:#x}");
        }
        own.signs(key);
    }
    let master = readpublic(&bench.tpm, MASTER);
    let expected = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    assert!(master.contains(expected), "{master}");
    // The key is random, so a new key would have another name.
    assert_ne!(name_of(&bench.tpm, MASTER), name_of(&bench.tpm, SRK));
    let persisted = own.find(&[(CKA_CLASS, ulong(CKO_PRIVATE_KEY)), yes(PERSISTENT)]);
    assert_eq!(persisted.len(), 2);
    assert_eq!(bench.tpm.transients(), 0);
}

/// Puts a primary key of the owner hierarchy into a handle.
#[track_caller]
fn put_primary(tpm: &Swtpm, home: &Home, kind: &str, handle: u32) {
    let context = home.path("primary.ctx");
    let mut make = tpm.tool("tpm2_createprimary");
    make.args(["-Q", "-C", "o", "-G", kind, "-c"]).arg(&context);
    if kind.ends_with("ecdsa") {
        make.args([
            "-a",
            "sign|fixedtpm|fixedparent|sensitivedataorigin|userwithauth",
        ]);
    }
    run(&mut make).ok();
    put(tpm, &context, handle);
}

fn put(tpm: &Swtpm, context: &Path, handle: u32) {
    let mut put = tpm.tool("tpm2_evictcontrol");
    put.args(["-Q", "-C", "o", "-c"]).arg(context);
    run(put.arg(format!("{handle:#x}"))).ok();
    run(tpm.tool("tpm2_flushcontext").arg("-t")).ok();
}

#[track_caller]
fn evict(tpm: &Swtpm, handle: u32) {
    let mut evict = tpm.tool("tpm2_evictcontrol");
    run(evict.args(["-Q", "-C", "o", "-c", &format!("{handle:#x}")])).ok();
}

#[track_caller]
fn readpublic(tpm: &Swtpm, handle: u32) -> String {
    let mut read = tpm.tool("tpm2_readpublic");
    run(read.args(["-c", &format!("{handle:#x}")])).ok().text()
}

#[track_caller]
fn name_of(tpm: &Swtpm, handle: u32) -> String {
    let said = readpublic(tpm, handle);
    let name = said.lines().find(|line| line.starts_with("name:"));
    name.expect("a name").to_owned()
}
