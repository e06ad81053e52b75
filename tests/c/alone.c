/* A program with one thread, which stays that way: it frees 256 MiB, goes on for a while and counts. Ends with "kept". */
#include "check.h"

#include <dirent.h>
#include <time.h>

static int threads(void)
{
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    for (struct dirent *task; (task = readdir(tasks)) != NULL;)
        count += task->d_name[0] != '.';
    closedir(tasks);
    return count;
}

int main(void)
{
    enum { COUNT = 4096 };
    static void *blocks[COUNT];
    for (size_t nth = 0; nth < COUNT; nth++)
        mark(blocks[nth] = malloc(64 * KiB), 64 * KiB, 1);
    CHECK(threads() == 1);
    for (size_t nth = 0; nth < COUNT; nth++)
        free(blocks[nth]);
    CHECK(threads() == 1);
    /* A few ticks, in which somebody else would do it. */
    for (int nth = 0; nth < 30; nth++) {
        for (size_t size = 1; size < MiB; size *= 2)
            free(unseen(malloc(size)));
        nanosleep(&(struct timespec){ 0, 20000000 }, NULL);
        CHECK(threads() == 1);
    }
    puts("kept");
    return 0;
}
