/* pack.h - weights and gradients, copied once into the order in which tiles read them. */
#ifndef FR_PACK_H
#define FR_PACK_H
#include "tile/tile.h"

/* A square block of W x W elements is transposed in registers, so that memory is read and written in whole vectors.
 *
 * In log2(W) rounds: at distance s, rows i and i + s exchange the lanes in which their index and that of the lane differ by s. */
#ifndef FR_SCALAR
#define FR_LOW(l, s) ((l) & (s) ? W + (l) - (s) : (l))
#define FR_HIGH(l, s) ((l) & (s) ? W + (l) : (l) + (s))
#if W == 2
#define FR_LANES(F, s) F(0, s), F(1, s)
#elif W == 4
#define FR_LANES(F, s) F(0, s), F(1, s), F(2, s), F(3, s)
#elif W == 8
#define FR_LANES(F, s) F(0, s), F(1, s), F(2, s), F(3, s), F(4, s), F(5, s), F(6, s), F(7, s)
#else
#define FR_LANES(F, s)                                                                                                            \
    F(0, s), F(1, s), F(2, s), F(3, s), F(4, s), F(5, s), F(6, s), F(7, s), F(8, s), F(9, s), F(10, s), F(11, s), F(12, s),       \
        F(13, s), F(14, s), F(15, s)
#endif
#define FR_EXCHANGE(s)                                                                                                            \
    for (int i = 0; i < W; i++)                                                                                                   \
        if (!(i & s)) {                                                                                                           \
            const vec low = __builtin_shufflevector(r[i], r[i + s], FR_LANES(FR_LOW, s));                                         \
            r[i + s] = __builtin_shufflevector(r[i], r[i + s], FR_LANES(FR_HIGH, s));                                             \
            r[i] = low;                                                                                                           \
        }

/* r[j] lane i = r[i] lane j */
static ALWAYS_INLINE void transpose_registers(vec *r)
{
#if W > 8
    FR_UNROLL_ALL
    FR_EXCHANGE(8)
#endif
#if W > 4
    FR_UNROLL_ALL
    FR_EXCHANGE(4)
#endif
#if W > 2
    FR_UNROLL_ALL
    FR_EXCHANGE(2)
#endif
    FR_UNROLL_ALL
    FR_EXCHANGE(1)
}
#undef FR_EXCHANGE
#undef FR_LANES
#undef FR_HIGH
#undef FR_LOW
#else
static ALWAYS_INLINE void transpose_registers(vec *r)
{
    (void)r;
}
#endif

/* dst[j*ldd + i] = src[i*lds + j] for i, j < W. */
static ALWAYS_INLINE void transpose_block(REAL *dst, ptrdiff_t ldd, const REAL *src, ptrdiff_t lds)
{
    vec r[W];
    FR_UNROLL_ALL
    for (int i = 0; i < W; i++)
        r[i] = v_load(src + i * lds);
    transpose_registers(r);
    FR_UNROLL_ALL
    for (int j = 0; j < W; j++)
        v_store(dst + j * ldd, r[j]);
}

/* dst[j*ldd + i] = src[i*lds + j] for i < rows, j < cols. */
static void transpose(REAL *dst, ptrdiff_t ldd, const REAL *src, ptrdiff_t lds, ptrdiff_t rows, ptrdiff_t cols)
{
    for (ptrdiff_t i = 0; i < rows; i += W) {
        ptrdiff_t j = 0;
        for (; i + W <= rows && j + W <= cols; j += W)
            transpose_block(dst + j * ldd + i, ldd, src + i * lds + j, lds);
        for (; j < cols; j++)
            for (ptrdiff_t k = i; k < fr_min(i + W, rows); k++)
                dst[j * ldd + k] = src[k * lds + j];
    }
}

/* Zeros in the lanes [from, W) of a vector that is repeated n times at a distance ld. */
static void clear_lanes(REAL *dst, ptrdiff_t ld, ptrdiff_t n, ptrdiff_t from)
{
    if (from == W)
        return;
    for (ptrdiff_t k = 0; k < n; k++)
        for (ptrdiff_t j = from; j < W; j++)
            dst[k * ld + j] = 0;
}

#endif
