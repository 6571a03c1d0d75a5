//! Public areas of NV indices (Part 2, section 13).

use super::Hash;

/// The public area of an NV index, as TPM2_NV_ReadPublic returns it (Part 2, section 13.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NvPublic {
    /// The TPMA_NV of the index.
    pub attributes: u32,
    /// The size of the index in bytes.
    pub size: u16,
}

impl NvPublic {
    const OWNERREAD: u32 = 1 << 17;
    const AUTHREAD: u32 = 1 << 18;
    const NO_DA: u32 = 1 << 25;
    const WRITTEN: u32 = 1 << 29;
    const READLOCKED: u32 = 1 << 28;

    /// Returns true if the authorisation value of the index allows a read now.
    pub fn readable_by_own_auth(&self) -> bool {
        let needed = Self::AUTHREAD | Self::WRITTEN;
        self.attributes & needed == needed && self.attributes & Self::READLOCKED == 0
    }

    /// Returns true if the owner may read the index now.
    pub fn readable_by_owner(&self) -> bool {
        let needed = Self::OWNERREAD | Self::WRITTEN;
        self.attributes & needed == needed && self.attributes & Self::READLOCKED == 0
    }

    /// Returns true if a wrong authorisation value counts towards the lockout of the whole TPM.
    pub fn counts_wrong_auth(&self) -> bool {
        self.attributes & Self::NO_DA == 0
    }
}

impl NvPublic {
    /// Returns the TPMS_NV_PUBLIC (Part 2, section 13.5) of an index with a SHA-256 name and
    /// without policy.
    pub(in crate::tpm) fn area(&self, index: u32) -> Vec<u8> {
        let mut area = index.to_be_bytes().to_vec();
        area.extend(Hash::Sha256.algorithm().to_be_bytes());
        area.extend(self.attributes.to_be_bytes());
        area.extend([0, 0]);
        area.extend(self.size.to_be_bytes());
        area
    }

    /// Returns the TPM name of the index (Part 1, section 16).
    pub(in crate::tpm) fn name(&self, index: u32) -> Vec<u8> {
        let algorithm = Hash::Sha256.algorithm().to_be_bytes();
        [&algorithm[..], &Hash::Sha256.digest(&[&self.area(index)])].concat()
    }
}
