/* What the programs of this folder share: a claim that ends the program with a line if it does not hold, and patterns to recognise blocks by. */
#ifndef CHECK_H
#define CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What glibc 2.36 does not have, or not any more. Weak: a program that is loaded after the library is linked without it. */
#ifdef __cplusplus
extern "C" {
#endif
__attribute__((weak)) void cfree(void *block);
__attribute__((weak)) void free_sized(void *block, size_t size);
__attribute__((weak)) void free_aligned_sized(void *block, size_t align, size_t size);
#ifdef __cplusplus
}
#endif

#define KiB ((size_t)1 << 10)
#define MiB ((size_t)1 << 20)
#define GiB ((size_t)1 << 30)

/* Ends the program unless the claim holds. The rest is a format that says for which numbers. Allocates nothing. */
#define CHECK_FOR(claim, ...)                                                      \
    do {                                                                           \
        if (!(claim)) {                                                            \
            dprintf(2, "%s:%d: not so: %s", __FILE_NAME__, __LINE__, #claim);      \
            dprintf(2, " " __VA_ARGS__);                                           \
            dprintf(2, "\n");                                                      \
            _exit(1);                                                              \
        }                                                                          \
    } while (0)
#define CHECK(claim) CHECK_FOR(claim, "(errno is %d)", errno)

/* Sizes that the compiler must not reason about. */
static inline size_t unknown(size_t size)
{
    volatile size_t there = size;
    return there;
}

/* A pointer that the compiler must not reason about. */
static inline void *unseen(const void *pointer)
{
    void *volatile there = (void *)(uintptr_t)pointer;
    return there;
}

/* The places of a block that are written and looked at: all of a small one; of a large one its ends and eight bytes in each KiB. */
static inline size_t next_place(size_t place, size_t size)
{
    if (size <= 8 * KiB || place % KiB < 7 || place + 64 >= size)
        return place + 1;
    size_t next = place - place % KiB + KiB;
    return next < size - 64 ? next : size - 64;
}

static inline unsigned char mark_of(size_t place, unsigned seed)
{
    return (unsigned char)(((place + 1) * 0x9e3779b9u + seed * 0x85ebca6bu) >> 13);
}

/* Writes a pattern that tells blocks with different seeds apart. */
static inline void mark(void *block, size_t size, unsigned seed)
{
    for (size_t place = 0; place < size; place = next_place(place, size))
        ((unsigned char *)block)[place] = mark_of(place, seed);
}

/* Is the pattern of a block of this size still there, in the first bytes of it? */
static inline int is_marked(const void *block, size_t first, size_t size, unsigned seed)
{
    for (size_t place = 0; place < first; place = next_place(place, size))
        if (((const unsigned char *)block)[place] != mark_of(place, seed))
            return 0;
    return 1;
}

static inline int is_zero(const void *block, size_t size)
{
    const unsigned char *bytes = (const unsigned char *)block;
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* The functions of freestone.h: linked, or found in the library that was loaded before the program. */
#ifdef FREESTONE_LINKED
#define FREESTONE(name) (name)
#else
#define FREESTONE(name) ((__typeof__(&name))dlsym(RTLD_DEFAULT, #name))
#endif

#endif
