//! TPM 2.0: our small vocabulary of commands in plain types, and how they fail.
//!
//! `Link` is the vocabulary over one way to a TPM; [`Tpm`] is what the rest of the house uses: it
//! holds a link, opens it when it is first needed, retries and reconnects.
//! Section numbers are those of the TPM 2.0 Library Specification, level 1.59.

mod algorithms;
mod ancestry;
#[cfg(test)]
mod answers_tests;
#[cfg(test)]
mod capability_tests;
mod client;
mod derived;
#[cfg(test)]
mod derived_tests;
mod duplicate;
mod exchange;
#[cfg(test)]
pub(crate) mod fake;
mod hash;
mod kdf;
mod link;
mod lockout;
mod nv;
mod own;
mod patience;
mod public;
mod rc;
mod resident;
mod root;
mod salt;
mod session;
mod silence;
mod tcti;
mod template;
mod turn;
mod unloadable;
mod wrapped;

pub use algorithms::{Algorithms, Capabilities, Told};
pub use client::Tpm;
pub use derived::DerivedKey;
pub use exchange::Refusals;
pub use hash::Hash;
pub use kdf::Secret;
pub(crate) use kdf::{encrypt_oaep, random_scalar, random_secret};
pub(crate) use link::Link;
pub use lockout::Lockout;
pub use nv::NvKept;
pub use own::{Algorithm, KeyUsage, SRK, StorageKey};
pub use patience::{Class, Limit, Limits, WAITING};
pub use public::{PublicArea, SigningScheme, other_kind};
pub(crate) use public::{name_of, qualified_name_below};
pub use rc::ResponseCode;
pub use resident::ResidentKey;
pub use root::{Endorser, Root, RootRecord, Unrecalled};
pub use salt::SaltKey;
pub use session::AuthValue;
use session::Salt;
pub use silence::Silence;
pub(crate) use tcti::is_alias as is_tcti_alias;
pub use tcti::{Tcti, TctiError};
pub(crate) use template::is_own_key;
pub use template::recognised;
pub use unloadable::{Obstacle, Unloadable};
pub use wrapped::{Parent, WrappedKey};

use crate::key::pad_left;
use patience::BUSY;
use std::fmt;

