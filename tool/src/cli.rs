//! The verbs and their arguments.

mod certificates;

use crate::evidence_cli::{AttestArgs, CaVerb, ChallengeArgs};
use crate::sign::HashArg;
#[cfg(feature = "est")]
pub(crate) use certificates::EnrollArgs;
pub(crate) use certificates::{CsrArgs, OutformArg, RekeyArgs, RenewArgs, RequestArgs, name_for};
use clap::{ArgAction, ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use devid_core::config::RenewWithin;
use std::path::PathBuf;

/// The help text for the name of an object.
pub(crate) const NAME: &str =
    "A label, a CKA_ID in hexadecimal digits, token/label, or a PKCS#11 URI (RFC 7512)";

/// Shows, verifies, makes and maintains the identity of a device.
///
/// Exit codes: 0 ok, 1 failed, 2 usage, 3 CA certificate not available (devid verify), 4 TPM not
/// reachable, 5 not found, 6 refused, 7 not decided yet (devid enroll), 8 a certificate ends soon
/// (devid status --check).
#[derive(Parser)]
#[command(name = "devid", version, about)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options of every verb.
#[derive(Args)]
pub(crate) struct CommonArgs {
    /// Writes a JSON document to standard output, also after a failure.
    #[arg(long, global = true, display_order = 90)]
    pub(crate) json: bool,
    /// Shows the steps of the run on standard error. -vv shows more details.
    #[arg(short, long, global = true, action = ArgAction::Count, display_order = 91)]
    pub(crate) verbose: u8,
    /// Shows only errors and the requested output.
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        display_order = 92
    )]
    pub(crate) quiet: bool,
    /// Reads this file instead of /etc/devid-pkcs11/config.toml. The folders config.d/, chain/ and
    /// trust/ in the folder of this file are read too.
    #[arg(long, global = true, value_name = "FILE", display_order = 93)]
    pub(crate) config: Option<PathBuf>,
}

/// The destination of the output.
#[derive(Args)]
pub(crate) struct OutArgs {
    /// Writes the output to this file. - is standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) force: ForceArgs,
}

