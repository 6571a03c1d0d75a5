//! A command that does not exist or is in the wrong position: the message names the right command.

use crate::device::Device;
use std::process::Command;

/// The line that is suggested, as the shell takes it.
fn suggested(said: &str) -> Option<&str> {
    let line = said.lines().find(|line| line.contains("did you mean: "))?;
    line.split("did you mean: devid ").nth(1)
}

#[test]
fn the_right_verb_is_named() {
    let device = Device::without_tpm();
    for (words, wanted) in [
        (&["delete", "web"][..], "key delete web"),
        (&["generate", "x"], "key generate x"),
        (&["rm", "web", "--yes"], "key delete web --yes"),
        (&["import", "a.pem"], "import-cert a.pem"),
        (&["keys"], "key list"),
        (&["key", "show", "web"], "show web"),
        (&["list", "keys"], "key list"),
        (&["delete", "key", "web"], "key delete web"),
        (&["delete", "my key's"], r"key delete 'my key'\''s'"),
        (
            &["--config", "/c", "-v", "rm", "web"],
            "--config /c -v key delete web",
        ),
        (&["shwo", "web"], "show web"),
    ] {
        let said = device.ends(2, words);
        assert_eq!(suggested(&said.err), Some(wanted), "{words:?}: {said}");
        assert_eq!(said.text(), "", "{words:?}");
        let json = device.ends(2, &[words, &["--json"]].concat());
        let error: serde_json::Value = serde_json::from_slice(&json.out).unwrap();
        assert_eq!(error["error"]["kind"], "usage");
        let text = error["error"]["text"].as_str().unwrap();
        assert!(text.contains(&format!("devid {}", &wanted[..4])), "{text}");
    }
    for words in [
        &["frobnicate"][..],
        &["show", "a", "b"],
        &["key", "frobnicate"],
    ] {
        let said = device.ends(2, words);
        assert_eq!(suggested(&said.err), None, "{words:?}: {said}");
    }
}

/// A user copies the suggestion into a shell, which must read exactly these words.
#[test]
fn a_suggestion_is_a_line_for_a_shell() {
    let device = Device::without_tpm();
    for label in [
        "a b",
        "$(reboot)",
        "`x`",
        "a;b",
        "'",
        "\"",
        "*",
        "~",
        "-",
        "a\\b",
    ] {
        let said = device.ends(2, &["delete", label]);
        let line = suggested(&said.err).unwrap();
        let words = Command::new("sh")
            .args(["-c", &format!("printf '%s\\n' {line}")])
            .output()
            .unwrap();
        let words = String::from_utf8(words.stdout).unwrap();
        assert_eq!(words, format!("key\ndelete\n{label}\n"), "{line}");
    }
    for label in ["\u{1b}[2J", "a\nreboot"] {
        let said = device.ends(2, &["delete", label]);
        assert_eq!(suggested(&said.err), None, "{label:?}: {said}");
    }
}
