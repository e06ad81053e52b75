/* Threads end in every way there is, each with blocks in its cache and destructors that allocate. Argument: how many of each kind. Ends with
 * "kept". */
#include "check.h"

#include <pthread.h>
#include <sched.h>

enum { ROUNDS = 4 }; /* PTHREAD_DESTRUCTOR_ITERATIONS */

static pthread_key_t keys[3];
static _Atomic int destructions;

static void use(unsigned seed)
{
    void *blocks[50];
    for (unsigned nth = 0; nth < 50; nth++) {
        size_t size = 1 + (seed * 31 + nth * nth * 7) % 9000;
        blocks[nth] = malloc(size);
        CHECK(blocks[nth] != NULL);
        mark(blocks[nth], size, nth);
    }
    for (unsigned nth = 0; nth < 50; nth++)
        free(blocks[nth]);
}

/* Runs in every round there is: it sets its value again. What it has from the round before it frees. */
static void destroy(pthread_key_t key, void *value)
{
    free(value);
    use((unsigned)destructions);
    destructions++;
    CHECK(pthread_setspecific(key, malloc(100 + (size_t)destructions % 5000)) == 0);
}
static void destroy_0(void *value) { destroy(keys[0], value); }
static void destroy_1(void *value) { destroy(keys[1], value); }
static void destroy_2(void *value) { destroy(keys[2], value); }

static void *returns(void *seed)
{
    for (int nth = 0; nth < 3; nth++)
        pthread_setspecific(keys[nth], malloc(10));
    use((unsigned)(uintptr_t)seed);
    return malloc(33);
}

static void *exits(void *seed)
{
    pthread_exit(returns(seed));
}

/* A thread whose only deed is to free what another one has, when its own keys are gone. */
static void *only_frees(void *block)
{
    free(block);
    return malloc(33);
}

static void free_it(void *block)
{
    free(block);
}

static _Atomic int is_ready;

/* Cancelled while it allocates: goes on to where it asks for it, because nothing of malloc is a point of cancellation. */
static void *is_cancelled(void *seed)
{
    void *kept = malloc(1000);
    pthread_cleanup_push(free_it, kept);
    returns(seed);
    is_ready = 1;
    for (unsigned nth = 0; nth < 200; nth++)
        use(nth);
    is_ready = 2;
    for (;;) {
        use(1);
        pthread_testcancel();
    }
    pthread_cleanup_pop(1);
    return NULL;
}

/* Cancelled anywhere while it computes, which is all that a thread may do that can be cancelled anywhere. */
static void *is_cancelled_anywhere(void *seed)
{
    void *kept = malloc(1000);
    pthread_cleanup_push(free_it, kept);
    returns(seed);
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    is_ready = 2;
    for (;;)
        (void)unknown(1);
    pthread_cleanup_pop(1);
    return NULL;
}

int main(int count, char **arguments)
{
    unsigned times = count > 1 ? (unsigned)atoi(arguments[1]) : 20;
    CHECK(pthread_key_create(&keys[0], destroy_0) == 0);
    CHECK(pthread_key_create(&keys[1], destroy_1) == 0);
    CHECK(pthread_key_create(&keys[2], destroy_2) == 0);
    for (unsigned nth = 0; nth < times; nth++) {
        void *(*const kinds[])(void *) = { returns, exits, is_cancelled, is_cancelled_anywhere, only_frees };
        for (unsigned kind = 0; kind < 5; kind++) {
            int before = destructions;
            pthread_t thread;
            is_ready = 0;
            void *argument = kind == 4 ? malloc(200) : (void *)(uintptr_t)nth;
            CHECK(pthread_create(&thread, NULL, kinds[kind], argument) == 0);
            if (kind == 2 || kind == 3) {
                while (is_ready < (kind == 2 ? 1 : 2))
                    sched_yield();
                CHECK(pthread_cancel(thread) == 0);
            }
            void *result = NULL;
            CHECK(pthread_join(thread, &result) == 0);
            if (kind == 2 || kind == 3) {
                CHECK(result == PTHREAD_CANCELED);
                CHECK(is_ready == 2);
            } else {
                CHECK(result != NULL);
                free(result);
            }
            CHECK_FOR(destructions - before == (kind == 4 ? 0 : 3 * ROUNDS), "%d", destructions - before);
        }
    }
    puts("kept");
    return 0;
}
