//! Real certificates and certificate files: readable files are accepted everywhere, and other files
//! get a message. OpenSSL reads the same bytes.

use testkit::der;

use crate::device::tpm::Swtpm;
use crate::device::{Device, programs, tpm2};
use der::{Certificate, with_key_info};
use std::fs;
use std::path::{Path, PathBuf};

const INDEX: &str = "0x01C90200";
const PROVISION: &[&str] = &["provision", "--wait", "0"];

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn openssl(words: &[&str]) -> programs::Said {
    programs::run(programs::program("openssl").args(words))
}

fn testdata(folder: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/testdata");
    path.join(folder)
}

fn der_of(certificate: &Path) -> Vec<u8> {
    let path = text(certificate);
    openssl(&["x509", "-outform", "DER", "-in", &path]).ok().out
}

/// A device with one shape of the test data as its certificate, for its key.
struct Bench {
    device: Device,
    key_info: Vec<u8>,
}

impl Bench {
    fn new() -> Bench {
        let (device, identity) = Device::manufactured();
        let factory = Certificate::new(&der_of(&identity.certificate()));
        Bench {
            device,
            key_info: factory.public_key_info,
        }
    }

    fn burn(&mut self, name: &str) {
        let shape = fs::read(testdata("shapes").join(format!("{name}.der"))).unwrap();
        let content = with_key_info(&shape, &self.key_info);
        let path = text(&self.device.home.write("content", &content));
        let size = content.len().to_string();
        let attributes = "ownerwrite|ownerread|authread|no_da";
        tpm2(&mut self.device, "tpm2_nvundefine", &["-C", "o", INDEX]);
        let define = ["-C", "o", "-s", &size, "-a", attributes, INDEX];
        tpm2(&mut self.device, "tpm2_nvdefine", &define);
        tpm2(
            &mut self.device,
            "tpm2_nvwrite",
            &["-C", "o", "-i", &path, INDEX],
        );
    }
}

#[test]
fn what_a_certificate_says_is_shown_as_text() {
    let mut bench = Bench::new();
    let (subject, nothing) = ("subject", "");
    for (name, serial, model, from) in [
        ("str-bmp", "SN000123", "Gerät 7", subject),
        ("str-t61", "SN000123", "Gerät 7", subject),
        ("str-universal", "SN000123", "Gerät 7", subject),
        ("pid-slash", "FOC7", "EX", subject),
        ("pid-space", "FOC2", "EX-1", subject),
        ("pid-pidspaces", "FOC5", "IE 4000 4TC", subject),
        // An INTEGER is no serial number.
        (
            "attr-nonstring-sn",
            "SN000123",
            nothing,
            "subjectAltName, hardwareModuleName",
        ),
        (
            "sub-nosn-hwname",
            "SN000123",
            nothing,
            "subjectAltName, hardwareModuleName",
        ),
        (
            "sub-empty-san-dirname-sn",
            "SNDIR",
            nothing,
            "subjectAltName, directoryName",
        ),
    ] {
        bench.burn(name);
        let shown = bench.device.json(&["show", "idev-id"]);
        let said = &shown["certificates"][0];
        let is = |field: &str| said[field].as_str().unwrap_or_default().to_owned();
        assert_eq!(is("device_serial"), serial, "{name}");
        assert_eq!(is("device_serial_from"), from, "{name}");
        if from != "subjectAltName, directoryName" {
            assert_eq!(is("model"), model, "{name}");
        }
        assert!(shown["key"]["handle"].is_string(), "{name}: {shown}");
        let text = bench.device.ends(0, &["show", "idev-id"]).text();
        let source = match from {
            "subject" => String::new(),
            place => format!(" (of the {place})"),
        };
        assert!(text.contains(&format!("{serial}{source}\n")), "{text}");
        assert!(!text.contains('\0'), "{name}");
    }
    for (name, said) in [
        ("nb-year1", "0001-01-01T00:00:00Z"),
        ("nb-utc-noseconds", "cannot be read: \"2001010000Z\""),
    ] {
        bench.burn(name);
        let text = bench.device.ends(0, &["show", "idev-id"]).text();
        assert!(text.contains(said), "{text}");
    }
    for name in ["san-x400", "san-uri-utf8", "san-dns-underscore-utf8"] {
        bench.burn(name);
        let shown = bench.device.json(&["show", "idev-id"]);
        let module = &shown["certificates"][0]["hardware_module"]["serial"];
        assert_eq!(module, "SN000123", "{name}");
    }
}

