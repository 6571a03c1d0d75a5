//! Each command block of README and docs/ is run from its page. A test in this file runs the block,
//! or a test that `RUN_BY` lists.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::folders;
use testkit::link::Link;
use testkit::module::{library, tool};
use testkit::openssl::Verifier;
use testkit::own::public_pem;
use testkit::pages::{Block, block, blocks_of, pages};
use testkit::pins::{Bench, OFFICER, USER};
use testkit::programs::{Said, program, run};
use testkit::tls::{configuration, openssl_server};

over_our_transport!(
    the_first_use,
    a_token_gets_pins_by_opensc_and_programs_are_told_them,
    a_token_gets_pins_by_gnutls,
    a_log_is_written,
);

/// The blocks that are run elsewhere, and where.
const RUN_BY: &[(&str, &str)] = &[
    ("project", "scripts/test-debian"),
    ("clients", "scripts/test-clients"),
    ("packages", "scripts/test-packages"),
    ("as-root", "scripts/test-packages"),
    ("packaging", "tests/harness/install.rs"),
    ("source", "tests/harness/install.rs"),
    ("openssh", "tests/clients/ssh.rs"),
    ("migration", "tests/clients/migration.rs"),
    ("keyfile", "tests/clients/migration.rs"),
    ("keyfile-password", "tests/clients/migration.rs"),
    ("cross", "scripts/cross"),
    ("container", "tests/process/bare_root.rs"),
    ("service", "tests/process/bare_root.rs"),
    ("audit-settings", "tool/tests/tool/command/packaging.rs"),
    ("certificate-table", "tool/tests/tool/command/packaging.rs"),
    ("router", "tool/tests/tool/identity/life.rs"),
    ("ssr", "tool/tests/tool/identity/life.rs"),
    ("eve", "tool/tests/tool/identity/life.rs"),
    ("master", "tool/tests/tool/identity/life.rs"),
    ("ca", "tests/evidence/ca.rs"),
    (
        "service-evidence",
        "tool/tests/tool/enrolment/unlinkable.rs",
    ),
    ("subject", "tool/tests/tool/command/packaging.rs"),
    ("image", "tool/tests/tool/identity/images.rs"),
    ("waits", "tool/tests/tool/identity/images.rs"),
    ("clone", "tool/tests/tool/identity/images.rs"),
    ("backup", "tool/tests/tool/identity/images.rs"),
    ("enrolment", "tool/tests/tool/enrolment/page.rs"),
    ("service-token", "tool/tests/tool/enrolment/services.rs"),
    ("release-key", "tool/tests/tool/command/release.rs"),
    ("release-verify", "tool/tests/tool/command/release.rs"),
    ("subject", "tool/tests/tool/command/packaging.rs"),
    ("image", "tool/tests/tool/identity/images.rs"),
    ("waits", "tool/tests/tool/identity/images.rs"),
    ("clone", "tool/tests/tool/identity/images.rs"),
    ("backup", "tool/tests/tool/identity/images.rs"),
    ("manufacture", "tests/factory/manufacture/page.rs"),
    ("openconfig", "tests/evidence/openconfig.rs"),
    ("sztp-request", "tests/clients/sztp.rs"),
    ("sztp-answer", "tests/clients/sztp.rs"),
];

fn reads(file: &Path, words: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.contains(words))
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|one: char| !one.is_alphanumeric() && one != '-' && one != '_')
}

/// True if a client script has a command `page`, `run_page` or similar with this block.
fn runs_page(script: &Path, name: &str) -> bool {
    let text = fs::read_to_string(script).unwrap();
    let is_run = |line: &str| line.contains("page") && words(line).any(|word| word == name);
    text.lines().any(is_run)
}

/// True if a file names the block, or each command of the block.
fn knows(file: &Path, block: &Block) -> bool {
    let text = fs::read_to_string(file).unwrap();
    let by_name = text.lines().flat_map(words).any(|word| word == block.name);
    let mut commands = block.text.lines().filter_map(|line| line.split(' ').next());
    by_name || commands.all(|command| text.contains(command))
}

