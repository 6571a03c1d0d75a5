/* Helpers for the C host programs of the tests: they load the module, and check return codes. A
 * failed check prints its line number. */
#ifndef HOST_H
#define HOST_H

#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static CK_FUNCTION_LIST *call;

/* Ends the program if CODE differs from WANTED. */
#define GIVES(wanted, code)                                                                  \
    do {                                                                                     \
        unsigned long got_ = (code), wanted_ = (wanted);                                     \
        if (got_ != wanted_) {                                                               \
            fprintf(stderr, "%s:%d: %s gave 0x%lx, not 0x%lx\n", __FILE__, __LINE__, #code,  \
                    got_, wanted_);                                                          \
            exit(1);                                                                         \
        }                                                                                    \
    } while (0)
#define OK(code) GIVES(CKR_OK, code)
#define HOLDS(what) GIVES(1, !!(what))

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Loads the module into `call`, and returns the handle of the library. */
static inline void *load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    OK(((CK_C_GetFunctionList)dlsym(library, "C_GetFunctionList"))(&call));
    return library;
}

/* Returns the slot of the token with this label. */
static inline CK_SLOT_ID slot_of(const char *label)
{
    CK_SLOT_ID slots[32];
    CK_ULONG count = COUNT(slots);
    size_t length = strlen(label);
    OK(call->C_GetSlotList(CK_TRUE, slots, &count));
    for (CK_ULONG at = 0; at < count; at++) {
        CK_TOKEN_INFO info;
        OK(call->C_GetTokenInfo(slots[at], &info));
        if (length <= sizeof info.label && !memcmp(info.label, label, length) &&
            (length == sizeof info.label || info.label[length] == ' '))
            return slots[at];
    }
    fprintf(stderr, "no token %s\n", label);
    exit(1);
}

static inline CK_SESSION_HANDLE opened(CK_SLOT_ID slot)
{
    CK_SESSION_HANDLE session;
    OK(call->C_OpenSession(slot, CKF_SERIAL_SESSION | (slot ? CKF_RW_SESSION : 0), NULL, NULL,
                           &session));
    return session;
}

/* Returns the first object of this class. */
static inline CK_OBJECT_HANDLE first(CK_SESSION_HANDLE session, CK_OBJECT_CLASS class)
{
    CK_ATTRIBUTE wanted = {CKA_CLASS, &class, sizeof class};
    CK_OBJECT_HANDLE object = 0;
    CK_ULONG found;
    OK(call->C_FindObjectsInit(session, &wanted, 1));
    OK(call->C_FindObjects(session, &object, 1, &found));
    OK(call->C_FindObjectsFinal(session));
    GIVES(1, found);
    return object;
}

static unsigned char ec_params[] = {6, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 3, 1, 7};

/* Makes a P-256 key pair in the session, for signatures and key agreement. */
static inline CK_RV generated(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *public,
                              CK_OBJECT_HANDLE *private)
{
    CK_MECHANISM mechanism = {CKM_EC_KEY_PAIR_GEN, NULL, 0};
    CK_ATTRIBUTE curve = {CKA_EC_PARAMS, ec_params, sizeof ec_params};
    CK_BBOOL yes = CK_TRUE;
    CK_ATTRIBUTE uses[] = {{CKA_SIGN, &yes, sizeof yes}, {CKA_DERIVE, &yes, sizeof yes}};
    return call->C_GenerateKeyPair(session, &mechanism, &curve, 1, uses, COUNT(uses), public,
                                   private);
}

/* Signs 32 bytes with CKM_ECDSA, and returns the length of the signature. */
static inline CK_RV signed_by(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key,
                              unsigned char *signature, CK_ULONG *length)
{
    CK_MECHANISM mechanism = {CKM_ECDSA, NULL, 0};
    unsigned char digest[32] = {0x5A};
    CK_RV code = call->C_SignInit(session, &mechanism, key);
    return code ? code : call->C_Sign(session, digest, sizeof digest, signature, length);
}

#endif
