//! Cost limits. A change that exceeds a limit fails a test. Reduce the cost of the change, or
//! change the number in this file and give the reason. tests/README.md lists the tests that hold these
//! limits.

use crate::proxy::Seen;
use crate::proxy::command::{self, name};

/// TPM commands in their order, counted between the module (or a resource manager) and the TPM. A
/// resource manager gives each connection a space of its own, where objects stay loaded.
pub mod commands {
    use crate::factory::Identity;
    use crate::openssl::certificate_der;
    use crate::proxy::command::*;

    /// A call that the module answers by itself.
    pub const NOTHING: &[u32] = &[];

    /// The first listing of all slots, mechanisms, objects and attributes of a factory identity, and
    /// of any number of own keys. The commands are the list of NV handles, two for each certificate,
    /// the list of persistent handles, and one for each key. Before the first certificate of more
    /// than 512 bytes, the module asks for the size of an NV read. The length of a certificate
    /// depends on its signature.
    pub fn listing(identity: &Identity) -> Vec<u32> {
        let mut commands = LISTING_ANEW.to_vec();
        let certificates = [identity.certificate(), identity.ca()];
        if let Some(at) = certificates
            .iter()
            .position(|file| certificate_der(file).len() > 512)
        {
            commands.insert(2 + 2 * at, GET_CAPABILITY);
        }
        commands
    }
    /// The listing after a change by `devid`. The size of an NV read is known.
    pub const LISTING_ANEW: &[u32] = &[
        GET_CAPABILITY,
        NV_READ_PUBLIC,
        NV_READ,
        NV_READ_PUBLIC,
        NV_READ,
        GET_CAPABILITY,
        READ_PUBLIC,
    ];
    /// The first list of mechanisms of the token `devid` asks for the algorithms of the TPM.
    pub const ALGORITHMS: &[u32] = &[GET_CAPABILITY];
    /// The first C_GetMechanismInfo asks if the TPM makes keys of a size.
    pub const KEY_SIZE: &[u32] = &[TEST_PARMS];
    /// 32 random bytes of the TPM, if the configuration demands them.
    pub const RANDOM: &[u32] = &[GET_RANDOM];