/// Options for existing files.
#[derive(Args)]
pub(crate) struct ForceArgs {
    /// Replaces the file even if it contains a private key, or data of another type.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Shows where the device's identity is stored, and the state of its TPM.
    Status(StatusArgs),
    /// Lists identities, own keys and certificates.
    List,
    /// Shows an identity: the device in its certificate, the certificate, and the location of its
    /// key.
    Show {
        #[arg(help = NAME, required_unless_present = "cert")]
        label: Option<String>,
        /// Shows the certificates in this file: PEM, DER or PKCS#7. - is standard input. Needs no
        /// TPM.
        #[arg(long, value_name = "FILE", conflicts_with = "label")]
        cert: Option<PathBuf>,
        /// Shows the settings that Keylime's agent needs to find the factory keys.
        #[arg(long, conflicts_with = "cert")]
        keylime: bool,
        /// Writes the two certificates for Keylime's agent into this folder.
        #[arg(long, value_name = "DIR", requires = "keylime")]
        out: Option<PathBuf>,
    },
    /// Shows the device, its TPM, tokens, keys, certificates and their CAs as a tree. Works without
    /// TPM.
    Tree,
    /// Verifies an identity: its key, its certificate, and the chain to a trusted CA.
    Verify {
        #[arg(help = NAME)]
        label: String,
        /// A file with certificates to trust, in addition to /etc/devid-pkcs11/trust/.
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
        /// A certificate revocation list (CRL), DER or PEM. Can be given several times. Without a
        /// CRL, revocation is not checked.
        #[arg(long, value_name = "FILE")]
        crl: Vec<PathBuf>,
        /// A file with the PIN of the key. Needed if the configuration has no PIN. A wrong PIN
        /// counts towards the TPM's lockout.
        #[arg(long, value_name = "FILE")]
        pin_file: Option<PathBuf>,
    },
    /// Finds problems, and names the command that solves each problem. Works without TPM.
    Doctor,
    /// Measures the TPM, and names the type of key that suits it.
    ///
    /// Makes keys for the measurement, and flushes them. Writes nothing to the TPM, needs no PIN,
    /// and counts nothing towards lockout. Other programs that use the TPM at the same time make
    /// the results slower.
    Bench,
    /// Makes the device's own identity if the device has none. Run this command at every start of
    /// the device.
    Provision {
        /// Writes a certificate request (PKCS#10) to this file, and makes no certificate, also at
        /// later starts. The key waits for the certificate of the CA. - is standard output.
        #[arg(long, value_name = "FILE")]
        csr: Option<PathBuf>,
        /// Makes a new self-signed certificate. If leave_software is "on-new-certificate", a
        /// software identity moves to the TPM at the same time. With --csr, the identity moves when
        /// the certificate of the CA is imported.
        #[arg(long)]
        new_certificate: bool,
        #[command(flatten)]
        force: ForceArgs,
        #[command(flatten)]
        how: ProvisionArgs,
    },
    /// Erases the device's own identity and all its keys, and makes a new identity.
    ///
    /// The factory identity does not change.
    Reset {
        /// Confirms that you want a factory reset.
        #[arg(long, required = true)]
        factory: bool,
        /// Confirms that you accept the loss: everything in the token devid, and all keys and
        /// objects made through further tokens. The loss is permanent.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        how: ProvisionArgs,
    },
    /// Deletes files that devid moved aside: the software key after a move to the TPM, and key
    /// files of an earlier master key.
    Prune,
    /// Makes, lists and deletes keys of services.
    #[command(subcommand)]
    Key(KeyVerb),
    /// For a CA: verifies evidence of devices, and certifies their keys. Needs no TPM.
    #[command(subcommand)]
    Ca(CaVerb),
    /// Manages the master key, which wraps the device's own keys.
    #[command(subcommand)]
    Master(MasterVerb),
    /// Makes and removes tokens for services. The user of a service sees only the keys of the
    /// service.
    #[command(subcommand)]
    Token(TokenVerb),
    /// Writes a request for a certificate (PKCS#10).
    Csr(Box<CsrArgs>),
    /// Makes evidence for a CA that a key is in this device's TPM: a JSON document
    /// (docs/evidence.schema.json).
    Attest(Box<AttestArgs>),
    /// Answers a CA's challenge. The answer proves that one TPM holds both the attestation key and
    /// the endorsement key.
    Activate {
        /// The output file of devid ca challenge or tpm2_makecredential.
        challenge: PathBuf,
        #[command(flatten)]
        out: OutArgs,
    },
    /// Answers an owner's HMAC challenge (OpenConfig enrollz and bootz). The answer proves that one
    /// TPM holds both the IAK and the endorsement key.
    Challenge(ChallengeArgs),
    /// Imports a certificate for a key. The certificate replaces the key's previous certificate.
    ImportCert {
        /// The certificate. The certificates of its issuers may follow. PEM, DER, or PKCS#7 (DER,
        /// PEM or bare base64). - is standard input. Only --owner takes several files.
        #[arg(required = true)]
        file: Vec<PathBuf>,
        /// Imports certificates that the device's owner issued for the factory keys (oIDevID,
        /// oIAK), and certificates of the owner's CAs. Imports all of them, or none.
        #[arg(long)]
        owner: bool,
    },
    /// Renews the certificates that are due. The tables "certificate" of the configuration name the
    /// certificates.
    Renew(RenewArgs),
    /// Requests a certificate from a server by EST (RFC 7030).
    ///
    /// If no key has the label, devid makes a key. devid logs in at the server with the identity to
    /// be renewed, or else with the factory identity. Exit code 7: the server has not decided yet;
    /// run the same command again.
    #[cfg(feature = "est")]
    Enroll(Box<EnrollArgs>),
    /// Writes a key or its certificates in a format of other programs.
    #[command(group(ArgGroup::new("what").required(true)))]
    Export {
        #[arg(help = NAME)]
        label: String,
        /// The key as PEM, TSS2 PRIVATE KEY. Only this TPM can use it.
        #[arg(long, group = "what")]
        tss2: bool,
        /// Writes the files key.pub and key.priv for tpm2_load into this folder. Shows the parent
        /// of the key.
        #[arg(long, value_name = "DIR", group = "what", conflicts_with = "out")]
        tpm2_tools: Option<PathBuf>,
        /// Writes devid.pub, devid.priv and devid.crt.pem for SPIRE's tpm_devid plugin into this
        /// folder. The key must have been made with --parent srk.
        #[arg(long, value_name = "DIR", group = "what", conflicts_with = "out")]
        spire: Option<PathBuf>,
        /// The certificate, PEM.
        #[arg(long, group = "what")]
        cert: bool,
        /// The CA certificates of the certificate, PEM, the issuer first.
        #[arg(long, group = "what")]
        chain: bool,
        /// The certificate, and then its CA certificates, PEM.
        #[arg(long, group = "what")]
        fullchain: bool,
        #[command(flatten)]
        out: OutArgs,
    },
    /// Signs a file with a key, and adds the key's certificates for the verifier.
    #[command(group(ArgGroup::new("message").required(true)))]
    Sign {
        #[arg(help = NAME)]
        label: String,
        /// The file to sign. - is standard input.
        file: PathBuf,
        /// CMS SignedData, DER (RFC 5652), for BRSKI voucher requests (RFC 8995) and openssl cms
        /// -verify.
        #[arg(long, group = "message")]
        cms: bool,
        /// JWS in the general JSON serialisation (RFC 7515).
        #[arg(long, group = "message")]
        jws: bool,
        /// The signature alone, for openssl dgst -verify and bootz servers.
        #[arg(long, group = "message")]
        raw: bool,
        /// The hash algorithm for --raw. By default the hash that belongs to the key. A bootz
        /// server expects the hash algorithm of the signature on the key's certificate.
        #[arg(long, value_enum, value_name = "HASH", conflicts_with_all = ["cms", "jws"])]
        hash: Option<HashArg>,
        /// The type of the content in CMS, an OID in dotted form. By default id-data. For a BRSKI
        /// voucher request: 1.2.840.113549.1.9.16.1.40 (id-ct-animaJSONVoucher).
        #[arg(long, value_name = "OID", conflicts_with_all = ["jws", "raw"])]
        content_type: Option<String>,
        /// The header parameter typ of JWS, for example voucher-jws+json.
        #[arg(long, value_name = "TYPE", conflicts_with_all = ["cms", "raw"])]
        typ: Option<String>,
        /// Makes a message that does not contain the file.
        #[arg(long, conflicts_with = "raw")]
        detached: bool,
        /// A file with the PIN of the key. Needed if the configuration has no PIN. A wrong PIN
        /// counts towards the TPM's lockout.
        #[arg(long, value_name = "FILE")]
        pin_file: Option<PathBuf>,
        #[command(flatten)]
        out: OutArgs,
    },
    /// Puts a key into a persistent handle again, for example the factory key after TPM2_Clear.
    Persist {
        #[arg(help = NAME)]
        label: String,
        /// The handle for a factory key. By default 0x81020000.
        #[arg(long, value_name = "HANDLE", value_parser = handle)]
        handle: Option<u32>,
    },
    /// Writes the PKCS#11 URI of an object (RFC 7512).
    Uri {
        #[arg(help = NAME)]
        label: String,
        /// The type of the object. The default is the private key, or the certificate if there is
        /// no private key.
        #[arg(long = "type", value_enum, value_name = "TYPE")]
        class: Option<TypeArg>,
        /// Also writes the URI to this file, in the PEM format that programs accept as a key file.
        /// If FILE is -, only the PEM text is written to standard output.
        #[arg(long, value_name = "FILE")]
        pem: Option<PathBuf>,
        #[command(flatten)]
        force: ForceArgs,
    },
    /// Writes the manual pages, for packagers.
    #[command(hide = true)]
    Man {
        /// The folder for the pages.
        folder: PathBuf,
        #[command(flatten)]
        force: ForceArgs,
    },
    /// Writes completions for a shell.
    Completions {
        /// The shell that will read the completions.
        shell: Shell,
    },
    /// Writes a PKCS#11 URI as a PEM file, for programs that take a key as a file.
    Uri2pem {
        /// The URI, for example pkcs11:token=idev-id;object=idev-id;type=private
        uri: String,
        #[command(flatten)]
        out: OutArgs,
    },
}

