/*
 * Makes calls in a thread that is cancelled:
 *     cancelled MODULE pending
 *     cancelled MODULE waiting deferred|asynchronous
 *     cancelled MODULE anywhere
 *
 * pending: each call is made while a cancellation is pending. The call must end and restore the
 * thread's cancelability. The thread must be cancelled at its next cancellation point.
 * waiting: prints "ready". After a line on standard input, signs in a thread. After a second line,
 * cancels the thread.
 * anywhere: cancels threads asynchronously, at any place in a short call or between two calls.
 */
#include "host.h"

#include <pthread.h>
#include <semaphore.h>

static void *library;
static CK_SESSION_HANDLE factory, own;
static CK_OBJECT_HANDLE key;
static CK_RV code;
static int type = PTHREAD_CANCEL_DEFERRED;

static CK_RV get_function_list(void)
{
    CK_FUNCTION_LIST *list;
    return ((CK_C_GetFunctionList)dlsym(library, "C_GetFunctionList"))(&list);
}

static CK_RV get_interface_list(void)
{
    CK_RV (*list)(void *, CK_ULONG *) = dlsym(library, "C_GetInterfaceList");
    CK_ULONG count;
    return list(NULL, &count);
}

static CK_RV get_interface(void)
{
    CK_RV (*get)(void *, void *, void **, CK_FLAGS) = dlsym(library, "C_GetInterface");
    void *interface;
    return get(NULL, NULL, &interface, 0);
}

static CK_RV initialize(void) { return call->C_Initialize(NULL); }
static CK_RV finalize(void) { return call->C_Finalize(NULL); }

static CK_RV get_slot_list(void)
{
    CK_ULONG count;
    return call->C_GetSlotList(CK_TRUE, NULL, &count);
}

static CK_RV get_token_info(void)
{
    CK_TOKEN_INFO info;
    return call->C_GetTokenInfo(0, &info);
}

static CK_RV open_sessions(void)
{
    factory = opened(0);
    own = opened(1);
    return CKR_OK;
}

static CK_RV find(void)
{
    key = first(factory, CKO_PRIVATE_KEY);
    return CKR_OK;
}

static CK_RV sign(void)
{
    unsigned char signature[64];
    CK_ULONG length = sizeof signature;
    return signed_by(factory, key, signature, &length);
}

static CK_RV digest(void)
{
    CK_MECHANISM mechanism = {CKM_SHA256, NULL, 0};
    unsigned char result[32];
    CK_ULONG length = sizeof result;
    CK_RV code = call->C_DigestInit(factory, &mechanism);
    return code ? code : call->C_Digest(factory, (CK_BYTE *)"x", 1, result, &length);
}

static CK_RV generate(void)
{
    CK_OBJECT_HANDLE public, private;
    return generated(own, &public, &private);
}

static CK_RV create(void)
{
    CK_OBJECT_CLASS class = CKO_DATA;
    CK_ATTRIBUTE template[] = {{CKA_CLASS, &class, sizeof class}, {CKA_VALUE, "x", 1}};
    CK_OBJECT_HANDLE object;
    return call->C_CreateObject(own, template, COUNT(template), &object);
}

static CK_RV login(void)
{
    CK_RV code = call->C_Login(own, CKU_USER, (CK_UTF8CHAR *)"1234", 4);
    return code ? code : call->C_Logout(own);
}

static CK_RV wait_for_slot(void) { return call->C_WaitForSlotEvent(CKF_DONT_BLOCK, NULL, NULL); }
static CK_RV unsupported(void) { return call->C_DigestEncryptUpdate(own, NULL, 0, NULL, NULL); }

static const struct {
    const char *name;
    CK_RV (*make)(void);
    CK_RV wanted;
} calls[] = {
    {"C_GetFunctionList", get_function_list, CKR_OK},
    {"C_GetInterfaceList", get_interface_list, CKR_OK},
    {"C_GetInterface", get_interface, CKR_OK},
    {"C_GetSlotList, too early", get_slot_list, CKR_CRYPTOKI_NOT_INITIALIZED},
    {"C_Initialize", initialize, CKR_OK},
    {"C_GetSlotList", get_slot_list, CKR_OK},
    {"C_GetTokenInfo", get_token_info, CKR_OK},
    {"C_OpenSession", open_sessions, CKR_OK},
    {"C_FindObjects", find, CKR_OK},
    {"C_Sign", sign, CKR_OK},
    {"C_GenerateKeyPair", generate, CKR_OK},
    {"C_CreateObject", create, CKR_OK},
    {"C_Login", login, CKR_OK},
    {"C_WaitForSlotEvent", wait_for_slot, CKR_NO_EVENT},
    {"C_Digest", digest, CKR_OK},
    {"C_DigestEncryptUpdate", unsupported, CKR_FUNCTION_NOT_SUPPORTED},
    {"C_Finalize", finalize, CKR_OK},
};

