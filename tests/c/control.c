/* What freestone.h declares, function by function. Ends with "kept". */
#include "check.h"
#include "freestone.h"

static struct freestone_snapshot snapshot(void)
{
    struct freestone_snapshot now = { .size = sizeof now };
    CHECK(FREESTONE(freestone_snapshot)(&now) == 0);
    return now;
}

/* A program that was compiled against an older header asks for less, one that was compiled against a newer one for more. */
static void snapshots_of_all_sizes(void)
{
    struct {
        struct freestone_snapshot known;
        uint64_t more[4];
    } wide;
    for (size_t size = 8; size <= sizeof wide; size += 8) {
        memset(&wide, 0xa5, sizeof wide);
        wide.known.size = size;
        CHECK(FREESTONE(freestone_snapshot)(&wide.known) == 0);
        size_t known = size < sizeof wide.known ? size : sizeof wide.known;
        CHECK_FOR(wide.known.size == known, "%zu of %zu", (size_t)wide.known.size, size);
        for (size_t place = known; place < sizeof wide; place++)
            CHECK_FOR(((unsigned char *)&wide)[place] == 0xa5, "byte %zu, size %zu", place, size);
    }
    static const size_t wrong[] = { 0, 1, 7, 9, sizeof wide.known - 1 };
    for (size_t nth = 0; nth < sizeof wrong / sizeof *wrong; nth++) {
        memset(&wide, 0xa5, sizeof wide);
        wide.known.size = wrong[nth];
        errno = 0;
        CHECK(FREESTONE(freestone_snapshot)(&wide.known) == -1 && errno == EINVAL);
        CHECK(wide.known.allocations == 0xa5a5a5a5a5a5a5a5u);
    }
    errno = 0;
    CHECK(FREESTONE(freestone_snapshot)(NULL) == -1 && errno == EINVAL);
}

static void accounts(void)
{
    struct freestone_snapshot before = snapshot();
    size_t bytes = 0;
    void *blocks[100];
    for (size_t nth = 0; nth < 100; nth++)
        bytes += malloc_usable_size(blocks[nth] = malloc(nth * 5000 + 1));
    struct freestone_snapshot with = snapshot();
    for (size_t nth = 0; nth < 100; nth++)
        free(blocks[nth]);
    struct freestone_snapshot after = snapshot();
    CHECK(with.allocations == before.allocations + 100 && with.frees == before.frees);
    CHECK(with.allocated_bytes == before.allocated_bytes + bytes);
    CHECK(with.live_bytes == before.live_bytes + bytes);
    CHECK(with.live_bytes == with.allocated_bytes - with.freed_bytes);
    CHECK(after.frees == before.frees + 100 && after.allocations == with.allocations);
    CHECK(after.freed_bytes == before.freed_bytes + bytes);
    CHECK(after.live_bytes == before.live_bytes);
    CHECK(after.threads == 1 && after.background_thread == 0 && after.approximate == 0);
    CHECK(after.os_calls > 0 && after.os_calls >= before.os_calls);
    CHECK(after.held_bytes == FREESTONE(freestone_held_bytes)());
    CHECK(after.memory_limit == 0 && after.hard_limit == 0);
}

static void giving_back(void)
{
    enum { COUNT = 64 };
    void *blocks[COUNT];
    for (size_t nth = 0; nth < COUNT; nth++)
        mark(blocks[nth] = malloc(100 * KiB), 100 * KiB, 1);
    for (size_t nth = 0; nth < COUNT; nth++)
        free(blocks[nth]);
    struct freestone_snapshot before = snapshot();
    size_t released = FREESTONE(freestone_release_to_os)();
    struct freestone_snapshot after = snapshot();
    CHECK_FOR(released >= COUNT * 100 * KiB / 2, "%zu bytes", released);
    CHECK(after.held_bytes + released <= before.held_bytes + 64 * KiB);
    CHECK_FOR(FREESTONE(freestone_release_to_os)() == 0, "%zu bytes were released before", released);

    /* A thread's cache is emptied, and it can go on. */
    for (size_t nth = 0; nth < COUNT; nth++)
        blocks[nth] = malloc(64);
    for (size_t nth = 0; nth < COUNT; nth++)
        free(blocks[nth]);
    CHECK(snapshot().thread_cached_bytes > 0);
    FREESTONE(freestone_thread_idle)();
    CHECK_FOR(snapshot().thread_cached_bytes == 0, "%zu bytes", (size_t)snapshot().thread_cached_bytes);
    FREESTONE(freestone_thread_idle)();
    free(malloc(64));
}

