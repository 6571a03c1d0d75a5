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
    /// For a service: makes evidence for the key SERVICE in the token SERVICE. A separate
    /// attestation key, which a CA has certified, signs the evidence. The evidence contains no data
    /// of the device.
    #[arg(long = "for", value_name = "SERVICE", conflicts_with = "label")]
    pub(crate) service: Option<String>,
    /// Makes evidence for the CA that certifies the attestation key of a service. This evidence
    /// contains the endorsement key and all data that name the device. Send it to that CA only.
    #[arg(long)]
    pub(crate) to_ca: bool,
    /// A nonce from the CA, which proves that the evidence is fresh: hexadecimal digits, or a file.
    /// A nonce of more than 32 bytes is hashed with SHA-256.
    #[arg(long, value_name = "HEX|FILE", group = "qualifying")]
    pub(crate) nonce: Option<String>,
    /// The key authorization of an ACME challenge (device-attest-01). Its SHA-256 is the nonce.
    #[arg(long, value_name = "TOKEN.THUMBPRINT", group = "qualifying")]
    pub(crate) acme: Option<String>,
    /// Certificates of the endorsement key and of its CAs, DER or PEM. Needed if the TPM stores no
    /// such certificate. Can be given several times.
    #[arg(long, value_name = "FILE")]
    pub(crate) ek_cert: Vec<PathBuf>,
    /// A file of devid ca issue --attestation-key: the certificate of the attestation key, and the
    /// certificates of its CAs.
    #[arg(long, value_name = "FILE")]
    pub(crate) ak_cert: Option<PathBuf>,
    /// A file with the PIN of the key. Needed if the configuration has no PIN. A wrong PIN counts
    /// towards the TPM's lockout.
    #[arg(long, value_name = "FILE")]
    pub(crate) pin_file: Option<PathBuf>,
    /// The format of the evidence.
    #[arg(long, value_enum, default_value_t = FormArg::Json)]
    pub(crate) form: FormArg,
    #[command(flatten)]
    pub(crate) out: OutArgs,
}

impl AttestArgs {
    /// Returns the name of the key.
    pub(crate) fn name(&self) -> String {
        name_for(self.service.as_deref(), self.label.as_deref())
    }
}

/// Formats of evidence.
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
    /// Returns the format of another specification. Returns `None` for the JSON format of this
    /// project.
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

/// Arguments of `devid challenge`.
#[derive(Args)]
pub(crate) struct ChallengeArgs {
    /// The owner's message as JSON: HMACChallenge or ChallengeRequest of enrollz, or
    /// ChallengeRequestTPM20HMAC of bootz; - is standard input.
    pub(crate) challenge: PathBuf,
    /// A serialised TransportKey of bootz. The answer is bound to this key.
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
    /// Makes a challenge. Only the TPM of this evidence can answer the challenge, with devid
    /// activate. A challenge can be answered once.
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
    /// Verifies evidence: that the key of its request is in a certified TPM and never leaves the
    /// TPM.
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
        /// The lifetime of the certificate in days. The certificate never ends after the CA's
        /// certificate.
        #[arg(long, value_name = "DAYS", default_value_t = 365)]
        days: u32,
        /// The subject of the certificate, for example CN=web,O=Example. The default is the
        /// device's name in its factory certificate, or else the subject of the request.
        #[arg(long, value_name = "NAME", conflicts_with = "attestation_key")]
        subject: Option<String>,
        /// Certifies the attestation key, and not the key of the request. For verifiers that need
        /// such a certificate (ACME device-attest-01).
        #[arg(long)]
        attestation_key: bool,
        /// The name of the device in the attestation key's certificate (permanentIdentifier). By
        /// default the SHA-256 of the endorsement key's certificate.
        #[arg(long, value_name = "TEXT", requires = "attestation_key")]
        identifier: Option<String>,
        /// States that the attestation key belongs to this service. The device made the evidence
        /// with devid attest --to-ca. The certificate names the service, and contains no data of
        /// the device or its TPM.
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
    /// Trusted certificates of the TPM's manufacturer and of the device's manufacturer: a file, or
    /// a folder of files.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) roots: PathBuf,
    /// The nonce that the device used. Needed if devid ca nonce did not make the nonce.
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
