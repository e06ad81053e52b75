/* The contract of malloc and its family, sentence by sentence. Arguments: the chapters to walk through; none: all of them. Ends with "kept".
 *
 * With FREESTONE=bypass:1 the system's allocator is behind the same functions, and what may differ is left out. */
#include "check.h"
#include "freestone.h"


static int bypassed;
static int zero_is_usable;

/* Does nothing but set errno to a value that no call sets, to see whether it stays. */
static void forget_errno(void)
{
    errno = 4711;
}
#define KEEPS_ERRNO CHECK_FOR(errno == 4711, "(errno is %d)", errno)

/* Every function that allocates, for a size. */
static void *by_posix_memalign(size_t size)
{
    void *block = NULL;
    return posix_memalign(&block, 64, size) == 0 ? block : NULL;
}
static void *by_calloc(size_t size) { return calloc(1, size); }
static void *by_realloc(size_t size) { return realloc(NULL, size); }
static void *by_reallocarray(size_t size) { return reallocarray(NULL, 1, size); }
static void *by_aligned_alloc(size_t size) { return aligned_alloc(64, size); }
static void *by_memalign(size_t size) { return memalign(4096, size); }

static const struct way {
    const char *name;
    void *(*allocate)(size_t size);
    size_t align;
} ways[] = {
    { "malloc", malloc, 16 },
    { "calloc", by_calloc, 16 },
    { "realloc", by_realloc, 16 },
    { "reallocarray", by_reallocarray, 16 },
    { "aligned_alloc", by_aligned_alloc, 64 },
    { "memalign", by_memalign, 4096 },
    { "posix_memalign", by_posix_memalign, 64 },
    { "valloc", valloc, 4096 },
    { "pvalloc", pvalloc, 4096 },
};
#define WAYS (sizeof ways / sizeof *ways)

static int is_aligned(const void *block, size_t align)
{
    return (uintptr_t)block % align == 0;
}

/* A block as it should be. */
static void *good(void *block, size_t size, size_t align)
{
    CHECK_FOR(block != NULL, "%zu bytes", size);
    CHECK_FOR(is_aligned(block, align), "%p for %zu bytes", block, size);
    CHECK_FOR(malloc_usable_size(block) >= size, "%zu for %zu bytes", malloc_usable_size(block), size);
    return block;
}

/* The sizes of the classes of small blocks, as a program sees them: what a block of one byte more has. */
static size_t classes[512];
static size_t class_count;
#define LARGEST_CLASS (256 * KiB)

static void learn_classes(void)
{
    for (size_t size = 1; size <= LARGEST_CLASS; size = classes[class_count - 1] + 1) {
        void *block = malloc(size);
        CHECK(class_count < sizeof classes / sizeof *classes);
        classes[class_count++] = malloc_usable_size(block);
        free(block);
        /* The system's has one for every sixteen bytes. */
        if (bypassed && size > KiB)
            classes[class_count - 1] = size + size / 8;
    }
    CHECK(bypassed || classes[class_count - 1] == LARGEST_CLASS);
}

/* ---- zero bytes ---- */

static void zero(void)
{
    enum { COUNT = 100 };
    void *blocks[COUNT];
    for (int nth = 0; nth < COUNT; nth++) {
        forget_errno();
        blocks[nth] = nth % 3 == 0 ? malloc(0) : nth % 3 == 1 ? calloc(0, 7) : realloc(NULL, 0);
        KEEPS_ERRNO;
        CHECK(blocks[nth] != NULL);
        CHECK(is_aligned(blocks[nth], 16));
        for (int other = 0; other < nth; other++)
            CHECK(blocks[other] != blocks[nth]);
        size_t usable = malloc_usable_size(blocks[nth]);
        CHECK_FOR(bypassed || usable == (zero_is_usable ? 16u : 0u), "%zu", usable);
    }
    for (int nth = 0; nth < COUNT; nth++) {
        forget_errno();
        free(blocks[nth]);
        KEEPS_ERRNO;
    }
    /* One that grows, and one that stays nothing. */
    void *grown = good(realloc(malloc(0), 100), 100, 16);
    mark(grown, 100, 1);
    free(grown);
    free_sized(malloc(0), 0);
    CHECK(calloc(unknown(1) << 40, 0) != NULL);
    /* Aligned blocks of nothing have an address of their own as well. */
    for (size_t nth = 0; nth < WAYS; nth++) {
        void *one = ways[nth].allocate(0), *other = ways[nth].allocate(0);
        CHECK_FOR(one != NULL && other != NULL && one != other, "%s", ways[nth].name);
        CHECK_FOR(is_aligned(one, ways[nth].align) || !bypassed || nth == 0, "%s", ways[nth].name);
        free(one);
        free(other);
    }
    /* More than there are addresses for it. */
    enum { MANY = 70000 };
    static void *many[MANY];
    for (int nth = 0; nth < MANY; nth++)
        CHECK((many[nth] = malloc(0)) != NULL);
    for (int nth = 0; nth < MANY; nth++)
        free(many[nth]);
}

