//! Searches for certificates of the factory identity in the NV memory of the TPM, in files of the
//! configuration, and in the `chain/` folder.

use super::location::{CertificateLocation, LocatedCertificate};
use super::{IdevidStore, ScanError, certificates_in};
use crate::config::IdentityHint;
use crate::tpm::{Tpm, TpmError, handle};
use crate::x509::Certificate;
use log::{debug, warn};
use std::ops::Range;
use std::path::PathBuf;

/// The size of the smallest possible certificate in bytes. TCG policies in the searched range are
/// smaller, so they are not read (Keys for Device Identity, section 7.3.2).
const SMALLEST_CERTIFICATE: u16 = 128;
/// The largest size of a certificate that continues in further NV indices, in bytes.
const MOST_JOINED: usize = 1 << 16;

/// The result of reading an NV index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NvFinding {
    /// The NV index holds these certificates.
    Certificates(Vec<Certificate>),
    /// The NV index continues a certificate that begins in this other NV index.
    ContinuationOf(u32),
    /// The index was not read, because it is too small for a certificate.
    TooSmall,
    /// The NV index holds no usable certificate. The text is the reason.
    Nothing(String),
}

enum NvError {
    /// The NV index holds no usable certificate. The search continues with the next NV index.
    Skipped(String),
    Tpm(TpmError),
}

/// Returns a message for the log: the places that were searched, what else they hold, and the files
/// that could not be read.
pub(super) fn searched(
    authorities: &[LocatedCertificate],
    unread: Vec<String>,
    hints: &[IdentityHint],
) -> String {
    let (first, last) = (
        handle::DEVID_CERTIFICATES.start(),
        handle::DEVID_CERTIFICATES.end(),
    );
    let mut there: Vec<String> = authorities
        .iter()
        .map(|(origin, one)| format!("{origin}: the certificate of the CA {}", one.subject()))
        .collect();
    there.extend(unread);
    let named = hints.iter().filter_map(|hint| hint.certificate.as_deref());
    there.extend(named.filter_map(|path| {
        let why = certificates_in(path).err()?;
        Some(format!(
            "certificate {} under [[identity]]: {why}",
            path.display()
        ))
    }));
    let but = match there.is_empty() {
        true => String::new(),
        false => format!(" (found instead: {})", there.join("; ")),
    };
    format!(
        "no certificate of an identity was found in the NV indices 0x{first:08X}-0x{last:08X} or \
         under [[identity]]{but}. If TPM2_Clear deleted it, ask the maker of the device for it, \
         set certificate = \"/PATH.pem\" under [[identity]] in config.toml, and run devid persist \
         idev-id to put its key into the handle again"
    )
}

impl IdevidStore {
    /// Returns all certificates from configured files and from the TPM, without duplicates. Also
    /// returns the files that could not be read.
    pub(super) fn certificates(
        &self,
        tpm: &Tpm,
        files: Vec<(PathBuf, Vec<Certificate>)>,
    ) -> Result<(Vec<LocatedCertificate>, Vec<String>), ScanError> {
        let (mut found, mut unread): (Vec<LocatedCertificate>, Vec<String>) =
            (Vec::new(), Vec::new());
        let mut add = |origin: CertificateLocation, here: Vec<Certificate>| {
            for certificate in here {
                match found.iter().find(|(_, known)| *known == certificate) {
                    Some((known, _)) => debug!("{origin}: the same certificate as {known}"),
                    None => found.push((origin.clone(), certificate)),
                }
            }
        };
        for (file, here) in files {
            add(CertificateLocation::File(file), here);
        }
        for (index, taken) in self.indices(tpm)? {
            match taken {
                NvFinding::Certificates(here) => add(CertificateLocation::Nv(index), here),
                NvFinding::TooSmall => {}
                NvFinding::ContinuationOf(_) => {}
                NvFinding::Nothing(why) => {
                    let why = format!("NV index 0x{index:08X}: {why}");
                    warn!("{why}");
                    unread.push(why);
                }
            }
        }
        Ok((found, unread))
    }

