/*
 * Passes counts and lengths that are too large: huge MODULE
 *
 * The memory for a count contains only zeros. The memory for a length has three bytes, and the
 * memory after them cannot be read. If the module uses such a length, the program ends.
 */
#include "host.h"

#include <sys/mman.h>
#include <unistd.h>

#define KWP 0x210BUL /* CKM_AES_KEY_WRAP_KWP of version 3.0 */

static const CK_ULONG sizes[] = {1UL << 16, 1UL << 31, 1UL << 32, 1UL << 40, ~0UL / 32, ~0UL};

static CK_SESSION_HANDLE session, factory;
static CK_OBJECT_HANDLE public, private, factory_key, data, secret, hmac;
static CK_ATTRIBUTE *zeros;
/* Three bytes at the end of the readable memory. */
static unsigned char *three;

static void *mapped(size_t size)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
    HOLDS(memory != MAP_FAILED);
    return memory;
}

static void prepare(void)
{
    CK_ULONG class = CKO_DATA, length = 65;
    CK_ATTRIBUTE of_data[] = {{CKA_CLASS, &class, sizeof class}};
    size_t page = sysconf(_SC_PAGESIZE);
    unsigned char *pages = mapped(2 * page), point[67];
    CK_ATTRIBUTE its_point = {CKA_EC_POINT, point, sizeof point};

    OK(call->C_Initialize(NULL));
    factory = opened(0);
    factory_key = first(factory, CKO_PRIVATE_KEY);
    session = opened(1);
    OK(call->C_CreateObject(session, of_data, 1, &data));
    OK(generated(session, &public, &private));
    OK(call->C_GetAttributeValue(session, public, &its_point, 1));
    {
        CK_ECDH1_DERIVE_PARAMS how = {CKD_NULL, 0, NULL, length, point + 2};
        CK_MECHANISM derive = {CKM_ECDH1_DERIVE, &how, sizeof how};
        CK_ULONG type = CKK_AES, bytes = 32;
        CK_BBOOL yes = CK_TRUE;
        class = CKO_SECRET_KEY;
        CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &class, sizeof class},
                                 {CKA_KEY_TYPE, &type, sizeof type},
                                 {CKA_VALUE_LEN, &bytes, sizeof bytes},
                                 {CKA_UNWRAP, &yes, 1}};
        OK(call->C_DeriveKey(session, &derive, private, wanted, COUNT(wanted), &secret));
    }
    {
        CK_MECHANISM generate = {CKM_GENERIC_SECRET_KEY_GEN, NULL, 0};
        CK_ULONG bytes = 32;
        CK_ATTRIBUTE wanted = {CKA_VALUE_LEN, &bytes, sizeof bytes};
        OK(call->C_GenerateKey(session, &generate, &wanted, 1, &hmac));
    }
    zeros = mapped(1UL << 24);
    OK(mprotect(pages + page, page, PROT_NONE));
    three = pages + page - 3;
}

/* Calls each function that takes a template. */
static void templates(CK_RV wanted, CK_ATTRIBUTE *template, CK_ULONG count)
{
    CK_MECHANISM pair = {CKM_EC_KEY_PAIR_GEN, NULL, 0}, kwp = {KWP, NULL, 0};
    CK_ECDH1_DERIVE_PARAMS how = {CKD_NULL, 0, NULL, 3, three};
    CK_MECHANISM derive = {CKM_ECDH1_DERIVE, &how, sizeof how};
    CK_MECHANISM key = {CKM_AES_KEY_GEN, NULL, 0};
    CK_ATTRIBUTE curve = {CKA_EC_PARAMS, ec_params, sizeof ec_params};
    CK_OBJECT_HANDLE object, other;

    GIVES(wanted, call->C_FindObjectsInit(session, template, count));
    GIVES(wanted, call->C_CreateObject(session, template, count, &object));
    GIVES(wanted, call->C_SetAttributeValue(session, data, template, count));
    GIVES(wanted,
          call->C_GenerateKeyPair(session, &pair, template, count, NULL, 0, &object, &other));
    GIVES(wanted,
          call->C_GenerateKeyPair(session, &pair, &curve, 1, template, count, &object, &other));
    GIVES(wanted, call->C_GenerateKey(session, &key, template, count, &object));
    GIVES(wanted, call->C_CopyObject(session, data, template, count, &object));
    GIVES(wanted, call->C_DeriveKey(session, &derive, private, template, count, &object));
    GIVES(wanted,
          call->C_UnwrapKey(session, &kwp, secret, three, 3, template, count, &object));
}

