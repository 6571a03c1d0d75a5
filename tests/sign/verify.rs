//! C_Verify with the token's keys and with a caller's keys. Signatures of OpenSSL are accepted, all
//! other signatures are refused, and no TPM command is sent.

use cryptoki_sys::*;
use std::fs;
use std::path::Path;
use std::ptr;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{Opened, library, ulong};
use testkit::own::{create, ec_public};
use testkit::programs::{output, program, run};
use testkit::proxy::Proxy;
use testkit::raw::Code;
use testkit::tpm::Swtpm;

over_our_transport!(
    the_tokens_own_key,
    an_ec_key_that_the_caller_brings,
    an_rsa_key_that_the_caller_brings,
    templates_that_describe_no_key,
    pkcs11_tool_verifies,
);

const DATA: &[u8] = b"what somebody else has signed, or has not";

struct Bench {
    _tpm: Swtpm,
    proxy: Proxy,
    home: Home,
    module: Opened,
}

impl Bench {
    fn new(link: Link) -> Bench {
        let (tpm, _identity) = Swtpm::manufactured();
        let proxy = Proxy::new(&tpm);
        let home = Home::new(&link.tcti(&proxy.tcti()));
        let module = Opened::new(&home);
        proxy.book().take();
        Bench {
            _tpm: tpm,
            proxy,
            home,
            module,
        }
    }

    fn create(&self, template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> Result<CK_ULONG, Code> {
        create(&self.module.raw, self.module.session, template)
    }

    /// In one part and in two.
    fn verifies(
        &self,
        kind: CK_ULONG,
        key: CK_ULONG,
        data: &[u8],
        signature: &[u8],
    ) -> Result<(), Code> {
        let Opened { raw, session, .. } = &self.module;
        let (data, signature) = (&mut data.to_vec(), &mut signature.to_vec());
        let length = |bytes: &[u8]| bytes.len() as CK_ULONG;
        let init = || {
            let mut mechanism = CK_MECHANISM {
                mechanism: kind,
                pParameter: ptr::null_mut(),
                ulParameterLen: 0,
            };
            call!(raw.table, C_VerifyInit(*session, &raw mut mechanism, key)).result()
        };
        let (data_at, signature_at) = (data.as_mut_ptr(), signature.as_mut_ptr());
        init()?;
        let whole = call!(
            raw.table,
            C_Verify(
                *session,
                data_at,
                length(data),
                signature_at,
                length(signature)
            )
        );
        if kind != CKM_ECDSA {
            init()?;
            call!(raw.table, C_VerifyUpdate(*session, data_at, 3)).result()?;
            let rest = data[3..].as_mut_ptr();
            call!(raw.table, C_VerifyUpdate(*session, rest, length(data) - 3)).result()?;
            let parts = call!(
                raw.table,
                C_VerifyFinal(*session, signature_at, length(signature))
            );
            assert_eq!(parts, whole);
        }
        whole.result()
    }

    /// A good signature is accepted, what differs in data, signature or length is not.
    fn judges(&self, kind: CK_ULONG, key: CK_ULONG, signature: &[u8]) {
        assert_eq!(self.verifies(kind, key, DATA, signature), Ok(()));
        let invalid = Err(Code(CKR_SIGNATURE_INVALID));
        assert_eq!(self.verifies(kind, key, b"other data", signature), invalid);
        let mut changed = signature.to_vec();
        changed[signature.len() - 1] ^= 1;
        assert_eq!(self.verifies(kind, key, DATA, &changed), invalid);
        let short = self.verifies(kind, key, DATA, &signature[1..]);
        assert_eq!(short, Err(Code(CKR_SIGNATURE_LEN_RANGE)));
        assert_eq!(
            self.proxy.book().take().total(),
            0,
            "it is no business of the TPM's"
        );
    }

    /// A key pair of OpenSSL's: its private and its public file.
    fn key_pair(&self, options: &[&str]) -> (String, String) {
        let file = |name| self.home.path(name).to_str().unwrap().to_owned();
        let (private, public) = (file("other.key"), file("other.pub"));
        let generate = [&["genpkey", "-out", &private, "-algorithm"], options].concat();
        run(program("openssl").args(generate)).ok();
        run(program("openssl").args(["pkey", "-in", &private, "-pubout", "-out", &public])).ok();
        (private, public)
    }

    fn openssl_signs(&self, hash: &str, private: &str) -> Vec<u8> {
        let data = self.home.write("data", DATA);
        output(
            "openssl",
            ["dgst", hash, "-sign", private, data.to_str().unwrap()],
        )
    }
}

/// r ‖ s of OpenSSL's DER signature.
fn raw_signature(der: &[u8], width: usize) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut raw = Vec::new();
    while !rest.is_empty() {
        let (number, after) = rest[2..].split_at(rest[1].into());
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        raw.extend(std::iter::repeat_n(0, width - number.len()));
        raw.extend(number);
        rest = after;
    }
    raw
}

fn the_tokens_own_key(link: Link) {
    let bench = Bench::new(link);
    let Opened { raw, session, .. } = &bench.module;
    let public = raw
        .find(*session, &[(CKA_CLASS, ulong(CKO_PUBLIC_KEY))])
        .unwrap()[0];
    let signature = bench
        .module
        .sign(CKM_ECDSA_SHA256, bench.module.key(), DATA)
        .unwrap();
    bench.proxy.book().take();
    bench.judges(CKM_ECDSA_SHA256, public, &signature);
    let short = bench
        .module
        .sign(CKM_ECDSA, bench.module.key(), &[7; 20])
        .unwrap();
    assert_eq!(bench.verifies(CKM_ECDSA, public, &[7; 20], &short), Ok(()));
    let private = bench.verifies(CKM_ECDSA, bench.module.key(), &[7; 20], &short);
    assert_eq!(private, Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED)));
}

