/* pack.h - weights and gradients, copied once into the order in which tiles read them. */
#ifndef FR_PACK_H
#define FR_PACK_H
#include "tile/tile.h"

/* A square block of W x W elements is transposed on its way from memory to registers, in pieces of 16 bytes. Loads put halves of two rows
 * side by side, which costs no shuffle; where a vector has four pieces, one round brings pieces to their vectors; within the pieces, two
 * rounds of interleaving are left, or one of doubles. */
#define REAL_BYTES (REAL_IS_FLOAT ? 4 : 8)
#ifdef FR_SCALAR
enum { PIECE = 1, PIECES = 1 };
#else
enum { PIECE = 16 / REAL_BYTES, PIECES = W / PIECE };
#if W == 2
#define FR_LANES(F) F(0), F(1)
#elif W == 4
#define FR_LANES(F) F(0), F(1), F(2), F(3)
#elif W == 8
#define FR_LANES(F) F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7)
#else
#define FR_LANES(F) F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7), F(8), F(9), F(10), F(11), F(12), F(13), F(14), F(15)
#endif
/* Of two vectors of four pieces: the even pieces, the odd ones. */
#define FR_EVEN(l) ((l) / PIECE / 2 * W + (l) / PIECE % 2 * 2 * PIECE + (l) % PIECE)
#define FR_ODD(l) (FR_EVEN(l) + PIECE)
/* Of two vectors: elements in turns, or pairs of them; the lower and the upper half of each piece. */
#define FR_SINGLES(l) ((l) / PIECE * PIECE + (l) % PIECE / 2 + (l) % 2 * W)
#define FR_SINGLES_UP(l) (FR_SINGLES(l) + PIECE / 2)
#define FR_PAIRS(l) ((l) / 4 * 4 + (l) % 2 + (l) % 4 / 2 * W)
#define FR_PAIRS_UP(l) (FR_PAIRS(l) + 2)
#if defined __clang__ || __GNUC__ >= 12
#define FR_MERGE(a, b, F) __builtin_shufflevector(a, b, FR_LANES(F))
#else
#define FR_MERGE(a, b, F) __builtin_shuffle(a, b, (ivec){FR_LANES(F)})
#endif

/* PIECE vectors: element j of piece q of r[i] goes to element i of piece q of r[j]. */
static ALWAYS_INLINE void transpose_pieces(vec *r)
{
#if REAL_IS_FLOAT
    const vec a = FR_MERGE(r[0], r[1], FR_SINGLES), b = FR_MERGE(r[0], r[1], FR_SINGLES_UP);
    const vec c = FR_MERGE(r[2], r[3], FR_SINGLES), d = FR_MERGE(r[2], r[3], FR_SINGLES_UP);
    r[0] = FR_MERGE(a, c, FR_PAIRS);
    r[1] = FR_MERGE(a, c, FR_PAIRS_UP);
    r[2] = FR_MERGE(b, d, FR_PAIRS);
    r[3] = FR_MERGE(b, d, FR_PAIRS_UP);
#else
    const vec a = r[0];
    r[0] = FR_MERGE(a, r[1], FR_SINGLES);
    r[1] = FR_MERGE(a, r[1], FR_SINGLES_UP);
#endif
}

/* Vector i of each piece of the columns: piece c of rows i, PIECE + i, 2*PIECE + i, ... side by side in r[c*PIECE + i]. */
static ALWAYS_INLINE void load_pieces(vec *r, const REAL *const *row, int i)
{
#if W * REAL_BYTES == 64
    FR_UNROLL_ALL
    for (int half = 0; half < 2; half++) {
        const int at = half * W / 2;
        const vec low = v_load_halves(row[0] + at, row[1] + at), high = v_load_halves(row[2] + at, row[3] + at);
        r[at + i] = FR_MERGE(low, high, FR_EVEN);
        r[at + PIECE + i] = FR_MERGE(low, high, FR_ODD);
    }
#elif W * REAL_BYTES == 32
    r[i] = v_load_halves(row[0], row[1]);
    r[PIECE + i] = v_load_halves(row[0] + PIECE, row[1] + PIECE);
#else
    r[i] = v_load(row[0]);
#endif
}
#undef FR_MERGE
#undef FR_PAIRS_UP
#undef FR_PAIRS
#undef FR_SINGLES_UP
#undef FR_SINGLES
#undef FR_ODD
#undef FR_EVEN
#undef FR_LANES
#endif

/* The rows of a block of W: row q*PIECE + i is at p[q] + i*ld. A few pointers, which stay in registers. */
typedef struct {
    const REAL *p[PIECES];
} block_rows;

/* What compilers should not know of a pointer, or they keep an address for each row and column, in memory. */
static ALWAYS_INLINE const REAL *opaque(const REAL *p)
{
    __asm__("" : "+r"(p));
    return p;
}

static ALWAYS_INLINE block_rows rows_at(const REAL *first, ptrdiff_t ld)
{
    block_rows b;
    FR_UNROLL_ALL
    for (int q = 0; q < PIECES; q++)
        b.p[q] = opaque(first + q * PIECE * ld);
    return b;
}

static ALWAYS_INLINE void next_columns(block_rows *b)
{
    FR_UNROLL_ALL
    for (int q = 0; q < PIECES; q++)
        b->p[q] += W;
}

