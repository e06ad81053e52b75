/* A library that has handlers around fork, registered by its constructor before anybody has allocated, and the program that uses it. The handlers
 * allocate. Compiled twice. Ends with "kept". */
#include "check.h"

#include <pthread.h>
#include <sys/wait.h>

int runs_of_handlers(void);

#ifdef LIBRARY
static int runs;

static void allocates(void)
{
    void *block = malloc(100);
    CHECK(block != NULL);
    free(block);
    runs++;
}

__attribute__((constructor)) static void registers(void)
{
    CHECK(pthread_atfork(allocates, allocates, allocates) == 0);
}

int runs_of_handlers(void)
{
    return runs;
}
#else
int main(void)
{
    free(malloc(3));
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        _exit(runs_of_handlers());
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 2 && runs_of_handlers() == 2);
    puts("kept");
    return 0;
}
#endif
