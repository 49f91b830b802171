// Preloaded into the host: kills the process just before its n-th call that changes a file, where KILL_AT is
// n, and leaves the number of such calls in the file COUNT_CALLS at the end. Workers are left alone.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long calls, kill_at;
static int active;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
    char line[256] = {0};
    FILE *file = fopen("/proc/self/cmdline", "r");
    size_t length = file ? fread(line, 1, sizeof line - 1, file) : 0;
    if (file) fclose(file);
    size_t name = strlen(line) + 1;
    active = name >= length || strcmp(line + name, "worker") != 0;
    if (getenv("KILL_AT")) kill_at = atol(getenv("KILL_AT"));
}

__attribute__((destructor)) static void end(void) {
    const char *path = getenv("COUNT_CALLS");
    if (!active || !path) return;
    active = 0;
    FILE *file = fopen(path, "w");
    if (file) fprintf(file, "%ld", calls), fclose(file);
}

static void count(void) {
    if (!active) return;
    pthread_mutex_lock(&lock);
    if (++calls == kill_at) kill(getpid(), SIGKILL), pause();
    pthread_mutex_unlock(&lock);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void *bytes, size_t length) {
    if (file > 2) count();
    return NEXT(write)(file, bytes, length);
}
int fsync(int file) { count(); return NEXT(fsync)(file); }
int fdatasync(int file) { count(); return NEXT(fdatasync)(file); }
int ftruncate64(int file, off64_t length) { count(); return NEXT(ftruncate64)(file, length); }
int ftruncate(int file, off_t length) { count(); return NEXT(ftruncate)(file, length); }
int rename(const char *from, const char *to) { count(); return NEXT(rename)(from, to); }
int renameat(int a, const char *from, int b, const char *to) { count(); return NEXT(renameat)(a, from, b, to); }
int mkdir(const char *path, mode_t mode) { count(); return NEXT(mkdir)(path, mode); }
int unlink(const char *path) { count(); return NEXT(unlink)(path); }
int fchmod(int file, mode_t mode) { count(); return NEXT(fchmod)(file, mode); }

int open64(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list more;
        va_start(more, flags);
        mode = va_arg(more, mode_t);
        va_end(more);
    }
    if (flags & O_CREAT) count();
    return NEXT(open64)(path, flags, mode);
}
