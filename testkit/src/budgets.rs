//! What things may cost. A change that costs more is red: mend it, or argue for the new number here.

/// TPM commands, counted between the module (or a resource manager) and the TPM.
pub mod commands {
    use crate::proxy::command::*;

    /// All slots, mechanisms, objects and attributes of a factory identity: the NV handles, two
    /// commands for each certificate's index, the persistent handles, one command for each key.
    pub const LISTING: usize = 8;
    /// All of that once more: the `Token` is known, and nothing changed.
    pub const LISTING_AGAIN: usize = 0;
    /// A key in a persistent handle: TPM2_Sign.
    pub const SIGNATURE: usize = 1;
    /// A factory key without a handle: TPM2_ContextLoad, Sign, FlushContext.
    pub const SIGNATURE_DERIVED: usize = 3;
    /// A key on the disk and a bare TPM: TPM2_Load, Sign, FlushContext.
    pub const SIGNATURE_WRAPPED: usize = 3;
    /// A key on the disk behind a resource manager, where it stays loaded: TPM2_Sign.
    pub const SIGNATURE_LOADED: usize = 1;
    /// A key in a persistent handle, proven by a PIN.
    pub const SIGNATURE_BY_PIN: &[u32] = &[START_AUTH_SESSION, SIGN];
    /// The same on a TPM with neither a storage root key nor an endorsement key in a handle. Its key for
    /// salts is loaded for the session, and does not stay in a slot that all share. Without salt a
    /// recording would be enough to guess the PIN.
    pub const SIGNATURE_BY_PIN_WITHOUT_ROOT: &[u32] =
        &[CONTEXT_LOAD, START_AUTH_SESSION, FLUSH_CONTEXT, SIGN];
    /// A key on the disk, proven by a PIN: TPM2_Load, StartAuthSession, Sign, FlushContext.
    pub const SIGNATURE_WRAPPED_BY_PIN: usize = 4;
    /// A new key without PIN: the auth session in which the parent proves what it made; the one in which
    /// it proves what it loads; a signature, since the key could be for nothing else than to deceive.
    pub const GENERATION: &[u32] = &[
        START_AUTH_SESSION,
        CREATE,
        START_AUTH_SESSION,
        LOAD,
        SIGN,
        FLUSH_CONTEXT,
    ];
    /// What a persistent handle costs beside that: the search for a free one, and the auth session in
    /// which the master key proves what it put there.
    pub const PERSISTENCE: &[u32] = &[
        GET_CAPABILITY,
        LOAD,
        START_AUTH_SESSION,
        EVICT_CONTROL,
        FLUSH_CONTEXT,
    ];
    /// C_Login on a bare TPM. The seal must not stay in one of the few slots that all share.
    pub const LOGIN: &[u32] = &[
        GET_CAPABILITY,
        LOAD,
        START_AUTH_SESSION,
        UNSEAL,
        FLUSH_CONTEXT,
    ];
    /// The trial of a new seal on a bare TPM, before the PIN is one: as a login, in whose TPM2_Load the
    /// master key proves what it loads.
    pub const TRIAL_OF_A_SEAL: &[u32] = &[
        GET_CAPABILITY,
        START_AUTH_SESSION,
        LOAD,
        START_AUTH_SESSION,
        UNSEAL,
        FLUSH_CONTEXT,
    ];
    /// The first C_Login behind a resource manager, where the seal stays loaded.
    pub const LOGIN_MANAGED: &[u32] = &[GET_CAPABILITY, LOAD, START_AUTH_SESSION, UNSEAL];
    /// Each later one.
    pub const LOGIN_MANAGED_AGAIN: &[u32] = &[GET_CAPABILITY, START_AUTH_SESSION, UNSEAL];
    /// Decryption or key agreement by a key on the disk: TPM2_Load, StartAuthSession, the command,
    /// FlushContext. The auth session encrypts the answer.
    pub const SECRET_WRAPPED: usize = 4;
    /// The same by a key in a persistent handle: no Load, no FlushContext.
    pub const SECRET_PERSISTENT: usize = 2;
}

/// Instructions of the host's thread in user space, counted by callgrind over a debug build, with a
/// twentieth of room for other compilers and C libraries. A TPM command more costs 54 000. Measured on 2026-11-28.
pub mod instructions {
    /// C_SignInit and C_Sign with CKM_ECDSA by a factory key in a persistent handle, in a process
    /// that signed before: measured 896_890.
    pub const SIGNATURE: u64 = 942_000;
    /// A process from its start to C_Finalize: the library is loaded, all objects of the factory
    /// identity are looked at, and its key signs once: measured 35_963_742. Two thirds of it verify the
    /// first signature (2.4 million in a release build): a TPM that signs wrongly is found out there,
    /// and a P-256 signature of a chip takes 36 ms and more.
    pub const COLD_START: u64 = 37_760_000;
}

/// Functions and closures of ours that a steady C_Sign enters by the same key, each counted once: those
/// that a reader of its way has to visit, and small accessors among them. Four of them serve commands
/// with several authorisations, as TPM2_Certify has; a fifth decides whether a message comes in parts.
pub const FUNCTIONS_OF_A_SIGNATURE: u64 = 115;