#[test]
fn a_key_is_shown_whatever_its_certificate_says_of_it() {
    let mut bench = Bench::new();
    for name in ["ca-true-leaf", "bc-badvalue"] {
        bench.burn(name);
        let device = &bench.device;
        let shown = device.json(&["show", "idev-id"]);
        assert_eq!(shown["key"]["handle"], "0x81020000", "{shown}");
        let said = device.devid(&["verify", "idev-id"]);
        assert_eq!(said.status.code(), Some(1), "{said}");
        assert!(said.err.contains("basic constraints"), "{said}");
        let doctor = device.devid(&["doctor"]).text();
        for denial in ["no known certificate is for this key", "no token shows"] {
            assert!(!doctor.contains(denial), "{doctor}");
        }
    }
    // Under another notation of the key, too.
    for name in ["spki-ec-explicit", "spki-ec-ecdh-oid", "spki-ec-hybrid"] {
        let shape = fs::read(testdata("shapes").join(format!("{name}.der"))).unwrap();
        let notation = Certificate::new(&shape).public_key_info;
        let algorithm = der::elements(der::body(&notation))[0];
        let usual = bench.key_info.clone();
        let bits = der::elements(der::body(&usual))[1];
        bench.key_info = der::element(0x30, &[algorithm, bits].concat());
        bench.burn("crit-true-01");
        bench.key_info = usual;
        let doctor = bench.device.devid(&["doctor"]).text();
        assert!(
            doctor.contains("factory identity idev-id"),
            "{name}: {doctor}"
        );
    }
}

#[test]
fn a_device_with_an_attestation_key_alone_has_a_certificate() {
    let (tpm, _) = Swtpm::manufactured_with(&["--iak"]);
    let device = Device::with(Some(tpm));
    let listed = device.ends(0, &["list"]).text();
    assert!(
        listed.contains("\niak\n") && listed.contains("it attests"),
        "{listed}"
    );
    let shown = device.json(&["show", "iak"]);
    assert_eq!(shown["attests"], true, "{shown}");
    for words in [&["list"][..], &["show", "iak"], &["doctor"], &["status"]] {
        let said = device.devid(words);
        let said = format!("{}{}", said.text(), said.err);
        assert!(!said.contains("no certificate of an identity"), "{said}");
    }
    let said = device.devid(&["verify", "iak"]);
    assert!(
        said.err
            .contains("signs only data that the TPM itself created"),
        "{said}"
    );
}

#[test]
fn a_certificate_that_says_that_it_is_a_cas_is_refused_by_name() {
    let device = Device::blank();
    device.ends(0, PROVISION);
    let own = device.json(&["show", "devid"])["certificates"][0]["place"].clone();
    let own = der_of(Path::new(own.as_str().unwrap()));
    let info = Certificate::new(&own).public_key_info;
    for (name, why) in [
        ("ca-true-leaf", "it says CA:TRUE"),
        (
            "bc-badvalue",
            "the extension basicConstraints cannot be read",
        ),
    ] {
        let shape = fs::read(testdata("shapes").join(format!("{name}.der"))).unwrap();
        let file = device
            .home
            .write("answer.der", with_key_info(&shape, &info));
        let before = device.json(&["show", "devid"]);
        let said = device.devid(&["import-cert", &text(&file)]);
        assert_ne!(said.status.code(), Some(0), "{said}");
        for words in [why, "for the key devid", "Nothing was changed"] {
            assert!(said.err.contains(words), "{said}");
        }
        assert_eq!(device.json(&["show", "devid"]), before);
    }
}

#[test]
fn what_openssl_reads_is_read_and_the_rest_is_named() {
    let (device, _) = Device::manufactured();
    for (name, form) in [
        ("gzip.bin", "gzip"),
        ("p7-der.bin", "PKCS#7"),
        ("p7-pem.pem", "PKCS#7"),
        ("pem-1line.pem", ""),
        ("pem-76.pem", ""),
        ("pem-blankline.pem", ""),
        ("pem-trailingspace.pem", ""),
        ("pem-trusted.pem", ""),
        ("pem-utf16.bin", "UTF-16"),
        ("pem-x509.pem", ""),
        ("pkipath.bin", "PkiPath"),
        ("tcg-1001.bin", ""),
        ("tpm2b.bin", ""),
        ("file-bom.pem", ""),
        ("file-called.cer", ""),
        ("file-called.crt", ""),
        ("file-columns-76.pem", ""),
        ("file-html.pem", "HTML"),
        ("file-one-line.pem", ""),
        ("file-trailing-spaces.pem", ""),
        ("file-trusted-label.pem", ""),
        ("file-utf16.pem", "UTF-16"),
        ("file-x509-label.pem", ""),
    ] {
        let path = text(&testdata("forms").join(name));
        let theirs = openssl(&["x509", "-noout", "-in", &path]);
        let said = device.devid(&["verify", "idev-id", "--ca", &path]);
        if form.is_empty() {
            // Read; but it is no CA of this device's.
            assert_eq!(said.status.code(), Some(3), "{name}: {said}");
        } else {
            assert!(!theirs.status.success(), "{name}");
            assert_eq!(said.status.code(), Some(1), "{name}: {said}");
            assert!(said.err.contains(form), "{name}: {said}");
            for wrong in ["empty", "tag"] {
                assert!(!said.err.contains(wrong), "{name}: {said}");
            }
        }
    }
}

