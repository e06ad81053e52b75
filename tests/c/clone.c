/* A process that was made behind the C library's back, by a bare clone, starts threads. Nobody may take what the first of them has for that of a dead
 * one: the numbers of threads are those of the parent. Each marks its blocks. Ends with "kept". */
#include "check.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { THREADS = 14, HELD = 64, ROUNDS = 5000 };

static void *works(void *number)
{
    uint8_t tag = (uint8_t)(uintptr_t)number;
    uint8_t *held[HELD] = { 0 };
    size_t sizes[HELD];
    for (size_t round = 0; round < ROUNDS; round++) {
        size_t nth = round % HELD;
        for (size_t at = 0; held[nth] != NULL && at < sizes[nth]; at++)
            CHECK_FOR(held[nth][at] == tag, "thread %u sees %u", tag, held[nth][at]);
        free(held[nth]);
        sizes[nth] = 16 + round * 48 % 200;
        CHECK((held[nth] = malloc(sizes[nth])) != NULL);
        memset(held[nth], tag, sizes[nth]);
        if (round % 64 == 0)
            usleep(200);
    }
    for (size_t nth = 0; nth < HELD; nth++)
        free(held[nth]);
    return NULL;
}

int main(void)
{
    free(malloc(10));
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    CHECK(pid >= 0);
    if (pid == 0) {
        pthread_t threads[THREADS];
        for (uintptr_t nth = 0; nth < THREADS; nth++)
            CHECK(pthread_create(&threads[nth], NULL, works, (void *)(nth + 1)) == 0);
        works((void *)(uintptr_t)99);
        for (size_t nth = 0; nth < THREADS; nth++)
            CHECK(pthread_join(threads[nth], NULL) == 0);
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    puts("kept");
    return 0;
}
