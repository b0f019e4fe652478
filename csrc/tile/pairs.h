/* pairs.h - the sums of bf16.h with multiply-adds of float32. Few rows take pairs from memory, both sums of an output in registers; many
 * rows take panels that were widened to float32, one sum after the other. Included by bf16.h.
 */
#ifndef FR_PAIRS_H
#define FR_PAIRS_H

static ALWAYS_INLINE quad quad_even(const int nv, const quad *q)
{
    quad even = *q;
    even.v0 = v_even(q->v0);
    if (nv > 1)
        even.v1 = v_even(q->v1);
    if (nv > 2)
        even.v2 = v_even(q->v2);
    if (nv > 3)
        even.v3 = v_even(q->v3);
    return even;
}

static ALWAYS_INLINE quad quad_odd(const int nv, const quad *q)
{
    quad odd = *q;
    odd.v0 = v_odd(q->v0);
    if (nv > 1)
        odd.v1 = v_odd(q->v1);
    if (nv > 2)
        odd.v2 = v_odd(q->v2);
    if (nv > 3)
        odd.v3 = v_odd(q->v3);
    return odd;
}

/* even + odd is added to s. */
static ALWAYS_INLINE void quad_add_both(const int nv, REAL *s, const quad *even, const quad *odd)
{
    quad sum = *even;
    sum.v0 = sum.v0 + odd->v0;
    if (nv > 1)
        sum.v1 = sum.v1 + odd->v1;
    if (nv > 2)
        sum.v2 = sum.v2 + odd->v2;
    if (nv > 3)
        sum.v3 = sum.v3 + odd->v3;
    quad_add(nv, s, &sum);
}

/* Compilers would carry copies of the sums from block to block, on the stack. */
static ALWAYS_INLINE void keep_in_memory(REAL *s)
{
    __asm__ volatile("" : : "r"(s) : "memory");
}

/* What the products of zeros with zeros, which a short block leaves out, do to a sum: -0, a denormal that was flushed, becomes 0. */
static ALWAYS_INLINE void quad_add_zeros(const int nv, quad *q)
{
    q->v0 = q->v0 + v_zero();
    if (nv > 1)
        q->v1 = q->v1 + v_zero();
    if (nv > 2)
        q->v2 = q->v2 + v_zero();
    if (nv > 3)
        q->v3 = q->v3 + v_zero();
}

static ALWAYS_INLINE void quad_store(const int nv, REAL *to, const quad *q)
{
    v_store(to, q->v0);
    if (nv > 1)
        v_store(to + W, q->v1);
    if (nv > 2)
        v_store(to + 2 * W, q->v2);
    if (nv > 3)
        v_store(to + 3 * W, q->v3);
}

