//! The verbs and their arguments.

use clap::{Args, Parser, Subcommand, ValueEnum};
use devid_core::config::SecretSource;
use devid_core::identity::{IdentityError, IdentityErrorKind};
use devid_core::manufacture::{KeyPlace, KeyTemplate, Product, TEMPLATES};
use devid_core::tpm::{KeyAlgorithm, NvHierarchy, UniqueLabel};
use std::path::PathBuf;
use std::str::FromStr;

/// Writes the factory identity (IDevID, IAK) into a TPM 2.0: keys from the TCG's templates,
/// requests for certificates, and the certificates in NV indices.
///
/// Each verb checks the state of the TPM first. A verb can therefore run again at any time, even
/// after a killed run. No verb undefines or overwrites an NV index, or evicts a key from its
/// handle. A TPM with another identity is refused.
///
/// Exit codes: 0 ok, 1 failed or wrong, 2 usage, 4 TPM not reachable, 5 not found, 6 refused.
#[derive(Parser)]
#[command(name = "devid-manufacture", version, about)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options of every verb.
#[derive(Args)]
pub(crate) struct CommonArgs {
    /// The TPM in the TCTI notation of tpm2-tss (default: the settings of devid-pkcs11).
    #[arg(long, global = true)]
    pub(crate) tcti: Option<String>,
    /// The source of the owner hierarchy's authorisation value: file:/PATH, credential:NAME or
    /// hex:DIGITS (default: owner_auth in the settings of devid-pkcs11, else empty).
    #[arg(long, global = true, value_name = "SOURCE")]
    pub(crate) owner_auth: Option<SecretSource>,
    /// The source of the platform hierarchy's authorisation value (default: empty).
    #[arg(long, global = true, value_name = "SOURCE")]
    pub(crate) platform_auth: Option<SecretSource>,
    /// Makes no IAK.
    #[arg(long, global = true)]
    pub(crate) no_iak: bool,
    /// The persistent handle of the IDevID key.
    #[arg(
        long,
        global = true,
        value_name = "HANDLE",
        default_value = "0x81020000"
    )]
    pub(crate) idevid_handle: Number,
    /// The persistent handle of the IAK.
    #[arg(
        long,
        global = true,
        value_name = "HANDLE",
        default_value = "0x81020001"
    )]
    pub(crate) iak_handle: Number,
    /// The NV index of the IDevID certificate.
    #[arg(
        long,
        global = true,
        value_name = "INDEX",
        default_value = "0x01C90200"
    )]
    pub(crate) idevid_nv: Number,
    /// The NV index of the IAK certificate.
    #[arg(
        long,
        global = true,
        value_name = "INDEX",
        default_value = "0x01C90100"
    )]
    pub(crate) iak_nv: Number,
    /// Writes JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Makes the keys from their templates and puts them into persistent handles. Needs the owner
    /// hierarchy's authorisation value. TPM2_Clear empties the handles. A further run then makes
    /// equal keys again.
    Keys(KeysArgs),
    /// Writes requests for the certificates: idevid.csr (PKCS#10), idevid.tcg-csr with its
    /// signature (TCG-CSR-IDEVID), evidence.json, and the public keys. Needs no authorisation
    /// value.
    Csr {
        #[command(flatten)]
        product: ProductArgs,
        /// The folder for the files.
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
        /// Replaces existing files even if they hold other data.
        #[arg(long)]
        force: bool,
    },
    /// Checks the certificates, writes them to NV, reads them back and locks the NV indices. Needs
    /// the authorisation value of the hierarchy that --by names.
    Install(InstallArgs),
    /// Checks the keys and the certificates. Each key makes a test signature. Writes nothing.
    Verify {
        /// The device's serial number. The certificates must contain this number.
        #[arg(long)]
        serial: Option<String>,
        /// The device's model. The certificates must contain this model. Without this option they
        /// must contain no model.
        #[arg(long, requires = "serial")]
        model: Option<String>,
        /// The CA certificate that must have signed both certificates.
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
    },
    /// Writes the record of the device: a JSON object on one line.
    Record {
        /// Appends the line to this file, unless the file already has the line.
        #[arg(long, value_name = "FILE")]
        append: Option<PathBuf>,
    },
    /// Writes the manual page.
    Man,
}