/// Files of other forms than those of the test data, made of one certificate.
fn odd_files(pem: &str, der: &[u8]) -> Vec<(String, Vec<u8>)> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let columns = |width: usize| {
        let lines: Vec<&[u8]> = body.as_bytes().chunks(width).collect();
        let begin = &b"-----BEGIN CERTIFICATE-----"[..];
        [&[begin], &lines[..], &[b"-----END CERTIFICATE-----\n"]]
            .concat()
            .join(&b'\n')
    };
    let widths = [1, 2, 3, 5, 63, 65, 70, 77, 253, 254, 255, 256, 257, 1000];
    let mut files: Vec<(String, Vec<u8>)> = widths
        .into_iter()
        .map(|width| (format!("{width} columns"), columns(width)))
        .collect();
    let labelled = |label: &str| pem.replace("CERTIFICATE", label);
    let spaced = columns(8).into_iter();
    let spaced = spaced.map(|byte| if byte == b'\n' { b' ' } else { byte });
    let spaced = String::from_utf8(spaced.collect()).unwrap();
    let spaced = spaced
        .replace("E----- ", "E-----\n")
        .replace(" -----E", "\n-----E");
    for (name, text) in [
        ("no end of line", pem.trim_end().to_owned()),
        ("tabs behind", pem.replace('\n', "\t\n")),
        ("two CR", pem.replace('\n', "\r\r\n")),
        ("vertical tabs", pem.replace('\n', "\u{b}\n")),
        ("form feeds", pem.replace('\n', "\u{c}\n")),
        ("NULs behind lines", pem.replace('\n', "\0\n")),
        ("NULs behind it", format!("{pem}\0\0\0")),
        ("control Z", format!("{pem}\u{1a}")),
        ("spaces inside", spaced),
        ("twice", format!("{pem}{pem}")),
        (
            "a bad one first",
            format!("{}{pem}", pem.replacen('M', "!", 1)),
        ),
        ("text before", format!("{}{pem}", "hello\n".repeat(50))),
        ("dashes before", format!("-----\n{pem}")),
        ("a key before", format!("{}{pem}", labelled("PRIVATE KEY"))),
        (
            "a request before",
            format!("{}{pem}", labelled("CERTIFICATE REQUEST")),
        ),
        ("headers", pem.replacen('\n', "\nSubject: a\n b\n\n", 1)),
        (
            "another end",
            pem.replace("END CERTIFICATE", "END X509 CERTIFICATE"),
        ),
        ("another label", labelled("X.509 CERTIFICATE")),
        ("four dashes", pem.replace("-----BEGIN", "----BEGIN")),
        ("a comment inside", pem.replacen('\n', "\n# a\n", 3)),
        ("no end", pem.replace("-----END CERTIFICATE-----", "")),
        ("base64 alone", body.clone()),
    ] {
        files.push((name.into(), text.into()));
    }
    for (name, before, behind) in [
        ("DER", &b""[..], &b""[..]),
        ("DER and an end of line", b"", b"\n"),
        ("DER and an INTEGER", b"", b"\x02\x01\x07"),
        ("DER twice", b"", der),
        ("bytes before PEM", b"\x00\xFE\x80\n", b""),
    ] {
        let middle = if before.is_empty() {
            der
        } else {
            pem.as_bytes()
        };
        files.push((name.into(), [before, middle, behind].concat()));
    }
    files
}

#[test]
fn no_file_that_openssl_reads_is_refused() {
    let (device, identity) = Device::manufactured();
    let certificate = identity.root();
    let pem = fs::read_to_string(&certificate).unwrap();
    let mut both = [0, 0];
    for (name, content) in odd_files(&pem, &der_of(&certificate)) {
        let path = text(&device.home.write("odd", content));
        let theirs = openssl(&["x509", "-noout", "-in", &path]).status.success();
        let said = device.devid(&["verify", "idev-id", "--ca", &path]);
        let refused = said.status.code() == Some(1);
        assert!(!(theirs && refused), "{name}: {said}");
        // A reason that OpenSSL does not give.
        assert!(!refused || said.err.contains(&path), "{name}: {said}");
        both[usize::from(theirs)] += 1;
    }
    assert!(both[0] >= 6 && both[1] >= 30, "{both:?}");
}

