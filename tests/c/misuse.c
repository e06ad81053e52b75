/* Does one wrong thing to malloc and its family, then behaves well for a while. Whether and when it dies is what tests/c_misuse.rs looks at.
 *
 * Arguments: what to do wrong, block size. Says "done wrong" after the act, "went on" after a thousand innocent operations, "all back" after
 * everything idle went back to the shared rooms. */
#include "check.h"

#include <sys/mman.h>

static void say(const char *line)
{
    if (write(1, line, strlen(line)) < 0)
        _exit(2);
}

static void pairs(size_t size, int count)
{
    for (int nth = 0; nth < count; nth++)
        free(unseen(malloc(size)));
}

static void *own_mapping(void)
{
    return mmap(NULL, 64 * KiB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void *unmapped(void)
{
    void *gone = own_mapping();
    munmap(gone, 64 * KiB);
    return gone;
}

static void free_twice(void *block)
{
    free(block);
    free(unseen(block));
}

/* An address that nobody rightly has, by name. */
static void *foreign(const char *what)
{
    static long in_the_program[8];
    if (strcmp(what, "static") == 0)
        return in_the_program;
    if (strcmp(what, "literal") == 0)
        return unseen((const void *)(((uintptr_t) "a text of some length, so that there is a multiple of sixteen in it" + 15) & ~(uintptr_t)15));
    if (strcmp(what, "function") == 0)
        return (void *)((uintptr_t)foreign & ~(uintptr_t)15);
    if (strcmp(what, "mapping") == 0)
        return own_mapping();
    if (strcmp(what, "unmapped") == 0)
        return unmapped();
    if (strcmp(what, "break") == 0)
        return sbrk(4096);
    if (strcmp(what, "wild") == 0)
        return (void *)0x123456789ab0;
    if (strcmp(what, "small") == 0)
        return (void *)0x10;
    if (strcmp(what, "kernel") == 0)
        return (void *)0xffff888000001000;
    if (strcmp(what, "non-canonical") == 0)
        return (void *)0x0dead00000001000;
    return NULL;
}

static int misuse(const char *what, size_t size)
{
    /* Neighbours on both sides, so that addresses near the block are in use. */
    char *neighbours[20];
    for (int nth = 0; nth < 20; nth++)
        neighbours[nth] = malloc(size);
    char *block = unseen(malloc(size));
    for (int nth = 0; nth < 20; nth++)
        (void)unseen(malloc(size));
    char on_the_stack[64] __attribute__((aligned(16)));

    if (strcmp(what, "nothing") == 0) {
        free(block);
    } else if (strcmp(what, "double-at-once") == 0) {
        free_twice(block);
    } else if (strcmp(what, "double-one-between") == 0) {
        free(block);
        free(neighbours[7]);
        free(unseen(block));
    } else if (strcmp(what, "double-after-a-million") == 0) {
        free(block);
        pairs(size, 1000000);
        free(unseen(block));
    } else if (strcmp(what, "interior") == 0) {
        free(unseen(block + 16));
    } else if (strcmp(what, "plus-one") == 0) {
        free(unseen(block + 1));
    } else if (strcmp(what, "minus-one") == 0) {
        free(unseen(block - 1));
    } else if (strcmp(what, "stack") == 0) {
        free(unseen(on_the_stack));
    } else if (strcmp(what, "realloc-of-freed") == 0) {
        free(block);
        (void)unseen(realloc(unseen(block), 2 * size));
    } else if (strcmp(what, "usable-size-of-freed") == 0) {
        free(block);
        (void)malloc_usable_size(unseen(block));
    } else if (strcmp(what, "usable-size-of-interior") == 0) {
        (void)malloc_usable_size(unseen(block + 16));
    } else if (strcmp(what, "realloc-of-interior") == 0) {
        (void)unseen(realloc(unseen(block + 16), 2 * size));
    } else if (strcmp(what, "double-of-nothing") == 0) {
        free_twice(malloc(0));
    } else if (strcmp(what, "realloc-of-freed-nothing") == 0) {
        void *nothing = malloc(0);
        free(nothing);
        (void)unseen(realloc(unseen(nothing), size));
    } else if (strcmp(what, "inside-nothing") == 0) {
        free(unseen((char *)malloc(0) + 8));
    } else if (strcmp(what, "double-aligned") == 0) {
        free_twice(aligned_alloc(GiB, size));
    } else if (strcmp(what, "never-handed-out") == 0) {
        /* A class of which the program has one block: what lies behind it nobody has. */
        char *only = malloc(size / 2 + size / 4);
        free(unseen(only + malloc_usable_size(only)));
    } else if (strcmp(what, "sized-too-small") == 0) {
        free_sized(block, size / 2);
    } else if (strcmp(what, "sized-too-large") == 0) {
        free_sized(block, size * 2);
    } else if (strcmp(what, "sized-same-class") == 0) {
        free_sized(block, malloc_usable_size(block));
    } else if (strcmp(what, "sized-other-align") == 0) {
        free_aligned_sized(block, 4 * size, size);
    } else {
        void *wrong = foreign(what);
        if (wrong == NULL)
            return 0;
        free(wrong);
    }
    return 1;
}

/* With foreign:ignore nothing happens to any of these. */
static void ignored(void)
{
    static const char *const all[] = {
        "static", "literal", "function", "mapping", "unmapped", "break", "wild", "small", "kernel", "non-canonical",
    };
    for (size_t nth = 0; nth < sizeof all / sizeof *all; nth++) {
        void *wrong = foreign(all[nth]);
        errno = 4711;
        free(wrong);
        cfree(wrong);
        free_sized(wrong, 64);
        free_aligned_sized(wrong, 64, 64);
        CHECK_FOR(malloc_usable_size(wrong) == 0, "%s", all[nth]);
        CHECK(errno == 4711);
        CHECK_FOR(realloc(wrong, 100) == NULL && errno == ENOMEM, "%s", all[nth]);
        CHECK_FOR(realloc(wrong, MiB) == NULL, "%s", all[nth]);
        CHECK_FOR(realloc(wrong, unknown(0)) == NULL, "%s", all[nth]);
    }
}

/* A thousand operations in an order in which every free block is on top now and then, and below another one now and then. */
static void go_on(size_t size)
{
    for (int nth = 0; nth < 167; nth++) {
        void *one = unseen(malloc(size)), *two = unseen(malloc(size));
        free(one);
        void *three = unseen(malloc(size));
        free(two);
        free(three);
    }
}

int main(int count, char **arguments)
{
    if (count == 2 && strcmp(arguments[1], "ignored") == 0) {
        ignored();
        return 0;
    }
    size_t size = count == 3 ? strtoul(arguments[2], NULL, 10) : 0;
    if (size == 0 || !misuse(arguments[1], size)) {
        say("usage: misuse WHAT SIZE\n");
        return 2;
    }
    say("done wrong\n");
    go_on(size);
    go_on(size / 2);
    go_on(size / 2 + size / 4);
    say("went on\n");
    malloc_trim(0);
    say("all back\n");
    return 0;
}
