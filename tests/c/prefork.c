/* A server that forks after C_Login, like Apache's prefork: prefork MODULE TOKEN PIN LABEL CHILDREN THREADS
 *
 * The parent logs in and finds its key. Its children sign, start anew, end, or are killed. THREADS threads of the
 * parent sign meanwhile. Every signature is verified by C_Verify, and the last of each process is printed in
 * hexadecimal, over the text "served". */
#include "host.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

enum way { INHERITED, INITIALIZED, BEGUN_ANEW, FINALIZED, EXITED, EXECUTED, KILLED, WAYS };

static char *token, *pin, *label;
static CK_SLOT_ID slot;
static atomic_int enough;
static atomic_ulong signatures;
static unsigned char text[] = "served";

static CK_SESSION_HANDLE logged_in(void)
{
    CK_SESSION_HANDLE session;
    OK(call->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &session));
    if (strcmp(pin, "-")) {
        CK_RV code = call->C_Login(session, CKU_USER, (CK_UTF8CHAR *)pin, strlen(pin));
        if (code != CKR_USER_ALREADY_LOGGED_IN)
            OK(code);
    }
    return session;
}

static CK_OBJECT_HANDLE found(CK_SESSION_HANDLE session, CK_OBJECT_CLASS class)
{
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &class, sizeof class}, {CKA_LABEL, label, strlen(label)}};
    CK_OBJECT_HANDLE object = 0;
    CK_ULONG count;
    OK(call->C_FindObjectsInit(session, wanted, COUNT(wanted)));
    OK(call->C_FindObjects(session, &object, 1, &count));
    OK(call->C_FindObjectsFinal(session));
    GIVES(1, count);
    return object;
}

/* Signs and verifies; the code of the first call that fails. */
static CK_RV served(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key, CK_OBJECT_HANDLE public,
                    unsigned char *signature)
{
    CK_MECHANISM mechanism = {CKM_ECDSA_SHA256, NULL, 0};
    CK_ULONG length = 64;
    CK_RV code = call->C_SignInit(session, &mechanism, key);
    if (!code)
        code = call->C_Sign(session, text, sizeof text - 1, signature, &length);
    if (!code)
        code = call->C_VerifyInit(session, &mechanism, public);
    if (!code)
        code = call->C_Verify(session, text, sizeof text - 1, signature, length);
    signatures += !code;
    return code;
}

static void print(const unsigned char *signature)
{
    char line[130];
    for (int at = 0; at < 64; at++)
        sprintf(line + 2 * at, "%02x", signature[at]);
    line[128] = '\n';
    HOLDS(write(1, line, 129) == 129);
}

static void serve(CK_SESSION_HANDLE session)
{
    unsigned char signature[64];
    CK_OBJECT_HANDLE key = found(session, CKO_PRIVATE_KEY), public = found(session, CKO_PUBLIC_KEY);
    for (int n = 0; n < 3; n++)
        OK(served(session, key, public, signature));
    print(signature);
}

static void *thread(void *unused)
{
    unsigned char signature[64];
    CK_SESSION_HANDLE session = logged_in();
    CK_OBJECT_HANDLE key = found(session, CKO_PRIVATE_KEY), public = found(session, CKO_PUBLIC_KEY);
    while (!enough)
        OK(served(session, key, public, signature));
    print(signature);
    OK(call->C_CloseSession(session));
    return unused;
}

static void child(enum way way, int ready, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key,
                  CK_OBJECT_HANDLE public)
{
    unsigned char signature[64];
    CK_RV code;
    switch (way) {
    case INHERITED:
        /* A session that a thread held at the fork is lost; the child is told so, and begins anew. */
        code = served(session, key, public, signature);
        if (code == CKR_OK) {
            print(signature);
            break;
        }
        HOLDS(code == CKR_SESSION_HANDLE_INVALID || code == CKR_CRYPTOKI_NOT_INITIALIZED);
        /* fall through */
    case INITIALIZED:
        OK(call->C_Initialize(NULL));
        serve(logged_in());
        break;
    case BEGUN_ANEW:
        code = call->C_Finalize(NULL);
        HOLDS(code == CKR_OK || code == CKR_CRYPTOKI_NOT_INITIALIZED);
        OK(call->C_Initialize(NULL));
        serve(logged_in());
        OK(call->C_Finalize(NULL));
        break;
    case FINALIZED:
        code = call->C_Finalize(NULL);
        HOLDS(code == CKR_OK || code == CKR_CRYPTOKI_NOT_INITIALIZED);
        break;
    case EXECUTED:
        execl("/bin/true", "true", (char *)NULL);
        exit(1);
    case KILLED:
        OK(call->C_Initialize(NULL));
        session = logged_in();
        key = found(session, CKO_PRIVATE_KEY), public = found(session, CKO_PUBLIC_KEY);
        for (;;) {
            OK(served(session, key, public, signature));
            HOLDS(write(ready, "", 1) == 1);
        }
    default:
        break;
    }
    exit(0);
}

static void fork_one(enum way way, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key,
                     CK_OBJECT_HANDLE public)
{
    int ends[2], status;
    char byte;
    unsigned char signature[64];
    HOLDS(!pipe(ends));
    fflush(NULL);
    pid_t id = fork();
    HOLDS(id >= 0);
    if (!id) {
        alarm(100);
        child(way, ends[1], session, key, public);
    }
    close(ends[1]);
    OK(served(session, key, public, signature));
    if (way == KILLED) {
        HOLDS(read(ends[0], &byte, 1) == 1);
        kill(id, SIGKILL);
    }
    HOLDS(waitpid(id, &status, 0) == id);
    if (way == KILLED)
        HOLDS(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    else
        GIVES(0, status);
    close(ends[0]);
    OK(served(session, key, public, signature));
    print(signature);
}

int main(int count, char **arguments)
{
    pthread_t threads[32];
    HOLDS(count == 7);
    token = arguments[2], pin = arguments[3], label = arguments[4];
    int children = atoi(arguments[5]), running = atoi(arguments[6]);
    HOLDS(running <= (int)COUNT(threads));
    load(arguments[1]);
    OK(call->C_Initialize(NULL));
    slot = slot_of(token);
    CK_SESSION_HANDLE session = logged_in();
    CK_OBJECT_HANDLE key = found(session, CKO_PRIVATE_KEY), public = found(session, CKO_PUBLIC_KEY);
    for (int n = 0; n < running; n++)
        OK(pthread_create(&threads[n], NULL, thread, NULL));
    for (int n = 0; n < children; n++)
        fork_one(n % WAYS, session, key, public);
    enough = 1;
    for (int n = 0; n < running; n++)
        OK(pthread_join(threads[n], NULL));
    OK(call->C_Finalize(NULL));
    fprintf(stderr, "%d children, %lu signatures of the parent\n", children, signatures);
    return 0;
}
