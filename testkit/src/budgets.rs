//! Cost limits. A change that exceeds a limit fails a test. Reduce the cost of the change, or
//! change the number in this file and give the reason.

/// TPM commands, counted between the module (or a resource manager) and the TPM.
pub mod commands {
    use crate::proxy::command::*;

    /// A listing of all slots, mechanisms, objects and attributes of a factory identity. The
    /// commands are the list of NV handles, two for each certificate, the list of persistent
    /// handles, and one for each key.
    pub const LISTING: usize = 8;
    /// A second listing without changes. The `Token` is known already.
    pub const LISTING_AGAIN: usize = 0;
    /// A signature by a key in a persistent handle: TPM2_Sign.
    pub const SIGNATURE: usize = 1;
    /// A signature by a factory key without a handle: TPM2_ContextLoad, Sign, FlushContext.
    pub const SIGNATURE_DERIVED: usize = 3;
    /// A signature by a key in a file, on a bare TPM: TPM2_Load, Sign, FlushContext.
    pub const SIGNATURE_WRAPPED: usize = 3;
    /// A signature by a key in a file behind a resource manager, where the key stays loaded:
    /// TPM2_Sign.
    pub const SIGNATURE_LOADED: usize = 1;
    /// A signature by a key in a persistent handle, with a PIN.
    pub const SIGNATURE_BY_PIN: &[u32] = &[START_AUTH_SESSION, SIGN];
    /// A signature by a key in a persistent handle with a PIN, on a TPM without storage root key
    /// and endorsement key in handles. The key for salts is loaded only for the session, because
    /// all programs share the slots. Without a salt, an attacker could guess the PIN from a
    /// recording of the bus.
    pub const SIGNATURE_BY_PIN_WITHOUT_ROOT: &[u32] =
        &[CONTEXT_LOAD, START_AUTH_SESSION, FLUSH_CONTEXT, SIGN];
    /// A signature by a key in a file, with a PIN: TPM2_Load, StartAuthSession, Sign, FlushContext.
    pub const SIGNATURE_WRAPPED_BY_PIN: usize = 4;
    /// The generation of a key without PIN. An auth session proves that the parent created the key,
    /// and another auth session proves the load. A signature proves the key itself.
    pub const GENERATION: &[u32] = &[
        START_AUTH_SESSION,
        CREATE,
        START_AUTH_SESSION,
        LOAD,
        SIGN,
        FLUSH_CONTEXT,
    ];
    /// The additional cost of a key in a persistent handle. A free handle is searched, and the
    /// master key proves the new object in an auth session.
    pub const PERSISTENCE: &[u32] = &[
        GET_CAPABILITY,
        LOAD,
        START_AUTH_SESSION,
        EVICT_CONTROL,
        FLUSH_CONTEXT,
    ];
    /// C_Login on a bare TPM. The sealed object must not stay in a slot, because all programs share
    /// the slots.
    pub const LOGIN: &[u32] = &[
        GET_CAPABILITY,
        LOAD,
        START_AUTH_SESSION,
        UNSEAL,
        FLUSH_CONTEXT,
    ];
    /// The test of a new sealed object on a bare TPM. The commands are those of a login, and the
    /// master key also proves the load.
    pub const TRIAL_OF_A_SEAL: &[u32] = &[
        GET_CAPABILITY,
        START_AUTH_SESSION,
        LOAD,
        START_AUTH_SESSION,
        UNSEAL,
        FLUSH_CONTEXT,
    ];
    /// The first C_Login behind a resource manager, where the sealed object stays loaded.
    pub const LOGIN_MANAGED: &[u32] = &[GET_CAPABILITY, LOAD, START_AUTH_SESSION, UNSEAL];
    /// Each later C_Login behind a resource manager.
    pub const LOGIN_MANAGED_AGAIN: &[u32] = &[GET_CAPABILITY, START_AUTH_SESSION, UNSEAL];
    /// A decryption or key agreement by a key in a file: TPM2_Load, StartAuthSession, the command,
    /// FlushContext. The auth session encrypts the answer.
    pub const SECRET_WRAPPED: usize = 4;
    /// A decryption or key agreement by a key in a persistent handle, without Load and
    /// FlushContext.
    pub const SECRET_PERSISTENT: usize = 2;
}

/// Instructions of the host's thread in user space, counted by callgrind with a debug build. The
/// limits are five percent above the measured values, for other compilers and C libraries. One more
/// TPM command costs far more than these five percent. Measured on 2026-11-29.
pub mod instructions {
    /// C_SignInit and C_Sign with CKM_ECDSA by a factory key in a persistent handle, in a process
    /// that has signed before. Measured: 88_390.
    pub const SIGNATURE: u64 = 92_800;
    /// A process from its start to C_Finalize. The process loads the library, reads all objects of
    /// the factory identity, and signs once. Measured: 4_811_323. A sixth of this cost verifies the
    /// first signature by aws-lc, which detects a TPM that signs wrongly. The portable crates would
    /// need 30 million instructions for this check.
    pub const COLD_START: u64 = 5_052_000;
}

/// The number of functions and closures of this project that a repeated C_Sign with one key enters.
/// Each is counted once; small accessors count too. A person who reads this path must read all of
/// them. Four of them serve commands with several authorisations, like TPM2_Certify. A fifth
/// decides if a message comes in parts. Two give the NULL ticket, because restricted keys sign with
/// a ticket of TPM2_Hash.
pub const FUNCTIONS_OF_A_SIGNATURE: u64 = 117;

/// The heap bytes for a listed P-256 key pair in a file. The bytes hold both objects with their
/// encoded attributes, the wrapped key, and the facts about its file. Measured: 5_676 on
/// 2026-11-29.
pub const HEAP_OF_A_KEY: u64 = 6_000;

/// Fails unless a cost is within its budget and at least half of it. A budget that is too large
/// would detect no increase.
#[track_caller]
pub fn is_within(what: &str, cost: u64, budget: u64) {
    println!("{what}: {cost}, budget {budget}");
    assert!(
        cost <= budget,
        "{what}: {cost}; the budget in testkit/src/budgets.rs is {budget}"
    );
    assert!(
        cost >= budget / 2,
        "{what}: only {cost}: lower the budget in testkit/src/budgets.rs"
    );
}
