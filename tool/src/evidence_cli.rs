//! The arguments of `devid attest`, and the verbs of `devid ca`.

use crate::cli::{NAME, OutArgs, name_for};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use devid_core::evidence::EvidenceForm;
use devid_core::evidence::tcg_csr::TcgCsrForm;
use std::path::PathBuf;

/// What evidence is made of.
#[derive(Args)]
#[command(group(ArgGroup::new("qualifying")))]
pub(crate) struct AttestArgs {
    #[arg(help = NAME, required_unless_present = "service")]
    pub(crate) label: Option<String>,
    /// For a service: the key SERVICE in the token SERVICE. Its evidence is signed by an attestation key of
    /// its own, which a CA has certified, and says nothing of the device.
    #[arg(long = "for", value_name = "SERVICE", conflicts_with = "label")]
    pub(crate) service: Option<String>,
    /// For the CA that certifies the attestation key of a service: with the endorsement key and all that
    /// names the device. Nobody else should see it.
    #[arg(long)]
    pub(crate) to_ca: bool,
    /// What the CA chose, so that the evidence is fresh: hexadecimal digits, or a file. Of more than 32
    /// bytes the SHA-256 is taken.
    #[arg(long, value_name = "HEX|FILE", group = "qualifying")]
    pub(crate) nonce: Option<String>,
    /// The key authorization of an ACME challenge (device-attest-01): its SHA-256 is the nonce.
    #[arg(long, value_name = "TOKEN.THUMBPRINT", group = "qualifying")]
    pub(crate) acme: Option<String>,
    /// Certificates of the endorsement key and of its CAs, DER or PEM, for a TPM that holds none; may be
    /// given more than once.
    #[arg(long, value_name = "FILE")]
    pub(crate) ek_cert: Vec<PathBuf>,
    /// The certificate of the attestation key, and those of its CAs, as devid ca issue
    /// --attestation-key writes them.
    #[arg(long, value_name = "FILE")]
    pub(crate) ak_cert: Option<PathBuf>,
    /// A file with the PIN that the key asks for, if the configuration has none. A wrong one
    /// counts in the TPM.
    #[arg(long, value_name = "FILE")]
    pub(crate) pin_file: Option<PathBuf>,
    /// The form of the evidence.
    #[arg(long, value_enum, default_value_t = FormArg::Json)]
    pub(crate) form: FormArg,
    #[command(flatten)]
    pub(crate) out: OutArgs,
}

impl AttestArgs {
    /// The name of the key.
    pub(crate) fn name(&self) -> String {
        name_for(self.service.as_deref(), self.label.as_deref())
    }
}

/// Forms of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormArg {
    /// For devid ca.
    Json,
    /// TCG-CSR-IDEVID as OpenConfig's attestz reads it; its signature goes to FILE.sig.
    TcgCsr,
    /// TCG-CSR-IDEVID in an envelope, as Flight Control reads it.
    TcgCsrEnveloped,
    /// TCG-CSR-LDEVID.
    TcgCsrLdevid,
    /// The statement tpm of WebAuthn, as ACME's device-attest-01 has it.
    Webauthn,
}

impl FormArg {
    /// `None` for the form of this project.
    pub(crate) fn foreign(self) -> Option<EvidenceForm> {
        match self {
            Self::Json => None,
            Self::TcgCsr => Some(EvidenceForm::TcgCsr(TcgCsrForm::Detached)),
            Self::TcgCsrEnveloped => Some(EvidenceForm::TcgCsr(TcgCsrForm::Enveloped)),
            Self::TcgCsrLdevid => Some(EvidenceForm::TcgCsrLdevid),
            Self::Webauthn => Some(EvidenceForm::WebAuthn),
        }
    }
}

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
        /// The attestation key is that of a service, as devid attest --to-ca shows it: its certificate names
        /// the service, and nothing of the device or its TPM.
        #[arg(
            long = "for",
            value_name = "SERVICE",
            requires = "attestation_key",
            conflicts_with = "identifier"
        )]
        service: Option<String>,
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
