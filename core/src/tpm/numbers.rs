//! Numbers of the TPM that several modules use: handles, NV indices, algorithms and command codes.

/// Handles (Part 2, section 7; TCG, Registry of Reserved TPM 2.0 Handles).
pub(crate) mod handle {
    use std::ops::RangeInclusive;

    /// The first NV index.
    pub(crate) const NV_INDEX: u32 = 0x0100_0000;
    /// The first loaded session.
    pub(crate) const LOADED_SESSION: u32 = 0x0200_0000;
    /// The first policy session.
    pub(crate) const POLICY_SESSION: u32 = 0x0300_0000;
    /// The first transient object.
    pub(crate) const TRANSIENT: u32 = 0x8000_0000;
    /// The first persistent object.
    pub(crate) const PERSISTENT: u32 = 0x8100_0000;

    /// TPM_RH_OWNER.
    pub(crate) const OWNER: u32 = 0x4000_0001;
    /// TPM_RH_NULL.
    pub(crate) const NULL: u32 = 0x4000_0007;
    /// TPM_RH_ENDORSEMENT.
    pub(crate) const ENDORSEMENT: u32 = 0x4000_000B;
    /// TPM_RH_PLATFORM.
    pub(crate) const PLATFORM: u32 = 0x4000_000C;

    /// The range of all NV indices.
    pub(crate) const NV_INDICES: RangeInclusive<u32> = NV_INDEX..=0x01FF_FFFF;
    /// The range of NV indices that owners use.
    pub(crate) const OWNER_NV_INDICES: RangeInclusive<u32> = NV_INDEX..=0x01BF_FFFF;
    /// The range of all persistent handles.
    pub(crate) const PERSISTENT_OBJECTS: RangeInclusive<u32> = PERSISTENT..=0x81FF_FFFF;
    /// The range of persistent handles of the platform hierarchy.
    #[cfg_attr(not(feature = "evidence"), allow(dead_code))]
    pub(crate) const PLATFORM_OBJECTS: RangeInclusive<u32> = 0x8180_0000..=0x81FF_FFFF;
    /// The persistent handles for storage keys.
    pub(crate) const STORAGE_KEYS: RangeInclusive<u32> = PERSISTENT..=0x8100_FFFF;
    /// The storage root key (TCG, TPM 2.0 Provisioning Guidance, section 7.8).
    pub(crate) const SRK: u32 = 0x8100_0001;
    /// The second storage root key, on a TPM with two storage root keys.
    pub(crate) const SECOND_SRK: u32 = 0x8100_0002;
    /// The default persistent handle of the master key.
    pub(crate) const MASTER_KEY: u32 = 0x8100_0080;
    /// The handles for the master key if another program uses the default handle.
    pub(crate) const MASTER_KEYS: RangeInclusive<u32> = MASTER_KEY..=0x8100_00FF;
    /// The persistent handles for DevID keys and keys of services, which this project creates.
    pub(crate) const DEVICE_KEYS: RangeInclusive<u32> = 0x8100_0100..=0x8100_01FF;
    /// The persistent handles of the RSA-2048 and P-256 endorsement keys.
    pub(crate) const ENDORSEMENT_KEY_RSA: u32 = 0x8101_0001;
    pub(crate) const ENDORSEMENT_KEY_P256: u32 = 0x8101_0002;
    /// The range of persistent handles for endorsement keys.
    pub(crate) const ENDORSEMENT_KEYS: RangeInclusive<u32> = 0x8101_0000..=0x8101_FFFF;
    /// The IDevID key (TCG, TPM 2.0 Provisioning Guidance, section 7.8).
    pub(crate) const IDEVID_KEY: u32 = 0x8102_0000;
    /// The handles for keys of device identities.
    pub(crate) const DEVID_KEYS: RangeInclusive<u32> = IDEVID_KEY..=0x8102_FFFF;

    /// NV indices of DevID certificates and their chains.
    pub(crate) const DEVID_CERTIFICATES: RangeInclusive<u32> = 0x01C9_0000..=0x01C9_FFFF;
}

/// TPM_ALG_ID (Part 2, section 6.3).
pub(super) mod algorithm {
    pub(in crate::tpm) const RSA: u16 = 0x0001;
    pub(in crate::tpm) const SHA1: u16 = 0x0004;
    pub(in crate::tpm) const AES: u16 = 0x0006;
    pub(in crate::tpm) const KEYEDHASH: u16 = 0x0008;
    pub(in crate::tpm) const SHA256: u16 = 0x000B;
    pub(in crate::tpm) const SHA384: u16 = 0x000C;
    pub(in crate::tpm) const SHA512: u16 = 0x000D;
    pub(in crate::tpm) const NULL: u16 = 0x0010;
    pub(in crate::tpm) const RSASSA: u16 = 0x0014;
    pub(in crate::tpm) const RSAPSS: u16 = 0x0016;
    pub(in crate::tpm) const ECDSA: u16 = 0x0018;
    pub(in crate::tpm) const ECDH: u16 = 0x0019;
    pub(in crate::tpm) const ECC: u16 = 0x0023;
    pub(in crate::tpm) const CFB: u16 = 0x0043;
}

/// TPM_CC (Part 2, section 6.5.2).
pub(super) mod command_code {
    pub(in crate::tpm) const CREATE_PRIMARY: u32 = 0x131;
    pub(in crate::tpm) const ACTIVATE_CREDENTIAL: u32 = 0x147;
    pub(in crate::tpm) const CERTIFY: u32 = 0x148;
    pub(in crate::tpm) const POLICY_SECRET: u32 = 0x151;
    pub(in crate::tpm) const CREATE: u32 = 0x153;
    pub(in crate::tpm) const IMPORT: u32 = 0x156;
    pub(in crate::tpm) const POLICY_COMMAND_CODE: u32 = 0x16C;
    pub(in crate::tpm) const POLICY_OR: u32 = 0x171;
    pub(in crate::tpm) const CREATE_LOADED: u32 = 0x191;
    pub(in crate::tpm) const POLICY_AUTHORIZE_NV: u32 = 0x192;
}