static void pins(CK_ULONG length)
{
    CK_UTF8CHAR label[32];
    memset(label, ' ', sizeof label);
    GIVES(CKR_ARGUMENTS_BAD, call->C_Login(session, CKU_USER, three, length));
    GIVES(CKR_ARGUMENTS_BAD, call->C_InitPIN(session, three, length));
    GIVES(CKR_ARGUMENTS_BAD, call->C_SetPIN(session, three, length, three, 3));
    GIVES(CKR_ARGUMENTS_BAD, call->C_SetPIN(session, three, 3, three, length));
    GIVES(CKR_ARGUMENTS_BAD, call->C_InitToken(1, three, length, label));
}

static void parameters(CK_ULONG length)
{
    CK_ECDH1_DERIVE_PARAMS shared = {CKD_SHA1_KDF, length, three, 3, three};
    CK_ECDH1_DERIVE_PARAMS point = {CKD_NULL, 0, NULL, length, three};
    CK_RSA_PKCS_OAEP_PARAMS oaep = {CKM_SHA_1, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, three, length};
    CK_MECHANISM wrong[] = {
        {CKM_ECDH1_DERIVE, &shared, sizeof shared}, {CKM_ECDH1_DERIVE, &point, sizeof point},
        {CKM_ECDH1_DERIVE, three, length},
    };
    CK_MECHANISM with_label = {CKM_RSA_PKCS_OAEP, &oaep, sizeof oaep};
    CK_MECHANISM itself = {CKM_ECDSA, three, length}, kwp = {KWP, three, length};
    CK_MECHANISM digest = {CKM_SHA256, three, length};
    CK_GCM_PARAMS gcm[] = {{three, length, 24, NULL, 0, 128}, {three, 3, 24, three, length, 128},
                           {three, 3, length, NULL, 0, length}};
    CK_MECHANISM ciphers[] = {
        {CKM_AES_GCM, &gcm[0], sizeof *gcm}, {CKM_AES_GCM, &gcm[1], sizeof *gcm},
        {CKM_AES_GCM, &gcm[2], sizeof *gcm}, {CKM_AES_GCM, three, length},
        {CKM_AES_CBC, three, length},        {CKM_AES_CBC_PAD, three, length},
        {CKM_AES_ECB, three, length},
    };
    CK_MECHANISM codes[] = {{CKM_SHA256_HMAC, three, length}, {CKM_SHA256_HMAC_GENERAL, three, length},
                            {CKM_SHA256_HMAC_GENERAL, &length, sizeof length}};
    CK_OBJECT_HANDLE object;

    for (size_t n = 0; n < COUNT(ciphers); n++) {
        GIVES(CKR_MECHANISM_PARAM_INVALID, call->C_EncryptInit(session, &ciphers[n], secret));
        GIVES(CKR_MECHANISM_PARAM_INVALID, call->C_DecryptInit(session, &ciphers[n], secret));
    }
    for (size_t n = 0; n < COUNT(codes); n++) {
        GIVES(CKR_MECHANISM_PARAM_INVALID, call->C_SignInit(session, &codes[n], hmac));
        GIVES(CKR_MECHANISM_PARAM_INVALID, call->C_VerifyInit(session, &codes[n], hmac));
    }

    for (size_t n = 0; n < COUNT(wrong); n++)
        GIVES(CKR_MECHANISM_PARAM_INVALID,
              call->C_DeriveKey(session, &wrong[n], private, NULL, 0, &object));
    GIVES(CKR_MECHANISM_PARAM_INVALID, call->C_EncryptInit(session, &with_label, public));
    GIVES(CKR_MECHANISM_PARAM_INVALID, call->C_DecryptInit(session, &with_label, private));
    GIVES(CKR_MECHANISM_PARAM_INVALID, call->C_SignInit(session, &itself, private));
    GIVES(CKR_MECHANISM_PARAM_INVALID, call->C_DigestInit(session, &digest));
    GIVES(CKR_MECHANISM_PARAM_INVALID, call->C_VerifyInit(session, &itself, public));
    GIVES(CKR_MECHANISM_PARAM_INVALID,
          call->C_UnwrapKey(session, &kwp, secret, three, 3, NULL, 0, &object));
}

