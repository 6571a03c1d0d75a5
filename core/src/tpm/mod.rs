//! TPM 2.0: our small vocabulary of commands in plain types, and how they fail.
//!
//! [`Link`] is one way to a TPM; [`resident::Tpm`] is what the rest of the house uses: it holds a
//! link, opens it when it is first needed, retries and reconnects.
//! Section numbers are those of the TPM 2.0 Library Specification, level 1.59.

mod derived;
#[cfg(test)]
pub(crate) mod fake;
mod link;
mod public;
mod rc;
mod resident;
mod tcti;
mod template;

pub use derived::DerivedKey;
pub use public::{PublicArea, SigningScheme};
pub use rc::ResponseCode;
pub use resident::{Refusals, ResidentKey, Tpm};
pub use tcti::{Tcti, TctiError};

use std::fmt;
use std::time::Duration;

/// A hash algorithm by its TPM identifier (Part 2, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// All that a signature may be over.
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// TPM_ALG_ID.
    pub const fn algorithm(self) -> u16 {
        match self {
            Self::Sha1 => 0x0004,
            Self::Sha256 => 0x000B,
            Self::Sha384 => 0x000C,
            Self::Sha512 => 0x000D,
        }
    }

    /// Bytes of a digest.
    pub const fn width(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// How a digest is signed (TPMT_SIG_SCHEME; Part 2, section 11.2.1.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// ECDSA (FIPS 186-5, section 6).
    Ecdsa(Hash),
    /// RSASSA-PKCS1-v1_5 (RFC 8017, section 8.2).
    Rsassa(Hash),
    /// RSASSA-PSS (RFC 8017, section 8.1); how long the salt is, the TPM alone decides.
    Rsapss(Hash),
}

impl Scheme {
    /// The hash that made the digest.
    pub const fn hash(self) -> Hash {
        match self {
            Self::Ecdsa(hash) | Self::Rsassa(hash) | Self::Rsapss(hash) => hash,
        }
    }
}

/// A signature as the TPM gives it, big-endian; leading zeros may be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// The halves of an ECDSA signature.
    Ecc {
        /// r
        r: Vec<u8>,
        /// s
        s: Vec<u8>,
    },
    /// An RSA signature of either scheme.
    Rsa(Vec<u8>),
}

/// What TPM2_NV_ReadPublic tells of an index (Part 2, section 13.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NvPublic {
    /// TPMA_NV.
    pub attributes: u32,
    /// Bytes that the index holds.
    pub size: u16,
}

impl NvPublic {
    const AUTHREAD: u32 = 1 << 18;
    const NO_DA: u32 = 1 << 25;
    const WRITTEN: u32 = 1 << 29;
    const READLOCKED: u32 = 1 << 28;

    /// Whether the index's own authorisation value allows a read now.
    pub fn readable_by_own_auth(&self) -> bool {
        let needed = Self::AUTHREAD | Self::WRITTEN;
        self.attributes & needed == needed && self.attributes & Self::READLOCKED == 0
    }

    /// Whether a wrong authorisation value counts towards the lockout of the whole TPM.
    pub fn counts_wrong_auth(&self) -> bool {
        self.attributes & Self::NO_DA == 0
    }
}

/// A property of TPM_CAP_TPM_PROPERTIES (Part 2, section 6.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// The most bytes that one TPM2_NV_Read returns.
    NvBufferMax,
    /// Failed tries of authorisation that count now.
    LockoutCounter,
    /// Seconds until one failed try is forgotten.
    LockoutInterval,
}

impl Property {
    /// TPM_PT.
    pub const fn tag(self) -> u32 {
        match self {
            Self::NvBufferMax => 0x12C,
            Self::LockoutCounter => 0x20E,
            Self::LockoutInterval => 0x210,
        }
    }
}

