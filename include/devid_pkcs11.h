/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vendor-defined attributes of libdevid_pkcs11.so. C_GetAttributeValue reads them from a private
 * key. The template of a new key may contain the last two attributes. First include a pkcs11.h that
 * defines CKA_VENDOR_DEFINED.
 */
#ifndef DEVID_PKCS11_H
#define DEVID_PKCS11_H

#define CKA_DEVID_BASE (CKA_VENDOR_DEFINED | 0x44450000UL)

/* CK_ULONG: the key's persistent handle in the TPM. */
#define CKA_DEVID_TPM_HANDLE (CKA_DEVID_BASE + 1UL)
/* Byte array: the TPM name of the key: nameAlg and the digest of the public area. */
#define CKA_DEVID_TPM_NAME (CKA_DEVID_BASE + 2UL)
/* Byte array: the public area of the key, a TPMT_PUBLIC. */
#define CKA_DEVID_TPM_PUBLIC (CKA_DEVID_BASE + 3UL)
/* CK_ULONG: the protection of the private key. */
#define CKA_DEVID_PROTECTION (CKA_DEVID_BASE + 4UL)
/* CK_BBOOL: true if the key is in a persistent handle. */
#define CKA_DEVID_PERSISTENT (CKA_DEVID_BASE + 5UL)

/* CKA_DEVID_PROTECTION: the private key never leaves the TPM. */
#define CK_DEVID_PROTECTION_TPM 1UL
/* On disk the key is encrypted under a secret that the TPM sealed. The key is used in memory. */
#define CK_DEVID_PROTECTION_SEALED 2UL
/* The key is in a file, in clear. The configuration of the token must allow this. */
#define CK_DEVID_PROTECTION_FILE 3UL

#endif