    /// A signature by a key in a persistent handle.
    pub const SIGNATURE: &[u32] = &[SIGN];
    /// The first use of an own key in a persistent handle compares the name of the key.
    pub const HANDLE_CHECK: &[u32] = &[READ_PUBLIC];
    /// The first auth session of a process reads the key that encrypts salts.
    pub const SALT_KEY: &[u32] = &[READ_PUBLIC];
    /// A signature by a factory key without a handle.
    pub const SIGNATURE_DERIVED: &[u32] = &[CONTEXT_LOAD, SIGN, FLUSH_CONTEXT];
    /// The first C_SignInit and C_Sign of a process by a factory key without a handle. The key is
    /// made from its template, its context is saved, and its name is compared.
    pub const DERIVATION: &[u32] = &[
        CREATE_PRIMARY,
        CONTEXT_SAVE,
        FLUSH_CONTEXT,
        CONTEXT_LOAD,
        READ_PUBLIC,
        SIGN,
        FLUSH_CONTEXT,
    ];
    /// A signature by a key in a file, on a bare TPM.
    pub const SIGNATURE_WRAPPED: &[u32] = &[LOAD, SIGN, FLUSH_CONTEXT];
    /// A signature by a key in a file behind a resource manager, where the key stays loaded.
    pub const SIGNATURE_LOADED: &[u32] = &[SIGN];
    /// A signature by a key in a file behind a resource manager, if the key is not loaded: the first
    /// of a process, after a dropped connection, or of a ninth key.
    pub const SIGNATURE_LOADING: &[u32] = &[LOAD, SIGN];
    /// A signature by a loaded key behind tpm2-abrmd, counted below tpm2-abrmd. All commands but
    /// one are commands of tpm2-abrmd.
    pub const SIGNATURE_BELOW_TPM2_ABRMD: &[u32] =
        &[CONTEXT_LOAD, SIGN, CONTEXT_SAVE, FLUSH_CONTEXT];
    /// A signature by a key in a file whose padding is made in software.
    pub const SIGNATURE_PADDED: &[u32] = &[LOAD, RSA_DECRYPT, FLUSH_CONTEXT];
    /// A signature by a key in a persistent handle, with a PIN. Behind a resource manager, a key in
    /// a file costs as many.
    pub const SIGNATURE_BY_PIN: &[u32] = &[START_AUTH_SESSION, SIGN];
    /// A signature by a key in a persistent handle with a PIN, on a TPM without storage root key
    /// and endorsement key in handles. The key for salts is loaded only for the session, because
    /// all programs share the slots. Without a salt, an attacker could guess the PIN from a
    /// recording of the bus.
    pub const SIGNATURE_BY_PIN_WITHOUT_ROOT: &[u32] =
        &[CONTEXT_LOAD, START_AUTH_SESSION, FLUSH_CONTEXT, SIGN];
    /// A signature by a key in a file, with a PIN, on a bare TPM.
    pub const SIGNATURE_WRAPPED_BY_PIN: &[u32] = &[LOAD, START_AUTH_SESSION, SIGN, FLUSH_CONTEXT];
    /// The first signature of a process by a key in a file, with a PIN, behind a resource manager.
    pub const SIGNATURE_LOADING_BY_PIN: &[u32] = &[LOAD, START_AUTH_SESSION, SIGN];
    /// The first use of a sealed key in a process or in a login. Later uses cost no command. Behind
    /// a resource manager the last command is missing.
    pub const OPENING_OF_A_KEY: &[u32] = &[LOAD, START_AUTH_SESSION, UNSEAL, FLUSH_CONTEXT];

    /// A decryption or key agreement by a key in a persistent handle. The auth session encrypts the
    /// answer.
    pub const DECRYPTION: &[u32] = &[START_AUTH_SESSION, RSA_DECRYPT];
    pub const AGREEMENT: &[u32] = &[START_AUTH_SESSION, ECDH_ZGEN];
    /// A decryption or key agreement by a key in a file, on a bare TPM.
    pub const DECRYPTION_WRAPPED: &[u32] = &[LOAD, START_AUTH_SESSION, RSA_DECRYPT, FLUSH_CONTEXT];
    pub const AGREEMENT_WRAPPED: &[u32] = &[LOAD, START_AUTH_SESSION, ECDH_ZGEN, FLUSH_CONTEXT];

    /// The master key of a device that has none, and its storage root key, before the first key or
    /// PIN. The following budgets then begin without TPM2_ReadPublic.
    pub const MASTER_KEY: &[u32] = &[
        READ_PUBLIC,
        READ_PUBLIC,
        CREATE_PRIMARY,
        START_AUTH_SESSION,
        EVICT_CONTROL,
        FLUSH_CONTEXT,
        START_AUTH_SESSION,
        CREATE,
        START_AUTH_SESSION,
        LOAD,
        START_AUTH_SESSION,
        EVICT_CONTROL,
        FLUSH_CONTEXT,
    ];
    /// The generation of a key without PIN. The name of the master key is compared. An auth session
    /// proves that the parent created the key, and another auth session proves the load. A signature
    /// proves the key itself. Behind a resource manager the last command is missing.
    pub const GENERATION: &[u32] = &[
        READ_PUBLIC,
        START_AUTH_SESSION,
        CREATE,
        START_AUTH_SESSION,
        LOAD,
        SIGN,
        FLUSH_CONTEXT,
    ];
    /// The generation of a key with PIN.
    pub const GENERATION_BY_PIN: &[u32] = &[
        READ_PUBLIC,
        START_AUTH_SESSION,
        CREATE,
        START_AUTH_SESSION,
        LOAD,
        START_AUTH_SESSION,
        SIGN,
        FLUSH_CONTEXT,
    ];
    /// The generation or import of a sealed key.
    pub const GENERATION_SEALED: &[u32] = &[READ_PUBLIC, START_AUTH_SESSION, CREATE];
    /// The import of a private key, by C_CreateObject or after the decryption of C_UnwrapKey.
    pub const IMPORT_OF_A_KEY: &[u32] = &[
        READ_PUBLIC,
        START_AUTH_SESSION,
        IMPORT,
        START_AUTH_SESSION,
        LOAD,
        SIGN,
        FLUSH_CONTEXT,
    ];
    /// The additional cost of a key in a persistent handle. A free handle is searched, and the
    /// master key proves the new object in an auth session. Behind a resource manager the last
    /// command is missing.
    pub const PERSISTENCE: &[u32] = &[
        GET_CAPABILITY,
        LOAD,
        START_AUTH_SESSION,
        EVICT_CONTROL,
        FLUSH_CONTEXT,
    ];
    /// C_DestroyObject of a key in a persistent handle.
    pub const EVICTION: &[u32] = &[READ_PUBLIC, EVICT_CONTROL];

