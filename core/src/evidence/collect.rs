//! Collects the evidence that a device shows about one of its keys.

use super::attestation_key::Audience;
use super::bundle::{self, Bundle, CertifiedKey, MOST_CERTIFICATES, qualifying_data};
use super::endorsement::Endorsement;
use super::json::{Bytes, LONGEST_TEXT};
use crate::file;
use crate::identity::{
    Device, FACTORY, IdentityError, IdentityErrorKind, Inventory, TokenEntry, maker_and_firmware,
};
use crate::store::Key;
use crate::tpm::{AttestationKey, Secret};
use crate::x509::device::NamedDevice;
use crate::x509::files::LARGEST;
use crate::x509::{Certificate, RequestContent};
use log::warn;
use std::path::PathBuf;

/// The options of `devid attest`.
#[derive(Debug, Default)]
pub struct Collection<'a> {
    /// The nonce that the verifier chose. Without a nonce, the evidence is not fresh.
    pub nonce: Option<&'a [u8]>,
    /// The PIN of the key. `None`: the configuration names the PIN, or the key has none.
    pub pin: Option<&'a Secret>,
    /// Files with certificates of the endorsement key and of the CAs above it, in DER or PEM. Some
    /// TPMs do not hold these certificates in NV memory.
    pub ek_files: &'a [PathBuf],
    /// Who reads the evidence: any verifier, or the CA of the attestation key.
    pub audience: Audience,
}

/// Calls `work`, which uses the TPM. If the connection was lost during the call, removes the
/// objects that `work` left in the TPM.
///
/// # Errors
///
/// Fails with the error of `work`, or if the TPM does not list its loaded objects.
pub fn leaving_nothing<R, E: From<IdentityError>>(
    device: &Device,
    work: impl FnOnce() -> Result<R, E>,
) -> Result<R, E> {
    let before = device.tpm.trace().map_err(IdentityError::from)?;
    let done = work();
    device.tpm.sweep(&before);
    done
}

/// Collects evidence about a key of the device.
///
/// # Errors
///
/// Fails if a TPM cannot certify the key: it is used in memory, was imported, or has an unknown
/// policy. Also fails with the errors of the TPM.
pub fn collect(
    device: &Device,
    inventory: &Inventory,
    entry: &TokenEntry,
    how: Collection,
) -> Result<Bundle, IdentityError> {
    let key = certifiable(entry)?;
    let tpm = &*device.tpm;
    let mut given = Vec::new();
    for path in how.ek_files {
        let bytes = file::read(path, LARGEST).map_err(IdentityError::file(path))?;
        let found = Certificate::parse_all(&bytes);
        given.extend(
            found.map_err(|why| IdentityError::failed(format!("{}: {why}", path.display())))?,
        );
    }
    // A wrong PIN makes this signature fail. The signing function refuses to try a PIN if a wrong
    // PIN would put the TPM into lockout (unless `allow_last_try` is set). Later steps do not send
    // the PIN.
    let csr = device.request(entry, &RequestContent::default(), how.pin)?;
    let (signer, certificates) = AttestationKey::of_entry(device, inventory, entry, how.audience)?;
    let is_hidden = how.audience == Audience::Anybody && device.service_of(entry).is_some();
    if is_hidden && !how.ek_files.is_empty() {
        return Err(IdentityError::refused(format!(
            "{}: evidence about a service's key must not name the endorsement key, so --ek-cert \
             needs --to-ca",
            entry.label
        )));
    }
    let _try = signer.lock_try(tpm)?;
    let certifying = Certifying {
        device,
        inventory,
        signer: &signer,
        qualifying: how.nonce.map(qualifying_data).unwrap_or_default(),
    };
    let certified = certifying.certified(entry, key)?;
    if is_hidden {
        // The certificates of the service's key are left out, because a CA may have copied the name
        // of the device into them.
        let certified = CertifiedKey {
            certificates: Vec::new(),
            ..certified
        };
        return Ok(Bundle {
            device: bundle::Device::default(),
            ek_public: None,
            ek_certificates: Vec::new(),
            ek_chain: Vec::new(),
            attestation_key: bundle::AttestationKey {
                public: signer.area().into(),
                certificates: ders(&certificates),
            },
            key: certified,
            idevid: None,
            nonce: how.nonce.map(|nonce| qualifying_data(nonce).into()),
            csr: csr.into(),
        });
    }
    let endorsement = Endorsement::of(tpm, given)?;
    let idevid = certifying.idevid(entry)?;
    let (maker, firmware) = maker_and_firmware(tpm)?;
    let named = factory_entry(inventory).and_then(TokenEntry::certificate);
    let named = named.map(NamedDevice::of).unwrap_or_default();
    let short = |text: &String| text.len() <= LONGEST_TEXT;
    Ok(Bundle {
        device: bundle::Device {
            maker: Some(maker),
            firmware: Some(firmware),
            serial: named.serial.filter(short),
            model: named.model.filter(short),
        },
        ek_public: endorsement.key.map(|key| key.area().into()),
        ek_certificates: ders(&endorsement.certificates),
        ek_chain: ders(&endorsement.chain),
        attestation_key: bundle::AttestationKey {
            public: signer.area().into(),
            certificates: ders(&certificates),
        },
        key: certified,
        idevid,
        nonce: how.nonce.map(|nonce| qualifying_data(nonce).into()),
        csr: csr.into(),
    })
}

