/* A process at work has children, in every way there is. Arguments: the way, how many. Ends with "kept". A child that hangs hangs its parent, which
 * somebody else ends. */
#include "check.h"

#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/time.h>
#include <sys/wait.h>

extern char **environ;

enum { WORKERS = 8, INHERITED = 100 };

static _Atomic int is_over;

static void *works(void *number)
{
    enum { HELD = 200 };
    void *held[HELD] = { 0 };
    uint64_t state = (uintptr_t)number * 2654435761u + 1;
    while (!is_over) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        size_t nth = state % HELD, kind = (state >> 10) % 200;
        size_t size = kind == 0 ? (state >> 20) % (3 * MiB) : kind < 10 ? (state >> 20) % 40000 : (state >> 20) % 1000;
        free(held[nth]);
        held[nth] = malloc(size);
        CHECK(held[nth] != NULL);
        if (size > 0)
            *(volatile char *)held[nth] = 1;
    }
    for (size_t nth = 0; nth < HELD; nth++)
        free(held[nth]);
    return NULL;
}

static void *is_born_in_child(void *unused)
{
    (void)unused;
    for (size_t nth = 0; nth < 200; nth++)
        free(unseen(malloc(nth * 50 + 1)));
    return malloc(5000);
}

/* What a child does with a whole heap. */
static void child(unsigned char **inherited, int nth)
{
    for (size_t block = 0; block < INHERITED; block++) {
        CHECK(is_marked(inherited[block], block * 37 + 1, block * 37 + 1, 7));
        if (block % 2)
            free(inherited[block]);
        else
            inherited[block] = realloc(inherited[block], block * 50 + 100);
        CHECK(block % 2 || is_marked(inherited[block], block * 37 + 1, block * 37 + 1, 7));
    }
    void *blocks[300];
    for (size_t block = 0; block < 300; block++) {
        size_t size = 1 + block * block % 20000;
        blocks[block] = malloc(size);
        CHECK(blocks[block] != NULL);
        mark(blocks[block], size, 3);
    }
    for (size_t block = 0; block < 300; block++)
        free(blocks[block]);
    if (nth % 50 == 0) {
        pthread_t thread;
        void *result = NULL;
        CHECK(pthread_create(&thread, NULL, is_born_in_child, NULL) == 0);
        CHECK(pthread_join(thread, &result) == 0);
        free(result);
        malloc_trim(0);
        CHECK(mallinfo2().uordblks > 0);
    }
}

static void reap(pid_t pid)
{
    int status = 0;
    CHECK(pid > 0);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_FOR(status == 0, "%#x", (unsigned)status);
}

/* Handlers of the program's own, which allocate. */
static void *by_handlers[3];
static void prepare(void) { by_handlers[0] = malloc(100); }
static void in_parent(void)
{
    free(by_handlers[0]);
    free(malloc(200));
}
static void in_child(void)
{
    free(by_handlers[0]);
    CHECK((by_handlers[1] = malloc(300)) != NULL);
    free(by_handlers[1]);
}

static void forks(int nth)
{
    unsigned char *heritage[INHERITED];
    for (size_t block = 0; block < INHERITED; block++)
        mark(heritage[block] = malloc(block * 37 + 1), block * 37 + 1, 7);
    pid_t pid = fork();
    if (pid == 0) {
        child(heritage, nth);
        /* A grandchild, too. */
        if (nth % 20 == 0) {
            pid_t grandchild = fork();
            if (grandchild == 0) {
                free(unseen(malloc(1000)));
                _exit(0);
            }
            reap(grandchild);
        }
        _exit(0);
    }
    for (size_t block = 0; block < INHERITED; block++)
        free(heritage[block]);
    reap(pid);
}

static void vforks(int nth)
{
    (void)nth;
    pid_t pid = vfork();
    if (pid == 0) {
        execl("/bin/true", "true", (char *)NULL);
        _exit(127);
    }
    reap(pid);
}

static void spawns(int nth)
{
    (void)nth;
    char *const arguments[] = { (char *)"true", NULL };
    pid_t pid = 0;
    CHECK(posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environ) == 0);
    reap(pid);
}

static void shells(int nth)
{
    (void)nth;
    CHECK(system("exit 0") == 0);
    FILE *said = popen("echo heard", "r");
    char line[32] = "";
    CHECK(said != NULL && fgets(line, sizeof line, said) != NULL && strcmp(line, "heard\n") == 0);
    CHECK(pclose(said) == 0);
}

/* A handler that forks whatever it interrupted. */
static volatile sig_atomic_t forked;

static void handler(int signal)
{
    int errno_before = errno;
    (void)signal;
    pid_t pid = fork();
    if (pid == 0) {
        /* It may get null, but not hang, and what it gets is its own. */
        for (size_t size = 1; size < 100000; size = size * 3 + 1) {
            char *block = malloc(size);
            if (block != NULL)
                block[0] = block[size - 1] = 1;
            free(block);
        }
        _exit(0);
    }
    if (pid > 0) {
        reap(pid);
        forked++;
    }
    errno = errno_before;
}

static void forks_in_handlers(int times)
{
    struct sigaction action = { .sa_handler = handler };
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    const struct itimerval often = { { 0, 500 }, { 0, 500 } }, never = { { 0, 0 }, { 0, 0 } };
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    void *held[64] = { 0 };
    for (unsigned round = 0; forked < times; round++) {
        size_t nth = round * 7 % 64, size = 1 + round * 977u % 60000;
        free(held[nth]);
        held[nth] = malloc(size);
        CHECK(held[nth] != NULL);
        mark(held[nth], size < 100 ? size : 100, 1);
        if (round % 512 == 0)
            malloc_trim(0);
    }
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    for (size_t nth = 0; nth < 64; nth++)
        free(held[nth]);
}

int main(int count, char **arguments)
{
    CHECK(count == 3);
    int times = atoi(arguments[2]);
    if (strcmp(arguments[1], "forks_in_handlers") == 0) {
        forks_in_handlers(times);
        puts("kept");
        return 0;
    }
    static const struct { const char *name; void (*has)(int nth); } ways[] = {
        { "forks", forks }, { "vforks", vforks }, { "spawns", spawns }, { "shells", shells },
    };
    CHECK(pthread_atfork(prepare, in_parent, in_child) == 0);
    pthread_t threads[WORKERS];
    for (uintptr_t nth = 0; nth < WORKERS; nth++)
        CHECK(pthread_create(&threads[nth], NULL, works, (void *)nth) == 0);
    for (size_t way = 0; way < 4; way++)
        for (int nth = 0; strcmp(arguments[1], ways[way].name) == 0 && nth < times; nth++)
            ways[way].has(nth);
    is_over = 1;
    for (size_t nth = 0; nth < WORKERS; nth++)
        CHECK(pthread_join(threads[nth], NULL) == 0);
    puts("kept");
    return 0;
}