    /// C_Login on a bare TPM, of the user and of the security officer. The sealed object must not
    /// stay in a slot, because all programs share the slots.
    pub const LOGIN: &[u32] = &[
        GET_CAPABILITY,
        LOAD,
        START_AUTH_SESSION,
        UNSEAL,
        FLUSH_CONTEXT,
    ];
    /// C_Login by a wrong PIN. The TPM keeps the auth session of the refused command.
    pub const LOGIN_WRONG: &[u32] = &[
        GET_CAPABILITY,
        LOAD,
        START_AUTH_SESSION,
        UNSEAL,
        FLUSH_CONTEXT,
        FLUSH_CONTEXT,
    ];
    /// C_GetTokenInfo after a wrong PIN reads the number of tries that are left. C_Login reads the
    /// number too, and sends nothing else if the next wrong PIN would lock the TPM.
    pub const TRIES_LEFT: &[u32] = &[GET_CAPABILITY];
    /// The first C_Login behind a resource manager, where the sealed object stays loaded.
    pub const LOGIN_MANAGED: &[u32] = &[GET_CAPABILITY, LOAD, START_AUTH_SESSION, UNSEAL];
    /// Each later C_Login behind a resource manager.
    pub const LOGIN_MANAGED_AGAIN: &[u32] = &[GET_CAPABILITY, START_AUTH_SESSION, UNSEAL];
    /// C_Login with the PIN of a factory key, on a TPM without storage root key and endorsement key
    /// in handles. The key signs random bytes.
    pub const LOGIN_OF_A_FACTORY_KEY: &[u32] = &[
        GET_CAPABILITY,
        GET_RANDOM,
        CONTEXT_LOAD,
        START_AUTH_SESSION,
        FLUSH_CONTEXT,
        SIGN,
    ];
    /// A new PIN by C_InitToken, C_InitPIN or C_SetPIN, on a bare TPM. The new sealed object is tried
    /// as by a login, and the master key also proves the load. Behind a resource manager the last
    /// command is missing.
    pub const NEW_PIN: &[u32] = &[
        READ_PUBLIC,
        START_AUTH_SESSION,
        CREATE,
        GET_CAPABILITY,
        START_AUTH_SESSION,
        LOAD,
        START_AUTH_SESSION,
        UNSEAL,
        FLUSH_CONTEXT,
    ];
    /// The first use of a PIN after a start of the TPM. The TPM answers TPM_RC_RETRY, because a wrong
    /// PIN would count. The object is then loaded and opened again.
    pub const PIN_AGAIN: &[u32] = &[
        FLUSH_CONTEXT,
        LOAD,
        START_AUTH_SESSION,
        UNSEAL,
        FLUSH_CONTEXT,
    ];