/// A class of objects by RFC 7512.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub(crate) enum TypeArg {
    Private,
    Public,
    Cert,
    SecretKey,
}

#[derive(Subcommand)]
pub(crate) enum KeyVerb {
    /// Makes a key in the TPM.
    Generate {
        /// The label of the key.
        label: String,
        /// The algorithm of the key.
        #[arg(long, value_enum, default_value_t = AlgorithmArg::P256)]
        algorithm: AlgorithmArg,
        /// The key also decrypts (RSA) or agrees on secrets (EC).
        #[arg(long)]
        decrypts: bool,
        /// Also puts the key into a persistent handle. A signature then needs only one TPM command.
        #[arg(long)]
        persistent: bool,
        /// Stores the key on disk, encrypted under a secret that the TPM seals, and uses the key in
        /// memory. Such a key is fast, but only as safe as the process that uses it.
        #[arg(long, conflicts_with = "persistent")]
        sealed: bool,
        /// The key that wraps the new key: the master key, or the storage root key of the owner
        /// hierarchy. Some programs accept only keys below the storage root key (SPIRE).
        #[arg(
            long,
            value_enum,
            default_value_t = ParentArg::Master,
            conflicts_with_all = ["persistent", "sealed", "decrypts"]
        )]
        parent: ParentArg,
        /// The only signature scheme of the key. Needs --parent srk. The default is the scheme of
        /// the algorithm with SHA-256.
        #[arg(long, value_enum, requires = "parent")]
        scheme: Option<SchemeArg>,
    },
    /// Makes a new key that will replace a key, and writes a certificate request for the new key.
    ///
    /// The old key and its certificate stay in use until devid import-cert or devid enroll stores
    /// the new certificate. Then the new pair replaces the old pair under the same label. While the
    /// new key waits, a further run writes the request again. devid renew LABEL --rollback restores
    /// the old pair.
    Rekey(Box<RekeyArgs>),
    /// Imports a key that another program made in this TPM, or a certificate of that program.
    ///
    /// The key keeps its parent in the TPM. In the token the key gets a new authorisation value,
    /// which the token's PIN protects. The token must have a PIN. The given file is not changed,
    /// and the key in that file keeps its old authorisation value. The lines above the PEM block
    /// (Label:, ID:) give the label and the CKA_ID of the object.
    Import {
        /// The file with the object: TSS2 PRIVATE KEY or CERTIFICATE, PEM.
        file: PathBuf,
        /// The token that stores the object.
        #[arg(long, value_name = "TOKEN", default_value = "devid")]
        token: String,
        /// A file with the current authorisation value of the key. - is standard input. Without
        /// this option the value is empty. A wrong value counts towards the TPM's lockout.
        #[arg(long, value_name = "FILE")]
        auth_file: Option<PathBuf>,
        /// A file with the user PIN of the token. Needed if the configuration has no PIN. A wrong
        /// PIN counts towards the TPM's lockout.
        #[arg(long, value_name = "FILE")]
        pin_file: Option<PathBuf>,
    },
    /// Unseals data that another program sealed in this TPM, and writes the data to standard
    /// output.
    Unseal {
        /// The file with the sealed data: TSS2, PEM.
        file: PathBuf,
        /// A file with the authorisation value of the data. - is standard input. Without this
        /// option the value is empty. A wrong value counts towards the TPM's lockout.
        #[arg(long, value_name = "FILE")]
        auth_file: Option<PathBuf>,
    },
    /// Lists the keys of all tokens with a key folder.
    List,
    /// Deletes a key and its certificates permanently.
    Delete {
        #[arg(help = NAME)]
        label: String,
        /// Confirms that you accept the loss.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum TokenVerb {
    /// Makes a token: a key folder for the user of the service, and a file in config.d/ that names
    /// the folder.
    ///
    /// A further run of the command changes nothing, or completes an interrupted run.
    Add {
        /// The name of the service and of its token.
        name: String,
        /// The group that owns the folder.
        #[arg(long, value_name = "GROUP")]
        group: String,
        /// The user who runs the service and owns the folder. The default is the user whose name is
        /// the name of the group.
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// Deletes the token's file in config.d/. The keys stay in their folder.
    Remove {
        /// The name of the service.
        name: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum MasterVerb {
    /// Makes a new master key after the old one was evicted, and keeps the device's identity.
    ///
    /// Is refused while the old master key is in the TPM. Lists the lost objects. The files of lost
    /// keys are moved aside, not deleted. If another program put a key into the handle of the old
    /// master key, that key stays. The new master key then gets another handle, which a file in
    /// config.d/ names.
    Renew {
        /// Confirms that you accept the loss.
        #[arg(long)]
        yes: bool,
    },
}

/// The parent of a new key.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub(crate) enum ParentArg {
    Master,
    Srk,
}

/// The signature scheme of a key.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub(crate) enum SchemeArg {
    EcdsaSha256,
    RsassaSha256,
}

#[derive(Clone, Copy, ValueEnum)]
#[allow(missing_docs)]
pub(crate) enum AlgorithmArg {
    P256,
    P384,
    P521,
    Rsa2048,
    Rsa3072,
    Rsa4096,
}

fn handle(text: &str) -> Result<u32, String> {
    let digits = text
        .strip_prefix("0x")
        .ok_or("expected 0x and hexadecimal digits")?;
    match u32::from_str_radix(digits, 16) {
        Ok(handle) if handle >> 24 == 0x81 => Ok(handle),
        _ => Err("expected a handle from 0x81000000 to 0x81FFFFFF".into()),
    }
}

/// The format of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputFormat {
    Text,
    Json,
}

