//! The codes of commands and answers that tests use (TPM 2.0 Part 2, 6.5 and 6.6).

/// TPM_CC: the commands that tests use.
pub mod command {
    macro_rules! commands {
        ($($name:ident = $code:literal,)*) => {
            $(pub const $name: u32 = $code;)*

            /// Returns the name of a command, or its number if tests do not use the command.
            pub fn name(code: u32) -> String {
                match code {
                    $($name => stringify!($name).to_owned(),)*
                    _ => format!("{code:#x}"),
                }
            }
        };
    }

    commands! {
        EVICT_CONTROL = 0x120,
        NV_DEFINE_SPACE = 0x12A,
        CREATE_PRIMARY = 0x131,
        NV_WRITE = 0x137,
        NV_WRITE_LOCK = 0x138,
        NV_READ = 0x14E,
        CREATE = 0x153,
        ECDH_ZGEN = 0x154,
        IMPORT = 0x156,
        LOAD = 0x157,
        RSA_DECRYPT = 0x159,
        SIGN = 0x15D,
        UNSEAL = 0x15E,
        CONTEXT_LOAD = 0x161,
        CONTEXT_SAVE = 0x162,
        FLUSH_CONTEXT = 0x165,
        NV_READ_PUBLIC = 0x169,
        READ_PUBLIC = 0x173,
        START_AUTH_SESSION = 0x176,
        GET_CAPABILITY = 0x17A,
        GET_RANDOM = 0x17B,
        TEST_PARMS = 0x18A,
    }
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
