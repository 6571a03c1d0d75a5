//! Errors of the module, and the CK_RV of each error (PKCS#11 3.0, section 5.1).

use cryptoki_sys::*;
use devid_core::store::devid::StoreError;
use devid_core::store::folder::FolderError;
use devid_core::store::{Advised, LoginError, ScanError, SignError};
use devid_core::tpm::TpmError;
use std::fmt;

/// The reason why a PKCS#11 call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Error {
    NotInitialized,
    AlreadyInitialized,
    CannotLock,
    ArgumentsBad(&'static str),
    HostMemory,
    Unsupported,
    NotParallel,
    /// The module's code panicked. The panic was caught before it reached the host.
    Panicked,
    SlotIdInvalid,
    TokenNotPresent,
    TokenWriteProtected,
    /// The token of the session no longer exists.
    DeviceRemoved,
    SessionHandleInvalid,
    SessionParallelNotSupported,
    SessionReadOnlyExists,
    /// The token already has its largest number of open sessions.
    SessionCount,
    /// A read-only session tried to change an object of the token.
    SessionReadOnly,
    UserTypeInvalid,
    UserAlreadyLoggedIn,
    UserAnotherAlreadyLoggedIn,
    PinIncorrect,
    UserPinNotInitialized,
    SessionExists,
    SessionReadWriteSoExists,
    PinLenRange,
    PinLocked,
    UserNotLoggedIn,
    OperationActive,
    NoEvent,
    OperationNotInitialized,
    ObjectHandleInvalid,
    KeyHandleInvalid,
    KeyTypeInconsistent,
    /// The key must not become part of a digest.
    KeyIndigestible,
    KeyNotNeeded,
    SavedStateInvalid,
    StateUnsaveable,
    KeyFunctionNotPermitted,
    AttributeValueInvalid,
    AttributeReadOnly,
    ActionProhibited,
    TemplateIncomplete,
    TemplateInconsistent,
    CurveNotSupported,
    /// CKA_EC_PARAMS does not contain the parameters of an elliptic curve.
    DomainParamsInvalid,
    KeySizeRange,
    SignatureInvalid,
    SignatureLenRange(usize),
    AttributeTypeInvalid,
    AttributeSensitive,
    MechanismInvalid,
    MechanismParamInvalid,
    /// The wrapped data holds no usable key. All errors of the wrapped data have this code.
    WrappedKeyInvalid,
    WrappedKeyLenRange(usize),
    UnwrappingKeyHandleInvalid,
    UnwrappingKeySizeRange,
    UnwrappingKeyTypeInconsistent,
    DataInvalid,
    EncryptedDataInvalid,
    EncryptedDataLenRange(usize),
    DataLenRange(usize),
    BufferTooSmall,
    RandomFailed,
    Tpm(TpmError),
    Store(StoreError),
    /// The scan of the token's objects failed.
    Look(ScanError),
}