/* r[j] lane i = row i column j; the rows' memory `ahead` elements further is prefetched, if that is not 0. */
static ALWAYS_INLINE void load_block_transposed(vec *r, const block_rows *b, ptrdiff_t ld, const int ahead)
{
#ifdef FR_SCALAR
    (void)ld, (void)ahead;
    r[0] = *b->p[0];
#else
    FR_UNROLL_ALL
    for (int i = 0; i < PIECE; i++) {
        const REAL *row[PIECES];
        FR_UNROLL_ALL
        for (int q = 0; q < PIECES; q++) {
            row[q] = opaque(b->p[q] + i * ld);
            if (ahead)
                __builtin_prefetch(row[q] + ahead);
        }
        load_pieces(r, row, i);
    }
    FR_UNROLL_ALL
    for (int c = 0; c < W; c += PIECE)
        transpose_pieces(r + c);
#endif
}

/* ---- panels -------------------------------------------------------------------------------------------- */

/* A panel that is packed row by row, each from rows of memory that are as long: `rest` lanes in the last of its nv vectors. Where a row of
 * a panel is two terms, every second one completes it. */
typedef struct {
    REAL *to;
    int nv;
    ptrdiff_t rest;
#if FR_BF16_PRODUCTS
    const REAL *even; /* a row that waits for its odd one, or NULL */
    ptrdiff_t rows;   /* that are complete */
#endif
} packer;

#if FR_BF16_PRODUCTS
/* The row that comes next. */
static inline REAL *row_of_panel(const packer *p)
{
    return p->to + p->rows / PAIRS * PAIRS * p->nv * W + p->rows % PAIRS * next_row(p->nv);
}

static inline void pack_pair(packer *p, const REAL *odd)
{
    REAL *to = row_of_panel(p);
    for (int v = 0; v < p->nv; v++) {
        const ptrdiff_t lanes = v + 1 < p->nv ? W : p->rest;
        v_store(to + v * NEXT_VECTOR, v_pair(v_load_n(p->even + v * W, lanes), odd ? v_load_n(odd + v * W, lanes) : v_zero()));
    }
    p->rows++;
    p->even = NULL;
}
static ALWAYS_INLINE void pack_row(packer *p, const REAL *row)
{
    if (p->even)
        pack_pair(p, row);
    else
        p->even = row;
}
/* The end of a sum: zeros up to a whole block. */
static inline void pack_end(packer *p)
{
    if (p->even)
        pack_pair(p, NULL);
    for (; p->rows % PAIRS; p->rows++)
        for (int v = 0; v < p->nv; v++)
            v_store(row_of_panel(p) + v * NEXT_VECTOR, v_zero());
}
#else
static ALWAYS_INLINE void pack_row(packer *p, const REAL *row)
{
    for (int v = 0; v < p->nv - 1; v++)
        v_store(p->to + v * W, v_load(row + v * W));
    v_store(p->to + (p->nv - 1) * W, v_load_n(row + (p->nv - 1) * W, p->rest));
    p->to += p->nv * W;
}
static inline void pack_end(packer *p)
{
    (void)p;
}
#endif

/* dst[j*ldd + i] = src[i*lds + j] for i < rows, j < cols. */
static void transpose(REAL *dst, ptrdiff_t ldd, const REAL *src, ptrdiff_t lds, ptrdiff_t rows, ptrdiff_t cols)
{
    for (ptrdiff_t i = 0; i < rows; i += W) {
        ptrdiff_t j = 0;
        block_rows b = rows_at(src + i * lds, lds);
        for (; i + W <= rows && j + W <= cols; j += W, next_columns(&b)) {
            vec r[W];
            load_block_transposed(r, &b, lds, 0);
            FR_UNROLL_ALL
            for (int k = 0; k < W; k++)
                v_store(dst + (j + k) * ldd + i, r[k]);
        }
        for (; j < cols; j++)
            for (ptrdiff_t k = i; k < fr_min(i + W, rows); k++)
                dst[j * ldd + k] = src[k * lds + j];
    }
}

#if FR_BF16_PRODUCTS
/* Vector v of a panel of nv: K columns of `lanes` rows, zeros in the other lanes and up to a whole block. */
static void pack_transposed(REAL *panel, int v, int nv, const REAL *src, ptrdiff_t lds, ptrdiff_t lanes, ptrdiff_t K)
{
    REAL columns[BLOCK * W], *to = panel + v * NEXT_VECTOR;
    for (ptrdiff_t k = 0; k < K; k += BLOCK, to += PAIRS * nv * W) {
        memset(columns, 0, sizeof columns);
        transpose(columns, W, src + k, lds, lanes, fr_min(BLOCK, K - k));
        for (int i = 0; i < PAIRS; i++)
            v_store(to + i * next_row(nv), v_pair(v_load(columns + 2 * i * W), v_load(columns + (2 * i + 1) * W)));
    }
}
#else
/* Zeros in the lanes [from, W) of a vector that is repeated n times at a distance ld. */
static void clear_lanes(REAL *dst, ptrdiff_t ld, ptrdiff_t n, ptrdiff_t from)
{
    if (from == W)
        return;
    for (ptrdiff_t k = 0; k < n; k++)
        for (ptrdiff_t j = from; j < W; j++)
            dst[k * ld + j] = 0;
}

/* Vector v of a panel of nv: K columns of `lanes` rows, zeros in the other lanes. */
static void pack_transposed(REAL *panel, int v, int nv, const REAL *src, ptrdiff_t lds, ptrdiff_t lanes, ptrdiff_t K)
{
    transpose(panel + v * W, nv * W, src, lds, lanes, K);
    clear_lanes(panel + v * W, nv * W, K, lanes);
}
#endif

#endif
