//! Suggests a correct command line if a verb does not exist or is in the wrong position.

use clap::Command;

/// The verbs of this tool, and the verbs of other tools that mean the same.
const WORDS: [(&str, &str); 22] = [
    (
        "key generate",
        "generate gen create new make add keygen genkey gen-key generate-key key-generate create-key new-key",
    ),
    (
        "key delete",
        "delete del remove rm erase destroy unlink delete-key key-delete remove-key",
    ),
    ("key list", "keys list-keys key-list listkeys"),
    ("key import", "import-key key-import take-over"),
    (
        "list",
        "ls dir objects tokens slots identities certs certificates list-all list-objects list-tokens",
    ),
    (
        "show",
        "info get cat view describe print display dump cert certificate inspect",
    ),
    (
        "import-cert",
        "import importcert import-certificate install-cert add-cert set-cert load put write",
    ),
    (
        "csr",
        "request req certreq certificate-request pkcs10 gen-csr generate-csr",
    ),
    (
        "doctor",
        "check diagnose diag health test fsck selftest debug",
    ),
    ("verify", "validate trust"),
    (
        "provision",
        "init initialize setup set-up bootstrap prepare",
    ),
    ("reset --factory", "factory-reset reset-factory wipe clear"),
    ("master renew", "renew-master master-renew"),
    ("key rekey", "rekey re-key rekey-key replace-key"),
    ("prune", "clean cleanup clean-up gc purge tidy"),
    ("uri", "url pkcs11 pkcs11-uri get-uri"),
    ("uri2pem", "uri-to-pem uri2key pem uripem url2pem"),
    ("status", "tpm state mode summary"),
    ("bench", "benchmark speed measure perf performance"),
    ("tree", "hierarchy chain chains overview"),
    ("completions", "completion complete"),
    ("--version", "version"),
];
/// Nouns that users write before or after a verb, although the verb of this tool implies the noun.
const NOUNS: [(&str, &str); 4] = [
    ("key", "key keys keypair key-pair"),
    ("cert", "cert certs certificate certificates"),
    ("master", "master master-key"),
    (
        "all",
        "token tokens object objects identity identities factory",
    ),
];
/// A verb, a noun, and the command of this tool for the verb with the noun.
const PAIRS: [(&str, &str, &str); 13] = [
    ("list", "key", "key list"),
    ("list", "cert", "list"),
    ("list", "all", "list"),
    ("show", "key", "show"),
    ("show", "cert", "show"),
    ("show", "all", "show"),
    ("show", "master", "status"),
    ("key generate", "key", "key generate"),
    ("key delete", "key", "key delete"),
    ("import-cert", "key", "key import"),
    ("import-cert", "cert", "import-cert"),
    ("master renew", "master", "master renew"),
    ("reset", "all", "reset --factory"),
];

/// Returns the words of the suggested command, without the name of the tool. Returns `None` if no
/// command is similar. `command` is the tool with all its verbs.
pub(crate) fn meant(command: &Command, words: &[String]) -> Option<Vec<String>> {
    let places = positionals(command, words);
    let at = |number: usize| places.get(number).map(|place| words[*place].as_str());
    let first = at(0)?;
    let (verb, used) = match (command.find_subcommand(first), at(1)) {
        (Some(group), Some(second)) if group.has_subcommands() => {
            (below(command, group, second)?, 2)
        }
        (Some(known), Some(second)) => (pair(known.get_name(), second)?, 2),
        (None, Some(second)) => {
            match noun(first).filter(|noun| matches!(*noun, "key" | "master")) {
                Some(group) => (below(command, command.find_subcommand(group)?, second)?, 2),
                None => {
                    let verb = verb_called(command, first)?;
                    match (pair(&verb, second), at(2)) {
                        (Some(both), Some(_)) => (both, 2),
                        (Some(both), None) if takes_no_name(command, &both) => (both, 2),
                        _ => (verb, 1),
                    }
                }
            }
        }
        (None, None) => (verb_called(command, first)?, 1),
        _ => return None,
    };
    let mut meant = Vec::new();
    for (place, word) in words.iter().enumerate() {
        match places.iter().position(|one| *one == place) {
            Some(0) => meant.extend(verb.split(' ').map(str::to_owned)),
            Some(number) if number < used => {}
            _ => meant.push(word.clone()),
        }
    }
    (meant != words).then_some(meant)
}

/// Returns the positions of words that are neither global options nor their values.
fn positionals(command: &Command, words: &[String]) -> Vec<usize> {
    let takes_value = |word: &str| {
        let mut all = command.get_arguments();
        let option = all.find(|one| {
            one.get_long()
                .is_some_and(|long| word.strip_prefix("--") == Some(long))
        });
        option.is_some_and(|one| one.get_action().takes_values())
    };
    let mut places = Vec::new();
    let mut is_value = false;
    for (place, word) in words.iter().enumerate() {
        if std::mem::take(&mut is_value) {
            continue;
        }
        match word.starts_with('-') && word.len() > 1 {
            true => is_value = takes_value(word),
            false => places.push(place),
        }
    }
    places
}

/// Returns the verb for a word after `key` or `master`.
fn below(command: &Command, group: &Command, word: &str) -> Option<String> {
    let verb = match command.find_subcommand(word) {
        Some(verb) => verb.get_name().to_owned(),
        None => verb_called(command, word)?,
    };
    let nested = format!("{} {verb}", group.get_name());
    if group.find_subcommand(&verb).is_some() {
        return Some(nested);
    }
    let is_master = group.get_name() == "master";
    Some(match verb.as_str() {
        "show" | "list" | "status" if is_master => "status".into(),
        _ => verb,
    })
}