impl Error {
    /// Returns the CK_RV of this error for the caller.
    pub(crate) fn rv(&self) -> CK_RV {
        match self {
            Self::NotInitialized => CKR_CRYPTOKI_NOT_INITIALIZED,
            Self::AlreadyInitialized => CKR_CRYPTOKI_ALREADY_INITIALIZED,
            Self::CannotLock => CKR_CANT_LOCK,
            Self::ArgumentsBad(_) => CKR_ARGUMENTS_BAD,
            Self::HostMemory => CKR_HOST_MEMORY,
            Self::Unsupported => CKR_FUNCTION_NOT_SUPPORTED,
            Self::NotParallel => CKR_FUNCTION_NOT_PARALLEL,
            Self::Panicked => CKR_GENERAL_ERROR,
            Self::SlotIdInvalid => CKR_SLOT_ID_INVALID,
            Self::TokenNotPresent => CKR_TOKEN_NOT_PRESENT,
            Self::TokenWriteProtected => CKR_TOKEN_WRITE_PROTECTED,
            Self::DeviceRemoved => CKR_DEVICE_REMOVED,
            Self::SessionHandleInvalid => CKR_SESSION_HANDLE_INVALID,
            Self::SessionParallelNotSupported => CKR_SESSION_PARALLEL_NOT_SUPPORTED,
            Self::SessionReadOnlyExists => CKR_SESSION_READ_ONLY_EXISTS,
            Self::SessionCount => CKR_SESSION_COUNT,
            Self::SessionReadOnly => CKR_SESSION_READ_ONLY,
            Self::UserTypeInvalid => CKR_USER_TYPE_INVALID,
            Self::UserAlreadyLoggedIn => CKR_USER_ALREADY_LOGGED_IN,
            Self::UserAnotherAlreadyLoggedIn => CKR_USER_ANOTHER_ALREADY_LOGGED_IN,
            Self::PinIncorrect => CKR_PIN_INCORRECT,
            Self::UserPinNotInitialized => CKR_USER_PIN_NOT_INITIALIZED,
            Self::SessionExists => CKR_SESSION_EXISTS,
            Self::SessionReadWriteSoExists => CKR_SESSION_READ_WRITE_SO_EXISTS,
            Self::EncryptedDataInvalid => CKR_ENCRYPTED_DATA_INVALID,
            Self::EncryptedDataLenRange(_) => CKR_ENCRYPTED_DATA_LEN_RANGE,
            Self::PinLenRange => CKR_PIN_LEN_RANGE,
            Self::PinLocked => CKR_PIN_LOCKED,
            Self::UserNotLoggedIn => CKR_USER_NOT_LOGGED_IN,
            Self::NoEvent => CKR_NO_EVENT,
            Self::OperationActive => CKR_OPERATION_ACTIVE,
            Self::OperationNotInitialized => CKR_OPERATION_NOT_INITIALIZED,
            Self::ObjectHandleInvalid => CKR_OBJECT_HANDLE_INVALID,
            Self::KeyHandleInvalid => CKR_KEY_HANDLE_INVALID,
            Self::KeyFunctionNotPermitted => CKR_KEY_FUNCTION_NOT_PERMITTED,
            Self::KeyTypeInconsistent => CKR_KEY_TYPE_INCONSISTENT,
            Self::KeyIndigestible => CKR_KEY_INDIGESTIBLE,
            Self::KeyNotNeeded => CKR_KEY_NOT_NEEDED,
            Self::SavedStateInvalid => CKR_SAVED_STATE_INVALID,
            Self::StateUnsaveable => CKR_STATE_UNSAVEABLE,
            Self::AttributeReadOnly => CKR_ATTRIBUTE_READ_ONLY,
            Self::ActionProhibited => CKR_ACTION_PROHIBITED,
            Self::TemplateIncomplete => CKR_TEMPLATE_INCOMPLETE,
            Self::TemplateInconsistent => CKR_TEMPLATE_INCONSISTENT,
            Self::DomainParamsInvalid => CKR_DOMAIN_PARAMS_INVALID,
            Self::CurveNotSupported => CKR_CURVE_NOT_SUPPORTED,
            Self::KeySizeRange => CKR_KEY_SIZE_RANGE,
            Self::SignatureInvalid => CKR_SIGNATURE_INVALID,
            Self::SignatureLenRange(_) => CKR_SIGNATURE_LEN_RANGE,
            Self::AttributeValueInvalid => CKR_ATTRIBUTE_VALUE_INVALID,
            Self::AttributeTypeInvalid => CKR_ATTRIBUTE_TYPE_INVALID,
            Self::AttributeSensitive => CKR_ATTRIBUTE_SENSITIVE,
            Self::MechanismInvalid => CKR_MECHANISM_INVALID,
            Self::MechanismParamInvalid => CKR_MECHANISM_PARAM_INVALID,
            Self::WrappedKeyInvalid => CKR_WRAPPED_KEY_INVALID,
            Self::WrappedKeyLenRange(_) => CKR_WRAPPED_KEY_LEN_RANGE,
            Self::UnwrappingKeyHandleInvalid => CKR_UNWRAPPING_KEY_HANDLE_INVALID,
            Self::UnwrappingKeySizeRange => CKR_UNWRAPPING_KEY_SIZE_RANGE,
            Self::UnwrappingKeyTypeInconsistent => CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT,
            Self::DataInvalid => CKR_DATA_INVALID,
            Self::DataLenRange(_) => CKR_DATA_LEN_RANGE,
            Self::BufferTooSmall => CKR_BUFFER_TOO_SMALL,
            Self::RandomFailed => CKR_FUNCTION_FAILED,
            Self::Tpm(error) => tpm_rv(error),
            Self::Store(error) => store_rv(error),
            Self::Look(error) => scan_rv(error),
        }
    }
}

