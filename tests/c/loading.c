/* Loads and unloads. Arguments: "plugin PATH": one that allocates, again and again; "library PATH": the library itself, into a program that has the
 * system's malloc; "library_late PATH PLUGIN": the same when plugins have used up the room for thread-local memory. Ends with "kept", or says
 * "refused" where the dynamic linker did. */
#include "check.h"
#include "freestone.h"

#include <pthread.h>
#include <sched.h>

static void plugin(const char *path)
{
    size_t live_before = 0;
    for (int round = 0; round < 300; round++) {
        void *loaded = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        CHECK_FOR(loaded != NULL, "%s", dlerror());
        void *(*gives)(size_t) = (void *(*)(size_t))dlsym(loaded, "plugin_gives");
        void (*takes)(void *) = (void (*)(void *))dlsym(loaded, "plugin_takes");
        CHECK(gives != NULL && takes != NULL);
        takes(malloc(100));
        free(gives(5000));
        CHECK(dlclose(loaded) == 0);
        size_t live = mallinfo2().uordblks;
        if (round == 10)
            live_before = live;
        CHECK_FOR(round < 10 || live == live_before, "%zu, then %zu bytes", live_before, live);
    }
}

static struct {
    void *(*malloc)(size_t);
    void *(*realloc)(void *, size_t);
    void (*free)(void *);
    size_t (*malloc_usable_size)(void *);
    int (*snapshot)(struct freestone_snapshot *);
} library;

static void use_library(void)
{
    struct freestone_snapshot before = { .size = sizeof before }, after = before;
    CHECK(library.snapshot(&before) == 0);
    void *blocks[200];
    for (size_t nth = 0; nth < 200; nth++) {
        blocks[nth] = library.malloc(nth * nth * 11 + 1);
        CHECK(blocks[nth] != NULL && library.malloc_usable_size(blocks[nth]) > nth * nth * 11);
        mark(blocks[nth], nth * nth * 11 + 1, (unsigned)nth);
        blocks[nth] = library.realloc(blocks[nth], nth * nth * 22 + 1);
        CHECK(is_marked(blocks[nth], nth * nth * 11 + 1, nth * nth * 11 + 1, (unsigned)nth));
    }
    for (size_t nth = 0; nth < 200; nth++)
        library.free(blocks[nth]);
    CHECK(library.snapshot(&after) == 0);
    CHECK(after.allocations >= before.allocations + 200);
    /* The program's own malloc is another one. */
    void *theirs = malloc(100);
    struct freestone_snapshot again = { .size = sizeof again };
    CHECK(library.snapshot(&again) == 0 && again.allocations == after.allocations);
    free(theirs);
}

static _Atomic int is_loaded;

/* A thread that was there before the library. */
static void *was_there_before(void *unused)
{
    free(malloc(100));
    while (!is_loaded)
        sched_yield();
    use_library();
    return unused;
}

static void *comes_later(void *block)
{
    use_library();
    library.free(block);
    return library.malloc(77);
}

static void *find(void *loaded, const char *name)
{
    void *found = dlsym(loaded, name);
    CHECK_FOR(found != NULL, "%s", name);
    return found;
}

static void load_library(const char *path, int may_be_refused)
{
    pthread_t before, later;
    CHECK(pthread_create(&before, NULL, was_there_before, NULL) == 0);
    void *loaded = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (loaded == NULL && may_be_refused) {
        CHECK(strstr(dlerror(), "static TLS") != NULL);
        puts("refused");
        exit(0);
    }
    CHECK_FOR(loaded != NULL, "%s", dlerror());
    library.malloc = (void *(*)(size_t))find(loaded, "malloc");
    library.realloc = (void *(*)(void *, size_t))find(loaded, "realloc");
    library.free = (void (*)(void *))find(loaded, "free");
    library.malloc_usable_size = (size_t (*)(void *))find(loaded, "malloc_usable_size");
    library.snapshot = (int (*)(struct freestone_snapshot *))find(loaded, "freestone_snapshot");
    CHECK(library.malloc != malloc);
    void *kept = library.malloc(1000);
    mark(kept, 1000, 1);
    use_library();
    is_loaded = 1;
    CHECK(pthread_join(before, NULL) == 0);

    /* Closed, and still there: its blocks are, and threads run its destructors. */
    CHECK(dlclose(loaded) == 0);
    CHECK(is_marked(kept, 1000, 1000, 1));
    use_library();
    CHECK(dlopen(path, RTLD_NOW | RTLD_NOLOAD) == loaded);
    for (int round = 0; round < 300; round++)
        CHECK(dlclose(dlopen(path, RTLD_LAZY)) == 0);
    void *from_thread = NULL;
    CHECK(pthread_create(&later, NULL, comes_later, library.malloc(55)) == 0);
    CHECK(pthread_join(later, &from_thread) == 0);
    library.free(from_thread);
    CHECK(is_marked(kept, 1000, 1000, 1));
    library.free(kept);
}

int main(int count, char **arguments)
{
    CHECK(count > 2);
    if (strcmp(arguments[1], "plugin") == 0) {
        plugin(arguments[2]);
    } else {
        /* Copies of one file are plugins of their own. */
        for (int nth = 3; nth < count; nth++)
            (void)dlopen(arguments[nth], RTLD_NOW);
        load_library(arguments[2], count > 3);
    }
    puts("kept");
    return 0;
}
