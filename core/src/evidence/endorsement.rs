//! Finds the endorsement key of the device and the endorsement certificates in NV memory (TCG, EK
//! Credential Profile for TPM 2.0, section 2.2.1.4).

use crate::identity::IdentityError;
use crate::key::PublicKey;
use crate::tpm::{EndorsementKey, Tpm};
use crate::x509::Certificate;
use log::{debug, warn};
use std::ops::RangeInclusive;

/// The NV indices for certificates of TPM manufacturers.
const MAKERS: RangeInclusive<u32> = 0x01C0_0000..=0x01C0_FFFF;
/// The NV indices of endorsement certificates, in the low range and in the high range.
const CERTIFICATES: [u32; 9] = [
    0x01C0_0002,
    0x01C0_000A,
    0x01C0_0012,
    0x01C0_0014,
    0x01C0_0016,
    0x01C0_0018,
    0x01C0_001A,
    0x01C0_001C,
    0x01C0_001E,
];
/// The NV indices of the CA certificates above the endorsement certificates.
const CHAIN: RangeInclusive<u32> = 0x01C0_0100..=0x01C0_01FF;

/// The endorsement key of a device, and the endorsement certificates that the device has.
#[derive(Debug, Default)]
pub(crate) struct Endorsement {
    /// The endorsement key for which a CA encrypts secrets. It is the first key whose certificate
    /// the device has. Without such a certificate, it is a key that the TPM derives.
    pub(crate) key: Option<EndorsementKey>,
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) chain: Vec<Certificate>,
}

impl Endorsement {
    /// Reads endorsement certificates from NV memory, and finds the first endorsement key that has
    /// a certificate. `given` holds further certificates from the manufacturer, which are searched
    /// before the certificates of the TPM.
    ///
    /// The TPM executes one command for each NV index that exists, and two or more for each
    /// certificate. If no handle holds the key, the TPM also generates a key.
    pub(crate) fn of(tpm: &Tpm, given: Vec<Certificate>) -> Result<Self, IdentityError> {
        let (mut placed, mut chain) = (Vec::new(), Vec::new());
        for certificate in given {
            match certificate.is_ca() {
                true => chain.push(certificate),
                false => placed.push((None, certificate)),
            }
        }
        let there = tpm.handles(*MAKERS.start())?;
        let there = there.into_iter().filter(|index| MAKERS.contains(index));
        let (mut cut, mut is_cut) = (Vec::new(), false);
        for index in there {
            let is_chain = CHAIN.contains(&index);
            if !is_chain && !CERTIFICATES.contains(&index) {
                continue;
            }
            let Some(content) = tpm.open_nv(index)? else {
                warn!(
                    "NV index 0x{index:08X} was not read, because reading it needs an authorisation"
                );
                continue;
            };
            // The NV indices from 0x01C00100 hold CA certificates in sequence, so a certificate may
            // continue in the next index.
            let content = match is_chain && is_cut {
                true => [std::mem::take(&mut cut), content].concat(),
                false => content,
            };
            let reading = Certificate::read_all(&content);
            for what in &reading.unread {
                debug!("NV index 0x{index:08X}: {what}");
            }
            is_cut = is_chain && reading.is_cut;
            if is_cut {
                cut = content;
            }
            let mut found = reading.certificates.into_iter();
            match is_chain {
                true => chain.extend(found),
                false => {
                    placed.extend(found.next().map(|leaf| (Some(index), leaf)));
                    chain.extend(found);
                }
            }
        }
        let mut key = None;
        for (index, certificate) in &placed {
            if let Some(public) = certificate.public_key() {
                key = Self::key_of(tpm, &public, *index, certificate)?;
            }
            if key.is_some() {
                break;
            }
        }
        if key.is_none() && placed.is_empty() {
            let in_handles = tpm.endorsement_keys_in_handles()?;
            key = match in_handles.into_iter().next() {
                Some(key) => Some(key),
                None => tpm.usual_endorsement_key()?,
            };
        }
        Ok(Self {
            key,
            certificates: each_once(placed.into_iter().map(|(_, one)| one)),
            chain: each_once(chain.into_iter()),
        })
    }

    fn key_of(
        tpm: &Tpm,
        public: &PublicKey,
        index: Option<u32>,
        certificate: &Certificate,
    ) -> Result<Option<EndorsementKey>, IdentityError> {
        let found = tpm.endorsement_key_of(public, index)?;
        if found.is_none() {
            warn!(
                "the TPM does not have the endorsement key for the certificate of {:?} ({public})",
                certificate.issuer()
            );
        }
        Ok(found)
    }
}

fn each_once(certificates: impl Iterator<Item = Certificate>) -> Vec<Certificate> {
    let mut all: Vec<Certificate> = Vec::new();
    for certificate in certificates {
        if !all.contains(&certificate) {
            all.push(certificate);
        }
    }
    all
}
