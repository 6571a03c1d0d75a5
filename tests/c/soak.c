/* Signs for a long time with one key: soak MODULE TOKEN PIN LABEL COUNT MS
 *
 * PIN "-" means no login. Each signature takes MS milliseconds at least, so that fast keys last as long as
 * slow ones. The text that is signed is the number of the signature. After each STEP signatures comes a line:
 * number, bytes of the heap in use, resident kB, open descriptors, and the last signature in hexadecimal. SIGTERM
 * ends the signatures early. Then, and with COUNT 0 from the start, the host is idle: it signs number 0 once at
 * its start, and once for each line of standard input. */
#include "host.h"

#include <dirent.h>
#include <malloc.h>
#include <signal.h>
#include <time.h>

#define STEP 1000

static CK_MECHANISM mechanism;
static CK_SESSION_HANDLE session;
static CK_OBJECT_HANDLE key;
static unsigned char signature[512];
static CK_ULONG length;
static volatile sig_atomic_t enough;

static void end_early(int signal)
{
    (void)signal;
    enough = 1;
}

static void find_key(char *label)
{
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_KEY_TYPE type;
    CK_ULONG found;
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &class, sizeof class}, {CKA_LABEL, label, strlen(label)}};
    CK_ATTRIBUTE kind = {CKA_KEY_TYPE, &type, sizeof type};
    OK(call->C_FindObjectsInit(session, wanted, COUNT(wanted)));
    OK(call->C_FindObjects(session, &key, 1, &found));
    OK(call->C_FindObjectsFinal(session));
    GIVES(1, found);
    OK(call->C_GetAttributeValue(session, key, &kind, 1));
    mechanism.mechanism = type == CKK_EC ? CKM_ECDSA_SHA256 : CKM_SHA256_RSA_PKCS;
}

static void sign(unsigned long number)
{
    unsigned char text[32];
    int size = snprintf((char *)text, sizeof text, "%lu", number);
    length = sizeof signature;
    OK(call->C_SignInit(session, &mechanism, key));
    OK(call->C_Sign(session, text, size, signature, &length));
}

static unsigned long resident(void)
{
    char line[256];
    unsigned long kilobytes = 0;
    FILE *file = fopen("/proc/self/status", "r");
    HOLDS(file);
    while (fgets(line, sizeof line, file))
        sscanf(line, "VmRSS: %lu", &kilobytes);
    fclose(file);
    return kilobytes;
}

/* Without the descriptor that counts. */
static unsigned descriptors(void)
{
    unsigned count = 0;
    DIR *folder = opendir("/proc/self/fd");
    HOLDS(folder);
    for (struct dirent *entry; (entry = readdir(folder));)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count - 1;
}

static void report(unsigned long number)
{
    size_t used = mallinfo2().uordblks;
    printf("%lu %zu %lu %u ", number, used, resident(), descriptors());
    for (CK_ULONG at = 0; at < length; at++)
        printf("%02x", signature[at]);
    printf("\n");
    fflush(stdout);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

/* COUNT signatures, each PACE milliseconds after the one before, if the key is as fast. */
static void sign_all(unsigned long count, double pace)
{
    double began = now();
    for (unsigned long number = 1; number <= count; number++) {
        double early = began + number * pace - now();
        if (early > 0) {
            struct timespec pause = {(time_t)(early / 1e3), (long)(early * 1e6) % 1000000000};
            nanosleep(&pause, NULL);
        }
        sign(number);
        if (number % STEP == 0 || number == count || enough)
            report(number);
        if (enough)
            break;
    }
}

int main(int count, char **arguments)
{
    HOLDS(count == 7);
    char line[16];
    unsigned long signatures = strtoul(arguments[5], NULL, 10);
    signal(SIGTERM, end_early);
    load(arguments[1]);
    OK(call->C_Initialize(NULL));
    session = opened(slot_of(arguments[2]));
    if (strcmp(arguments[3], "-"))
        OK(call->C_Login(session, CKU_USER, (CK_UTF8CHAR *)arguments[3], strlen(arguments[3])));
    find_key(arguments[4]);
    sign(0);
    if (signatures)
        sign_all(signatures, strtod(arguments[6], NULL));
    else
        report(0);
    while (fgets(line, sizeof line, stdin)) {
        sign(0);
        report(0);
    }
    OK(call->C_Finalize(NULL));
    return 0;
}
