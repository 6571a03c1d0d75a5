//! `devid completions`: makes shell completions from the verbs. The shell calls `devid list` to
//! complete labels.

use crate::cli::{Arguments, NAME, OutputFormat};
use crate::output::{CommandError, Output};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use serde_json::json;

/// A shell command that prints the labels of `devid list`, one per line. The shell function
/// replaces `CONFIG` by `--config FILE` if the command line has this option.
const LABELS: &str = r#"devid CONFIG list --json 2>/dev/null | sed -n 's/^ *"label": "\([^"\\]*\)",\{0,1\}$/\1/p' | sort -u"#;

/// Writes completions for a shell.
pub(crate) fn script(shell: Shell, form: OutputFormat) -> Result<Output, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "devid", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let mut verbs = Vec::new();
    collect_verbs(&Arguments::command(), "", &mut verbs);
    let script = match shell {
        Shell::Bash => format!("{script}{}", bash(&verbs)),
        Shell::Zsh => zsh(&script),
        Shell::Fish => format!("{script}{}", fish(&verbs)),
        _ => script,
    };
    Output::new(form, &json!({ "script": script }), || script.clone())
}

/// Collects the verbs that take the name of an object: `show`, `key delete`.
fn collect_verbs(command: &Command, above: &str, verbs: &mut Vec<String>) {
    for verb in command.get_subcommands() {
        let path = format!("{above}{}", verb.get_name());
        let takes_name = |argument: &clap::Arg| {
            argument.is_positional()
                && argument
                    .get_help()
                    .is_some_and(|help| help.to_string() == NAME)
        };
        if verb.get_arguments().any(takes_name) {
            verbs.push(path.clone());
        }
        collect_verbs(verb, &format!("{path} "), verbs);
    }
}

/// Extends the function that clap made. For the first word that is not an option, the new function
/// offers labels.
fn bash(verbs: &[String]) -> String {
    let patterns: Vec<_> = verbs.iter().map(|verb| format!("'{verb} '")).collect();
    format!(
        r#"
_devid_labels() {{
    {}
}}

_devid_and_labels() {{
    _devid "$@"
    local word before='' words='' config=() IFS=$'\n'
    [[ ${{COMP_WORDS[COMP_CWORD]}} != -* ]] || return 0
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        # Readline parts --config=FILE into three words.
        case $before$word in
            --config | --config=) before=--config ;;
            --config*)
                word=${{word#--config=}}
                word=${{word//[\'\"\\]/}}
                config=(--config "${{word/#~\//$HOME/}}")
                before=''
                ;;
            --json | -v* | -q | --verbose | --quiet) ;;
            *) words+="$word " ;;
        esac
    done
    case $words in
        {})
            COMPREPLY+=($(compgen -W "$(_devid_labels "${{config[@]}}")" -- "${{COMP_WORDS[COMP_CWORD]}}"))
            ;;
    esac
}}
complete -F _devid_and_labels -o bashdefault -o default devid
"#,
        LABELS.replace("CONFIG", "\"$@\""),
        patterns.join(" | ")
    )
}

fn zsh(script: &str) -> String {
    let labels = format!(
        r#"
_devid_labels() {{
    local -a labels
    labels=("${{(@f)$({})}}")
    compadd -a labels
}}

# The completion function of a verb sees only the words after the verb.
_devid_note_config() {{
    typeset -ga _devid_config=()
    local -i at
    for ((at = 2; at < CURRENT; at++)); do
        case $words[at] in
            --config) _devid_config=(--config "${{(Q)words[at + 1]/#\~\//$HOME/}}") ;;
            --config=*) _devid_config=(--config "${{(Q)${{words[at]#*=}}/#\~\//$HOME/}}") ;;
        esac
    done
}}

_devid_commands() {{"#,
        LABELS.replace("CONFIG", "$_devid_config")
    );
    script
        .replacen(
            "\n_devid() {\n",
            "\n_devid() {\n    _devid_note_config\n",
            1,
        )
        .replace(
            &format!("{NAME}:_default"),
            &format!("{NAME}:_devid_labels"),
        )
        .replacen("\n_devid_commands() {", &labels, 1)
}

fn fish(verbs: &[String]) -> String {
    let mut script = format!(
        r#"
function __devid_labels
    set -l config
    set -l tokens (commandline -opc)
    for at in (seq 2 (count $tokens))
        switch $tokens[$at]
            case --config
                set config --config (string replace -r '^~/' "$HOME/" -- $tokens[(math $at + 1)])
            case '--config=*'
                set config --config (string replace -r '^--config=' '' -- $tokens[$at] | string replace -r '^~/' "$HOME/")
        end
    end
    {}
end
"#,
        LABELS.replace("CONFIG", "$config")
    );
    for verb in verbs {
        let words: Vec<_> = verb.split(' ').collect();
        let mut seen = format!("__fish_devid_using_subcommand {}", words[0]);
        for word in &words[1..] {
            seen += &format!("; and __fish_seen_subcommand_from {word}");
        }
        script += &format!("complete -c devid -n \"{seen}\" -f -a \"(__devid_labels)\"\n");
    }
    script
}
