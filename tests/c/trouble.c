/* A library for LD_PRELOAD that makes system calls on one path fail for a time.
 *
 * A test starts it with trouble_arm() in its own process, or with an environment variable of a
 * program: TROUBLE="CALL:END OF PATH:CALLS THAT PASS FIRST:CALLS THAT FAIL:ERRNO". */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char wanted_call[16], wanted_end[PATH_MAX];
static atomic_int armed, pass_first, to_fail, failed, met, code;

void trouble_arm(const char *call, const char *end, int first, int count, int error)
{
    armed = 0;
    snprintf(wanted_call, sizeof wanted_call, "%s", call);
    snprintf(wanted_end, sizeof wanted_end, "%s", end);
    pass_first = first;
    to_fail = count;
    failed = met = 0;
    code = error;
    armed = 1;
}

/* The number of calls on the path since trouble_arm(), failed or not. */
int trouble_met(void)
{
    return met;
}

/* Ends the failures, and returns the number of calls that failed. */
int trouble_over(void)
{
    armed = 0;
    return failed;
}

__attribute__((constructor)) static void by_environment(void)
{
    char call[16], end[PATH_MAX];
    int first, count, error;
    const char *said = getenv("TROUBLE");
    if (said && sscanf(said, "%15[^:]:%4095[^:]:%d:%d:%d", call, end, &first, &count, &error) == 5)
        trouble_arm(call, end, first, count, error);
}

static int path_of(int folder, const char *name, char *path)
{
    char link[64];
    ssize_t length = 0;
    if (!name || name[0] != '/') {
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        length = readlink(link, path, PATH_MAX - 1);
        if (length < 0)
            return 0;
    }
    path[length] = 0;
    if (name && name[0] && strcmp(name, ".") != 0)
        snprintf(path + length, PATH_MAX - length, "%s%s", length ? "/" : "", name);
    return 1;
}

static int fails(const char *call, int folder, const char *name)
{
    char path[2 * PATH_MAX];
    size_t length, end = strlen(wanted_end);
    if (!armed || strcmp(call, wanted_call) != 0 || !path_of(folder, name, path))
        return 0;
    length = strlen(path);
    if (end && wanted_end[end - 1] == '*') {
        /* File names that the test cannot know before. */
        char part[PATH_MAX] = "";
        memcpy(part, wanted_end, end - 1);
        if (!strstr(path, part))
            return 0;
    } else if (length < end || strcmp(path + length - end, wanted_end) != 0)
        return 0;
    met++;
    if (atomic_fetch_sub(&pass_first, 1) > 0 || atomic_fetch_sub(&to_fail, 1) <= 0)
        return 0;
    failed++;
    errno = code;
    return 1;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                                      \
    int name(const char *path, int flags, ...)                          \
    {                                                                   \
        va_list rest;                                                   \
        va_start(rest, flags);                                          \
        mode_t mode = va_arg(rest, mode_t);                             \
        va_end(rest);                                                   \
        return fails("open", AT_FDCWD, path) ? -1 : NEXT(name)(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                    \
    int name(int folder, const char *path, int flags, ...)              \
    {                                                                   \
        va_list rest;                                                   \
        va_start(rest, flags);                                          \
        mode_t mode = va_arg(rest, mode_t);                             \
        va_end(rest);                                                   \
        return fails("open", folder, path) ? -1 : NEXT(name)(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

DIR *opendir(const char *path)
{
    return fails("open", AT_FDCWD, path) ? NULL : NEXT(opendir)(path);
}

ssize_t read(int fd, void *to, size_t size)
{
    return fails("read", fd, NULL) ? -1 : NEXT(read)(fd, to, size);
}

ssize_t write(int fd, const void *from, size_t size)
{
    return fails("write", fd, NULL) ? -1 : NEXT(write)(fd, from, size);
}

int fsync(int fd)
{
    return fails("fsync", fd, NULL) ? -1 : NEXT(fsync)(fd);
}

struct dirent *readdir(DIR *folder)
{
    return fails("list", dirfd(folder), NULL) ? NULL : NEXT(readdir)(folder);
}

struct dirent64 *readdir64(DIR *folder)
{
    return fails("list", dirfd(folder), NULL) ? NULL : NEXT(readdir64)(folder);
}

int fstat(int fd, struct stat *to)
{
    return fails("stat", fd, NULL) ? -1 : NEXT(fstat)(fd, to);
}

int fstat64(int fd, struct stat64 *to)
{
    return fails("stat", fd, NULL) ? -1 : NEXT(fstat64)(fd, to);
}

int stat(const char *path, struct stat *to)
{
    return fails("stat", AT_FDCWD, path) ? -1 : NEXT(stat)(path, to);
}

int stat64(const char *path, struct stat64 *to)
{
    return fails("stat", AT_FDCWD, path) ? -1 : NEXT(stat64)(path, to);
}

int lstat(const char *path, struct stat *to)
{
    return fails("stat", AT_FDCWD, path) ? -1 : NEXT(lstat)(path, to);
}

int lstat64(const char *path, struct stat64 *to)
{
    return fails("stat", AT_FDCWD, path) ? -1 : NEXT(lstat64)(path, to);
}

int fstatat(int folder, const char *path, struct stat *to, int flags)
{
    return fails("stat", folder, path) ? -1 : NEXT(fstatat)(folder, path, to, flags);
}

int fstatat64(int folder, const char *path, struct stat64 *to, int flags)
{
    return fails("stat", folder, path) ? -1 : NEXT(fstatat64)(folder, path, to, flags);
}

int statx(int folder, const char *path, int flags, unsigned mask, struct statx *to)
{
    return fails("stat", folder, path) ? -1 : NEXT(statx)(folder, path, flags, mask, to);
}

ssize_t readlink(const char *path, char *to, size_t size)
{
    return fails("link", AT_FDCWD, path) ? -1 : NEXT(readlink)(path, to, size);
}

/* The path is the current folder of the process. */
char *getcwd(char *to, size_t size)
{
    return fails("cwd", AT_FDCWD, ".") ? NULL : NEXT(getcwd)(to, size);
}

/* With flags, glibc calls faccessat2(2). The filters of old containers do not know this call. */
int faccessat(int folder, const char *path, int mode, int flags)
{
    return flags && fails("access2", folder, path) ? -1 : NEXT(faccessat)(folder, path, mode, flags);
}

static atomic_long stopped_at;

/* Stops the clock at this second since 1970. With -1 the clock runs again. */
void trouble_clock(long second)
{
    stopped_at = second + 1;
}

int clock_gettime(clockid_t clock, struct timespec *to)
{
    if (clock == CLOCK_REALTIME && stopped_at) {
        *to = (struct timespec){.tv_sec = stopped_at - 1};
        return 0;
    }
    if (clock == CLOCK_REALTIME && fails("clock", AT_FDCWD, "/"))
        return -1;
    return NEXT(clock_gettime)(clock, to);
}

int renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
    return fails("rename2", to, new) ? -1 : NEXT(renameat2)(from, old, to, new, flags);
}
