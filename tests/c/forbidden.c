/* A library for LD_PRELOAD. It imitates the kernel's list of allowed devices (a control group):
 * opening the file that FORBIDDEN names fails, although its mode allows the access. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_forbidden(const char *path)
{
    const char *forbidden = getenv("FORBIDDEN");
    if (!forbidden || strcmp(path, forbidden))
        return 0;
    errno = EPERM;
    return 1;
}

#define FORBID_OPEN(name)                                                                    \
    int name(const char *path, int flags, ...)                                               \
    {                                                                                        \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);                       \
        va_list more;                                                                        \
        va_start(more, flags);                                                               \
        mode_t mode = va_arg(more, mode_t);                                                  \
        va_end(more);                                                                        \
        return is_forbidden(path) ? -1 : real(path, flags, mode);                            \
    }
FORBID_OPEN(open)
FORBID_OPEN(open64)

#define FORBID_OPENAT(name)                                                                  \
    int name(int folder, const char *path, int flags, ...)                                   \
    {                                                                                        \
        int (*real)(int, const char *, int, ...) = dlsym(RTLD_NEXT, #name);                  \
        va_list more;                                                                        \
        va_start(more, flags);                                                               \
        mode_t mode = va_arg(more, mode_t);                                                  \
        va_end(more);                                                                        \
        return is_forbidden(path) ? -1 : real(folder, path, flags, mode);                    \
    }
FORBID_OPENAT(openat)
FORBID_OPENAT(openat64)

int access(const char *path, int mode)
{
    int (*real)(const char *, int) = dlsym(RTLD_NEXT, "access");
    return is_forbidden(path) ? -1 : real(path, mode);
}
