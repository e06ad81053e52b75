/* Does one wrong thing to a guarded block, or only right ones: sizes that blocks say they have, and all that may be done with so many bytes. */

#include <malloc.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE 8192

void free_sized(void *block, size_t size);
#pragma weak free_sized

/* Only guarded blocks say exactly what was asked for, when that is no size of a class. */
static int is_guarded(void *block, size_t size) { return malloc_usable_size(block) == size; }

/* One that lies at the upper end of its slot, or at the lower one. */
static unsigned char *guarded(size_t size, int is_upper) {
  for (int nth = 0; nth < 100000; nth++) {
    unsigned char *block = malloc(size);
    uintptr_t rest = ((uintptr_t)block + size) % PAGE;
    if (is_guarded(block, size) && (rest == 0 || rest > PAGE - 16) == is_upper) return block;
    free(block);
  }
  fprintf(stderr, "no block is guarded\n");
  exit(2);
}

static int right(void) {
  unsigned seed = 1;
  for (int nth = 0; nth < 20000; nth++) {
    seed = seed * 1103515245 + 12345;
    size_t size = 1 + (seed >> 8) % (nth % 4 ? 200 : 9000);
    unsigned char *block = nth % 3 ? malloc(size) : calloc(1, size);
    if ((uintptr_t)block % 16) return 3;
    memset(block, 7, malloc_usable_size(block));
    size_t more = size + (seed >> 20) % 100;
    block = realloc(block, more);
    if (block[0] != 7 || block[size - 1] != 7) return 4;
    memset(block, 8, malloc_usable_size(block));
    block = realloc(block, 1 + size / 2);
    if (block[0] != 8 || block[size / 2] != 8) return 5;
    memset(block, 9, malloc_usable_size(block));
    if (nth % 5 || !free_sized) free(block);
    else free_sized(block, 1 + size / 2);
    void *aligned = NULL;
    if (posix_memalign(&aligned, 64, size) || (uintptr_t)aligned % 64) return 6;
    memset(aligned, 1, malloc_usable_size(aligned));
    free(aligned);
  }
  return 0;
}

int main(int count, char **arguments) {
  const char *what = count > 1 ? arguments[1] : "";
  if (!strcmp(what, "right")) return right();
  volatile unsigned char *block;
  if (!strcmp(what, "overflow")) {
    block = guarded(160 - 16, 1);
    block[144] = 1;
  } else if (!strcmp(what, "underflow")) {
    block = guarded(100, 0);
    block[-1] = 1;
  } else if (!strcmp(what, "padding")) {
    block = guarded(100, 1);
    block[100] = 1;
    free((void *)block);
  } else {
    block = guarded(100, 1);
    if (!strcmp(what, "interior")) free((void *)(block + 16));
    if (!strcmp(what, "closed")) free((void *)(block + PAGE));
    if (!strcmp(what, "wrong-size")) free_sized((void *)block, 10);
    free((void *)block);
    if (!strcmp(what, "use-after-free")) return block[5];
    if (!strcmp(what, "double-free")) free((void *)block);
    if (!strcmp(what, "realloc-of-freed")) return realloc((void *)block, 200) != NULL;
    if (!strcmp(what, "usable-size-of-freed")) return (int)malloc_usable_size((void *)block);
  }
  puts("went on");
  return 1;
}
