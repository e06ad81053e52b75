/* Allocates what it can count, and has the heap say how it is doing in all of glibc's ways: as "name=number" lines, as XML after a line "xml", and on
 * standard error. tests/c_contract.rs compares. */
#include "check.h"

/* Which has too few digits, and is still called. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

static void say(const char *name, size_t number)
{
    printf("%s=%zu\n", name, number);
}

int main(void)
{
    static char buffer[256 * KiB];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    enum { SMALL = 1000, LARGE = 5, FREED = 300 };
    static void *small[SMALL], *large[LARGE];

    struct mallinfo2 before = mallinfo2();
    size_t small_bytes = 0, large_bytes = 0;
    for (size_t nth = 0; nth < SMALL; nth++)
        small_bytes += malloc_usable_size(small[nth] = malloc(10 + nth * 7));
    for (size_t nth = 0; nth < LARGE; nth++)
        large_bytes += malloc_usable_size(large[nth] = malloc(300 * KiB + nth * MiB));
    struct mallinfo2 full = mallinfo2();
    CHECK_FOR(full.uordblks - before.uordblks == small_bytes + large_bytes, "%zu, %zu", full.uordblks, before.uordblks);
    CHECK_FOR(full.hblks - before.hblks == LARGE && full.hblkhd - before.hblkhd == large_bytes, "%zu", full.hblkhd);
    CHECK(full.arena >= full.uordblks - full.hblkhd);
    struct mallinfo narrow = mallinfo();
    CHECK((size_t)narrow.uordblks == full.uordblks && (size_t)narrow.hblkhd == full.hblkhd);

    for (size_t nth = 0; nth < FREED; nth++) {
        small_bytes -= malloc_usable_size(small[nth]);
        free(small[nth]);
    }
    large_bytes -= malloc_usable_size(large[LARGE - 1]);
    free(large[LARGE - 1]);
    struct mallinfo2 now = mallinfo2();
    CHECK(now.uordblks - before.uordblks == small_bytes + large_bytes);
    CHECK(now.hblks - before.hblks == LARGE - 1);
    CHECK(now.fordblks > full.fordblks);
    CHECK(now.keepcost <= now.fordblks);

    /* What does not fit into an int is the largest one. */
    void *huge = malloc((size_t)3 << 30);
    CHECK(huge != NULL);
    CHECK(mallinfo().hblkhd == INT32_MAX);
    free(huge);

    say("uordblks", mallinfo2().uordblks);
    say("hblks", mallinfo2().hblks);
    say("hblkhd", mallinfo2().hblkhd);
    puts("xml");
    CHECK(malloc_info(1, stdout) == EINVAL);
    CHECK(malloc_info(0, stdout) == 0);
    malloc_stats();
    return 0;
}
