//! Installed files of the packages: valid examples, units that systemd accepts, and a page for each
//! verb.

use crate::device::{Device, programs};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

fn conf(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("pkcs11-conf").join(name)
}

#[track_caller]
fn assert_understood(device: &Device, text: &str) {
    device.home.write("config.toml", text);
    let findings = device.json(&["doctor"]);
    assert_eq!(
        findings[0]["text"], "config.toml is valid",
        "{findings}\n{text}"
    );
}

#[test]
fn the_examples_are_understood() {
    let device = Device::without_tpm();
    for example in [
        "router.toml",
        "ssr-vtpm.toml",
        "eve.toml",
        "azure.toml",
        "gcp.toml",
        "aws.toml",
    ] {
        let text = fs::read_to_string(conf("examples").join(example)).unwrap();
        assert_understood(&device, &text);
    }
}

/// The settings that pages show, from the page.
#[test]
fn the_settings_of_pages_are_understood() {
    let device = Device::without_tpm();
    for (page, name) in [
        ("AUDIT.md", "audit-settings"),
        ("ENROLMENT.md", "certificate-table"),
        ("IMAGES.md", "subject"),
    ] {
        let text = fs::read_to_string(conf("../docs").join(page)).unwrap();
        let (_, block) = text.split_once(&format!("```toml {name}\n")).unwrap();
        let (block, _) = block.split_once("\n```").unwrap();
        assert_understood(&device, block);
    }
}

#[test]
fn every_setting_of_the_commented_file_is_understood() {
    let device = Device::without_tpm();
    let text = fs::read_to_string(conf("config.toml")).unwrap();
    let is_setting =
        |line: &&str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
    let mut settings: Vec<&str> = text
        .lines()
        .filter(is_setting)
        .map(|line| &line[1..])
        .collect();
    assert!(settings.len() > 15, "{settings:?}");
    // The file shows this setting in both forms, so one is removed.
    settings.retain(|line| !line.starts_with("existing = {"));
    assert_understood(&device, &settings.join("\n"));
    let both = text
        .lines()
        .filter(is_setting)
        .find(|line| line.starts_with("#existing = {"));
    assert_understood(&device, &format!("[provision]\n{}", &both.unwrap()[1..]));
}

#[test]
fn each_verb_has_a_page_and_completions_know_it() {
    let device = Device::without_tpm();
    let folder = device.path("man");
    fs::create_dir(&folder).unwrap();
    device.ends(0, &["man", folder.to_str().unwrap()]);
    let completions = device.ends(0, &["completions", "bash"]).text();
    for verb in [
        "status",
        "verify",
        "provision",
        "import-cert",
        "doctor",
        "key-generate",
        "master-renew",
    ] {
        let page = fs::read_to_string(folder.join(format!("devid-{verb}.1"))).unwrap();
        for section in [".SH SYNOPSIS", ".SH EXAMPLES", ".SH \"SEE ALSO\""] {
            assert!(page.contains(section), "{verb}: {section}");
        }
        // Each page is read alone.
        assert!(!page.contains("As of"), "{verb}");
        assert!(page.contains("\\-\\-json"), "{verb}");
        assert!(
            completions.contains(verb.split('-').next_back().unwrap()),
            "{verb}"
        );
    }
    let main = fs::read_to_string(folder.join("devid.1")).unwrap();
    for section in ["\"EXIT STATUS\"", "FILES", "ENVIRONMENT", "EXAMPLES"] {
        assert!(main.contains(&format!(".SH {section}")), "{section}");
    }
    for word in ["config.toml", "tpm_in_use", "DEVID_PKCS11_STATE"] {
        assert!(main.contains(word), "{word}");
    }
    // Whoever adds a verb adds an example.
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let page = fs::read_to_string(&path).unwrap();
        let holds_verbs = page.contains(".SH SUBCOMMANDS");
        let is_of_settings = path.ends_with("devid-pkcs11.conf.5");
        assert!(
            page.contains(".SH EXAMPLES") || holds_verbs || is_of_settings,
            "{}",
            path.display()
        );
    }
}

