/* Signs the standard input (4096 bytes at most) with CKM_ECDSA_SHA256: sign MODULE
 *
 * Uses the factory key and two new own keys: a key that is used only in the TPM, and a sealed
 * key. Prints a line "NAME POINT SIGNATURE" for each key, in hexadecimal. POINT is CKA_EC_POINT,
 * or "-" for the factory key. */
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <string.h>

#include "devid_pkcs11.h"

static CK_FUNCTION_LIST *call;
static unsigned char message[4096];
static CK_ULONG length;

static void hex(const unsigned char *bytes, CK_ULONG count)
{
    for (CK_ULONG n = 0; n < count; n++)
        printf("%02x", bytes[n]);
}

static CK_RV sign(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key)
{
    CK_MECHANISM how = {CKM_ECDSA_SHA256, NULL, 0};
    unsigned char signature[64];
    CK_ULONG size = sizeof signature;
    CK_RV code = call->C_SignInit(session, &how, key);

    if (code == CKR_OK)
        code = call->C_Sign(session, message, length, signature, &size);
    if (code == CKR_OK) {
        hex(signature, size);
        printf("\n");
    }
    return code;
}

static CK_RV by_identity(void)
{
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_ATTRIBUTE wanted = {CKA_CLASS, &class, sizeof class};
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE key = 0;
    CK_ULONG found = 0;
    CK_RV code = call->C_OpenSession(0, CKF_SERIAL_SESSION, NULL, NULL, &session);

    if (code == CKR_OK)
        code = call->C_FindObjectsInit(session, &wanted, 1);
    if (code == CKR_OK)
        code = call->C_FindObjects(session, &key, 1, &found);
    if (code == CKR_OK)
        code = call->C_FindObjectsFinal(session);
    if (code == CKR_OK && found != 1)
        code = CKR_KEY_HANDLE_INVALID;
    printf("identity - ");
    return code == CKR_OK ? sign(session, key) : code;
}

static CK_RV by_new_key(const char *name, CK_ULONG protection)
{
    static unsigned char p256[] = {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7};
    CK_BBOOL yes = CK_TRUE;
    CK_ATTRIBUTE public_half[] = {{CKA_TOKEN, &yes, 1}, {CKA_EC_PARAMS, p256, sizeof p256}};
    CK_ATTRIBUTE private_half[] = {
        {CKA_TOKEN, &yes, 1},
        {CKA_LABEL, (char *)name, strlen(name)},
        {CKA_DEVID_PROTECTION, &protection, sizeof protection},
    };
    CK_MECHANISM how = {CKM_EC_KEY_PAIR_GEN, NULL, 0};
    unsigned char point[80];
    CK_ATTRIBUTE asked = {CKA_EC_POINT, point, sizeof point};
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE public_key, private_key;
    CK_FLAGS flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;
    CK_RV code = call->C_OpenSession(1, flags, NULL, NULL, &session);

    if (code == CKR_OK)
        code = call->C_GenerateKeyPair(session, &how, public_half, 2, private_half, 3, &public_key, &private_key);
    if (code == CKR_OK)
        code = call->C_GetAttributeValue(session, public_key, &asked, 1);
    if (code != CKR_OK)
        return code;
    printf("%s ", name);
    hex(point, asked.ulValueLen);
    printf(" ");
    return sign(session, private_key);
}

int main(int count, char **arguments)
{
    void *module = count == 2 ? dlopen(arguments[1], RTLD_NOW) : NULL;
    CK_C_GetFunctionList get = module ? (CK_C_GetFunctionList)dlsym(module, "C_GetFunctionList") : NULL;
    CK_RV code = CKR_GENERAL_ERROR;

    length = fread(message, 1, sizeof message, stdin);
    if (get && get(&call) == CKR_OK)
        code = call->C_Initialize(NULL);
    else
        fprintf(stderr, "sign: %s\n", count == 2 ? dlerror() : "which module?");
    if (code == CKR_OK)
        code = by_identity();
    if (code == CKR_OK)
        code = by_new_key("wrapped", CK_DEVID_PROTECTION_TPM);
    if (code == CKR_OK)
        code = by_new_key("sealed", CK_DEVID_PROTECTION_SEALED);
    if (code == CKR_OK)
        code = call->C_Finalize(NULL);
    if (code != CKR_OK)
        fprintf(stderr, "sign: code %#lx\n", code);
    return code != CKR_OK;
}