    /// `devid status` on a device with an identity of its own, and with any number of keys in files.
    pub const STATUS: &[u32] = &[
        GET_CAPABILITY,
        GET_RANDOM,
        READ_PUBLIC,
        SIGN,
        READ_PUBLIC,
        READ_PUBLIC,
        READ_PUBLIC,
        GET_CAPABILITY,
        GET_CAPABILITY,
        GET_CAPABILITY,
        GET_CAPABILITY,
        GET_CAPABILITY,
        GET_CAPABILITY,
        GET_CAPABILITY,
        GET_CAPABILITY,
        GET_CAPABILITY,
    ];
}

/// Instructions of the host's thread in user space, counted by callgrind with a debug build. The
/// limits are five percent above the measured values, for other compilers and C libraries. One more
/// TPM command costs a third of a signature, but less than one percent of a start. The test
/// therefore counts the commands of a start too. Measured on 2026-11-29.
pub mod instructions {
    /// C_SignInit and C_Sign with CKM_ECDSA by a factory key in a persistent handle, in a process
    /// that has signed before. Measured: 83_194.
    pub const SIGNATURE: u64 = 87_400;
    /// A process from its start to C_Finalize. The process loads the library, reads all objects of
    /// the factory identity, and signs once. Measured: 4_284_893. A sixth of this cost verifies the
    /// first signature by aws-lc, which detects a TPM that signs wrongly. The portable crates would
    /// need 30 million instructions for this check.
    pub const COLD_START: u64 = 4_500_000;
}

/// The number of functions and closures of this project that a repeated C_Sign with one key enters.
/// Each is counted once; small accessors count too. A person who reads this path must read all of
/// them. Four of them serve commands with several authorisations, like TPM2_Certify. A fifth
/// decides if a message comes in parts. Two give the NULL ticket, because restricted keys sign with
/// a ticket of TPM2_Hash. One exchanges a command and its response over a socket, so that a command that
/// did not reach the TPM can be sent again.
pub const FUNCTIONS_OF_A_SIGNATURE: u64 = 118;

/// The heap bytes for a listed P-256 key pair in a file. The bytes hold both objects with their
/// encoded attributes, the wrapped key, and the facts about its file. Measured: 5_548 on
/// 2026-11-29. The limit is five percent above, so that a few hundred more bytes fail.
pub const HEAP_OF_A_KEY: u64 = 5_830;

/// Fails unless a cost is within its budget and at least half of it. A budget that is too large
/// would detect no increase.
#[track_caller]
pub fn is_within(what: &str, cost: u64, budget: u64) {
    // A story prints behind the name of its test. Only whole lines reach the reader.
    println!("\n{what}: {cost}, budget {budget}");
    assert!(
        cost <= budget,
        "{what}: {cost}; the budget in testkit/src/budgets.rs is {budget}"
    );
    assert!(
        cost >= budget / 2,
        "{what}: only {cost}: lower the budget in testkit/src/budgets.rs"
    );
}

/// Returns a budget behind a resource manager, where the object at the end stays loaded.
pub fn managed(budget: &[u32]) -> &[u32] {
    let (last, others) = budget.split_last().expect("a flush");
    assert_eq!(*last, command::FLUSH_CONTEXT, "the last command");
    others
}

/// Fails unless the TPM got exactly the commands of the budget, in their order. A budget that is
/// too large would detect no increase.
#[track_caller]
pub fn is_exactly(what: &str, seen: &Seen, budget: &[u32]) {
    let codes = seen.codes();
    let (count, allowed) = (codes.len(), budget.len());
    println!("\n{what}: {count} commands, budget {allowed}");
    let named = |codes: &[u32]| codes.iter().map(|code| name(*code)).collect::<Vec<_>>();
    let [seen, wanted] = [&codes[..], budget].map(|codes| named(codes).join(", "));
    assert!(
        codes == budget,
        "{what}: {count} commands: {seen}; the budget in testkit/src/budgets.rs is {allowed}: {wanted}"
    );
}
