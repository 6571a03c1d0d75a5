//! Owner's certificates that are refused, by OpenConfig's list (enrollz-1). If one certificate is
//! refused, the other certificates of the same command are not imported either.

use super::Bench;
use std::fs;
use std::path::{Path, PathBuf};
use testkit::link::Link;
use testkit::openssl::certificate_der;
use testkit::programs::{program, run};

over_our_transport!(
    enrollz_1_23_malformed_oiak,
    enrollz_1_24_oiak_of_another_key,
    enrollz_1_25_oiak_chain_with_a_bad_signature,
    enrollz_1_26_malformed_oidevid,
    enrollz_1_27_oidevid_of_another_key,
    enrollz_1_28_oidevid_chain_with_a_bad_signature,
);

fn cut(bench: &Bench, chain: &Path) -> PathBuf {
    let text = fs::read_to_string(chain).unwrap();
    let begin = text.find("-----BEGIN").unwrap();
    let mut broken = text.clone();
    broken.replace_range(begin + 60..begin + 180, "");
    bench.home.write("broken.pem", broken)
}

/// The first certificate with one byte of its signature changed.
fn forged(bench: &Bench, chain: &Path) -> PathBuf {
    let mut der = certificate_der(chain);
    let last = der.len() - 1;
    der[last] ^= 1;
    let leaf = bench.home.write("forged.der", der);
    let mut convert = program("openssl");
    let pem = run(convert.args(["x509", "-inform", "DER", "-in"]).arg(leaf)).ok();
    let issuers =
        ["ca.pem", "root.pem"].map(|one| fs::read(bench.path("owner").join(one)).unwrap());
    bench
        .home
        .write("forged.pem", [pem.out, issuers.concat()].concat())
}

fn of_another_key(bench: &Bench) -> PathBuf {
    let key = bench.path("other.key");
    let public = bench.path("other.pub");
    let mut make = program("openssl");
    make.args([
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-out",
    ]);
    run(make.arg(&key)).ok();
    let mut public_of = program("openssl");
    run(public_of
        .args(["pkey", "-pubout", "-in"])
        .arg(&key)
        .arg("-out")
        .arg(&public))
    .ok();
    bench.certified("other", &public)
}

fn enrollz_1_23_malformed_oiak(link: Link) {
    let bench = Bench::new(link);
    let [oidevid, oiak] = bench.import_both();
    let broken = cut(&bench, &oiak);
    bench.refuses(&[&oidevid, &broken], &["broken.pem"]);
}

fn enrollz_1_24_oiak_of_another_key(link: Link) {
    let bench = Bench::new(link);
    let [oidevid, _] = bench.both();
    let other = of_another_key(&bench);
    bench.refuses(
        &[&oidevid, &other],
        &["no factory key of this device", "iak"],
    );
}

fn enrollz_1_25_oiak_chain_with_a_bad_signature(link: Link) {
    let bench = Bench::new(link);
    let [oidevid, oiak] = bench.import_both();
    let forged = forged(&bench, &oiak);
    bench.refuses(&[&oidevid, &forged], &["forged.pem", "signature"]);
}

fn enrollz_1_26_malformed_oidevid(link: Link) {
    let bench = Bench::new(link);
    let [oidevid, oiak] = bench.both();
    let broken = cut(&bench, &oidevid);
    bench.refuses(&[&broken, &oiak], &["broken.pem"]);
}

fn enrollz_1_27_oidevid_of_another_key(link: Link) {
    let bench = Bench::new(link);
    let [_, oiak] = bench.import_both();
    let other = of_another_key(&bench);
    bench.refuses(
        &[&other, &oiak],
        &["no factory key of this device", "idev-id"],
    );
    // Nor is the factory's own the owner's, whatever the key.
    let own = bench.keys[0].certificate();
    bench.refuses(&[&own], &["already the factory's certificate"]);
}

fn enrollz_1_28_oidevid_chain_with_a_bad_signature(link: Link) {
    let bench = Bench::new(link);
    let [oidevid, oiak] = bench.both();
    let forged = forged(&bench, &oidevid);
    bench.refuses(&[&forged, &oiak], &["forged.pem", "signature"]);
}
