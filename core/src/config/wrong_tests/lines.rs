//! Tests of lines with syntax errors.

use super::is_told;

#[test]
fn lines_that_are_no_settings() {
    for (text, line, words) in [
        // Each line has a secret as its value, as its name, or as the whole line.
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
        // Lines in the syntax of other configuration formats.
        ("timeout_ms: 5\n", 1, &["timeout_ms: ", "colon"]),
        ("timeout_ms 5\n", 1, &["timeout_ms: ", "no equals sign"]),
        ("timeout_ms =\n", 1, &["timeout_ms: ", "no value"]),
        ("timeout_ms = # soon\n", 1, &["timeout_ms: ", "no value"]),
        ("timeout_ms = 30s\n", 1, &["timeout_ms: ", "without a unit"]),
        ("timeout_ms = 0X10\n", 1, &["timeout_ms: ", "0x"]),
        (
            "timeout_ms = 010\n",
            1,
            &["timeout_ms: ", "expected a number"],
        ),
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
        ("[log] level = \"info\"\n", 1, &["on a separate line"]),
        ("[log]\n[log]\n", 2, &["[log] occurs twice"]),
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
        (
            "[[token]]\nallow last try = true\n",
            2,
            &["not contain blanks"],
        ),
        ("= 5\n", 1, &["no name"]),
        ("\u{a0}timeout_ms = 5\n", 1, &["U+00A0"]),
        ("\u{200b}timeout_ms = 5\n", 1, &["U+200B"]),
        ("timeout_ms = 5\0\n", 1, &["U+0000"]),
        (
            "[[identity]]\ncertificate = \"C:\\idevid.pem\"\n",
            2,
            &["certificate: ", "backslash"],
        ),
        ("?/,/,", 1, &["no equals sign"]),
        (
            "[provision]\nexisting = { certificate = \"/c\", key = \"/k\"\n",
            2,
            &["existing: ", "not closed"],
        ),
    ] {
        is_told(text, line, words);
        // Windows line ends, byte order marks, and leading blanks do not change the result.
        for marks in 1..3 {
            let marks = "\u{FEFF}".repeat(marks);
            is_told(
                &format!("{marks}{}", text.replace('\n', "\r\n")),
                line,
                words,
            );
        }
        if !text.contains('\u{a0}') {
            is_told(&text.replace('\n', "\n\t  "), line, words);
        }
    }
}
