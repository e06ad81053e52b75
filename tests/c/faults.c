/* The system says no. Arguments: "faults": does the same work again and again, of which somebody has calls to the system fail meanwhile; "little_room":
 * the process may have 48 MiB mapped, and has 16 MiB live; "grow": one block, to 12 GiB that it does not use. What is refused is null and ENOMEM; nothing else may be noticed. Ends with "kept". */
#include "check.h"

#include <fcntl.h>

enum { HELD = 400, STEPS = 1500 };

static struct {
    unsigned char *block;
    size_t size;
    unsigned seed;
} held[HELD];

static void give_up(size_t nth)
{
    if (held[nth].block != NULL)
        CHECK(is_marked(held[nth].block, held[nth].size, held[nth].size, held[nth].seed));
    errno = 4711;
    free(held[nth].block);
    CHECK_FOR(errno == 4711, "%d", errno);
    held[nth].block = NULL;
}

/* Of all sizes, most of them small. */
static size_t some_size(uint64_t random)
{
    uint64_t more = random >> 24;
    switch (random % 32) {
    case 0:
        return 1 + more % (9 * MiB);
    case 1: case 2: case 3:
        return 1 + more % (400 * KiB);
    case 4: case 5: case 6: case 7: case 8:
        return 1 + more % (40 * KiB);
    default:
        return 1 + more % 2000;
    }
}

/* One call of the family. 0: there was no memory, and everything is as it was. */
static int step(uint64_t random, size_t most)
{
    size_t nth = (random >> 8) % HELD, size = some_size(random >> 16) % most + 1;
    unsigned seed = (unsigned)(random >> 40);
    unsigned way = (unsigned)(random >> 56) % 10;
    void *block = NULL;
    errno = 0;
    if (way < 4 && held[nth].block != NULL) {
        block = way % 2 ? realloc(held[nth].block, size) : reallocarray(held[nth].block, 1, size);
        size_t both = size < held[nth].size ? size : held[nth].size;
        if (block == NULL) {
            CHECK(errno == ENOMEM);
            CHECK(is_marked(held[nth].block, held[nth].size, held[nth].size, held[nth].seed));
            return 0;
        }
        CHECK(is_marked(block, both, held[nth].size, held[nth].seed));
    } else {
        give_up(nth);
        errno = 0;
        int answer = 0;
        switch (way) {
        case 4: block = calloc(size, 1); break;
        case 5: block = aligned_alloc(64, size); break;
        case 6: block = memalign(64 * KiB, size); break;
        case 7: answer = posix_memalign(&block, 4096, size); break;
        case 8: block = valloc(size); break;
        default: block = malloc(size); break;
        }
        if (block == NULL) {
            CHECK(way == 7 ? answer == ENOMEM : errno == ENOMEM);
            return 0;
        }
        CHECK(way != 4 || is_zero(block, size));
    }
    CHECK(malloc_usable_size(block) >= size);
    held[nth].block = block;
    held[nth].size = size;
    held[nth].seed = seed;
    mark(block, size, seed);
    return 1;
}

/* A block that outgrows its place again and again, whose ends are used. Its pages move with it where the system moves them, else they are copied. */
static void grow(size_t up_to)
{
    enum { END = 4096 };
    size_t size = 3 * MiB;
    unsigned char *block = malloc(size);
    for (unsigned seed = 0; block != NULL && size < up_to; seed++) {
        mark(block, END, seed);
        mark(block + size - END, END, seed + 1);
        errno = 0;
        unsigned char *grown = realloc(block, 4 * size);
        if (grown == NULL) {
            CHECK(errno == ENOMEM);
            CHECK(is_marked(block, END, END, seed) && is_marked(block + size - END, END, END, seed + 1));
            break;
        }
        CHECK(is_marked(grown, END, END, seed) && is_marked(grown + size - END, END, END, seed + 1));
        block = grown;
        size *= 4;
    }
    free(block);
}

/* How many of the steps had what they asked for. The same ones each time. */
static int steps(size_t most)
{
    uint64_t state = 88172645463325252u;
    int had = 0;
    if (most > 24 * MiB)
        grow(192 * MiB);
    for (int nth = 0; nth < STEPS; nth++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        had += step(state * 0x2545f4914f6cdd1du, most);
        if (nth % 300 == 299)
            malloc_trim(0);
    }
    for (size_t nth = 0; nth < HELD; nth++)
        give_up(nth);
    return had;
}

/* Allocates nothing: there may be nothing. */
static size_t resident_kib(void)
{
    char text[128] = "";
    int file = open("/proc/self/statm", O_RDONLY);
    size_t all = 0, of_files = 0;
    CHECK(file >= 0 && read(file, text, sizeof text - 1) > 0);
    CHECK(sscanf(text, "%*u %zu %zu", &all, &of_files) == 2);
    close(file);
    return (all - of_files) * 4;
}

static void faults(void)
{
    /* Lines that a trace of system calls shows as well. */
    static const char *const begins[] = { "during ", "after " };
    for (int phase = 0; phase < 2; phase++) {
        char number[32];
        CHECK(write(1, begins[phase], strlen(begins[phase])) > 0);
        int had = steps(SIZE_MAX / 2);
        malloc_trim(0);
        int length = snprintf(number, sizeof number, "%d of %d, %zu KiB left\n", had, STEPS, resident_kib());
        CHECK(write(1, number, (size_t)length) == length);
    }
}

/* Blocks of a size until there are no more; frees them; says how many bytes they had. */
static size_t exhaust(size_t size)
{
    void **last = NULL;
    size_t bytes = 0;
    for (void **block; errno = 0, (block = malloc(size)) != NULL; last = block, bytes += size) {
        *block = last;
        ((char *)block)[size - 1] = 1;
    }
    CHECK(errno == ENOMEM);
    while (last != NULL) {
        void **next = *last;
        free(last);
        last = next;
    }
    return bytes;
}

static void little_room(void)
{
    enum { COUNT = 16 * 1024 };
    static void *live[COUNT];
    for (size_t nth = 0; nth < COUNT; nth++) {
        CHECK((live[nth] = malloc(KiB)) != NULL);
        mark(live[nth], KiB, (unsigned)nth);
    }
    CHECK_FOR(steps(100 * KiB) == STEPS, "%zu bytes live", mallinfo2().uordblks);
    static const size_t each[] = { 100, 4096, 40000, MiB };
    for (size_t kind = 0; kind < 4; kind++) {
        size_t first = exhaust(each[kind]);
        CHECK_FOR(first >= 12 * MiB, "%zu bytes in blocks of %zu", first, each[kind]);
        for (int round = 0; round < 3; round++) {
            size_t again = exhaust(each[kind]);
            CHECK_FOR(again * 10 >= first * 9, "%zu, then %zu bytes in blocks of %zu", first, again, each[kind]);
        }
    }
    CHECK(steps(100 * KiB) == STEPS);
    for (size_t nth = 0; nth < COUNT; nth++) {
        CHECK(is_marked(live[nth], KiB, KiB, (unsigned)nth));
        free(live[nth]);
    }
}

int main(int count, char **arguments)
{
    if (count == 2 && strcmp(arguments[1], "little_room") == 0)
        little_room();
    else if (count == 2 && strcmp(arguments[1], "grow") == 0)
        grow(8 * GiB);
    else
        faults();
    CHECK(write(1, "kept\n", 5) == 5);
    return 0;
}
