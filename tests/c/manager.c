/* A host on a TPM that several processes share: manager MODULE LABEL COUNT [fork|wait]
 *
 * Makes COUNT signatures with the private key LABEL, and verifies each signature with C_Verify.
 * With "fork", a child makes the same number at the same time. With "wait", the program prints
 * "ready" after the signatures. After a line on standard input, it makes COUNT more signatures
 * in the session that is still open. */
#include "host.h"

#include <sys/wait.h>
#include <unistd.h>

static const char *label;

static CK_OBJECT_HANDLE found(CK_SESSION_HANDLE session, CK_OBJECT_CLASS class)
{
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &class, sizeof class},
                             {CKA_LABEL, (void *)label, strlen(label)}};
    CK_OBJECT_HANDLE object = 0;
    CK_ULONG count = 0;
    OK(call->C_FindObjectsInit(session, wanted, COUNT(wanted)));
    OK(call->C_FindObjects(session, &object, 1, &count));
    OK(call->C_FindObjectsFinal(session));
    return count ? object : 0;
}

/* Opens a session on the token that has the key. */
static CK_SESSION_HANDLE session_of_key(void)
{
    CK_SLOT_ID slots[16];
    CK_ULONG count = COUNT(slots);
    OK(call->C_GetSlotList(CK_TRUE, slots, &count));
    for (CK_ULONG n = 0; n < count; n++) {
        CK_SESSION_HANDLE session = opened(slots[n]);
        if (found(session, CKO_PRIVATE_KEY))
            return session;
        OK(call->C_CloseSession(session));
    }
    fprintf(stderr, "no token has a private key %s\n", label);
    exit(1);
}

static void sign_many(CK_SESSION_HANDLE session, int count)
{
    CK_MECHANISM mechanism = {CKM_ECDSA, NULL, 0};
    CK_OBJECT_HANDLE private = found(session, CKO_PRIVATE_KEY);
    CK_OBJECT_HANDLE public = found(session, CKO_PUBLIC_KEY);
    unsigned char digest[32] = {0}, signature[64];
    for (int n = 0; n < count; n++) {
        CK_ULONG length = sizeof signature;
        memcpy(digest, &n, sizeof n);
        OK(call->C_SignInit(session, &mechanism, private));
        OK(call->C_Sign(session, digest, sizeof digest, signature, &length));
        OK(call->C_VerifyInit(session, &mechanism, public));
        OK(call->C_Verify(session, digest, sizeof digest, signature, length));
    }
}

int main(int arguments, char **argument)
{
    HOLDS(arguments == 4 || arguments == 5);
    const char *mode = arguments == 5 ? argument[4] : "";
    label = argument[2];
    int count = atoi(argument[3]);
    load(argument[1]);
    OK(call->C_Initialize(NULL));
    CK_SESSION_HANDLE session = session_of_key();
    sign_many(session, count);
    if (!strcmp(mode, "fork")) {
        pid_t child = fork();
        int status;
        HOLDS(child >= 0);
        if (!child) {
            OK(call->C_Initialize(NULL));
            sign_many(session_of_key(), count);
            OK(call->C_Finalize(NULL));
            _exit(0);
        }
        sign_many(session, count);
        HOLDS(waitpid(child, &status, 0) == child);
        GIVES(0, status);
        sign_many(session, count);
    }
    if (!strcmp(mode, "wait")) {
        printf("ready\n");
        fflush(stdout);
        HOLDS(getchar() == '\n');
        sign_many(session, count);
    }
    OK(call->C_Finalize(NULL));
    return 0;
}
