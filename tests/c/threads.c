/* Many threads, one after another and a few at a time; each leaves a block behind that another one frees. Argument: how many. Ends with "kept". */
#include "check.h"

#include <pthread.h>

enum { AT_A_TIME = 8 };

static size_t resident_anonymous(void)
{
    char line[256];
    size_t kib = 0;
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL && sscanf(line, "Anonymous: %zu", &kib) != 1) {
    }
    fclose(file);
    CHECK(kib > 0);
    return kib * KiB;
}

/* All of a generation are there at the same time, each time. */
static pthread_barrier_t all_are_there;

static void *works(void *left_behind)
{
    pthread_barrier_wait(&all_are_there);
    void *blocks[60];
    for (size_t nth = 0; nth < 60; nth++) {
        size_t size = 1 + nth * nth * 13;
        blocks[nth] = malloc(size);
        CHECK(blocks[nth] != NULL);
        mark(blocks[nth], size, 1);
    }
    pthread_barrier_wait(&all_are_there);
    for (size_t nth = 0; nth < 60; nth++)
        free(blocks[nth]);
    free(left_behind);
    return malloc(100 + (uintptr_t)left_behind / 16 % 3000);
}

static void generation(void **left_behind)
{
    pthread_t threads[AT_A_TIME];
    for (size_t nth = 0; nth < AT_A_TIME; nth++)
        CHECK(pthread_create(&threads[nth], NULL, works, left_behind[nth]) == 0);
    for (size_t nth = 0; nth < AT_A_TIME; nth++)
        CHECK(pthread_join(threads[nth], &left_behind[nth]) == 0);
}

int main(int count, char **arguments)
{
    CHECK(count == 2);
    int generations = atoi(arguments[1]) / AT_A_TIME;
    void *left_behind[AT_A_TIME] = { 0 };
    CHECK(pthread_barrier_init(&all_are_there, NULL, AT_A_TIME) == 0);
    for (int nth = 0; nth < 64; nth++)
        generation(left_behind);
    size_t before = resident_anonymous();
    for (int nth = 0; nth < generations; nth++)
        generation(left_behind);
    size_t after = resident_anonymous();
    printf("drift %zd KiB\n", ((ssize_t)after - (ssize_t)before) / 1024);
    CHECK_FOR(after <= before + 512 * KiB, "%zu, then %zu bytes", before, after);
    puts("kept");
    return 0;
}
