/* Measures the stack that the calls use: stacks MODULE PIN
 *
 * Each kind of call runs in a separate thread, whose stack was filled with a pattern. For each
 * call, prints a line "BYTES CALL" with the number of overwritten bytes. */
#include "host.h"

#include <pthread.h>
#include <sys/mman.h>

#define STACK (8UL << 20)
#define PATTERN 0x5A

static CK_SLOT_ID slots[8];
static CK_SLOT_ID slot;
static CK_SESSION_HANDLE session;
static CK_OBJECT_HANDLE public, private, aes, hmac, rsa_public, rsa_private;
static const char *pin;
static CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
static unsigned char iv[16], data[256], out[600];

static void initialize(void) { OK(call->C_Initialize(NULL)); }

static void open_session(void)
{
    CK_ULONG count = COUNT(slots);
    CK_TOKEN_INFO info;

    OK(call->C_GetSlotList(CK_TRUE, slots, &count));
    slot = slots[1];
    OK(call->C_GetTokenInfo(slot, &info));
    session = opened(slot);
}

static void login(void) { OK(call->C_Login(session, CKU_USER, (unsigned char *)pin, strlen(pin))); }

static void make_pair(CK_ULONG on_token)
{
    CK_MECHANISM mechanism = {CKM_EC_KEY_PAIR_GEN, NULL, 0};
    CK_ATTRIBUTE curve[] = {{CKA_EC_PARAMS, ec_params, sizeof ec_params},
                            {CKA_TOKEN, on_token ? &yes : &no, 1}};
    CK_ATTRIBUTE uses[] = {{CKA_SIGN, &yes, 1}, {CKA_DERIVE, &yes, 1}, {CKA_TOKEN, on_token ? &yes : &no, 1}};
    OK(call->C_GenerateKeyPair(session, &mechanism, curve, 2, uses, 3, &public, &private));
}

static void generate_session_pair(void) { make_pair(0); }
static void generate_token_pair(void) { make_pair(1); }

static void generate_rsa(void)
{
    CK_MECHANISM mechanism = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0};
    CK_ULONG bits = 2048, sealed = 2;
    CK_ATTRIBUTE size[] = {{CKA_MODULUS_BITS, &bits, sizeof bits}, {CKA_ENCRYPT, &yes, 1}};
    CK_ATTRIBUTE uses[] = {{CKA_SIGN, &yes, 1}, {CKA_DECRYPT, &yes, 1},
                           {CKA_VENDOR_DEFINED | 0x44450004UL, &sealed, sizeof sealed}};
    OK(call->C_GenerateKeyPair(session, &mechanism, size, 2, uses, 3, &rsa_public, &rsa_private));
}

static void secret(CK_MECHANISM_TYPE by, CK_ULONG bytes, CK_OBJECT_HANDLE *made)
{
    CK_MECHANISM mechanism = {by, NULL, 0};
    CK_ATTRIBUTE wanted[] = {{CKA_VALUE_LEN, &bytes, sizeof bytes}, {CKA_TOKEN, &yes, 1}};
    OK(call->C_GenerateKey(session, &mechanism, wanted, 2, made));
}

static void generate_aes(void) { secret(CKM_AES_KEY_GEN, 32, &aes); }
static void generate_hmac(void) { secret(CKM_GENERIC_SECRET_KEY_GEN, 32, &hmac); }

static void both_ways(CK_MECHANISM by, CK_OBJECT_HANDLE for_encryption, CK_OBJECT_HANDLE for_decryption)
{
    CK_ULONG sealed = sizeof out, length = sizeof data;
    OK(call->C_EncryptInit(session, &by, for_encryption));
    OK(call->C_Encrypt(session, data, 32, out, &sealed));
    OK(call->C_DecryptInit(session, &by, for_decryption));
    OK(call->C_Decrypt(session, out, sealed, data, &length));
    GIVES(32, length);
}

static void gcm(void)
{
    CK_GCM_PARAMS how = {iv, 12, 96, data, 16, 128};
    both_ways((CK_MECHANISM){CKM_AES_GCM, &how, sizeof how}, aes, aes);
}

static void cbc(void) { both_ways((CK_MECHANISM){CKM_AES_CBC_PAD, iv, sizeof iv}, aes, aes); }
static void rsa_pkcs(void) { both_ways((CK_MECHANISM){CKM_RSA_PKCS, NULL, 0}, rsa_public, rsa_private); }

