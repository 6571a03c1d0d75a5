//! The statement of a TPM about a key, which an attestation key signs (Part 2, section 10.12.12,
//! TPMS_ATTEST).

/// TPM_GENERATED_VALUE. An attestation key never signs data from outside that begin with this
/// value.
pub(crate) const TPM_GENERATED: u32 = 0xFF54_4347;
/// TPM_ST_ATTEST_CERTIFY
pub(crate) const ATTEST_CERTIFY: u16 = 0x8017;
/// The size of a TPMS_CLOCK_INFO and of the firmware version, in bytes.
const CLOCK_AND_FIRMWARE: usize = 17 + 8;

/// A TPMS_ATTEST whose attested part is two TPM2Bs, as for TPM2_Certify. `magic` and the type are
/// read but not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attest<'a> {
    pub(crate) magic: u32,
    pub(crate) kind: u16,
    /// The qualified name of the attestation key.
    pub(crate) qualified_signer: &'a [u8],
    /// The nonce that the caller of the command gave.
    pub(crate) extra_data: &'a [u8],
    /// The name of the certified object.
    pub(crate) name: &'a [u8],
}

impl<'a> Attest<'a> {
    /// Parses a TPMS_ATTEST. Returns `None` for another structure, or if more bytes follow.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk()?;
        let (kind, rest) = rest.split_first_chunk()?;
        let (qualified_signer, rest) = split_sized(rest)?;
        let (extra_data, rest) = split_sized(rest)?;
        let rest = rest.get(CLOCK_AND_FIRMWARE..)?;
        let (name, rest) = split_sized(rest)?;
        let (_qualified_name, rest) = split_sized(rest)?;
        rest.is_empty().then_some(Self {
            magic: u32::from_be_bytes(*magic),
            kind: u16::from_be_bytes(*kind),
            qualified_signer,
            extra_data,
            name,
        })
    }
}

/// Returns the content of the TPM2B at the start of `bytes`, and the bytes after the TPM2B.
pub(crate) fn split_sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(*size).into())
}
