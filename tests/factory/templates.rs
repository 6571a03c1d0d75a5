//! The choices of different manufacturers: every template of the TCG, each way to fill `unique`,
//! each scheme, each form of the certificate. The token lists each key. The key signs by all its
//! listed mechanisms, and OpenSSL verifies the signatures.

use cryptoki_sys::*;
use std::fmt::Write as _;
use testkit::factory::Identity;
use testkit::home::Home;
use testkit::link::Link;
use testkit::module::{Opened, ulong};
use testkit::openssl::{Verifier, certificate_der, public_key_der};
use testkit::programs::run_with;
use testkit::signing::{HASHES, Hash, Message, Signer, Tried};
use testkit::tls::{
    openssl_client, openssl_server_with, server_identity, without_allowed_mechanisms,
};
use testkit::tpm::Swtpm;

over_our_transport!(
    template_h1_of_any_scheme,
    template_h1_rsassa,
    template_h1_rsapss,
    template_h2,
    template_h3,
    template_h4,
    rsa3072_of_any_scheme,
    rsa3072_rsassa,
    rsa3072_rsapss,
);

/// Contents of the certificate's NV index: a name for the test, and options of the factory.
const FORMS: [(&str, &[&str]); 6] = [
    ("DER", &[]),
    ("DER, 100 x 00", &["--padding", "100"]),
    ("DER, 100 x FF", &["--padding", "100", "--pad-byte", "ff"]),
    ("PEM", &["--form", "pem"]),
    (
        "chain, 00 to 2048",
        &["--form", "chain", "--padding", "full"],
    ),
    (
        "DER, FF to 2048",
        &["--padding", "full", "--pad-byte", "ff"],
    ),
];

/// The choices of one maker.
struct Row {
    template: &'static str,
    unique: &'static str,
    scheme: &'static str,
    form: &'static str,
    serial: String,
    options: Vec<String>,
}

/// The choices for one template with these schemes: each way to fill `unique` with each scheme. The
/// forms follow in turn from this form.
fn rows(template: &'static str, schemes: &[&'static str], first_form: usize) -> Vec<Row> {
    let uniques: &[&'static str] = match is_rsa(template) {
        true => &["both", "none"], // one place to fill
        false => &["both", "x", "split", "none"],
    };
    let each = schemes
        .iter()
        .flat_map(|scheme| uniques.iter().map(move |unique| (*scheme, *unique)));
    let row = |(at, (scheme, unique)): (usize, (&'static str, &'static str))| {
        let (form, of_form) = FORMS[(at + first_form) % FORMS.len()];
        // The CA's certificate is at 0x01C90201.
        let place = if at == 0 { 0 } else { at + 0x10 };
        let serial = format!("SN-{template}-{at}");
        let mut options: Vec<String> = [
            ("template", template.to_owned()),
            ("unique", unique.to_owned()),
            ("scheme", scheme.to_owned()),
            ("name", format!("device-{at}")),
            ("serial", serial.clone()),
            ("handle", format!("{:#x}", 0x8102_0000 + place)),
            ("nv", format!("{:#x}", 0x01C9_0200 + place)),
        ]
        .into_iter()
        .flat_map(|(name, value)| [format!("--{name}"), value])
        .collect();
        options.extend(of_form.iter().map(ToString::to_string));
        Row {
            template,
            unique,
            scheme,
            form,
            serial,
            options,
        }
    };
    each.enumerate().map(row).collect()
}

fn is_rsa(template: &str) -> bool {
    template == "h1" || template.starts_with("rsa")
}

