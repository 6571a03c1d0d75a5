//! The vendor-defined attributes of this module. `include/devid_pkcs11.h` defines them for C
//! callers.

use cryptoki_sys::{CK_ATTRIBUTE_TYPE, CK_ULONG, CKA_VENDOR_DEFINED};

const BASE: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x4445_0000;

/// CK_ULONG: the key's persistent handle in the TPM.
pub(crate) const CKA_DEVID_TPM_HANDLE: CK_ATTRIBUTE_TYPE = BASE + 1;
/// Byte array: the TPM name of the key, which is nameAlg and digest (TPM 2.0 Library, Part 1,
/// section 16).
pub(crate) const CKA_DEVID_TPM_NAME: CK_ATTRIBUTE_TYPE = BASE + 2;
/// Byte array: the key's TPMT_PUBLIC (TPM 2.0 Library, Part 2, section 12.2.4).
pub(crate) const CKA_DEVID_TPM_PUBLIC: CK_ATTRIBUTE_TYPE = BASE + 3;
/// CK_ULONG: the protection of the private key, one of `CK_DEVID_PROTECTION_…`.
pub(crate) const CKA_DEVID_PROTECTION: CK_ATTRIBUTE_TYPE = BASE + 4;
/// CK_BBOOL: true if the key is in a persistent handle.
pub(crate) const CKA_DEVID_PERSISTENT: CK_ATTRIBUTE_TYPE = BASE + 5;

/// The private key never leaves the TPM.
pub(crate) const CK_DEVID_PROTECTION_TPM: CK_ULONG = 1;
/// A file holds the private key, encrypted under a secret that the TPM sealed. The module decrypts
/// and uses the key in memory.
pub(crate) const CK_DEVID_PROTECTION_SEALED: CK_ULONG = 2;
/// A file holds the private key in clear.
pub(crate) const CK_DEVID_PROTECTION_FILE: CK_ULONG = 3;
