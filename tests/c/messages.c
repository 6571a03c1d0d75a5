/* Processes long messages while memory is limited: messages MODULE
 *
 * With every limit, each call returns CKR_HOST_MEMORY or succeeds. The host must not end. */
#include "host.h"
#include <sys/resource.h>
#include <unistd.h>

#define LENGTH (768UL << 10)

static unsigned char *message, *room;
static CK_SESSION_HANDLE session;
static CK_OBJECT_HANDLE key;
static unsigned long refused, done;

static CK_RV told(CK_RV code)
{
    HOLDS(code == CKR_OK || code == CKR_HOST_MEMORY || code == CKR_ENCRYPTED_DATA_INVALID);
    if (code == CKR_HOST_MEMORY)
        refused++;
    else
        done++;
    return code;
}

/* The message in one part, and in several parts. */
static void encrypts(CK_MECHANISM *by)
{
    CK_ULONG length = LENGTH + 32;

    if (told(call->C_EncryptInit(session, by, key)) == CKR_OK)
        told(call->C_Encrypt(session, message, LENGTH, room, &length));
    if (told(call->C_EncryptInit(session, by, key)) != CKR_OK)
        return;
    for (CK_ULONG n = 0; n < 3; n++) {
        length = LENGTH + 32;
        if (told(call->C_EncryptUpdate(session, message, LENGTH / 3, room, &length)) != CKR_OK)
            return;
    }
    length = LENGTH + 32;
    told(call->C_EncryptFinal(session, room, &length));
}

static void decrypts(CK_MECHANISM *by)
{
    CK_ULONG length = LENGTH;

    if (told(call->C_DecryptInit(session, by, key)) == CKR_OK)
        told(call->C_Decrypt(session, message, LENGTH, room, &length));
    if (told(call->C_DecryptInit(session, by, key)) != CKR_OK)
        return;
    for (CK_ULONG n = 0; n < 3; n++) {
        length = LENGTH;
        if (told(call->C_DecryptUpdate(session, message, LENGTH / 3, room, &length)) != CKR_OK)
            return;
    }
    length = LENGTH;
    told(call->C_DecryptFinal(session, room, &length));
}

int main(int count, char **arguments)
{
    unsigned char value[32] = {7}, iv[16] = {9};
    CK_GCM_PARAMS gcm = {iv, 12, 96, NULL, 0, 128};
    CK_MECHANISM all[] = {{CKM_AES_GCM, &gcm, sizeof gcm},
                          {CKM_AES_CBC_PAD, iv, sizeof iv},
                          {CKM_AES_ECB, NULL, 0}};
    CK_ULONG class = CKO_SECRET_KEY, type = CKK_AES, found = 8;
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &class, sizeof class},
                             {CKA_KEY_TYPE, &type, sizeof type},
                             {CKA_VALUE, value, sizeof value}};
    CK_SLOT_ID slots[8];
    struct rlimit limit, low;
    unsigned long pages;
    FILE *memory;

    HOLDS(count == 2);
    load(arguments[1]);
    OK(call->C_Initialize(NULL));
    OK(call->C_GetSlotList(CK_TRUE, slots, &found));
    session = opened(slots[found - 1]);
    OK(call->C_CreateObject(session, wanted, COUNT(wanted), &key));
    message = calloc(1, LENGTH);
    room = malloc(LENGTH + 32);
    HOLDS(message && room);
    memset(message, 5, LENGTH);
    memory = fopen("/proc/self/statm", "r");
    HOLDS(memory && fscanf(memory, "%lu", &pages) == 1);
    fclose(memory);
    HOLDS(!getrlimit(RLIMIT_AS, &limit));
    low = limit;
    for (unsigned long more = 128; more < 4096; more += 512) {
        low.rlim_cur = pages * sysconf(_SC_PAGESIZE) + (more << 10);
        HOLDS(!setrlimit(RLIMIT_AS, &low));
        for (size_t n = 0; n < COUNT(all); n++) {
            encrypts(&all[n]);
            decrypts(&all[n]);
        }
    }
    HOLDS(!setrlimit(RLIMIT_AS, &limit));
    HOLDS(refused && done);
    OK(call->C_Finalize(NULL));
    printf("done %lu, refused %lu\n", done, refused);
    return 0;
}