impl Row {
    /// The hashes that the key takes.
    fn hashes(&self) -> Vec<&'static Hash> {
        match (self.scheme, self.template) {
            ("rsassa" | "rsapss", "h1") => vec![Hash::named("sha256")],
            ("rsassa" | "rsapss", _) => vec![Hash::named("sha384")],
            _ => HASHES.iter().collect(),
        }
    }

    /// The mechanisms that the key has.
    fn mechanisms(&self) -> Vec<CK_ULONG> {
        let hashes = self.hashes();
        let of = |kind: fn(&Hash) -> Option<CK_ULONG>| {
            hashes
                .iter()
                .filter_map(|hash| kind(hash))
                .collect::<Vec<_>>()
        };
        let pkcs1 = || [vec![CKM_RSA_PKCS], of(|hash| Some(hash.pkcs1))].concat();
        let pss = || [vec![CKM_RSA_PKCS_PSS], of(|hash| hash.pss)].concat();
        match (is_rsa(self.template), self.scheme) {
            (true, "rsassa") => pkcs1(),
            (true, "rsapss") => pss(),
            (true, _) => [pkcs1(), pss()].concat(),
            (false, _) => [vec![CKM_ECDSA], of(|hash| hash.ecdsa)].concat(),
        }
    }
}

fn template_h1_of_any_scheme(link: Link) {
    prove("rsa2048", link, &rows("h1", &["null"], 0));
}

fn template_h1_rsassa(link: Link) {
    prove("rsa2048", link, &rows("h1", &["rsassa"], 2));
}

fn template_h1_rsapss(link: Link) {
    prove("rsa2048", link, &rows("h1", &["rsapss"], 4));
}

fn template_h2(link: Link) {
    prove("p256", link, &rows("h2", &["ecdsa", "null"], 0));
}

fn template_h3(link: Link) {
    prove("p384", link, &rows("h3", &["ecdsa", "null"], 2));
}

fn template_h4(link: Link) {
    prove("p521", link, &rows("h4", &["ecdsa", "null"], 4));
}

fn rsa3072_of_any_scheme(link: Link) {
    prove("rsa3072", link, &rows("rsa3072", &["null"], 0));
}

fn rsa3072_rsassa(link: Link) {
    prove("rsa3072", link, &rows("rsa3072", &["rsassa"], 2));
}

fn rsa3072_rsapss(link: Link) {
    prove("rsa3072", link, &rows("rsa3072", &["rsapss"], 4));
}

/// Makes all of them on one TPM, and tries each.
fn prove(algorithm: &str, link: Link, rows: &[Row]) {
    let runs: Vec<_> = rows.iter().map(|row| row.options.clone()).collect();
    let (tpm, identities) = Swtpm::manufactured_in_runs(&runs);
    let home = Home::new(&link.tcti(&tpm.tcti()));
    let module = Opened::new(&home);
    let message = Message::new();
    let (mut table, mut faults) = (String::new(), Vec::new());
    for (at, (row, identity)) in rows.iter().zip(&identities).enumerate() {
        let label = match at {
            0 => "idev-id".to_owned(),
            1 => format!("idev-id-{algorithm}"),
            at => format!("idev-id-{algorithm}-{at}"),
        };
        let mechanisms = row.mechanisms();
        let listed = listed(&module, identity, &label, &mechanisms);
        let tried = match &listed {
            Err(_) => Tried::default(),
            Ok(key) => Signer {
                module: &module,
                key: *key,
                judge: Verifier::new(&identity.public_key()),
                message: &message,
                hashes: row.hashes(),
            }
            .try_all(&mechanisms),
        };
        let tls = handshakes(&home, row, identity, &label);
        writeln!(
            table,
            "{link:?} | {} | {} | {} | {} | {label} | {} | {} of {} | {} of {} | {}",
            row.template,
            row.unique,
            row.scheme,
            row.form,
            if listed.is_ok() { "listed" } else { "NOT" },
            tried.signed,
            tried.asked,
            tried.verified,
            tried.asked,
            tls.as_ref().unwrap_or(&"NO"),
        )
        .unwrap();
        faults.extend(tls.err());
        faults.extend(listed.err());
        faults.extend(tried.faults.iter().map(|fault| format!("{label}: {fault}")));
    }
    println!(
        "\nlink | template | unique | scheme | certificate | label | listed | signed | verified | TLS"
    );
    println!("{table}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let count = |class| find(&module, &[(CKA_CLASS, ulong(class))]).len();
    assert_eq!(count(CKO_PRIVATE_KEY), rows.len());
    assert_eq!(count(CKO_CERTIFICATE), rows.len() + 1, "and the CA's");
    assert_eq!(tpm.lockout_counter(), 0);
}

/// Handshakes as a client with pkcs11-provider, by the protocols that the key is good for.
fn handshakes(
    home: &Home,
    row: &Row,
    identity: &Identity,
    label: &str,
) -> Result<&'static str, String> {
    let scheme = match row.hashes()[..] {
        [hash] => format!("RSA+{}", hash.name.to_uppercase()),
        _ => String::new(),
    };
    let (server, protocols): (Vec<&str>, &[&str]) = match row.scheme {
        // TLS 1.3 has no PKCS#1 signatures.
        "rsassa" => (vec!["-client_sigalgs", &scheme], &["1.2"]),
        _ => (Vec::new(), &["1.2", "1.3"]),
    };
    server_identity(home);
    let server = openssl_server_with(home, identity, &server);
    for protocol in protocols {
        let mut client = openssl_client(home, identity, label, &server, protocol);
        if row.scheme == "rsapss" {
            without_allowed_mechanisms(home, &mut client);
            let scheme = scheme.replace('+', "-PSS+");
            client.args(["-client_sigalgs", &scheme]);
        }
        let said = run_with(&mut client, b"GET / HTTP/1.0\r\n\r\n");
        if !said.text().contains(&row.serial) {
            return Err(format!("{label}: {said}\n{}", server.log()));
        }
    }
    match protocols.len() {
        1 => Ok("1.2"),
        _ => Ok("1.2, 1.3"),
    }
}

