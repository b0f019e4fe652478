/* tile.h - the register tile: every product with packed weights ends here; direct.h has those with weights as they lie.
 *
 * A tile is up to MR<nv> rows by a panel of nv <= 4 vectors of outputs; rows come in groups of up to MAX_ROWS, which are tiles one below
 * the other. plain.h has the sums of float32 and float64, bf16.h those of bfloat16 operands. An element's bits depend on its own row and
 * column alone: not on the rows beside it, not on the vector width.
 *
 *     terms_of(K)     the terms that an operand of K has in a row: more where sums take them in blocks
 *     panel_rows(K)   the rows of its panels
 *     term            one of them
 */
#ifndef FR_TILE_H
#define FR_TILE_H
#include "simd/simd.h"
#ifdef FR_AMX
enum { MAX_ROWS = 32 }; /* two registers */
#else
enum { MAX_ROWS = 36 }; /* whole tiles of 3, 4 and 6 rows; with them a piece of a panel and its scratch fit the L1 */
#endif

/* Panels of bfloat16, without AMX: those from `pairs` on stand from `wide` on once more, widened. */
typedef struct {
    const REAL *pairs;
    REAL *wide; /* or NULL */
} widened;

/* What a thread keeps from one tile to the next. Of AMX's registers: for how many rows they are set, 0 for none; and, where they are
 * memory, the registers themselves. */
typedef struct {
    widened panels;
    int rows;
#ifdef FR_AMX_IN_C
    uint8_t of[8][16][64];
    int rows_of[8], bytes_of[8];
#endif
} tiles;

#if FR_BF16_PRODUCTS && !defined FR_AMX
enum { WIDENS = 1 };
#else
enum { WIDENS = 0 };
static inline void widen_panel(const tiles *t, int nv, const REAL *panel, ptrdiff_t K)
{
    (void)t, (void)nv, (void)panel, (void)K;
}
static inline int are_few(ptrdiff_t n, int nv)
{
    (void)n, (void)nv;
    return 1;
}
#endif
#ifndef FR_AMX
static inline void release_tiles(tiles *t)
{
    (void)t;
}
#endif

/* Named vectors, not an array: compilers keep these in registers. */
typedef struct {
    vec v0, v1, v2, v3;
} quad;

static ALWAYS_INLINE quad quad_load(const int nv, const REAL *p)
{
    quad q = {v_load(p), v_zero(), v_zero(), v_zero()};
    if (nv > 1)
        q.v1 = v_load(p + W);
    if (nv > 2)
        q.v2 = v_load(p + 2 * W);
    if (nv > 3)
        q.v3 = v_load(p + 3 * W);
    return q;
}

/* Have the four in registers here: folded into the additions, these loads are scheduled worse. */
static ALWAYS_INLINE void quad_pin(const int nv, quad *q)
{
    v_pin(q->v0);
    if (nv > 1)
        v_pin(q->v1);
    if (nv > 2)
        v_pin(q->v2);
    if (nv > 3)
        v_pin(q->v3);
}

static ALWAYS_INLINE void quad_add(const int nv, REAL *p, const quad *q)
{
    v_store(p, v_load(p) + q->v0);
    if (nv > 1)
        v_store(p + W, v_load(p + W) + q->v1);
    if (nv > 2)
        v_store(p + 2 * W, v_load(p + 2 * W) + q->v2);
    if (nv > 3)
        v_store(p + 3 * W, v_load(p + 3 * W) + q->v3);
}

static ALWAYS_INLINE void quad_fma(const int nv, vec a, const quad *b, quad *c)
{
    c->v0 = v_fma(a, b->v0, c->v0);
    if (nv > 1)
        c->v1 = v_fma(a, b->v1, c->v1);
    if (nv > 2)
        c->v2 = v_fma(a, b->v2, c->v2);
    if (nv > 3)
        c->v3 = v_fma(a, b->v3, c->v3);
}

/* clang-format off */
#define FR_EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)
#define FR_BEGIN(r) quad c##r = {v_zero(), v_zero(), v_zero(), v_zero()};
#define FR_EACH_SHAPE(DO) \
    DO(1, 1) DO(2, 1) DO(3, 1) DO(4, 1) DO(5, 1) DO(6, 1) DO(7, 1) DO(8, 1) \
    DO(1, 2) DO(2, 2) DO(3, 2) DO(4, 2) DO(5, 2) DO(6, 2) DO(7, 2) DO(8, 2) \
    DO(1, 3) DO(2, 3) DO(3, 3) DO(4, 3) DO(5, 3) DO(6, 3) DO(7, 3) DO(8, 3) \
    DO(1, 4) DO(2, 4) DO(3, 4) DO(4, 4) DO(5, 4) DO(6, 4) DO(7, 4) DO(8, 4)
#define FR_CASE(n, nv) ((nv) * 16 + (n))
/* clang-format on */

/* The most rows of a tile for a panel of nv vectors. */
static inline int tile_rows(int nv)
{
    return nv == 4 ? MR4 : nv == 3 ? MR3 : nv == 2 ? MR2 : MR1;
}

/* The most terms of a plain sum. The weights' gradients are sums over so many items or a few more, whatever their operands. */
enum { SUM_TERMS = 128 };

#if FR_BF16_PRODUCTS
#include "tile/bf16.h"
#else
#include "tile/plain.h"
#endif

/* Panel p of packed weights: K terms of nv vectors each. */
static inline const REAL *panel_at(const REAL *panels, ptrdiff_t p, int nv, ptrdiff_t K)
{
    return panels + p * nv * W * panel_rows(K);
}

/* The vectors of panel p, of four, where outputs are `vectors` in all: fewer in the last panel. */
static inline int panel_vectors(ptrdiff_t vectors, ptrdiff_t p)
{
    return (int)fr_min(4, vectors - p * 4);
}

#endif