static void limits(void)
{
    CHECK(FREESTONE(freestone_memory_limit)() == 0 && FREESTONE(freestone_hard_limit)() == 0);
    FREESTONE(freestone_set_memory_limit)(GiB);
    CHECK(FREESTONE(freestone_memory_limit)() == GiB && snapshot().memory_limit == GiB);
    FREESTONE(freestone_set_memory_limit)(0);
    CHECK(FREESTONE(freestone_memory_limit)() == 0);

    /* At the hard limit allocations of all sizes fail, and what is freed can be had again. */
    FREESTONE(freestone_set_hard_limit)(64 * MiB);
    CHECK(FREESTONE(freestone_hard_limit)() == 64 * MiB && snapshot().hard_limit == 64 * MiB);
    size_t had[3][2];
    static const size_t each[3] = { 1000, 100 * KiB, 3 * MiB };
    for (int round = 0; round < 2; round++)
        for (int kind = 0; kind < 3; kind++) {
            void **last = NULL;
            size_t count = 0;
            for (void **block; errno = 0, (block = malloc(each[kind])) != NULL; last = block, count++) {
                *block = last;
                CHECK(count * each[kind] <= 64 * MiB);
            }
            CHECK(errno == ENOMEM);
            errno = 0;
            CHECK(calloc(1, 8 * MiB) == NULL && errno == ENOMEM);
            CHECK(FREESTONE(freestone_held_bytes)() <= 64 * MiB);
            had[kind][round] = count;
            CHECK_FOR(count * each[kind] >= 48 * MiB, "%zu of %zu bytes", count, each[kind]);
            while (last != NULL) {
                void **next = *last;
                free(last);
                last = next;
            }
        }
    for (int kind = 0; kind < 3; kind++)
        CHECK_FOR(had[kind][1] * 10 >= had[kind][0] * 9, "%zu bytes: %zu and %zu", each[kind], had[kind][0], had[kind][1]);
    FREESTONE(freestone_set_hard_limit)(0);
    CHECK(FREESTONE(freestone_hard_limit)() == 0);
    void *large = malloc(100 * MiB);
    CHECK(large != NULL);
    free(large);
}

static int configures(const char *text)
{
    errno = 0;
    int answer = FREESTONE(freestone_configure)(text);
    CHECK_FOR(answer == 0 || (answer == -1 && errno == EINVAL), "%s: %d, %d", text, answer, errno);
    return answer == 0;
}

static void configuration(void)
{
    CHECK(configures(""));
    CHECK(configures("memory_limit:512MiB,retain:keep"));
    CHECK(FREESTONE(freestone_memory_limit)() == 512 * MiB);
    static const char *const wrong[] = {
        "memory_limit:1GiB,nonsense:1", "nonsense", "memory_limit:1GiB,retain:maybe", "memory_limit:1GiB,memory_limit:lots",
        "bypass:1", "memory_limit:1GiB,bypass:1", "bypass:maybe",
    };
    for (size_t nth = 0; nth < sizeof wrong / sizeof *wrong; nth++) {
        CHECK_FOR(!configures(wrong[nth]), "%s", wrong[nth]);
        CHECK_FOR(FREESTONE(freestone_memory_limit)() == 512 * MiB, "%s", wrong[nth]);
        CHECK(!FREESTONE(freestone_is_bypassed)());
    }
    CHECK(!configures(NULL));
    /* That it stays as it is may be said. */
    CHECK(configures("bypass:0"));
    CHECK(configures("memory_limit:none"));
    CHECK(FREESTONE(freestone_memory_limit)() == 0);
    /* In force at once, in both directions. */
    CHECK(configures("zero_size:usable"));
    *(volatile char *)malloc(0) = 1;
    CHECK(configures("zero_size:unusable"));
    CHECK(malloc_usable_size(malloc(0)) == 0);
    CHECK(configures("foreign:ignore"));
    free(unseen(&configuration));
    CHECK(configures("foreign:abort,retain:default"));
}

/* Where the system's allocator serves, everything can be called and says nothing. */
static void bypassed(void)
{
    free(malloc(100));
    CHECK(FREESTONE(freestone_is_bypassed)() == 1);
    struct freestone_snapshot now = snapshot(), nothing = { .size = sizeof nothing };
    CHECK(memcmp(&now, &nothing, sizeof now) == 0);
    CHECK(FREESTONE(freestone_release_to_os)() == 0);
    CHECK(FREESTONE(freestone_held_bytes)() == 0);
    FREESTONE(freestone_thread_idle)();
    CHECK(!configures("bypass:0"));
    CHECK(configures("bypass:1,retain:keep"));
    FREESTONE(freestone_set_hard_limit)(MiB);
    void *block = malloc(2 * MiB);
    CHECK(block != NULL);
    free(block);
}

int main(void)
{
    const char *version = FREESTONE(freestone_version)();
    CHECK_FOR(strcmp(version, VERSION) == 0, "%s", version);
    if (getenv("FREESTONE") != NULL) {
        bypassed();
    } else {
        CHECK(FREESTONE(freestone_is_bypassed)() == 0);
        snapshots_of_all_sizes();
        accounts();
        giving_back();
        limits();
        configuration();
    }
    puts("kept");
    return 0;
}