/// Collects evidence about an IDevID key that has no certificate yet. `csr` is the PKCS#10 request
/// for the key.
///
/// # Errors
///
/// Fails with the errors of the TPM.
#[cfg(feature = "manufacture")]
pub(crate) fn of_new_device(
    tpm: &crate::tpm::Tpm,
    (idevid, signer): (&Key, &AttestationKey),
    (serial, model): (&str, Option<&str>),
    csr: Vec<u8>,
) -> Result<Bundle, IdentityError> {
    let endorsement = Endorsement::of(tpm, Vec::new())?;
    let key = certified_by(tpm, (idevid, signer), &[])?;
    let (maker, firmware) = maker_and_firmware(tpm)?;
    Ok(Bundle {
        device: bundle::Device {
            maker: Some(maker),
            firmware: Some(firmware),
            serial: Some(serial.to_owned()),
            model: model.map(str::to_owned),
        },
        ek_public: endorsement.key.map(|key| key.area().into()),
        ek_certificates: ders(&endorsement.certificates),
        ek_chain: ders(&endorsement.chain),
        attestation_key: bundle::AttestationKey {
            public: signer.area().into(),
            certificates: Vec::new(),
        },
        key,
        idevid: None,
        nonce: None,
        csr: csr.into(),
    })
}

/// Lets the attestation key certify (TPM2_Certify) an IDevID key that has no certificate yet.
#[cfg(feature = "manufacture")]
pub(crate) fn certified_by(
    tpm: &crate::tpm::Tpm,
    (idevid, signer): (&Key, &AttestationKey),
    qualifying: &[u8],
) -> Result<CertifiedKey, IdentityError> {
    let certified = idevid
        .certify(tpm, signer, qualifying)
        .map_err(|error| IdentityError::from(error).while_doing("the IDevID key: TPM2_Certify"))?;
    let area = idevid.public_area();
    let area =
        area.ok_or_else(|| IdentityError::failed("the TPM returned no public area of the key"))?;
    Ok(CertifiedKey {
        label: Some(FACTORY.to_owned()),
        public: area.into(),
        certify: certified.attest.into(),
        signature: certified.signature.into(),
        creation_data: None,
        certificates: Vec::new(),
    })
}

/// Returns the key of a token entry, if TPM2_Certify can certify the key.
fn certifiable(entry: &TokenEntry) -> Result<&Key, IdentityError> {
    let label = &entry.label;
    let refused = |why: &str| Err(IdentityError::refused(format!("{label}: {why}")));
    let key = match (&entry.key, &entry.software, &entry.secret) {
        (_, Some(_), _) => {
            return refused(
                "this identity is in software, so no TPM can certify its key and there is no \
                 evidence about it",
            );
        }
        (_, _, Some(_)) => {
            return refused("this is a secret key, but a CA certifies only key pairs");
        }
        (Some(key), None, None) => key,
        (None, None, None) if entry.attests => {
            return refused(
                "this is the attestation key, which signs the evidence about other keys",
            );
        }
        (None, None, None) => {
            return Err(IdentityError::new(
                IdentityErrorKind::NotFound,
                format!("{label}: this device does not have the private key"),
            ));
        }
    };
    match key.no_certification() {
        Some(why) => refused(&format!("there is no evidence about this key: {why}")),
        None => Ok(key),
    }
}

/// Returns the token entry of the factory's IDevID, if the TPM has its key.
fn factory_entry(inventory: &Inventory) -> Option<&TokenEntry> {
    let mut factory = inventory.entries.iter().filter(|one| one.token == FACTORY);
    factory.find(|one| !one.attests && one.key.is_some())
}

/// What TPM2_Certify needs for each key of a bundle: the signer and the nonce.
struct Certifying<'a> {
    device: &'a Device,
    inventory: &'a Inventory,
    signer: &'a AttestationKey,
    qualifying: Vec<u8>,
}

impl Certifying<'_> {
    fn certified(&self, entry: &TokenEntry, key: &Key) -> Result<CertifiedKey, IdentityError> {
        let tpm = &*self.device.tpm;
        let certified = key.certify(tpm, self.signer, &self.qualifying);
        let certified = certified.map_err(|error| {
            IdentityError::from(error).while_doing(format!("{}: TPM2_Certify", entry.label))
        })?;
        let area = key.public_area();
        let area = area.ok_or_else(|| IdentityError::failed("the key has no public area"))?;
        let chain = match entry.certificate() {
            Some(_) => self.inventory.chain(entry)?,
            None => Vec::new(),
        };
        Ok(CertifiedKey {
            label: Some(entry.label.clone()).filter(|label| label.len() <= LONGEST_TEXT),
            public: area.into(),
            certify: certified.attest.into(),
            signature: certified.signature.into(),
            creation_data: None,
            certificates: ders(&chain),
        })
    }

    /// Certifies the IDevID of the factory. Returns `None` if the evidence is about the IDevID
    /// itself, or if the IDevID cannot be certified.
    fn idevid(&self, entry: &TokenEntry) -> Result<Option<CertifiedKey>, IdentityError> {
        let Some(factory) = factory_entry(self.inventory) else {
            return Ok(None);
        };
        let Some(key) = factory
            .key
            .as_ref()
            .filter(|_| factory.public != entry.public)
        else {
            return Ok(None);
        };
        if let Some(why) = key.no_certification() {
            warn!(
                "{}: the evidence does not include this key: {why}",
                factory.label
            );
            return Ok(None);
        }
        match self.certified(factory, key) {
            Ok(certified) => Ok(Some(certified)),
            Err(error) if error.kind == IdentityErrorKind::Tpm => Err(error),
            Err(error) => {
                warn!("{error}; the evidence does not include the factory identity");
                Ok(None)
            }
        }
    }
}

fn ders(certificates: &[Certificate]) -> Vec<Bytes> {
    let first = certificates.iter().take(MOST_CERTIFICATES);
    first.map(|one| one.der().into()).collect()
}