/* Touches it: dies, unless zero_size:usable. */
static void touch_zero(void)
{
    volatile char *block = malloc(0);
    *block = 1;
}

static void read_zero(void)
{
    volatile char *block = malloc(0);
    (void)*block;
}

/* ---- sizes ---- */

static void sizes(void)
{
    enum { MOST = 8192 };
    static unsigned char *blocks[MOST + 1];
    /* All at once, so that two that overlap would spoil each other's pattern. */
    for (size_t size = 1; size <= MOST; size++) {
        forget_errno();
        blocks[size] = malloc(size);
        KEEPS_ERRNO;
        good(blocks[size], size, 16);
        mark(blocks[size], malloc_usable_size(blocks[size]), (unsigned)size);
    }
    for (size_t size = 1; size <= MOST; size++) {
        size_t usable = malloc_usable_size(blocks[size]);
        CHECK_FOR(is_marked(blocks[size], usable, usable, (unsigned)size), "%zu bytes", size);
        forget_errno();
        free(blocks[size]);
        KEEPS_ERRNO;
    }
}

static void at_boundary(size_t boundary, unsigned seed)
{
    unsigned char *three[3];
    for (size_t nth = 0; nth < 3; nth++) {
        size_t size = boundary - 1 + nth;
        three[nth] = good(malloc(size), size, 16);
        mark(three[nth], malloc_usable_size(three[nth]), seed + (unsigned)nth);
    }
    for (size_t nth = 0; nth < 3; nth++) {
        size_t usable = malloc_usable_size(three[nth]);
        CHECK_FOR(is_marked(three[nth], usable, usable, seed + (unsigned)nth), "%zu bytes", boundary);
        free(three[nth]);
    }
}

static void boundaries(void)
{
    for (size_t nth = 0; nth < class_count; nth++)
        at_boundary(classes[nth], (unsigned)nth);
    for (size_t doubling = LARGEST_CLASS; doubling <= 64 * MiB; doubling *= 2)
        for (size_t eighth = 8; eighth < 16; eighth++)
            at_boundary(doubling / 8 * eighth, (unsigned)eighth);
}

static void powers(void)
{
    for (int power = 3; power <= 47; power++)
        for (size_t nth = 0; nth < 3; nth++) {
            size_t size = ((size_t)1 << power) - 1 + nth;
            errno = 0;
            unsigned char *block = malloc(size);
            if (block == NULL) {
                CHECK_FOR(errno == ENOMEM && power > 32, "%zu bytes", size);
                continue;
            }
            good(block, size, 16);
            block[0] = block[size / 2] = block[size - 1] = 1;
            free(block);
        }
}

static void reuse(void)
{
    /* What was written, freed and allocated again belongs to one owner. */
    enum { COUNT = 2000, ROUNDS = 60000 };
    static struct { unsigned char *block; size_t size; unsigned seed; } held[COUNT];
    uint64_t state = 88172645463325252u;
    for (unsigned round = 0; round < ROUNDS; round++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        size_t nth = state % COUNT, size = 1 + (state >> 20) % (state % 50 ? 600 : 40000);
        if (held[nth].block != NULL) {
            CHECK(is_marked(held[nth].block, held[nth].size, held[nth].size, held[nth].seed));
            free(held[nth].block);
        }
        held[nth].block = good(ways[(state >> 40) % WAYS].allocate(size), size, 16);
        held[nth].size = size;
        held[nth].seed = round;
        mark(held[nth].block, size, round);
    }
    for (size_t nth = 0; nth < COUNT; nth++)
        free(held[nth].block);
}

