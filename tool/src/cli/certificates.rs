//! Arguments of the verbs for certificates.

use super::{AlgorithmArg, NAME, OutArgs};
#[cfg(feature = "est")]
use clap::ArgGroup;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Arguments of `devid enroll`.
#[cfg(feature = "est")]
#[derive(Args)]
#[command(group(ArgGroup::new("whom").required(true)))]
pub(crate) struct EnrollArgs {
    #[arg(help = NAME, required_unless_present = "service")]
    pub(crate) label: Option<String>,
    /// For a service: uses the key SERVICE in the token SERVICE, which devid token add makes. The
    /// certificate names the service. The certificate has no data in common with certificates of
    /// other services, except data that the CA adds.
    #[arg(long = "for", value_name = "SERVICE", conflicts_with = "label")]
    pub(crate) service: Option<String>,
    /// The server, for example `https://est.example:8443`. The default path is /.well-known/est.
    #[arg(long, value_name = "URL")]
    pub(crate) est: String,
    /// The identity that logs in at the server.
    #[arg(long = "as", value_name = "LABEL")]
    pub(crate) as_identity: Option<String>,
    /// A file with CA certificates that verify the server's certificate, or with the server's own
    /// certificate.
    #[arg(long, value_name = "FILE", group = "whom")]
    pub(crate) trust: Option<PathBuf>,
    /// The SHA-256 of a CA certificate of the server, in hexadecimal digits. devid fetches the
    /// server's CA certificates. devid trusts these certificates if one of them has this SHA-256.
    #[arg(long, value_name = "HEX", group = "whom")]
    pub(crate) fingerprint: Option<String>,
    #[command(flatten)]
    pub(crate) content: RequestArgs,
    /// The algorithm of a new key. The default is the algorithm that the server requires, or else
    /// P-256.
    #[arg(long, value_enum)]
    pub(crate) algorithm: Option<AlgorithmArg>,
    /// Makes a new key for the label. The new key and its certificate replace the old key and its
    /// certificate at the same time.
    #[arg(long)]
    pub(crate) new_key: bool,
    /// The user name for the password.
    #[arg(long, value_name = "NAME", requires = "password_file")]
    pub(crate) user: Option<String>,
    /// A file with the password, for a server that requires a password.
    #[arg(long, value_name = "FILE", requires = "user")]
    pub(crate) password_file: Option<PathBuf>,
    /// A file with the PIN of the key. Needed if the configuration has no PIN. A wrong PIN counts
    /// towards the TPM's lockout.
    #[arg(long, value_name = "FILE")]
    pub(crate) pin_file: Option<PathBuf>,
    /// The time limit of one request to the server, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
    /// The time in seconds to wait for a server that has not decided yet.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) wait: u64,
}

#[cfg(feature = "est")]
impl EnrollArgs {
    /// Returns the name of the key.
    pub(crate) fn name(&self) -> String {
        name_for(self.service.as_deref(), self.label.as_deref())
    }
}

/// Returns the name of a service's key. Without a service, returns the label.
pub(crate) fn name_for(service: Option<&str>, label: Option<&str>) -> String {
    match (service, label) {
        (Some(service), _) => format!("{service}/{service}"),
        (None, label) => label.unwrap_or_default().into(),
    }
}

/// The content of a request for a certificate.
#[derive(Args, Debug, Default)]
pub(crate) struct RequestArgs {
    /// The subject, for example CN=web,O=Example. The default for the device's own identity is the
    /// name of the device in its factory certificate. The default for a key of a service is the
    /// label.
    #[arg(long, value_name = "NAME")]
    pub(crate) subject: Option<String>,
    /// A further name (subjectAltName): dns:HOST, ip:ADDRESS, email:ADDRESS, uri:URI, rid:OID,
    /// dirname:NAME, upn:NAME. Can be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) san: Vec<String>,
    /// A purpose of the key (extendedKeyUsage): serverAuth, clientAuth or an OID. Can be given
    /// several times.
    #[arg(long, value_name = "PURPOSE")]
    pub(crate) eku: Vec<String>,
    /// A use of the key (keyUsage). By default digitalSignature. Can be given several times.
    #[arg(long, value_name = "USE")]
    pub(crate) key_usage: Vec<String>,
}

/// Arguments of `devid csr`.
#[derive(Args)]
pub(crate) struct CsrArgs {
    #[arg(help = NAME)]
    pub(crate) label: String,
    #[command(flatten)]
    pub(crate) content: RequestArgs,
    /// Adds the TPM's certification of the key to the request (draft-ietf-lamps-csr-attestation).
    /// The draft may still change.
    #[arg(long)]
    pub(crate) attest: bool,
    /// A nonce from the CA, which proves that the evidence is fresh: hexadecimal digits, or a file.
    #[arg(long, value_name = "HEX|FILE", requires = "attest")]
    pub(crate) nonce: Option<String>,
    /// A file with the PIN of the key. Needed if the configuration has no PIN. A wrong PIN counts
    /// towards the TPM's lockout.
    #[arg(long, value_name = "FILE")]
    pub(crate) pin_file: Option<PathBuf>,
    /// The format of the request.
    #[arg(long, value_enum, default_value_t = OutformArg::Pem)]
    pub(crate) outform: OutformArg,
    #[command(flatten)]
    pub(crate) out: OutArgs,
}

/// The format of a request.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub(crate) enum OutformArg {
    Pem,
    Der,
}

/// Arguments of `devid key rekey`.
#[derive(Args)]
pub(crate) struct RekeyArgs {
    #[arg(help = NAME)]
    pub(crate) label: String,
    /// The algorithm of the new key. The default is the algorithm of the old key.
    #[arg(long, value_enum)]
    pub(crate) algorithm: Option<AlgorithmArg>,
    /// Deletes the new key that still waits for its certificate.
    #[arg(long)]
    pub(crate) discard: bool,
    #[command(flatten)]
    pub(crate) content: RequestArgs,
    /// A file with the PIN of the key. Needed if the configuration has no PIN. A wrong PIN counts
    /// towards the TPM's lockout.
    #[arg(long, value_name = "FILE")]
    pub(crate) pin_file: Option<PathBuf>,
    /// The format of the request.
    #[arg(long, value_enum, default_value_t = OutformArg::Pem)]
    pub(crate) outform: OutformArg,
    #[command(flatten)]
    pub(crate) out: OutArgs,
}

/// Arguments of `devid renew`.
#[derive(Args)]
pub(crate) struct RenewArgs {
    /// Renews only the certificate of this label, even after a recent failure. The default is all
    /// certificates that the configuration names.
    pub(crate) label: Option<String>,
    /// Renews a certificate at this time before its end: a part of its validity such as 1/3, or a
    /// time such as 30d. Overrides the value of the configuration.
    #[arg(long, value_name = "PART")]
    pub(crate) within: Option<String>,
    /// Restores the previous certificate of the key, and the previous key if the key was replaced.
    /// The current key and certificate are kept, so a second run of the command restores them.
    #[arg(long, requires = "label")]
    pub(crate) rollback: bool,
}
