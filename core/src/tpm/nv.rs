//! NV indices of ours: a copy of something that must outlive the disk.

use super::exchange::Manner;
use super::{Auth, AuthValue, Hash, NvPublic, Tpm, TpmError, Used};

/// OWNERWRITE, PPREAD, OWNERREAD, AUTHREAD, NO_DA: whoever reaches the TPM reads it, only the owner
/// writes it.
const ATTRIBUTES: u32 = 0x0207_0002;
const WRITTEN: u32 = 1 << 29;
/// The most that is written at once; no TPM takes less.
const PIECE: usize = 512;

impl Tpm {
    /// Keeps these bytes at an NV index, in the place of what was kept there before. Writes to the
    /// TPM, but not what is there already.
    ///
    /// # Errors
    ///
    /// [`TpmError::Unsupported`] if the index is not one of ours.
    pub fn nv_keep(&self, index: u32, bytes: &[u8], owner: &AuthValue) -> Result<(), TpmError> {
        let size = u16::try_from(bytes.len());
        let size = size.map_err(|_| TpmError::Unsupported("too much for an NV index".into()))?;
        if self.nv_kept(index)?.as_deref() == Some(bytes) {
            return Ok(());
        }
        self.nv_forget(index, owner)?;
        let salt_key = self.salt_key_for(owner)?;
        let used = Used::owner(Auth::by(owner.as_bytes(), salt_key.as_ref()));
        let writing = Manner::READS.writing();
        let mut public = NvPublic {
            attributes: ATTRIBUTES,
            size,
        };
        self.exchange("NV_DefineSpace", writing, |link| {
            link.nv_define(used, index, public)
        })?;
        for (number, piece) in bytes.chunks(PIECE).enumerate() {
            let name = public.name(index);
            let offset = (number * PIECE) as u16;
            self.exchange("NV_Write", writing, |link| {
                link.nv_write(used, (index, &name), offset, piece)
            })?;
            public.attributes |= WRITTEN;
        }
        Ok(())
    }

    /// What is kept there; `None` if nothing is. Of what a writer was killed at, only the beginning
    /// is right.
    ///
    /// # Errors
    ///
    /// As of [`nv_keep`](Self::nv_keep).
    pub fn nv_kept(&self, index: u32) -> Result<Option<Vec<u8>>, TpmError> {
        let about = match self.nv_public(index) {
            Err(TpmError::Response(code)) if code.is_missing_handle() => return Ok(None),
            other => other?,
        };
        match about.attributes {
            ATTRIBUTES => Ok(None),
            attributes if attributes == ATTRIBUTES | WRITTEN => {
                self.nv_read(index, about.size).map(Some)
            }
            _ => Err(TpmError::Unsupported(format!(
                "NV index 0x{index:08X} is somebody else's; name another one in [provision] \
                 nv_index"
            ))),
        }
    }

    /// Takes the index away, if there is one of ours. Writes to the TPM.
    ///
    /// # Errors
    ///
    /// As of [`nv_keep`](Self::nv_keep).
    pub fn nv_forget(&self, index: u32, owner: &AuthValue) -> Result<(), TpmError> {
        let about = match self.nv_public(index) {
            Err(TpmError::Response(code)) if code.is_missing_handle() => return Ok(()),
            other => other?,
        };
        self.nv_kept(index)?; // or it is somebody else's
        let salt_key = self.salt_key_for(owner)?;
        let used = Used::owner(Auth::by(owner.as_bytes(), salt_key.as_ref()));
        let name = about.name(index);
        self.exchange("NV_UndefineSpace", Manner::READS.writing(), |link| {
            link.nv_undefine(used, (index, &name))
        })
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
    fn name(&self, index: u32) -> Vec<u8> {
        let algorithm = Hash::Sha256.algorithm().to_be_bytes();
        [&algorithm[..], &Hash::Sha256.digest(&[&self.area(index)])].concat()
    }
}
