/* plain.h - sums of products of REALs:
 *     s[r][v] += sum over k, in ascending order, of a[r][k] * panel[k][v]
 * one fused multiply-add at a time, SUM_TERMS terms at most; a longer sum is a sum of such sums, which keeps the rounding error of
 * float32 near that of a BLAS.
 *
 * s: rows of four vectors. panel: [k][nv] vectors. a[r][k]: element k of row r.
 */
#ifndef FR_PLAIN_H
#define FR_PLAIN_H
#include "tile/tile.h"

typedef REAL term;
static inline ptrdiff_t terms_of(ptrdiff_t K)
{
    return K;
}
static inline ptrdiff_t panel_rows(ptrdiff_t K)
{
    return K;
}
static inline ptrdiff_t distance_of_rows(ptrdiff_t K)
{
    return K;
}
FR_INLINE vec rounded(vec v) { return v; }
static inline void round_terms(term *to, const REAL *from, ptrdiff_t K)
{
    memcpy(to, from, K * sizeof(term));
}

/* One step over k: c[r] += a[r][k] * panel[k]. Whichever is fewer, rows or vectors, stays in registers while the other goes by. */
/* clang-format off */
#define FR_ROW(r) const REAL *a##r = mr > r ? a[r] : a[0];
#define FR_END(r) if (mr > r) quad_add(nv, s + r * 4 * W, &c##r);
#define FR_ROW_STEP(r) if (mr > r) quad_fma(nv, v_set1(a##r[k]), &b, &c##r);
#define FR_ROW_VALUE(r) vec x##r = v_zero(); if (mr > r) x##r = v_set1(a##r[k]);
#define FR_FMA_V0(r) if (mr > r) c##r.v0 = v_fma(x##r, b, c##r.v0);
#define FR_FMA_V1(r) if (mr > r) c##r.v1 = v_fma(x##r, b, c##r.v1);
#define FR_FMA_V2(r) if (mr > r) c##r.v2 = v_fma(x##r, b, c##r.v2);
#define FR_FMA_V3(r) if (mr > r) c##r.v3 = v_fma(x##r, b, c##r.v3);
#define FR_COLUMN_STEP(v, DO) if (nv > v) { vec b = v_load(panel + v * W); FR_EACH_ROW(DO) }
#define FR_STRIP_STEP(r) if (np > r) { quad b = quad_load(nv, panel + r * pstride); quad_fma(nv, x, &b, &c##r); }
/* clang-format on */

/* mr rows by one panel. */
static ALWAYS_INLINE void tile_body(const int mr, const int nv, const REAL *const *a, const REAL *panel,
                                          ptrdiff_t K, REAL *s)
{
    FR_EACH_ROW(FR_BEGIN)
    FR_EACH_ROW(FR_ROW)
    FR_UNROLL
    for (ptrdiff_t k = 0; k < K; k++) {
        if (mr < nv && mr == MR4) { /* a full tile has no registers left for a whole step of the panel */
            FR_EACH_ROW(FR_ROW_VALUE)
            FR_COLUMN_STEP(0, FR_FMA_V0)
            FR_COLUMN_STEP(1, FR_FMA_V1)
            FR_COLUMN_STEP(2, FR_FMA_V2)
            FR_COLUMN_STEP(3, FR_FMA_V3)
        } else {
            quad b = quad_load(nv, panel);
            quad_pin(nv, &b);
            FR_EACH_ROW(FR_ROW_STEP)
        }
        panel += nv * W;
    }
    FR_EACH_ROW(FR_END)
}

/* One row by np panels that stand pstride apart: at batch 1, accumulators of several panels hide the latency of the additions. */
static ALWAYS_INLINE void strip_body(const int np, const int nv, const REAL *row, const REAL *panel, ptrdiff_t pstride,
                                           ptrdiff_t K, REAL *s)
{
    const int mr = np;
    FR_EACH_ROW(FR_BEGIN)
    FR_UNROLL_FOUR
    for (ptrdiff_t k = 0; k < K; k++) {
        vec x = v_set1(row[k]);
        FR_EACH_ROW(FR_STRIP_STEP)
        panel += nv * W;
    }
    FR_EACH_ROW(FR_END)
}