/// mandoc or man must not complain about a page.
#[test]
fn the_pages_are_sound() {
    let Some(man) = ["mandoc", "groff"].into_iter().find(|name| has(name)) else {
        return;
    };
    let device = Device::without_tpm();
    let folder = device.path("man");
    fs::create_dir(&folder).unwrap();
    device.ends(0, &["man", folder.to_str().unwrap()]);
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let mut check = programs::program(man);
        match man {
            "mandoc" => check.args(["-T", "lint", "-W", "error"]),
            _ => check.args(["-man", "-ww", "-z", "-T", "utf8"]),
        };
        let said = programs::run(check.arg(&path));
        assert!(said.status.success() && said.err.is_empty(), "{said}");
    }
}

fn has(name: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .any(|folder| folder.join(name).exists())
}

/// systemd's messages about the unit, with one more line in its section [Service].
fn said_of_unit(line: &str) -> Option<Vec<String>> {
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        return None;
    }
    let device = Device::without_tpm();
    let unit = fs::read_to_string(conf("systemd/devid-provision.service")).unwrap();
    let unit = unit.replace("/usr/bin/devid", env!("CARGO_BIN_EXE_devid"));
    let path = device.home.write("devid-provision.service", unit);
    fs::create_dir(device.path("devid-provision.service.d")).unwrap();
    let eve = fs::read_to_string(conf("examples/eve-unit.conf")).unwrap();
    let eve = format!("{eve}{line}\n");
    device.home.write("devid-provision.service.d/eve.conf", eve);
    let mut verify = programs::program("systemd-analyze");
    let said = programs::run(verify.args(["verify", "--man=no"]).arg(&path)).all();
    let about_us = said
        .lines()
        .filter(|line| line.contains("devid-provision") || line.contains("eve.conf"));
    Some(about_us.map(str::to_owned).collect())
}

/// Runs if systemd is installed.
#[test]
fn systemd_takes_the_unit_and_the_drop_in() {
    let Some(said) = said_of_unit("") else {
        return;
    };
    assert!(said.is_empty(), "{said:#?}");
    let said = said_of_unit("ReadWritePaths=persist").unwrap();
    assert!(!said.is_empty(), "the drop-in is read");
}

#[test]
fn systemd_takes_the_timer_of_renewals() {
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        return;
    }
    let device = Device::without_tpm();
    let unit = fs::read_to_string(conf("systemd/devid-renew.service")).unwrap();
    let unit = unit.replace("/usr/bin/devid", env!("CARGO_BIN_EXE_devid"));
    device.home.write("devid-renew.service", unit);
    let timer = fs::read_to_string(conf("systemd/devid-renew.timer")).unwrap();
    let timer = device.home.write("devid-renew.timer", timer);
    let mut verify = programs::program("systemd-analyze");
    let said = programs::run(verify.args(["verify", "--man=no"]).arg(timer)).all();
    let about_us: Vec<_> = said
        .lines()
        .filter(|line| line.contains("devid-renew"))
        .collect();
    assert!(about_us.is_empty(), "{about_us:#?}");
}

/// A code of devid's stays what it is until something changes.
#[test]
fn no_exit_code_is_tried_again_for_ever() {
    let unit = fs::read_to_string(conf("systemd/devid-provision.service")).unwrap();
    let setting = |name: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name}")).to_owned()
    };
    let prevented = setting("RestartPreventExitStatus=");
    let prevented: Vec<_> = prevented.split(' ').collect();
    for code in ["1", "2", "3", "4", "5", "6"] {
        assert!(prevented.contains(&code), "{code}");
    }
    setting("StartLimitBurst=");
    // A TPM that comes later starts it, instead, if the unit is enabled: the rule alone starts nothing.
    assert!(setting("WantedBy=").contains("dev-tpmrm0.device"));
    let rule = fs::read_to_string(conf("udev/60-devid-pkcs11.rules")).unwrap();
    for word in ["tpmrm0", "TAG+=\"systemd\""] {
        assert!(rule.contains(word), "{word}");
    }
    assert!(!rule.contains("SYSTEMD_WANTS"), "{rule}");
}

