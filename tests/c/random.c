/* Random calls of several threads: random MODULE SEED THREADS STEPS SECONDS PIN
 *
 * Each thread chooses its calls by SEED and its number, so its sequence can be run again. A thread ends after
 * STEPS calls, or after SECONDS if those come first. C_Finalize and C_Initialize are among the calls, so each
 * call may find the module ended or its session closed. Any other code must be one that the standard lists for
 * the call and that its arguments explain. Each signature is verified. The counts are printed at the end. */
#include "host.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#define SESSIONS 4
#define CALLS 32

static const char *names[CALLS];
static atomic_ulong counts[CALLS], good, verified;
static char *pin;
static unsigned long steps, seconds, seed;
static CK_SLOT_ID slots[8];
static CK_ULONG slot_count;

struct thread {
    unsigned number;
    uint64_t state;
    unsigned long step;
    CK_SESSION_HANDLE sessions[SESSIONS];
    CK_OBJECT_HANDLE own[2];
};

/* splitmix64 */
static uint64_t next(struct thread *at)
{
    uint64_t z = at->state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static unsigned below(struct thread *at, unsigned limit)
{
    return next(at) % limit;
}

/* Counts a call, and ends the program if its code is none of CODES (which end with CKR_OK) nor one that every
 * call may give while other threads close sessions and end the module. */
static CK_RV may(struct thread *at, int call_number, const char *name, CK_RV code, const CK_RV *codes)
{
    names[call_number] = name;
    counts[call_number]++;
    if (code == CKR_OK) {
        good++;
        return code;
    }
    if (code == CKR_CRYPTOKI_NOT_INITIALIZED || code == CKR_SESSION_HANDLE_INVALID ||
        code == CKR_SESSION_CLOSED)
        return code;
    for (; *codes; codes++)
        if (code == *codes)
            return code;
    fprintf(stderr, "%s gave 0x%lx: seed %lu, thread %u, step %lu\n", name, (unsigned long)code, seed, at->number,
            at->step);
    exit(1);
}

#define MAY(number, name, arguments, ...)                                                          \
    may(at, number, #name, call->name arguments, (const CK_RV[]){__VA_ARGS__ __VA_OPT__(, ) CKR_OK})

/* A session of this thread, or now and then a handle that is none. */
static CK_SESSION_HANDLE session(struct thread *at)
{
    return below(at, 20) ? at->sessions[below(at, SESSIONS)] : next(at) >> below(at, 64);
}

static CK_SLOT_ID slot(struct thread *at)
{
    return below(at, 20) ? slots[below(at, slot_count)] : next(at) >> below(at, 64);
}

static void open_one(struct thread *at)
{
    CK_FLAGS flags = CKF_SERIAL_SESSION | (below(at, 2) ? CKF_RW_SESSION : 0);
    CK_SESSION_HANDLE *into = &at->sessions[below(at, SESSIONS)];
    if (*into)
        MAY(0, C_CloseSession, (*into));
    *into = 0;
    MAY(1, C_OpenSession, (slot(at), flags, NULL, NULL, into), CKR_SLOT_ID_INVALID, CKR_TOKEN_NOT_PRESENT,
        CKR_SESSION_READ_WRITE_SO_EXISTS);
}

static CK_ULONG search(struct thread *at, CK_SESSION_HANDLE by, CK_OBJECT_CLASS class, CK_OBJECT_HANDLE *all,
                       CK_ULONG most)
{
    CK_ATTRIBUTE wanted = {CKA_CLASS, &class, sizeof class};
    CK_ULONG count = 0;
    if (MAY(2, C_FindObjectsInit, (by, &wanted, 1), CKR_OPERATION_ACTIVE))
        return 0;
    if (MAY(3, C_FindObjects, (by, all, most, &count), CKR_OPERATION_NOT_INITIALIZED))
        count = 0;
    if (below(at, 10))
        MAY(4, C_FindObjectsFinal, (by), CKR_OPERATION_NOT_INITIALIZED);
    return count;
}

/* Finishes what an earlier step may have left in this session. */
static void tidy(struct thread *at, CK_SESSION_HANDLE by)
{
    unsigned char out[512];
    CK_ULONG length = sizeof out;
    MAY(4, C_FindObjectsFinal, (by), CKR_OPERATION_NOT_INITIALIZED);
    MAY(5, C_SignFinal, (by, out, &length), CKR_OPERATION_NOT_INITIALIZED, CKR_DATA_LEN_RANGE,
        CKR_USER_NOT_LOGGED_IN, CKR_KEY_HANDLE_INVALID, CKR_FUNCTION_NOT_SUPPORTED);
}

/* A private key signs, and the public key with the same CKA_ID verifies. */
static void sign(struct thread *at)
{
    CK_SESSION_HANDLE by = session(at);
    CK_OBJECT_HANDLE keys[16], publics[16];
    tidy(at, by);
    CK_ULONG count = search(at, by, CKO_PRIVATE_KEY, keys, COUNT(keys));
    if (!count)
        return;
    CK_OBJECT_HANDLE key = keys[below(at, count)];
    unsigned char id[64], text[300], signature[512];
    CK_KEY_TYPE type;
    CK_ATTRIBUTE asked[] = {{CKA_ID, id, sizeof id}, {CKA_KEY_TYPE, &type, sizeof type}};
    if (MAY(6, C_GetAttributeValue, (by, key, asked, 2), CKR_OBJECT_HANDLE_INVALID))
        return;
    CK_MECHANISM mechanism = {type == CKK_EC ? CKM_ECDSA_SHA256 : CKM_SHA256_RSA_PKCS, NULL, 0};
    CK_ULONG size = below(at, sizeof text), length = sizeof signature;
    for (CK_ULONG n = 0; n < size; n++)
        text[n] = next(at);
    if (MAY(7, C_SignInit, (by, &mechanism, key), CKR_OPERATION_ACTIVE, CKR_KEY_HANDLE_INVALID,
            CKR_USER_NOT_LOGGED_IN, CKR_KEY_FUNCTION_NOT_PERMITTED))
        return;
    if (!below(at, 20))
        return; /* given up */
    CK_RV code;
    if (below(at, 2)) {
        code = MAY(8, C_Sign, (by, text, size, signature, &length), CKR_OPERATION_NOT_INITIALIZED,
                   CKR_USER_NOT_LOGGED_IN, CKR_KEY_HANDLE_INVALID);
    } else {
        CK_ULONG part = size ? below(at, size) : 0;
        MAY(9, C_SignUpdate, (by, text, part), CKR_OPERATION_NOT_INITIALIZED);
        MAY(9, C_SignUpdate, (by, text + part, size - part), CKR_OPERATION_NOT_INITIALIZED);
        code = MAY(5, C_SignFinal, (by, signature, &length), CKR_OPERATION_NOT_INITIALIZED,
                   CKR_USER_NOT_LOGGED_IN, CKR_KEY_HANDLE_INVALID);
    }
    if (code)
        return;
    CK_OBJECT_CLASS class = CKO_PUBLIC_KEY;
    CK_ATTRIBUTE pair[] = {{CKA_CLASS, &class, sizeof class}, {CKA_ID, id, asked[0].ulValueLen}};
    MAY(4, C_FindObjectsFinal, (by), CKR_OPERATION_NOT_INITIALIZED);
    if (MAY(2, C_FindObjectsInit, (by, pair, 2), CKR_OPERATION_ACTIVE))
        return;
    CK_ULONG found = 0;
    MAY(3, C_FindObjects, (by, publics, COUNT(publics), &found), CKR_OPERATION_NOT_INITIALIZED);
    MAY(4, C_FindObjectsFinal, (by), CKR_OPERATION_NOT_INITIALIZED);
    if (!found || MAY(10, C_VerifyInit, (by, &mechanism, publics[0]), CKR_KEY_HANDLE_INVALID, CKR_OPERATION_ACTIVE,
                      CKR_KEY_FUNCTION_NOT_PERMITTED))
        return;
    verified += !MAY(11, C_Verify, (by, text, size, signature, length), CKR_OPERATION_NOT_INITIALIZED);
}

static void digest(struct thread *at)
{
    static const CK_MECHANISM_TYPE kinds[] = {CKM_SHA_1, CKM_SHA256, CKM_SHA384, CKM_ECDSA};
    CK_MECHANISM mechanism = {kinds[below(at, COUNT(kinds))], NULL, 0};
    CK_SESSION_HANDLE by = session(at);
    unsigned char text[200] = {0}, out[64];
    CK_ULONG length = below(at, sizeof out + 1);
    MAY(12, C_DigestInit, (by, &mechanism), CKR_MECHANISM_INVALID, CKR_OPERATION_ACTIVE);
    if (below(at, 2))
        MAY(13, C_DigestUpdate, (by, text, below(at, sizeof text)), CKR_OPERATION_NOT_INITIALIZED);
    MAY(14, C_DigestFinal, (by, out, &length), CKR_OPERATION_NOT_INITIALIZED, CKR_BUFFER_TOO_SMALL);
}

static void attributes(struct thread *at)
{
    CK_OBJECT_HANDLE all[64], object;
    CK_SESSION_HANDLE by = session(at);
    CK_ULONG count = search(at, by, below(at, 5), all, COUNT(all));
    unsigned char value[2048];
    object = count ? all[below(at, count)] : next(at);
    CK_ATTRIBUTE asked[] = {{below(at, 0x200), value, below(at, sizeof value)}, {CKA_LABEL, NULL, 0}};
    MAY(6, C_GetAttributeValue, (by, object, asked, 2), CKR_OBJECT_HANDLE_INVALID, CKR_ATTRIBUTE_TYPE_INVALID,
        CKR_ATTRIBUTE_SENSITIVE, CKR_BUFFER_TOO_SMALL);
}

/* A pair of the session or of the token, which this thread destroys later. */
static void pair(struct thread *at)
{
    CK_SESSION_HANDLE by = session(at);
    if (at->own[0]) {
        MAY(15, C_DestroyObject, (by, at->own[0]), CKR_OBJECT_HANDLE_INVALID, CKR_SESSION_READ_ONLY,
            CKR_TOKEN_WRITE_PROTECTED, CKR_USER_NOT_LOGGED_IN, CKR_ACTION_PROHIBITED);
        MAY(15, C_DestroyObject, (by, at->own[1]), CKR_OBJECT_HANDLE_INVALID, CKR_SESSION_READ_ONLY,
            CKR_TOKEN_WRITE_PROTECTED, CKR_USER_NOT_LOGGED_IN, CKR_ACTION_PROHIBITED);
        at->own[0] = at->own[1] = 0;
        return;
    }
    CK_MECHANISM make = {CKM_EC_KEY_PAIR_GEN, NULL, 0};
    CK_BBOOL kept = below(at, 2), yes = CK_TRUE;
    CK_ATTRIBUTE public[] = {{CKA_EC_PARAMS, ec_params, sizeof ec_params}, {CKA_TOKEN, &kept, 1}};
    CK_ATTRIBUTE private[] = {{CKA_TOKEN, &kept, 1}, {CKA_SIGN, &yes, 1}};
    MAY(16, C_GenerateKeyPair, (by, &make, public, 2, private, 2, &at->own[0], &at->own[1]), CKR_SESSION_READ_ONLY,
        CKR_TOKEN_WRITE_PROTECTED, CKR_USER_NOT_LOGGED_IN, CKR_TEMPLATE_INCONSISTENT, CKR_MECHANISM_INVALID,
        CKR_FUNCTION_NOT_SUPPORTED);
}

static void data(struct thread *at)
{
    CK_SESSION_HANDLE by = session(at);
    CK_OBJECT_CLASS class = CKO_DATA;
    CK_OBJECT_HANDLE object;
    CK_BBOOL kept = !below(at, 8);
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &class, sizeof class}, {CKA_TOKEN, &kept, 1}, {CKA_VALUE, "data", 4}};
    CK_ATTRIBUTE renamed = {CKA_LABEL, "renamed", below(at, 8)};
    if (MAY(17, C_CreateObject, (by, wanted, 3, &object), CKR_SESSION_READ_ONLY, CKR_TOKEN_WRITE_PROTECTED,
            CKR_USER_NOT_LOGGED_IN, CKR_TEMPLATE_INCONSISTENT))
        return;
    MAY(18, C_SetAttributeValue, (by, object, &renamed, 1), CKR_OBJECT_HANDLE_INVALID, CKR_SESSION_READ_ONLY);
    MAY(15, C_DestroyObject, (by, object), CKR_OBJECT_HANDLE_INVALID, CKR_SESSION_READ_ONLY);
}

