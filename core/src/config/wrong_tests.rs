//! Tests of configuration files with errors. The error message must name the file, the line and the
//! setting, and must show no secret.

use super::*;

mod lines;
mod values;

/// The secret in the configuration files of these tests.
const SECRET: &str = "not-a-real-pin";
const SECRETS: [&str; 5] = [SECRET, "12345678", "6e6f742d", "trustno1", "hunter"];

/// Words that error messages must not contain, because only programmers know them: words of serde,
/// of the TOML parser, and of Rust.
const JARGON: [&str; 34] = [
    "struct",
    "u64",
    "u32",
    "i64",
    "usize",
    "nan",
    "enum",
    "variant",
    "invalid type",
    "sequence",
    " map",
    "untagged",
    "deserial",
    "serde",
    "expected field",
    "unknown field",
    "missing field",
    "literal",
    "parse error",
    "basic string",
    "bare key",
    "unquoted key",
    "dotted key",
    "float",
    "integer",
    "boolean",
    "Option",
    "Some(",
    "None",
    "array",
    "newline",
    "TOML parse",
    "Written",
    "`",
];

fn complaint(text: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, text).unwrap();
    let loaded = load(&|name| (name == "DEVID_PKCS11_CONFIG").then(|| file.clone().into()));
    let Err(fault) = loaded.config else {
        panic!("accepted: {}", String::from_utf8_lossy(text));
    };
    let said = fault.to_string();
    assert!(!format!("{fault:?}").contains(SECRET));
    said.strip_prefix(&file.display().to_string())
        .unwrap_or_else(|| panic!("{said}: no file"))
        .to_owned()
}

/// Checks that the error message begins with the line number, contains `words`, and contains no
/// word of `JARGON`.
#[track_caller]
fn is_told(shown: &str, line: usize, words: &[&str]) {
    let said = complaint(shown.as_bytes());
    assert!(said.starts_with(&format!(":{line}: ")), "{shown}\n{said}");
    for word in words {
        assert!(said.contains(word), "{shown}\n{said}\nlacks {word:?}");
    }
    for word in JARGON {
        assert!(!said.contains(word), "{shown}\n{said}\nhas {word:?}");
    }
    for secret in SECRETS {
        assert!(!said.contains(secret), "{shown}\n{said}\nshows a secret");
    }
}

/// Includes a configuration file from `testdata/config`, as a user wrote it.
macro_rules! sent {
    ($name:literal) => {
        include_str!(concat!("../../testdata/config/", $name, ".toml"))
    };
}

#[test]
fn files_that_were_sent() {
    is_told(sent!("yaml-colon"), 3, &["pin: ", "colon", "equals sign"]);
    is_told(sent!("no-equals"), 2, &["owner_auth: ", "no equals sign"]);
    is_told(
        sent!("pin-as-number"),
        3,
        &["pin: ", "text in quotes", "number"],
    );
    is_told(sent!("single-bracket"), 1, &["[token] must be [[token]]"]);
    is_told(
        sent!("double-bracket"),
        1,
        &["[[provision]] must be [provision]"],
    );
    is_told(sent!("own-no"), 2, &["own: ", "true or false"]);
    is_told(sent!("log-string"), 1, &["log: ", "[log]"]);
    is_told(
        sent!("handle-string"),
        2,
        &["handle: ", "a number without quotes"],
    );
    is_told(
        sent!("handle-decimal-answer"),
        2,
        &["handle: 0x80000000: ", "0x81000000 to 0x81FFFFFF"],
    );
    is_told(
        sent!("certificate-relative"),
        2,
        &["certificate: idevid.pem: ", "absolute path"],
    );
}

#[test]
fn files_that_are_no_text() {
    let utf16 = |text: &str, mark: u16| -> Vec<u8> {
        let units = [mark].into_iter().chain(text.encode_utf16());
        units.flat_map(u16::to_le_bytes).collect()
    };
    for (bytes, words) in [
        (utf16("pin = \"trustno1\"\n", 0xFEFF), ": this is UTF-16"),
        (
            b"# a\n[log]\nlevel = \"M\xFCll\"\n".to_vec(),
            ": line 3 has a character that is not UTF-8",
        ),
        (b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), ": line 1 has"),
    ] {
        let said = complaint(&bytes);
        assert!(said.starts_with(words), "{said}");
    }
}

/// Tests that unusual but valid configuration files are accepted.
#[test]
fn files_that_are_read_nonetheless() {
    for text in [
        "",
        "\u{FEFF}random = \"tpm\"\r\n[log]\r\nlevel = \"info\"\r\n",
        "# “quotes”\nrandom = 'tpm' # „and\u{a0}more“\n",
        "\t[provision]\n\town=false\n",
        "log.level = \"info\"\nprovision.own = true\n",
        "log = { level = \"info\" }\ntoken = [{ name = \"devid\" }]\n",
        "timeout_ms = 0x1F4\n[[identity]]\nhandle = 2164391936\nnv = 0o160100000\n",
        "[provision.existing]\ncertificate = \"/c\"\nkey = \"/k\"\n",
        "random = \"\"\"tpm\"\"\"\n[[token]]\n\"name\" = \"devid\"",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        let loaded = load(&|name| (name == "DEVID_PKCS11_CONFIG").then(|| file.clone().into()));
        assert!(loaded.config.is_ok(), "{text}\n{:?}", loaded.config);
    }
}