/* clang-format off */
#define FR_EACH_STRIP(DO) \
    DO(2, 2) DO(3, 2) DO(4, 2) DO(5, 2) DO(6, 2) DO(7, 2) DO(8, 2) DO(2, 3) DO(3, 3) DO(4, 3) DO(5, 3) DO(2, 4) DO(3, 4) DO(4, 4)
/* clang-format on */

/* How many panels one row takes at once at most: STRIP additions in flight, twice what hides their latency. */
static inline int strip_panels(int nv)
{
    return nv == 4 ? STRIP / 4 : nv == 3 ? STRIP / 3 : nv == 2 ? STRIP / 2 : 1;
}

#define FR_TILE(mr, nv)                                                                                                           \
    static NOINLINE void tile_##mr##x##nv(const REAL *const *a, const REAL *panel, ptrdiff_t K, REAL *s)      \
    {                                                                                                                             \
        if (mr <= MR##nv)                                                                                                         \
            tile_body(mr, nv, a, panel, K, s);                                                                          \
    }
FR_EACH_SHAPE(FR_TILE)
#undef FR_TILE
#define FR_STRIP(np, nv)                                                                                                          \
    static NOINLINE void strip_##np##x##nv(const REAL *row, const REAL *panel, ptrdiff_t pstride, ptrdiff_t K, REAL *s)     \
    {                                                                                                                             \
        if (np * nv <= STRIP)                                                                                                     \
            strip_body(np, nv, row, panel, pstride, K, s);                                                                        \
    }
FR_EACH_STRIP(FR_STRIP)
#undef FR_STRIP

/* mr rows by np panels, one of the two being 1; K <= SUM_TERMS. s: [row or panel][4] vectors. */
static ALWAYS_INLINE void short_tile(int mr, int np, int nv, const REAL *const *a, const REAL *panel, ptrdiff_t pstride, ptrdiff_t K,
                       REAL *s)
{
    if (np > 1) {
        switch (FR_CASE(np, nv)) {
#define FR_STRIP(np, nv) \
    case FR_CASE(np, nv): \
        strip_##np##x##nv(a[0], panel, pstride, K, s); \
        return;
            FR_EACH_STRIP(FR_STRIP)
#undef FR_STRIP
        }
        return;
    }
    switch (FR_CASE(mr, nv)) {
#define FR_TILE(mr, nv) \
    case FR_CASE(mr, nv): \
        tile_##mr##x##nv(a, panel, K, s); \
        return;
        FR_EACH_SHAPE(FR_TILE)
#undef FR_TILE
    }
}

/* The same for any K and up to MAX_ROWS rows. A piece of the panel stays in the L1 while all rows go by. */
static void tile(tiles *unused, int n, int np, int nv, const REAL *const *a, const REAL *panel, ptrdiff_t pstride, ptrdiff_t K, REAL *s)
{
    (void)unused;
    if (n == 1) { /* a division takes as long as ten steps over k */
        const REAL *row = a[0];
        for (;; row += SUM_TERMS, panel += SUM_TERMS * nv * W, K -= SUM_TERMS) {
            short_tile(1, np, nv, &row, panel, pstride, fr_min(K, SUM_TERMS), s);
            if (K <= SUM_TERMS)
                return;
        }
    }
    const REAL *from[MAX_ROWS];
    const int tiles = (int)fr_ceil_div(n, tile_rows(nv)), rows = n / tiles, longer = n % tiles;
    for (int r = 0; r < n; r++)
        from[r] = a[r];
    for (;;) {
        ptrdiff_t k = fr_min(K, SUM_TERMS);
        for (int i = 0, r = 0; i < tiles; i++) { /* even tiles: 7 rows are 3 + 2 + 2, never 3 + 3 + 1 */
            int mr = rows + (i < longer);
            short_tile(mr, np, nv, from + r, panel, pstride, k, s + r * 4 * W);
            r += mr;
        }
        K -= k;
        if (K <= 0)
            return;
        for (int r = 0; r < n; r++)
            from[r] += k;
        panel += k * nv * W;
    }
}

#endif