/* ---- sizes that nobody has ---- */

static void *refused(void *block)
{
    CHECK(block == NULL);
    CHECK(errno == ENOMEM);
    errno = 0;
    return block;
}

static void refuses(size_t size)
{
    unsigned char *kept = malloc(100);
    mark(kept, 100, 7);
    errno = 0;
    refused(malloc(size));
    refused(calloc(1, size));
    refused(calloc(size, 1));
    refused(realloc(NULL, size));
    refused(realloc(kept, size));
    refused(reallocarray(kept, size, 1));
    refused(aligned_alloc(64, size));
    refused(memalign(8192, size));
    refused(valloc(size));
    refused(pvalloc(size));
    void *place = kept;
    forget_errno();
    CHECK(posix_memalign(&place, 64, size) == ENOMEM);
    CHECK(place == kept);
    if (!bypassed)
        KEEPS_ERRNO;
    CHECK(is_marked(kept, 100, 100, 7));
    free(kept);
}

static void hopeless(void)
{
    for (size_t less = 0; less <= 8192; less++) {
        refuses(unknown(SIZE_MAX) - less);
        refuses(unknown(PTRDIFF_MAX) - less);
    }
    refuses((size_t)PTRDIFF_MAX + 1);
    /* A large block that would have to grow beyond all measure is as it was. */
    for (size_t size = KiB; size <= 16 * MiB; size *= 16) {
        unsigned char *kept = malloc(size);
        mark(kept, size, 3);
        errno = 0;
        refused(realloc(kept, unknown((size_t)1 << 62)));
        CHECK(is_marked(kept, size, size, 3));
        CHECK(malloc_usable_size(kept) >= size);
        free(kept);
    }
}

static void products(void)
{
    static const size_t half = (size_t)1 << 32;
    const struct { size_t count, size; } wrapping[] = {
        { half, half },                        /* 0 */
        { SIZE_MAX, SIZE_MAX },                /* 1 */
        { half + 1, half - 1 + 2 },            /* a little more than nothing */
        { (size_t)1 << 63, 2 },                /* 0 */
        { ((size_t)1 << 52) + 1, 4096 },       /* a page */
        { SIZE_MAX / 2 + 2, 2 },               /* 2 */
        { SIZE_MAX / 4096 + 2, 4096 },
        { 3, SIZE_MAX / 3 },                   /* just below 2^64 */
        { SIZE_MAX / 16, 16 },
        { 1, SIZE_MAX },
    };
    unsigned char *kept = malloc(100);
    mark(kept, 100, 9);
    for (size_t nth = 0; nth < sizeof wrapping / sizeof *wrapping; nth++) {
        size_t count = unknown(wrapping[nth].count), size = unknown(wrapping[nth].size);
        errno = 0;
        refused(calloc(count, size));
        refused(calloc(size, count));
        refused(reallocarray(kept, count, size));
        refused(reallocarray(NULL, size, count));
        CHECK(is_marked(kept, 100, 100, 9));
    }
    free(kept);
}

/* ---- alignments ---- */

static size_t resident(void)
{
    char text[256];
    FILE *file = fopen("/proc/self/statm", "r");
    size_t pages = 0;
    CHECK(file != NULL && fgets(text, sizeof text, file) != NULL && sscanf(text, "%*u %zu", &pages) == 1);
    fclose(file);
    return pages * 4 * KiB;
}

