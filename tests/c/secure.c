/* Says whether this process runs with somebody else's rights, and whether FREESTONE is heard in it: an option that nobody knows is complained of,
 * and one that everybody knows has its effect. */
#include "check.h"
#include "freestone.h"

#include <sys/auxv.h>

int main(void)
{
    void *nothing = malloc(0);
    printf("secure=%lu usable=%d bypassed=%d\n", getauxval(AT_SECURE), malloc_usable_size(nothing) > 0,
           FREESTONE(freestone_is_bypassed)());
    return 0;
}
