//! Secret keys with the calls of Azure's aziot-keyd. OpenSSL verifies a ciphertext and a message
//! authentication code.

use cryptoki_sys::*;
use std::fs::{self, File};
use std::io::{Read, Write, pipe};
use testkit::ciphers::mechanism;
use testkit::host::host;
use testkit::link::Link;
use testkit::memory::{Host, found, places};
use testkit::module::ulong;
use testkit::own::{Own, YES, create, folder};
use testkit::pins::{Bench, USER};
use testkit::programs::{output, run};
use testkit::proxy::{Fault, command};
use testkit::raw::{Code, Item};

over_our_transport!(
    what_aziot_keyd_asks,
    what_aziot_keyd_asks_behind_a_pin,
    a_host_whose_empty_buffer_is_null,
    nothing_of_a_secret_key_stays_after_logout,
    a_logout_while_a_code_begins,
);

const KEY: &str = "3031323334353637383961626364656630313233343536373839616263646566";

fn judged(bench: &Bench, said: &str) {
    let message = bench.home.path("message");
    fs::write(&message, "message").unwrap();
    let message = message.to_str().unwrap();
    let hmac = output(
        "openssl",
        [
            "dgst",
            "-sha256",
            "-mac",
            "HMAC",
            "-macopt",
            &format!("hexkey:{KEY}"),
            message,
        ],
    );
    let hmac = String::from_utf8(hmac).unwrap();
    let (_, code) = hmac.trim().rsplit_once(' ').unwrap();
    assert!(said.contains(&format!("code {code}\n")), "{said}");
    let zeros = "0".repeat(32);
    let cipher = output(
        "openssl",
        [
            "enc",
            "-aes-256-cbc",
            "-K",
            KEY,
            "-iv",
            &zeros,
            "-in",
            message,
        ],
    );
    let cipher: String = cipher.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(said.contains(&format!("cipher {cipher}\n")), "{said}");
}

fn what_aziot_keyd_asks(link: Link) {
    let bench = Bench::new(link);
    let said = run(&mut host(&bench.home, "aziot", &["devid"])).ok().text();
    judged(&bench, &said);
    // Each key was made twice. The second AES key replaced the first.
    assert_eq!(folder(&bench.home).len(), 4);
}

fn what_aziot_keyd_asks_behind_a_pin(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let label = token.raw.token_info(token.slot).unwrap().label;
    let label = String::from_utf8_lossy(&label).trim_end().to_owned();
    let said = run(&mut host(&bench.home, "aziot", &[&label, USER]))
        .ok()
        .text();
    judged(&bench, &said);
    // Seen and used by the user alone.
    let session = token.read_write();
    let class: Item = (CKA_CLASS, CKO_SECRET_KEY.to_ne_bytes().to_vec());
    assert_eq!(
        token
            .raw
            .find(session, std::slice::from_ref(&class))
            .unwrap(),
        []
    );
    token.login(session, USER).unwrap();
    assert_eq!(token.raw.find(session, &[class]).unwrap().len(), 4);
}

/// PyKCS11 asks for the length of each part's output, and then passes a buffer of that length. Its empty
/// buffer is NULL, which asks for the length again.
fn a_host_whose_empty_buffer_is_null(link: Link) {
    let bench = Bench::new(link);
    let own = Own::new(&bench.home);
    let key = own
        .create(&[
            (CKA_CLASS, ulong(CKO_SECRET_KEY)),
            (CKA_KEY_TYPE, ulong(CKK_AES)),
            (CKA_VALUE, vec![7; 32]),
        ])
        .unwrap();
    let iv = [1_u8; 12];
    let gcm = gcm(&iv);
    let gcm = mechanism(CKM_AES_GCM, Some(&gcm));
    let cbc = mechanism(CKM_AES_CBC, Some(&[0_u8; 16]));
    for (mut mechanism, parts) in [(gcm, [5, 16]), (cbc, [5, 11])] {
        let (session, table) = (own.session, own.raw.table);
        let init = call!(table, C_EncryptInit(session, &raw mut mechanism, key));
        init.result().unwrap();
        let mut sealed = Vec::new();
        for part in parts {
            let one = vec![9; part];
            sealed.extend(in_two_calls(|out, length| {
                let one = one.as_ptr().cast_mut();
                call!(
                    table,
                    C_EncryptUpdate(session, one, part as CK_ULONG, out, length)
                )
            }));
        }
        sealed.extend(in_two_calls(|out, length| {
            call!(table, C_EncryptFinal(session, out, length))
        }));
        let init = call!(table, C_DecryptInit(session, &raw mut mechanism, key));
        init.result().unwrap();
        let mut opened = Vec::new();
        for one in sealed.chunks(7) {
            opened.extend(in_two_calls(|out, length| {
                let (one, width) = (one.as_ptr().cast_mut(), one.len() as CK_ULONG);
                call!(table, C_DecryptUpdate(session, one, width, out, length))
            }));
        }
        opened.extend(in_two_calls(|out, length| {
            call!(table, C_DecryptFinal(session, out, length))
        }));
        assert_eq!(opened, vec![9; parts[0] + parts[1]]);
        // Both operations are over, even if the end gave no output.
        let (mut out, mut length) = ([0_u8; 32], 32);
        let out = out.as_mut_ptr();
        for ended in [
            call!(table, C_EncryptFinal(session, out, &raw mut length)),
            call!(table, C_DecryptFinal(session, out, &raw mut length)),
        ] {
            assert_eq!(ended, Code(CKR_OPERATION_NOT_INITIALIZED));
        }
    }
}

