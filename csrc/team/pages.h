/* pages.h - large pages for large memory: the kernels go through megabytes of packed weights every step, and each small page that
 * they enter costs a look-up and stops the prefetchers. */
#ifndef FR_PAGES_H
#define FR_PAGES_H
#if defined(__linux__)
#include <sys/mman.h>
#endif
#include <stddef.h>
#include <stdint.h>

enum { FR_LARGE_PAGE = 1 << 21 };

/* Ask for large pages in [p, p + size), which has not been written to yet. The system may decline. */
static inline void fr_ask_large_pages(void *p, ptrdiff_t size)
{
#if defined(MADV_HUGEPAGE)
    uintptr_t from = ((uintptr_t)p + FR_LARGE_PAGE - 1) & ~(uintptr_t)(FR_LARGE_PAGE - 1);
    uintptr_t to = ((uintptr_t)p + (uintptr_t)size) & ~(uintptr_t)(FR_LARGE_PAGE - 1);
    if (from < to)
        (void)madvise((void *)from, to - from, MADV_HUGEPAGE);
#else
    (void)p, (void)size;
#endif
}

#endif
