/* A PKCS#11 module that passes all calls to the module that SPY_MODULE names. It writes the name
 * of each call that hashes, signs or verifies into the file SPY_LOG, a line for each call. It
 * shows which work hosts give to a module. */
#include "host.h"

#include <fcntl.h>
#include <stddef.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

/* The calls that are recorded, at their positions in every table. */
#define SPIED(call)                                                                          \
    call(C_DigestInit, (CK_SESSION_HANDLE a, CK_MECHANISM *b), (a, b))                       \
    call(C_Digest, (CK_SESSION_HANDLE a, CK_BYTE *b, CK_ULONG c, CK_BYTE *d, CK_ULONG *e),   \
         (a, b, c, d, e))                                                                    \
    call(C_DigestUpdate, (CK_SESSION_HANDLE a, CK_BYTE *b, CK_ULONG c), (a, b, c))           \
    call(C_DigestKey, (CK_SESSION_HANDLE a, CK_OBJECT_HANDLE b), (a, b))                     \
    call(C_DigestFinal, (CK_SESSION_HANDLE a, CK_BYTE *b, CK_ULONG *c), (a, b, c))           \
    call(C_SignInit, (CK_SESSION_HANDLE a, CK_MECHANISM *b, CK_OBJECT_HANDLE c), (a, b, c))  \
    call(C_VerifyInit, (CK_SESSION_HANDLE a, CK_MECHANISM *b, CK_OBJECT_HANDLE c), (a, b, c))

static void *module;
static CK_FUNCTION_LIST *spied;

static void write_down(const char *name)
{
    char line[32];
    int length = snprintf(line, sizeof line, "%s\n", name);
    int file = open(getenv("SPY_LOG"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (write(file, line, length) != length)
        abort();
    close(file);
}

#define FORWARD(name, parameters, arguments)                                                 \
    static CK_RV spied_##name parameters                                                     \
    {                                                                                        \
        write_down(#name);                                                                   \
        return spied->name arguments;                                                        \
    }
SPIED(FORWARD)

/* Returns the number of functions in a table of this version. */
static size_t functions(CK_VERSION version)
{
    return version.major == 2 ? 68 : version.minor == 0 ? 92 : 104;
}

/* Returns a table in which the recorded calls are replaced. A table is made once for each
 * version, and is never freed. */
static void *of_spy(void *table)
{
    static void *made[4];
    CK_VERSION version = *(CK_VERSION *)table;
    size_t place = version.major == 2 ? 0 : 1 + (version.minor != 0);
    size_t size = offsetof(CK_FUNCTION_LIST, C_Initialize) + functions(version) * sizeof(void *);
    if (!made[place]) {
        CK_FUNCTION_LIST *copy = malloc(size);
        memcpy(copy, table, size);
#define REPLACE(name, parameters, arguments) copy->name = spied_##name;
        SPIED(REPLACE)
        made[place] = copy;
    }
    return made[place];
}

static void *function(const char *name)
{
    if (!module) {
        module = dlopen(getenv("SPY_MODULE"), RTLD_NOW);
        HOLDS(module);
        OK(((CK_C_GetFunctionList)dlsym(module, "C_GetFunctionList"))(&spied));
    }
    return dlsym(module, name);
}

EXPORTED CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
    CK_RV code = ((CK_C_GetFunctionList)function("C_GetFunctionList"))(list);
    if (!code)
        *list = of_spy(*list);
    return code;
}

struct interface {
    CK_UTF8CHAR *name;
    void *table;
    CK_FLAGS flags;
};

EXPORTED CK_RV C_GetInterface(CK_UTF8CHAR *name, CK_VERSION *version, struct interface **found,
                              CK_FLAGS flags)
{
    static struct interface given[3];
    static int count;
    typedef CK_RV get(CK_UTF8CHAR *, CK_VERSION *, struct interface **, CK_FLAGS);
    CK_RV code = ((get *)function("C_GetInterface"))(name, version, found, flags);
    if (!code) {
        struct interface *next = &given[count++ % 3];
        *next = **found;
        next->table = of_spy(next->table);
        *found = next;
    }
    return code;
}