/// Runs if systemd's tools are installed and root runs the test, because only root can change
/// owners.
#[test]
fn the_state_folder_is_of_the_group_and_so_is_what_is_made_in_it() {
    let tools = ["/usr/bin/systemd-sysusers", "/usr/bin/systemd-tmpfiles"];
    let device = Device::blank();
    let root = device.path("root");
    let root_is_us = fs::metadata(device.home.folder()).unwrap().uid() == 0;
    if !root_is_us || !tools.iter().all(|tool| Path::new(tool).exists()) {
        return;
    }
    for (kind, folder) in [
        ("sysusers.d", "usr/lib/sysusers.d"),
        ("tmpfiles.d", "usr/lib/tmpfiles.d"),
    ] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).unwrap();
        let name = "devid-pkcs11.conf";
        fs::copy(conf(kind).join(name), folder.join(name)).unwrap();
    }
    fs::create_dir_all(root.join("etc")).unwrap();
    let at = format!("--root={}", root.display());
    programs::run(programs::program("systemd-sysusers").arg(&at)).ok();
    programs::run(programs::program("systemd-tmpfiles").args(["--create", &at])).ok();
    let groups = fs::read_to_string(root.join("etc/group")).unwrap();
    let devid = groups
        .lines()
        .find(|line| line.starts_with("devid:"))
        .unwrap();
    let devid: u32 = devid.split(':').nth(2).unwrap().parse().unwrap();
    let state = root.join("var/lib/devid-pkcs11");
    let about = fs::metadata(&state).unwrap();
    assert_eq!((about.mode() & 0o7777, about.gid()), (0o2750, devid));
    // Only root can replace a lock, and only members of the group can hold one.
    let tss = groups
        .lines()
        .find(|line| line.starts_with("tss:"))
        .unwrap();
    let tss: u32 = tss.split(':').nth(2).unwrap().parse().unwrap();
    let run = root.join("run/devid-pkcs11");
    assert_eq!(fs::metadata(&run).unwrap().mode() & 0o7777, 0o755);
    for (name, mode) in [
        (".", 0o750),
        ("pin", 0o640),
        ("slots", 0o640),
        ("keep", 0o640),
        ("busy", 0o640),
    ] {
        let about = fs::metadata(run.join("lock").join(name)).unwrap();
        let found = (about.mode() & 0o7777, about.uid(), about.gid());
        assert_eq!(found, (mode, 0, tss), "{name}");
    }

    // By hand, by root.
    let mut made = device.command(&["provision", "--wait", "0"]);
    programs::run(made.env("DEVID_PKCS11_STATE", &state)).ok();
    for entry in fs::read_dir(state.join("devid")).unwrap() {
        let entry = entry.unwrap();
        let about = entry.metadata().unwrap();
        // The lock is for those who write.
        let readable = if entry.file_name() == ".lock" {
            0
        } else {
            0o040
        };
        assert_eq!((about.gid(), about.mode() & 0o040), (devid, readable));
    }
    assert_eq!(fs::metadata(state.join("devid")).unwrap().gid(), devid);
}

/// Each setting of the shipped file has its place in devid-pkcs11.conf(5).
#[test]
fn the_page_of_the_settings_has_them_all() {
    let device = Device::without_tpm();
    let folder = device.path("man");
    fs::create_dir(&folder).unwrap();
    device.ends(0, &["man", folder.to_str().unwrap()]);
    let page = fs::read_to_string(folder.join("devid-pkcs11.conf.5")).unwrap();
    let page = page.replace('\\', "");
    let file = fs::read_to_string(conf("config.toml")).unwrap();
    let settings = file
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.is_empty() && !line.starts_with(' '));
    let mut count = 0;
    for setting in settings {
        let name = setting.split(" =").next().unwrap();
        assert!(page.contains(name), "{name}\n{page}");
        count += 1;
    }
    assert!(count > 20, "{count}");
    for section in ["NAME", "DESCRIPTION", "SETTINGS"] {
        assert_eq!(
            page.matches(&format!(".SH {section}")).count(),
            1,
            "{section}"
        );
    }
}