/// One way to a TPM. Each method is one TPM command unless its text says otherwise.
///
/// Not promised: retries, reconnection, and that a handle still means what it did (see
/// [`resident::Tpm`]). A method that fails with a transport error leaves the link fit for the next
/// call, which connects anew.
pub trait Link: Send {
    /// TPM2_GetCapability(TPM_CAP_HANDLES): the handles from `first` to the end of its range,
    /// ascending; one command for each full answer.
    fn handles(&mut self, first: u32) -> Result<Vec<u32>, TpmError>;
    /// TPM2_GetCapability(TPM_CAP_ALGS): the identifiers of all algorithms.
    fn algorithms(&mut self) -> Result<Vec<u16>, TpmError>;
    /// TPM2_GetCapability(TPM_CAP_TPM_PROPERTIES).
    fn property(&mut self, property: Property) -> Result<u32, TpmError>;
    /// TPM2_ReadPublic: the TPMT_PUBLIC as bytes, and the object's name.
    fn read_public(&mut self, handle: u32) -> Result<(Vec<u8>, Vec<u8>), TpmError>;
    /// TPM2_CreatePrimary in the endorsement hierarchy: a transient handle, the TPMT_PUBLIC and
    /// the name. To be flushed.
    fn create_primary(&mut self, template: &[u8]) -> Result<(u32, Vec<u8>, Vec<u8>), TpmError>;
    /// TPM2_ContextSave: what [`Link::context_load`] of this link takes.
    fn context_save(&mut self, handle: u32) -> Result<Vec<u8>, TpmError>;
    /// TPM2_ContextLoad: a transient handle. To be flushed.
    fn context_load(&mut self, context: &[u8]) -> Result<u32, TpmError>;
    /// TPM2_FlushContext.
    fn flush(&mut self, handle: u32) -> Result<(), TpmError>;
    /// TPM2_NV_ReadPublic.
    fn nv_read_public(&mut self, index: u32) -> Result<NvPublic, TpmError>;
    /// TPM2_NV_Read, authorised by the index's own empty value.
    fn nv_read(&mut self, index: u32, offset: u16, size: u16) -> Result<Vec<u8>, TpmError>;
    /// TPM2_GetRandom: at most `count` bytes.
    fn random(&mut self, count: u16) -> Result<Vec<u8>, TpmError>;
    /// TPM2_Sign by a key whose authorisation value is empty; `digest` has the width of the
    /// scheme's hash.
    fn sign(&mut self, key: u32, scheme: Scheme, digest: &[u8]) -> Result<Signature, TpmError>;
    /// In a forked child: lets go of the parent's connection without a byte to the TPM.
    fn abandon(self: Box<Self>);
}

/// Why a TPM command gave no answer of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TpmError {
    /// There is no way to the TPM: no device, no permission, nobody listens. Nothing was sent.
    Unreachable(String),
    /// The connection failed once the command was on its way; it may have run.
    Broken(String),
    /// No answer within the limit; the command may still run.
    Timeout(Duration),
    /// The TPM answered with a response code.
    Response(ResponseCode),
    /// A persistent handle now holds another key than the one that was found there.
    KeyReplaced(u32),
    /// The TPM derives another key than before from the same template: its seed was changed.
    SeedChanged,
    /// The key or NV index wants an authorisation value that we do not have; not asked again, as
    /// each try may count towards the lockout of the whole TPM.
    NeedsAuth(String),
    /// The link has no such ability.
    Unsupported(String),
}

impl TpmError {
    /// Whether the connection is at fault, so that a new one may help.
    pub fn is_transport_fault(&self) -> bool {
        matches!(self, Self::Broken(_))
    }
}

impl From<ResponseCode> for TpmError {
    fn from(code: ResponseCode) -> Self {
        Self::Response(code)
    }
}

impl std::error::Error for TpmError {}

impl fmt::Display for TpmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "TPM not reachable: {why}"),
            Self::Broken(why) => write!(f, "connection to the TPM failed: {why}"),
            Self::Timeout(limit) => {
                write!(
                    f,
                    "no answer from the TPM within {} ms (timeout_ms)",
                    limit.as_millis()
                )
            }
            Self::Response(code) => write!(f, "TPM answered {code}"),
            Self::KeyReplaced(handle) => {
                write!(
                    f,
                    "handle 0x{handle:08X} no longer holds the key that was found there"
                )
            }
            Self::SeedChanged => f.write_str("the TPM no longer derives this key"),
            Self::NeedsAuth(what) => write!(
                f,
                "{what} has an authorisation value; it is not tried again, because each \
                 wrong try counts towards the TPM's lockout"
            ),
            Self::Unsupported(what) => write!(f, "{what}"),
        }
    }
}