/// The output of a call that is asked for its length first; a buffer of no bytes is NULL.
fn in_two_calls(mut call: impl FnMut(CK_BYTE_PTR, &mut CK_ULONG) -> Code) -> Vec<u8> {
    let mut length = 0;
    call(std::ptr::null_mut(), &mut length).result().unwrap();
    let mut out = vec![0; length as usize];
    let place = match out.is_empty() {
        true => std::ptr::null_mut(),
        false => out.as_mut_ptr(),
    };
    call(place, &mut length).result().unwrap();
    out.truncate(length as usize);
    out
}

/// The key's bytes come from the host, which wipes its own copies: what is found then is the module's.
fn nothing_of_a_secret_key_stays_after_logout(link: Link) {
    let (_bench, token) = Bench::with_pins(link);
    let (mut from_host, mut to_parent) = pipe().unwrap();
    let mut host = Host::new(|wait| {
        token.raw.initialize().unwrap();
        let session = token.read_write();
        token.login(session, USER).unwrap();
        let mut template = [
            (CKA_CLASS, ulong(CKO_SECRET_KEY)),
            (CKA_KEY_TYPE, ulong(CKK_AES)),
            (CKA_TOKEN, YES.to_vec()),
            (CKA_VALUE, vec![0; 32]),
        ];
        let value = &mut template[3].1;
        File::open("/dev/urandom")
            .unwrap()
            .read_exact(value)
            .unwrap();
        to_parent.write_all(value).unwrap();
        let key = create(&token.raw, session, &template).unwrap();
        template[3].1.fill(0);
        let table = token.raw.table;
        let gcm = gcm(&[1; 12]);
        for mut mechanism in [
            mechanism(CKM_AES_GCM, Some(&gcm)),
            mechanism(CKM_AES_CBC, Some(&[0_u8; 16])),
            mechanism::<u8>(CKM_AES_ECB, None),
        ] {
            let init = call!(table, C_EncryptInit(session, &raw mut mechanism, key));
            init.result().unwrap();
            let data = [9_u8; 16];
            let mut out = [0_u8; 32];
            let mut length = 32;
            let (data, out) = (data.as_ptr().cast_mut(), out.as_mut_ptr());
            let sealed = call!(table, C_Encrypt(session, data, 16, out, &raw mut length));
            sealed.result().unwrap();
        }
        wait();
        // A current operation ends with the login.
        let mut cbc = mechanism(CKM_AES_CBC, Some(&[0_u8; 16]));
        let init = call!(table, C_EncryptInit(session, &raw mut cbc, key));
        init.result().unwrap();
        token.raw.logout(session).unwrap();
        wait();
        token.raw.finalize().unwrap();
        wait();
    });
    host.waits();
    let mut value = vec![0; 32];
    from_host.read_exact(&mut value).unwrap();
    let open = places(host.id(), &value);
    assert!(open.iter().all(|place| place.locked), "{open:?}");
    for when in ["C_Logout", "C_Finalize"] {
        host.goes_on();
        assert_eq!(
            found(host.id(), &[("the key", value.clone())]),
            [""; 0],
            "{when}"
        );
    }
    host.ends();
}

fn gcm(iv: &[u8; 12]) -> CK_GCM_PARAMS {
    CK_GCM_PARAMS {
        pIv: iv.as_ptr().cast_mut(),
        ulIvLen: 12,
        ulIvBits: 96,
        pAAD: std::ptr::null_mut(),
        ulAADLen: 0,
        ulTagBits: 128,
    }
}

/// The TPM gives the key when nobody is logged in any more.
fn a_logout_while_a_code_begins(link: Link) {
    let (bench, token) = Bench::with_pins(link);
    let session = token.read_write();
    token.login(session, USER).unwrap();
    let template = [
        (CKA_CLASS, ulong(CKO_SECRET_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_GENERIC_SECRET)),
        (CKA_TOKEN, YES.to_vec()),
        (CKA_VALUE, vec![7; 32]),
    ];
    let key = create(&token.raw, session, &template).unwrap();
    bench.proxy.book().break_next(command::UNSEAL, Fault::Stall);
    std::thread::scope(|scope| {
        let begun = scope.spawn(|| token.raw.sign_init(session, CKM_SHA256_HMAC, key));
        bench.proxy.book().await_stall();
        token.raw.logout(session).unwrap();
        bench.proxy.book().release();
        let refused = begun.join().unwrap();
        assert_eq!(refused, Err(Code(CKR_USER_NOT_LOGGED_IN)));
    });
    let signed = token.raw.sign(session, b"data");
    assert_eq!(signed, Err(Code(CKR_OPERATION_NOT_INITIALIZED)));
}
