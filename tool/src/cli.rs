//! The verbs and their arguments.

mod certificates;

use crate::evidence_cli::{AttestArgs, CaVerb};
#[cfg(feature = "est")]
pub(crate) use certificates::EnrollArgs;
pub(crate) use certificates::{CsrArgs, OutformArg, RekeyArgs, RenewArgs, RequestArgs, name_for};
use clap::{ArgAction, ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use devid_core::config::RenewWithin;
use std::path::PathBuf;

/// How an object is named.
pub(crate) const NAME: &str =
    "A label, a CKA_ID in hexadecimal digits, token/label, or a PKCS#11 URI (RFC 7512)";

/// The identity of a device: shows it, verifies it, makes it, keeps it.
///
/// Exit codes: 0 ok, 1 failed, 2 usage, 3 cannot be verified because the CA certificate is not
/// available, 4 TPM not reachable, 5 not found, 6 refused, 7 not decided yet (devid enroll), 8 a
/// certificate ends soon (devid status --check).
#[derive(Parser)]
#[command(name = "devid", version, about)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes.
#[derive(Args)]
pub(crate) struct CommonArgs {
    /// Writes JSON: one document on standard output, of a failure too.
    #[arg(long, global = true, display_order = 90)]
    pub(crate) json: bool,
    /// Says on standard error what is done; -vv says more.
    #[arg(short, long, global = true, action = ArgAction::Count, display_order = 91)]
    pub(crate) verbose: u8,
    /// Says nothing but errors and what was asked for.
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        display_order = 92
    )]
    pub(crate) quiet: bool,
    /// Reads this file in the place of /etc/devid-pkcs11/config.toml; config.d/, chain/ and trust/ are
    /// looked for beside it.
    #[arg(long, global = true, value_name = "FILE", display_order = 93)]
    pub(crate) config: Option<PathBuf>,
}

/// Where a text goes.
#[derive(Args)]
pub(crate) struct OutArgs {
    /// Writes to this file; - is standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) force: ForceArgs,
}