/// A TPM2B with this content (Part 2, section 10.4).
fn sized(bytes: &[u8]) -> Vec<u8> {
    let mut sized = (bytes.len() as u16).to_be_bytes().to_vec();
    sized.extend(bytes);
    sized
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
    /// TPM_ALG_ID of the scheme, without its hash.
    pub const fn algorithm(self) -> u16 {
        match self {
            Self::Ecdsa(_) => 0x0018,
            Self::Rsassa(_) => 0x0014,
            Self::Rsapss(_) => 0x0016,
        }
    }

    /// The hash that made the digest.
    pub const fn hash(self) -> Hash {
        match self {
            Self::Ecdsa(hash) | Self::Rsassa(hash) | Self::Rsapss(hash) => hash,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let called = match self {
            Self::Ecdsa(_) => "ECDSA",
            Self::Rsassa(_) => "RSASSA-PKCS1-v1_5",
            Self::Rsapss(_) => "RSASSA-PSS",
        };
        write!(f, "{called} with {}", self.hash())
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

impl Signature {
    /// `width` bytes as PKCS#11 has them (3.0, sections 6.1 and 6.3): r ‖ s, each as wide as the
    /// curve's order; or as wide as the modulus.
    ///
    /// # Errors
    ///
    /// [`TpmError::WrongAnswer`] for a number that needs more bytes.
    pub fn fixed(&self, width: usize) -> Result<Vec<u8>, TpmError> {
        let whole = match self {
            Self::Ecc { r, s } if r.len() == width / 2 && s.len() == width / 2 => {
                Some([&r[..], s].concat())
            }
            Self::Ecc { r, s } => pad_left(r, width / 2)
                .zip(pad_left(s, width / 2))
                .map(|(r, s)| [r, s].concat()),
            Self::Rsa(number) => pad_left(number, width),
        };
        whole.ok_or_else(|| TpmError::WrongAnswer("a signature wider than its key".into()))
    }
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
    const OWNERREAD: u32 = 1 << 17;
    const AUTHREAD: u32 = 1 << 18;
    const NO_DA: u32 = 1 << 25;
    const WRITTEN: u32 = 1 << 29;
    const READLOCKED: u32 = 1 << 28;

    /// Whether the index's own authorisation value allows a read now.
    pub fn readable_by_own_auth(&self) -> bool {
        let needed = Self::AUTHREAD | Self::WRITTEN;
        self.attributes & needed == needed && self.attributes & Self::READLOCKED == 0
    }

    /// Whether the owner may read it now.
    pub fn readable_by_owner(&self) -> bool {
        let needed = Self::OWNERREAD | Self::WRITTEN;
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
    /// So many are lockout.
    MaxAuthFail,
    /// Seconds until one failed try is forgotten.
    LockoutInterval,
    /// Seconds until the lockout authorisation may be tried again.
    LockoutRecovery,
    /// The maker, four characters.
    Manufacturer,
    /// The maker's name for the model, four characters.
    Vendor1,
    /// Four more.
    Vendor2,
    /// Four more.
    Vendor3,
    /// Four more.
    Vendor4,
    /// The upper half of the firmware's version.
    Firmware1,
    /// The lower half.
    Firmware2,
    /// TPMA_PERMANENT: which authorisation values are set, and whether the TPM is locked.
    Permanent,
    /// How many persistent handles are taken.
    Persistent,
    /// How many more there is room for, at least.
    PersistentRoom,
    /// The most bytes that one NV index holds.
    NvIndexMax,
}

impl Property {
    /// What tells of lockout, in the order of the tags, which follow each other.
    pub(crate) const LOCKOUT: [Self; 3] = [
        Self::LockoutCounter,
        Self::MaxAuthFail,
        Self::LockoutInterval,
    ];

    /// TPM_PT.
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

/// What a command uses, and what proves that it may: a key, or a hierarchy.
#[derive(Clone, Copy)]
pub struct Used<'a> {
    /// Its handle.
    pub handle: u32,
    /// Its name; of a hierarchy the handle's bytes (Part 1, section 16).
    pub name: &'a [u8],
    /// The proof.
    pub auth: Auth<'a>,
}

/// What TPM2_Create is told that nobody else is to know.
#[derive(Clone, Copy, Default)]
pub struct Secrets<'a> {
    /// The authorisation value of the new object.
    pub value: &'a [u8],
    /// Data to be sealed.
    pub data: &'a [u8],
}

/// How the use of something is authorised.
#[derive(Clone, Copy)]
pub enum Auth<'a> {
    /// By the empty value, as a password: nothing secret crosses the bus.
    Empty,
    /// By a value that is proven in an HMAC auth session, made for the command and gone with it:
    /// one command more. Secrets among the command's parameters are encrypted.
    Value(&'a [u8], Option<&'a SaltKey>),
}

impl<'a> Auth<'a> {
    /// By this value; by the empty one without auth session, unless there is a salt for one.
    pub fn by(value: &'a [u8], salt_key: Option<&'a SaltKey>) -> Self {
        match (value, salt_key) {
            ([], None) => Self::Empty,
            _ => Self::Value(value, salt_key),
        }
    }
}

impl<'a> Used<'a> {
    /// Something by handle and name.
    pub fn new(handle: u32, name: &'a [u8], auth: Auth<'a>) -> Self {
        Self { handle, name, auth }
    }

    /// A key whose authorisation value is empty.
    pub fn open(handle: u32, name: &'a [u8]) -> Self {
        Self {
            handle,
            name,
            auth: Auth::Empty,
        }
    }

    /// TPM_RH_OWNER.
    pub fn owner(auth: Auth<'a>) -> Self {
        const OWNER: u32 = 0x4000_0001;
        const NAME: [u8; 4] = OWNER.to_be_bytes();
        Self {
            handle: OWNER,
            name: &NAME,
            auth,
        }
    }

    /// TPM_RH_NULL, whose authorisation value is always empty.
    pub fn null() -> Self {
        const NULL: u32 = 0x4000_0007;
        const NAME: [u8; 4] = NULL.to_be_bytes();
        Self {
            handle: NULL,
            name: &NAME,
            auth: Auth::Empty,
        }
    }

    /// TPM_RH_ENDORSEMENT, its authorisation value empty.
    pub fn endorsement() -> Self {
        const ENDORSEMENT: u32 = 0x4000_000B;
        const NAME: [u8; 4] = ENDORSEMENT.to_be_bytes();
        Self {
            handle: ENDORSEMENT,
            name: &NAME,
            auth: Auth::Empty,
        }
    }
}

/// Why a TPM command gave no answer of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TpmError {
    /// There is no way to the TPM: no device, no permission, nobody listens. Nothing was sent.
    Unreachable(String),
    /// The connection failed once the command was on its way; it may have run.
    Broken(String),
    /// The TPM answered, and the answer cannot be right: it is for another command, or of another
    /// key. The command may have run.
    WrongAnswer(String),
    /// No answer within the limit; the command may still run.
    Timeout(Limit),
    /// No answer within the limit, since the TPM makes a key for another process. It works, and
    /// answers again when that is done.
    Busy(Limit),
    /// The TPM answered with a response code.
    Response(ResponseCode),
    /// The TPM behind this is in dictionary-attack lockout: nothing that counts wrong authorisation
    /// values can be used.
    Lockout(Tcti),
    /// A persistent handle now holds another key than the one that was found there.
    KeyReplaced(u32),
    /// The TPM derives another key than before from the same template: its seed was changed.
    SeedChanged,
    /// The key or NV index wants an authorisation value that we do not have; not asked again, as
    /// each try may count towards the lockout of the whole TPM.
    NeedsAuth(String),
    /// The authorisation value that was given for the key is wrong; not shown to the TPM again, for
    /// the same reason.
    WrongAuth(String),
    /// The owner hierarchy has another authorisation value than the one that was given.
    OwnerAuth,
    /// No value was shown that may be wrong: there is no lock that keeps others from the last try.
    NoTurn(String),
    /// No value was shown that may be wrong: if it were, the whole TPM would be locked, or is so
    /// already. The TPM behind this.
    NoTryLeft(Tcti),
    /// The TPM does not load a wrapped key; it may be the one that the key was made in all the same.
    Unloadable(Unloadable),
    /// The handle does not hold the master key that wraps a key. The text says what is seen, and what
    /// helps.
    ForeignKey(String),
    /// What answers is not believed to be the TPM that it should be: no value was shown to it, and no
    /// key was made. The text says what is seen, and what helps.
    Distrusted(String),
    /// What is known of the TPM could not be read now. The text says which file, and why.
    Unread(String),
    /// What the TPM answered is not what the key would have answered; the text says what.
    Unproven(String),
    /// The link has no such ability.
    Unsupported(String),
}

impl TpmError {
    /// Whether a new connection may help: the connection failed, or brought what is no answer to the
    /// command.
    pub fn is_transport_fault(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::WrongAnswer(_))
    }

    /// Whether the TPM did not answer, so that the next command would only wait as long again.
    pub(super) fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Timeout(_) | Self::Busy(_) | Self::Unreachable(_)
        )
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
            Self::WrongAnswer(why) => write!(f, "the TPM's answer is not right: {why}"),
            Self::Timeout(limit) => {
                write!(f, "no answer from the TPM within {limit}")
            }
            Self::Busy(limit) => {
                write!(f, "{BUSY}, and did not answer within {limit}")
            }
            Self::Response(code) => write!(f, "TPM answered {code}"),
            Self::Lockout(_) => f.write_str(
                "the TPM is in lockout (TPM_RC_LOCKOUT): too many wrong authorisation values were \
                 tried, and nothing that counts them can be used",
            ),
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
            Self::WrongAuth(what) => write!(
                f,
                "the authorisation value given for {what} is wrong; it is not tried again, because \
                 each wrong try counts towards the TPM's lockout"
            ),
            Self::OwnerAuth => {
                f.write_str("the TPM's owner hierarchy has another authorisation value")
            }
            Self::NoTurn(why) => write!(
                f,
                "no PIN is tried, because the lock that keeps others from the TPM's last try cannot \
                 be had: {why}"
            ),
            Self::NoTryLeft(_) => f.write_str(
                "not tried: a wrong value would lock the whole TPM, or it is locked already",
            ),
            Self::Unloadable(why) => why.fmt(f),
            Self::ForeignKey(what)
            | Self::Distrusted(what)
            | Self::Unread(what)
            | Self::Unproven(what)
            | Self::Unsupported(what) => f.write_str(what),
        }
    }
}
