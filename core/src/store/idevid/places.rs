//! Where certificates are: the TPM's NV memory, the configuration's files, the `chain/` folder.

use super::{IdevidStore, LookError, certificates_in};
use crate::certificate::Certificate;
use crate::config::IdentityHint;
use crate::tpm::{Tpm, TpmError};
use log::{debug, warn};
use std::fmt;
use std::path::PathBuf;

/// Where TCG puts DevID certificates and their chains.
const RANGE: std::ops::RangeInclusive<u32> = 0x01C9_0000..=0x01C9_FFFF;
/// No certificate is smaller: the policies that TCG puts into the same range (Keys for Device
/// Identity, section 7.3.2) are not read.
const SMALLEST_CERTIFICATE: u16 = 128;

/// Where a certificate was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Nv(u32),
    File(PathBuf),
}

/// What an NV index was taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It holds these.
    Certificates(Vec<Certificate>),
    /// It was not read: no certificate is so small.
    TooSmall,
    /// Why there is nothing to be had from it.
    Nothing(String),
}

enum NvFault {
    /// Nothing to be had from this index; the search goes on.
    Skipped(String),
    Tpm(TpmError),
}

/// What a search looks at, for the log, and which files it did so in vain.
pub(super) fn searched(hints: &[IdentityHint]) -> String {
    let (first, last) = (RANGE.start(), RANGE.end());
    let named = hints.iter().filter_map(|hint| hint.certificate.as_deref());
    let unread = named.filter_map(|path| {
        let why = certificates_in(path).err()?;
        Some(format!(
            "; [[identity]] certificate {}: {why}",
            path.display()
        ))
    });
    let unread: String = unread.collect();
    format!(
        "no identity's certificate in the NV indices 0x{first:08X}-0x{last:08X} nor in \
         [[identity]]; has the factory written one? TPM2_Clear deletes it: its maker has it, too, and \
         [[identity]] certificate = \"/PATH.pem\" in config.toml names it; then devid persist idev-id \
         gives its key the handle back{unread}"
    )
}

impl IdevidStore {
    /// All certificates of end entities' places: of the files that the configuration names and of
    /// the TPM, each once.
    pub(super) fn certificates(
        &self,
        tpm: &Tpm,
        files: Vec<(PathBuf, Vec<Certificate>)>,
    ) -> Result<Vec<(Origin, Certificate)>, LookError> {
        let mut found: Vec<(Origin, Certificate)> = Vec::new();
        let mut add = |origin: Origin, here: Vec<Certificate>| {
            for certificate in here {
                match found.iter().find(|(_, known)| *known == certificate) {
                    Some((known, _)) => debug!("{origin}: the same certificate as {known}"),
                    None => found.push((origin.clone(), certificate)),
                }
            }
        };
        for (file, here) in files {
            add(Origin::File(file), here);
        }
        for (index, taken) in self.indices(tpm)? {
            match taken {
                Taken::Certificates(here) => add(Origin::Nv(index), here),
                Taken::TooSmall => {}
                Taken::Nothing(why) => warn!("NV index 0x{index:08X}: {why}"),
            }
        }
        Ok(found)
    }

    /// The NV indices that are looked into, and what each was taken for: those that `[[identity]]`
    /// names, then the TCG's range.
    pub fn indices(&self, tpm: &Tpm) -> Result<Vec<(u32, Taken)>, TpmError> {
        let hinted: Vec<u32> = self.hints.iter().filter_map(|hint| hint.nv).collect();
        let listed = tpm.handles(*RANGE.start())?;
        let ranged = listed.into_iter().filter(|index| RANGE.contains(index));
        let ranged: Vec<u32> = ranged.filter(|index| !hinted.contains(index)).collect();
        let hinted = hinted.into_iter().map(|index| (index, true));
        let all = hinted.chain(ranged.into_iter().map(|index| (index, false)));
        let taken = |(index, named)| match read_nv(tpm, index, named) {
            Ok(taken) => Ok((index, taken)),
            Err(NvFault::Skipped(why)) => Ok((index, Taken::Nothing(why))),
            Err(NvFault::Tpm(error)) => Err(error),
        };
        all.map(taken).collect()
    }
}

/// The certificates in an NV index. One that the administrator `named` is tried even where a wrong
/// authorisation value counts towards the TPM's lockout; others are not.
fn read_nv(tpm: &Tpm, index: u32, named: bool) -> Result<Taken, NvFault> {
    let skip = |error| match error {
        TpmError::Response(code) if !code.is_definite() => NvFault::Tpm(error),
        TpmError::Response(_) | TpmError::Unsupported(_) | TpmError::NeedsAuth(_) => {
            NvFault::Skipped(error.to_string())
        }
        other => NvFault::Tpm(other),
    };
    let public = tpm.nv_public(index).map_err(skip)?;
    if public.size < SMALLEST_CERTIFICATE {
        return Ok(Taken::TooSmall);
    }
    if !public.readable_by_own_auth() {
        return Err(NvFault::Skipped(format!(
            "not readable by its own authorisation (attributes 0x{:08X})",
            public.attributes
        )));
    }
    if public.counts_wrong_auth() && !named {
        return Err(NvFault::Skipped(
            "not tried, since a wrong authorisation would count towards the TPM's lockout (the \
             index is not NO_DA); name it in [[identity]] nv if its authorisation is empty"
                .into(),
        ));
    }
    let content = tpm.nv_read(index, public.size).map_err(skip)?;
    let parsed = Certificate::parse_all(&content).map(Taken::Certificates);
    parsed.map_err(|why| NvFault::Skipped(why.to_string()))
}

impl Origin {
    /// Whether this hint names the place.
    pub(super) fn is_of(&self, hint: &IdentityHint) -> bool {
        match self {
            Self::Nv(index) => hint.nv == Some(*index),
            Self::File(path) => hint.certificate.as_ref() == Some(path),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nv(index) => write!(f, "NV index 0x{index:08X}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}
