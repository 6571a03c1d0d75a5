//! After C_Finalize the host's memory contains no part of a sealed key. The host is a forked child
//! that gets the key's numbers through a pipe and wipes its own copies. The test searches the
//! memory of the child from outside, as in a core image.

use cryptoki_sys::*;
use std::hint::black_box;
use std::io::{PipeReader, Read, Write, pipe};
use testkit::devid::{PROTECTION, SEALED};
use testkit::fork::Forked;
use testkit::home::Home;
use testkit::link::Link;
use testkit::memory::found;
use testkit::module::ulong;
use testkit::openssl::rsa_numbers;
use testkit::own::{Own, RSA_KEY, YES, outside};
use testkit::raw::Item;
use testkit::tpm::Swtpm;

over_our_transport!(nothing_of_an_rsa_key_stays_after_the_end);

const MODULUS: usize = 256;

fn nothing_of_an_rsa_key_stays_after_the_end(link: Link) {
    let tpm = Swtpm::blank();
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let (from_parent, mut to_child) = pipe().unwrap();
    let (mut from_child, mut to_parent) = pipe().unwrap();
    let child = Forked::new(|| {
        live(&home, from_parent, |id| to_parent.write_all(&id).unwrap());
    });
    // Made after the fork: the child has them from nowhere else.
    outside(&home, "other", &RSA_KEY);
    let names = [
        "modulus",
        "prime1",
        "prime2",
        "privateExponent",
        "exponent1",
    ];
    let numbers = rsa_numbers(&home.path("other.key"), &names);
    for number in &numbers[..2] {
        let zeros = number.iter().take_while(|&&byte| byte == 0).count();
        to_child.write_all(&number[zeros..]).unwrap();
    }
    // As DER has them, and as arithmetic does.
    let secrets = names
        .into_iter()
        .zip(&numbers)
        .skip(1)
        .flat_map(|(name, number)| {
            let zeros = number.iter().take_while(|&&byte| byte == 0).count();
            let number = number[zeros..].to_vec();
            let reversed = number.iter().rev().copied().collect();
            [(name, number), (name, reversed)]
        });
    let secrets: Vec<_> = secrets.collect();
    let mut host = || {
        let mut id = [0; 4];
        from_child.read_exact(&mut id).expect("the host lives");
        u32::from_ne_bytes(id)
    };
    // The search finds data that must be there, which proves the search.
    let there = found(host(), &secrets);
    assert!(there.contains(&"prime1"), "while it is open: {there:?}");
    to_child.write_all(&[1]).unwrap();
    assert_eq!(found(host(), &secrets), [""; 0], "after C_Finalize");
    to_child.write_all(&[1]).unwrap();
    child.succeeds();
}

/// The forked child.
fn live(home: &Home, mut orders: PipeReader, mut report: impl FnMut([u8; 4])) {
    let mut numbers = vec![0; MODULUS + MODULUS / 2];
    orders.read_exact(&mut numbers).unwrap();
    let (modulus, prime) = numbers.split_at(MODULUS);
    let mut template: Vec<Item> = vec![
        (CKA_CLASS, ulong(CKO_PRIVATE_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_RSA)),
        (CKA_TOKEN, YES.to_vec()),
        (CKA_DECRYPT, YES.to_vec()),
        (CKA_MODULUS, modulus.to_vec()),
        (CKA_PRIME_1, prime.to_vec()),
        (PROTECTION, ulong(SEALED)),
    ];
    let own = Own::new(home);
    let key = own.create(&template).unwrap();
    for (_, value) in &mut template {
        value.fill(0);
    }
    numbers.fill(0);
    black_box((&template, &numbers));
    own.sign(CKM_SHA256_RSA_PKCS, key, b"data").unwrap();
    let id = std::process::id().to_ne_bytes();
    report(id);
    orders.read_exact(&mut [0]).unwrap();
    own.raw.finalize().unwrap();
    report(id);
    orders.read_exact(&mut [0]).unwrap();
}
