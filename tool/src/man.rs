//! `devid man`: pages made from the verbs themselves, and what no verb says of files, variables and
//! examples; a page of the module, and a page of the settings.

mod settings;

use crate::cli::{Arguments, OutputFormat};
use crate::output::{CommandError, Output};
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use devid_core::identity::{FileKind, OutputFile};
use serde_json::json;
use std::io;
use std::path::Path;

/// Words and what they mean.
type Meanings = [(&'static str, &'static str)];

const EXIT_STATUS: &Meanings = &[
    (
        "0",
        "Done. status: the identity is in the TPM or, where that is allowed, in files.",
    ),
    (
        "1",
        "Failed, or not verified: something is wrong, or the key was not proven; standard error says why and what to do. Also: the output could not be written.",
    ),
    (
        "2",
        "Asked for wrongly, or a name that several objects bear.",
    ),
    (
        "3",
        "verify: the key is proven and nothing is wrong, but the CA certificate for the identity is not available.",
    ),
    ("4", "The TPM does not answer."),
    ("5", "Not found."),
    (
        "6",
        "Refused, since something would be lost; nothing was done.",
    ),
    (
        "8",
        "status --check: a certificate ends soon, or its renewal fails; nothing is broken yet.",
    ),
];
const FILES: &Meanings = &[
    (
        "/etc/devid-pkcs11/config.toml",
        "The settings, each with its default in the shipped file. config.d/*.toml beside it are read after it.",
    ),
    (
        "/etc/devid-pkcs11/trust/*.pem",
        "CA certificates that verify trusts.",
    ),
    (
        "/etc/devid-pkcs11/chain/*.pem",
        "CA certificates to show beside the identity; not trusted for that.",
    ),
    (
        "/var/lib/devid-pkcs11/devid/",
        "The key folder: one PEM file for each key and certificate of the device's own.",
    ),
    (
        "/var/lib/devid-pkcs11/devid/*.pem.lost",
        "Keys that went with a former master key; prune deletes them.",
    ),
    (
        "/etc/devid-pkcs11/config.d/devid-master.toml",
        "The handle of the master key, where master renew took another one.",
    ),
    (
        "/var/lib/devid-pkcs11/software/",
        "The identity of a device without TPM, where that is allowed; *.pre-tpm is what prune deletes.",
    ),
    (
        "/var/lib/devid-pkcs11/tpm_in_use",
        "The marker: the identity is in the TPM, in this handle, with this name.",
    ),
    (
        "/var/lib/devid-pkcs11/factory-reset",
        "Whoever makes this file asks for a factory reset at the next start.",
    ),
    (
        "/run/devid-pkcs11/generation",
        "Changes whenever devid changed what running programs may have read.",
    ),
];
const ENVIRONMENT: &Meanings = &[
    (
        "DEVID_PKCS11_CONFIG",
        "Another config.toml; trust/, chain/ and config.d/ are looked for beside it.",
    ),
    (
        "DEVID_PKCS11_TCTI",
        "Where the TPM is; goes before the setting tcti.",
    ),
    (
        "DEVID_PKCS11_STATE",
        "In the place of /var/lib/devid-pkcs11.",
    ),
    ("DEVID_PKCS11_RUN", "In the place of /run/devid-pkcs11."),
    (
        "NO_COLOR, CLICOLOR, CLICOLOR_FORCE, TERM",
        "Whether output has colours; without these it has, on a terminal.",
    ),
    (
        "LC_ALL, LC_CTYPE, LANG",
        "Whether tree draws lines of Unicode (UTF-8), or of ASCII.",
    ),
    (
        "CREDENTIALS_DIRECTORY",
        "Where the secrets are that the settings name as credential:NAME (systemd.exec(5)).",
    ),
];

