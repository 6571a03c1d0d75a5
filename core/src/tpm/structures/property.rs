//! Properties of a TPM (Part 2, section 6.13).

/// A property of TPM_CAP_TPM_PROPERTIES (Part 2, section 6.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// The maximum number of bytes that one TPM2_NV_Read returns.
    NvBufferMax,
    /// The number of failed authorisations that the TPM counts now.
    LockoutCounter,
    /// The number of failed authorisations that causes lockout.
    MaxAuthFail,
    /// The seconds until the TPM forgets one failed authorisation.
    LockoutInterval,
    /// The seconds until the lockout authorisation may be tried again.
    LockoutRecovery,
    /// The manufacturer, as four characters.
    Manufacturer,
    /// The manufacturer's name for the model: characters 1 to 4.
    Vendor1,
    /// The manufacturer's name for the model: characters 5 to 8.
    Vendor2,
    /// The manufacturer's name for the model: characters 9 to 12.
    Vendor3,
    /// The manufacturer's name for the model: characters 13 to 16.
    Vendor4,
    /// The upper half of the firmware version.
    Firmware1,
    /// The lower half of the firmware version.
    Firmware2,
    /// TPMA_PERMANENT: which authorisation values are set, and whether the TPM is in lockout.
    Permanent,
    /// The number of persistent objects.
    Persistent,
    /// The minimum number of further persistent objects that the TPM has room for.
    PersistentRoom,
    /// The maximum size of an NV index in bytes.
    NvIndexMax,
}

impl Property {
    /// The properties about lockout, in the order of their consecutive tags.
    pub(crate) const LOCKOUT: [Self; 3] = [
        Self::LockoutCounter,
        Self::MaxAuthFail,
        Self::LockoutInterval,
    ];

    /// Returns the TPM_PT of the property.
    pub const fn tag(self) -> u32 {
        match self {
            Self::NvBufferMax => 0x12C,
            Self::LockoutCounter => 0x20E,
            Self::MaxAuthFail => 0x20F,
            Self::LockoutInterval => 0x210,
            Self::LockoutRecovery => 0x211,
            Self::Manufacturer => 0x105,
            Self::Vendor1 => 0x106,
            Self::Vendor2 => 0x107,
            Self::Vendor3 => 0x108,
            Self::Vendor4 => 0x109,
            Self::Firmware1 => 0x10B,
            Self::Firmware2 => 0x10C,
            Self::NvIndexMax => 0x117,
            Self::Permanent => 0x200,
            Self::Persistent => 0x208,
            Self::PersistentRoom => 0x209,
        }
    }
}
