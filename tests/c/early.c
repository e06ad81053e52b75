/* Allocates before main, in resolvers of indirect functions and in constructors, and after main, in handlers and destructors. Says what ran in which
 * order; tests/c_at_home.rs compares. */
#include "check.h"

#include "freestone.h"

#include <pthread.h>

static void say(const char *line)
{
    if (write(1, line, strlen(line)) < 0)
        _exit(2);
}

/* Some of everything. */
static void use_everything(void)
{
    unsigned char *blocks[40];
    for (size_t nth = 0; nth < 40; nth++) {
        size_t size = nth * nth * 211 + 1;
        blocks[nth] = nth % 2 ? malloc(size) : calloc(size, 1);
        CHECK(blocks[nth] != NULL && (nth % 2 || is_zero(blocks[nth], size)));
        mark(blocks[nth], size, (unsigned)nth);
        blocks[nth] = realloc(blocks[nth], 2 * size);
        CHECK(is_marked(blocks[nth], size, size, (unsigned)nth));
    }
    for (size_t nth = 0; nth < 40; nth++)
        free(blocks[nth]);
    void *aligned = NULL;
    CHECK(posix_memalign(&aligned, 4096, 3 * MiB) == 0);
    free(aligned);
    CHECK(malloc(0) != NULL);
}

/* A block of each time, freed at the end. */
static void *from_resolver, *from_constructor, *from_main;

#ifndef ALL_ARCHIVED
/* The dynamic linker asks here which function it shall be, while it puts the program together: the C library does not know of the process yet, and
 * nothing that is written survives but what malloc keeps. */
static int answer(void)
{
    return 42;
}
static int failure(void)
{
    return 0;
}
static int (*resolve(void))(void)
{
    char *one = malloc(100), *other = calloc(1, 100000);
    int is_well = one != NULL && other != NULL && other[99999] == 0;
    one[0] = one[99] = other[0] = 1;
    one = realloc(one, 5000);
    is_well = is_well && one != NULL && one[0] == 1 && one[99] == 1;
    free(other);
    free(one);
    from_resolver = malloc(77);
    return is_well && from_resolver != NULL ? answer : failure;
}
static int indirect(void) __attribute__((ifunc("resolve")));
#else
static int indirect(void)
{
    from_resolver = malloc(77);
    return 42;
}
#endif

__attribute__((constructor(101))) static void first_constructor(void)
{
    from_constructor = malloc(1234);
    use_everything();
    say("first constructor\n");
}

__attribute__((constructor)) static void last_constructor(void)
{
    use_everything();
    say("last constructor\n");
}

__attribute__((destructor)) static void destructor(void)
{
    use_everything();
    free(from_resolver);
    free(from_constructor);
    free(from_main);
    say("destructor\n");
}

static void at_the_end(void)
{
    use_everything();
    static int depth;
    if (++depth < 5)
        atexit(at_the_end);
    else
        say("handlers\n");
}

/* A thread that is still at work when main is over. */
static void *works_on(void *unused)
{
    for (;;)
        free(unseen(malloc(100)));
    return unused;
}

int main(void)
{
    CHECK(indirect() == 42);
#ifndef ALL_ARCHIVED
    /* The first allocation decided who serves, and knew what was asked for. */
    CHECK(FREESTONE(freestone_is_bypassed)() == (getenv("FREESTONE") != NULL));
#endif
    from_main = malloc(5000);
    atexit(at_the_end);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, works_on, NULL) == 0);
    use_everything();
    say("main\n");
    return 0;
}
