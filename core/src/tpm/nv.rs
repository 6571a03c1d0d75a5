//! NV indices of ours: a copy of something that must outlive the disk.

use super::exchange::Exchange;
use super::own::by_owner;
use super::{Auth, AuthValue, Hash, NvPublic, Property, Tpm, TpmError, Used};

/// OWNERWRITE, PPREAD, OWNERREAD, AUTHREAD, NO_DA: whoever reaches the TPM reads it, only the owner
/// writes it.
const ATTRIBUTES: u32 = 0x0207_0002;
const WRITTEN: u32 = 1 << 29;
/// The most that is written at once; no TPM takes less.
const PIECE: usize = 512;

/// What an NV index holds that is to be ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NvKept {
    /// Nothing yet, or what a writer left that was killed.
    Free,
    /// These bytes, in an index that is defined as ours are.
    Ours(Vec<u8>),
    /// The index is defined otherwise, so it is somebody else's; what it holds, if it can be read.
    Foreign(Option<Vec<u8>>),
}

impl Tpm {
    /// Keeps these bytes at an NV index, in the place of what was kept there before. Writes to the
    /// TPM, but not what is there already.
    ///
    /// # Errors
    ///
    /// [`TpmError::Unsupported`] if the index is not one of ours, or holds no so many bytes. What was
    /// kept stays, if the TPM refuses the new.
    pub fn nv_keep(&self, index: u32, bytes: &[u8], owner: &AuthValue) -> Result<(), TpmError> {
        let most = self.nv_most()?;
        if bytes.len() > most {
            return Err(TpmError::Unsupported(format!(
                "{} bytes are too many for an NV index of this TPM, which holds {most}",
                bytes.len()
            )));
        }
        let before = match self.nv_kept(index, owner)? {
            NvKept::Ours(kept) if kept == bytes => return Ok(()),
            NvKept::Ours(kept) => Some(kept),
            NvKept::Free => None,
            NvKept::Foreign(_) => {
                return Err(TpmError::Unsupported(format!(
                    "NV index 0x{index:08X} is somebody else's"
                )));
            }
        };
        self.nv_forget(index, owner)?;
        let put = self.nv_put(index, bytes, owner);
        if let (Err(TpmError::Response(_) | TpmError::OwnerAuth), Some(before)) = (&put, before) {
            self.nv_forget(index, owner)?;
            self.nv_put(index, &before, owner)?;
        }
        put
    }

    /// The most bytes that an index holds. Where the TPM does not tell it, or tells 0, as many as can be
    /// asked for: the TPM refuses what is too much, and nothing is lost by that.
    pub fn nv_most(&self) -> Result<usize, TpmError> {
        let most = self.property(Property::NvIndexMax)?;
        let most = most.filter(|most| *most > 0);
        let most = most.and_then(|most| u16::try_from(most).ok());
        Ok(most.unwrap_or(u16::MAX).into())
    }

    /// Defines the index, which is free, and fills it.
    fn nv_put(&self, index: u32, bytes: &[u8], owner: &AuthValue) -> Result<(), TpmError> {
        let size = bytes.len() as u16;
        let salt_key = self.salt_key_for(owner)?;
        let used = Used::owner(Auth::by(owner.as_bytes(), salt_key.as_ref()));
        let mut public = NvPublic {
            attributes: ATTRIBUTES,
            size,
        };
        let defining = Exchange::new("NV_DefineSpace")
            .salted(salt_key.as_ref())
            .writing();
        by_owner(defining.run(self, |link| link.nv_define(used, index, public)))?;
        // The beginning last: without it nobody takes the rest for something.
        for (number, piece) in bytes.chunks(PIECE).enumerate().rev() {
            let name = public.name(index);
            let offset = (number * PIECE) as u16;
            let writing = Exchange::new("NV_Write")
                .salted(salt_key.as_ref())
                .writing();
            let written = writing.run(self, |link| {
                link.nv_write(used, (index, &name), offset, piece)
            });
            by_owner(written)?;
            public.attributes |= WRITTEN;
        }
        Ok(())
    }

    /// What is kept there.
    pub fn nv_kept(&self, index: u32, owner: &AuthValue) -> Result<NvKept, TpmError> {
        let about = match self.nv_public(index) {
            Err(TpmError::Response(code)) if code.is_missing_handle() => return Ok(NvKept::Free),
            other => other?,
        };
        match about.attributes {
            ATTRIBUTES => Ok(NvKept::Free),
            attributes if attributes == ATTRIBUTES | WRITTEN => {
                let bytes = self.nv_read(index, about.size)?;
                // What was not written yet is all alike, and the beginning is written last.
                let first = &bytes[..bytes.len().min(PIECE)];
                let begun = first.iter().any(|byte| *byte != first[0]);
                Ok(match begun || bytes.len() <= PIECE {
                    true => NvKept::Ours(bytes),
                    false => NvKept::Free,
                })
            }
            _ => Ok(NvKept::Foreign(self.nv_of_others(index, about, owner)?)),
        }
    }

    /// What somebody else keeps there; `None` if we may not know. No wrong value is tried that would
    /// count towards lockout.
    fn nv_of_others(
        &self,
        index: u32,
        about: NvPublic,
        owner: &AuthValue,
    ) -> Result<Option<Vec<u8>>, TpmError> {
        let read = if about.readable_by_own_auth() && !about.counts_wrong_auth() {
            self.nv_read(index, about.size)
        } else if about.readable_by_owner() {
            self.nv_read_by_owner(index, about, owner)
        } else {
            return Ok(None);
        };
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(
                TpmError::Response(_)
                | TpmError::OwnerAuth
                | TpmError::NeedsAuth(_)
                | TpmError::Unsupported(_),
            ) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the index away, if there is one of ours; somebody else's stays. Writes to the TPM.
    pub fn nv_forget(&self, index: u32, owner: &AuthValue) -> Result<(), TpmError> {
        let about = match self.nv_public(index) {
            Err(TpmError::Response(code)) if code.is_missing_handle() => return Ok(()),
            other => other?,
        };
        if about.attributes & !WRITTEN != ATTRIBUTES {
            return Ok(());
        }
        let salt_key = self.salt_key_for(owner)?;
        let used = Used::owner(Auth::by(owner.as_bytes(), salt_key.as_ref()));
        let name = about.name(index);
        let undefining = Exchange::new("NV_UndefineSpace")
            .salted(salt_key.as_ref())
            .writing();
        by_owner(undefining.run(self, |link| link.nv_undefine(used, (index, &name))))
    }
}

impl NvPublic {
    /// TPMS_NV_PUBLIC (Part 2, section 13.5) of an index that is named by SHA-256 and has no policy.
    pub(super) fn area(&self, index: u32) -> Vec<u8> {
        let mut area = index.to_be_bytes().to_vec();
        area.extend(Hash::Sha256.algorithm().to_be_bytes());
        area.extend(self.attributes.to_be_bytes());
        area.extend([0, 0]);
        area.extend(self.size.to_be_bytes());
        area
    }

    /// The index's name (Part 1, section 16).
    pub(super) fn name(&self, index: u32) -> Vec<u8> {
        let algorithm = Hash::Sha256.algorithm().to_be_bytes();
        [&algorithm[..], &Hash::Sha256.digest(&[&self.area(index)])].concat()
    }
}
