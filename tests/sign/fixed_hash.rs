//! Keys with a fixed hash that differs from the curve's usual hash. The TPM signs only digests of
//! that width, and signatures over other hashes must still verify.

use cryptoki_sys::*;
use testkit::home::Home;
use testkit::link::Link;
use testkit::maker::{INDEX, Maker, OPEN};
use testkit::module::Opened;
use testkit::openssl::Verifier;
use testkit::tpm::Swtpm;

over_our_transport!(p256_with_sha384, p256_with_sha512,);

fn p256_with_sha384(link: Link) {
    all_verify(link, "ecc256:ecdsa-sha384");
}

fn p256_with_sha512(link: Link) {
    all_verify(link, "ecc256:ecdsa-sha512");
}

fn all_verify(link: Link, algorithm: &str) {
    let tpm = Swtpm::blank();
    let maker = Maker::new(&tpm);
    let public = maker.key(algorithm, "");
    maker.index(INDEX, OPEN, "", &maker.certificate(&public));
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let module = Opened::new(&home);
    let (key, judge) = (module.key(), Verifier::new(&public));

    // Digests that are alike in no byte, so that a byte too many, too few or moved is seen.
    for size in [20, 28, 32, 48, 64_u8] {
        let digest: Vec<u8> = (1..=size).map(|byte| byte.wrapping_mul(37)).collect();
        let signature = module.sign(CKM_ECDSA, key, &digest).expect("a signature");
        judge.accepts_digest(&digest, &signature).ok();
    }
    let hashing = [
        (CKM_ECDSA_SHA256, "-sha256"),
        (CKM_ECDSA_SHA384, "-sha384"),
        (CKM_ECDSA_SHA512, "-sha512"),
    ];
    for (mechanism, hash) in hashing {
        let signature = module.sign(mechanism, key, b"a message").expect(hash);
        judge.accepts_message(hash, b"a message", &signature).ok();
    }
}