    /// Returns the NV indices of a search and what they hold. The indices of `[[identity]]` come
    /// first, then the range of the TCG.
    pub fn indices(&self, tpm: &Tpm) -> Result<Vec<(u32, NvFinding)>, TpmError> {
        let mut taken: Vec<(u32, NvFinding)> = Vec::new();
        let hinted: Vec<u32> = self.hints.iter().filter_map(|hint| hint.nv).collect();
        let listed = tpm.handles(*handle::DEVID_CERTIFICATES.start())?;
        let ranged = listed
            .into_iter()
            .filter(|index| handle::DEVID_CERTIFICATES.contains(index));
        let ranged: Vec<u32> = ranged.filter(|index| !hinted.contains(index)).collect();
        let hinted = hinted.into_iter().map(|index| (index, true));
        let all = hinted.chain(ranged.into_iter().map(|index| (index, false)));
        for (index, named) in all {
            if taken.iter().any(|(known, _)| *known == index) {
                continue;
            }
            let (first, further) = read_certificates(tpm, index, named)?;
            taken.push((index, first));
            let further = further.map(|one| (one, NvFinding::ContinuationOf(index)));
            taken.extend(further);
        }
        Ok(taken)
    }
}

/// Returns the certificates in an NV index. Also returns the following indices that continue the
/// last certificate, because the TPM limits the size of an index (TPM2_PT_NV_INDEX_MAX).
fn read_certificates(
    tpm: &Tpm,
    index: u32,
    named: bool,
) -> Result<(NvFinding, Range<u32>), TpmError> {
    let none = index + 1..index + 1;
    let mut content = match read_nv(tpm, index, named, SMALLEST_CERTIFICATE) {
        Ok(Some(content)) => content,
        Ok(None) => return Ok((NvFinding::TooSmall, none)),
        Err(NvError::Skipped(why)) => return Ok((NvFinding::Nothing(why), none)),
        Err(NvError::Tpm(error)) => return Err(error),
    };
    let alone = Certificate::read_all(&content);
    let (mut reading, mut further) = (alone.clone(), none.clone());
    while reading.is_cut && content.len() < MOST_JOINED {
        // An NV index that begins with a new certificate does not continue another certificate.
        match read_nv(tpm, further.end, named, 0) {
            Ok(Some(more)) if Certificate::read_all(&more).certificates.is_empty() => {
                content.extend(more);
            }
            Ok(_) | Err(NvError::Skipped(_)) => break,
            Err(NvError::Tpm(error)) => return Err(error),
        }
        further.end += 1;
        reading = Certificate::read_all(&content);
    }
    let joined = reading.certificates.len() > alone.certificates.len();
    let (reading, further) = if joined {
        (reading, further)
    } else {
        (alone, none)
    };
    for what in reading
        .unread
        .iter()
        .filter(|_| !reading.certificates.is_empty())
    {
        warn!("NV index 0x{index:08X}: {what} was ignored beside a certificate");
    }
    let taken = match reading.certificates.is_empty() {
        true => NvFinding::Nothing(reading.unread.join("; ")),
        false => NvFinding::Certificates(reading.certificates),
    };
    Ok((taken, further))
}

/// Returns the content of an NV index, or `None` if the index is smaller than `least`. `named` is
/// true for an index from the configuration. Such an index is read even if a wrong authorisation
/// value counts towards lockout.
fn read_nv(tpm: &Tpm, index: u32, named: bool, least: u16) -> Result<Option<Vec<u8>>, NvError> {
    let skip = |error| match error {
        TpmError::Response(code) if !code.is_definite() => NvError::Tpm(error),
        TpmError::Response(_) | TpmError::Unsupported(_) | TpmError::NeedsAuth(_) => {
            NvError::Skipped(error.to_string())
        }
        other => NvError::Tpm(other),
    };
    let public = tpm.nv_public(index).map_err(skip)?;
    if public.size < least {
        return Ok(None);
    }
    if !public.readable_by_own_auth() {
        return Err(NvError::Skipped(format!(
            "it cannot be read with its own authorisation (attributes 0x{:08X})",
            public.attributes
        )));
    }
    if public.counts_wrong_auth() && !named {
        return Err(NvError::Skipped(
            "it was not read, because a wrong authorisation value would count towards the TPM's \
             lockout (NO_DA is clear); if its value is empty, set nv to its index under \
             [[identity]]"
                .into(),
        ));
    }
    tpm.nv_read(index, public.size).map(Some).map_err(skip)
}
