//! Errors of TPM commands.

use super::transport::{BUSY, Limit, Timing};
use super::{ResponseCode, Tcti, Unloadable};
use std::fmt;

/// Part of the error messages about a TPM that lost its keys. Such a message begins with the
/// symptom and ends with the remedy.
pub(crate) const CLEARED_OR_EXCHANGED: &str = "was cleared or exchanged";

/// The reason why a TPM command returned no usable response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TpmError {
    /// The TPM cannot be reached: no device, no permission, or no listener. No command was sent.
    Unreachable(String),
    /// The connection failed after the command was sent. The command may have run.
    Broken(String),
    /// The answer belongs to another command or another key, or is malformed. The command may have
    /// run.
    WrongAnswer(String),
    /// The TPM gave no answer within the limit. The command may still run.
    Timeout(Limit),
    /// The TPM gave no answer within the limit, because it makes a key for another process. The TPM
    /// works and will answer afterwards.
    Busy(Limit),
    /// The TPM returned a response code other than TPM_RC_SUCCESS.
    Response(ResponseCode),
    /// The TPM is in dictionary-attack lockout. Until its end the TPM refuses each key without the
    /// attribute noDA.
    Lockout(Tcti),
    /// This persistent handle now contains another key than at an earlier time.
    KeyReplaced(u32),
    /// The TPM derives another key than before from the same template, because its seed was
    /// changed.
    SeedChanged,
    /// The key or NV index needs an authorisation value that this process does not have. The empty
    /// value is not tried again, because each try may count towards the lockout of the whole TPM.
    NeedsAuth(String),
    /// The given authorisation value for the key is wrong. The value is not sent again, because
    /// each try may count towards the lockout of the whole TPM.
    WrongAuth(String),
    /// The given authorisation value for the owner hierarchy is wrong.
    OwnerAuth,
    /// The endorsement hierarchy has an authorisation value, but none was given.
    EndorsementAuth,
    /// No value was sent, because the PIN lock is not available. Without this lock, other processes
    /// could use up the remaining tries.
    NoPinLock(String),
    /// No value was sent. A wrong value would put this TPM into lockout, or the TPM is in lockout
    /// already.
    NoTryLeft(Tcti),
    /// The TPM does not load a wrapped key. The key may still belong to this TPM.
    Unloadable(Unloadable),
    /// The handle does not contain the master key that wraps a key. The text names the symptom and
    /// the remedy.
    ForeignKey(String),
    /// The TPM that answers is not trusted to be the expected TPM. No value was sent to it, and no
    /// key was made. The text names the symptom and the remedy.
    Distrusted(String),
    /// A file with facts about the TPM could not be read. The text names the file and the cause.
    Unread(String),
    /// The answer of the TPM does not prove the key. The text gives the reason.
    Unproven(String),
    /// The TPM, or the connection to the TPM, does not support the operation.
    Unsupported(String),
}

impl TpmError {
    /// Returns the error for a timeout: Busy during a key generation of another process, else
    /// Timeout. The caller knows that this process makes no key now.
    pub(super) fn timed_out(limit: Limit, timing: &Timing) -> Self {
        match timing.is_busy() {
            true => Self::Busy(limit),
            false => Self::Timeout(limit),
        }
    }

    /// Returns true if a new connection may help: the connection failed, or the answer was not for
    /// the command.
    pub fn is_transport_fault(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::WrongAnswer(_))
    }

    /// Returns true if the TPM did not answer. The next command would only wait for its whole time
    /// limit.
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
            Self::WrongAnswer(why) => write!(f, "the TPM's answer is wrong: {why}"),
            Self::Timeout(limit) => {
                write!(f, "no answer from the TPM within {limit}")
            }
            Self::Busy(limit) => {
                write!(f, "{BUSY}, and did not answer within {limit}")
            }
            Self::Response(code) => write!(f, "TPM answered {code}"),
            Self::Lockout(_) => f.write_str(
                "the TPM is in lockout (TPM_RC_LOCKOUT): too many wrong authorisation values were \
                 tried, and keys that count them cannot be used",
            ),
            Self::KeyReplaced(handle) => {
                write!(
                    f,
                    "handle 0x{handle:08X} no longer contains the key that was found in this \
                     handle before"
                )
            }
            Self::SeedChanged => f.write_str(
                "the TPM derives another key than before from the same template: the TPM was \
                 cleared, or it is another TPM",
            ),
            Self::NeedsAuth(what) => write!(
                f,
                "{what} has an authorisation value; the empty value is not tried again, because \
                 each wrong try counts towards the TPM's lockout"
            ),
            Self::WrongAuth(what) => write!(
                f,
                "the authorisation value given for {what} is wrong; this value is not tried \
                 again, because each wrong try counts towards the TPM's lockout"
            ),
            Self::OwnerAuth => {
                f.write_str("the TPM's owner hierarchy has another authorisation value")
            }
            Self::EndorsementAuth => f.write_str(
                "the TPM's endorsement hierarchy has an authorisation value: without it no \
                 endorsement key can be used, and no key with an endorsement policy. The owner of \
                 the TPM set it, and can remove it (tpm2_changeauth -c endorsement -p THE_VALUE)",
            ),
            Self::NoPinLock(why) => write!(
                f,
                "no PIN is tried, because the lock that protects the TPM's last tries is not \
                 available: {why}"
            ),
            Self::NoTryLeft(_) => f.write_str(
                "no value is tried: a wrong value would lock the whole TPM, or the TPM is in \
                 lockout already",
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
