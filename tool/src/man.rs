//! `devid man`: makes the manual pages. The pages of the verbs come from their arguments. This file
//! adds the sections for files, variables and examples. A page of the module and a page of the
//! settings are written too.

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

/// Terms and their meanings.
type Meanings = [(&'static str, &'static str)];

const EXIT_STATUS: &Meanings = &[
    (
        "0",
        "Success. status: the identity is in the TPM, or in files if that is allowed.",
    ),
    (
        "1",
        "The command failed, the verification failed, or the output could not be written. Standard error has the reason and the remedy.",
    ),
    (
        "2",
        "The command line is wrong, or several objects have the given name.",
    ),
    (
        "3",
        "verify: every check passed, but the CA certificate of the identity is not available.",
    ),
    ("4", "The TPM does not answer."),
    ("5", "The object was not found."),
    (
        "6",
        "The command was refused, because data would be lost. Nothing was changed.",
    ),
    (
        "8",
        "status --check: a certificate ends soon, or its renewal fails. Everything still works.",
    ),
];
const FILES: &Meanings = &[
    (
        "/etc/devid-pkcs11/config.toml",
        "The settings. The installed file shows each default. The files config.d/*.toml in the same folder are read after this file.",
    ),
    (
        "/etc/devid-pkcs11/trust/*.pem",
        "CA certificates that devid verify trusts.",
    ),
    (
        "/etc/devid-pkcs11/chain/*.pem",
        "CA certificates that the token shows together with the identity. devid verify does not trust them.",
    ),
    (
        "/var/lib/devid-pkcs11/devid/",
        "The key folder. Each key and certificate of the token devid has a PEM file here.",
    ),
    (
        "/var/lib/devid-pkcs11/devid/*.pem.lost",
        "Keys that were lost with an earlier master key. devid prune deletes them.",
    ),
    (
        "/etc/devid-pkcs11/config.d/devid-master.toml",
        "The handle of the master key, if devid master renew changed it.",
    ),
    (
        "/var/lib/devid-pkcs11/software/",
        "The software identity of a device without TPM, if the settings allow a software identity. devid prune deletes *.pre-tpm.",
    ),
    (
        "/var/lib/devid-pkcs11/tpm_in_use",
        "The marker. The file means that the identity is in the TPM, and contains the handle and the TPM name of the key.",
    ),
    (
        "/var/lib/devid-pkcs11/factory-reset",
        "If this file exists, devid provision does a factory reset at the next start.",
    ),
    (
        "/run/devid-pkcs11/generation",
        "devid changes this file when it changes data that running programs may have read.",
    ),
];
const ENVIRONMENT: &Meanings = &[
    (
        "DEVID_PKCS11_CONFIG",
        "The file to read instead of config.toml. The folders trust/, chain/ and config.d/ must be in the same folder.",
    ),
    (
        "DEVID_PKCS11_TCTI",
        "The TPM, in the TCTI notation of tpm2-tss. Overrides the setting tcti.",
    ),
    ("DEVID_PKCS11_STATE", "Replaces /var/lib/devid-pkcs11."),
    ("DEVID_PKCS11_RUN", "Replaces /run/devid-pkcs11."),
    (
        "NO_COLOR, CLICOLOR, CLICOLOR_FORCE, TERM",
        "Switch colours on or off. By default output on a terminal has colours.",
    ),
    (
        "LC_ALL, LC_CTYPE, LANG",
        "Decide whether devid tree draws lines in Unicode (UTF-8) or ASCII.",
    ),
    (
        "CREDENTIALS_DIRECTORY",
        "The folder of the secrets that the settings name as credential:NAME (systemd.exec(5)).",
    ),
];

