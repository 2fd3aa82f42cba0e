/* Preloaded into the kernel by faults.py: a disk that is slow, hangs, or holds a file that crashes whoever opens it.
   CSPINE_SLOW_PATH, CSPINE_SLOW_MS: each open() of a path that contains the text takes so long.
   CSPINE_HANG_PATH: such an open() never returns.  CSPINE_CRASH_PATH: such an open() is a segmentation fault. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int named(const char *path, const char *variable) {
    const char *text = getenv(variable);
    return text && path && strstr(path, text) != NULL;
}

static void meet(const char *path) {
    if (named(path, "CSPINE_CRASH_PATH")) raise(SIGSEGV);
    while (named(path, "CSPINE_HANG_PATH")) sleep(1000);
    if (named(path, "CSPINE_SLOW_PATH")) usleep(1000 * atoi(getenv("CSPINE_SLOW_MS")));
}

typedef int (*opener)(const char *, int, ...);

#define OPEN(name)                                                   \
    int name(const char *path, int flags, ...) {                     \
        mode_t mode = 0;                                             \
        if (flags & (O_CREAT | O_TMPFILE)) {                         \
            va_list rest;                                            \
            va_start(rest, flags);                                   \
            mode = va_arg(rest, mode_t);                             \
            va_end(rest);                                            \
        }                                                            \
        meet(path);                                                  \
        return ((opener)dlsym(RTLD_NEXT, #name))(path, flags, mode); \
    }

OPEN(open)
OPEN(open64)