static void alignments(void)
{
    malloc_trim(0);
    size_t before = resident();
    for (size_t align = 1; align <= GiB; align *= 2) {
        const size_t of_align[] = { 1, align - 1, align, align + 1, 3 * align };
        for (size_t nth = 0; nth < 5; nth++) {
            size_t size = of_align[nth] == 0 ? 1 : of_align[nth];
            unsigned char *blocks[3] = { aligned_alloc(align, size), memalign(align, size), NULL };
            forget_errno();
            CHECK(posix_memalign((void **)&blocks[2], align < 8 ? 8 : align, size) == 0);
            KEEPS_ERRNO;
            for (int which = 0; which < 3; which++) {
                good(blocks[which], size, align);
                CHECK(bypassed || is_aligned(blocks[which], 16));
                blocks[which][0] = blocks[which][size - 1] = (unsigned char)(which + 1);
            }
            for (int which = 0; which < 3; which++) {
                CHECK(blocks[which][size - 1] == which + 1);
                if (which == 1)
                    free_aligned_sized(blocks[which], align, size);
                else
                    free(blocks[which]);
            }
        }
    }
    malloc_trim(0);
    size_t after = resident();
    CHECK_FOR(bypassed || after <= before + MiB, "%zu and then %zu bytes are resident", before, after);

    for (int power = 40; power <= 63; power++)
        for (size_t less = 0; less <= 64; less += 8) {
            size_t align = (size_t)1 << power, size = unknown(PTRDIFF_MAX) - less;
            errno = 0;
            refused(aligned_alloc(align, size));
            refused(memalign(align, size));
            void *place = &place;
            CHECK(posix_memalign(&place, align, size) == ENOMEM);
            CHECK(place == &place);
        }

    static const size_t odd[] = { 0, 3, 24, ((size_t)1 << 63) + 1, SIZE_MAX };
    for (size_t nth = 0; nth < sizeof odd / sizeof *odd; nth++) {
        size_t align = unknown(odd[nth]);
        errno = 0;
        CHECK_FOR(aligned_alloc(align, 64) == NULL && errno == EINVAL, "%zu: %d", align, errno);
        void *place = &place;
        forget_errno();
        CHECK(posix_memalign(&place, align, 64) == EINVAL);
        KEEPS_ERRNO;
        CHECK(place == &place);
    }
    void *place = &place;
    CHECK(posix_memalign(&place, unknown(4), 64) == EINVAL && place == &place);
    /* memalign rounds up what can be rounded. */
    free(good(memalign(unknown(0), 64), 64, 16));
    free(good(memalign(unknown(3), 64), 64, 16));
    free(good(memalign(unknown(24), 64), 64, 32));
    free(good(memalign(unknown(5000), 64), 64, 8192));
    errno = 0;
    CHECK(memalign(unknown(((size_t)1 << 63) + 1), 64) == NULL);
    CHECK_FOR(errno == EINVAL, "(errno is %d)", errno);

    static const size_t paged[] = { 0, 1, 4095, 4096, 4097, 100000, 3 * MiB };
    for (size_t nth = 0; nth < sizeof paged / sizeof *paged; nth++) {
        free(good(valloc(paged[nth]), paged[nth], 4096));
        size_t whole = paged[nth] == 0 ? 4096 : (paged[nth] + 4095) / 4096 * 4096;
        unsigned char *block = good(pvalloc(paged[nth]), bypassed && paged[nth] == 0 ? 0 : whole, 4096);
        mark(block, paged[nth], 1);
        free(block);
    }
    errno = 0;
    refused(valloc(unknown(SIZE_MAX) - 100));
    refused(pvalloc(unknown(SIZE_MAX) - 100));
}

/* ---- realloc ---- */