static void login(struct thread *at)
{
    CK_SESSION_HANDLE by = session(at);
    if (!below(at, 3)) {
        MAY(19, C_Logout, (by), CKR_USER_NOT_LOGGED_IN);
        return;
    }
    /* A PIN that is too short is no try. */
    int right = below(at, 8);
    MAY(20, C_Login, (by, CKU_USER, (CK_UTF8CHAR *)pin, right ? strlen(pin) : 1), CKR_USER_ALREADY_LOGGED_IN,
        CKR_USER_PIN_NOT_INITIALIZED, CKR_PIN_INCORRECT, CKR_PIN_LEN_RANGE);
}

static void tell(struct thread *at)
{
    CK_TOKEN_INFO token;
    CK_SESSION_INFO about;
    CK_SLOT_ID all[8];
    CK_MECHANISM_TYPE kinds[96];
    unsigned char bytes[64];
    CK_ULONG count = below(at, COUNT(all) + 1), kinds_count = below(at, COUNT(kinds) + 1);
    MAY(21, C_GetSlotList, (below(at, 2), all, &count), CKR_BUFFER_TOO_SMALL);
    MAY(22, C_GetTokenInfo, (slot(at), &token), CKR_SLOT_ID_INVALID, CKR_TOKEN_NOT_PRESENT);
    MAY(23, C_GetMechanismList, (slot(at), kinds, &kinds_count), CKR_SLOT_ID_INVALID, CKR_TOKEN_NOT_PRESENT,
        CKR_BUFFER_TOO_SMALL);
    MAY(24, C_GetSessionInfo, (session(at), &about));
    MAY(25, C_GenerateRandom, (session(at), bytes, below(at, sizeof bytes)));
}