static void oaep(void)
{
    CK_RSA_PKCS_OAEP_PARAMS how = {CKM_SHA256, CKG_MGF1_SHA256, CKZ_DATA_SPECIFIED, NULL, 0};
    both_ways((CK_MECHANISM){CKM_RSA_PKCS_OAEP, &how, sizeof how}, rsa_public, rsa_private);
}

static void signs_and_verifies(CK_MECHANISM_TYPE by, CK_OBJECT_HANDLE signer, CK_OBJECT_HANDLE verifier)
{
    CK_MECHANISM mechanism = {by, NULL, 0};
    CK_ULONG length = sizeof out;
    OK(call->C_SignInit(session, &mechanism, signer));
    OK(call->C_Sign(session, data, 32, out, &length));
    OK(call->C_VerifyInit(session, &mechanism, verifier));
    OK(call->C_Verify(session, data, 32, out, length));
}

static void ecdsa(void) { signs_and_verifies(CKM_ECDSA_SHA256, private, public); }
static void rsa(void) { signs_and_verifies(CKM_SHA256_RSA_PKCS, rsa_private, rsa_public); }
static void code(void) { signs_and_verifies(CKM_SHA512_HMAC, hmac, hmac); }

static void digest(void)
{
    CK_MECHANISM sha512 = {CKM_SHA512, NULL, 0};
    CK_ULONG length = sizeof out;
    OK(call->C_DigestInit(session, &sha512));
    OK(call->C_Digest(session, data, sizeof data, out, &length));
}

static void derive(void)
{
    unsigned char point[67];
    CK_ATTRIBUTE its_point = {CKA_EC_POINT, point, sizeof point};
    CK_ECDH1_DERIVE_PARAMS how = {CKD_NULL, 0, NULL, 65, point + 2};
    CK_MECHANISM mechanism = {CKM_ECDH1_DERIVE, &how, sizeof how};
    CK_OBJECT_HANDLE made;
    OK(call->C_GetAttributeValue(session, public, &its_point, 1));
    OK(call->C_DeriveKey(session, &mechanism, private, NULL, 0, &made));
}

static void find(void)
{
    CK_OBJECT_HANDLE found[64];
    CK_ULONG count;
    OK(call->C_FindObjectsInit(session, NULL, 0));
    OK(call->C_FindObjects(session, found, COUNT(found), &count));
    OK(call->C_FindObjectsFinal(session));
}

static void destroy(void) { OK(call->C_DestroyObject(session, aes)); }
static void logout(void) { OK(call->C_Logout(session)); }

static void finalize(void) { OK(call->C_Finalize(NULL)); }

static const struct task {
    const char *name;
    void (*run)(void);
} tasks[] = {
    {"C_Initialize", initialize},       {"C_OpenSession", open_session},
    {"C_Login", login},                 {"C_GenerateKeyPair (session)", generate_session_pair},
    {"C_GenerateKeyPair", generate_token_pair}, {"C_GenerateKeyPair (sealed RSA)", generate_rsa},
    {"C_GenerateKey (AES)", generate_aes}, {"C_GenerateKey (HMAC)", generate_hmac},
    {"CKM_AES_GCM", gcm},               {"CKM_AES_CBC_PAD", cbc},
    {"CKM_RSA_PKCS", rsa_pkcs},         {"CKM_RSA_PKCS_OAEP", oaep},
    {"CKM_ECDSA_SHA256", ecdsa},        {"CKM_SHA256_RSA_PKCS", rsa},
    {"CKM_SHA512_HMAC", code},          {"CKM_SHA512", digest},
    {"CKM_ECDH1_DERIVE", derive},       {"C_FindObjects", find},
    {"C_DestroyObject", destroy},       {"C_Logout", logout},
    {"C_Finalize", finalize},
};

static void *run(void *task)
{
    ((const struct task *)task)->run();
    return NULL;
}

int main(int count, char **arguments)
{
    unsigned char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_attr_t attributes;

    HOLDS(count == 3 && stack != MAP_FAILED);
    load(arguments[1]);
    pin = arguments[2];
    HOLDS(!pthread_attr_init(&attributes));
    HOLDS(!pthread_attr_setstack(&attributes, stack, STACK));
    for (size_t n = 0; n < COUNT(tasks); n++) {
        pthread_t thread;
        unsigned long untouched = 0;

        memset(stack, PATTERN, STACK);
        HOLDS(!pthread_create(&thread, &attributes, run, (void *)&tasks[n]));
        HOLDS(!pthread_join(thread, NULL));
        while (untouched < STACK && stack[untouched] == PATTERN)
            untouched++;
        printf("%lu %s\n", STACK - untouched, tasks[n].name);
        fflush(stdout);
    }
    return 0;
}
