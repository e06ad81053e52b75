/* A plugin that allocates when it is loaded, when a thread ends that used it, and when it is unloaded. */
#include "check.h"

#ifdef TLS_BYTES
/* One that takes its part of what the dynamic linker has left over for thread-local memory of such plugins. */
__thread char much[TLS_BYTES] __attribute__((tls_model("initial-exec")));
char *plugin_uses(void)
{
    return much;
}
#else
static void *kept[64];

__attribute__((constructor)) static void loaded(void)
{
    for (size_t nth = 0; nth < 64; nth++)
        mark(kept[nth] = malloc(nth * 100 + 1), nth * 100 + 1, (unsigned)nth);
}

__attribute__((destructor)) static void unloaded(void)
{
    for (size_t nth = 0; nth < 64; nth++) {
        CHECK(is_marked(kept[nth], nth * 100 + 1, nth * 100 + 1, (unsigned)nth));
        free(kept[nth]);
    }
    free(malloc(12345));
}

/* A block for the program to free. */
void *plugin_gives(size_t size)
{
    return malloc(size);
}

/* And one of the program's. */
void plugin_takes(void *block)
{
    free(block);
}
#endif
