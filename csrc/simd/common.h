/* common.h - what all kernels use of the compiler, and small arithmetic of sizes. */
#ifndef FR_COMMON_H
#define FR_COMMON_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#define FR_UNROLL _Pragma("GCC unroll 8") /* the next loop */
#define FR_UNROLL_FOUR _Pragma("GCC unroll 4")
#define FR_UNROLL_ALL _Pragma("GCC unroll 16")
#else
#define ALWAYS_INLINE inline
#define NOINLINE
#define FR_UNROLL
#define FR_UNROLL_FOUR
#define FR_UNROLL_ALL
#endif

static inline ptrdiff_t fr_min(ptrdiff_t a, ptrdiff_t b)
{
    return a < b ? a : b;
}
static inline ptrdiff_t fr_max(ptrdiff_t a, ptrdiff_t b)
{
    return a > b ? a : b;
}
static inline ptrdiff_t fr_ceil_div(ptrdiff_t a, ptrdiff_t b)
{
    return (a + b - 1) / b;
}
/* Bytes rounded up to whole cache lines. */
static inline ptrdiff_t fr_lines(ptrdiff_t bytes)
{
    return (bytes + 63) & ~(ptrdiff_t)63;
}
/* The part of n things, dealt in contiguous shares, at which member i of m begins. */
static inline ptrdiff_t fr_share(ptrdiff_t n, int i, int m)
{
    return n / m * i + fr_min(n % m, i);
}

#endif
