//! The helpers that other stories use, checked with tpm2-tools and without the module.

use cryptoki_sys::{CKF_SERIAL_SESSION, CKU_USER};
use std::fs;
use testkit::fronts::{Device, Simulator};
use testkit::programs::run;
use testkit::proxy::{Book, Fault, Proxy, answer, command};
use testkit::softhsm::{PIN, SoftHsm};
use testkit::tpm::{Swtpm, tool};
use testkit::{openssl, raw};

once!(
    a_manufactured_tpm_signs_and_survives_a_restart,
    a_power_cut_after_a_signature_is_counted_by_the_tpm_itself,
    the_proxy_counts_and_breaks,
    the_simulator_front_serves_libtss2,
    the_device_front_serves_libtss2,
    a_unix_socket_serves,
    #[cfg_attr(target_pointer_width = "32", ignore = "SoftHSM has 64 bits")]
    softhsm_is_ready,
    der_of_short_numbers,
);

/// Signs 32 bytes with tpm2_sign and verifies with OpenSSL; false if tpm2_sign failed.
fn signs(tcti: &str, public_key: &std::path::Path) -> bool {
    let folder = tempfile::TempDir::new().unwrap();
    let digest = openssl::digest("-sha256", b"the harness");
    fs::write(folder.path().join("digest"), &digest).unwrap();
    let mut sign = tool("tpm2_sign", tcti);
    sign.current_dir(folder.path());
    sign.args([
        "-c",
        "0x81020000",
        "-g",
        "sha256",
        "-f",
        "plain",
        "-o",
        "sig",
        "-d",
        "digest",
    ]);
    if !run(&mut sign).status.success() {
        return false;
    }
    let mut verify = testkit::programs::program("openssl");
    verify.current_dir(folder.path());
    verify.args([
        "pkeyutl", "-verify", "-in", "digest", "-sigfile", "sig", "-pubin", "-inkey",
    ]);
    run(verify.arg(public_key)).ok();
    true
}

fn a_manufactured_tpm_signs_and_survives_a_restart() {
    let (mut tpm, identity) = Swtpm::manufactured();
    for file in [
        identity.root(),
        identity.ca(),
        identity.certificate(),
        identity.public_key(),
    ] {
        assert!(file.is_file(), "{}", file.display());
    }
    assert!(signs(&tpm.tcti(), &identity.public_key()));
    tpm.shut_down();
    assert!(
        tpm.place().connect().is_err(),
        "nobody listens when it is gone"
    );
    tpm.restart();
    assert_eq!(tpm.lockout_counter(), 0);
    assert!(signs(&tpm.tcti(), &identity.public_key()));
}

fn a_power_cut_after_a_signature_is_counted_by_the_tpm_itself() {
    let (mut tpm, identity) = Swtpm::manufactured();
    assert!(signs(&tpm.tcti(), &identity.public_key()));
    tpm.kill();
    tpm.restart();
    assert_eq!(
        tpm.lockout_counter(),
        1,
        "which is why stories about lockout shut it down"
    );
}

/// The duties of every front: forward commands, count them, and answer instead of the TPM.
fn counts_and_answers(book: &Book, tcti: &str, public_key: &std::path::Path) {
    assert!(signs(tcti, public_key));
    let seen = book.take();
    // At the first use of a key that is not noDA, a TPM answers RETRY, because it records the use
    // in NV.
    assert_eq!(seen.answered(command::SIGN, answer::RETRY), 1, "{seen:?}");
    assert_eq!(seen.answered(command::SIGN, 0), 1, "{seen:?}");
    assert_eq!(seen.of(command::NV_READ), 0, "{seen:?}");
    book.break_next(command::SIGN, Fault::Code(answer::FAILURE));
    assert!(!signs(tcti, public_key), "the answer is the proxy's");
    assert!(book.all_broken());
    assert_eq!(book.take().of(command::SIGN), 1);
    assert!(signs(tcti, public_key), "a fault ends when it has happened");
}

fn the_proxy_counts_and_breaks() {
    let (tpm, identity) = Swtpm::manufactured();
    let proxy = Proxy::new(&tpm);
    counts_and_answers(proxy.book(), &proxy.tcti(), &identity.public_key());
    for fault in [Fault::Drop, Fault::Lost, Fault::Half, Fault::Garbage] {
        proxy.book().break_next(command::SIGN, fault);
        assert!(!signs(&proxy.tcti(), &identity.public_key()), "{fault:?}");
        run(tpm.tool("tpm2_flushcontext").arg("-l")).ok(); // tpm2_sign left its auth session
        assert!(
            signs(&proxy.tcti(), &identity.public_key()),
            "after {fault:?}"
        );
    }
    proxy.book().break_next(command::SIGN, Fault::Stall);
    std::thread::scope(|scope| {
        let signature = scope.spawn(|| signs(&proxy.tcti(), &identity.public_key()));
        proxy.book().await_stall();
        assert!(!signature.is_finished());
        proxy.book().release();
        assert!(signature.join().unwrap());
    });
    let tcti = proxy.tcti();
    drop(proxy);
    assert!(
        !signs(&tcti, &identity.public_key()),
        "a proxy ends with its value"
    );
}

fn the_simulator_front_serves_libtss2() {
    let (tpm, identity) = Swtpm::manufactured();
    let front = Simulator::new(&tpm);
    counts_and_answers(front.book(), &front.tcti(), &identity.public_key());
}

fn the_device_front_serves_libtss2() {
    let (tpm, identity) = Swtpm::manufactured();
    let front = Device::new(&tpm);
    counts_and_answers(front.book(), &front.tcti(), &identity.public_key());
}

fn a_unix_socket_serves() {
    let (tpm, _) = Swtpm::manufactured_on_unix_socket();
    let mut stream = tpm.place().connect().unwrap();
    stream
        .write_all(&[0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7B, 0, 8])
        .unwrap();
    let random = testkit::proxy::read_packet(&mut stream).unwrap();
    assert_eq!(
        (random.len(), &random[6..10]),
        (20, &[0; 4][..]),
        "8 random bytes"
    );
}

fn softhsm_is_ready() {
    let (_soft, module) = SoftHsm::enter();
    module.initialize().unwrap();
    let slots = module.slots(true).unwrap();
    assert_eq!(
        raw::text(&module.token_info(slots[0]).unwrap().label),
        "soft"
    );
    let session = module.open(slots[0], CKF_SERIAL_SESSION).unwrap();
    module.login(session, CKU_USER, PIN.as_bytes()).unwrap();
    module.finalize().unwrap();
}

fn der_of_short_numbers() {
    let short = [[0, 0, 1], [0, 0x80, 0]].concat();
    assert_eq!(openssl::der(&short), [0x30, 8, 2, 1, 1, 2, 3, 0, 0x80, 0]);
}