/// Of a verb, by the name of its page.
fn examples(page: &str) -> &'static Meanings {
    match page {
        "devid-status" => &[
            (
                "devid status --json",
                "For programs: where the identity lives, when its certificates end, and how the TPM does.",
            ),
            (
                "devid status --check --textfile /var/lib/prometheus/node-exporter/devid.prom",
                "For monitoring: an exit code, and metrics for the textfile collector of Prometheus's node_exporter.",
            ),
        ],
        "devid-token" => &[(
            "devid token add mail-relay --group mail",
            "A token for a service.",
        )],
        "devid-token-add" => &[(
            "devid token add mail-relay --group mail",
            "The token mail-relay, whose key folder belongs to the user and the group mail.",
        )],
        "devid-token-remove" => &[(
            "devid token remove mail-relay",
            "The setting goes; the keys stay in their folder.",
        )],
        "devid-list" => &[("devid list", "Whatever the tokens hold.")],
        "devid-show" => &[
            (
                "devid show idev-id",
                "The factory's identity: serial number and model of the device, issuer, validity.",
            ),
            ("devid show devid/web", "The key web of the token devid."),
            (
                "devid show idev-id --keylime --out /var/lib/keylime",
                "Settings for Keylime's agent, and the certificates that they name.",
            ),
            (
                "devid show --cert ca.pem",
                "A certificate in a file, whoever it is for.",
            ),
        ],
        "devid-tree" => &[(
            "devid tree",
            "Everything at a glance: what belongs to what, and how many days are left.",
        )],
        "devid-verify" => &[
            (
                "devid verify idev-id --ca ca.pem",
                "By the maker's CA certificate. Without it the answer is 3.",
            ),
            (
                "devid verify idev-id --ca ca.pem --crl ca.crl",
                "And the CA has not revoked it. Without a list, revocation is not checked.",
            ),
            (
                "devid verify idev-id --pin-file /run/pin",
                "Where the key asks for a PIN.",
            ),
        ],
        "devid-doctor" => &[("devid doctor", "Each finding with what mends it.")],
        "devid-provision" => &[
            (
                "devid provision",
                "At every start: makes an identity, or looks after the one that is there.",
            ),
            (
                "devid provision --csr devid.csr",
                "The key only; a CA is to certify it, and devid import-cert takes what that answers.",
            ),
        ],
        "devid-reset" => &[(
            "devid reset --factory --yes",
            "Every key of the token devid is gone for good, and the device has a new identity.",
        )],
        "devid-prune" => &[(
            "devid prune",
            "The device will not go back to software that knows only files.",
        )],
        "devid-key-generate" => &[
            (
                "devid key generate web",
                "A P-256 key, made by the TPM and kept on the disk, wrapped.",
            ),
            (
                "devid key generate mail --algorithm rsa2048 --decrypts",
                "One that opens encrypted mail as well.",
            ),
            (
                "devid key generate node --parent srk --scheme ecdsa-sha256",
                "One that SPIRE's tpm_devid plugin can use.",
            ),
        ],
        "devid-key-list" => &[("devid key list", "The keys of the token devid.")],
        "devid-key-delete" => &[(
            "devid key delete web --yes",
            "The key and its certificates, for good.",
        )],
        "devid-master" => &[(
            "devid master renew",
            "Where the master key was evicted: what is lost, and what stays.",
        )],
        "devid-master-renew" => &[
            (
                "devid master renew",
                "What is lost where the master key was evicted; nothing is done.",
            ),
            (
                "devid master renew --yes",
                "A new master key; the device's identity stays as it is.",
            ),
        ],
        "devid-csr" => &[
            (
                "devid csr web --out web.csr",
                "Names the service and nothing of the device.",
            ),
            (
                "devid csr devid --out devid.csr",
                "Names the device as the factory did.",
            ),
        ],
        "devid-attest" => &[
            (
                "devid attest web --nonce nonce.bin --out web.evidence",
                "What a CA needs to know that the key web is in this TPM.",
            ),
            (
                "devid attest idev-id --nonce 00112233445566778899aabbccddeeff",
                "The same of the factory's key, on standard output.",
            ),
        ],
        "devid-activate" => &[(
            "devid activate web.challenge --out web.response",
            "What the CA answered to the evidence, and what it is sent then.",
        )],
        "devid-challenge" => &[
            (
                "devid challenge request.json --out response.json",
                "What an enrollz service asked, and what it is answered.",
            ),
            (
                "devid challenge request.json --transport-key transport.key",
                "The same for a bootz server.",
            ),
        ],
        "devid-import-cert" => &[(
            "devid import-cert web.pem",
            "What the CA answered, in the place of the certificate before it.",
        )],
        "devid-enroll" => &[
            (
                "devid enroll web --est https://est.example --trust est-ca.pem --san web.example",
                "A certificate for the key web, which is made if there is none. The factory's identity opens the \
                 session.",
            ),
            (
                "devid enroll web --est https://est.example --fingerprint HEX --wait 600",
                "The server is believed if its CA has that fingerprint, and waited for if it asks for patience.",
            ),
        ],
        "devid-renew" => &[
            (
                "devid renew",
                "What the configuration names and what is due; devid-renew.timer does this each hour.",
            ),
            (
                "devid renew web --rollback",
                "The certificate before the one that is in use, and the key if that was another one.",
            ),
        ],
        "devid-key-rekey" => &[
            (
                "devid key rekey web --out web.csr",
                "A new key waits beside the old one, and a CA is to certify it.",
            ),
            (
                "devid import-cert web.pem",
                "Both are exchanged together, under the same label.",
            ),
        ],
        "devid-export" => &[
            (
                "devid export web --tss2 --out web.tss2.pem",
                "For tpm2-openssl and others.",
            ),
            (
                "devid export web --tpm2-tools web.tpm",
                "For tpm2_load; the answer is the command with its parent.",
            ),
            (
                "devid export node --spire /etc/spire/devid",
                "For SPIRE's tpm_devid plugin; the answer is its settings.",
            ),
        ],
        "devid-sign" => &[
            (
                "devid sign idev-id request.json --cms --content-type 1.2.840.113549.1.9.16.1.40",
                "A voucher request for BRSKI (RFC 8995).",
            ),
            (
                "devid sign idev-id challenge --raw --out challenge.sig",
                "For openssl dgst -verify.",
            ),
        ],
        "devid-ca-nonce" => &[(
            "devid ca nonce --out nonce",
            "What the device shows with devid attest --nonce nonce.",
        )],
        "devid-ca-challenge" => &[(
            "devid ca challenge evidence.json --out challenge.json",
            "What the device answers with devid activate challenge.json.",
        )],
        "devid-ca-verify" => &[(
            "devid ca verify evidence.json --roots roots/",
            "Whether the key is in a TPM whose maker is trusted.",
        )],
        "devid-ca-issue" => &[(
            "devid ca issue evidence.json --roots roots/ --ca-cert ca.pem --ca-key ca.key --out web.pem",
            "The same, and a certificate for the key.",
        )],
        "devid-persist" => &[(
            "devid persist idev-id",
            "After TPM2_Clear: the factory's key gets its handle back.",
        )],
        "devid-uri" => &[
            (
                "devid uri idev-id --pem key.pem",
                "For programs that take a key as a file: curl --key key.pem",
            ),
            (
                "devid uri idev-id --type cert",
                "The certificate beside the key.",
            ),
        ],
        "devid-uri2pem" => &[(
            "devid uri2pem 'pkcs11:token=idev-id;type=private' > key.pem",
            "The same for a URI that is known.",
        )],
        "devid-completions" => &[(
            "devid completions bash > /etc/bash_completion.d/devid",
            "For bash.",
        )],
        _ => &[],
    }
}