#[derive(Args)]
pub(crate) struct KeysArgs {
    /// The template of the IDevID key: h1 (RSA-2048), h2 (P-256), h3 (P-384), h4 (P-521), rsa3072, rsa4096.
    #[arg(long, default_value = "h2")]
    template: TemplateArg,
    /// The template of the IAK (default: the template of the IDevID key).
    #[arg(long, value_name = "TEMPLATE")]
    iak_template: Option<TemplateArg>,
    /// The position of the label in an ECC template: both coordinates, x alone (as swtpm_setup), or
    /// split between x and y. Each position gives another key.
    #[arg(long, default_value = "both")]
    unique: UniqueArg,
    /// Shows the steps, and writes nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    pub(crate) product: ProductArgs,
    /// The IDevID certificate, PEM or DER.
    #[arg(long = "idevid-cert", value_name = "FILE")]
    pub(crate) idevid: PathBuf,
    /// The IAK certificate, PEM or DER.
    #[arg(long = "iak-cert", value_name = "FILE")]
    pub(crate) iak: Option<PathBuf>,
    /// The certificate of the CA that issued the certificates. This certificate is written to NV
    /// too.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The NV index of the CA certificate.
    #[arg(long, value_name = "INDEX", default_value = "0x01C90201")]
    pub(crate) ca_nv: Number,
    /// The hierarchy that owns the NV indices. platform: TPM2_Clear keeps the indices, and the
    /// firmware closes the hierarchy before an operating system starts. owner: TPM2_Clear deletes
    /// the indices.
    #[arg(long)]
    pub(crate) by: HierarchyArg,
    /// Shows the steps, and writes nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The subject of the certificates.
#[derive(Args)]
pub(crate) struct ProductArgs {
    /// The device's serial number.
    #[arg(long)]
    serial: String,
    /// The device's model. Without this option the certificates must contain no model.
    #[arg(long)]
    model: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum HierarchyArg {
    Owner,
    Platform,
}

#[derive(Clone, Copy, ValueEnum)]
enum UniqueArg {
    Both,
    X,
    Split,
}

/// A handle or an NV index.
#[derive(Clone, Copy)]
pub(crate) struct Number(pub(crate) u32);

#[derive(Clone, Copy)]
struct TemplateArg(KeyAlgorithm);

impl FromStr for Number {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0x").or(text.strip_prefix("0X"));
        let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        number
            .map(Self)
            .ok_or_else(|| "expected 0x and hexadecimal digits, such as 0x81020000".into())
    }
}

impl FromStr for TemplateArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = TEMPLATES.iter().find(|(word, _)| *word == text);
        found.map(|(_, algorithm)| Self(*algorithm)).ok_or_else(|| {
            let words: Vec<_> = TEMPLATES.iter().map(|(word, _)| *word).collect();
            format!("expected one of {}", words.join(", "))
        })
    }
}

impl From<HierarchyArg> for NvHierarchy {
    fn from(arg: HierarchyArg) -> Self {
        match arg {
            HierarchyArg::Owner => Self::Owner,
            HierarchyArg::Platform => Self::Platform,
        }
    }
}

impl ProductArgs {
    pub(crate) fn read(&self) -> Result<Product, IdentityError> {
        Product::new(&self.serial, self.model.as_deref())
    }
}

impl CommonArgs {
    /// Returns the handles and NV indices of the keys and certificates. The IDevID comes first.
    pub(crate) fn places(&self) -> Result<Vec<KeyPlace>, IdentityError> {
        let idevid = KeyPlace {
            handle: self.idevid_handle.0,
            index: self.idevid_nv.0,
            ..KeyPlace::IDEVID
        };
        let iak = KeyPlace {
            handle: self.iak_handle.0,
            index: self.iak_nv.0,
            ..KeyPlace::IAK
        };
        let places = match self.no_iak {
            true => vec![idevid],
            false => vec![idevid, iak],
        };
        for place in &places {
            place.check()?;
        }
        if let [one, other] = &places[..]
            && (one.handle == other.handle || one.index == other.index)
        {
            return Err(IdentityError::new(
                IdentityErrorKind::Usage,
                "IDevID and IAK need different handles and NV indices",
            ));
        }
        Ok(places)
    }
}

impl KeysArgs {
    /// Returns each key with its template.
    pub(crate) fn templates(&self, places: &[KeyPlace]) -> Vec<(KeyPlace, KeyTemplate)> {
        let label = match self.unique {
            UniqueArg::Both => UniqueLabel::Both,
            UniqueArg::X => UniqueLabel::X,
            UniqueArg::Split => UniqueLabel::Split,
        };
        let iak = self.iak_template.unwrap_or(self.template);
        let algorithms = [self.template, iak];
        let wanted = places.iter().zip(algorithms);
        wanted
            .map(|(place, TemplateArg(algorithm))| (*place, KeyTemplate { algorithm, label }))
            .collect()
    }
}