static void resizing(void)
{
    size_t list[600], count = 0;
    for (size_t nth = 0; nth < class_count; nth++)
        list[count++] = classes[nth];
    static const size_t beyond[] = { 300 * KiB, MiB, 2 * MiB, 2 * MiB + 1, 5 * MiB, 12 * MiB };
    for (size_t nth = 0; nth < sizeof beyond / sizeof *beyond; nth++)
        list[count++] = beyond[nth];
    for (size_t from = 0; from < count; from++)
        for (size_t to = 0; to < count; to++) {
            unsigned seed = (unsigned)(from * count + to);
            unsigned char *block = malloc(list[from]);
            mark(block, list[from], seed);
            forget_errno();
            unsigned char *resized = from % 2 ? realloc(block, list[to]) : reallocarray(block, list[to], 1);
            KEEPS_ERRNO;
            good(resized, list[to], 16);
            size_t both = list[from] < list[to] ? list[from] : list[to];
            CHECK_FOR(is_marked(resized, both, list[from], seed), "%zu to %zu", list[from], list[to]);
            resized[list[to] - 1] = 1;
            free(resized);
        }
    forget_errno();
    void *block = realloc(NULL, 100);
    KEEPS_ERRNO;
    CHECK(realloc(good(block, 100, 16), unknown(0)) == NULL);
    KEEPS_ERRNO;
    CHECK(reallocarray(malloc(100), unknown(0), 5) == NULL);
    CHECK(realloc(malloc(10 * MiB), unknown(0)) == NULL);
    KEEPS_ERRNO;
}

/* ---- calloc ---- */

static void dirty_then_zero(size_t size, int trims)
{
    enum { COUNT = 48 };
    unsigned char *blocks[COUNT];
    int count = size > MiB ? 2 : size > 16 * KiB ? 8 : COUNT;
    for (int nth = 0; nth < count; nth++) {
        blocks[nth] = malloc(size);
        memset(blocks[nth], 0xa5, malloc_usable_size(blocks[nth]));
    }
    /* Some stay, so that what is free lies in between. */
    for (int nth = 0; nth < count; nth++)
        if (nth % 4 != 3)
            free(blocks[nth]);
    if (trims)
        malloc_trim(0);
    for (int nth = 0; nth < count; nth++)
        if (nth % 4 != 3) {
            forget_errno();
            blocks[nth] = nth % 2 ? calloc(size, 1) : calloc(1, size);
            KEEPS_ERRNO;
            good(blocks[nth], size, 16);
            CHECK_FOR(is_zero(blocks[nth], size), "%zu bytes", size);
        }
    for (int nth = 0; nth < count; nth++)
        free(blocks[nth]);
}

static void zeroing(void)
{
    for (int trims = 0; trims < 2; trims++) {
        for (size_t nth = 0; nth < class_count; nth++)
            dirty_then_zero(classes[nth] - (size_t)trims, trims);
        for (size_t size = 256 * KiB + 1; size < 8 * MiB; size += size / 2)
            dirty_then_zero(size, trims);
    }
    /* Grown blocks are not zero by promise, but what calloc gives afterwards is. */
    unsigned char *grown = malloc(MiB);
    for (size_t size = MiB; size < 16 * MiB; size += MiB) {
        grown = realloc(grown, size);
        memset(grown, 0x5a, size);
    }
    free(grown);
    for (size_t size = MiB; size < 16 * MiB; size += 3 * MiB) {
        unsigned char *block = calloc(size, 1);
        CHECK(is_zero(block, size));
        free(block);
    }
}

/* ---- every function and every other ---- */

