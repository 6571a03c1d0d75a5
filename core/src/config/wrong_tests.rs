//! Files that people write wrongly: the complaint has their words, names file, line and setting, and
//! shows no secret.

use super::*;

/// The value of each secret below.
const SECRET: &str = "not-a-real-pin";
const SECRETS: [&str; 4] = [SECRET, "12345678", "6e6f742d", "trustno1"];

/// Words of programs: of serde, of the TOML parser, of Rust.
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

/// The complaint about `text` begins with the line and has these words; and nothing that it may not.
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

/// A file of `testdata/config`, as people sent it.
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
fn lines_that_are_no_settings() {
    for (text, line, words) in [
        // Secrets where a value, a name or a whole line should be.
        (
            "[[token]]\nname = \"devid\"\npin =\n  \"not-a-real-pin\"\n",
            3,
            &["pin: ", "another line"][..],
        ),
        (
            "[[token]]\nname = \"devid\"\npin:\n  not-a-real-pin\n",
            3,
            &["pin: "],
        ),
        (
            "[[token]]\nname = \"devid\"\nnot-a-real-pin\n",
            3,
            &["no equals sign"],
        ),
        (
            "[[token]]\nname = \"devid\"\n\"not-a-real-pin\"\n",
            3,
            &["no equals sign"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin = not-a-real-pin\n",
            3,
            &["pin: ", "quotes"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin = 12345678x\n",
            3,
            &["pin: ", "quotes"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin = 0012345678\n",
            3,
            &["pin: ", "quotes"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin = \"not-a-real-pin\n",
            3,
            &["pin: ", "not closed"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin = not-a-real-pin\"\n",
            3,
            &["pin: ", "quotes"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin = 'not-a-real-pin\"\n",
            3,
            &["pin: ", "not closed"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin = “not-a-real-pin”\n",
            3,
            &["pin: ", "typographic"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin = „not-a-real-pin“\n",
            3,
            &["pin: ", "typographic"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin == \"not-a-real-pin\"\n",
            3,
            &["pin: ", "one equals sign"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin := \"not-a-real-pin\"\n",
            3,
            &["pin: ", "one equals sign"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin => \"not-a-real-pin\"\n",
            3,
            &["pin: ", "one equals sign"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin = \"not-a-real-pin\" hex\n",
            3,
            &["pin: ", "follows the value"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin = \"\\pnot-a-real-pin\"\n",
            3,
            &["pin: ", "backslash"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin = \"a\"\npin = \"not-a-real-pin\"\n",
            4,
            &["pin: ", "twice"],
        ),
        (
            "[master]\nowner_auth not-a-real-pin\n",
            2,
            &["owner_auth: ", "no equals sign"],
        ),
        (
            "[master]\nowner_auth: not-a-real-pin\n",
            2,
            &["owner_auth: ", "colon"],
        ),
        (
            "[[identity]]\nauth not-a-real-pin # note = this\n",
            2,
            &["auth: "],
        ),
        ("- pin: not-a-real-pin\n", 1, &["YAML"]),
        ("{\n  \"pin\": \"not-a-real-pin\"\n}\n", 1, &["JSON"]),
        ("<pin>not-a-real-pin</pin>\n", 1, &["no equals sign"]),
        // Habits of other formats.
        ("timeout_ms: 5\n", 1, &["timeout_ms: ", "colon"]),
        ("timeout_ms 5\n", 1, &["timeout_ms: ", "no equals sign"]),
        ("timeout_ms =\n", 1, &["timeout_ms: ", "no value"]),
        ("timeout_ms = # soon\n", 1, &["timeout_ms: ", "no value"]),
        ("timeout_ms = 30s\n", 1, &["timeout_ms: ", "without a unit"]),
        ("timeout_ms = 0X10\n", 1, &["timeout_ms: ", "0x"]),
        ("timeout_ms = 010\n", 1, &["timeout_ms: ", "no number"]),
        ("random = kernel\n", 1, &["random: ", "quotes"]),
        ("random = `tpm`\n", 1, &["random: ", "typographic"]),
        ("; a comment\n", 1, &["a comment begins with #"]),
        ("// a comment\n", 1, &["a comment begins with #"]),
        (
            "random = \"tpm\" // a comment\n",
            1,
            &["random: ", "a comment begins with #"],
        ),
        ("[[token]\nname = \"a\"\n", 1, &["expected [[token]]"]),
        ("[log\nlevel = \"info\"\n", 1, &["expected [log]"]),
        ("[log] level = \"info\"\n", 1, &["a line of its own"]),
        ("[log]\n[log]\n", 2, &["[log] stands here twice"]),
        (
            "[token]\nname = \"a\"\n[[token]]\nname = \"b\"\n",
            3,
            &["[[token]]", "two forms"],
        ),
        (
            "random = \"tpm\"\nrandom = \"tpm\"\n",
            2,
            &["random: ", "twice"],
        ),
        ("[provision]\nown = Yes\n", 2, &["own: ", "true or false"]),
        ("[provision]\nown = TRUE\n", 2, &["own: ", "true or false"]),
        ("[[token]]\nallow last try = true\n", 2, &["no blanks"]),
        ("= 5\n", 1, &["no name"]),
        ("\u{a0}timeout_ms = 5\n", 1, &["U+00A0"]),
        ("\u{200b}timeout_ms = 5\n", 1, &["U+200B"]),
        ("timeout_ms = 5\0\n", 1, &["U+0000"]),
        (
            "[[identity]]\ncertificate = \"C:\\idevid.pem\"\n",
            2,
            &["certificate: ", "backslash"],
        ),
        (
            "[provision]\nexisting = { certificate = \"/c\", key = \"/k\"\n",
            2,
            &["existing: ", "not closed"],
        ),
    ] {
        is_told(text, line, words);
        // Windows' ends of lines, its byte order mark, and blanks in front change nothing.
        is_told(
            &format!("\u{FEFF}{}", text.replace('\n', "\r\n")),
            line,
            words,
        );
        if !text.contains('\u{a0}') {
            is_told(&text.replace('\n', "\n\t  "), line, words);
        }
    }
}

#[test]
fn values_of_another_kind() {
    for (text, line, words) in [
        ("tcti = 5\n", 1, &["tcti: ", "text in quotes"][..]),
        (
            "timeout_ms = \"500\"\n",
            1,
            &["timeout_ms: ", "a number without quotes"],
        ),
        (
            "timeout_ms = -5\n",
            1,
            &["timeout_ms: -5: ", "from 1 to 3600000"],
        ),
        (
            "timeout_ms = 1.5\n",
            1,
            &["timeout_ms: ", "from 1 to 3600000"],
        ),
        (
            "timeout_ms = inf\n",
            1,
            &["timeout_ms: ", "from 1 to 3600000"],
        ),
        (
            "timeout_ms = true\n",
            1,
            &["timeout_ms: ", "from 1 to 3600000"],
        ),
        (
            "timeout_ms = 2026-11-28\n",
            1,
            &["timeout_ms: ", "not a date"],
        ),
        ("timeout_ms = [5]\n", 1, &["timeout_ms: ", "not a list"]),
        (
            "timeout_ms = 99999999999999999999\n",
            1,
            &["timeout_ms: 99999999999999999999: "],
        ),
        ("random = true\n", 1, &["random: ", "\"kernel\" or \"tpm\""]),
        (
            "random = \"dice\"\n",
            1,
            &["random: ", "\"dice\"", "\"kernel\" or \"tpm\""],
        ),
        ("random = \"TPM\"\n", 1, &["random: ", "\"tpm\""]),
        (
            "state = \"state\"\n",
            1,
            &["state: state: ", "absolute path"],
        ),
        (
            "state = \"~/state\"\n",
            1,
            &["state: ~/state: ", "~ is not replaced"],
        ),
        ("state = \"\"\n", 1, &["state: ", "absolute path"]),
        ("state = 5\n", 1, &["state: ", "absolute path in quotes"]),
        ("[log]\nlevel = 5\n", 2, &["level: ", "text in quotes"]),
        ("log = true\n", 1, &["log: ", "[log]"]),
        ("log = [\"debug\"]\n", 1, &["[[log]] must be [log]"]),
        ("[[log]]\nlevel = \"info\"\n", 1, &["[[log]] must be [log]"]),
        (
            "[[master]]\nhandle = 0x81000080\n",
            1,
            &["[[master]] must be [master]"],
        ),
        (
            "[identity]\nhandle = 0x81010005\n",
            1,
            &["[identity] must be [[identity]]"],
        ),
        ("token = \"devid\"\n", 1, &["token: ", "[[token]]"]),
        ("token = [\"devid\"]\n", 1, &["token: ", "[[token]]"]),
        (
            "[token.devid]\npin = \"hex:6e6f742d\"\n",
            1,
            &["[token] must be [[token]]"],
        ),
        (
            "[provision]\nown = \"true\"\n",
            2,
            &["own: ", "without quotes"],
        ),
        ("[provision]\nown = 1\n", 2, &["own: ", "true or false"]),
        (
            "[provision]\nfallback = false\n",
            2,
            &["fallback: ", "\"none\" or \"software\""],
        ),
        (
            "[provision]\nleave_software = \"always\"\n",
            2,
            &["leave_software: ", "\"never\""],
        ),
        (
            "[provision]\nnv_index = \"0x01500000\"\n",
            2,
            &["nv_index: ", "without quotes"],
        ),
        (
            "[provision]\nnv_index = 0x01C90200\n",
            2,
            &["nv_index: 0x01C90200: "],
        ),
        (
            "[provision]\nexisting = true\n",
            2,
            &["existing: ", "PKCS#11 URI"],
        ),
        (
            "[provision]\nexisting = { certificate = \"/c\" }\n",
            2,
            &["existing: ", "key = "],
        ),
        (
            "[provision]\nexisting = { certificate = \"/c\", key = 5 }\n",
            2,
            &["existing: key: ", "absolute path"],
        ),
        (
            "[provision]\nexisting = { certificate = \"/c\", key = \"k\" }\n",
            2,
            &["existing: key: k: ", "absolute path"],
        ),
        (
            "[provision.existing]\ncertificate = \"/c\"\nkey = \"/k\"\npin = \"trustno1\"\n",
            1,
            &["existing: "],
        ),
        (
            "[[identity]]\nhandle = 0o201002\n",
            2,
            &["handle: 0o201002: ", "0x81000000"],
        ),
        ("[[identity]]\nhandle = -1\n", 2, &["handle: -1: "]),
        (
            "[[identity]]\nhandle = 81020000\n",
            2,
            &["handle: 81020000: "],
        ),
        (
            "[[identity]]\nhandle = 0x1_8102_0000\n",
            2,
            &["handle: 0x1_8102_0000: "],
        ),
        (
            "[[identity]]\nnv = \"1C90200\"\n",
            2,
            &["nv: ", "without quotes"],
        ),
        (
            "[[identity]]\nallow_last_try = \"yes\"\n",
            2,
            &["allow_last_try: ", "without quotes"],
        ),
        (
            "[[identity]]\nauth = 12345678\n",
            2,
            &["auth: ", "text in quotes"],
        ),
        (
            "[[identity]]\nauth = \"trustno1\"\n",
            2,
            &["auth: ", "hex:DIGITS", "or pin"],
        ),
        (
            "[[identity]]\nauth = [\"trustno1\"]\n",
            2,
            &["auth: ", "text in quotes"],
        ),
        (
            "[[identity]]\nauth = { file = \"trustno1\" }\n",
            2,
            &["auth: ", "text in quotes"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin = \"trustno1\"\n",
            3,
            &["pin: ", "hex:DIGITS"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin = \"file:trustno1\"\n",
            3,
            &["pin: ", "/absolute/path"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin = \"hex:12345678x\"\n",
            3,
            &["pin: ", "hexadecimal"],
        ),
        (
            "[[token]]\nname = \"devid\"\npin = true\n",
            3,
            &["pin: ", "text in quotes"],
        ),
        ("[[token]]\nname = 5\n", 2, &["name: ", "text in quotes"]),
        (
            "[[token]]\nname = \"a/b\"\n",
            2,
            &["name: ", "name a folder"],
        ),
        (
            "[[token]]\nname = \"a\"\n[[token]]\npath = \"/p\"\n",
            3,
            &["[[token]]: ", "no name"],
        ),
        (
            "[master]\nowner_auth = 12345678\n",
            2,
            &["owner_auth: ", "text in quotes"],
        ),
        (
            "[master]\nowner_auth = \"\"\n",
            2,
            &["owner_auth: ", "hex:DIGITS"],
        ),
        (
            "[master]\nhandle = 0x81000001\n",
            2,
            &["handle: 0x81000001 is the storage root key's"],
        ),
        (
            "[master]\nhandle = \"0x81000080\"\n",
            2,
            &["handle: ", "without quotes"],
        ),
    ] {
        is_told(text, line, words);
    }
}

#[test]
fn settings_that_are_not_known_there() {
    for (text, line, words) in [
        (
            "tcit = \"device\"\n",
            1,
            &["tcit: ", "did you mean tcti?"][..],
        ),
        ("Tcti = \"device\"\n", 1, &["Tcti: ", "did you mean tcti?"]),
        (
            "timeout-ms = 5\n",
            1,
            &["timeout-ms: ", "did you mean timeout_ms?"],
        ),
        (
            "timeout = 5\n",
            1,
            &["timeout: ", "did you mean timeout_ms?"],
        ),
        ("colour = \"red\"\n", 1, &["colour: ", "no such setting"]),
        ("level = \"info\"\n", 1, &["level: ", "in [log]"]),
        ("pin = \"trustno1\"\n", 1, &["pin: ", "in [[token]]"]),
        (
            "handle = 0x81010005\n",
            1,
            &["handle: ", "in [[identity]] or in [master]"],
        ),
        (
            "[log]\ntcti = \"device\"\n",
            2,
            &["tcti: ", "above the first section"],
        ),
        (
            "[log]\nlevle = \"info\"\n",
            2,
            &["levle: ", "did you mean level?"],
        ),
        (
            "[log]\nfile = \"/x\"\n",
            2,
            &["file: ", "[log]", "level, target"],
        ),
        (
            "[log]\nowner_aut = \"trustno1\"\n",
            2,
            &["owner_aut: ", "did you mean owner_auth, in [master]?"],
        ),
        (
            "[logs]\nlevel = \"info\"\n",
            1,
            &["logs: ", "did you mean [log]?"],
        ),
        (
            "[tokens]\nname = \"a\"\n",
            1,
            &["tokens: ", "did you mean [[token]]?"],
        ),
        (
            "[[identities]]\nhandle = 0x81010005\n",
            1,
            &["identities: "],
        ),
        (
            "[Provision]\nown = true\n",
            1,
            &["Provision: ", "did you mean [provision]?"],
        ),
        ("[wall]\n", 1, &["wall: ", "no such setting"]),
        ("[devid.log]\nlevel = \"info\"\n", 1, &["devid: "]),
        (
            "[provision.token]\nname = \"a\"\n",
            1,
            &["token: ", "[[token]] is a section of its own"],
        ),
        (
            "[provision]\nown = true\npin = \"trustno1\"\n",
            3,
            &["pin: ", "in [[token]]"],
        ),
        // A value that stands where a name belongs is shown nowhere.
        ("\"trustno1\" = \"pin\"\n", 1, &["no such setting"]),
        (
            "[[token]]\nname = \"devid\"\n12345678 = \"pin\"\n",
            3,
            &["[[token]]: ", "no such setting"],
        ),
        // The first of several.
        ("[log]\nlevel = 5\n[[token]]\nname = 5\n", 2, &["level: "]),
        ("[[token]]\nname = 5\n[log]\nlevel = 5\n", 2, &["name: "]),
    ] {
        is_told(text, line, words);
    }
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

/// What is odd, and right.
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