/// devid-pkcs11(7): the module, for those who use it from another program.
const MODULE: &str = include_str!("man/devid-pkcs11.7");

/// devid(1), a page for each verb, devid-pkcs11(7) and devid-pkcs11.conf(5), as files of this folder.
pub(crate) fn man(folder: &Path, force: bool, form: OutputFormat) -> Result<Output, CommandError> {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let fault = |error: io::Error| CommandError::new(1, format!("{}: {error}", folder.display()));
    let mut pages = vec![
        ("devid-pkcs11.7".to_owned(), MODULE.into()),
        ("devid-pkcs11.conf.5".to_owned(), settings::page().into()),
    ];
    collect_pages(&command, &mut pages).map_err(fault)?;
    let file = |name: &str| OutputFile::new(folder.join(name), force);
    for (name, _) in &pages {
        file(name).check(FileKind::ManualPage)?;
    }
    for (name, text) in &pages {
        file(name).write(text, FileKind::ManualPage, 0o644)?;
    }
    let files: Vec<_> = pages.iter().map(|(name, _)| name).collect();
    Output::new(form, &json!({ "files": files }), String::new)
}

/// Names and texts of the pages of the verbs.
fn collect_pages(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        collect_pages(verb, pages)?;
    }
    let page = Man::new(command.clone());
    pages.push((page.get_filename(), text(command, &page)?));
    Ok(())
}

fn text(command: &Command, page: &Man) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    let name = command.get_display_name().unwrap_or("devid");
    let mut roff = Roff::new();
    if name == "devid" {
        section(&mut roff, "EXIT STATUS", EXIT_STATUS);
        section(&mut roff, "FILES", FILES);
        section(&mut roff, "ENVIRONMENT", ENVIRONMENT);
        all_examples(command, &mut roff);
    } else {
        section(&mut roff, "EXAMPLES", examples(name));
        roff.control("SH", ["SEE ALSO"]);
        roff.text([
            bold("devid"),
            roman("(1) for exit status, files and variables, "),
            bold("devid-pkcs11.conf"),
            roman("(5), "),
            bold("devid-pkcs11"),
            roman("(7)"),
        ]);
    }
    roff.to_writer(&mut text)?;
    Ok(text)
}

/// The first of each verb.
fn all_examples(command: &Command, roff: &mut Roff) {
    let mut all = Vec::new();
    for verb in command.get_subcommands() {
        let name = verb.get_display_name().unwrap_or_default();
        all.extend(examples(name).first().copied());
    }
    section(roff, "EXAMPLES", &all);
}

fn section(roff: &mut Roff, name: &str, meanings: &Meanings) {
    if meanings.is_empty() {
        return;
    }
    roff.control("SH", [name]);
    for (word, meaning) in meanings {
        roff.control("TP", []);
        roff.text([bold(*word)]);
        roff.text([roman(*meaning)]);
    }
}