/* clang-format off */
#define FR_TERMS(r) const term *a##r = mr > r ? a[r] : a[0];
#define FR_NEXT_TERMS(r) if (mr > r) a##r += BLOCK;
#define FR_BEGIN_ODD(r) quad o##r = {v_zero(), v_zero(), v_zero(), v_zero()};
#define FR_ROW_PAIR(r) if (mr > r) { quad_fma(nv, v_set1(a##r[2 * k]), &even, &c##r); quad_fma(nv, v_set1(a##r[2 * k + 1]), &odd, &o##r); }
#define FR_STRIP_PAIR(r) \
    if (np > r) { \
        const quad b = quad_load(nv, panel + r * pstride + k * nv * W), even = quad_even(nv, &b), odd = quad_odd(nv, &b); \
        quad_fma(nv, x, &even, &c##r); \
        quad_fma(nv, y, &odd, &o##r); \
    }
#define FR_ADD_ZEROS(r) if (mr > r) quad_add_zeros(nv, &c##r);
#define FR_ADD_ZEROS_ODD(r) if (mr > r) quad_add_zeros(nv, &o##r);
#define FR_ADD_BOTH(r) if (mr > r) quad_add_both(nv, s + r * 4 * W, &c##r, &o##r);
#define FR_ROW_TERM(r) if (mr > r) quad_fma(nv, v_set1(a##r[2 * k]), &b, &c##r);
#define FR_ROW_TERM_ODD(r) if (mr > r) quad_fma(nv, v_set1(a##r[2 * k + 1]), &b, &c##r);
#define FR_ROW_PART(r) if (mr > r) { quad_store(nv, part + r * 4 * W, &c##r); c##r = (quad){v_zero(), v_zero(), v_zero(), v_zero()}; }
#define FR_ROW_WHOLE(r) if (mr > r) { const quad even = quad_load(nv, part + r * 4 * W); quad_add_both(nv, s + r * 4 * W, &even, &c##r); }
/* clang-format on */

/* The terms of a sum in blocks: how many, and the pairs of the last one that are not zeros. */
typedef struct {
    ptrdiff_t blocks, last;
} blocks_of;

static inline blocks_of blocks_for(ptrdiff_t K)
{
    const ptrdiff_t blocks = terms_of(K) / BLOCK;
    return (blocks_of){blocks, (K - (blocks - 1) * BLOCK + 1) / 2};
}

/* One pair of terms; clang-format would make them unreadable. */
/* clang-format off */
#define FR_PAIRS_STEP \
    { \
        const quad both = quad_load(nv, panel + k * nv * W), even = quad_even(nv, &both), odd = quad_odd(nv, &both); \
        FR_EACH_ROW(FR_ROW_PAIR) \
    }
#define FR_STRIP_STEP \
    { \
        const vec x = v_set1(row[2 * k]), y = v_set1(row[2 * k + 1]); \
        FR_EACH_ROW(FR_STRIP_PAIR) \
    }
#define FR_WIDE_STEP(from, DO) \
    { \
        quad b = quad_load(nv, wide + ((from) + k) * nv * W); \
        quad_pin(nv, &b); \
        FR_EACH_ROW(DO) \
    }
/* clang-format on */

/* A few rows by one panel of pairs from memory: both sums of each output in registers. */
static ALWAYS_INLINE void pairs_body(const int mr, const int nv, const term *const *a, const REAL *panel, blocks_of b, REAL *s)
{
    FR_EACH_ROW(FR_TERMS)
    for (; b.blocks > 0; b.blocks--, panel += PAIRS * nv * W) {
        FR_EACH_ROW(FR_BEGIN)
        FR_EACH_ROW(FR_BEGIN_ODD)
        if (b.blocks > 1 || b.last == PAIRS) {
            FR_UNROLL_FOUR
            for (ptrdiff_t k = 0; k < PAIRS; k++)
                FR_PAIRS_STEP
        } else {
            for (ptrdiff_t k = 0; k < b.last; k++)
                FR_PAIRS_STEP
            FR_EACH_ROW(FR_ADD_ZEROS)
            FR_EACH_ROW(FR_ADD_ZEROS_ODD)
        }
        FR_EACH_ROW(FR_ADD_BOTH)
        FR_EACH_ROW(FR_NEXT_TERMS)
    }
}

/* One row by np panels that stand pstride apart. */
static ALWAYS_INLINE void strip_body(const int np, const int nv, const term *row, const REAL *panel, ptrdiff_t pstride, blocks_of b, REAL *s)
{
    const int mr = np;
    for (; b.blocks > 0; b.blocks--, row += BLOCK, panel += PAIRS * nv * W) {
        FR_EACH_ROW(FR_BEGIN)
        FR_EACH_ROW(FR_BEGIN_ODD)
        if (b.blocks > 1 || b.last == PAIRS) {
            FR_UNROLL_FOUR
            for (ptrdiff_t k = 0; k < PAIRS; k++)
                FR_STRIP_STEP
        } else {
            for (ptrdiff_t k = 0; k < b.last; k++)
                FR_STRIP_STEP
            FR_EACH_ROW(FR_ADD_ZEROS)
            FR_EACH_ROW(FR_ADD_ZEROS_ODD)
        }
        FR_EACH_ROW(FR_ADD_BOTH)
    }
}

/* Many rows by some blocks of a panel that was widened, the even terms of a block before its odd ones: one sum after the other, so
 * that tiles are as high as those of float32. */
static ALWAYS_INLINE void wide_body(const int mr, const int nv, const term *const *a, const REAL *wide, blocks_of b, REAL *s)
{
    REAL part[8 * 4 * W];
    FR_EACH_ROW(FR_TERMS)
    for (; b.blocks > 0; b.blocks--, wide += BLOCK * nv * W) {
        const int whole = b.blocks > 1 || b.last == PAIRS;
        FR_EACH_ROW(FR_BEGIN)
        if (whole) {
            FR_UNROLL
            for (ptrdiff_t k = 0; k < PAIRS; k++)
                FR_WIDE_STEP(0, FR_ROW_TERM)
        } else {
            for (ptrdiff_t k = 0; k < b.last; k++)
                FR_WIDE_STEP(0, FR_ROW_TERM)
            FR_EACH_ROW(FR_ADD_ZEROS)
        }
        FR_EACH_ROW(FR_ROW_PART)
        if (whole) {
            FR_UNROLL
            for (ptrdiff_t k = 0; k < PAIRS; k++)
                FR_WIDE_STEP(PAIRS, FR_ROW_TERM_ODD)
        } else {
            for (ptrdiff_t k = 0; k < b.last; k++)
                FR_WIDE_STEP(PAIRS, FR_ROW_TERM_ODD)
            FR_EACH_ROW(FR_ADD_ZEROS)
        }
        FR_EACH_ROW(FR_ROW_WHOLE)
        FR_EACH_ROW(FR_NEXT_TERMS)
        keep_in_memory(s);
    }
}

/* Sums of both kinds that fit the registers, and rows. */
enum { PAIR_SUMS = STRIP == 16 ? 12 : STRIP / 2, FEW_ROWS = 4 };

#define FR_WIDE(mr, nv)                                                                                                     \
    static NOINLINE void wide_##mr##x##nv(const term *const *a, const REAL *wide, blocks_of blocks, REAL *s)                \
    {                                                                                                                       \
        if (mr <= MR##nv)                                                                                                   \
            wide_body(mr, nv, a, wide, blocks, s);                                                                          \
    }
FR_EACH_SHAPE(FR_WIDE)
#undef FR_WIDE

/* clang-format off */
#define FR_EACH_PAIRS(DO) \
    DO(1, 1) DO(2, 1) DO(3, 1) DO(4, 1) DO(1, 2) DO(2, 2) DO(3, 2) DO(4, 2) DO(1, 3) DO(2, 3) DO(3, 3) DO(4, 3) DO(1, 4) DO(2, 4) DO(3, 4)
#define FR_EACH_PAIR_STRIP(DO) DO(2, 2) DO(3, 2) DO(4, 2) DO(5, 2) DO(6, 2) DO(2, 3) DO(3, 3) DO(4, 3) DO(2, 4) DO(3, 4)
/* clang-format on */

#define FR_PAIRS_TILE(mr, nv)                                                                                               \
    static NOINLINE void pairs_##mr##x##nv(const term *const *a, const REAL *panel, blocks_of blocks, REAL *s)              \
    {                                                                                                                       \
        if (mr * nv <= PAIR_SUMS || mr == 1)                                                                                \
            pairs_body(mr, nv, a, panel, blocks, s);                                                                        \
    }
FR_EACH_PAIRS(FR_PAIRS_TILE)
#undef FR_PAIRS_TILE
#define FR_STRIP(np, nv)                                                                                                             \
    static NOINLINE void strip_##np##x##nv(const term *row, const REAL *panel, ptrdiff_t pstride, blocks_of blocks, REAL *s)         \
    {                                                                                                                                \
        if (np * nv <= PAIR_SUMS)                                                                                                    \
            strip_body(np, nv, row, panel, pstride, blocks, s);                                                                      \
    }
FR_EACH_PAIR_STRIP(FR_STRIP)
#undef FR_STRIP

/* How many panels one row takes at once at most. */
static inline int strip_panels(int nv)
{
    return nv == 4 ? PAIR_SUMS / 4 : nv == 3 ? PAIR_SUMS / 3 : nv == 2 ? PAIR_SUMS / 2 : 1;
}

/* Are there so few rows that they take pairs from memory? Others take widened panels. */
static inline int are_few(ptrdiff_t n, int nv)
{
    return n == 1 || (n <= FEW_ROWS && n * nv <= PAIR_SUMS);
}

static void few_rows(int n, int np, int nv, const term *const *a, const REAL *panel, ptrdiff_t pstride, blocks_of blocks, REAL *s)
{
    if (np > 1) {
        switch (FR_CASE(np, nv)) {
#define FR_STRIP(np, nv) \
    case FR_CASE(np, nv): \
        strip_##np##x##nv(a[0], panel, pstride, blocks, s); \
        return;
            FR_EACH_PAIR_STRIP(FR_STRIP)
#undef FR_STRIP
        }
        return;
    }
    switch (FR_CASE(n, nv)) {
#define FR_PAIRS_TILE(n, nv) \
    case FR_CASE(n, nv): \
        pairs_##n##x##nv(a, panel, blocks, s); \
        return;
        FR_EACH_PAIRS(FR_PAIRS_TILE)
#undef FR_PAIRS_TILE
    }
}

static void wide_tile(int n, int nv, const term *const *a, const REAL *wide, blocks_of blocks, REAL *s)
{
    switch (FR_CASE(n, nv)) {
#define FR_WIDE(n, nv) \
    case FR_CASE(n, nv): \
        wide_##n##x##nv(a, wide, blocks, s); \
        return;
        FR_EACH_SHAPE(FR_WIDE)
#undef FR_WIDE
    }
}

/* Blocks of a panel as float32, the even terms of a block before its odd ones. */
static void widen(REAL *wide, int nv, const REAL *panel, ptrdiff_t blocks)
{
    for (; blocks > 0; blocks--, wide += BLOCK * nv * W)
        for (ptrdiff_t i = 0; i < PAIRS * nv; i++, panel += W) {
            const vec pairs = v_load(panel);
            v_store(wide + i * W, v_even(pairs));
            v_store(wide + (PAIRS * nv + i) * W, v_odd(pairs));
        }
}

enum { PIECE_BLOCKS = 4 }; /* of a panel, which stay in the L1 while all rows go by */

/* n <= MAX_ROWS rows by one panel: widened already, or pairs, which are widened on the way. */
static void many_rows(int n, int nv, const term *const *a, const REAL *wide, const REAL *pairs, blocks_of all, REAL *s)
{
    REAL piece[PIECE_BLOCKS * BLOCK * 4 * W];
    const term *from[MAX_ROWS];
    const int count = (int)fr_ceil_div(n, tile_rows(nv)), rows = n / count, longer = n % count;
    for (int r = 0; r < n; r++)
        from[r] = a[r];
    for (ptrdiff_t some; all.blocks > 0; all.blocks -= some) {
        some = fr_min(all.blocks, PIECE_BLOCKS);
        const blocks_of b = {some, some < all.blocks ? PAIRS : all.last};
        if (pairs) {
            widen(piece, nv, pairs, some);
            pairs += some * PAIRS * nv * W;
        }
        for (int i = 0, r = 0; i < count; i++) { /* even tiles: 7 rows are 3 + 2 + 2, never 3 + 3 + 1 */
            const int mr = rows + (i < longer);
            wide_tile(mr, nv, from + r, pairs ? piece : wide, b, s + r * 4 * W);
            r += mr;
        }
        for (int r = 0; r < n; r++)
            from[r] += some * BLOCK;
        if (wide)
            wide += some * BLOCK * nv * W;
    }
}

/* Where a panel is once more, widened; NULL: nowhere. */
static inline REAL *wide_of(const tiles *t, const REAL *panel)
{
    return t->panels.wide ? t->panels.wide + 2 * (panel - t->panels.pairs) : NULL;
}
static inline void widen_panel(const tiles *t, int nv, const REAL *panel, ptrdiff_t K)
{
    if (t->panels.wide)
        widen(wide_of(t, panel), nv, panel, terms_of(K) / BLOCK);
}

/* n <= MAX_ROWS rows by np panels, one of the two being 1. s: [row or panel][4] vectors. */
static void tile(tiles *t, int n, int np, int nv, const term *const *a, const REAL *panel, ptrdiff_t pstride, ptrdiff_t K, REAL *s)
{
    if (are_few(n, nv))
        few_rows(n, np, nv, a, panel, pstride, blocks_for(K), s);
    else
        many_rows(n, nv, a, wide_of(t, panel), t->panels.wide ? NULL : panel, blocks_for(K), s);
}

#endif
