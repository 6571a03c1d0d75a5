/* A PKCS#11 host that scripts/bench drives: host MODULE TOKEN PIN, where PIN "-" means no login.
 *
 * It prints "ready INIT_US LOGIN_US" and answers each line of standard input with a line of numbers.
 * Times are nanoseconds. A call that fails ends the program with a message. */
#define _GNU_SOURCE
#include "../../tests/c/host.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define DEVID_PROTECTION (CKA_VENDOR_DEFINED | 0x44450004UL)
#define DEVID_PERSISTENT (CKA_VENDOR_DEFINED | 0x44450005UL)
#define MOST 65536

static CK_SLOT_ID slot;
static CK_SESSION_HANDLE session;
static CK_OBJECT_HANDLE key;
static CK_MECHANISM mechanism;
static double times[MOST];

static double now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static int ascending(const void *left, const void *right)
{
    double one = *(const double *)left, other = *(const double *)right;
    return (one > other) - (one < other);
}

static CK_OBJECT_HANDLE private_key(char *label)
{
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &class, sizeof class}, {CKA_LABEL, label, strlen(label)}};
    CK_OBJECT_HANDLE object = 0;
    CK_ULONG found;
    OK(call->C_FindObjectsInit(session, wanted, COUNT(wanted)));
    OK(call->C_FindObjects(session, &object, 1, &found));
    OK(call->C_FindObjectsFinal(session));
    GIVES(1, found);
    return object;
}

static void sign(CK_SESSION_HANDLE by)
{
    unsigned char digest[32] = {0x5A}, signature[512];
    CK_ULONG length = sizeof signature;
    OK(call->C_SignInit(by, &mechanism, key));
    OK(call->C_Sign(by, digest, sizeof digest, signature, &length));
}

/* sign COUNT: answers with median, 99th percentile and minimum of the wall times, and the mean CPU time. */
static void signatures(int count)
{
    double cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    for (int at = 0; at < count; at++) {
        double began = now(CLOCK_MONOTONIC);
        sign(session);
        times[at] = now(CLOCK_MONOTONIC) - began;
    }
    cpu = (now(CLOCK_PROCESS_CPUTIME_ID) - cpu) / count;
    qsort(times, count, sizeof *times, ascending);
    printf("%.0f %.0f %.0f %.0f\n", times[count / 2], times[count * 99 / 100], times[0], cpu);
}

struct share {
    pthread_t thread;
    int count;
};

static void *signing(void *argument)
{
    struct share *share = argument;
    CK_SESSION_HANDLE own = opened(slot);
    for (int left = share->count; left > 0; left--)
        sign(own);
    OK(call->C_CloseSession(own));
    return NULL;
}

/* threads THREADS COUNT: answers with the wall time of COUNT signatures by THREADS threads. */
static void threads(int count, int all)
{
    struct share shares[64];
    double began = now(CLOCK_MONOTONIC);
    HOLDS(count > 0 && count <= (int)COUNT(shares));
    for (int at = 0; at < count; at++) {
        shares[at].count = all / count;
        HOLDS(!pthread_create(&shares[at].thread, NULL, signing, &shares[at]));
    }
    for (int at = 0; at < count; at++)
        HOLDS(!pthread_join(shares[at].thread, NULL));
    printf("%.0f\n", now(CLOCK_MONOTONIC) - began);
}

static atomic_int signed_count;

static void *signing_on(void *argument)
{
    CK_SESSION_HANDLE own = opened(slot);
    for (int left = *(int *)argument; left > 0; left--) {
        sign(own);
        signed_count++;
    }
    return NULL;
}

/* attributes SIGNATURES: reads attributes while another thread signs. Answers with the median, the 99th
 * percentile and the maximum of the times, and the number of reads. */
static void attributes(int signatures)
{
    pthread_t thread;
    int count = 0;
    unsigned char label[64], id[64];
    signed_count = 0;
    HOLDS(!pthread_create(&thread, NULL, signing_on, &signatures));
    while (signed_count < signatures) {
        CK_ATTRIBUTE asked[] = {{CKA_LABEL, label, sizeof label}, {CKA_ID, id, sizeof id}};
        struct timespec rest = {0, 200000};
        double began = now(CLOCK_MONOTONIC);
        OK(call->C_GetAttributeValue(session, key, asked, COUNT(asked)));
        if (count < MOST)
            times[count++] = now(CLOCK_MONOTONIC) - began;
        nanosleep(&rest, NULL);
    }
    HOLDS(!pthread_join(thread, NULL));
    qsort(times, count, sizeof *times, ascending);
    printf("%.0f %.0f %.0f %d\n", times[count / 2], times[count * 99 / 100], times[count - 1], count);
}