fn find(module: &Opened, template: &[(CK_ULONG, Vec<u8>)]) -> Vec<CK_ULONG> {
    module.raw.find(module.session, template).unwrap()
}

/// The identity's private key, if all its objects are there and say what they must.
fn listed(
    module: &Opened,
    identity: &Identity,
    label: &str,
    mechanisms: &[CK_ULONG],
) -> Result<CK_ULONG, String> {
    let read = |object, kind| module.raw.attribute(module.session, object, kind);
    let fault = |what: &str| Err(format!("{label}: {what}"));
    let value = certificate_der(&identity.certificate());
    let [certificate] = find(module, &[(CKA_VALUE, value)])[..] else {
        return fault("no certificate");
    };
    let id = read(certificate, CKA_ID).unwrap();
    let info = public_key_der(&identity.public_key());
    let mut key = 0;
    for class in [CKO_CERTIFICATE, CKO_PUBLIC_KEY, CKO_PRIVATE_KEY] {
        let [one] = find(module, &[(CKA_CLASS, ulong(class)), (CKA_ID, id.clone())])[..] else {
            return fault(&format!("not one object of class {class}"));
        };
        if read(one, CKA_LABEL).as_deref() != Ok(label.as_bytes()) {
            return fault(&format!("the label of class {class}"));
        }
        if read(one, CKA_PUBLIC_KEY_INFO).as_ref() != Ok(&info) {
            return fault(&format!("the public key of class {class}"));
        }
        key = one;
    }
    let allowed = read(key, CKA_ALLOWED_MECHANISMS).unwrap();
    let words = allowed
        .chunks(size_of::<CK_ULONG>())
        .map(|word| word.try_into().unwrap());
    let mut allowed: Vec<CK_ULONG> = words.map(CK_ULONG::from_ne_bytes).collect();
    let mut wanted = mechanisms.to_vec();
    allowed.sort_unstable();
    wanted.sort_unstable();
    if allowed != wanted {
        return fault(&format!("mechanisms {allowed:x?}, not {wanted:x?}"));
    }
    let listed = module.raw.mechanisms_of_keys(module.slot).unwrap();
    match wanted.iter().all(|kind| listed.contains(kind)) && listed.len() == wanted.len() {
        true => Ok(key),
        false => fault(&format!("{wanted:x?}, and the token lists {listed:x?}")),
    }
}
