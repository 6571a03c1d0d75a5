/* Makes the mistakes that hosts make, and checks that each gets the code of the standard:
 * mistakes MODULE */
#include "host.h"

static void too_early(void)
{
    CK_ULONG count;
    GIVES(CKR_CRYPTOKI_NOT_INITIALIZED, call->C_Finalize(NULL));
    GIVES(CKR_CRYPTOKI_NOT_INITIALIZED, call->C_GetSlotList(CK_TRUE, NULL, &count));
    GIVES(CKR_CRYPTOKI_NOT_INITIALIZED, call->C_CloseSession(1));
    GIVES(CKR_ARGUMENTS_BAD, call->C_GetFunctionList(NULL));
    GIVES(CKR_ARGUMENTS_BAD, call->C_Finalize((void *)1));
}

static void no_such_thing(CK_SESSION_HANDLE session)
{
    CK_MECHANISM ecdsa = {CKM_ECDSA, NULL, 0}, unknown = {CKM_VENDOR_DEFINED, NULL, 0};
    CK_OBJECT_HANDLE key = first(session, CKO_PRIVATE_KEY);
    CK_SESSION_HANDLE other;
    CK_TOKEN_INFO info;
    CK_ULONG length = 64;
    unsigned char bytes[64] = {1};
    CK_ATTRIBUTE sensitive = {CKA_VALUE, bytes, sizeof bytes};
    CK_ATTRIBUTE small = {CKA_LABEL, bytes, 0};

    GIVES(CKR_CRYPTOKI_ALREADY_INITIALIZED, call->C_Initialize(NULL));
    GIVES(CKR_SLOT_ID_INVALID, call->C_GetTokenInfo(99, &info));
    GIVES(CKR_ARGUMENTS_BAD, call->C_GetTokenInfo(0, NULL));
    GIVES(CKR_SESSION_PARALLEL_NOT_SUPPORTED, call->C_OpenSession(0, 0, NULL, NULL, &other));
    GIVES(CKR_SESSION_HANDLE_INVALID, call->C_FindObjectsInit(session + 77, NULL, 0));
    GIVES(CKR_OBJECT_HANDLE_INVALID, call->C_GetAttributeValue(session, 12345, &small, 1));
    GIVES(CKR_ATTRIBUTE_SENSITIVE, call->C_GetAttributeValue(session, key, &sensitive, 1));
    GIVES(CKR_BUFFER_TOO_SMALL, call->C_GetAttributeValue(session, key, &small, 1));
    GIVES(CKR_OPERATION_NOT_INITIALIZED, call->C_Sign(session, bytes, 32, bytes, &length));
    GIVES(CKR_OPERATION_NOT_INITIALIZED, call->C_FindObjects(session, &key, 1, &length));
    GIVES(CKR_KEY_HANDLE_INVALID, call->C_SignInit(session, &ecdsa, 12345));
    GIVES(CKR_MECHANISM_INVALID, call->C_SignInit(session, &unknown, key));
    OK(call->C_SignInit(session, &ecdsa, key));
    GIVES(CKR_OPERATION_ACTIVE, call->C_SignInit(session, &ecdsa, key));
    GIVES(CKR_ARGUMENTS_BAD, call->C_Sign(session, NULL, 32, bytes, &length));
    OK(call->C_SignInit(session, &ecdsa, key));
    length = 64;
    GIVES(CKR_DATA_LEN_RANGE, call->C_Sign(session, bytes, 0, bytes, &length));
}

static void no_such_digest(CK_SESSION_HANDLE session)
{
    CK_MECHANISM sha256 = {CKM_SHA256, NULL, 0}, unknown = {CKM_VENDOR_DEFINED, NULL, 0};
    unsigned char bytes[64] = {1};
    CK_MECHANISM with_parameter = {CKM_SHA256, bytes, 8};
    CK_ULONG length = sizeof bytes;

    GIVES(CKR_MECHANISM_INVALID, call->C_DigestInit(session, &unknown));
    GIVES(CKR_MECHANISM_PARAM_INVALID, call->C_DigestInit(session, &with_parameter));
    GIVES(CKR_OPERATION_NOT_INITIALIZED, call->C_Digest(session, bytes, 32, bytes, &length));
    GIVES(CKR_OPERATION_NOT_INITIALIZED, call->C_DigestKey(session, 12345));
    OK(call->C_DigestInit(session, &sha256));
    GIVES(CKR_OPERATION_ACTIVE, call->C_DigestInit(session, &sha256));
    GIVES(CKR_ARGUMENTS_BAD, call->C_DigestUpdate(session, NULL, 32));
    OK(call->C_DigestInit(session, &sha256));
    GIVES(CKR_KEY_HANDLE_INVALID, call->C_DigestKey(session, 12345));
    OK(call->C_DigestInit(session, &sha256));
    GIVES(CKR_KEY_INDIGESTIBLE, call->C_DigestKey(session, first(session, CKO_PRIVATE_KEY)));
    GIVES(CKR_OPERATION_NOT_INITIALIZED, call->C_DigestFinal(session, bytes, &length));
}

static void wrong_templates(CK_SESSION_HANDLE session)
{
    CK_ULONG class = CKO_DATA, kind = CKO_VENDOR_DEFINED;
    CK_ATTRIBUTE twice[] = {{CKA_CLASS, &class, sizeof class}, {CKA_CLASS, &kind, sizeof kind}};
    CK_ATTRIBUTE none = {CKA_LABEL, NULL, 5}, short_class = {CKA_CLASS, &class, 3};
    CK_OBJECT_HANDLE object;
    GIVES(CKR_TEMPLATE_INCOMPLETE, call->C_CreateObject(session, NULL, 0, &object));
    GIVES(CKR_TEMPLATE_INCONSISTENT, call->C_CreateObject(session, twice, 2, &object));
    GIVES(CKR_ATTRIBUTE_VALUE_INVALID, call->C_CreateObject(session, &none, 1, &object));
    GIVES(CKR_ATTRIBUTE_VALUE_INVALID, call->C_CreateObject(session, &short_class, 1, &object));
    GIVES(CKR_ARGUMENTS_BAD, call->C_CreateObject(session, NULL, 1, &object));
    GIVES(CKR_ARGUMENTS_BAD, call->C_CreateObject(session, twice, 1, NULL));
}

int main(int count, char **arguments)
{
    HOLDS(count == 2);
    load(arguments[1]);
    too_early();
    OK(call->C_Initialize(NULL));
    CK_SESSION_HANDLE session = opened(0);
    no_such_thing(session);
    no_such_digest(session);
    wrong_templates(opened(1));
    OK(call->C_CloseSession(session));
    GIVES(CKR_SESSION_HANDLE_INVALID, call->C_CloseSession(session));
    OK(call->C_Finalize(NULL));
    too_early();
    return 0;
}
