/* Makes the calls that Azure's aziot-keyd makes for its secret keys, in its order and with its
 * templates: aziot MODULE TOKEN [PIN]
 *
 * Makes an AES key and an HMAC key, finds each key by its label in another session, and uses it.
 * Then imports an AES key and an HMAC key. Prints "cipher HEX" and "code HEX" for the imported
 * keys. */
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static CK_FUNCTION_LIST *call;
static CK_BBOOL yes = CK_TRUE;
static CK_OBJECT_CLASS secret = CKO_SECRET_KEY;
static const char *pin;
static CK_SLOT_ID slot;

#define CHECK(wanted, expression) check(__LINE__, (wanted), (expression))

static void check(int line, CK_RV wanted, CK_RV code)
{
    if (code != wanted) {
        fprintf(stderr, "line %d: 0x%lx, not 0x%lx\n", line, code, wanted);
        exit(1);
    }
}

static CK_SESSION_HANDLE session(void)
{
    CK_SESSION_HANDLE made;

    CHECK(CKR_OK, call->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &made));
    if (pin) {
        CK_RV code = call->C_Login(made, CKU_USER, (CK_UTF8CHAR *)pin, strlen(pin));

        if (code != CKR_USER_ALREADY_LOGGED_IN)
            CHECK(CKR_OK, code);
    }
    return made;
}

static CK_OBJECT_HANDLE find(CK_SESSION_HANDLE in, const char *label)
{
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &secret, sizeof secret}, {CKA_LABEL, (void *)label, strlen(label)}};
    CK_OBJECT_HANDLE found = CK_INVALID_HANDLE;
    CK_ULONG count;

    CHECK(CKR_OK, call->C_FindObjectsInit(in, wanted, 2));
    CHECK(CKR_OK, call->C_FindObjects(in, &found, 1, &count));
    CHECK(CKR_OK, call->C_FindObjectsFinal(in));
    return count == 1 ? found : CK_INVALID_HANDLE;
}

static void hex(const char *what, const unsigned char *bytes, CK_ULONG count)
{
    printf("%s ", what);
    for (CK_ULONG n = 0; n < count; n++)
        printf("%02x", bytes[n]);
    printf("\n");
}

/* Encrypts and decrypts with AES-GCM. A changed ciphertext must give no plaintext. */
static void use_aes(CK_SESSION_HANDLE in, CK_OBJECT_HANDLE key)
{
    unsigned char iv[12] = {1, 2, 3}, aad[] = "aad", plain[] = "a secret of an edge module";
    unsigned char hidden[sizeof plain + 32], opened[sizeof hidden] = {0};
    CK_GCM_PARAMS how = {iv, sizeof iv, 8 * sizeof iv, aad, sizeof aad, 128};
    CK_MECHANISM gcm = {CKM_AES_GCM, &how, sizeof how};
    CK_ULONG size = sizeof hidden, length = sizeof opened;

    CHECK(CKR_OK, call->C_EncryptInit(in, &gcm, key));
    CHECK(CKR_OK, call->C_Encrypt(in, plain, sizeof plain, hidden, &size));
    CHECK(sizeof plain + 16, size);
    CHECK(CKR_OK, call->C_DecryptInit(in, &gcm, key));
    CHECK(CKR_OK, call->C_Decrypt(in, hidden, size, opened, &length));
    CHECK(sizeof plain, length);
    CHECK(0, (CK_RV)memcmp(plain, opened, length));
    hidden[3] ^= 1;
    memset(opened, 0, sizeof opened);
    length = sizeof opened;
    CHECK(CKR_OK, call->C_DecryptInit(in, &gcm, key));
    CHECK(CKR_ENCRYPTED_DATA_INVALID, call->C_Decrypt(in, hidden, size, opened, &length));
    for (CK_ULONG n = 0; n < sizeof opened; n++)
        CHECK(0, opened[n]);
}

/* Makes a message authentication code, and verifies it. */
static void use_hmac(CK_SESSION_HANDLE in, CK_OBJECT_HANDLE key, unsigned char code[32])
{
    CK_MECHANISM hmac = {CKM_SHA256_HMAC, NULL, 0};
    unsigned char message[] = "message";
    CK_ULONG size = 32;

    CHECK(CKR_OK, call->C_SignInit(in, &hmac, key));
    CHECK(CKR_OK, call->C_Sign(in, message, sizeof message - 1, code, &size));
    CHECK(32, size);
    CHECK(CKR_OK, call->C_VerifyInit(in, &hmac, key));
    CHECK(CKR_OK, call->C_Verify(in, message, sizeof message - 1, code, size));
    code[0] ^= 1;
    CHECK(CKR_OK, call->C_VerifyInit(in, &hmac, key));
    CHECK(CKR_SIGNATURE_INVALID, call->C_Verify(in, message, sizeof message - 1, code, size));
    code[0] ^= 1;
}

