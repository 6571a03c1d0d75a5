//! Public areas of NV indices (Part 2, section 13).

use super::Hash;

/// What TPM2_NV_ReadPublic tells of an index (Part 2, section 13.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NvPublic {
    /// TPMA_NV.
    pub attributes: u32,
    /// Bytes that the index holds.
    pub size: u16,
}

impl NvPublic {
    const OWNERREAD: u32 = 1 << 17;
    const AUTHREAD: u32 = 1 << 18;
    const NO_DA: u32 = 1 << 25;
    const WRITTEN: u32 = 1 << 29;
    const READLOCKED: u32 = 1 << 28;

    /// True if the index's own authorisation value allows a read now.
    pub fn readable_by_own_auth(&self) -> bool {
        let needed = Self::AUTHREAD | Self::WRITTEN;
        self.attributes & needed == needed && self.attributes & Self::READLOCKED == 0
    }

    /// True if the owner may read it now.
    pub fn readable_by_owner(&self) -> bool {
        let needed = Self::OWNERREAD | Self::WRITTEN;
        self.attributes & needed == needed && self.attributes & Self::READLOCKED == 0
    }

    /// True if a wrong authorisation value counts towards the lockout of the whole TPM.
    pub fn counts_wrong_auth(&self) -> bool {
        self.attributes & Self::NO_DA == 0
    }
}

impl NvPublic {
    /// TPMS_NV_PUBLIC (Part 2, section 13.5) of an index that is named by SHA-256 and has no policy.
    pub(in crate::tpm) fn area(&self, index: u32) -> Vec<u8> {
        let mut area = index.to_be_bytes().to_vec();
        area.extend(Hash::Sha256.algorithm().to_be_bytes());
        area.extend(self.attributes.to_be_bytes());
        area.extend([0, 0]);
        area.extend(self.size.to_be_bytes());
        area
    }

    /// The index's name (Part 1, section 16).
    pub(in crate::tpm) fn name(&self, index: u32) -> Vec<u8> {
        let algorithm = Hash::Sha256.algorithm().to_be_bytes();
        [&algorithm[..], &Hash::Sha256.digest(&[&self.area(index)])].concat()
    }
}
