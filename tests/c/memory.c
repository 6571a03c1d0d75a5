/* A host whose memory is exhausted. Each call must return an error code, and the host must not
 * end. */
#include "host.h"
#include <sys/resource.h>
#include <unistd.h>

static CK_SLOT_ID slot;

static CK_RV session(CK_SESSION_HANDLE *made)
{
    return call->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, made);
}

static CK_RV object(CK_SESSION_HANDLE of)
{
    static unsigned char value[4000];
    CK_OBJECT_CLASS class = CKO_DATA;
    CK_ATTRIBUTE all[] = {{CKA_CLASS, &class, sizeof class}, {CKA_VALUE, value, sizeof value}};
    CK_OBJECT_HANDLE made;
    return call->C_CreateObject(of, all, COUNT(all), &made);
}

int main(int count, char **arguments)
{
    const char *what = count > 2 ? arguments[2] : "sessions";
    CK_SESSION_HANDLE first, made;
    CK_SLOT_ID slots[8];
    CK_ULONG found = COUNT(slots);
    struct rlimit limit, low;
    unsigned long pages, done = 0;
    CK_RV code = CKR_OK;
    FILE *memory;

    load(arguments[1]);
    OK(call->C_Initialize(NULL));
    OK(call->C_GetSlotList(CK_TRUE, slots, &found));
    HOLDS(found > 0);
    slot = slots[found - 1];
    OK(session(&first));
    memory = fopen("/proc/self/statm", "r");
    HOLDS(memory && fscanf(memory, "%lu", &pages) == 1);
    fclose(memory);
    HOLDS(!getrlimit(RLIMIT_AS, &limit));
    low = limit;
    low.rlim_cur = pages * sysconf(_SC_PAGESIZE) + (1 << 20);
    HOLDS(!setrlimit(RLIMIT_AS, &low));

    while (!code) {
        if (!strcmp(what, "objects")) {
            code = object(first);
        } else {
            code = session(&made);
            if (!code && !strcmp(what, "searches"))
                code = call->C_FindObjectsInit(made, NULL, 0);
        }
        done++;
    }
    HOLDS(code == CKR_HOST_MEMORY || code == CKR_SESSION_COUNT);
    /* The session and its objects can be closed, and later calls work. */
    OK(call->C_CloseAllSessions(slot));
    OK(session(&first));
    OK(call->C_CloseSession(first));
    HOLDS(!setrlimit(RLIMIT_AS, &limit));
    OK(call->C_Finalize(NULL));
    printf("ended after %lu: 0x%lx\n", done, code);
    return 0;
}
