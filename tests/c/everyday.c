/* Makes the calls that most hosts make, and calls C_Initialize again after C_Finalize: everyday
 * MODULE */
#include "host.h"

#include <pthread.h>

#define OFFICER (CK_UTF8CHAR *)"officer"
#define USER (CK_UTF8CHAR *)"user"
#define RENEWED (CK_UTF8CHAR *)"renewed"
#define CHANGED (CK_UTF8CHAR *)"changed"
#define LENGTH(pin) strlen((char *)(pin))

static CK_BBOOL yes = CK_TRUE;

static void slots(void)
{
    CK_SLOT_ID slots[8];
    CK_ULONG count = COUNT(slots);
    CK_INFO info;
    OK(call->C_GetInfo(&info));
    OK(call->C_GetSlotList(CK_TRUE, slots, &count));
    GIVES(3, count);
    for (CK_ULONG n = 0; n < count; n++) {
        CK_SLOT_INFO slot;
        CK_TOKEN_INFO token;
        CK_MECHANISM_TYPE kinds[64];
        CK_ULONG kinds_count = COUNT(kinds);
        OK(call->C_GetSlotInfo(slots[n], &slot));
        OK(call->C_GetTokenInfo(slots[n], &token));
        OK(call->C_GetMechanismList(slots[n], kinds, &kinds_count));
        for (CK_ULONG m = 0; m < kinds_count; m++) {
            CK_MECHANISM_INFO kind;
            OK(call->C_GetMechanismInfo(slots[n], kinds[m], &kind));
        }
    }
}

/* Finds all objects, and reads some values of each object. The length is asked first. */
static void objects(CK_SESSION_HANDLE session)
{
    CK_OBJECT_HANDLE all[64];
    CK_ULONG count;
    OK(call->C_FindObjectsInit(session, NULL, 0));
    OK(call->C_FindObjects(session, all, COUNT(all), &count));
    OK(call->C_FindObjectsFinal(session));
    for (CK_ULONG n = 0; n < count; n++) {
        CK_ATTRIBUTE asked[] = {{CKA_CLASS, NULL, 0}, {CKA_LABEL, NULL, 0},   {CKA_ID, NULL, 0},
                                {CKA_VALUE, NULL, 0}, {CKA_SUBJECT, NULL, 0}, {CKA_EC_POINT, NULL, 0}};
        call->C_GetAttributeValue(session, all[n], asked, COUNT(asked));
        for (size_t m = 0; m < COUNT(asked); m++) {
            if (asked[m].ulValueLen == CK_UNAVAILABLE_INFORMATION)
                continue;
            asked[m].pValue = malloc(asked[m].ulValueLen + 1);
            OK(call->C_GetAttributeValue(session, all[n], &asked[m], 1));
            free(asked[m].pValue);
        }
    }
}

/* Signs in one part and in two parts. The length is asked first, and both signatures are
 * verified. */
static void signatures(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE public, CK_OBJECT_HANDLE private)
{
    CK_MECHANISM mechanism = {CKM_ECDSA_SHA256, NULL, 0};
    unsigned char text[] = "signed", signature[64];
    CK_ULONG length = 3;
    OK(call->C_SignInit(session, &mechanism, private));
    GIVES(CKR_BUFFER_TOO_SMALL, call->C_Sign(session, text, 6, signature, &length));
    OK(call->C_Sign(session, text, 6, NULL, &length));
    GIVES(64, length);
    OK(call->C_Sign(session, text, 6, signature, &length));
    OK(call->C_VerifyInit(session, &mechanism, public));
    OK(call->C_Verify(session, text, 6, signature, length));
    OK(call->C_SignInit(session, &mechanism, private));
    OK(call->C_SignUpdate(session, text, 2));
    OK(call->C_SignUpdate(session, text + 2, 4));
    OK(call->C_SignFinal(session, signature, &length));
    OK(call->C_VerifyInit(session, &mechanism, public));
    OK(call->C_VerifyUpdate(session, text, 6));
    OK(call->C_VerifyFinal(session, signature, length));
    signature[5] ^= 1;
    OK(call->C_VerifyInit(session, &mechanism, public));
    GIVES(CKR_SIGNATURE_INVALID, call->C_Verify(session, text, 6, signature, length));
}

/* Hashes in one part and in two parts. A third digest is started and not ended. */
static void digests(CK_SESSION_HANDLE session)
{
    CK_MECHANISM_TYPE kinds[] = {CKM_SHA_1, CKM_SHA224, CKM_SHA256, CKM_SHA384, CKM_SHA512};
    static unsigned char text[1000];
    for (size_t n = 0; n < COUNT(kinds); n++) {
        CK_MECHANISM mechanism = {kinds[n], NULL, 0};
        unsigned char whole[64], parts[64];
        CK_ULONG length = 3;
        OK(call->C_DigestInit(session, &mechanism));
        GIVES(CKR_BUFFER_TOO_SMALL, call->C_Digest(session, text, sizeof text, whole, &length));
        OK(call->C_Digest(session, text, sizeof text, whole, &length));
        OK(call->C_DigestInit(session, &mechanism));
        OK(call->C_DigestUpdate(session, text, 1));
        OK(call->C_DigestUpdate(session, text + 1, sizeof text - 1));
        OK(call->C_DigestFinal(session, NULL, &length));
        OK(call->C_DigestFinal(session, parts, &length));
        HOLDS(!memcmp(whole, parts, length));
        OK(call->C_DigestInit(session, &mechanism));
        OK(call->C_DigestUpdate(session, text, 100));
        OK(call->C_DigestInit(session, NULL));
    }
}

