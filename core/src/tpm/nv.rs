//! NV indices of this project. They contain copies that must survive the loss of the disk.

use super::exchange::{AuthSubject, Exchange};
use super::storage::by_owner;
use super::{Auth, AuthHandle, AuthValue, NvPublic, Property, Tpm, TpmError};

/// The size of a TPM2_NV_Read before the TPM reported its limit, or if the TPM reports none.
const NV_CHUNK_UNASKED: u16 = 512;
const NV_CHUNK_MOST: u32 = 2048;

/// TPMA_NV: OWNERWRITE, PPREAD, OWNERREAD, AUTHREAD, NO_DA. Every user of the TPM can read the
/// index; only the owner can write it.
const ATTRIBUTES: u32 = 0x0207_0002;
pub(super) const WRITTEN: u32 = 1 << 29;
/// The size of the largest write in one command. Every TPM accepts this size.
pub(super) const PIECE: usize = 512;

/// The content of an NV index in which this project stores data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NvContent {
    /// The NV index is free, or a killed process left the index incomplete.
    Free,
    /// The content of an NV index that has the attributes of this project.
    Ours(Vec<u8>),
    /// The index has other attributes, so it belongs to another program. The value is the content
    /// of the index, if this process can read it.
    Foreign(Option<Vec<u8>>),
}

impl Tpm {
    /// Reads the public area of an NV index.
    pub fn nv_public(&self, index: u32) -> Result<NvPublic, TpmError> {
        Exchange::new("NV_ReadPublic").run(self, |link| link.nv_read_public(index))
    }

    /// Reads `size` bytes of an NV index, with the index's own empty authorisation value. Sends as
    /// many commands as the TPM needs.
    pub fn nv_read(&self, index: u32, size: u16) -> Result<Vec<u8>, TpmError> {
        let (id, name) = (index.to_be_bytes(), format!("NV index 0x{index:08X}"));
        self.in_pieces(size, |offset, size| {
            let exchange = Exchange::authorised("NV_Read", AuthSubject::open(&id, &name), None);
            exchange.run(self, |link| {
                // The empty value needs no session, so the name of the index is not needed.
                link.nv_read(AuthHandle::open(index, &[]), (index, &[]), offset, size)
            })
        })
    }

    /// Reads an NV index with the owner's authorisation value.
    pub(super) fn nv_read_by_owner(
        &self,
        index: u32,
        about: NvPublic,
        owner: &AuthValue,
    ) -> Result<Vec<u8>, TpmError> {
        let salt_key = self.salt_key_for(owner)?;
        let used = AuthHandle::owner(Auth::by(owner.as_bytes(), salt_key.as_ref()));
        let name = about.name(index);
        self.in_pieces(about.size, |offset, size| {
            let reading = Exchange::new("NV_Read")
                .salted(salt_key.as_ref())
                .showing_owner(owner);
            by_owner(reading.run(self, |link| {
                link.nv_read(used, (index, &name), offset, size)
            }))
        })
    }

    fn in_pieces(
        &self,
        size: u16,
        read: impl Fn(u16, u16) -> Result<Vec<u8>, TpmError>,
    ) -> Result<Vec<u8>, TpmError> {
        let chunk = match size {
            ..=NV_CHUNK_UNASKED => NV_CHUNK_UNASKED,
            _ => self.nv_chunk()?,
        };
        let mut data = Vec::with_capacity(size.into());
        while data.len() < size.into() {
            let offset = data.len() as u16;
            let piece = read(offset, chunk.min(size - offset))?;
            if piece.is_empty() || piece.len() > usize::from(size - offset) {
                return Err(TpmError::WrongAnswer(format!(
                    "NV_Read gave {} bytes",
                    piece.len()
                )));
            }
            data.extend(piece);
        }
        Ok(data)
    }

    fn nv_chunk(&self) -> Result<u16, TpmError> {
        self.nv_chunk
            .get_or_try_init(|| {
                // One command returns far fewer than 64 KiB.
                let most = self.property(Property::NvBufferMax)?;
                let most = most.filter(|most| *most > 0);
                Ok(most.map_or(NV_CHUNK_UNASKED, |most| most.min(NV_CHUNK_MOST) as u16))
            })
            .copied()
    }

