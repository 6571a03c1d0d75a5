//! The verbs and their arguments.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// The identity of a device: shows it, verifies it, makes it, keeps it.
///
/// Exit codes: 0 ok, 1 failed, 2 usage, 3 cannot be verified because the CA certificate is not
/// available, 4 TPM not reachable, 5 not found, 6 refused.
#[derive(Parser)]
#[command(name = "devid", version, about)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Tells where the device's identity lives, and how its TPM does.
    Status(Form),
    /// Lists identities, own keys and certificates.
    List(Form),
    /// Shows an identity: the device it names, its certificate, where its key lives.
    Show {
        /// A label, a CKA_ID in hexadecimal digits, or token/label.
        label: String,
        #[command(flatten)]
        form: Form,
    },
    /// Verifies an identity: its key, its certificate, the chain to a trusted CA.
    Verify {
        /// As of show.
        label: String,
        /// Certificates that are trusted beside those in /etc/devid-pkcs11/trust/.
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
        #[command(flatten)]
        form: Form,
    },
    /// Gives the device an identity of its own, if it has none. For every start.
    Provision {
        /// Writes a request (PKCS#10) to this file, and makes no certificate.
        #[arg(long, value_name = "FILE")]
        csr: Option<PathBuf>,
        #[command(flatten)]
        how: How,
    },
    /// Erases the device's own identity and all its keys, and gives it a new one.
    ///
    /// The factory identity is not touched.
    Reset {
        /// Says that a factory reset is meant.
        #[arg(long, required = true)]
        factory: bool,
        /// Says that you know what is lost: every key of the token devid, for good.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        how: How,
    },
    /// Deletes the software key that was put aside when the device moved to its TPM.
    Prune,
    /// Writes the PKCS#11 URI of an object (RFC 7512).
    Uri {
        /// As of show.
        label: String,
        /// Writes it to this file as well, in the PEM form that programs take for a key file.
        #[arg(long, value_name = "FILE")]
        pem: Option<PathBuf>,
    },
    /// Writes a PKCS#11 URI as a PEM file, for programs that take a key as a file.
    Uri2pem {
        /// The URI, for example pkcs11:token=idev-id;object=idev-id;type=private
        uri: String,
    },
}

/// How an answer is written.
#[derive(Args, Clone, Copy)]
pub(crate) struct Form {
    /// Writes JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How an identity is made.
#[derive(Args)]
pub(crate) struct How {
    /// How many seconds a TPM that does not answer is waited for, if it matters.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) wait: u64,
    /// Whom the certificate names, as in CN=node,O=Example; by default whom the factory named.
    #[arg(long, value_name = "NAME")]
    pub(crate) subject: Option<String>,
    #[command(flatten)]
    pub(crate) form: Form,
}
