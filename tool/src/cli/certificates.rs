//! Arguments of the verbs for certificates.

use super::{AlgorithmArg, NAME, OutArgs};
#[cfg(feature = "est")]
use clap::ArgGroup;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Of whom a certificate is asked, and how.
#[cfg(feature = "est")]
#[derive(Args)]
#[command(group(ArgGroup::new("whom").required(true)))]
pub(crate) struct EnrollArgs {
    #[arg(help = NAME, required_unless_present = "service")]
    pub(crate) label: Option<String>,
    /// For a service: the key SERVICE in the token SERVICE, which devid token add makes. The certificate
    /// names the service, and has nothing in common with that of another service but what the CA adds.
    #[arg(long = "for", value_name = "SERVICE", conflicts_with = "label")]
    pub(crate) service: Option<String>,
    /// The server, as `https://est.example:8443`; without a path /.well-known/est is meant.
    #[arg(long, value_name = "URL")]
    pub(crate) est: String,
    /// The identity that is shown to the server.
    #[arg(long = "as", value_name = "LABEL")]
    pub(crate) as_identity: Option<String>,
    /// A file with the certificates of CAs that vouch for the server, or with the server's own.
    #[arg(long, value_name = "FILE", group = "whom")]
    pub(crate) trust: Option<PathBuf>,
    /// The SHA-256 of a certificate of the server's CAs, in hexadecimal digits: the server is asked
    /// for them, and believed if one has it.
    #[arg(long, value_name = "HEX", group = "whom")]
    pub(crate) fingerprint: Option<String>,
    #[command(flatten)]
    pub(crate) content: RequestArgs,
    /// What kind of key is made, if there is none; what the server wants, or P-256.
    #[arg(long, value_enum)]
    pub(crate) algorithm: Option<AlgorithmArg>,
    /// Makes a new key for the label; it takes the place of the old one together with the
    /// certificate.
    #[arg(long)]
    pub(crate) new_key: bool,
    /// The name that goes with the password.
    #[arg(long, value_name = "NAME", requires = "password_file")]
    pub(crate) user: Option<String>,
    /// A file with a password, for a server that asks for one.
    #[arg(long, value_name = "FILE", requires = "user")]
    pub(crate) password_file: Option<PathBuf>,
    /// A file with the PIN that a key asks for, if the configuration has none. A wrong one counts in
    /// the TPM.
    #[arg(long, value_name = "FILE")]
    pub(crate) pin_file: Option<PathBuf>,
    /// How many seconds one request to the server may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
    /// How many seconds a server is waited for that asks for patience.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) wait: u64,
}

#[cfg(feature = "est")]
impl EnrollArgs {
    /// The name of the key.
    pub(crate) fn name(&self) -> String {
        name_for(self.service.as_deref(), self.label.as_deref())
    }
}

/// The name of a service's key, or of the one with this label.
pub(crate) fn name_for(service: Option<&str>, label: Option<&str>) -> String {
    match (service, label) {
        (Some(service), _) => format!("{service}/{service}"),
        (None, label) => label.unwrap_or_default().into(),
    }
}

/// What a request for a certificate asks for.
#[derive(Args, Debug, Default)]
pub(crate) struct RequestArgs {
    /// Whom it is to name, as in CN=web,O=Example; by default the device's own identity names
    /// the device as the factory did, and a service's key its label.
    #[arg(long, value_name = "NAME")]
    pub(crate) subject: Option<String>,
    /// A further name (subjectAltName): dns:HOST, ip:ADDRESS, email:ADDRESS, uri:URI, rid:OID,
    /// dirname:NAME, upn:NAME; may be given more than once.
    #[arg(long, value_name = "NAME")]
    pub(crate) san: Vec<String>,
    /// A purpose of the key (extendedKeyUsage), as serverAuth, clientAuth or an OID; may be given
    /// more than once.
    #[arg(long, value_name = "PURPOSE")]
    pub(crate) eku: Vec<String>,
    /// A use of the key (keyUsage), digitalSignature if none is given; may be given more than once.
    #[arg(long, value_name = "USE")]
    pub(crate) key_usage: Vec<String>,
}

/// A request for a certificate.
#[derive(Args)]
pub(crate) struct CsrArgs {
    #[arg(help = NAME)]
    pub(crate) label: String,
    #[command(flatten)]
    pub(crate) content: RequestArgs,
    /// Puts into the request what the TPM certifies of the key (draft-ietf-lamps-csr-attestation; a
    /// draft, which may change).
    #[arg(long)]
    pub(crate) attest: bool,
    /// What the CA chose, so that the evidence is fresh: hexadecimal digits, or a file.
    #[arg(long, value_name = "HEX|FILE", requires = "attest")]
    pub(crate) nonce: Option<String>,
    /// A file with the PIN that the key asks for, if the configuration has none. A wrong one
    /// counts in the TPM.
    #[arg(long, value_name = "FILE")]
    pub(crate) pin_file: Option<PathBuf>,
    /// The form of the request.
    #[arg(long, value_enum, default_value_t = OutformArg::Pem)]
    pub(crate) outform: OutformArg,
    #[command(flatten)]
    pub(crate) out: OutArgs,
}

/// The form of a request.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub(crate) enum OutformArg {
    Pem,
    Der,
}

/// How a key is replaced.
#[derive(Args)]
pub(crate) struct RekeyArgs {
    #[arg(help = NAME)]
    pub(crate) label: String,
    /// What kind of key; by default as the old one is.
    #[arg(long, value_enum)]
    pub(crate) algorithm: Option<AlgorithmArg>,
    /// Gives the new key up that waits for its certificate.
    #[arg(long)]
    pub(crate) discard: bool,
    #[command(flatten)]
    pub(crate) content: RequestArgs,
    /// A file with the PIN that the key asks for, if the configuration has none. A wrong one
    /// counts in the TPM.
    #[arg(long, value_name = "FILE")]
    pub(crate) pin_file: Option<PathBuf>,
    /// The form of the request.
    #[arg(long, value_enum, default_value_t = OutformArg::Pem)]
    pub(crate) outform: OutformArg,
    #[command(flatten)]
    pub(crate) out: OutArgs,
}

/// Which certificates are renewed, or brought back.
#[derive(Args)]
pub(crate) struct RenewArgs {
    /// The one of this label alone, whether it failed before or not; by default all that the
    /// configuration names.
    pub(crate) label: Option<String>,
    /// How long before its end a certificate is renewed, in the place of what the configuration says:
    /// a part of its life, as 1/3, or a time, as 30d.
    #[arg(long, value_name = "PART")]
    pub(crate) within: Option<String>,
    /// Brings back the certificate that the key had before, and the key if that was another one. What
    /// is in use now is kept in its place, so that the same command goes forth again.
    #[arg(long, requires = "label")]
    pub(crate) rollback: bool,
}