static void generate(const char *label, CK_KEY_TYPE type)
{
    CK_BBOOL aes = type == CKK_AES;
    CK_MECHANISM by = {aes ? CKM_AES_KEY_GEN : CKM_GENERIC_SECRET_KEY_GEN, NULL, 0};
    CK_ULONG length = 32;
    CK_ATTRIBUTE template[] = {
        {CKA_PRIVATE, &yes, 1}, {CKA_SENSITIVE, &yes, 1}, {CKA_TOKEN, &yes, 1}, {CKA_VERIFY, &yes, 1},
        {CKA_LABEL, (void *)label, strlen(label)}, {aes ? CKA_DECRYPT : CKA_SIGN, &yes, 1},
        {CKA_KEY_TYPE, &type, sizeof type}, {CKA_VALUE_LEN, &length, sizeof length}, {CKA_ENCRYPT, &yes, 1},
    };
    CK_SESSION_HANDLE in = session();
    CK_OBJECT_HANDLE key = find(in, label);
    unsigned char value[64], code[32];
    CK_ATTRIBUTE read = {CKA_VALUE, value, sizeof value};

    if (key != CK_INVALID_HANDLE)
        CHECK(CKR_OK, call->C_DestroyObject(in, key));
    CHECK(CKR_OK, call->C_GenerateKey(in, &by, template, aes ? 9 : 8, &key));
    CHECK(CKR_ATTRIBUTE_SENSITIVE, call->C_GetAttributeValue(in, key, &read, 1));
    key = find(session(), label);
    if (aes)
        use_aes(in, key);
    else
        use_hmac(in, key, code);
}

static void import(const char *label, CK_KEY_TYPE type)
{
    CK_BBOOL aes = type == CKK_AES;
    unsigned char bytes[] = "0123456789abcdef0123456789abcdef", code[32], out[48], iv[16] = {0};
    CK_ATTRIBUTE template[] = {
        {CKA_CLASS, &secret, sizeof secret}, {CKA_PRIVATE, &yes, 1}, {CKA_SENSITIVE, &yes, 1},
        {CKA_TOKEN, &yes, 1}, {CKA_VALUE, bytes, 32}, {CKA_LABEL, (void *)label, strlen(label)},
        {aes ? CKA_DECRYPT : CKA_SIGN, &yes, 1}, {aes ? CKA_ENCRYPT : CKA_VERIFY, &yes, 1},
        {CKA_KEY_TYPE, &type, sizeof type},
    };
    CK_MECHANISM cbc = {CKM_AES_CBC_PAD, iv, sizeof iv};
    CK_SESSION_HANDLE in = session();
    CK_OBJECT_HANDLE key;
    CK_ULONG size = sizeof out;

    CHECK(CKR_OK, call->C_CreateObject(in, template, 9, &key));
    if (aes) {
        use_aes(in, key);
        CHECK(CKR_OK, call->C_EncryptInit(in, &cbc, key));
        CHECK(CKR_OK, call->C_Encrypt(in, (CK_BYTE *)"message", 7, out, &size));
        hex("cipher", out, size);
    } else {
        use_hmac(in, key, code);
        hex("code", code, sizeof code);
    }
}

int main(int argc, char **argv)
{
    void *library = argc < 3 ? NULL : dlopen(argv[1], RTLD_NOW);
    CK_RV (*list)(CK_FUNCTION_LIST **) = NULL;
    CK_SLOT_ID slots[16];
    CK_TOKEN_INFO info;
    CK_ULONG count = 16;

    if (library)
        *(void **)&list = dlsym(library, "C_GetFunctionList");
    if (!list || list(&call) != CKR_OK)
        return 2;
    pin = argc > 3 ? argv[3] : NULL;
    CHECK(CKR_OK, call->C_Initialize(NULL));
    CHECK(CKR_OK, call->C_GetSlotList(CK_TRUE, slots, &count));
    for (CK_ULONG n = 0; n < count; n++) {
        CHECK(CKR_OK, call->C_GetTokenInfo(slots[n], &info));
        if (!strncmp((char *)info.label, argv[2], strlen(argv[2])))
            slot = slots[n];
    }
    generate("aes", CKK_AES);
    generate("hmac", CKK_GENERIC_SECRET);
    generate("aes", CKK_AES);
    import("imported aes", CKK_AES);
    import("imported hmac", CKK_GENERIC_SECRET);
    CHECK(CKR_OK, call->C_Finalize(NULL));
    return 0;
}
