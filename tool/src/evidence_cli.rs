//! The arguments of `devid attest`, and the verbs of `devid ca`.

use crate::cli::{NAME, OutArgs, name_for};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use devid_core::evidence::EvidenceForm;
use devid_core::evidence::tcg_csr::TcgCsrForm;
use std::path::PathBuf;

/// Arguments of `devid attest`.
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
    /// A value from the CA, which proves that the evidence is fresh: hexadecimal digits, or a file.
    /// A value of more than 32 bytes is hashed with SHA-256.
    #[arg(long, value_name = "HEX|FILE", group = "qualifying")]
    pub(crate) nonce: Option<String>,
    /// The key authorization of an ACME challenge (device-attest-01). Its SHA-256 is the nonce.
    #[arg(long, value_name = "TOKEN.THUMBPRINT", group = "qualifying")]
    pub(crate) acme: Option<String>,
    /// Certificates of the endorsement key and of its CAs, DER or PEM, for a TPM that holds none.
    /// Can be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) ek_cert: Vec<PathBuf>,
    /// The certificate of the attestation key, and the certificates of its CAs, from devid ca issue
    /// --attestation-key.
    #[arg(long, value_name = "FILE")]
    pub(crate) ak_cert: Option<PathBuf>,
    /// A file with the PIN of the key, if the configuration has none. A wrong PIN counts towards
    /// the TPM's lockout.
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
    /// JSON, for devid ca.
    Json,
    /// TCG-CSR-IDEVID for OpenConfig's attestz. The signature goes to FILE.sig.
    TcgCsr,
    /// TCG-CSR-IDEVID in an envelope, for Flight Control.
    TcgCsrEnveloped,
    /// TCG-CSR-LDEVID.
    TcgCsrLdevid,
    /// The attestation statement tpm of WebAuthn, for ACME's device-attest-01.
    Webauthn,
}

impl FormArg {
    /// `None` for the JSON form of this project.
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

/// What is answered.
#[derive(Args)]
pub(crate) struct ChallengeArgs {
    /// The owner's message as JSON: HMACChallenge or ChallengeRequest of enrollz, or
    /// ChallengeRequestTPM20HMAC of bootz; - is standard input.
    pub(crate) challenge: PathBuf,
    /// A serialised TransportKey of bootz, which the answer is bound to.
    #[arg(long, value_name = "FILE")]
    pub(crate) transport_key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) out: OutArgs,
}

#[derive(Subcommand)]
pub(crate) enum CaVerb {
    /// Makes a nonce for devid attest, which proves that the evidence is fresh. A nonce works once.
    Nonce {
        #[command(flatten)]
        state: StateArgs,
        #[command(flatten)]
        lifetime: LifetimeArgs,
        #[command(flatten)]
        out: OutArgs,
    },
    /// Makes a challenge that only the TPM of this evidence can answer with devid activate. A
    /// challenge can be answered once.
    Challenge {
        /// The output file of devid attest.
        evidence: PathBuf,
        #[command(flatten)]
        state: StateArgs,
        #[command(flatten)]
        lifetime: LifetimeArgs,
        #[command(flatten)]
        out: OutArgs,
    },
    /// Verifies evidence: the key of its request is in a certified TPM and never leaves it.
    Verify {
        #[command(flatten)]
        how: VerifyArgs,
    },
    /// Verifies evidence. If it is valid, issues an LDevID certificate for its key.
    Issue {
        #[command(flatten)]
        how: VerifyArgs,
        /// The certificate of the CA. The certificates of its issuers may follow.
        #[arg(long, value_name = "FILE")]
        ca_cert: PathBuf,
        /// The CA's private key, PEM, not encrypted.
        #[arg(long, value_name = "FILE")]
        ca_key: PathBuf,
        /// The lifetime of the certificate in days. The certificate does not outlive that of the
        /// CA.
        #[arg(long, value_name = "DAYS", default_value_t = 365)]
        days: u32,
        /// The subject of the certificate, for example CN=web,O=Example. By default the device's
        /// name in its factory certificate, else the subject of the request.
        #[arg(long, value_name = "NAME", conflicts_with = "attestation_key")]
        subject: Option<String>,
        /// Certifies the attestation key instead, for verifiers that need such a certificate (ACME
        /// device-attest-01).
        #[arg(long)]
        attestation_key: bool,
        /// The name of the device in the attestation key's certificate (permanentIdentifier). By
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

/// The state of the CA.
#[derive(Args)]
pub(crate) struct StateArgs {
    /// The file with open challenges and nonces. No other user may be able to read the file.
    #[arg(long, value_name = "FILE", default_value = "devid-ca-state.json")]
    pub(crate) state: PathBuf,
}

/// The lifetime of a nonce or challenge.
#[derive(Args)]
pub(crate) struct LifetimeArgs {
    /// The lifetime in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = devid_core::evidence::LIFETIME)]
    pub(crate) valid_for: u64,
}

/// Arguments for the verification of evidence.
#[derive(Args)]
#[command(group(ArgGroup::new("freshness")))]
pub(crate) struct VerifyArgs {
    /// The output file of devid attest.
    pub(crate) evidence: PathBuf,
    /// Trusted certificates of the TPM's maker and of the device's maker: a file, or a folder of
    /// files.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) roots: PathBuf,
    /// The nonce that the device was given, if devid ca nonce did not make it.
    #[arg(long, value_name = "HEX|FILE", group = "freshness")]
    pub(crate) nonce: Option<String>,
    /// Accepts evidence that is not fresh.
    #[arg(long, group = "freshness")]
    pub(crate) allow_no_nonce: bool,
    /// The output file of devid activate. Without it, a certificate must bind the attestation key
    /// to a TPM.
    #[arg(long, value_name = "FILE")]
    pub(crate) response: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}
