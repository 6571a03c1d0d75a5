//! The writes of a device manufacturer to a TPM. Factory keys are put into persistent handles. NV
//! indices are filled once and then locked. No function of this file undefines an index, overwrites
//! bytes or empties a handle.

use super::exchange::Exchange;
use super::nv::{PIECE, WRITTEN};
use super::storage::by_owner;
use super::template::{devid_template, is_template_of};
use super::{
    Auth, AuthHandle, AuthValue, DevIdKind, KeyAlgorithm, Link, NvPublic, PrimaryKey, PublicArea,
    SaltKey, Tpm, TpmError, UniqueLabel,
};

/// TPMA_NV_WRITELOCKED: the index is locked against writing.
const LOCKED: u32 = 1 << 11;
/// The byte values that TPMs return for unwritten parts of an index.
const UNWRITTEN: [u8; 2] = [0xFF, 0x00];

/// The hierarchy whose authorisation defines, writes and locks an NV index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NvHierarchy {
    /// The owner hierarchy: TPM2_Clear deletes the index.
    Owner,
    /// The platform hierarchy: the index survives TPM2_Clear.
    Platform,
}

/// The state of an NV index, compared with the bytes that it shall contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NvProgress {
    /// The NV index does not exist.
    Absent,
    /// The NV index exists, but some bytes are not written yet.
    Begun(NvPublic),
    /// The index contains the bytes. The attributes tell if the index is locked.
    Filled(NvPublic),
    /// The index contains other bytes or has other attributes. The text describes the difference.
    Other(String),
}

impl NvHierarchy {
    /// Returns the TPMA_NV of an unwritten index: WRITEDEFINE, PPREAD, OWNERREAD, AUTHREAD, NO_DA,
    /// and the write attribute of the hierarchy.
    pub fn attributes(self) -> u32 {
        const COMMON: u32 = 0x0207_2000;
        const OWNERWRITE: u32 = 1 << 1;
        const PPWRITE: u32 = 1;
        const PLATFORMCREATE: u32 = 1 << 30;
        match self {
            Self::Owner => COMMON | OWNERWRITE,
            Self::Platform => COMMON | PPWRITE | PLATFORMCREATE,
        }
    }

    /// Returns the hierarchy that defined an index with these attributes.
    pub fn of(about: NvPublic) -> Self {
        match about.attributes & (1 << 30) {
            0 => Self::Owner,
            _ => Self::Platform,
        }
    }

    fn by<'a>(self, auth: Auth<'a>) -> AuthHandle<'a> {
        match self {
            Self::Owner => AuthHandle::owner(auth),
            Self::Platform => AuthHandle::platform(auth),
        }
    }
}

impl PublicArea {
    /// Returns true if the key has the attributes and policy of the TCG template for this kind.
    pub fn is_factory_key(&self, kind: DevIdKind) -> bool {
        is_template_of(kind, self.as_bytes())
    }
}

impl NvPublic {
    /// Returns true if the NV index is locked against writing.
    pub fn is_locked(self) -> bool {
        self.attributes & LOCKED != 0
    }
}

impl Tpm {
    /// Makes the factory key that a TCG template gives on this TPM. Flushes the key afterwards.
    /// Sends three commands, including a key generation.
    ///
    /// # Errors
    ///
    /// [`TpmError::Unsupported`] for a size without template. The TPM's response code for a size
    /// that the TPM lacks.
    pub fn factory_key(
        &self,
        kind: DevIdKind,
        algorithm: KeyAlgorithm,
        label: UniqueLabel,
    ) -> Result<(PublicArea, PrimaryKey), TpmError> {
        let unfit =
            || TpmError::Unsupported("the TCG has no template for keys of this size".into());
        let template = devid_template(kind, algorithm, label).ok_or_else(unfit)?;
        let odd = || TpmError::Unsupported("the TPM made a key of another type".into());
        self.derived(template, None)?.ok_or_else(odd)
    }

    /// Returns how much of `bytes` is in the NV index. `by` is the hierarchy that will fill the
    /// index. Sends two commands, and the commands of a read.
    pub fn nv_progress(
        &self,
        index: u32,
        bytes: &[u8],
        by: NvHierarchy,
    ) -> Result<NvProgress, TpmError> {
        let about = match self.nv_public(index) {
            Err(TpmError::Response(code)) if code.is_missing_handle() => {
                return Ok(NvProgress::Absent);
            }
            other => other?,
        };
        let is_ours = about.attributes & !(WRITTEN | LOCKED) == by.attributes();
        let has_size = usize::from(about.size) == bytes.len();
        if about.attributes & WRITTEN == 0 {
            return Ok(match is_ours && has_size {
                true => NvProgress::Begun(about),
                false => NvProgress::Other(format!(
                    "the index is defined for {} bytes with the attributes 0x{:08X}, and was not \
                     written",
                    about.size, about.attributes
                )),
            });
        }
        let Some(there) = self.nv_of_others(index, about, &AuthValue::default())? else {
            return Ok(NvProgress::Other(
                "not every user may read the index".into(),
            ));
        };
        if there == bytes {
            return Ok(NvProgress::Filled(about));
        }
        let is_begun = is_ours && has_size && !about.is_locked();
        Ok(match is_begun && missing_pieces(&there, bytes).is_some() {
            true => NvProgress::Begun(about),
            false => NvProgress::Other(format!("the index contains {} other bytes", there.len())),
        })
    }

