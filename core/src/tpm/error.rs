//! How TPM commands fail.

use super::transport::{BUSY, Limit, Timing};
use super::{ResponseCode, Tcti, Unloadable};
use std::fmt;

/// What happened to a TPM that has not the keys which it had before. Each message begins with what is
/// seen and ends with a remedy of its own.
pub(crate) const CLEARED_OR_EXCHANGED: &str = "was cleared or exchanged";

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
    /// The endorsement hierarchy has an authorisation value, and none was given.
    EndorsementAuth,
    /// No value was shown that may be wrong: there is no lock that keeps others from the last try.
    NoPinLock(String),
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
    /// Why a wait was in vain: a key generation of another process, or a TPM without answer. Asked when
    /// a generation of this process is over.
    pub(super) fn timed_out(limit: Limit, timing: &Timing) -> Self {
        match timing.is_busy() {
            true => Self::Busy(limit),
            false => Self::Timeout(limit),
        }
    }

    /// True if a new connection may help: the connection failed, or brought what is no answer to the
    /// command.
    pub fn is_transport_fault(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::WrongAnswer(_))
    }

    /// True if the TPM did not answer, so that the next command would only wait as long again.
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
            Self::EndorsementAuth => f.write_str(
                "the TPM's endorsement hierarchy has an authorisation value: without it no endorsement \
                 key can be used, and no key whose policy asks for it. Whoever took ownership of the TPM \
                 set it, and can take it away (tpm2_changeauth -c endorsement -p THE_VALUE)",
            ),
            Self::NoPinLock(why) => write!(
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