/// One PEM file in the formats of real files.
fn shapes(pem: &str) -> Vec<(&'static str, String)> {
    let label = |name: &str| pem.replace("CERTIFICATE", name);
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let wide: Vec<&str> = body
        .as_bytes()
        .chunks(76)
        .map(|line| str::from_utf8(line).unwrap())
        .collect();
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    vec![
        (
            "76 columns",
            format!("{begin}\n{}\n{end}\n", wide.join("\n")),
        ),
        ("one line", format!("{begin}\n{body}\n{end}")),
        ("no line at all", format!("{begin}{body}{end}")),
        ("CRLF", pem.replace('\n', "\r\n")),
        ("CR", pem.replace('\n', "\r")),
        ("blanks behind", pem.replace('\n', "  \n")),
        ("blank lines", pem.replace('\n', "\n\n")),
        ("indented", format!("  {}", pem.replace('\n', "\n  "))),
        ("a mark of byte order", format!("\u{feff}{pem}")),
        ("text around", format!("subject: it\n{pem}the end\n")),
        ("X509", label("X509 CERTIFICATE")),
        ("TRUSTED", label("TRUSTED CERTIFICATE")),
    ]
}

#[test]
fn every_place_reads_every_shape_of_pem() {
    let (device, identity) = Device::manufactured();
    device.ends(0, PROVISION);
    let home = &device.home;
    let folder = device.path("ca");
    fs::create_dir(&folder).unwrap();
    device.ends(0, &["key", "generate", "web"]);
    let request = device.path("web.csr");
    device.ends(0, &["csr", "web", "--out", &text(&request)]);
    let leaf = fs::read_to_string(device.certified(&request, &folder)).unwrap();
    let ca = fs::read_to_string(folder.join("ca.pem")).unwrap();
    let root = fs::read_to_string(identity.root()).unwrap();
    let factory_ca = fs::read_to_string(identity.ca()).unwrap();
    let certificates = |label: &str| {
        let shown = device.json(&["show", label]);
        shown["certificates"].as_array().map_or(0, Vec::len)
    };
    let places = shapes(&leaf)
        .into_iter()
        .zip(shapes(&ca))
        .zip(shapes(&root));
    for (at, (((name, leaf), (_, ca)), (_, root))) in places.enumerate() {
        // import-cert, with the CA behind the leaf.
        let file = home.write("answer.pem", format!("{leaf}\n{ca}"));
        device.ends(0, &["import-cert", &text(&file)]);
        assert_eq!(certificates("web"), 1, "{name}");
        // chain/
        home.write("chain/root.pem", &root);
        assert_eq!(certificates("idev-id-ca-2"), 1, "{name}");
        // The key folder.
        home.write(&format!("state/devid/shape-{at}.pem"), &root);
        assert_eq!(certificates(&format!("shape-{at}")), 1, "{name}");
    }
    for (name, ca) in shapes(&factory_ca) {
        let file = home.write("given.pem", &ca);
        device.ends(0, &["verify", "idev-id", "--ca", &text(&file)]);
        home.write("trust/ca.pem", &ca);
        let said = device.devid(&["verify", "idev-id"]);
        assert_eq!(said.status.code(), Some(0), "{name}: {said}");
        fs::remove_file(device.path("trust/ca.pem")).unwrap();
    }
    let key = text(&device.path("key.pem"));
    let existing = text(&device.path("existing.pem"));
    let made = ["-keyout", &key, "-out", &existing, "-subj", "/CN=existing"];
    let new = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-noenc",
    ];
    openssl(&[&new[..], &made].concat()).ok();
    let pem = fs::read_to_string(&existing).unwrap();
    let factory = fs::read_to_string(identity.certificate()).unwrap();
    for ((name, pem), (_, factory)) in shapes(&pem).into_iter().zip(shapes(&factory)) {
        home.write("existing.pem", pem);
        let named = home.write("factory.pem", factory);
        home.write(
            "config.toml",
            format!(
                "[provision]\nexisting = {{ certificate = {existing:?}, key = {key:?} }}\n\
                 [[identity]]\ncertificate = {named:?}\n"
            ),
        );
        assert_eq!(certificates("existing"), 1, "{name}");
        let place = &device.json(&["show", "idev-id"])["certificates"][0]["place"];
        assert_eq!(place, named.to_str().unwrap(), "{name}");
    }
}