static void all_with_all(void)
{
    static const size_t some[] = { 1, 15, 16, 17, 24, 64, 100, 1000, 4096, 5000, 40000, 256 * KiB, 300 * KiB, 3 * MiB };
    for (size_t way = 0; way < WAYS; way++)
        for (size_t nth = 0; nth < sizeof some / sizeof *some; nth++) {
            size_t size = some[nth];
            for (int end = 0; end < 5; end++) {
                forget_errno();
                unsigned char *block = ways[way].allocate(size);
                KEEPS_ERRNO;
                good(block, size, ways[way].align);
                mark(block, size, 5);
                switch (end) {
                case 0:
                    free(block);
                    break;
                case 1:
                    cfree(block);
                    break;
                case 2:
                    block = good(realloc(block, size + size / 2 + 1), size + size / 2 + 1, 16);
                    CHECK(is_marked(block, size, size, 5));
                    free(block);
                    break;
                case 3:
                    block = good(reallocarray(block, (size + 1) / 2, 1), (size + 1) / 2, 16);
                    CHECK(is_marked(block, (size + 1) / 2, size, 5));
                    free(block);
                    break;
                case 4:
                    if (ways[way].align == 16)
                        free_sized(block, size);
                    else if (ways[way].allocate == pvalloc)
                        free(block);
                    else
                        free_aligned_sized(block, ways[way].align, size);
                    break;
                }
                KEEPS_ERRNO;
            }
        }
    forget_errno();
    free(NULL);
    cfree(NULL);
    free_sized(NULL, 100);
    /* A block that shrinks a little stays where it is. */
    static const size_t shrinks[][2] = { { 1024, 800 }, { 200, 160 }, { 60000, 50000 }, { 300000, 270000 }, { 30 * MiB, 29 * MiB } };
    for (size_t nth = 0; nth < sizeof shrinks / sizeof *shrinks; nth++)
        free_sized(realloc(malloc(shrinks[nth][0]), shrinks[nth][1]), shrinks[nth][1]);
    free_aligned_sized(NULL, 64, 100);
    CHECK(malloc_usable_size(NULL) == 0);
    KEEPS_ERRNO;
    /* Sizes below the alignment, or no multiple of it. */
    for (size_t align = 16; align <= 64 * KiB; align *= 2)
        for (size_t size = 1; size <= 3 * align; size += align / 2 + 1) {
            void *block = good(aligned_alloc(align, size), size, align);
            mark(block, size, 2);
            free(block);
        }
}

/* ---- glibc's knobs ---- */

static void knobs(void)
{
    CHECK(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1);
    CHECK(mallopt(M_TRIM_THRESHOLD, 1 << 20) == 1);
    CHECK(mallopt(M_ARENA_MAX, 2) == 1);
    CHECK(mallopt(M_MXFAST, 64) == 1);
    if (!bypassed) {
        CHECK(mallopt(M_PERTURB, 1) == 0);
        CHECK(mallopt(12345, 1) == 0);
    }
    forget_errno();
    malloc_trim(0);
    malloc_trim(unknown(SIZE_MAX));
    KEEPS_ERRNO;
    /* 1 says that there was something to give back, and then there is nothing. */
    void *large = malloc(10 * MiB);
    mark(large, 10 * MiB, 1);
    struct mallinfo2 with = mallinfo2();
    free(large);
    struct mallinfo2 without = mallinfo2();
    CHECK(bypassed || with.uordblks >= without.uordblks + 10 * MiB);
}

static const struct chapter {
    const char *name;
    void (*walk)(void);
    int is_fatal;
} chapters[] = {
    { "zero", zero, 0 },
    { "sizes", sizes, 0 },
    { "boundaries", boundaries, 0 },
    { "powers", powers, 0 },
    { "reuse", reuse, 0 },
    { "hopeless", hopeless, 0 },
    { "products", products, 0 },
    { "alignments", alignments, 0 },
    { "resizing", resizing, 0 },
    { "zeroing", zeroing, 0 },
    { "all_with_all", all_with_all, 0 },
    { "knobs", knobs, 0 },
    { "touch_zero", touch_zero, 1 },
    { "read_zero", read_zero, 1 },
};

int main(int count, char **arguments)
{
    const char *chosen = getenv("FREESTONE");
    bypassed = chosen != NULL && strstr(chosen, "bypass:1") != NULL;
    zero_is_usable = chosen != NULL && strstr(chosen, "zero_size:usable") != NULL;
    CHECK(FREESTONE(freestone_is_bypassed)() == bypassed);
    learn_classes();
    for (size_t nth = 0; nth < sizeof chapters / sizeof *chapters; nth++) {
        int is_chosen = count < 2 && !chapters[nth].is_fatal;
        for (int argument = 1; argument < count; argument++)
            is_chosen |= strcmp(arguments[argument], chapters[nth].name) == 0;
        if (is_chosen)
            chapters[nth].walk();
    }
    struct freestone_snapshot now = { .size = sizeof now };
    CHECK(FREESTONE(freestone_snapshot)(&now) == 0);
    CHECK(bypassed == (now.allocations == 0));
    CHECK(!bypassed || (now.live_bytes == 0 && now.frees == 0 && now.held_bytes == 0 && now.metadata_bytes == 0));
    puts("kept");
    return 0;
}
