/* freestone.h: what a C or C++ program can ask of Freestone beyond malloc and free.
 *
 * Link with -lfreestone, or look the functions up with dlsym: under LD_PRELOAD they are there without being linked.
 * None of them allocates. All may be called from any thread, but not from a signal handler. */
#ifndef FREESTONE_H
#define FREESTONE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The allocator's accounts of one moment. Bytes are those of whole blocks, counts never fall.
 * live + thread_cached + depot + holes + dirty + metadata + lost_at_fork is what may be resident. */
struct freestone_snapshot {
    uint64_t size;               /* sizeof(struct freestone_snapshot): set it before the call */
    uint64_t allocations;        /* blocks ever allocated */
    uint64_t frees;              /* blocks ever freed */
    uint64_t allocated_bytes;    /* their bytes */
    uint64_t freed_bytes;        /* their bytes */
    uint64_t live_bytes;         /* in blocks that the program has */
    uint64_t thread_cached_bytes;/* in free blocks that threads keep for themselves */
    uint64_t depot_bytes;        /* in free blocks on their way between threads */
    uint64_t holes_bytes;        /* in free blocks between live ones */
    uint64_t dirty_bytes;        /* in free pages that still hold memory */
    uint64_t metadata_bytes;     /* the allocator's own */
    uint64_t lost_at_fork_bytes; /* what other threads had cached when this process was forked off */
    uint64_t released_bytes;     /* in pages that hold no memory */
    uint64_t held_bytes;         /* what limits count */
    uint64_t memory_limit;       /* the soft limit; 0: none */
    uint64_t hard_limit;         /* the hard limit; 0: none */
    uint64_t os_calls;           /* calls to the operating system for memory */
    uint64_t threads;            /* threads that have allocated and not ended */
    uint64_t background_thread;  /* 1: a thread of the allocator's own gives memory back */
    uint64_t approximate;        /* 1: some thread was busy all the time, so the numbers may not fit together exactly */
};

/* Fills in as much of it as `size` says. 0, or -1 and EINVAL for no size at all. 10 to 100 microseconds. */
int freestone_snapshot(struct freestone_snapshot *into);

/* Gives back all memory that no program and no other thread's cache has; says how many bytes that was. */
size_t freestone_release_to_os(void);

/* The soft limit on what the process has resident: memory is given back to stay below it, no allocation fails for it. 0: none. */
void freestone_set_memory_limit(size_t bytes);
size_t freestone_memory_limit(void);

/* The hard limit on what the heap holds: allocations that would pass it fail with ENOMEM. 0: none. */
void freestone_set_hard_limit(size_t bytes);
size_t freestone_hard_limit(void);

/* What the limits count: memory held for blocks, in use or not. A few loads. */
size_t freestone_held_bytes(void);

/* Empties the calling thread's cache, for threads that are about to wait for long. */
void freestone_thread_idle(void);

/* Changes options as the environment variable FREESTONE would have: "key:value,key:value". 0, or -1 and EINVAL if anything in it is not
 * understood, or is `bypass`, which cannot change any more; nothing is changed then. */
int freestone_configure(const char *options);

/* 1 if the system's allocator serves this program: FREESTONE=bypass:1. */
int freestone_is_bypassed(void);

/* The version, such as "0.1.0". Never freed. */
const char *freestone_version(void);

#ifdef __cplusplus
}
#endif

#endif