/// The name of a block says which test runs the block.
#[test]
fn each_block_is_run() {
    let root = folders::root();
    let scripts: Vec<PathBuf> = fs::read_dir(root.join("tests/clients"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_none() && path.is_file())
        .collect();
    let mut count = 0;
    for page in pages() {
        for block in blocks_of(&page) {
            if block.language.is_empty() {
                continue; // a picture
            }
            count += 1;
            let name = &block.name;
            let is_named = !name.is_empty();
            let by_script = is_named && scripts.iter().any(|script| runs_page(script, name));
            let here = is_named && reads(&root.join(file!()), &format!("\"{name}\")"));
            // One story for each change, and a test that no section lacks its story.
            let of_change = name.starts_with("tpm-") && block.page == "docs/TPM-CHANGES.md";
            let elsewhere = RUN_BY.iter().find(|(known, _)| known == name);
            let by_other = elsewhere.is_some_and(|(_, place)| knows(&root.join(place), &block));
            // The content identifies the blocks without name in docs/KEYS.md.
            let own_keys = !is_named && block.page == "docs/KEYS.md";
            assert!(
                by_script || here || by_other || own_keys || of_change,
                "{page}: nothing runs the block {} {name:?}",
                block.language
            );
        }
    }
    assert!(count > 40, "{count}");
}

#[test]
fn the_readme_is_short() {
    let readme = fs::read_to_string(folders::root().join("README.md")).unwrap();
    assert!(readme.lines().count() <= 130, "{}", readme.lines().count());
}

/// Links between the pages lead somewhere.
#[test]
fn the_links_lead_somewhere() {
    let root = folders::root();
    let slug = |title: &str| -> String {
        let kept = |one: char| one.is_alphanumeric() || one == ' ' || one == '-';
        let title = title.to_lowercase();
        title
            .chars()
            .filter(|one| kept(*one))
            .collect::<String>()
            .replace(' ', "-")
    };
    for page in pages() {
        let path = root.join(&page);
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                _ => path.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{page}: {link}");
            if !anchor.is_empty() {
                let target = fs::read_to_string(&target).unwrap();
                let mut titles = target.lines().filter(|line| line.starts_with('#'));
                let there = titles.any(|line| slug(line.trim_start_matches('#').trim()) == anchor);
                assert!(there, "{page}: {link}");
            }
        }
    }
}

/// Commands of a page in the home, with what the page takes for granted.
fn shell(bench: &Bench, commands: &str) -> Command {
    let mut shell = program("bash");
    shell
        .args(["-euo", "pipefail", "-c", commands])
        .current_dir(bench.home.folder());
    let path = std::env::var_os("PATH").unwrap();
    let all = [tool().parent().unwrap().to_owned()];
    let all = all.into_iter().chain(std::env::split_paths(&path));
    shell
        .env("PATH", std::env::join_paths(all).unwrap())
        .env("M", library())
        .env("no_proxy", "*");
    bench.home.settle(&mut shell);
    shell
}

fn the_first_use(link: Link) {
    let bench = Bench::new(link);
    let cnf = configuration(&bench.home);
    let said = run(&mut shell(&bench, &block("README.md", "first"))).ok();
    assert!(said.text().contains("Example-1000"), "{said}");
    let server = openssl_server(&bench.home, &bench.identity);
    let curl = block("README.md", "curl");
    let here = curl.replace("/etc/devid-pkcs11/openssl.cnf", cnf.to_str().unwrap());
    assert_ne!(curl, here);
    let mut curl = shell(&bench, &here);
    let said = run(curl.env("URL", format!("https://{}/", server.address()))).ok();
    assert!(said.text().contains("Client certificate"), "{said}");
}

fn a_log_is_written(link: Link) {
    let bench = Bench::new(link);
    let commands = block("docs/INSTALL.md", "log");
    let here = commands.replace("/tmp/devid.log", &bench.path("devid.log"));
    assert_ne!(commands, here);
    let said = run(&mut shell(&bench, &here)).ok();
    assert!(said.text().contains("token idev-id with"), "{said}");
}

const NEW: &str = "a new one";