/* The memory after the buffer cannot be read, so a function that reads it ends the program. */
static void data_of(CK_ULONG length)
{
    CK_MECHANISM ecdsa = {CKM_ECDSA, NULL, 0}, kwp = {KWP, NULL, 0};
    unsigned char iv[16] = {0}, out[64];
    CK_GCM_PARAMS gcm = {iv, 12, 96, NULL, 0, 128};
    CK_MECHANISM ciphers[] = {{CKM_AES_GCM, &gcm, sizeof gcm}, {CKM_AES_CBC, iv, sizeof iv},
                              {CKM_AES_CBC_PAD, iv, sizeof iv}, {CKM_AES_ECB, NULL, 0}};
    CK_ULONG class = CKO_PRIVATE_KEY, type = CKK_EC;
    CK_ATTRIBUTE key[] = {{CKA_CLASS, &class, sizeof class}, {CKA_KEY_TYPE, &type, sizeof type}};
    unsigned char signature[64];
    CK_ULONG room = sizeof signature;
    CK_OBJECT_HANDLE object;
    CK_RV beyond = length == ~0UL ? CKR_ARGUMENTS_BAD : CKR_DATA_LEN_RANGE;

    for (size_t n = 0; n < COUNT(ciphers); n++) {
        CK_RV hidden = length == ~0UL ? CKR_ARGUMENTS_BAD : CKR_ENCRYPTED_DATA_LEN_RANGE;
        CK_ULONG size = sizeof out;
        OK(call->C_EncryptInit(session, &ciphers[n], secret));
        GIVES(beyond, call->C_Encrypt(session, three, length, out, &size));
        OK(call->C_EncryptInit(session, &ciphers[n], secret));
        GIVES(beyond, call->C_EncryptUpdate(session, three, length, out, &size));
        OK(call->C_DecryptInit(session, &ciphers[n], secret));
        GIVES(hidden, call->C_Decrypt(session, three, length, out, &size));
        OK(call->C_DecryptInit(session, &ciphers[n], secret));
        GIVES(hidden, call->C_DecryptUpdate(session, three, length, out, &size));
    }
    OK(call->C_SignInit(session, &ecdsa, private));
    GIVES(beyond, call->C_Sign(session, three, length, signature, &room));
    OK(call->C_VerifyInit(session, &ecdsa, public));
    GIVES(beyond, call->C_Verify(session, three, length, three, 3));
    OK(call->C_VerifyInit(session, &ecdsa, public));
    GIVES(length == ~0UL ? CKR_ARGUMENTS_BAD : CKR_SIGNATURE_LEN_RANGE,
          call->C_Verify(session, three, 3, three, length));
    GIVES(length == ~0UL ? CKR_ARGUMENTS_BAD : CKR_WRAPPED_KEY_LEN_RANGE,
          call->C_UnwrapKey(session, &kwp, secret, three, length, key, 2, &object));
    GIVES(length == ~0UL ? CKR_ARGUMENTS_BAD : CKR_OK, call->C_SeedRandom(session, three, length));
}

/* The caller's buffer really has the stated size. The function must write only its output. */
static void rooms(CK_ULONG count)
{
    CK_MECHANISM sha256 = {CKM_SHA256, NULL, 0};
    CK_ULONG numbers[1024], n;
    n = count;
    OK(call->C_GetSlotList(CK_FALSE, numbers, &n));
    GIVES(3, n);
    n = count;
    OK(call->C_GetMechanismList(1, numbers, &n));
    OK(call->C_FindObjectsInit(session, NULL, 0));
    OK(call->C_FindObjects(session, numbers, count, &n));
    OK(call->C_FindObjectsFinal(session));
    n = count;
    OK(call->C_DigestInit(session, &sha256));
    OK(call->C_Digest(session, three, 3, (unsigned char *)numbers, &n));
    GIVES(32, n);
    n = count;
    OK(signed_by(factory, factory_key, (unsigned char *)numbers, &n));
    GIVES(64, n);
}

int main(int count, char **arguments)
{
    HOLDS(count == 2);
    load(arguments[1]);
    prepare();
    for (size_t n = 0; n < COUNT(sizes); n++) {
        CK_ATTRIBUTE many[] = {{CKA_LABEL, three, 3}, {CKA_LABEL, three, sizes[n]}};
        printf("%lx\n", sizes[n]);
        fflush(stdout);
        templates(CKR_ARGUMENTS_BAD, zeros, sizes[n]);
        GIVES(CKR_ARGUMENTS_BAD, call->C_GetAttributeValue(session, data, zeros, sizes[n]));
        rooms(sizes[n]);
        if (sizes[n] == 1UL << 16)
            continue; /* so much can be meant */
        templates(CKR_ARGUMENTS_BAD, many, COUNT(many));
        pins(sizes[n]);
        parameters(sizes[n]);
        data_of(sizes[n]);
        GIVES(CKR_ARGUMENTS_BAD, call->C_GenerateRandom(session, three, sizes[n]));
    }
    /* Each value is small, but all values together exceed the limit. */
    unsigned char *half = mapped(1 << 19);
    CK_ATTRIBUTE together[] = {{CKA_LABEL, half, 1 << 19}, {CKA_ID, half, 1 << 19},
                               {CKA_VALUE, half, 1 << 19}};
    templates(CKR_ARGUMENTS_BAD, together, COUNT(together));
    OK(call->C_Finalize(NULL));
    return 0;
}
