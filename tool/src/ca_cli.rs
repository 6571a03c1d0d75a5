//! The verbs of `devid ca`, and their arguments.

use crate::cli::OutArgs;
use clap::{ArgGroup, Args, Subcommand};
use std::path::PathBuf;

#[derive(Subcommand)]
pub(crate) enum CaVerb {
    /// Makes a nonce for devid attest: evidence with it is fresh. It can be used once.
    Nonce {
        #[command(flatten)]
        state: StateArgs,
        #[command(flatten)]
        lifetime: LifetimeArgs,
        #[command(flatten)]
        out: OutArgs,
    },
    /// Makes a challenge that only the TPM of this evidence can answer, by devid activate. It can be
    /// answered once.
    Challenge {
        /// What devid attest wrote.
        evidence: PathBuf,
        #[command(flatten)]
        state: StateArgs,
        #[command(flatten)]
        lifetime: LifetimeArgs,
        #[command(flatten)]
        out: OutArgs,
    },
    /// Verifies evidence: that the key of its request is in a certified TPM, and never leaves it.
    Verify {
        #[command(flatten)]
        how: VerifyArgs,
    },
    /// Verifies evidence, and certifies its key if all is well (an LDevID certificate).
    Issue {
        #[command(flatten)]
        how: VerifyArgs,
        /// The CA's certificate; those of its own issuers may follow.
        #[arg(long, value_name = "FILE")]
        ca_cert: PathBuf,
        /// The CA's private key, PEM, not encrypted.
        #[arg(long, value_name = "FILE")]
        ca_key: PathBuf,
        /// For how many days the certificate is valid; the CA's own end ends it earlier.
        #[arg(long, value_name = "DAYS", default_value_t = 365)]
        days: u32,
        /// Whom the certificate names, as in CN=web,O=Example; by default the device as its factory
        /// named it, and without a factory's certificate whom the request names.
        #[arg(long, value_name = "NAME", conflicts_with = "attestation_key")]
        subject: Option<String>,
        /// Certifies the attestation key instead, for verifiers that want such a certificate (ACME
        /// device-attest-01).
        #[arg(long)]
        attestation_key: bool,
        /// What the attestation key's certificate names as the device (permanentIdentifier); by
        /// default the SHA-256 of the endorsement key's certificate.
        #[arg(long, value_name = "TEXT", requires = "attestation_key")]
        identifier: Option<String>,
        #[command(flatten)]
        out: OutArgs,
    },
}

/// Where the CA remembers.
#[derive(Args)]
pub(crate) struct StateArgs {
    /// Where open challenges and nonces are remembered; nobody else may read the file.
    #[arg(long, value_name = "FILE", default_value = "devid-ca-state.json")]
    pub(crate) state: PathBuf,
}

/// For how long.
#[derive(Args)]
pub(crate) struct LifetimeArgs {
    /// For how many seconds it can be used.
    #[arg(long, value_name = "SECONDS", default_value_t = devid_core::evidence::LIFETIME)]
    pub(crate) valid_for: u64,
}

/// How evidence is verified.
#[derive(Args)]
#[command(group(ArgGroup::new("freshness")))]
pub(crate) struct VerifyArgs {
    /// What devid attest wrote.
    pub(crate) evidence: PathBuf,
    /// Certificates that are trusted: of the TPM's maker, of the device's maker. A file, or a folder
    /// of files.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) roots: PathBuf,
    /// The nonce that the device was given, if devid ca nonce did not make it.
    #[arg(long, value_name = "HEX|FILE", group = "freshness")]
    pub(crate) nonce: Option<String>,
    /// Takes evidence that is not fresh.
    #[arg(long, group = "freshness")]
    pub(crate) allow_no_nonce: bool,
    /// What devid activate answered. Without it, a certificate must bind the attestation key to a TPM.
    #[arg(long, value_name = "FILE")]
    pub(crate) response: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}
