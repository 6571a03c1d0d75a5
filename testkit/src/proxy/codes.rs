//! The codes of commands and answers that tests use (TPM 2.0 Part 2, 6.5 and 6.6).

/// TPM_CC: the commands that tests use.
pub mod command {
    pub const CONTEXT_LOAD: u32 = 0x161;
    pub const CREATE_PRIMARY: u32 = 0x131;
    pub const CREATE: u32 = 0x153;
    pub const TEST_PARMS: u32 = 0x18A;
    pub const IMPORT: u32 = 0x156;
    pub const EVICT_CONTROL: u32 = 0x120;
    pub const FLUSH_CONTEXT: u32 = 0x165;
    pub const LOAD: u32 = 0x157;
    pub const START_AUTH_SESSION: u32 = 0x176;
    pub const UNSEAL: u32 = 0x15E;
    pub const NV_READ: u32 = 0x14E;
    pub const NV_READ_PUBLIC: u32 = 0x169;
    pub const SIGN: u32 = 0x15D;
    pub const RSA_DECRYPT: u32 = 0x159;
    pub const READ_PUBLIC: u32 = 0x173;
    pub const GET_CAPABILITY: u32 = 0x17A;
    pub const GET_RANDOM: u32 = 0x17B;
    pub const NV_DEFINE_SPACE: u32 = 0x12A;
    pub const NV_WRITE: u32 = 0x137;
    pub const NV_WRITE_LOCK: u32 = 0x138;
}

/// TPM_RC: the answers that tests inject.
pub mod answer {
    pub const FAILURE: u32 = 0x101;
    pub const NV_RATE: u32 = 0x920;
    pub const LOCKOUT: u32 = 0x921;
    pub const OBJECT_MEMORY: u32 = 0x902;
    pub const RETRY: u32 = 0x922;
    pub const TESTING: u32 = 0x90A;
    pub const YIELDED: u32 = 0x908;
}
