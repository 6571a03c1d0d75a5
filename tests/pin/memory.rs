//! After C_Logout the host's memory contains no PIN, and no secret that a PIN protects. The host is
//! a forked child that gets its PINs through a pipe and wipes its own copies. The test searches the
//! memory of the child from outside, as in a core image.

use cryptoki_sys::*;
use std::fs::File;
use std::hint::black_box;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use testkit::fork::Forked;
use testkit::link::Link;
use testkit::memory::found;
use testkit::module::loaded;
use testkit::own::{YES, slot_of};
use testkit::pins::{Bench, Token, key_value, unseal, value_of};
use testkit::raw::Raw;

over_our_transport!(nothing_stays_after_logout_and_after_the_end);

const WIDTH: usize = 16;

fn nothing_stays_after_logout_and_after_the_end(link: Link) {
    let bench = Bench::new(link);
    let raw = loaded(&bench.home);
    let (from_parent, mut to_child) = pipe().unwrap();
    let (mut from_child, to_parent) = pipe().unwrap();
    let child = Forked::new(|| {
        Host {
            raw: &raw,
            orders: from_parent,
            reports: to_parent,
        }
        .live();
    });
    // Made after the fork: the child has them from nowhere else.
    let [officer, first, user, wrong] = [(); 4].map(|()| random_pin());
    for pin in [&officer, &first, &user, &wrong] {
        to_child.write_all(pin.as_bytes()).unwrap();
    }
    let host = await_report(&mut from_child);
    let value = |pin: &str| value_of(pin);
    let mut secrets = vec![
        ("the officer's PIN", officer.as_bytes().to_vec()),
        ("the first PIN", first.as_bytes().to_vec()),
        ("the PIN", user.as_bytes().to_vec()),
        ("the wrong PIN", wrong.as_bytes().to_vec()),
        ("SHA-256 of the officer's PIN", value(&officer)),
        ("SHA-256 of the first PIN", value(&first)),
        ("SHA-256 of the PIN", value(&user)),
        ("SHA-256 of the wrong PIN", value(&wrong)),
    ];
    let secret = unseal(&bench, &bench.path("state/devid/.user.pem"), &user).unwrap();
    let opener = key_value(&bench, &secret);
    // The search finds data that must be there, which proves the search.
    assert_eq!(found(host, &[("secret", secret.clone())]), ["secret"]);
    assert_eq!(found(host, &secrets), [""; 0], "logged in");
    secrets.push(("the token's secret", secret));
    secrets.push(("the key's authorisation value", opener));
    to_child.write_all(&[1]).unwrap();
    let grandchild = await_report(&mut from_child);
    assert_eq!(
        found(grandchild, &secrets),
        [""; 0],
        "C_Initialize in a child"
    );
    for when in ["C_Logout", "C_Finalize"] {
        to_child.write_all(&[1]).unwrap();
        assert_eq!(await_report(&mut from_child), host);
        assert_eq!(found(host, &secrets), [""; 0], "after {when}");
    }
    to_child.write_all(&[1]).unwrap();
    child.succeeds();
    bench.counts(1);
}

/// The forked child.
struct Host<'a> {
    raw: &'a Raw,
    orders: PipeReader,
    reports: PipeWriter,
}

impl Host<'_> {
    fn live(mut self) {
        let mut pins = Box::new([[0_u8; WIDTH]; 4]);
        for pin in pins.iter_mut() {
            self.orders.read_exact(pin).unwrap();
        }
        let table = self.raw.table;
        self.raw.initialize().unwrap();
        let slot = slot_of(self.raw, "devid");
        let [officer, first, user, wrong] = pins.each_mut().map(|pin| pin.as_mut_ptr());
        let width = WIDTH as CK_ULONG;
        let ok = |code: testkit::raw::Code| code.result().unwrap();
        let mut label = [b'x'; 32];
        ok(call!(
            table,
            C_InitToken(slot, officer, width, label.as_mut_ptr())
        ));
        let session = self.raw.open(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION);
        let session = session.unwrap();
        ok(call!(table, C_Login(session, CKU_SO, officer, width)));
        ok(call!(table, C_InitPIN(session, first, width)));
        ok(call!(table, C_Logout(session)));
        let refused = call!(table, C_Login(session, CKU_USER, wrong, width));
        assert_eq!(refused.0, CKR_PIN_INCORRECT);
        ok(call!(table, C_SetPIN(session, first, width, user, width)));
        ok(call!(table, C_Login(session, CKU_USER, user, width)));
        let token = Token {
            raw: Raw::load(&testkit::module::library()),
            slot,
        };
        let asks = [(CKA_ALWAYS_AUTHENTICATE, YES.to_vec())];
        let (_, key) = token.pair(session, "key", &asks);
        self.raw.sign_init(session, CKM_ECDSA_SHA256, key).unwrap();
        let own = CKU_CONTEXT_SPECIFIC;
        ok(call!(table, C_Login(session, own, user, width)));
        self.raw.sign(session, b"data").unwrap();
        pins.iter_mut().for_each(|pin| pin.fill(0));
        black_box(&pins);
        self.report();
        // A child of this one, which begins anew.
        Forked::new(|| {
            self.raw.initialize().unwrap();
            (&self.reports)
                .write_all(&std::process::id().to_ne_bytes())
                .unwrap();
            self.order();
        })
        .succeeds();
        self.raw.logout(session).unwrap();
        self.report();
        self.raw.finalize().unwrap();
        self.report();
    }

    fn report(&mut self) {
        let id = std::process::id().to_ne_bytes();
        self.reports.write_all(&id).unwrap();
        self.order();
    }

    fn order(&self) {
        (&self.orders).read_exact(&mut [0]).unwrap();
    }
}

/// The id of the process that waits now.
fn await_report(reports: &mut PipeReader) -> u32 {
    let mut id = [0; 4];
    reports.read_exact(&mut id).expect("the host lives");
    u32::from_ne_bytes(id)
}

fn random_pin() -> String {
    let mut bytes = [0_u8; WIDTH / 2];
    File::open("/dev/urandom")
        .unwrap()
        .read_exact(&mut bytes)
        .unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