    /// Stores these bytes at an NV index, and replaces the earlier content. Writes to the TPM only
    /// if the bytes differ.
    ///
    /// # Errors
    ///
    /// [`TpmError::Unsupported`] if the index belongs to another program, or if the bytes are too
    /// many for an index. If the TPM refuses the new bytes, the earlier content is kept.
    pub fn nv_store(&self, index: u32, bytes: &[u8], owner: &AuthValue) -> Result<(), TpmError> {
        let most = self.nv_index_max()?;
        if bytes.len() > most {
            return Err(TpmError::Unsupported(format!(
                "{} bytes are too many for an NV index of this TPM, which holds {most}",
                bytes.len()
            )));
        }
        let before = match self.nv_content(index, owner)? {
            NvContent::Ours(kept) if kept == bytes => return Ok(()),
            NvContent::Ours(kept) => Some(kept),
            NvContent::Free => None,
            NvContent::Foreign(_) => {
                return Err(TpmError::Unsupported(format!(
                    "NV index 0x{index:08X} belongs to another program"
                )));
            }
        };
        self.nv_remove(index, owner)?;
        let put = self.nv_define_and_write(index, bytes, owner);
        if let (Err(TpmError::Response(_) | TpmError::OwnerAuth), Some(before)) = (&put, before) {
            self.nv_remove(index, owner)?;
            self.nv_define_and_write(index, &before, owner)?;
        }
        put
    }

    /// Returns the largest size of an NV index. If the TPM reports no size or 0, returns the
    /// largest number of the field. The TPM refuses a size that is too large, and nothing is lost.
    pub fn nv_index_max(&self) -> Result<usize, TpmError> {
        let most = self.property(Property::NvIndexMax)?;
        let most = most.filter(|most| *most > 0);
        let most = most.and_then(|most| u16::try_from(most).ok());
        Ok(most.unwrap_or(u16::MAX).into())
    }

    /// Defines a free index and writes the bytes to the index.
    fn nv_define_and_write(
        &self,
        index: u32,
        bytes: &[u8],
        owner: &AuthValue,
    ) -> Result<(), TpmError> {
        let size = bytes.len() as u16;
        let salt_key = self.salt_key_for(owner)?;
        let used = AuthHandle::owner(Auth::by(owner.as_bytes(), salt_key.as_ref()));
        let mut public = NvPublic {
            attributes: ATTRIBUTES,
            size,
        };
        let defining = Exchange::new("NV_DefineSpace")
            .salted(salt_key.as_ref())
            .writing();
        by_owner(defining.run(self, |link| link.nv_define(used, index, public)))?;
        // The first bytes are written last, so that readers ignore an incomplete index.
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

    /// Reads the content of an NV index that this project defined.
    pub fn nv_content(&self, index: u32, owner: &AuthValue) -> Result<NvContent, TpmError> {
        let about = match self.nv_public(index) {
            Err(TpmError::Response(code)) if code.is_missing_handle() => {
                return Ok(NvContent::Free);
            }
            other => other?,
        };
        match about.attributes {
            ATTRIBUTES => Ok(NvContent::Free),
            attributes if attributes == ATTRIBUTES | WRITTEN => {
                let bytes = self.nv_read(index, about.size)?;
                // Unwritten bytes are all equal. Because the first bytes are written last, a
                // complete index begins with bytes that differ.
                let first = &bytes[..bytes.len().min(PIECE)];
                let begun = first.iter().any(|byte| *byte != first[0]);
                Ok(match begun || bytes.len() <= PIECE {
                    true => NvContent::Ours(bytes),
                    false => NvContent::Free,
                })
            }
            _ => Ok(NvContent::Foreign(self.nv_of_others(index, about, owner)?)),
        }
    }

    /// Reads the content of another program's index. Returns `None` if this process may not read
    /// it. Never sends a wrong value that would count towards lockout.
    pub(super) fn nv_of_others(
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

    /// Removes the index if it has this project's attributes. Keeps an index of another program.
    /// Writes to the TPM.
    pub fn nv_remove(&self, index: u32, owner: &AuthValue) -> Result<(), TpmError> {
        let about = match self.nv_public(index) {
            Err(TpmError::Response(code)) if code.is_missing_handle() => return Ok(()),
            other => other?,
        };
        if about.attributes & !WRITTEN != ATTRIBUTES {
            return Ok(());
        }
        let salt_key = self.salt_key_for(owner)?;
        let used = AuthHandle::owner(Auth::by(owner.as_bytes(), salt_key.as_ref()));
        let name = about.name(index);
        let undefining = Exchange::new("NV_UndefineSpace")
            .salted(salt_key.as_ref())
            .writing();
        by_owner(undefining.run(self, |link| link.nv_undefine(used, (index, &name))))
    }
}