/// Whether a file may be lost.
#[derive(Args)]
pub(crate) struct ForceArgs {
    /// Replaces the file even if it holds a private key, or something else than what is written.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Tells where the device's identity lives, and how its TPM does.
    Status(StatusArgs),
    /// Lists identities, own keys and certificates.
    List,
    /// Shows an identity: the device it names, its certificate, where its key lives.
    Show {
        #[arg(help = NAME, required_unless_present = "cert")]
        label: Option<String>,
        /// Shows the certificates of this file in its place: PEM, DER or PKCS#7; - is standard input.
        /// Needs no TPM.
        #[arg(long, value_name = "FILE", conflicts_with = "label")]
        cert: Option<PathBuf>,
        /// Shows the settings by which Keylime's agent finds the factory's keys instead.
        #[arg(long, conflicts_with = "cert")]
        keylime: bool,
        /// Writes the two certificates that Keylime's agent reads into this folder.
        #[arg(long, value_name = "DIR", requires = "keylime")]
        out: Option<PathBuf>,
    },
    /// Draws the device, its TPM, tokens, keys, certificates and their CAs as a tree. Works without TPM.
    Tree,
    /// Verifies an identity: its key, its certificate, the chain to a trusted CA.
    Verify {
        #[arg(help = NAME)]
        label: String,
        /// Certificates that are trusted beside those in /etc/devid-pkcs11/trust/.
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
        /// A list of revoked certificates (CRL), DER or PEM; may be given more than once. Without a
        /// list, revocation is not checked.
        #[arg(long, value_name = "FILE")]
        crl: Vec<PathBuf>,
        /// A file with the PIN that the key asks for, if the configuration has none. A wrong one
        /// counts in the TPM.
        #[arg(long, value_name = "FILE")]
        pin_file: Option<PathBuf>,
    },
    /// Looks for what is wrong, and says what mends it. Works without TPM, too.
    Doctor,
    /// Gives the device an identity of its own, if it has none. For every start.
    Provision {
        /// Writes a request (PKCS#10) to this file, and makes no certificate, at later starts neither: the key
        /// waits for the CA's answer. - is standard output.
        #[arg(long, value_name = "FILE")]
        csr: Option<PathBuf>,
        /// Makes the certificate anew, which no CA made. A software identity then moves to the TPM, if
        /// leave_software is "on-new-certificate". With --csr it moves when the CA's certificate comes.
        #[arg(long)]
        new_certificate: bool,
        #[command(flatten)]
        force: ForceArgs,
        #[command(flatten)]
        how: ProvisionArgs,
    },
    /// Erases the device's own identity and all its keys, and gives it a new one.
    ///
    /// The factory identity is not touched.
    Reset {
        /// Says that a factory reset is meant.
        #[arg(long, required = true)]
        factory: bool,
        /// Says that you know what is lost: all that is in the token devid, and what was made
        /// through further tokens, for good.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        how: ProvisionArgs,
    },
    /// Deletes what was put aside: the software key, when the device moved to its TPM; files of keys
    /// that went with a former master key.
    Prune,
    /// Makes, lists and deletes keys of services.
    #[command(subcommand)]
    Key(KeyVerb),
    /// For a CA: verifies evidence of devices, and certifies their keys. Needs no TPM.
    #[command(subcommand)]
    Ca(CaVerb),
    /// Looks after the key that wraps the device's own keys.
    #[command(subcommand)]
    Master(MasterVerb),
    /// Makes and removes tokens for services, whose users see their own keys alone.
    #[command(subcommand)]
    Token(TokenVerb),
    /// Writes a request for a certificate (PKCS#10).
    Csr(Box<CsrArgs>),
    /// Makes evidence for a CA that a key is in this device's TPM: one JSON document
    /// (docs/evidence.schema.json).
    Attest(Box<AttestArgs>),
    /// Answers a CA's challenge: proves that attestation key and endorsement key are in one TPM.
    Activate {
        /// What devid ca challenge or tpm2_makecredential wrote.
        challenge: PathBuf,
        #[command(flatten)]
        out: OutArgs,
    },
    /// Takes a certificate for a key, in the place of the one that it had.
    ImportCert {
        /// The certificate, perhaps with those of its issuers: PEM, DER, or PKCS#7 (DER, PEM or
        /// base64 alone); - is standard input. Several files only with --owner.
        #[arg(required = true)]
        file: Vec<PathBuf>,
        /// They are of the device's owner, for the factory's keys (oIDevID, oIAK), with those of their
        /// CAs. All of them are taken, or none.
        #[arg(long)]
        owner: bool,
    },
    /// Renews certificates that are due, as the tables certificate of the configuration say.
    Renew(RenewArgs),
    /// Asks a server for a certificate, by EST (RFC 7030).
    ///
    /// Without a key of that label one is made. The identity that is shown to the server is the one
    /// that is renewed, or else the factory's. Exit code 7: the server asks for patience; the same
    /// command goes on.
    #[cfg(feature = "est")]
    Enroll(Box<EnrollArgs>),
    /// Writes a key or its certificates in the form that other programs take.
    #[command(group(ArgGroup::new("what").required(true)))]
    Export {
        #[arg(help = NAME)]
        label: String,
        /// The key as PEM, TSS2 PRIVATE KEY: only this TPM can use it.
        #[arg(long, group = "what")]
        tss2: bool,
        /// The halves of the key for tpm2_load, key.pub and key.priv, into this folder; says what its parent
        /// is.
        #[arg(long, value_name = "DIR", group = "what", conflicts_with = "out")]
        tpm2_tools: Option<PathBuf>,
        /// What SPIRE's tpm_devid plugin reads, into this folder: devid.pub, devid.priv and
        /// devid.crt.pem. For a key made with --parent srk.
        #[arg(long, value_name = "DIR", group = "what", conflicts_with = "out")]
        spire: Option<PathBuf>,
        /// The certificate, PEM.
        #[arg(long, group = "what")]
        cert: bool,
        /// The certificates of the CAs above it, PEM, the issuer first.
        #[arg(long, group = "what")]
        chain: bool,
        /// The certificate, then those of the CAs above it, PEM.
        #[arg(long, group = "what")]
        fullchain: bool,
        #[command(flatten)]
        out: OutArgs,
    },
    /// Signs a file by a key, with its certificates, so that others can verify it.
    #[command(group(ArgGroup::new("message").required(true)))]
    Sign {
        #[arg(help = NAME)]
        label: String,
        /// The file; - is standard input.
        file: PathBuf,
        /// CMS SignedData, DER (RFC 5652): for BRSKI voucher requests (RFC 8995), and
        /// openssl cms -verify.
        #[arg(long, group = "message")]
        cms: bool,
        /// JWS in the general JSON serialisation (RFC 7515).
        #[arg(long, group = "message")]
        jws: bool,
        /// The signature alone, over the key's own hash of the file: for openssl dgst -verify.
        #[arg(long, group = "message")]
        raw: bool,
        /// The type of the content in CMS, as numbers with dots; id-data by default. A BRSKI voucher
        /// request has 1.2.840.113549.1.9.16.1.40 (id-ct-animaJSONVoucher).
        #[arg(long, value_name = "OID", conflicts_with_all = ["jws", "raw"])]
        content_type: Option<String>,
        /// The header parameter typ of JWS, for example voucher-jws+json.
        #[arg(long, value_name = "TYPE", conflicts_with_all = ["cms", "raw"])]
        typ: Option<String>,
        /// Leaves the file out of the message.
        #[arg(long, conflicts_with = "raw")]
        detached: bool,
        /// A file with the PIN that the key asks for, if the configuration has none. A wrong one
        /// counts in the TPM.
        #[arg(long, value_name = "FILE")]
        pin_file: Option<PathBuf>,
        #[command(flatten)]
        out: OutArgs,
    },
    /// Puts a key into a persistent handle again, such as the factory's after TPM2_Clear.
    Persist {
        #[arg(help = NAME)]
        label: String,
        /// Where a factory key goes; 0x81020000 by default.
        #[arg(long, value_name = "HANDLE", value_parser = handle)]
        handle: Option<u32>,
    },
    /// Writes the PKCS#11 URI of an object (RFC 7512).
    Uri {
        #[arg(help = NAME)]
        label: String,
        /// Of what; by default of the private key, and of the certificate where there is no key.
        #[arg(long = "type", value_enum, value_name = "TYPE")]
        class: Option<TypeArg>,
        /// Writes it to this file as well, in the PEM form that programs take for a key file; - writes
        /// that form to standard output, in its place.
        #[arg(long, value_name = "FILE")]
        pem: Option<PathBuf>,
        #[command(flatten)]
        force: ForceArgs,
    },
    /// Writes the manual pages, for those who package this.
    #[command(hide = true)]
    Man {
        /// The folder where they go.
        folder: PathBuf,
        #[command(flatten)]
        force: ForceArgs,
    },
    /// Writes completions for a shell.
    Completions {
        /// Which shell.
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

/// A class of objects, as RFC 7512 names it.
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
        /// What it is to be called.
        label: String,
        /// What kind of key.
        #[arg(long, value_enum, default_value_t = AlgorithmArg::P256)]
        algorithm: AlgorithmArg,
        /// It decrypts (RSA) or agrees on secrets (EC) as well.
        #[arg(long)]
        decrypts: bool,
        /// Keeps it in a persistent handle too, where it signs with one command.
        #[arg(long)]
        persistent: bool,
        /// Keeps it on disk encrypted under what the TPM sealed, and uses it in memory: fast, and
        /// as safe as the process that uses it.
        #[arg(long, conflicts_with = "persistent")]
        sealed: bool,
        /// Which key wraps it: the master key; or the storage root key that every program derives in the owner
        /// hierarchy, for programs that look for the key there (SPIRE).
        #[arg(
            long,
            value_enum,
            default_value_t = ParentArg::Master,
            conflicts_with_all = ["persistent", "sealed", "decrypts"]
        )]
        parent: ParentArg,
        /// The one scheme by which it signs. With --parent srk alone; by default that of the algorithm with
        /// SHA-256.
        #[arg(long, value_enum, requires = "parent")]
        scheme: Option<SchemeArg>,
    },
    /// Makes a new key in the place of another, and writes a request for it.
    ///
    /// The old key stays in use with its certificate until the new certificate comes, by devid
    /// import-cert or devid enroll; then both are exchanged at once, under the same label. As long as
    /// the new key waits, the command writes a request for it again. devid renew LABEL --rollback brings
    /// the old pair back.
    Rekey(Box<RekeyArgs>),
    /// Lists the keys of all tokens that have a key folder.
    List,
    /// Deletes a key and its certificates, for good.
    Delete {
        #[arg(help = NAME)]
        label: String,
        /// Says that you know what is lost.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum TokenVerb {
    /// Makes a token: a key folder that belongs to the service's user, and a file in config.d/ that names it.
    ///
    /// The same command again changes nothing, or ends what a killed run began.
    Add {
        /// The name of the service and of its token.
        name: String,
        /// The group of the folder.
        #[arg(long, value_name = "GROUP")]
        group: String,
        /// The user who runs the service and owns the folder; the one that is called as the group by default.
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// Takes the file in config.d/ away. The keys stay in their folder.
    Remove {
        /// The name of the service.
        name: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum MasterVerb {
    /// Begins a new master key where the old one was evicted, and keeps the device's identity.
    ///
    /// Refuses while the old one is in the TPM. Lists what is lost: files of lost keys are moved
    /// aside, not deleted. If another program took the handle, nothing of it is evicted: the new
    /// master key goes into another one, which a file in config.d/ then names.
    Renew {
        /// Says that you know what is lost.
        #[arg(long)]
        yes: bool,
    },
}

/// What wraps a key.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub(crate) enum ParentArg {
    Master,
    Srk,
}

/// A signature scheme that a key names.
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

/// What `devid status` is asked.
#[derive(Args)]
pub(crate) struct StatusArgs {
    /// For monitoring: tells what needs somebody, and ends with 0 (nothing), 8 (a certificate ends soon,
    /// or its renewal fails), 1 (something does not work) or 4 (TPM not reachable).
    #[arg(long)]
    pub(crate) check: bool,
    /// With --check: how long before its end a certificate counts as ending soon, as 14d, 12h, or a part
    /// of its life as 1/3.
    #[arg(long, value_name = "TIME", requires = "check", default_value = "14d")]
    pub(crate) expiring: RenewWithin,
    /// With --check: writes metrics to this file, in the text format of Prometheus (node_exporter's textfile
    /// collector reads files that end in .prom); - is standard output.
    #[arg(long, value_name = "FILE", requires = "check")]
    pub(crate) textfile: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) force: ForceArgs,
}

/// How an identity is made.
#[derive(Args)]
pub(crate) struct ProvisionArgs {
    /// How many seconds a TPM that does not answer is waited for, if it matters.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) wait: u64,
    /// Whom the certificate names, as in CN=node,O=Example; by default whom the configuration or the factory
    /// named. ${machine-id}, ${dmi.serial} and ${idev-id.serial} stand for values of this device.
    #[arg(long, value_name = "NAME")]
    pub(crate) subject: Option<String>,
}