/// Returns the examples for a verb. `page` is the name of its page.
fn examples(page: &str) -> &'static Meanings {
    match page {
        "devid-status" => &[
            (
                "devid status --json",
                "Shows programs the location of the identity, the end of its certificates, and the state of the TPM.",
            ),
            (
                "devid status --check --textfile /var/lib/prometheus/node-exporter/devid.prom",
                "For monitoring: returns an exit code, and writes metrics for the textfile collector of Prometheus's node_exporter.",
            ),
        ],
        "devid-token" => &[(
            "devid token add mail-relay --group mail",
            "Makes a token for a service.",
        )],
        "devid-token-add" => &[(
            "devid token add mail-relay --group mail",
            "Makes the token mail-relay. Its key folder belongs to the user and the group mail.",
        )],
        "devid-token-remove" => &[(
            "devid token remove mail-relay",
            "Removes the token from the settings. The keys stay in their folder.",
        )],
        "devid-list" => &[("devid list", "Lists the objects of all tokens.")],
        "devid-show" => &[
            (
                "devid show idev-id",
                "Shows the factory identity: serial number and model of the device, issuer, validity.",
            ),
            (
                "devid show devid/web",
                "Shows the key web of the token devid.",
            ),
            (
                "devid show idev-id --keylime --out /var/lib/keylime",
                "Shows the settings for Keylime's agent, and writes the certificates that the settings name.",
            ),
            (
                "devid show --cert ca.pem",
                "Shows the certificate in a file. The certificate need not belong to this device.",
            ),
        ],
        "devid-tree" => &[(
            "devid tree",
            "Shows all objects with their relations, and the days until each certificate ends.",
        )],
        "devid-verify" => &[
            (
                "devid verify idev-id --ca ca.pem",
                "Verifies with the manufacturer's CA certificate. Without a CA certificate the exit code is 3.",
            ),
            (
                "devid verify idev-id --ca ca.pem --crl ca.crl",
                "Also checks that the CA has not revoked the certificate.",
            ),
            (
                "devid verify idev-id --pin-file /run/pin",
                "Verifies an identity whose key has a PIN.",
            ),
        ],
        "devid-bench" => &[
            (
                "devid bench",
                "Shows how long the TPM takes to sign, to make keys, to unseal a key and to check a PIN.",
            ),
            (
                "devid bench --json",
                "Writes the figures as JSON, for programs.",
            ),
        ],
        "devid-doctor" => &[("devid doctor", "Shows each finding with its remedy.")],
        "devid-provision" => &[
            (
                "devid provision",
                "At every start: makes an identity, or maintains the existing identity.",
            ),
            (
                "devid provision --csr devid.csr",
                "Makes only the key and a certificate request. A CA certifies the key, and devid import-cert stores the certificate.",
            ),
        ],
        "devid-reset" => &[(
            "devid reset --factory --yes",
            "Deletes every key of the token devid permanently, and makes a new identity.",
        )],
        "devid-prune" => &[(
            "devid prune",
            "Deletes the software key. For a device that will not go back to a software version without TPM.",
        )],
        "devid-key-generate" => &[
            (
                "devid key generate web",
                "Makes a P-256 key in the TPM. The disk stores the wrapped key.",
            ),
            (
                "devid key generate mail --algorithm rsa2048 --decrypts",
                "Makes a key that also decrypts, for example mail.",
            ),
            (
                "devid key generate node --parent srk --scheme ecdsa-sha256",
                "Makes a key for SPIRE's tpm_devid plugin.",
            ),
        ],
        "devid-key-import" => &[(
            "devid key import web.pem --auth-file auth",
            "Imports a key that tpm2-openssl made with a password. In the token, the PIN protects the key.",
        )],
        "devid-key-unseal" => &[(
            "devid key unseal secret.pem --auth-file auth > secret",
            "Unseals data that another program sealed and wrote to a TSS2 file.",
        )],
        "devid-key-list" => &[(
            "devid key list",
            "Lists the keys of all tokens with a key folder.",
        )],
        "devid-key-delete" => &[(
            "devid key delete web --yes",
            "Deletes the key and its certificates permanently.",
        )],
        "devid-master" => &[(
            "devid master renew",
            "After the master key was evicted: lists the objects that are lost, and the objects that stay.",
        )],
        "devid-master-renew" => &[
            (
                "devid master renew",
                "After the master key was evicted: lists the objects that are lost. Changes nothing.",
            ),
            (
                "devid master renew --yes",
                "Makes a new master key. The device's identity stays.",
            ),
        ],
        "devid-csr" => &[
            (
                "devid csr web --out web.csr",
                "The request names the service, and does not name the device.",
            ),
            (
                "devid csr devid --out devid.csr",
                "The request names the device by its factory name.",
            ),
        ],
        "devid-attest" => &[
            (
                "devid attest web --nonce nonce.bin --out web.evidence",
                "Makes evidence for a CA that the key web is in this TPM.",
            ),
            (
                "devid attest idev-id --nonce 00112233445566778899aabbccddeeff",
                "Writes evidence for the factory key to standard output.",
            ),
        ],
        "devid-activate" => &[(
            "devid activate web.challenge --out web.response",
            "Answers the challenge of the CA. Send the response to the CA.",
        )],
        "devid-challenge" => &[
            (
                "devid challenge request.json --out response.json",
                "Answers the challenge of an enrollz service.",
            ),
            (
                "devid challenge request.json --transport-key transport.key",
                "Answers the challenge of a bootz server. The answer is bound to the transport key.",
            ),
        ],
        "devid-import-cert" => &[(
            "devid import-cert web.pem",
            "Stores the CA's certificate, and replaces the previous certificate.",
        )],
        "devid-enroll" => &[
            (
                "devid enroll web --est https://est.example --trust est-ca.pem --san web.example",
                "Requests a certificate for the key web, and makes the key if it is missing. devid logs in with the factory identity.",
            ),
            (
                "devid enroll web --est https://est.example --fingerprint HEX --wait 600",
                "Trusts the server if its CA certificate has that fingerprint, and waits if the server has not decided yet.",
            ),
        ],
        "devid-renew" => &[
            (
                "devid renew",
                "Renews the certificates of the configuration that are due. devid-renew.timer does this each hour.",
            ),
            (
                "devid renew web --rollback",
                "Restores the previous certificate, and the previous key if the key was replaced.",
            ),
        ],
        "devid-key-rekey" => &[
            (
                "devid key rekey web --out web.csr",
                "Makes a new key. The old key stays in use until a CA certifies the new key.",
            ),
            (
                "devid import-cert web.pem",
                "Stores the new certificate. The new key and certificate replace the old key and certificate.",
            ),
        ],
        "devid-export" => &[
            (
                "devid export web --tss2 --out web.tss2.pem",
                "Writes the wrapped key for tpm2-openssl and similar programs.",
            ),
            (
                "devid export web --tpm2-tools web.tpm",
                "Writes the files for tpm2_load. Prints the command with the key's parent.",
            ),
            (
                "devid export node --spire /etc/spire/devid",
                "Writes the files for SPIRE's tpm_devid plugin. Prints the settings of the plugin.",
            ),
        ],
        "devid-sign" => &[
            (
                "devid sign idev-id request.json --cms --content-type 1.2.840.113549.1.9.16.1.40",
                "Signs a voucher request for BRSKI (RFC 8995).",
            ),
            (
                "devid sign idev-id challenge --raw --out challenge.sig",
                "Makes a signature that openssl dgst -verify can check.",
            ),
        ],
        "devid-ca-nonce" => &[(
            "devid ca nonce --out nonce",
            "Makes a nonce for devid attest --nonce nonce.",
        )],
        "devid-ca-challenge" => &[(
            "devid ca challenge evidence.json --out challenge.json",
            "Makes a challenge for devid activate challenge.json.",
        )],
        "devid-ca-verify" => &[(
            "devid ca verify evidence.json --roots roots/",
            "Checks that the key is in a TPM of a trusted manufacturer.",
        )],
        "devid-ca-issue" => &[(
            "devid ca issue evidence.json --roots roots/ --ca-cert ca.pem --ca-key ca.key --out web.pem",
            "Checks the evidence, and issues a certificate for the key.",
        )],
        "devid-persist" => &[(
            "devid persist idev-id",
            "After TPM2_Clear: puts the factory key into its handle again.",
        )],
        "devid-uri" => &[
            (
                "devid uri idev-id --pem key.pem",
                "Writes a file for programs that read a key from a file: curl --key key.pem",
            ),
            (
                "devid uri idev-id --type cert",
                "Writes the URI of the certificate.",
            ),
        ],
        "devid-uri2pem" => &[(
            "devid uri2pem 'pkcs11:token=idev-id;type=private' > key.pem",
            "Writes a PEM file with the given URI.",
        )],
        "devid-completions" => &[(
            "devid completions bash > /etc/bash_completion.d/devid",
            "Writes the completions for bash.",
        )],
        _ => &[],
    }
}

/// devid-pkcs11(7): the page of the module, for users of other programs.
const MODULE: &str = include_str!("man/devid-pkcs11.7");

/// Writes devid(1), a page for each verb, devid-pkcs11(7) and devid-pkcs11.conf(5) into a folder.
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

/// Collects the names and texts of the pages of the verbs.
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

/// Writes the first example of each verb.
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
