/* Prints the vendor attributes of every private key: vendor MODULE */
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>

#include "devid_pkcs11.h"

static void hex(const char *what, const unsigned char *bytes, CK_ULONG count)
{
    printf("%s ", what);
    for (CK_ULONG n = 0; n < count; n++)
        printf("%02x", bytes[n]);
    printf("\n");
}

int main(int count, char **arguments)
{
    void *module = count == 2 ? dlopen(arguments[1], RTLD_NOW) : NULL;
    CK_C_GetFunctionList get = module ? (CK_C_GetFunctionList)dlsym(module, "C_GetFunctionList") : NULL;
    CK_FUNCTION_LIST *call;
    CK_SESSION_HANDLE session;
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_ATTRIBUTE private_keys = {CKA_CLASS, &class, sizeof class};
    CK_OBJECT_HANDLE keys[16];
    CK_ULONG found = 0;

    if (!get || get(&call) != CKR_OK || call->C_Initialize(NULL) != CKR_OK)
        return 1;
    if (call->C_OpenSession(0, CKF_SERIAL_SESSION, NULL, NULL, &session) != CKR_OK)
        return 2;
    if (call->C_FindObjectsInit(session, &private_keys, 1) != CKR_OK ||
        call->C_FindObjects(session, keys, 16, &found) != CKR_OK ||
        call->C_FindObjectsFinal(session) != CKR_OK)
        return 3;
    for (CK_ULONG n = 0; n < found; n++) {
        CK_ULONG handle = 0, protection = 0;
        CK_BBOOL persistent = CK_FALSE;
        unsigned char name[66], area[1024];
        CK_ATTRIBUTE asked[] = {
            {CKA_DEVID_TPM_HANDLE, &handle, sizeof handle},
            {CKA_DEVID_TPM_NAME, name, sizeof name},
            {CKA_DEVID_TPM_PUBLIC, area, sizeof area},
            {CKA_DEVID_PROTECTION, &protection, sizeof protection},
            {CKA_DEVID_PERSISTENT, &persistent, sizeof persistent},
        };
        if (call->C_GetAttributeValue(session, keys[n], asked, 5) != CKR_OK)
            return 4;
        printf("handle %08lx\n", handle);
        hex("name", name, asked[1].ulValueLen);
        hex("area", area, asked[2].ulValueLen);
        printf("tpm %d\n", protection == CK_DEVID_PROTECTION_TPM);
        printf("persistent %d\n", persistent == CK_TRUE);
    }
    return call->C_Finalize(NULL) == CKR_OK ? 0 : 5;
}