/// With the PINs as the page names them.
fn with_pins(bench: &Bench, pin: &str, name: &str) -> Said {
    let commands = block("docs/PINS.md", name);
    let commands = commands.replace("/path/to/pin", &bench.path("pin"));
    bench.home.write("pin", pin);
    // Java reads its store's password from its input; each program of the page has that to itself.
    let commands = format!(
        "keytool() {{ command keytool -J-Duser.language=en \"$@\" <<<\"$PIN\"; }}\n{commands}"
    );
    let mut shell = shell(bench, &commands);
    shell
        .env("SO_PIN", OFFICER)
        .env("PIN", pin)
        .env("NEW_PIN", NEW)
        .env("GNUTLS_SO_PIN", OFFICER)
        .env("GNUTLS_PIN", pin);
    match name {
        "pin-openssl" => knows_pin(bench, &mut shell),
        "pin-openssh" => with_agent(bench, &mut shell),
        _ => {}
    }
    run(&mut shell)
}

/// The last line of the page's block takes the PIN from openssl.cnf.
fn knows_pin(bench: &Bench, shell: &mut Command) {
    let cnf = configuration(&bench.home);
    let text = fs::read_to_string(&cnf).unwrap();
    let section = "[pkcs11_sect]\n";
    let pin = bench.path("pin");
    let known = text.replace(
        section,
        &format!("{section}pkcs11-module-token-pin = file:{pin}\n"),
    );
    assert_ne!(text, known);
    shell.env("OPENSSL_CONF", bench.home.write("openssl.cnf", known));
}

/// ssh-agent around the commands; it is told the PIN by a program.
fn with_agent(bench: &Bench, shell: &mut Command) {
    let ask = bench.home.write("askpass", "#!/bin/sh\necho \"$PIN\"\n");
    run(Command::new("chmod").arg("+x").arg(&ask)).ok();
    let inner = std::mem::replace(shell, program("ssh-agent"));
    shell
        .args(["-P", "/*"])
        .arg(inner.get_program())
        .args(inner.get_args());
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell
        .current_dir(inner.get_current_dir().unwrap())
        .env("SSH_ASKPASS", ask)
        .env("SSH_ASKPASS_REQUIRE", "force");
}

fn a_token_gets_pins_by_opensc_and_programs_are_told_them(link: Link) {
    let bench = Bench::new(link);
    with_pins(&bench, USER, "pin-opensc").ok();
    bench.home.write("message", "hello\n");
    with_pins(&bench, NEW, "pin-openssl").ok();
    let listed = with_pins(&bench, NEW, "pin-openssh").ok();
    assert!(listed.all().contains("Card added"), "{listed}");
    let line = fs::read_to_string(bench.path("web.pub")).unwrap();
    assert!(line.ends_with(" web\n"), "{line}");
    let token = bench.token();
    let session = token.read_only();
    let template = [(
        cryptoki_sys::CKA_CLASS,
        testkit::module::ulong(cryptoki_sys::CKO_PUBLIC_KEY),
    )];
    let found = token.raw.find(session, &template).unwrap();
    let info = token
        .raw
        .attribute(session, found[0], cryptoki_sys::CKA_PUBLIC_KEY_INFO);
    let judge = Verifier::new(&bench.home.write("web.pem", public_pem(&info.unwrap())));
    let signature = fs::read(bench.path("message.sig")).unwrap();
    judge.accepts_der("-sha256", b"hello\n", &signature).ok();
    // A key store has no key without a certificate.
    let certificate = "openssl req -new -x509 -subj /CN=web -outform DER -out web.crt \
        -key 'pkcs11:token=device%20keys;object=web;type=private'
        pkcs11-tool --module $M --token-label 'device keys' --login --pin \"$PIN\" --write-object web.crt \
        --type cert --id 01 --label web";
    let mut make = shell(&bench, certificate);
    make.env("PIN", NEW);
    knows_pin(&bench, &mut make);
    run(&mut make).ok();
    let java = format!("name=devid\nlibrary={}\nslot=1\n", library().display());
    bench.home.write("java.cfg", java);
    let said = with_pins(&bench, NEW, "pin-java").ok();
    assert!(said.text().contains("web, PrivateKeyEntry"), "{said}");
    let mut verify = program("openssl");
    run(verify.args(["req", "-noout", "-verify", "-in", &bench.path("web.csr")])).ok();
    bench.counts(0);
}

fn a_token_gets_pins_by_gnutls(link: Link) {
    let bench = Bench::new(link);
    let said = with_pins(&bench, USER, "pin-gnutls").ok();
    assert!(said.all().contains("ok"), "{said}");
    bench.counts(0);
}
