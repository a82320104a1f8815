/* A disk that fails on command, between any program and the C library (LD_PRELOAD). It knows nothing of the program: it counts the
 * calls that touch files below one folder, and makes one of them, or all from one on, fail, stop half-way, or kill the process.
 *
 * FAULT_ROOT    the folder; everything else is left alone
 * FAULT_LOG     every call is appended to this file: "call\tpath\tsecond path\terrno\t1 if it empties the file\tn\n", then, with
 *               FAULT_DATA=1, the n bytes that were written
 * FAULT_AT      "call needle k": the k-th call of this name whose paths contain the needle
 * FAULT_KIND    kill | tear (half of a write, then kill) | errno N | short (half, no error) | partial N (half, then errno N)
 *               | from N (errno N from there on for what needs space) | sector N (errno N for every read of the needle until it
 *               is replaced) | readonly (every change is refused, from the start)
 * FAULT_CLOCK   seconds by which the process sees the wall clock shifted
 * FAULT_SHUFFLE a seed: folders are listed in another order
 *
 * Nothing is made durable: what a power cut would leave is computed from the log. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum kind { NONE, KILL, TEAR, ERRNO, SHORT, PARTIAL, FROM, SECTOR, READONLY };

static char root[2048], want_call[16], want_needle[512];
static size_t root_n;
static long want_k, seen_n, clock_s;
static unsigned long shuffle_seed;
static int log_fd = -1, log_data, code, struck;
static enum kind kind = NONE;
static char *paths[4096];
/* Held over a change and its line in the log, so that the log has the order in which things happened. */
static pthread_mutex_t order = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