fn an_ec_key_that_the_caller_brings(link: Link) {
    let bench = Bench::new(link);
    let (private, public) = bench.key_pair(&["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let key = bench.create(&ec_public(Path::new(&public))).unwrap();
    let signature = raw_signature(&bench.openssl_signs("-sha384", &private), 32);
    bench.judges(CKM_ECDSA_SHA384, key, &signature);

    // The object can be found, and ends with its session.
    let Opened {
        raw, session, slot, ..
    } = &bench.module;
    let of_sessions = [(CKA_TOKEN, vec![CK_FALSE])];
    assert_eq!(raw.find(*session, &of_sessions).unwrap(), [key]);
    let other = raw.open(*slot, CKF_SERIAL_SESSION).unwrap();
    let second = create(raw, other, &ec_public(Path::new(&public))).unwrap();
    assert_eq!(raw.find(*session, &of_sessions).unwrap(), [key, second]);
    raw.close(other).unwrap();
    assert_eq!(raw.find(*session, &of_sessions).unwrap(), [key]);
    assert_eq!(
        call!(raw.table, C_DestroyObject(*session, key)),
        Code(CKR_OK)
    );
    assert_eq!(
        call!(raw.table, C_DestroyObject(*session, key)),
        Code(CKR_OBJECT_HANDLE_INVALID)
    );
    assert_eq!(
        call!(raw.table, C_DestroyObject(*session, bench.module.key())),
        Code(CKR_TOKEN_WRITE_PROTECTED)
    );
}

fn an_rsa_key_that_the_caller_brings(link: Link) {
    let bench = Bench::new(link);
    let (private, public) = bench.key_pair(&["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let said = output(
        "openssl",
        ["rsa", "-pubin", "-in", &public, "-noout", "-modulus"],
    );
    let digits = String::from_utf8(said).unwrap();
    let digits = digits.trim().strip_prefix("Modulus=").unwrap().to_owned();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    let modulus: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
    let key = bench.create(&[
        (CKA_CLASS, ulong(CKO_PUBLIC_KEY)),
        (CKA_KEY_TYPE, ulong(CKK_RSA)),
        (CKA_MODULUS, modulus),
        (CKA_PUBLIC_EXPONENT, vec![1, 0, 1]),
    ]);
    let signature = bench.openssl_signs("-sha256", &private);
    bench.judges(CKM_SHA256_RSA_PKCS, key.unwrap(), &signature);
}

fn templates_that_describe_no_key(link: Link) {
    let bench = Bench::new(link);
    let (_, public) = bench.key_pair(&["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let good = ec_public(Path::new(&public));
    let with = |change: (CK_ATTRIBUTE_TYPE, Vec<u8>)| {
        let mut template = good.clone();
        template.retain(|(kind, _)| *kind != change.0);
        template.push(change);
        bench.create(&template)
    };
    for (change, code) in [
        (
            (CKA_CLASS, ulong(CKO_SECRET_KEY)),
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        ((CKA_TOKEN, vec![CK_TRUE]), CKR_TOKEN_WRITE_PROTECTED),
        ((CKA_EC_PARAMS, vec![6, 1, 1]), CKR_CURVE_NOT_SUPPORTED),
        ((CKA_EC_POINT, vec![4; 67]), CKR_ATTRIBUTE_VALUE_INVALID),
        ((CKA_LOCAL, vec![CK_TRUE]), CKR_ATTRIBUTE_READ_ONLY),
        ((CKA_VALUE, vec![1]), CKR_ATTRIBUTE_TYPE_INVALID),
    ] {
        assert_eq!(with(change), Err(Code(code)));
    }
    assert_eq!(bench.create(&good[..3]), Err(Code(CKR_TEMPLATE_INCOMPLETE)));
    // An attribute with one value given twice counts once. Two different values are an error
    // (section 4.1.1).
    bench.create(&[&good[..], &good[..1]].concat()).unwrap();
    let other = (CKA_CLASS, ulong(CKO_PRIVATE_KEY));
    let twice = [&good[..], &[other]].concat();
    assert_eq!(bench.create(&twice), Err(Code(CKR_TEMPLATE_INCONSISTENT)));
    let unwilling = with((CKA_VERIFY, vec![CK_FALSE])).unwrap();
    let code = bench.verifies(CKM_ECDSA, unwilling, &[1; 32], &[1; 64]);
    assert_eq!(code, Err(Code(CKR_KEY_FUNCTION_NOT_PERMITTED)));
}

fn pkcs11_tool_verifies(link: Link) {
    let bench = Bench::new(link);
    let data = bench.home.write("data", DATA);
    let signature = bench.home.path("signature");
    let module = library();
    let tool = |verb: &str, option: &str| {
        let mut command = program("pkcs11-tool");
        command
            .arg("--module")
            .arg(&module)
            .args([verb, "-m", "ECDSA-SHA256", "-i"]);
        command.arg(&data).arg(option).arg(&signature);
        run(bench.home.settle(&mut command))
    };
    tool("--sign", "-o").ok();
    let said = tool("--verify", "--signature-file").ok().all();
    assert!(said.contains("Signature is valid"), "{said}");
    let mut wrong = fs::read(&signature).unwrap();
    wrong[5] ^= 1;
    fs::write(&signature, wrong).unwrap();
    let said = tool("--verify", "--signature-file").all();
    assert!(said.contains("Invalid signature"), "{said}");
}