/* Makes a key pair on the token, renames it and destroys it. */
static void pairs(CK_SESSION_HANDLE session)
{
    CK_MECHANISM mechanism = {CKM_EC_KEY_PAIR_GEN, NULL, 0};
    CK_ATTRIBUTE public[] = {{CKA_EC_PARAMS, ec_params, sizeof ec_params}, {CKA_TOKEN, &yes, 1}};
    CK_ATTRIBUTE private[] = {{CKA_TOKEN, &yes, 1}, {CKA_PRIVATE, &yes, 1}};
    CK_ATTRIBUTE renamed = {CKA_LABEL, "renamed", 7};
    CK_OBJECT_HANDLE keys[2];
    OK(call->C_GenerateKeyPair(session, &mechanism, public, 2, private, 2, &keys[0], &keys[1]));
    OK(call->C_SetAttributeValue(session, keys[1], &renamed, 1));
    signatures(session, keys[0], keys[1]);
    OK(call->C_DestroyObject(session, keys[1]));
    call->C_DestroyObject(session, keys[0]); /* may be gone with it */
}

/* Makes an RSA pair in the session, and encrypts and decrypts with it. */
static void messages(CK_SESSION_HANDLE session)
{
    CK_MECHANISM make = {CKM_RSA_PKCS_KEY_PAIR_GEN, NULL, 0}, pkcs = {CKM_RSA_PKCS, NULL, 0};
    CK_ULONG bits = 2048, length = 256, opened_length = 256;
    CK_ATTRIBUTE public[] = {{CKA_MODULUS_BITS, &bits, sizeof bits}, {CKA_ENCRYPT, &yes, 1}};
    CK_ATTRIBUTE private = {CKA_DECRYPT, &yes, 1};
    CK_OBJECT_HANDLE keys[2];
    unsigned char ciphertext[256], message[256];
    OK(call->C_GenerateKeyPair(session, &make, public, 2, &private, 1, &keys[0], &keys[1]));
    OK(call->C_EncryptInit(session, &pkcs, keys[0]));
    OK(call->C_Encrypt(session, (CK_BYTE *)"hidden", 6, ciphertext, &length));
    OK(call->C_DecryptInit(session, &pkcs, keys[1]));
    OK(call->C_Decrypt(session, ciphertext, length, message, &opened_length));
    HOLDS(opened_length == 6 && !memcmp(message, "hidden", 6));
}

static void pins(void)
{
    CK_UTF8CHAR label[33] = "own                             ";
    CK_SESSION_HANDLE session;
    OK(call->C_InitToken(1, OFFICER, LENGTH(OFFICER), label));
    session = opened(1);
    OK(call->C_Login(session, CKU_SO, OFFICER, LENGTH(OFFICER)));
    OK(call->C_InitPIN(session, USER, LENGTH(USER)));
    OK(call->C_SetPIN(session, OFFICER, LENGTH(OFFICER), CHANGED, LENGTH(CHANGED)));
    OK(call->C_SetPIN(session, CHANGED, LENGTH(CHANGED), OFFICER, LENGTH(OFFICER)));
    OK(call->C_Logout(session));
    OK(call->C_Login(session, CKU_USER, USER, LENGTH(USER)));
    OK(call->C_SetPIN(session, USER, LENGTH(USER), RENEWED, LENGTH(RENEWED)));
    pairs(session);
    messages(session);
    objects(session);
    OK(call->C_CloseAllSessions(1));
}

static void *signing(void *key)
{
    CK_SESSION_HANDLE session = opened(0);
    for (int n = 0; n < 3; n++) {
        unsigned char signature[64];
        CK_ULONG length = sizeof signature;
        OK(signed_by(session, *(CK_OBJECT_HANDLE *)key, signature, &length));
    }
    OK(call->C_CloseSession(session));
    return NULL;
}

static void threads(CK_OBJECT_HANDLE key)
{
    pthread_t threads[4];
    for (size_t n = 0; n < COUNT(threads); n++)
        OK(pthread_create(&threads[n], NULL, signing, &key));
    for (size_t n = 0; n < COUNT(threads); n++)
        OK(pthread_join(threads[n], NULL));
}

int main(int count, char **arguments)
{
    HOLDS(count == 2);
    load(arguments[1]);
    for (int n = 0; n < 2; n++) {
        unsigned char random[64] = {0};
        OK(call->C_Initialize(NULL));
        slots();
        CK_SESSION_HANDLE session = opened(0);
        CK_OBJECT_HANDLE private = first(session, CKO_PRIVATE_KEY);
        objects(session);
        signatures(session, first(session, CKO_PUBLIC_KEY), private);
        digests(session);
        if (!n) {
            threads(private);
            OK(call->C_GenerateRandom(session, random, sizeof random));
            pins();
        }
        /* The session on slot 0 stays open, with a search, a signature and a digest in progress. */
        CK_MECHANISM mechanism = {CKM_ECDSA, NULL, 0}, digest = {CKM_SHA256, NULL, 0};
        OK(call->C_FindObjectsInit(session, NULL, 0));
        OK(call->C_SignInit(session, &mechanism, private));
        OK(call->C_DigestInit(session, &digest));
        OK(call->C_DigestUpdate(session, random, sizeof random));
        OK(call->C_Finalize(NULL));
    }
    return 0;
}