/// Returns the command for a verb with a noun after it.
fn pair(verb: &str, word: &str) -> Option<String> {
    let noun = noun(word)?;
    let mut pairs = PAIRS.iter();
    let found = pairs.find(|(one, other, _)| (*one, *other) == (verb, noun));
    found.map(|(_, _, both)| (*both).to_owned())
}

fn noun(word: &str) -> Option<&'static str> {
    let mut nouns = NOUNS.iter();
    let found = nouns.find(|(_, words)| words.split(' ').any(|one| one == word));
    found.map(|(noun, _)| *noun)
}

fn takes_no_name(command: &Command, verb: &str) -> bool {
    let mut verb = verb.split(' ').filter(|word| !word.starts_with('-'));
    let found = verb.try_fold(command, |above, word| above.find_subcommand(word));
    found.is_some_and(|verb| verb.get_positionals().next().is_none())
}

/// Returns the verb that the word means. The word may be a verb of another tool, or a misspelled
/// verb.
fn verb_called(command: &Command, word: &str) -> Option<String> {
    let lower = word.to_lowercase();
    let groups = command.get_subcommands().filter(|one| !one.is_hide_set());
    let verbs = groups.flat_map(|group| {
        let below = group.get_subcommands();
        let nested = below.map(|one| {
            (
                one.get_name(),
                format!("{} {}", group.get_name(), one.get_name()),
            )
        });
        std::iter::once((group.get_name(), group.get_name().to_owned())).chain(nested)
    });
    let others = WORDS.iter().flat_map(|(verb, words)| {
        let words = words.split(' ');
        words.map(|word| (word, (*verb).to_owned()))
    });
    // The verbs of the group and their other names come first. The verbs of the tool come after
    // them.
    let all: Vec<(&str, String)> = verbs.chain(others).collect();
    let is_exact = |one: &&(&str, String)| one.0 == lower;
    let is_higher = |one: &&(&str, String)| !one.1.contains(' ');
    let higher = all.iter().filter(is_higher).find(is_exact);
    let exact = higher.or_else(|| all.iter().find(is_exact));
    let nearest = || {
        let near = all
            .iter()
            .map(|one| (strsim::damerau_levenshtein(one.0, &lower), one));
        let near = near.filter(|(distance, (name, _))| *distance <= most(name));
        near.min_by_key(|(distance, _)| *distance)
            .map(|(_, one)| one)
    };
    exact.or_else(nearest).map(|(_, verb)| verb.clone())
}

/// Returns how many wrong letters are accepted in a word of this length.
fn most(name: &str) -> usize {
    match name.len() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Arguments;
    use clap::CommandFactory;

    #[track_caller]
    fn of(line: &str) -> Option<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        meant(&Arguments::command(), &words).map(|words| words.join(" "))
    }

    #[test]
    fn the_verb_that_was_meant() {
        for (said, wanted) in [
            ("delete web", "key delete web"),
            ("rm web --yes", "key delete web --yes"),
            ("--json rm web", "--json key delete web"),
            (
                "--config c.toml -v rm web",
                "--config c.toml -v key delete web",
            ),
            ("--config=c.toml rm web", "--config=c.toml key delete web"),
            ("generate x", "key generate x"),
            ("generate key x", "key generate x"),
            ("create key x --sealed", "key generate x --sealed"),
            ("generate key", "key generate key"),
            ("keys", "key list"),
            ("keys list", "key list"),
            ("keys rm web", "key delete web"),
            ("list keys", "key list"),
            ("ls keys", "key list"),
            ("ls", "list"),
            ("ls tokens", "list"),
            ("import web.pem", "import-cert web.pem"),
            ("import cert web.pem", "import-cert web.pem"),
            ("key show web", "show web"),
            ("key csr web", "csr web"),
            ("key rm web", "key delete web"),
            ("key new web", "key generate web"),
            ("key ls", "key list"),
            ("key import web.pem", "import-cert web.pem"),
            ("show key web", "show web"),
            ("cert web", "show web"),
            ("master", "master"),
            ("master status", "status"),
            ("master rotate", "master rotate"),
            ("renew-master", "master renew"),
            ("rekey web", "key rekey web"),
            ("request web", "csr web"),
            ("check", "doctor"),
            ("init", "provision"),
            ("factory-reset", "reset --factory"),
            ("reset factory", "reset --factory"),
            ("version", "--version"),
            ("completion bash", "completions bash"),
            // Misspelled verbs.
            ("shwo web", "show web"),
            ("statsu", "status"),
            ("genrate web", "key generate web"),
            ("delte web", "key delete web"),
            ("key genrate web", "key generate web"),
            ("SHOW web", "show web"),
        ] {
            let meant = of(said).unwrap_or_else(|| said.to_owned());
            assert_eq!(meant, wanted, "{said}");
        }
    }

    #[test]
    fn nothing_is_guessed_of_what_says_nothing() {
        for said in [
            "frobnicate",
            "x",
            "key frobnicate web",
            "",
            "--json",
            "show web mail",
        ] {
            assert_eq!(of(said), None, "{said}");
        }
    }

    /// Each suggested verb exists.
    #[test]
    fn each_verb_of_the_table_is_one() {
        let command = Arguments::command();
        let verbs = WORDS.iter().map(|(verb, _)| *verb);
        for verb in verbs.chain(PAIRS.iter().map(|(_, _, both)| *both)) {
            let words = verb.split(' ').filter(|word| !word.starts_with('-'));
            let mut at = Some(&command);
            for word in words {
                at = at.and_then(|above| above.find_subcommand(word));
            }
            assert!(at.is_some(), "{verb}");
        }
        for (_, words) in WORDS {
            for word in words.split(' ') {
                assert!(command.find_subcommand(word).is_none(), "{word} is a verb");
            }
        }
    }
}
