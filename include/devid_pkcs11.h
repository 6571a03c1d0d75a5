/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vendor-defined attributes of libdevid_pkcs11.so, to be read with C_GetAttributeValue from a
 * private key; the last two can also stand in the template of a new one. Include a pkcs11.h first: it defines CKA_VENDOR_DEFINED.
 */
#ifndef DEVID_PKCS11_H
#define DEVID_PKCS11_H

#define CKA_DEVID_BASE (CKA_VENDOR_DEFINED | 0x44450000UL)

/* CK_ULONG: the key's persistent handle in the TPM. */
#define CKA_DEVID_TPM_HANDLE (CKA_DEVID_BASE + 1UL)
/* Bytes: the TPM's name of the key, nameAlg and digest of the public area. */
#define CKA_DEVID_TPM_NAME (CKA_DEVID_BASE + 2UL)
/* Bytes: the key's public area, a TPMT_PUBLIC. */
#define CKA_DEVID_TPM_PUBLIC (CKA_DEVID_BASE + 3UL)
/* CK_ULONG: what keeps the private key. */
#define CKA_DEVID_PROTECTION (CKA_DEVID_BASE + 4UL)
/* CK_BBOOL: whether the key lives in a persistent handle. */
#define CKA_DEVID_PERSISTENT (CKA_DEVID_BASE + 5UL)

/* CKA_DEVID_PROTECTION: the private key never leaves the TPM. */
#define CK_DEVID_PROTECTION_TPM 1UL
/* On disk it is encrypted under what the TPM sealed; it is used in memory. */
#define CK_DEVID_PROTECTION_SEALED 2UL
/* In a file, in clear; only on a token whose configuration allows it. */
#define CK_DEVID_PROTECTION_FILE 3UL

#endif