/* make LABEL ec|rsa private|open plain|persistent|sealed: makes a key, and answers with the time. */
static void make(char *label, const char *kind, const char *access, const char *place)
{
    CK_BBOOL yes = CK_TRUE, private = !strcmp(access, "private");
    CK_ULONG bits = 2048, sealed = 2;
    CK_OBJECT_HANDLE public;
    int is_rsa = !strcmp(kind, "rsa"), count = 4;
    CK_MECHANISM pair = {is_rsa ? CKM_RSA_PKCS_KEY_PAIR_GEN : CKM_EC_KEY_PAIR_GEN, NULL, 0};
    unsigned char exponent[] = {1, 0, 1};
    CK_ATTRIBUTE public_half[] = {
        {CKA_TOKEN, &yes, sizeof yes},
        {CKA_LABEL, label, strlen(label)},
        {CKA_ID, label, strlen(label)},
        {CKA_VERIFY, &yes, sizeof yes},
        is_rsa ? (CK_ATTRIBUTE){CKA_MODULUS_BITS, &bits, sizeof bits}
               : (CK_ATTRIBUTE){CKA_EC_PARAMS, ec_params, sizeof ec_params},
        {CKA_PUBLIC_EXPONENT, exponent, sizeof exponent},
    };
    CK_ATTRIBUTE private_half[6] = {
        {CKA_TOKEN, &yes, sizeof yes},
        {CKA_LABEL, label, strlen(label)},
        {CKA_ID, label, strlen(label)},
        {CKA_SIGN, &yes, sizeof yes},
    };
    if (!private || !strcmp(access, "private"))
        private_half[count++] = (CK_ATTRIBUTE){CKA_PRIVATE, &private, sizeof private};
    if (!strcmp(place, "persistent"))
        private_half[count++] = (CK_ATTRIBUTE){DEVID_PERSISTENT, &yes, sizeof yes};
    if (!strcmp(place, "sealed"))
        private_half[count++] = (CK_ATTRIBUTE){DEVID_PROTECTION, &sealed, sizeof sealed};
    double began = now(CLOCK_MONOTONIC);
    OK(call->C_GenerateKeyPair(session, &pair, public_half, is_rsa ? 6 : 5, private_half, count, &public,
                               &key));
    printf("%.0f\n", now(CLOCK_MONOTONIC) - began);
}

int main(int count, char **words)
{
    char line[256], one[64], two[64], three[64], four[64];
    int number, other;
    HOLDS(count == 4);
    mechanism.mechanism = CKM_ECDSA;
    load(words[1]);
    double began = now(CLOCK_MONOTONIC);
    CK_C_INITIALIZE_ARGS threaded = {.flags = CKF_OS_LOCKING_OK};
    OK(call->C_Initialize(&threaded));
    slot = slot_of(words[2]);
    /* The factory's token is write-protected. */
    CK_FLAGS writes = strcmp(words[2], "idev-id") ? CKF_RW_SESSION : 0;
    OK(call->C_OpenSession(slot, CKF_SERIAL_SESSION | writes, NULL, NULL, &session));
    double there = now(CLOCK_MONOTONIC);
    if (strcmp(words[3], "-"))
        OK(call->C_Login(session, CKU_USER, (CK_UTF8CHAR *)words[3], strlen(words[3])));
    printf("ready %.0f %.0f\n", there - began, now(CLOCK_MONOTONIC) - there);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "key %63s", one) == 1) {
            key = private_key(one);
            printf("ok\n");
        } else if (sscanf(line, "by %63s", one) == 1) {
            mechanism.mechanism = strcmp(one, "rsa") ? CKM_ECDSA : CKM_SHA256_RSA_PKCS;
            printf("ok\n");
        } else if (sscanf(line, "sign %d", &number) == 1 && number > 0 && number <= MOST)
            signatures(number);
        else if (sscanf(line, "threads %d %d", &number, &other) == 2)
            threads(number, other);
        else if (sscanf(line, "attributes %d", &number) == 1)
            attributes(number);
        else if (sscanf(line, "make %63s %63s %63s %63s", one, two, three, four) == 4)
            make(one, two, three, four);
        else
            printf("unknown\n");
        fflush(stdout);
    }
    OK(call->C_Finalize(NULL));
    return 0;
}