/// Arguments of `devid status`.
#[derive(Args)]
pub(crate) struct StatusArgs {
    /// For monitoring: lists problems. Exit code 0: no problem; 8: a certificate ends soon or its
    /// renewal fails; 1: a failure; 4: TPM not reachable.
    #[arg(long)]
    pub(crate) check: bool,
    /// With --check: the time before the end of a certificate at which the certificate counts as
    /// ending soon. A time such as 14d or 12h, or a part of the validity such as 1/3.
    #[arg(long, value_name = "TIME", requires = "check", default_value = "14d")]
    pub(crate) expiring: RenewWithin,
    /// With --check: writes metrics to this file, in the text format of Prometheus. The textfile
    /// collector of node_exporter reads files that end in .prom. - is standard output.
    #[arg(long, value_name = "FILE", requires = "check")]
    pub(crate) textfile: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) force: ForceArgs,
}

/// Arguments of `devid provision` and `devid reset`.
#[derive(Args)]
pub(crate) struct ProvisionArgs {
    /// The time in seconds to wait for a TPM that does not answer. devid waits only if the answer
    /// would change the result.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) wait: u64,
    /// The subject of the certificate, for example CN=node,O=Example. By default the subject of the
    /// configuration or of the factory certificate. ${machine-id}, ${dmi.serial} and
    /// ${idev-id.serial} are replaced by values of this device.
    #[arg(long, value_name = "NAME")]
    pub(crate) subject: Option<String>,
}