struct told {
    CK_RV (*make)(void);
    int state; /* before the call */
};

/* Makes the call while a cancellation is pending. Returns only if cancellation is disabled. */
static void *with_pending(void *given)
{
    struct told *told = given;
    int before;
    pthread_setcancelstate(told->state, NULL);
    pthread_cancel(pthread_self());
    code = told->make();
    pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &before);
    GIVES(PTHREAD_CANCEL_DEFERRED, before);
    pthread_setcancelstate(told->state, &before);
    GIVES(told->state, before);
    pthread_testcancel();
    return NULL;
}

static void pending(void)
{
    for (size_t n = 0; n < COUNT(calls); n++) {
        int states[] = {PTHREAD_CANCEL_ENABLE, PTHREAD_CANCEL_DISABLE};
        for (int m = 0; m < 2; m++) {
            /* These two calls change the state that the next call finds, so they are made only
             * once. */
            if (m && (calls[n].make == initialize || calls[n].make == finalize))
                continue;
            struct told told = {calls[n].make, states[m]};
            pthread_t thread;
            void *end;
            printf("%s\n", calls[n].name);
            fflush(stdout);
            code = CKR_VENDOR_DEFINED;
            OK(pthread_create(&thread, NULL, with_pending, &told));
            OK(pthread_join(thread, &end));
            GIVES(calls[n].wanted, code);
            HOLDS(end == (m ? NULL : PTHREAD_CANCELED));
        }
    }
}

static void unwound(void *count) { ++*(int *)count; }

/* Signs. The thread is cancelled at its next cancellation point, or before that point. */
static void *waiting_in_sign(void *count)
{
    pthread_setcanceltype(type, NULL);
    pthread_cleanup_push(unwound, count);
    code = sign();
    pthread_testcancel();
    pthread_cleanup_pop(0);
    return NULL;
}

static void waiting(void)
{
    OK(initialize());
    open_sessions();
    find();
    OK(sign());
    code = CKR_VENDOR_DEFINED;
    pthread_t thread;
    int cancelled = 0;
    printf("ready\n");
    fflush(stdout);
    HOLDS(getchar() == '\n');
    OK(pthread_create(&thread, NULL, waiting_in_sign, &cancelled));
    HOLDS(getchar() == '\n'); /* the TPM has the command and does not answer */
    OK(pthread_cancel(thread));
    printf("cancelled\n");
    fflush(stdout);
    OK(pthread_join(thread, NULL));
    GIVES(1, cancelled);
    /* An asynchronous cancellation happens before the code is stored. */
    if (type == PTHREAD_CANCEL_DEFERRED)
        OK(code);
    /* No lock is held now, and the session has no signature in progress. */
    OK(sign());
    OK(finalize());
}

static void *calling(void *begun)
{
    CK_INFO info;
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    OK(sem_post(begun));
    for (;;)
        call->C_GetInfo(&info);
    return NULL;
}

static void anywhere(void)
{
    CK_INFO info;
    sem_t begun;
    OK(sem_init(&begun, 0, 0));
    OK(initialize());
    for (int n = 0; n < 200; n++) {
        pthread_t thread;
        OK(pthread_create(&thread, NULL, calling, &begun));
        OK(sem_wait(&begun));
        OK(pthread_cancel(thread));
        OK(pthread_join(thread, NULL));
    }
    OK(call->C_GetInfo(&info));
    OK(finalize());
}

int main(int count, char **arguments)
{
    HOLDS(count > 2);
    library = load(arguments[1]);
    if (count > 3 && !strcmp(arguments[3], "asynchronous"))
        type = PTHREAD_CANCEL_ASYNCHRONOUS;
    if (!strcmp(arguments[2], "pending"))
        pending();
    else if (!strcmp(arguments[2], "waiting"))
        waiting();
    else
        anywhere();
    return 0;
}
