/* memory.h - the blocks of one call, which are given back together. */
#ifndef FR_XLA_MEMORY_H
#define FR_XLA_MEMORY_H
#include <stdlib.h>

#include "team/pages.h"

enum { FR_MAX_BLOCKS = 16 };

typedef struct {
    void *blocks[FR_MAX_BLOCKS];
    int n;
    ptrdiff_t missing; /* size of the block that could not be had, or 0 */
} fr_arena;

/* A block on a cache line, or on a large page if it fills one; NULL, and `missing`, if there is none. */
static inline void *fr_arena_take(fr_arena *memory, ptrdiff_t size)
{
    void *block = NULL;
    size = size > 0 ? size : 1;
    if (posix_memalign(&block, size >= FR_LARGE_PAGE ? FR_LARGE_PAGE : 64, (size_t)size) != 0) {
        memory->missing = size;
        return NULL;
    }
    fr_ask_large_pages(block, size);
    return memory->blocks[memory->n++] = block;
}

static inline void fr_arena_free(fr_arena *memory)
{
    while (memory->n)
        free(memory->blocks[--memory->n]);
}

#endif