    /// Defines an index of this size. Writes to the TPM.
    ///
    /// # Errors
    ///
    /// The response code of the TPM if the index exists.
    pub fn nv_define_once(
        &self,
        index: u32,
        size: u16,
        by: NvHierarchy,
        value: &AuthValue,
    ) -> Result<(), TpmError> {
        let attributes = by.attributes();
        self.nv_writing("NV_DefineSpace", by, value, |link, used| {
            link.nv_define(used, index, NvPublic { attributes, size })
        })
    }

    /// Writes the missing bytes of an index. The first bytes are written last, so that readers
    /// ignore a half-written index. Writes to the TPM: one command for each 512 bytes.
    ///
    /// # Errors
    ///
    /// [`TpmError::Unsupported`] if the index contains other bytes.
    pub fn nv_write_missing(
        &self,
        index: u32,
        bytes: &[u8],
        by: NvHierarchy,
        value: &AuthValue,
    ) -> Result<(), TpmError> {
        let mut about = self.nv_public(index)?;
        let missing = match about.attributes & WRITTEN {
            0 => Some((0..bytes.len().div_ceil(PIECE)).collect()),
            _ => missing_pieces(&self.nv_read(index, about.size)?, bytes),
        };
        let missing: Vec<usize> = missing.ok_or_else(|| {
            TpmError::Unsupported(format!("NV index 0x{index:08X} contains other bytes"))
        })?;
        for number in missing.into_iter().rev() {
            let offset = number * PIECE;
            let piece = &bytes[offset..bytes.len().min(offset + PIECE)];
            let name = about.name(index);
            self.nv_writing("NV_Write", by, value, |link, used| {
                link.nv_write(used, (index, &name), offset as u16, piece)
            })?;
            about.attributes |= WRITTEN;
        }
        Ok(())
    }

    /// Locks an index against writing permanently. Writes to the TPM.
    pub fn nv_lock(&self, index: u32, by: NvHierarchy, value: &AuthValue) -> Result<(), TpmError> {
        let name = self.nv_public(index)?.name(index);
        self.nv_writing("NV_WriteLock", by, value, |link, used| {
            link.nv_write_lock(used, (index, &name))
        })
    }

    fn nv_writing(
        &self,
        what: &str,
        by: NvHierarchy,
        value: &AuthValue,
        mut command: impl FnMut(&mut Link, AuthHandle) -> Result<(), TpmError>,
    ) -> Result<(), TpmError> {
        let salt_key: Option<SaltKey> = self.salt_key_for(value)?;
        let used = by.by(Auth::by(value.as_bytes(), salt_key.as_ref()));
        let writing = Exchange::new(what).salted(salt_key.as_ref()).writing();
        let done = writing.run(self, |link| command(link, used));
        match by {
            NvHierarchy::Owner => by_owner(done),
            NvHierarchy::Platform => done,
        }
    }
}

/// Returns the numbers of the pieces of `bytes` that are missing in `there`, the content of the NV
/// index. Returns `None` if `there` contains other bytes.
fn missing_pieces(there: &[u8], bytes: &[u8]) -> Option<Vec<usize>> {
    let mut missing = Vec::new();
    for (number, (there, wanted)) in there.chunks(PIECE).zip(bytes.chunks(PIECE)).enumerate() {
        let is_blank = UNWRITTEN
            .iter()
            .any(|blank| there.iter().all(|byte| byte == blank));
        match there == wanted {
            true => {}
            false if is_blank => missing.push(number),
            false => return None,
        }
    }
    Some(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_that_are_missing_are_told_from_other_bytes() {
        let bytes: Vec<u8> = (0..1200_u32).map(|number| number as u8 | 1).collect();
        let mut there = bytes.clone();
        assert_eq!(missing_pieces(&there, &bytes), Some(vec![]));
        there[..PIECE].fill(0xFF);
        there[PIECE..2 * PIECE].fill(0);
        assert_eq!(missing_pieces(&there, &bytes), Some(vec![0, 1]));
        there[3] = 7;
        assert_eq!(missing_pieces(&there, &bytes), None);
    }
}
