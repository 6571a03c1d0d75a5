//! Values of a wrong type, and settings in a wrong section.

use super::is_told;

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
            &["handle: 0x81000001 is reserved for the storage root key"],
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
            &["token: ", "[[token]] is a section, not a setting"],
        ),
        (
            "[provision]\nown = true\npin = \"trustno1\"\n",
            3,
            &["pin: ", "in [[token]]"],
        ),
        // A value that is written instead of a name is never shown.
        ("\"hunter\" = \"pin\"\n", 1, &["no such setting"]),
        ("\"trustno1\" = \"pin\"\n", 1, &["no such setting"]),
        (
            "[[token]]\nname = \"devid\"\n12345678 = \"pin\"\n",
            3,
            &["[[token]]: ", "no such setting"],
        ),
        // The message is about the first of several errors.
        ("[log]\nlevel = 5\n[[token]]\nname = 5\n", 2, &["level: "]),
        ("[[token]]\nname = 5\n[log]\nlevel = 5\n", 2, &["name: "]),
    ] {
        is_told(text, line, words);
    }
}
