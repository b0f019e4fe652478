/* pack.h - weights and gradients, copied once into the order in which tiles read them. */

#ifndef FR_PACK_H
#define FR_PACK_H
#include "tile/tile.h"

#ifndef FR_SCALAR
typedef REAL four __attribute__((vector_size(4 * sizeof(REAL))));
typedef REAL four_anywhere __attribute__((vector_size(4 * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));

/* dst[j*ldd + i] = src[i*lds + j] for i, j < 4. */
static ALWAYS_INLINE void transpose4(REAL *dst, ptrdiff_t ldd, const REAL *src, ptrdiff_t lds)
{
    four a = *(const four_anywhere *)src, b = *(const four_anywhere *)(src + lds);
    four c = *(const four_anywhere *)(src + 2 * lds), d = *(const four_anywhere *)(src + 3 * lds);
    four ab0 = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab1 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    four cd0 = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd1 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(four_anywhere *)dst = __builtin_shufflevector(ab0, cd0, 0, 1, 4, 5);
    *(four_anywhere *)(dst + ldd) = __builtin_shufflevector(ab0, cd0, 2, 3, 6, 7);
    *(four_anywhere *)(dst + 2 * ldd) = __builtin_shufflevector(ab1, cd1, 0, 1, 4, 5);
    *(four_anywhere *)(dst + 3 * ldd) = __builtin_shufflevector(ab1, cd1, 2, 3, 6, 7);
}
#endif

/* Transposition of four rows at a time, so that a cache line that was fetched is used. dst[j*ldd + i] = src[i*lds + j]. */
static void transpose(REAL *dst, ptrdiff_t ldd, const REAL *src, ptrdiff_t lds, ptrdiff_t rows, ptrdiff_t cols)
{
    ptrdiff_t i = 0;
#ifndef FR_SCALAR
    for (; i + 4 <= rows; i += 4) {
        const REAL *s = src + i * lds;
        REAL *d = dst + i;
        ptrdiff_t j = 0;
        for (; j + 4 <= cols; j += 4)
            transpose4(d + j * ldd, ldd, s + j, lds);
        for (; j < cols; j++)
            for (ptrdiff_t r = 0; r < 4; r++)
                d[j * ldd + r] = s[r * lds + j];
    }
#endif
    for (; i < rows; i++)
        for (ptrdiff_t j = 0; j < cols; j++)
            dst[j * ldd + i] = src[i * lds + j];
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