/// Returns CKR_DEVICE_REMOVED if the TPM cannot be reached, and CKR_DEVICE_ERROR for most other
/// errors. Lockout is CKR_DEVICE_ERROR too, because the PIN of the caller may be right.
fn tpm_rv(error: &TpmError) -> CK_RV {
    match error {
        TpmError::Unreachable(_) => CKR_DEVICE_REMOVED,
        TpmError::Broken(_)
        | TpmError::WrongAnswer(_)
        | TpmError::Timeout(_)
        | TpmError::Busy(_)
        | TpmError::Response(_)
        | TpmError::Lockout(_)
        | TpmError::KeyReplaced(_)
        | TpmError::SeedChanged
        | TpmError::NeedsAuth(_)
        | TpmError::WrongAuth(_)
        | TpmError::OwnerAuth
        | TpmError::EndorsementAuth
        | TpmError::Unloadable(_)
        | TpmError::Unread(_)
        | TpmError::Unproven(_)
        | TpmError::Unsupported(_) => CKR_DEVICE_ERROR,
        // The TPM works, the PIN may be right, and no PIN was tried.
        TpmError::NoPinLock(_) | TpmError::NoTryLeft(_) => CKR_FUNCTION_FAILED,
        // The TPM does not have the parent of the key, or another TPM answers than before.
        TpmError::ForeignKey(_) | TpmError::Distrusted(_) => CKR_TOKEN_NOT_RECOGNIZED,
    }
}

fn store_rv(error: &StoreError) -> CK_RV {
    match error {
        StoreError::Tpm(error) => tpm_rv(error),
        StoreError::Folder(error) => folder_rv(error),
        StoreError::OtherTpm(_) => CKR_TOKEN_NOT_RECOGNIZED,
        StoreError::Unsupported(_) | StoreError::Protection(_) | StoreError::BadKey(_) => {
            CKR_TEMPLATE_INCONSISTENT
        }
        StoreError::NoCurve(_) => CKR_CURVE_NOT_SUPPORTED,
        StoreError::NoRoom(_) => CKR_DEVICE_MEMORY,
        StoreError::NotLoggedIn => CKR_USER_NOT_LOGGED_IN,
        StoreError::Gone => CKR_OBJECT_HANDLE_INVALID,
    }
}

/// Returns CKR_TOKEN_WRITE_PROTECTED if the process cannot write to the key folder.
fn folder_rv(error: &FolderError) -> CK_RV {
    match error {
        FolderError::ReadOnly(_) | FolderError::Permission(_) | FolderError::InTheWay(..) => {
            CKR_TOKEN_WRITE_PROTECTED
        }
        FolderError::NoSpace(_) => CKR_DEVICE_MEMORY,
        FolderError::Gone(_) => CKR_OBJECT_HANDLE_INVALID,
        FolderError::Locked(_) | FolderError::Denied(..) => CKR_FUNCTION_FAILED,
        FolderError::Unfit(_) => CKR_ATTRIBUTE_VALUE_INVALID,
        FolderError::Damaged { .. } | FolderError::Unsafe { .. } | FolderError::System(..) => {
            CKR_DEVICE_ERROR
        }
    }
}

fn scan_rv(error: &ScanError) -> CK_RV {
    match error {
        ScanError::Tpm(error) => tpm_rv(error),
        ScanError::NoIdentity(_) => CKR_DEVICE_REMOVED,
        ScanError::Folder(_) | ScanError::Unread(_) => CKR_DEVICE_ERROR,
    }
}

impl From<TpmError> for Error {
    fn from(error: TpmError) -> Self {
        Self::Tpm(error)
    }
}

impl From<SignError> for Error {
    fn from(error: SignError) -> Self {
        match error {
            SignError::DigestLength(bytes) => Self::DataLenRange(bytes),
            SignError::Scheme => Self::Tpm(TpmError::Unsupported(error.to_string())),
            SignError::Refused(_) => Self::KeyFunctionNotPermitted,
            SignError::Unloadable(_) => Self::Tpm(TpmError::Unsupported(error.to_string())),
            SignError::NotLoggedIn => Self::UserNotLoggedIn,
            SignError::Ciphertext => Self::EncryptedDataInvalid,
            SignError::NotInThisTpm => Self::KeyHandleInvalid,
            SignError::Tpm(error) => Self::Tpm(error),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ScanError> for Error {
    fn from(error: ScanError) -> Self {
        Self::Look(error)
    }
}

impl From<LoginError> for Error {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Wrong | LoginError::NotEmpty => Self::PinIncorrect,
            LoginError::Length => Self::PinLenRange,
            LoginError::Locked(_) => Self::PinLocked,
            LoginError::NotInitialized => Self::UserPinNotInitialized,
            LoginError::NotLoggedIn => Self::UserNotLoggedIn,
            LoginError::Refused(_) => Self::ActionProhibited,
            LoginError::Store(error) => Self::Store(error),
            LoginError::Tpm(error) => Self::Tpm(error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tpm(error) => Advised(error).fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::Look(error) => error.fmt(f),
            Self::ArgumentsBad(what) => f.write_str(what),
            Self::DataLenRange(bytes) => write!(f, "the key cannot take {bytes} bytes of data"),
            other => write!(f, "{other:?}"),
        }
    }
}
