//! NSS (certutil, modutil), which browsers use, with the factory's certificate and the owner's
//! certificate at the same time.

use super::{Bench, labels};
use std::collections::BTreeSet;
use std::fs;
use testkit::link::Link;
use testkit::module::library;
use testkit::programs::{program, run};

over_our_transport!(nss_with_both);

/// Each token shows its certificate with the key, and a request is signed by either.
fn nss_with_both(link: Link) {
    let bench = Bench::new(link);
    bench.import_both();
    bench.show("token");
    let db = format!("sql:{}", bench.path("nss").display());
    fs::create_dir(bench.path("nss")).unwrap();
    let certutil = |words: &[&str]| {
        let mut certutil = program("certutil");
        certutil.args(words).args(["-d", &db]);
        run(bench.home.settle(&mut certutil))
    };
    certutil(&["-N", "--empty-password"]).ok();
    let mut modutil = program("modutil");
    modutil.args(["-dbdir", &db, "-add", "devid", "-force", "-libfile"]);
    run(bench.home.settle(modutil.arg(library()))).ok();
    for (token, key) in [("idev-id", "idev-id"), ("oidevid", "oidevid")] {
        let listed = certutil(&["-L", "-h", token]).ok().text();
        for one in labels(&bench.shown(token)) {
            assert!(
                listed.contains(&format!("{token}:{one}")),
                "{one}: {listed}"
            );
        }
        let shown = bench.shown(token);
        let id: String = shown[0]
            .id
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let keys = certutil(&["-K", "-h", token]).ok().text();
        let listed: Vec<&str> = keys.lines().filter(|line| line.starts_with('<')).collect();
        assert_eq!(listed.len(), 1, "{keys}");
        assert!(
            listed[0].contains(&id) && listed[0].ends_with(key),
            "{keys}"
        );
        let request = bench.path(&format!("{token}.csr"));
        certutil(&[
            "-R",
            "-h",
            token,
            "-k",
            &id,
            "-s",
            "CN=example",
            "-a",
            "-o",
            request.to_str().unwrap(),
        ])
        .ok();
        let mut verify = program("openssl");
        verify.args(["req", "-noout", "-verify", "-pubkey", "-in"]);
        let said = run(verify.arg(&request)).ok().text();
        let public = fs::read_to_string(bench.keys[0].public_key()).unwrap();
        assert!(said.contains(public.trim()), "{said}");
    }
    // No certificate stands on both tokens, and no two have one CKA_ID.
    let all: Vec<_> = ["idev-id", "oidevid"]
        .iter()
        .flat_map(|token| bench.shown(token))
        .collect();
    let ids: BTreeSet<_> = all.iter().map(|one| &one.id).collect();
    assert_eq!(ids.len(), all.len());
}