static void end(struct thread *at)
{
    if (below(at, 8)) {
        MAY(26, C_CloseAllSessions, (slot(at)), CKR_SLOT_ID_INVALID);
        return;
    }
    MAY(27, C_Finalize, (NULL));
    MAY(28, C_Initialize, (NULL), CKR_CRYPTOKI_ALREADY_INITIALIZED);
}

static void *run(void *argument)
{
    struct thread *at = argument;
    time_t until = time(NULL) + seconds;
    for (at->step = 0; at->step < steps && time(NULL) < until; at->step++) {
        unsigned choice = below(at, 100);
        if (choice < 30)
            sign(at);
        else if (choice < 50)
            open_one(at);
        else if (choice < 60)
            digest(at);
        else if (choice < 75)
            attributes(at);
        else if (choice < 79)
            pair(at);
        else if (choice < 83)
            data(at);
        else if (choice < 91)
            login(at);
        else if (choice < 99)
            tell(at);
        else
            end(at);
    }
    return NULL;
}

static unsigned descriptors(void)
{
    unsigned count = 0;
    DIR *folder = opendir("/proc/self/fd");
    HOLDS(folder);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

int main(int count, char **arguments)
{
    static struct thread threads[32];
    pthread_t ids[32];
    HOLDS(count == 7);
    seed = strtoul(arguments[2], NULL, 10);
    size_t running = strtoul(arguments[3], NULL, 10);
    steps = strtoul(arguments[4], NULL, 10), seconds = strtoul(arguments[5], NULL, 10), pin = arguments[6];
    HOLDS(running <= COUNT(threads));
    load(arguments[1]);
    unsigned open = descriptors();
    OK(call->C_Initialize(NULL));
    slot_count = COUNT(slots);
    OK(call->C_GetSlotList(CK_TRUE, slots, &slot_count));
    for (size_t n = 0; n < running; n++) {
        threads[n] = (struct thread){.number = n, .state = seed * 1000003 + n};
        OK(pthread_create(&ids[n], NULL, run, &threads[n]));
    }
    for (size_t n = 0; n < running; n++)
        OK(pthread_join(ids[n], NULL));
    CK_RV code = call->C_Finalize(NULL);
    HOLDS(code == CKR_OK || code == CKR_CRYPTOKI_NOT_INITIALIZED);
    GIVES(open, descriptors());
    unsigned long all = 0;
    for (size_t n = 0; n < CALLS; n++) {
        all += counts[n];
        if (names[n])
            printf("%s %lu, ", names[n], counts[n]);
    }
    printf("\nseed %lu, %zu threads: %lu calls, %lu CKR_OK, %lu signatures verified\n", seed, running, all, good,
           verified);
    return 0;
}
