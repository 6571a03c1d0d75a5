//! Cost limits. A change that costs more fails a test: improve the change, or justify the new
//! number here.

/// TPM commands, counted between the module (or a resource manager) and the TPM.
pub mod commands {
    use crate::proxy::command::*;

    /// All slots, mechanisms, objects and attributes of a factory identity. Commands: the list of
    /// NV handles, two for each certificate, the list of persistent handles, one for each key.
    pub const LISTING: usize = 8;
    /// The second time: the `Token` is known, and nothing changed.
    pub const LISTING_AGAIN: usize = 0;
    /// A key in a persistent handle: TPM2_Sign.
    pub const SIGNATURE: usize = 1;
    /// A factory key without a handle: TPM2_ContextLoad, Sign, FlushContext.
    pub const SIGNATURE_DERIVED: usize = 3;
    /// A key in a file on a bare TPM: TPM2_Load, Sign, FlushContext.
    pub const SIGNATURE_WRAPPED: usize = 3;
    /// A key in a file behind a resource manager, where it stays loaded: TPM2_Sign.
    pub const SIGNATURE_LOADED: usize = 1;
    /// A key in a persistent handle, with a PIN.
    pub const SIGNATURE_BY_PIN: &[u32] = &[START_AUTH_SESSION, SIGN];
    /// The same key on a TPM without storage root key and endorsement key in handles. Its key for
    /// salts is loaded for the session only, since all programs share the slots. Without a salt, an
    /// attacker could guess the PIN from a recording.
    pub const SIGNATURE_BY_PIN_WITHOUT_ROOT: &[u32] =
        &[CONTEXT_LOAD, START_AUTH_SESSION, FLUSH_CONTEXT, SIGN];
    /// A key in a file, with a PIN: TPM2_Load, StartAuthSession, Sign, FlushContext.
    pub const SIGNATURE_WRAPPED_BY_PIN: usize = 4;
    /// A new key without PIN. One auth session proves the creation by the parent, another the load.
    /// A signature proves the key, since a false key could serve only to deceive.
    pub const GENERATION: &[u32] = &[
        START_AUTH_SESSION,
        CREATE,
        START_AUTH_SESSION,
        LOAD,
        SIGN,
        FLUSH_CONTEXT,
    ];
    /// The additional cost of a persistent handle. The handle is searched, and the master key
    /// proves the new object in an auth session.
    pub const PERSISTENCE: &[u32] = &[
        GET_CAPABILITY,
        LOAD,
        START_AUTH_SESSION,
        EVICT_CONTROL,
        FLUSH_CONTEXT,
    ];
    /// C_Login on a bare TPM. The seal must not stay in a slot, since all programs share the slots.
    pub const LOGIN: &[u32] = &[
        GET_CAPABILITY,
        LOAD,
        START_AUTH_SESSION,
        UNSEAL,
        FLUSH_CONTEXT,
    ];
    /// The test of a new seal on a bare TPM. Like a login, but the master key also proves the load.
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
    /// Each later login.
    pub const LOGIN_MANAGED_AGAIN: &[u32] = &[GET_CAPABILITY, START_AUTH_SESSION, UNSEAL];
    /// Decryption or key agreement by a key in a file: TPM2_Load, StartAuthSession, the command,
    /// FlushContext. The auth session encrypts the answer.
    pub const SECRET_WRAPPED: usize = 4;
    /// Decryption or key agreement by a key in a persistent handle, without Load and FlushContext.
    pub const SECRET_PERSISTENT: usize = 2;
}

/// Instructions of the host's thread in user space, counted by callgrind with a debug build. Five
/// percent are added for other compilers and C libraries. One more TPM command costs 54 000.
/// Measured on 2026-11-28.
pub mod instructions {
    /// C_SignInit and C_Sign with CKM_ECDSA by a factory key in a persistent handle, in a process
    /// that signed before: measured 896_890.
    pub const SIGNATURE: u64 = 942_000;
    /// A process from its start to C_Finalize. The process loads the library, reads all objects of
    /// the factory identity, and signs once: measured 35_963_742. Two thirds verify the first
    /// signature (2.4 million in a release build), which detects a TPM that signs wrongly. A P-256
    /// signature of a chip takes at least 36 ms.
    pub const COLD_START: u64 = 37_760_000;
}

/// Functions and closures of ours that a repeated C_Sign with the same key enters, each counted
/// once. A reader of this path must visit them; small accessors count too. Four of them serve
/// commands with several authorisations, like TPM2_Certify. A fifth decides if a message comes in
/// parts. Two give the NULL ticket, since restricted keys sign with a ticket of TPM2_Hash.
pub const FUNCTIONS_OF_A_SIGNATURE: u64 = 117;

/// Bytes of the heap for a P-256 pair on the disk, listed: both objects with their encoded attributes, the wrapped
/// key, and what the folder remembers of its file: measured 8_058 on 2026-11-29.
pub const HEAP_OF_A_KEY: u64 = 8_500;

/// Fails unless a cost is within its budget, and not below half of it: a budget that is too large guards nothing.
#[track_caller]
pub fn is_within(what: &str, cost: u64, budget: u64) {
    println!("{what}: {cost}, budget {budget}");
    assert!(
        cost <= budget,
        "{what}: {cost}; the budget of {budget} stands in testkit/src/budgets.rs"
    );
    assert!(
        cost >= budget / 2,
        "{what}: only {cost}: lower its budget in testkit/src/budgets.rs"
    );
}