/// bash's completions after these words. The last word is incomplete.
fn offered(device: &Device, words: &[&str]) -> Vec<String> {
    let script = device.ends(0, &["completions", "bash"]).text();
    device.home.write("completions", script);
    let tool = Path::new(env!("CARGO_BIN_EXE_devid")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let ask = "source ./completions; complete -p devid; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1))
        function=$(complete -p devid | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
        $function devid \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = programs::program("bash");
    bash.args(["-c", ask, "bash", "devid"])
        .args(words)
        .current_dir(device.home.folder())
        .env("PATH", format!("{}:{path}", tool.display()));
    let said = programs::run(device.home.settle(&mut bash)).ok().text();
    said.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn bash_offers_labels_where_a_verb_takes_them() {
    let device = Device::blank();
    device.ends(0, &["provision", "--wait", "0"]);
    for label in ["web", "mail"] {
        device.ends(0, &["key", "generate", label]);
    }
    for verb in [
        &["show"][..],
        &["uri"],
        &["--json", "csr"],
        &["-q", "verify"],
        &["persist", "-v"],
        &["key", "delete"],
    ] {
        let all = offered(&device, &[verb, &[""]].concat());
        for label in ["web", "mail", "devid"] {
            assert!(all.iter().any(|one| one == label), "{verb:?} {all:?}");
        }
        let begun = offered(&device, &[verb, &["ma"]].concat());
        assert_eq!(begun, ["mail"], "{verb:?}");
    }
    // The rest is as clap has it: verbs, options, and no label for a key that is to be made.
    assert_eq!(offered(&device, &["stat"]), ["status"]);
    assert_eq!(offered(&device, &["uri", "web", "--pe"]), ["--pem"]);
    for words in [&["key", "generate", "ma"][..], &["show", "web", "ma"]] {
        assert!(!offered(&device, words).contains(&"mail".to_owned()));
    }
    let nothing = Device::without_tpm();
    assert!(!offered(&nothing, &["show", "we"]).contains(&"web".to_owned()));
}

/// fish's completions at the end of this line.
fn offered_by_fish(device: &Device, line: &str) -> Vec<String> {
    let script = device.ends(0, &["completions", "fish"]).text();
    device.home.write("completions.fish", script);
    let tool = Path::new(env!("CARGO_BIN_EXE_devid")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let ask = "source ./completions.fish; complete -C $argv[1]";
    let mut fish = programs::program("fish");
    fish.args(["--no-config", "-c", ask, line])
        .current_dir(device.home.folder())
        .env("PATH", format!("{}:{path}", tool.display()));
    let said = programs::run(device.home.settle(&mut fish)).ok().text();
    let words = said.lines().map(|line| line.split('\t').next().unwrap());
    words.map(str::to_owned).collect()
}

/// Labels are those of the configuration that the line names, wherever it does.
#[test]
fn labels_are_those_of_the_named_configuration() {
    let device = Device::blank();
    device.ends(0, &["key", "generate", "web"]);
    let folder = device.path("elsewhere");
    fs::create_dir(&folder).unwrap();
    let token = format!("[[token]]\nname = \"devid\"\npath = {folder:?}\n");
    let other = device.home.write("other.toml", token);
    let other = other.to_str().unwrap();
    device.ends(0, &["--config", other, "key", "generate", "mail"]);
    let joined = format!("--config={other}");
    for words in [
        &["--config", other, "show", ""][..],
        &["-q", &joined, "show", ""],
        &["--config", "=", other, "show", ""],
        &["show", "--config", other, ""],
        &["key", "--config", other, "delete", ""],
    ] {
        let all = offered(&device, words);
        assert!(all.contains(&"mail".to_owned()), "{words:?} {all:?}");
        assert!(!all.contains(&"web".to_owned()), "{words:?} {all:?}");
    }
    for line in [
        format!("devid --config {other} show "),
        format!("devid {joined} show "),
        format!("devid show --config {other} "),
    ] {
        let all = offered_by_fish(&device, &line);
        assert!(all.contains(&"mail".to_owned()), "{line} {all:?}");
        assert!(!all.contains(&"web".to_owned()), "{line} {all:?}");
    }
    assert!(offered_by_fish(&device, "devid show ").contains(&"web".to_owned()));
}