__attribute__((constructor)) static void start(void) {
    const char *text = getenv("FAULT_ROOT");
    if (!text) return;
    snprintf(root, sizeof root, "%s", text);
    root_n = strlen(root);
    if ((text = getenv("FAULT_LOG"))) log_fd = syscall(SYS_openat, AT_FDCWD, text, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    log_data = getenv("FAULT_DATA") != NULL;
    if ((text = getenv("FAULT_AT"))) sscanf(text, "%15s %511s %ld", want_call, want_needle, &want_k);
    if ((text = getenv("FAULT_CLOCK"))) clock_s = atol(text);
    if ((text = getenv("FAULT_SHUFFLE"))) shuffle_seed = strtoul(text, NULL, 10);
    if ((text = getenv("FAULT_KIND"))) {
        static const char *names[] = {"", "kill", "tear", "errno", "short", "partial", "from", "sector", "readonly"};
        char name[16] = "";
        sscanf(text, "%15s %d", name, &code);
        for (int n = 1; n <= READONLY; n++)
            if (!strcmp(name, names[n])) kind = n;
    }
    /* Programs that this one starts are none of ours. */
    unsetenv("LD_PRELOAD");
    /* Nothing that a fault can do may make it wait for ever. */
    alarm(30);
}

/* The absolute form of a path below the root, or NULL. */
static const char *ours(int folder, const char *path, char *space, size_t n) {
    if (!root_n || !path) return NULL;
    if (path[0] == '/') {
        snprintf(space, n, "%s", path);
    } else if (folder != AT_FDCWD) {
        if (folder < 0 || folder >= 4096 || !paths[folder]) return NULL;
        snprintf(space, n, path[0] ? "%s/%s" : "%s%s", paths[folder], path);
    } else {
        long cwd_n = syscall(SYS_getcwd, space, n);
        if (cwd_n <= 0) return NULL;
        snprintf(space + cwd_n - 1, n - cwd_n + 1, "/%s", path);
    }
    for (char *at; (at = strstr(space, "/./"));) memmove(at, at + 2, strlen(at + 2) + 1);
    return strncmp(space, root, root_n) || (space[root_n] && space[root_n] != '/') ? NULL : space;
}

static const char *of_fd(int fd) { return fd >= 0 && fd < 4096 ? paths[fd] : NULL; }

static int is(const char *call, const char *list) {
    const char *at = strstr(list, call);
    return at && (at == list || at[-1] == ' ') && strchr(" ", at[strlen(call)]);
}

static void note(const char *call, const char *path, const char *second, int number, int empties, const void *data, size_t n) {
    if (log_fd < 0) return;
    if (!log_data) n = 0;
    char line[8192];
    int line_n = snprintf(line, sizeof line, "%s\t%s\t%s\t%d\t%d\t%zu\n", call, path + root_n, second ? second + root_n : "", number, empties, n);
    syscall(SYS_write, log_fd, line, line_n);
    if (n) syscall(SYS_write, log_fd, data, n);
}

/* What is to become of a call: 0 go on, > 0 fail with this number, -1 do half of it, -2 half and then the number, -3 half and die. */
static int judge(const char *call, const char *path, const char *second) {
    if (kind == NONE) return 0;
    if (kind == READONLY) return is(call, "create modify rename unlink mkdir rmdir truncate utimens") ? EROFS : 0;
    if (kind == FROM && struck) {
        /* A file that is there already needs no space to be opened. */
        int is_there = !strcmp(call, "create") && !syscall(SYS_faccessat, AT_FDCWD, path, F_OK, 0);
        return is(call, "create write mkdir rename truncate") && !is_there ? code : 0;
    }
    if (kind == SECTOR && struck == 1) {
        if (!strcmp(call, "rename") && second && strstr(second, want_needle)) struck = 2;
        return !strcmp(call, want_call) && strstr(path, want_needle) ? code : 0;
    }
    if (strcmp(call, want_call) || !(strstr(path + root_n, want_needle) || (second && strstr(second + root_n, want_needle)))) return 0;
    if (__atomic_add_fetch(&seen_n, 1, __ATOMIC_SEQ_CST) != want_k) return 0;
    struck = 1;
    switch (kind) {
    case KILL: syscall(SYS_kill, getpid(), SIGKILL); pause(); return 0;
    case TEAR: return -3;
    case SHORT: return -1;
    case PARTIAL: return -2;
    default: return code;
    }
}

static int fail(int number) { errno = number; return -1; }

#define JUDGE(call, path, second)                       \
    int verdict = judge(call, path, second);            \
    if (verdict > 0) { pthread_mutex_unlock(&order); return fail(verdict); }

static void remember(int fd, const char *path) {
    if (fd >= 0 && fd < 4096) { free(paths[fd]); paths[fd] = path ? strdup(path) : NULL; }
}

static int open_in(int folder, const char *path, int flags, mode_t mode) {
    char space[4096];
    const char *full = ours(folder, path, space, sizeof space);
    if (!full) {
        int fd = syscall(SYS_openat, folder, path, flags, mode);
        if (fd >= 0) remember(fd, NULL);
        return fd;
    }
    const char *call = flags & O_CREAT ? "create" : (flags & O_ACCMODE) != O_RDONLY ? "modify" : "open";
    pthread_mutex_lock(&order);
    JUDGE(call, full, NULL);
    int fd = syscall(SYS_openat, folder, path, flags, mode), saved = errno;
    note(call, full, NULL, fd < 0 ? saved : 0, flags & O_TRUNC ? 1 : 0, NULL, 0);
    remember(fd, full);
    pthread_mutex_unlock(&order);
    errno = saved;
    return fd;
}

#define OPENS(name, head, folder)                                                            \
    int name(head const char *path, int flags, ...) {                                        \
        va_list rest; va_start(rest, flags);                                                 \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;              \
        va_end(rest);                                                                        \
        return open_in(folder, path, flags, mode);                                           \
    }
#define NOTHING
#define FOLDER int folder,
OPENS(open, NOTHING, AT_FDCWD)
OPENS(open64, NOTHING, AT_FDCWD)
OPENS(openat, FOLDER, folder)
OPENS(openat64, FOLDER, folder)

int close(int fd) { remember(fd, NULL); return syscall(SYS_close, fd); }

ssize_t write(int fd, const void *bytes, size_t n) {
    const char *path = of_fd(fd);
    if (!path || !n) return syscall(SYS_write, fd, bytes, n);
    pthread_mutex_lock(&order);
    JUDGE("write", path, NULL);
    size_t done_n = verdict < 0 ? (n + 1) / 2 : n;
    ssize_t result = syscall(SYS_write, fd, bytes, done_n);
    if (verdict == -3) syscall(SYS_kill, getpid(), SIGKILL), pause();
    if (verdict == -2) { kind = FROM; }
    note("write", path, NULL, 0, 0, bytes, done_n);
    pthread_mutex_unlock(&order);
    return result;
}

ssize_t read(int fd, void *bytes, size_t n) {
    const char *path = of_fd(fd);
    if (!path) return syscall(SYS_read, fd, bytes, n);
    int verdict = judge("read", path, NULL);
    if (verdict > 0) return fail(verdict);
    note("read", path, NULL, 0, 0, NULL, 0);
    return syscall(SYS_read, fd, bytes, verdict < 0 && n > 1 ? 1 : n);
}

static int rename_in(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    char space[4096], second[4096];
    const char *full = ours(from_folder, from, space, sizeof space), *target = ours(to_folder, to, second, sizeof second);
    if (!full || !target) return syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
    pthread_mutex_lock(&order);
    JUDGE("rename", full, target);
    int result = syscall(SYS_renameat2, from_folder, from, to_folder, to, flags), saved = errno;
    note("rename", full, target, result ? saved : 0, 0, NULL, 0);
    pthread_mutex_unlock(&order);
    errno = saved;
    return result;
}
int rename(const char *from, const char *to) { return rename_in(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return rename_in(a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { return rename_in(a, from, b, to, flags); }

#define ON_PATH(call, number, folder, path, ...)                                             \
    char space[4096];                                                                        \
    const char *full = ours(folder, path, space, sizeof space);                              \
    if (!full) return syscall(number, __VA_ARGS__);                                          \
    pthread_mutex_lock(&order);                                                              \
    JUDGE(call, full, NULL);                                                                 \
    int result = syscall(number, __VA_ARGS__), saved = errno;                                \
    note(call, full, NULL, result ? saved : 0, 0, NULL, 0);                                  \
    pthread_mutex_unlock(&order);                                                            \
    errno = saved;                                                                           \
    return result;

int unlink(const char *path) { ON_PATH("unlink", SYS_unlinkat, AT_FDCWD, path, AT_FDCWD, path, 0) }
int unlinkat(int folder, const char *path, int flags) { ON_PATH("unlink", SYS_unlinkat, folder, path, folder, path, flags) }
int rmdir(const char *path) { ON_PATH("rmdir", SYS_unlinkat, AT_FDCWD, path, AT_FDCWD, path, AT_REMOVEDIR) }
int mkdir(const char *path, mode_t mode) { ON_PATH("mkdir", SYS_mkdirat, AT_FDCWD, path, AT_FDCWD, path, mode) }

#define ON_FD(call, instead)                                                                 \
    const char *path = of_fd(fd);                                                            \
    if (!path) return instead;                                                               \
    pthread_mutex_lock(&order);                                                              \
    JUDGE(call, path, NULL);                                                                 \
    note(call, path, NULL, 0, 0, NULL, 0);                                                         \
    pthread_mutex_unlock(&order);

int fsync(int fd) { ON_FD("fsync", syscall(SYS_fsync, fd)) return 0; }
int fdatasync(int fd) { ON_FD("fdatasync", syscall(SYS_fdatasync, fd)) return 0; }
int syncfs(int fd) { ON_FD("syncfs", syscall(SYS_syncfs, fd)) return 0; }
int futimens(int fd, const struct timespec times[2]) {
    ON_FD("utimens", syscall(SYS_utimensat, fd, NULL, times, 0))
    return syscall(SYS_utimensat, fd, NULL, times, 0);
}
int ftruncate64(int fd, off64_t n) {
    ON_FD("truncate", syscall(SYS_ftruncate, fd, n))
    return syscall(SYS_ftruncate, fd, n);
}
int flock(int fd, int how) {
    const char *path = of_fd(fd);
    if (path) {
        int verdict = judge("flock", path, NULL);
        if (verdict > 0) return fail(verdict);
        note("flock", path, NULL, 0, 0, NULL, 0);
    }
    return syscall(SYS_flock, fd, how);
}

int statx(int folder, const char *path, int flags, unsigned mask, struct statx *found) {
    char space[4096];
    const char *full = ours(folder, path, space, sizeof space);
    if (full) {
        int verdict = judge("stat", full, NULL);
        if (verdict > 0) return fail(verdict);
        note("stat", full, NULL, 0, 0, NULL, 0);
    }
    return syscall(SYS_statx, folder, path, flags, mask, found);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (!result && clock == CLOCK_REALTIME) now->tv_sec += clock_s;
    return result;
}

/* Folders, listed in an order of the test's choice. */
struct listing { DIR *folder; struct dirent64 **entries; size_t entries_n, next; struct listing *more; };
static struct listing *listings;

static struct dirent64 *real_readdir(DIR *folder) {
    static struct dirent64 *(*real)(DIR *);
    if (!real) real = dlsym(RTLD_NEXT, "readdir64");
    return real(folder);
}

DIR *opendir(const char *path) {
    static DIR *(*real)(const char *);
    if (!real) real = dlsym(RTLD_NEXT, "opendir");
    char space[4096];
    const char *full = ours(AT_FDCWD, path, space, sizeof space);
    if (full) {
        int verdict = judge("opendir", full, NULL);
        if (verdict > 0) { errno = verdict; return NULL; }
        note("opendir", full, NULL, 0, 0, NULL, 0);
    }
    DIR *folder = real(path);
    if (folder && full) remember(dirfd(folder), full);
    return folder;
}

struct dirent64 *readdir64(DIR *folder) {
    const char *path = of_fd(dirfd(folder));
    if (!path) return real_readdir(folder);
    int verdict = judge("readdir", path, NULL);
    if (verdict > 0) { errno = verdict; return NULL; }
    note("readdir", path, NULL, 0, 0, NULL, 0);
    if (!shuffle_seed) return real_readdir(folder);
    pthread_mutex_lock(&order);
    struct listing *listing = listings;
    while (listing && listing->folder != folder) listing = listing->more;
    if (!listing) {
        listing = calloc(1, sizeof *listing);
        listing->folder = folder;
        listing->entries = calloc(65536, sizeof *listing->entries);
        struct dirent64 *entry;
        while ((entry = real_readdir(folder)) && listing->entries_n < 65536) {
            struct dirent64 *copy = malloc(sizeof *copy);
            memcpy(copy, entry, entry->d_reclen);
            listing->entries[listing->entries_n++] = copy;
        }
        unsigned long state = shuffle_seed;
        for (size_t n = listing->entries_n; n > 1; n--) {
            state = state * 6364136223846793005UL + 1442695040888963407UL;
            size_t other = (state >> 33) % n;
            struct dirent64 *swap = listing->entries[n - 1];
            listing->entries[n - 1] = listing->entries[other];
            listing->entries[other] = swap;
        }
        listing->more = listings;
        listings = listing;
    }
    struct dirent64 *entry = listing->next < listing->entries_n ? listing->entries[listing->next++] : NULL;
    if (!entry) errno = 0;
    pthread_mutex_unlock(&order);
    return entry;
}

int closedir(DIR *folder) {
    static int (*real)(DIR *);
    if (!real) real = dlsym(RTLD_NEXT, "closedir");
    pthread_mutex_lock(&order);
    /* Its address may be given to another folder. What it listed stays: the program ends soon. */
    for (struct listing *listing = listings; listing; listing = listing->more)
        if (listing->folder == folder) listing->folder = NULL;
    pthread_mutex_unlock(&order);
    remember(dirfd(folder), NULL);
    return real(folder);
}
